"""The read side of a registry without the network: correct answers, byte ranges included."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from asupplemented.errors import InvalidDigestError
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import OCI_INDEX
from asupplemented.testing.exchange import JSON, Answer, fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.testing.exchange import Request

__all__ = ("Content", "Repository", "apply_range", "parse_ranges")

BOUNDARY: Final = "THIS_STRING_SEPARATES"

_SPEC: Final = re.compile(r"\s*(?:([0-9]+)-([0-9]*)|-([0-9]+))\s*")


def parse_ranges(header: str, size: int) -> list[tuple[int, int]] | None:
    """Parse a ``Range`` header into spans ``[start, end)`` (rule SRV-06).

    Returns:
        The spans that begin within the content, in the order of the header and clamped to the
        end; an empty list if there are none; None if the header is malformed or not in bytes.
    """
    unit, _, specs = header.partition("=")
    spans = [_parse_spec(spec, size) for spec in specs.split(",")]
    if unit.strip().lower() != "bytes" or None in spans:
        return None
    return [span for span in spans if span is not None and span[0] < span[1]]


def _parse_spec(spec: str, size: int) -> tuple[int, int] | None:
    match = _SPEC.fullmatch(spec)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        return max(0, size - int(suffix)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


def apply_range(answer: Answer, request: Request) -> Answer:
    """Cut a whole answer down to the ranges that the request asks for (rule SRV-06).

    The answer stays whole if ``If-Range`` differs from its ``ETag``, the content is empty, the
    header is malformed, or the ranges are larger than the content in sum.
    """
    header, condition, size = request.header("Range"), request.header("If-Range"), len(answer.body)
    if header is None or size == 0 or condition not in {None, answer.header("ETag")}:
        return answer
    spans = parse_ranges(header, size)
    if spans is None or sum(end - start for start, end in spans) > size:
        return answer
    if not spans:
        changes = {"Content-Range": f"bytes */{size}"}
        return replace(answer, status=416, body=b"", whole=answer.body).with_headers(changes)
    if len(spans) > 1:
        return _multipart(answer, spans)
    ((start, end),) = spans
    part = replace(answer, status=206, body=answer.body[start:end], whole=answer.body, offset=start)
    return part.with_headers({"Content-Range": f"bytes {start}-{end - 1}/{size}"})


def _multipart(answer: Answer, spans: Sequence[tuple[int, int]]) -> Answer:
    size = len(answer.body)
    pieces: list[bytes] = []
    for start, end in spans:
        head = (
            f"\r\n--{BOUNDARY}\r\nContent-Type: {answer.header('Content-Type')}\r\n"
            f"Content-Range: bytes {start}-{end - 1}/{size}\r\n\r\n"
        )
        pieces += [head.encode(), answer.body[start:end]]
    body = b"".join((*pieces, f"\r\n--{BOUNDARY}--\r\n".encode()))
    media_type = f"multipart/byteranges; boundary={BOUNDARY}"
    part = replace(answer, status=206, body=body, whole=answer.body)
    return part.with_headers({"Content-Type": media_type})


API_VERSION: Final = ("Docker-Distribution-Api-Version", "registry/2.0")
FOREVER: Final = "max-age=31536000"

_ROUTE: Final = re.compile(r"/v2/(.+)/(manifests|blobs|referrers|tags)/([^/]+)")


@dataclass(slots=True)
class Repository:
    """The content of one repository. Nothing is checked: a digest may be wrong."""

    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict[str, tuple[bytes, str]])
    """Digest to bytes and media type."""
    tags: dict[str, str] = field(default_factory=dict[str, str])
    """Tag to digest."""
    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])


@dataclass(slots=True)
class Content:
    """The content of a registry, and the correct answer to each request."""

    repositories: dict[str, Repository] = field(default_factory=dict[str, Repository])
    files: dict[str, tuple[bytes, str]] = field(default_factory=dict[str, tuple[bytes, str]])
    """Path to bytes and media type, for paths outside of the API."""
    referrers: bool = True
    """Whether the registry has the referrers API."""
    page_size: int | None = None
    """The most tags, or referrers, in one answer; None for all."""

    def answer(self, request: Request) -> Answer:
        """Answer correctly; writes are refused."""
        if request.path in self.files:
            data, media_type = self.files[request.path]
            headers = (("Content-Type", media_type), ("Accept-Ranges", "bytes"))
            return apply_range(Answer(headers=headers, body=data), request)
        if request.path != "/v2" and not request.path.startswith("/v2/"):
            return fail(404, "NOT_FOUND", "no such path")
        if request.method not in {"GET", "HEAD"}:
            return fail(405, "UNSUPPORTED", "this registry is read-only", {"Allow": "GET, HEAD"})
        return self._answer_api(request)

    def _answer_api(self, request: Request) -> Answer:
        if request.path in {"/v2", "/v2/"}:
            return Answer(headers=(("Content-Type", JSON), API_VERSION), body=b"{}")
        route = _ROUTE.fullmatch(request.path)
        if route is None:
            return fail(404, "NOT_FOUND", "no such path")
        name, kind, key = route.groups()
        repository = self.repositories.get(name)
        if repository is None:
            return fail(404, "NAME_UNKNOWN", "repository name not known to registry")
        answers = {
            "manifests": partial(_answer_manifest, repository),
            "blobs": partial(_answer_blob, repository),
            "referrers": partial(self._answer_referrers, repository),
            "tags": partial(self._answer_tags, name, repository),
        }
        return answers[kind](key, request)

    def _answer_tags(self, name: str, repository: Repository, key: str, request: Request) -> Answer:
        if key != "list":
            return fail(404, "NOT_FOUND", "no such path")
        wanted = request.argument("n")
        if wanted is not None and not re.fullmatch("[0-9]{1,9}", wanted):
            return fail(400, "PAGINATION_NUMBER_INVALID", "invalid number of results requested")
        last = request.argument("last")
        tags = [tag for tag in sorted(repository.tags) if last is None or tag > last]
        limit = self._limit(None if wanted is None else int(wanted), len(tags))
        page = tags[:limit]
        headers = [("Content-Type", JSON)]
        if page and len(page) < len(tags):
            headers.append(_link(f"/v2/{name}/tags/list", page[-1], limit))
        body = json.dumps({"name": name, "tags": page}).encode()
        return Answer(headers=tuple(headers), body=body)

    def _limit(self, wanted: int | None, available: int) -> int:
        limits = (wanted, self.page_size, available)
        return min(limit for limit in limits if limit is not None)

    def _answer_referrers(self, repository: Repository, key: str, request: Request) -> Answer:
        if not self.referrers:
            return fail(404, "NOT_FOUND", "no such path")
        if not _is_digest(key):
            return fail(400, "DIGEST_INVALID", "provided digest is invalid")
        found = _find_referrers(repository, key)
        headers = [("Content-Type", OCI_INDEX)]
        kind = request.argument("artifactType")
        if kind is not None:
            found = [entry for entry in found if entry.get("artifactType") == kind]
            headers.append(("OCI-Filters-Applied", "artifactType"))
        last = request.argument("last") or ""
        found = [entry for entry in found if entry["digest"] > last]
        page = found[: self._limit(None, len(found))]
        if page and len(page) < len(found):
            headers.append(_link(request.path, page[-1]["digest"], len(page)))
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": page}
        return Answer(headers=tuple(headers), body=json.dumps(document).encode())


def _answer_manifest(repository: Repository, key: str, request: Request) -> Answer:
    digest = repository.tags.get(key, key)
    if digest not in repository.manifests:
        return fail(404, "MANIFEST_UNKNOWN", "manifest unknown to registry")
    raw, media_type = repository.manifests[digest]
    etag = f'"{digest}"'
    headers = (
        ("Content-Type", media_type),
        ("Docker-Content-Digest", digest),
        ("ETag", etag),
        API_VERSION,
    )
    if request.header("If-None-Match") in {etag, digest}:
        return Answer(status=304, headers=headers)
    return Answer(headers=headers, body=raw)


def _answer_blob(repository: Repository, key: str, request: Request) -> Answer:
    if not _is_digest(key):
        return fail(400, "DIGEST_INVALID", "provided digest is invalid")
    if key not in repository.blobs:
        return fail(404, "BLOB_UNKNOWN", "blob unknown to registry")
    headers = (
        ("Content-Type", "application/octet-stream"),
        ("Docker-Content-Digest", key),
        ("ETag", f'"{key}"'),
        ("Accept-Ranges", "bytes"),
        ("Cache-Control", FOREVER),
        API_VERSION,
    )
    return apply_range(Answer(headers=headers, body=repository.blobs[key]), request)


def _find_referrers(repository: Repository, digest: str) -> list[dict[str, Any]]:
    """Descriptors of the manifests whose subject has a digest, sorted (rule SRV-08)."""
    found: list[dict[str, Any]] = []
    for key, (raw, media_type) in sorted(repository.manifests.items()):
        try:
            document = json.loads(raw)
            subject = document.get("subject", {}).get("digest")
        except (ValueError, AttributeError):
            continue
        if subject == digest:
            found.append(_refer(document, key, media_type, len(raw)))
    return found


def _refer(document: dict[str, Any], digest: str, media_type: str, size: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": size}
    kind = document.get("artifactType") or document.get("config", {}).get("mediaType")
    if kind is not None:
        entry["artifactType"] = kind
    if "annotations" in document:
        entry["annotations"] = document["annotations"]
    return entry


def _link(path: str, last: str, limit: int) -> tuple[str, str]:
    return "Link", f'<{path}?last={quote(last, safe="")}&n={limit}>; rel="next"'


def _is_digest(text: str) -> bool:
    try:
        Digest(text)
    except InvalidDigestError:
        return False
    return True
