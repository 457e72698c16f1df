"""Requests, and what they ask for: paths, names, digests and queries. No input or output.

The path is read as the client wrote it, by the grammar of the distribution specification, so that
nothing that a decoder would turn into a slash or a dot reaches a lookup (rule SRV-17).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import parse_qsl

from asupplemented.errors import InvalidDigestError, InvalidReferenceError
from asupplemented.model.digest import Digest
from asupplemented.model.name import DEFAULT_REGISTRY, MAX_NAME, ImageName, is_tag

__all__ = (
    "BlobTarget",
    "ManifestTarget",
    "Page",
    "Ping",
    "ReferrersTarget",
    "Refusal",
    "Repository",
    "Request",
    "TagsTarget",
    "Target",
    "plan",
    "strip_mount",
)

_COMPONENT: Final = r"[a-z0-9]++(?:(?:\.|__?|-++)[a-z0-9]++)*+"
_NAME: Final = re.compile(
    rf"(?:[a-z0-9]++(?:[.-]++[a-z0-9]++)*+:[0-9]{{1,5}}+/)?{_COMPONENT}(?:/{_COMPONENT})*+",
    re.ASCII,
)
"""A name; its first part may be a registry with a port (rule SRV-16)."""

_NUMBER: Final = re.compile(r"[0-9]++", re.ASCII)
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*+://[^/?#]*+", re.ASCII | re.IGNORECASE)
_DOCKER_HUB: Final = frozenset(("docker.io", "index.docker.io", "registry-1.docker.io"))
_DEFAULT_PORT: Final = ":443"
_MAX_DIGITS: Final = 9
_MAX_FIELDS: Final = 32
_MAX_QUERY: Final = 8192
_MAX_KEPT: Final = 128
"""Paths whose reading is kept: those that many clients ask for."""
_MAX_KEPT_PATH: Final = 1024
"""Characters of a path with its query whose reading is kept."""
_METHODS: Final = frozenset(("GET", "HEAD"))


class Request(NamedTuple):
    """What the client sent, bodies aside.

    Attributes:
        method: In capitals.
        path: Below the root of the endpoint, as the client wrote it: "" or "/", or
            "/team/app/tags/list". None if it is elsewhere.
        query: As the client wrote it, without the question mark.
        headers: Lower-case names and values, in the order of the lines.
        base: The path of the root, which links begin with.
        client: The address of the client, or None.
        scheme: "http" or "https", as the server sees it.
    """

    method: str
    path: str | None
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    base: str = "/v2"
    client: str | None = None
    scheme: str = "http"

    def header(self, name: str) -> str | None:
        """The value of a header by its lower-case name, all lines joined; None without one."""
        found: str | None = None
        for key, value in self.headers:
            if key == name:
                found = value if found is None else f"{found}, {value}"
        return found


class Refusal(NamedTuple):
    """Why a request is refused before anything is looked up."""

    status: int
    code: str
    message: str


class Repository(NamedTuple):
    """A name, and the registry that it belongs to."""

    name: str
    """Without the registry, if the client named that."""
    registry: str | None
    """As the catalog knows it; None if the client named none."""
    path: str
    """The name as it is in the path, for links."""
    namespace: str | None
    """The ``ns`` of the query as the client wrote it (rule SRV-14)."""


class Page(NamedTuple):
    """A part of a list."""

    limit: int | None
    """The most entries that the client wants; None if it does not say."""
    last: str | None
    """The last entry that the client has."""


class Ping(NamedTuple):
    """Whether this is a registry."""


class ManifestTarget(NamedTuple):
    """A manifest by tag or digest."""

    repository: Repository
    reference: str
    digest: Digest | None
    """None for a tag."""


class BlobTarget(NamedTuple):
    """A blob."""

    repository: Repository
    digest: Digest


class TagsTarget(NamedTuple):
    """A page of tags."""

    repository: Repository
    page: Page


class ReferrersTarget(NamedTuple):
    """A page of referrers."""

    repository: Repository
    digest: Digest
    artifact_type: str | None
    page: Page


Target: TypeAlias = Ping | ManifestTarget | BlobTarget | TagsTarget | ReferrersTarget

_ELSEWHERE: Final = Refusal(404, "UNSUPPORTED", "this registry has no such endpoint")
_WRITES: Final = Refusal(405, "UNSUPPORTED", "this registry is read-only")
_NO_NAME: Final = Refusal(400, "NAME_INVALID", "the path holds no valid name of a repository")
_NO_DIGEST: Final = Refusal(400, "DIGEST_INVALID", "the path holds no valid digest")
_NO_TAG: Final = Refusal(404, "MANIFEST_UNKNOWN", "no manifest can have this tag")
_NO_NUMBER: Final = Refusal(
    400, "PAGINATION_NUMBER_INVALID", "n is the number of entries to list, 0 or more"
)
_NO_QUERY: Final = Refusal(400, "UNSUPPORTED", "the query is too long or cannot be read")
_TWO_LENGTHS: Final = Refusal(
    400, "UNSUPPORTED", "a request has Content-Length or Transfer-Encoding, not both"
)
_NO_NAMESPACE: Final = Refusal(400, "NAME_INVALID", "ns is one registry: host, or host:port")
_TWO_REGISTRIES: Final = Refusal(400, "NAME_INVALID", "path and ns name different registries")


class _RefusedError(Exception):
    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


def strip_mount(target: str, mount: str) -> tuple[str | None, str]:
    """Find the path below the root of the endpoint.

    An endpoint that is mounted at a path that ends in ``/v2`` has its root there; elsewhere its
    root is ``/v2`` below (rule SRV-42). The host of a target in absolute form is ignored (rule
    SRV-17).

    Args:
        target: The path as the client wrote it, with or without the query.
        mount: Where the application is mounted, "" for nowhere.

    Returns:
        The path, None if it is outside of the root; and the root.
    """
    path = target.partition("?")[0]
    if not path.startswith("/"):
        path = _ORIGIN.sub("", path, count=1)
    mount = mount.rstrip("/")
    root = mount if mount.endswith("/v2") else f"{mount}/v2"
    rest = path.removeprefix(root)
    if len(rest) == len(path) or (rest and not rest.startswith("/")):
        return None, root
    return rest, root


def plan(request: Request) -> Target | Refusal:
    """Read what a request asks for (rules SRV-04, SRV-07, SRV-09, SRV-14 to SRV-17).

    Nothing that a header says changes the method.
    """
    if request.method not in _METHODS:
        return _WRITES
    if request.header("transfer-encoding") is not None and request.header("content-length"):
        return _TWO_LENGTHS  # some servers read it, and what is before them may read another one
    path = request.path or ""
    read = _read_kept if len(path) + len(request.query) <= _MAX_KEPT_PATH else _read
    return read(request.path, request.query)


def _read(path: str | None, query: str) -> Target | Refusal:
    try:
        return _read_target(path, query)
    except _RefusedError as error:
        return error.refusal


_read_kept: Final = lru_cache(_MAX_KEPT)(_read)


def _read_target(path: str | None, text: str) -> Target:
    if path in {"", "/"}:
        return Ping()
    name, kind, last = _split(path)
    query = _read_query(text)
    repository = _read_repository(name, query.get("ns", []))
    if kind == "manifests":
        return _read_manifest(repository, last)
    if kind == "blobs":
        return BlobTarget(repository, _read_digest(last))
    page = Page(_read_count(query.get("n", [])), next(iter(query.get("last", [])), None))
    if kind == "referrers":
        artifact_type = next(iter(query.get("artifactType", [])), None) or None
        return ReferrersTarget(repository, _read_digest(last), artifact_type, page)
    return TagsTarget(repository, page)


def _split(path: str | None) -> tuple[str, str, str]:
    """Name, kind and the last part of a path (rule SRV-17)."""
    parts = (path or "").split("/")[1:]
    if not {"", ".", ".."}.isdisjoint(parts):
        raise _RefusedError(_NO_NAME)
    *name, kind, last = ("", "", *parts)
    if kind in {"manifests", "blobs", "referrers"} or (kind, last) == ("tags", "list"):
        return "/".join(name[2:]), kind, last
    raise _RefusedError(_NO_NAME if "%" in (path or "") else _ELSEWHERE)


def _read_query(query: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    if not query:
        return found
    try:
        if len(query) > _MAX_QUERY:
            raise _RefusedError(_NO_QUERY)
        for key, value in parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_FIELDS):
            found.setdefault(key, []).append(value)
    except ValueError:
        raise _RefusedError(_NO_QUERY) from None
    return found


def _read_repository(path: str, namespaces: list[str]) -> Repository:
    if len(path) > MAX_NAME or _NAME.fullmatch(path) is None:
        raise _RefusedError(_NO_NAME)
    name = path
    first, slash, rest = path.partition("/")
    if not namespaces:
        if slash and "/" not in rest and first in _DOCKER_HUB:
            name = f"{DEFAULT_REGISTRY}/library/{rest}"
        return Repository(name, None, path, None)
    registry = _read_namespace(namespaces)
    if slash and ("." in first or ":" in first or first == "localhost"):
        if _normalize(first) != registry:
            raise _RefusedError(_TWO_REGISTRIES)
        name = rest
    if registry == DEFAULT_REGISTRY and "/" not in name:
        name = f"library/{name}"
    return Repository(name, registry, path, namespaces[0])


def _read_namespace(namespaces: list[str]) -> str:
    """The registry that ``ns`` names: a key into the catalog, never an address (rule SRV-15)."""
    if len(namespaces) > 1:
        raise _RefusedError(_NO_NAMESPACE)
    registry = _normalize(namespaces[0])
    try:
        ImageName(registry, "name")
    except InvalidReferenceError:
        raise _RefusedError(_NO_NAMESPACE) from None
    return registry


def _normalize(registry: str) -> str:
    registry = registry.lower().removesuffix(_DEFAULT_PORT)
    return DEFAULT_REGISTRY if registry in _DOCKER_HUB else registry


def _read_manifest(repository: Repository, reference: str) -> ManifestTarget:
    if ":" in reference or "%" in reference:
        digest = _read_digest(reference)
        return ManifestTarget(repository, digest, digest)
    if not is_tag(reference):
        raise _RefusedError(_NO_TAG)
    return ManifestTarget(repository, reference, None)


def _read_digest(text: str) -> Digest:
    """A digest, whose colon may be encoded (rule SRV-17)."""
    try:
        return Digest(text.replace("%3A", ":", 1).replace("%3a", ":", 1))
    except InvalidDigestError:
        raise _RefusedError(_NO_DIGEST) from None


def _read_count(numbers: list[str]) -> int | None:
    if not numbers:
        return None
    if len(numbers) > 1 or _NUMBER.fullmatch(numbers[0]) is None:
        raise _RefusedError(_NO_NUMBER)
    # More digits than any list has entries: a larger number means the same.
    return int(numbers[0]) if len(numbers[0]) <= _MAX_DIGITS else 10**_MAX_DIGITS
