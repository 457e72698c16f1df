"""Answers: status, headers and body, from what was found. No input or output.

A body is bytes, or a list of parts of a blob, which the application sends. An answer to HEAD has
the headers of GET and an empty body (rule SRV-28).
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, urlencode

from asupplemented.errors import RegistryError, SupplementedError
from asupplemented.limits import MAX_MANIFEST
from asupplemented.model.media_type import OCI_INDEX
from asupplemented.web.ranges import TooManyRangesError, parse_range

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asupplemented.events import CacheUse
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest
    from asupplemented.web.ranges import Span
    from asupplemented.web.request import Page, Refusal, Repository, Request

__all__ = (
    "MAX_PAGE",
    "Answer",
    "BlobParts",
    "Part",
    "answer_blob",
    "answer_error",
    "answer_manifest",
    "answer_ping",
    "answer_referrers",
    "answer_refusal",
    "answer_tags",
    "answer_unauthorized",
    "name_registry",
    "retry_after",
    "tell_cache",
)

Headers = tuple[tuple[str, str], ...]

MAX_PAGE: Final = 10_000
"""The most tags of one page; a larger ``n`` means the same (rule SRV-07)."""

MAX_PAGE_BYTES: Final = MAX_MANIFEST
"""The most bytes of one page (rule SRV-34)."""

MAX_KEPT: Final = 128
"""Manifests whose headers are kept: those that many clients ask for."""

MAX_MEDIA_TYPE: Final = 256
"""Characters of a media type that is sent to clients."""

JSON: Final = "application/json"
OCTETS: Final = "application/octet-stream"
RETRY_AFTER: Final = 5
"""Seconds after which a client may ask again, where upstream does not say."""

_CACHE_HEADERS: Final[dict[str, Headers]] = {
    "": (),
    "hit": (("Cache-Status", "asupplemented; hit"),),
    "joined": (("Cache-Status", "asupplemented; fwd=uri-miss; collapsed"),),
    "miss": (("Cache-Status", "asupplemented; fwd=uri-miss"),),
    "stored": (("Cache-Status", "asupplemented; fwd=uri-miss; stored"),),
    "stale": (("Cache-Status", "asupplemented; fwd=stale"), ("Warning", '299 - "stale"')),
}
"""How a cache was used, in the words of RFC 9211."""

_IMMUTABLE: Final = "max-age=31536000, immutable"
_VERSION: Final = ("Docker-Distribution-Api-Version", "registry/2.0")
_ALLOW: Final = ("Allow", "GET, HEAD")
_MEDIA_TYPE: Final = re.compile(
    r"[A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127}", re.ASCII
)
_BOUNDARY: Final = "asupplemented-part"


class Part(NamedTuple):
    """A piece of a multipart body: its head, and the range that follows."""

    head: bytes
    span: Span


@dataclass(frozen=True, slots=True)
class BlobParts:
    """The body of a blob, to be read from a stream.

    Attributes:
        digest: The blob.
        parts: What to send, in order.
        tail: What follows the last part.
        is_whole: Whether it is all of the blob and nothing else.
    """

    digest: Digest
    parts: tuple[Part, ...]
    tail: bytes = b""
    is_whole: bool = True


class Answer(NamedTuple):
    """Status, headers and body of an answer. ``Content-Length`` is among the headers.

    Attributes:
        status: The HTTP status.
        headers: Names and values.
        body: The bytes; or the parts of a blob.
        length: Bytes of the body; those that GET would have sent, where HEAD was asked.
    """

    status: int
    headers: Headers
    body: bytes | BlobParts = b""
    length: int = 0

    def header(self, name: str) -> str | None:
        """The value of a header by its name, in any case; None without one."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def with_headers(self, *headers: tuple[str, str]) -> Answer:
        """The same answer with further headers."""
        return self._replace(headers=(*self.headers, *headers))


def _answer(
    request: Request,
    status: int,
    headers: Iterable[tuple[str, str]],
    body: bytes | BlobParts,
    size: int,
) -> Answer:
    head = request.method == "HEAD"
    length = ("Content-Length", str(size))
    return Answer(status, (_VERSION, *headers, length), b"" if head else body, size)


def _json(
    request: Request, status: int, value: object, headers: Headers = (), kind: str = JSON
) -> Answer:
    body = json.dumps(value, separators=(",", ":")).encode()
    return _answer(request, status, (("Content-Type", kind), *headers), body, len(body))


# Errors


def answer_refusal(request: Request, refusal: Refusal, *headers: tuple[str, str]) -> Answer:
    """An error in the form of the specification; 405 names the methods (rule SRV-09)."""
    error = {"code": refusal.code, "message": refusal.message, "detail": None}
    allow = (_ALLOW,) if refusal.status == 405 else ()  # noqa: PLR2004
    return _json(request, refusal.status, {"errors": [error]}, (*headers, *allow))


def answer_error(request: Request, error: SupplementedError) -> Answer:
    """What a failure looks like to the client (rule SRV-11)."""
    status = error.http_status
    headers: Headers = ()
    if status in {429, 503}:
        headers = (("Retry-After", str(retry_after(error))),)
    return _json(request, status, error.oci_error(), headers)


def retry_after(error: SupplementedError) -> int:
    """Whole seconds to wait, at least 1 (rule SRV-32)."""
    seconds = error.retry_after if isinstance(error, RegistryError) else None
    attempts: Sequence[SupplementedError] = getattr(error, "attempts", ())
    if seconds is None and attempts:
        return max(map(retry_after, attempts))
    if seconds is None or not math.isfinite(seconds):
        return RETRY_AFTER
    return max(1, math.ceil(seconds))


def answer_unauthorized(request: Request, challenge: str) -> Answer:
    """401 with a challenge of our own (rules SRV-10, SRV-32)."""
    error = {"code": "UNAUTHORIZED", "message": "authentication is required", "detail": None}
    return _json(request, 401, {"errors": [error]}, (("WWW-Authenticate", challenge),))


# Content


def answer_ping(request: Request) -> Answer:
    """This is a registry (rule SRV-01)."""
    return _json(request, 200, {})


def answer_manifest(
    request: Request, manifest: Manifest, *, by_digest: bool, private: bool = False
) -> Answer:
    """A manifest as it is stored, whatever the client accepts (rules SRV-02, SRV-03)."""
    headers = _describe_manifest(
        manifest.media_type[:MAX_MEDIA_TYPE], manifest.digest, by_digest, private
    )
    condition = _check_conditions(request, manifest.digest, headers)
    if condition is not None:
        return condition
    return _answer(request, 200, headers, manifest.raw, len(manifest.raw))


@lru_cache(MAX_KEPT)
def _describe_manifest(
    media_type: str,
    digest: Digest,
    by_digest: bool,  # noqa: FBT001 - a key of the cache
    private: bool,  # noqa: FBT001
) -> Headers:
    kind = media_type.partition(";")[0].strip()
    return (
        *_identify(digest, immutable=by_digest, private=private),
        ("Content-Type", kind if _MEDIA_TYPE.fullmatch(kind) else OCTETS),
    )


def answer_blob(request: Request, digest: Digest, size: int, *, private: bool = False) -> Answer:
    """A blob, or ranges of it (rules SRV-05, SRV-06, SRV-28 to SRV-30)."""
    identity = _identify(digest, immutable=True, private=private)
    headers = (
        *identity,
        ("Content-Type", OCTETS),
        ("Accept-Ranges", "bytes"),
        ("X-Accel-Buffering", "no"),
    )
    condition = _check_conditions(request, digest, headers)
    if condition is not None:
        return condition
    try:
        spans = _ranges_of(request, digest, size)
    except TooManyRangesError:
        message = "ask for up to 1024 ranges, in ascending order and without overlaps"
        error = {"code": "RANGE_INVALID", "message": message, "detail": None}
        return _json(request, 400, {"errors": [error]})
    if spans is None:
        whole = BlobParts(digest, (Part(b"", (0, size)),))
        return _answer(request, 200, headers, whole, size)
    if not spans:
        message = f"the blob has {size} bytes"
        error = {"code": "RANGE_INVALID", "message": message, "detail": None}
        unsatisfied = ("Content-Range", f"bytes */{size}")
        return _json(request, 416, {"errors": [error]}, (*identity, unsatisfied))
    if len(spans) > 1:
        return _answer_parts(request, digest, size, spans, headers)
    ((start, end),) = spans
    headers = (*headers, ("Content-Range", f"bytes {start}-{end - 1}/{size}"))
    parts = BlobParts(digest, (Part(b"", (start, end)),), is_whole=False)
    return _answer(request, 206, headers, parts, end - start)


def _identify(digest: Digest, *, immutable: bool, private: bool) -> Headers:
    """The headers of content with a digest, also of 304 (rules SRV-29, SRV-33)."""
    cached = _IMMUTABLE if immutable else "no-cache"
    return (
        ("Docker-Content-Digest", str(digest)),
        ("ETag", f'"{digest}"'),
        ("Cache-Control", f"private, {cached}" if private else cached),
    )


def _check_conditions(request: Request, digest: Digest, headers: Headers) -> Answer | None:
    """The answer that a precondition asks for, in the order of RFC 9110, 13.2.2 (rule SRV-29)."""
    required = request.header("if-match")
    if required is not None and not _matches(required, digest, weak=False):
        error = {
            "code": "PRECONDITION_FAILED",
            "message": "the content is another one",
            "detail": None,
        }
        return _json(request, 412, {"errors": [error]})
    known = request.header("if-none-match")
    if known is None or not _matches(known, digest, weak=True):
        return None
    kept = {"etag", "cache-control", "docker-content-digest"}
    return Answer(304, (_VERSION, *(each for each in headers if each[0].lower() in kept)))


def _matches(header: str, digest: Digest, *, weak: bool) -> bool:
    """Whether a list of entity tags names the content. A bare digest counts as its tag."""
    tags = [tag.strip() for tag in header.split(",")]
    if weak:
        tags = [tag.removeprefix("W/") for tag in tags]
    return tags == ["*"] or not {f'"{digest}"', str(digest)}.isdisjoint(tags)


def _ranges_of(request: Request, digest: Digest, size: int) -> list[Span] | None:
    header = request.header("range")
    if header is None or size == 0 or request.method == "HEAD":
        return None
    condition = request.header("if-range")
    if condition is not None and condition.strip() != f'"{digest}"':
        return None
    return parse_range(header, size)


def _answer_parts(
    request: Request, digest: Digest, size: int, spans: Sequence[Span], headers: Headers
) -> Answer:
    parts: list[Part] = []
    length = 0
    for start, end in spans:
        head = (
            f"\r\n--{_BOUNDARY}\r\nContent-Type: {OCTETS}\r\n"
            f"Content-Range: bytes {start}-{end - 1}/{size}\r\n\r\n"
        ).encode()
        parts.append(Part(head, (start, end)))
        length += len(head) + end - start
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    kind = ("Content-Type", f"multipart/byteranges; boundary={_BOUNDARY}")
    others = (each for each in headers if each[0] != "Content-Type")
    body = BlobParts(digest, tuple(parts), tail, is_whole=False)
    return _answer(request, 206, (*others, kind), body, length + len(tail))


# Lists


def answer_tags(
    request: Request, repository: Repository, tags: Iterable[str], page: Page
) -> Answer:
    """A page of tags, in the order of ASCII (rule SRV-07)."""
    found = sorted(set(tags))
    if page.last is not None:
        found = [tag for tag in found if tag > page.last]
    count = MAX_PAGE if page.limit is None else min(page.limit, MAX_PAGE)
    shown = found[:count]
    link: Headers = ()
    if shown and len(shown) < len(found):
        fields = {"last": shown[-1], "n": str(count)}
        link = (_link(request, repository, "tags/list", fields),)
    value = {"name": repository.path, "tags": shown}
    return _json(request, 200, value, (("Cache-Control", "no-cache"), *link))


def answer_referrers(
    request: Request,
    repository: Repository,
    subject: Digest,
    descriptors: Iterable[Descriptor],
    page: Page,
    artifact_type: str | None,
) -> Answer:
    """A page of referrers, by digest, so that a list that grows shifts no page (rule SRV-08)."""
    found = {each.digest: each for each in descriptors}
    if artifact_type is not None:
        found = {key: each for key, each in found.items() if each.artifact_type == artifact_type}
    left = sorted(digest for digest in found if page.last is None or digest > page.last)
    shown: list[object] = []
    size = 0
    for digest in left[: page.limit]:
        entry = found[digest].to_dict()
        size += len(json.dumps(entry, separators=(",", ":"))) + 1
        if shown and size > MAX_PAGE_BYTES - 1024:
            break
        shown.append(entry)
    headers: Headers = (("Cache-Control", "no-cache"),)
    if artifact_type is not None:
        headers = (*headers, ("OCI-Filters-Applied", "artifactType"))
    if shown and len(shown) < len(left):
        fields = {"last": left[len(shown) - 1]}
        if page.limit is not None:
            fields["n"] = str(page.limit)
        if artifact_type is not None:
            fields["artifactType"] = artifact_type
        headers = (*headers, _link(request, repository, f"referrers/{subject}", fields))
    value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": shown}
    return _json(request, 200, value, headers, OCI_INDEX)


def _link(
    request: Request, repository: Repository, path: str, fields: dict[str, str]
) -> tuple[str, str]:
    """The next page, relative to the host, with what was asked for (rule SRV-35)."""
    if repository.namespace is not None:
        fields = {**fields, "ns": repository.namespace}
    query = urlencode(fields, quote_via=quote)
    return ("Link", f'<{request.base}/{repository.path}/{path}?{query}>; rel="next"')


def tell_cache(
    answer: Answer, use: CacheUse, *, stored: bool = False, age: float | None = None
) -> Answer:
    """Say where the content of an answer comes from, without names (rule SRV-33).

    Args:
        answer: The answer.
        use: How the cache was used; "" says nothing.
        stored: Whether the cache keeps what was fetched.
        age: Seconds since upstream was asked for the tag; None for what never changes.
    """
    headers = _CACHE_HEADERS["stored" if stored and use == "miss" else use]
    if age is not None:
        headers = (("Age", str(int(age))), *headers)
    return answer.with_headers(*headers) if headers else answer


def name_registry(answer: Answer, repository: Repository) -> Answer:
    """Say for which registry the answer is, if the client named one (rule SRV-14)."""
    if repository.namespace is None:
        return answer
    return answer.with_headers(("OCI-Namespace", repository.namespace))
