"""What a credential file holds, and which entry of it is meant (rules FILE-06 to FILE-11).

No I/O. Reprs show nothing of what is held.

What files and helpers have in common: JSON that holds secrets.

What is wrong with it is told without a word of it (rule CRED-07).
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from typing import Final, NamedTuple, TypeVar

import msgspec

from asupplemented.errors import ConfigurationError, MalformedManifestError
from asupplemented.model import strict_json
from asupplemented.model.credential import Credential, lookup_order

__all__ = (
    "AuthDocument",
    "Entry",
    "Finding",
    "HelperCall",
    "decode_secrets",
    "make_credential",
    "parse_auth_file",
    "search",
)

T = TypeVar("T", bound=msgspec.Struct)


def decode_secrets(
    raw: bytes, kind: type[T], what: str, *, field: str | None = None, trailing: bool = False
) -> T:
    """Decode one JSON object, strictly.

    Args:
        raw: The bytes of the document.
        kind: A struct whose fields all have defaults.
        what: What the document is, for the error.
        field: The field of `kind` that the document is the value of; None for the whole of it.
        trailing: Ignore what follows the object.

    Raises:
        ConfigurationError: It is no such object, or a key is there twice or almost a known one.
            Neither the error nor its context holds anything of the document.
    """
    try:
        tree = strict_json.load(raw, trailing=trailing)
        return strict_json.convert(tree if field is None else {field: tree}, kind)
    except MalformedManifestError as error:
        fault = _describe(error.__cause__)
    # Not while the other one is handled, for that quotes the document, and would be its context.
    message = f"{what} {fault}"
    raise ConfigurationError(message)


def make_credential(
    username: str, password: str, *, identity_token: str = "", registry_token: str = ""
) -> Credential | None:
    """The credential that fields say, of which those that are empty say nothing.

    Returns:
        None if nothing is said.

    Raises:
        ConfigurationError: A field cannot be sent; it is not shown.
    """
    if not (username or password or identity_token or registry_token):
        return None
    return Credential(
        username if username or password else None,
        password or None,
        registry_token or None,
        identity_token or None,
    )


def _describe(cause: BaseException | None) -> str:
    match cause:
        case json.JSONDecodeError(lineno=line, colno=column):
            return f"is not JSON: see line {line}, column {column}"
        case msgspec.ValidationError():
            return f"has a value of the wrong type: {cause}"
        case _:
            return "is no JSON object, is nested too deep, or has a key twice or in the wrong case"


HUB: Final = "index.docker.io"
"""The name by which files know Docker Hub."""
HUB_URL: Final = "https://index.docker.io/v1/"
"""The name by which docker's own helpers know it."""

_BASE64: Final = re.compile(
    r"(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII
)

_HUBS: Final = frozenset({"docker.io", "registry-1.docker.io", HUB})


class Entry(
    msgspec.Struct,
    frozen=True,
    rename={"identity_token": "identitytoken", "registry_token": "registrytoken"},
):
    """The value of one key of ``auths``."""

    auth: str = ""
    identity_token: str = ""
    registry_token: str = ""
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return "<Entry>"


class AuthDocument(msgspec.Struct, frozen=True, rename="camel"):
    """An auth.json or config.json, so far as it is about credentials."""

    auths: dict[str, Entry] = {}
    cred_helpers: dict[str, str] = {}
    creds_store: str = ""

    def __repr__(self) -> str:
        return f"<AuthDocument with {len(self.auths)} entries>"


class HelperCall(NamedTuple):
    """A helper that knows more."""

    suffix: str
    """Its program is ``docker-credential-SUFFIX``."""
    server: str
    """What it is asked for."""


class Finding(NamedTuple):
    """What a file says of a registry."""

    helper: HelperCall | None = None
    """To be asked first."""
    credential: Credential | None = None
    """What counts if there is no helper, or it knows nothing."""
    warning: str | None = None
    """What the operator should know."""


def parse_auth_file(raw: bytes, place: str, *, legacy: bool = False) -> AuthDocument:
    """Read a credential file.

    Args:
        raw: What is in it.
        place: Its path, for errors.
        legacy: It is a .dockercfg, which is the value of ``auths`` and nothing else.

    Raises:
        ConfigurationError: It is empty or no such file (rule FILE-05).
    """
    if not raw.strip():
        message = f"the credential file {place} is empty; remove it, or write {{}} to it"
        raise ConfigurationError(message)
    what = f"the credential file {place}"
    return decode_secrets(raw, AuthDocument, what, field="auths" if legacy else None)


def search(
    document: AuthDocument, name: str, place: str, *, legacy: bool = False, docker: bool = False
) -> Finding:
    """Find what a file says of a repository, a namespace or a registry.

    Args:
        document: The file.
        name: As `check_lookup` accepts it.
        place: Its path, for errors and warnings.
        legacy: It is a .dockercfg, which knows registries only (rule FILE-09).
        docker: Take what only docker knows: ``credsStore``, user names and passwords in the
            open, tokens where there is no password (rule FILE-06).

    Raises:
        ConfigurationError: The entry that counts cannot be read.
    """
    registry = name.partition("/")[0]
    helper = _find_helper(document, registry, docker=docker)
    if helper is not None:
        return Finding(helper)
    store = _find_store(document, registry) if docker else None
    entry = _find_entry(document, name, legacy=legacy)
    if entry is None:
        return Finding(store)
    try:
        credential, fault = _read_entry(entry, docker=docker)
    except ConfigurationError as error:
        message = f"the entry for {name} in {place} cannot be used: {error.message}"
        raise ConfigurationError(message) from None
    warning = f"the entry for {name} in {place} is passed over: {fault}" if fault else None
    return Finding(store, credential, warning)


def _find_helper(document: AuthDocument, registry: str, *, docker: bool) -> HelperCall | None:
    """The helper that is named for a registry, and for no other (rule FILE-11)."""
    if registry in document.cred_helpers:
        return HelperCall(document.cred_helpers[registry], registry)
    if docker and registry in _HUBS:
        for key in (HUB_URL, HUB):
            if key in document.cred_helpers:
                return HelperCall(document.cred_helpers[key], HUB_URL)
    return None


def _find_store(document: AuthDocument, registry: str) -> HelperCall | None:
    """The helper that is named for all registries."""
    if not document.creds_store:
        return None
    return HelperCall(document.creds_store, HUB_URL if registry in _HUBS else registry)


def _find_entry(document: AuthDocument, name: str, *, legacy: bool) -> Entry | None:
    """The entry that counts for a name (rules FILE-08, FILE-09).

    Keys that equal the name go first, then those that equal a shorter one. After them URLs, and
    the other names of Docker Hub, count for their host: the first of them in the file.
    """
    registry = name.partition("/")[0]
    for key in (registry,) if legacy else lookup_order(name):
        if key in document.auths:
            return document.auths[key]
    wanted = _normalize(registry)
    for key, entry in document.auths.items():
        if _host_of(key, legacy=legacy) == wanted:
            return entry
    return None


def _read_entry(entry: Entry, *, docker: bool) -> tuple[Credential | None, str | None]:
    """The credential of an entry, and why it is not the one that was meant (rule FILE-07)."""
    raw = _decode(entry.auth)
    pair = _split(raw)
    fault = "its 'auth' has no colon" if raw and pair is None else None
    if pair is None and docker:
        pair = (entry.username, entry.password)
    if pair is None:
        return None, fault
    registry_token = entry.registry_token if docker else ""
    credential = make_credential(
        *pair, identity_token=entry.identity_token, registry_token=registry_token
    )
    return credential, fault


def _decode(auth: str) -> bytes:
    """What is behind an ``auth``. Line breaks in it are passed over, as Go does."""
    bare = auth.replace("\r", "").replace("\n", "")
    if _BASE64.fullmatch(bare) is None:
        raise ConfigurationError("its 'auth' is not base64")
    return base64.b64decode(bare)


def _split(raw: bytes) -> tuple[str, str] | None:
    """User name and password; None without a colon."""
    if b":" not in raw:
        return None
    with suppress(UnicodeDecodeError):
        username, _, password = raw.decode("utf-8").partition(":")
        return username, password.strip("\0")
    # Not while the other one is handled, for that holds the text, and would be its context.
    raise ConfigurationError("its 'auth' is not base64 of UTF-8")


def _host_of(key: str, *, legacy: bool) -> str:
    """The host of a key. What has a path but no scheme is not cut, and equals no host."""
    bare = key.removeprefix("http://").removeprefix("https://")
    return _normalize(bare.partition("/")[0] if legacy or bare != key else bare)


def _normalize(registry: str) -> str:
    return HUB if registry in _HUBS else registry
