"""The format of auth files, and which entry is used for a name (rules FILE-06 to FILE-11). No I/O.

Other programs own these files, so only what is looked up has to be well-formed (rule FILE-01):
unknown keys are ignored, a key in another case counts if the exact one is missing, of a key that
is there twice the last value counts, and the entries of other registries are not looked at.

Errors and reprs quote nothing of a document, because it holds secrets (rule CRED-07). The decoder
serves the answers of credential helpers, too.
"""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import msgspec

from asupplemented.errors import ConfigurationError, MalformedManifestError
from asupplemented.model import strict_json
from asupplemented.model.credential import Credential, lookup_order

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = (
    "AuthDocument",
    "Entry",
    "HelperCall",
    "LookupResult",
    "decode_secrets",
    "find_credential",
    "find_helper",
    "find_keys",
    "make_credential",
    "parse_auth_file",
)

T = TypeVar("T", bound=msgspec.Struct)


def decode_secrets(
    raw: bytes, kind: type[T], what: str, *, field: str | None = None, trailing: bool = False
) -> T:
    """Decode one JSON object. Its keys are read as other programs read them (rule FILE-01).

    Args:
        raw: The bytes of the document.
        kind: A struct whose fields all have defaults.
        what: A name of the document, for the error.
        field: The field of `kind` whose value the document is; None if it is the whole struct.
        trailing: Ignore bytes after the object.

    Raises:
        ConfigurationError: The document is malformed. Neither the error nor its context holds a
            part of the document.
    """
    try:
        tree = strict_json.load(raw, trailing=trailing, duplicates=True)
        return _convert(tree if field is None else {field: tree}, kind)
    except MalformedManifestError as error:
        fault = _describe(error.__cause__)
    # Not within the handler: its exception quotes the document, and would become the context.
    message = f"{what} {fault}"
    raise ConfigurationError(message)


def make_credential(
    username: str, password: str, *, identity_token: str = "", registry_token: str = ""
) -> Credential | None:
    """Make a credential of fields. An empty field counts as not given, except in half a login.

    Returns:
        None if all fields are empty.

    Raises:
        ConfigurationError: A field holds a character that cannot be sent; it is not shown.
    """
    if not (username or password or identity_token or registry_token):
        return None
    return Credential(
        username if username or password else None,
        password if password or not (identity_token or registry_token) else None,
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
            return "is not a JSON object, or nests too deep"


def _convert(tree: dict[str, strict_json.Json], kind: type[T]) -> T:
    """Convert the fields of a struct: each by its exact key, else by the last one in another case.

    Raises:
        MalformedManifestError: A field has the wrong type.
    """
    names = {strict_json.fold(name): name for name in kind.__struct_encode_fields__}
    found = {names[fold]: tree[key] for key in tree if (fold := strict_json.fold(key)) in names}
    exact = {name: tree[name] for name in names.values() if name in tree}
    return strict_json.convert(found | exact, kind)


HUB: Final = "index.docker.io"
"""The name of Docker Hub in auth files."""
HUB_URL: Final = "https://index.docker.io/v1/"
"""The name of Docker Hub for the helpers of docker."""

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
    """The fields of an auth.json or config.json that hold credentials."""

    auths: dict[str, Any] = {}
    """Entries as they are: `find_credential` converts the one that it needs."""
    cred_helpers: dict[str, Any] = {}
    creds_store: Any = ""

    def __repr__(self) -> str:
        return f"<AuthDocument with {len(self.auths)} entries>"


class HelperCall(NamedTuple):
    """The helper to ask, and its argument."""

    suffix: str
    """Its program is ``docker-credential-SUFFIX``."""
    server: str
    """The registry to ask it for."""


class LookupResult(NamedTuple):
    """What an auth file holds for a name."""

    helper: HelperCall | None = None
    """The helper to ask first."""
    credential: Credential | None = None
    """The credential if there is no helper, or it has none."""
    warning: str | None = None
    """A problem that the operator should know."""


def parse_auth_file(raw: bytes, place: str, *, legacy: bool = False) -> AuthDocument:
    """Parse an auth file.

    Args:
        raw: Its bytes.
        place: Its path, for errors.
        legacy: It is a .dockercfg, which is only the value of ``auths``.

    Raises:
        ConfigurationError: It is empty or malformed (rule FILE-05).
    """
    if not raw.strip():
        message = f"the auth file {place} is empty; remove it, or write {{}} to it"
        raise ConfigurationError(message)
    what = f"the auth file {place}"
    return decode_secrets(raw, AuthDocument, what, field="auths" if legacy else None)


def find_credential(
    document: AuthDocument, name: str, place: str, *, legacy: bool = False, docker: bool = False
) -> LookupResult:
    """Find the credential of a repository, a namespace or a registry in an auth file.

    Args:
        document: The file.
        name: A name that `check_lookup` accepts.
        place: The path of the file, for errors and warnings.
        legacy: It is a .dockercfg, which holds credentials of registries only (rule FILE-09).
        docker: Read fields that only docker reads: ``credsStore``, user names and passwords in
            plain text, tokens without a password (rule FILE-06).

    Raises:
        ConfigurationError: The entry for the name is malformed.
    """
    registry = name.partition("/")[0]
    store = None
    try:
        helper = _find_helper(document, registry, docker=docker)
        if helper is not None:
            return LookupResult(helper)
        store = _find_default_helper(document, registry) if docker else None
        entry = _find_entry(document, name, legacy=legacy)
        if entry is None:
            return LookupResult(store)
        credential, fault = _read_entry(entry, docker=docker)
    except ConfigurationError as error:
        message = f"the entry for {name} in {place} cannot be used: {error.message}"
        raise ConfigurationError(message) from None
    warning = f"the entry for {name} in {place} is ignored: {fault}" if fault else None
    return LookupResult(store, credential, warning)


def find_helper(document: AuthDocument, registry: str) -> HelperCall | None:
    """The helper that keeps the credential of a registry, as docker chooses it.

    Raises:
        ConfigurationError: The file names it by something that is no text.
    """
    helper = _find_helper(document, registry, docker=True)
    return helper or _find_default_helper(document, registry)


def find_keys(auths: Iterable[str], name: str) -> list[str]:
    """The keys under which ``auths`` has the credential of exactly this name."""
    if "/" in name:
        return [key for key in auths if key == name]
    wanted = _normalize(name)
    return [key for key in auths if key == name or _host_of(key, legacy=False) == wanted]


def _find_helper(document: AuthDocument, registry: str, *, docker: bool) -> HelperCall | None:
    """The helper of exactly this registry (rule FILE-11)."""
    if registry in document.cred_helpers:
        return _call(document.cred_helpers[registry], registry)
    if docker and registry in _HUBS:
        for key in (HUB_URL, HUB):
            if key in document.cred_helpers:
                return _call(document.cred_helpers[key], HUB_URL)
    return None


def _call(suffix: object, server: str) -> HelperCall:
    if not isinstance(suffix, str):
        raise ConfigurationError("its helper is not a text")
    return HelperCall(suffix, server)


def _find_default_helper(document: AuthDocument, registry: str) -> HelperCall | None:
    """The helper of all registries, ``credsStore``."""
    if not document.creds_store:
        return None
    return _call(document.creds_store, HUB_URL if registry in _HUBS else registry)


def _find_entry(document: AuthDocument, name: str, *, legacy: bool) -> Entry | None:
    """The entry for a name (rules FILE-08, FILE-09).

    A key that equals the name goes first, then a key that equals a parent of it. After them the
    first key of the file whose host matches is used: a URL, or another name of Docker Hub.
    """
    registry = name.partition("/")[0]
    for key in (registry,) if legacy else lookup_order(name):
        if key in document.auths:
            return _parse_entry(document.auths[key])
    wanted = _normalize(registry)
    for key, entry in document.auths.items():
        if _host_of(key, legacy=legacy) == wanted:
            return _parse_entry(entry)
    return None


def _parse_entry(tree: strict_json.Json) -> Entry:
    with suppress(MalformedManifestError):
        if tree is None:
            return Entry()
        if isinstance(tree, dict):
            return _convert(tree, Entry)
    # Not within the handler: its exception quotes the entry, and would become the context.
    raise ConfigurationError("it is not an object of texts")


def _read_entry(entry: Entry, *, docker: bool) -> tuple[Credential | None, str | None]:
    """The credential of an entry, and why its ``auth`` was ignored, if it was (rule FILE-07)."""
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
    """Decode an ``auth``. Line breaks in it are ignored, as Go does."""
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
    # Not within the handler: its exception holds the text, and would become the context.
    raise ConfigurationError("its 'auth' is not base64 of UTF-8")


def _host_of(key: str, *, legacy: bool) -> str:
    """The host of a key. A key with a path but without a scheme is left whole: it is no host."""
    bare = key.removeprefix("http://").removeprefix("https://")
    return _normalize(bare.partition("/")[0] if legacy or bare != key else bare)


def _normalize(registry: str) -> str:
    return HUB if registry in _HUBS else registry
