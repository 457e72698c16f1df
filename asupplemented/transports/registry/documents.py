"""Documents: responses small enough to be read whole (rules HTTP-05, SEC-07)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from asupplemented.errors import (
    LimitExceededError,
    MalformedResponseError,
    ManifestError,
    VerificationError,
)
from asupplemented.model.manifest import Manifest
from asupplemented.model.media_type import ACCEPT
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.bodies import check_encoding, read_whole
from asupplemented.transports.registry.error_response import Target, parse_media_type
from asupplemented.transports.registry.request import Request
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp
    from multidict import CIMultiDictProxy

    from asupplemented.abc import Timeouts
    from asupplemented.errors import NotFoundError
    from asupplemented.model.digest import Digest
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.request import RequestContext

__all__ = (
    "HTML",
    "Document",
    "fetch_document",
    "fetch_manifest",
    "read_document",
    "request_manifest",
)

HTML: Final = "text/html"
"""The media type of pages that portals and registries send to browsers."""

_ROOT: Final = URL("/", encoded=True)

_ACCEPT_MANIFESTS: Final = CIMultiDict({hdrs.ACCEPT: ", ".join(ACCEPT)})


class Document(NamedTuple):
    """A response whose body is in memory."""

    body: bytes
    media_type: str | None
    """Without its parameters; None if there is none that can be read (rule HTTP-04)."""
    headers: CIMultiDictProxy[str]
    url: URL

    @property
    def place(self) -> str:
        """Where it came from, redacted, for messages."""
        return redact(self.url)


async def fetch_manifest(
    client: RegistryClient,
    repository: str,
    which: str,
    digest: Digest | None,
    missing: type[NotFoundError],
    request_context: RequestContext,
    begun: Callable[[], object] | None = None,
) -> Document:
    """Get a manifest, by tag or by digest.

    Args:
        client: The registry.
        repository: The path of the repository.
        which: The tag or the digest to ask for.
        digest: The digest that it should have, None if it is unknown.
        missing: The error if it does not exist.
        request_context: The reference that it is for.
        begun: Called when the head of the response is there.

    Returns:
        What came, unverified. If a known digest shows that it is the manifest although the
        response calls it HTML, it has no media type (rule BLOB-07).

    Raises:
        LimitExceededError: It is larger than ``RegistryLimits.manifest``.
        NotFoundError: It does not exist.
        MalformedResponseError: It is a page for people.
        SourceError: The registry failed or refused.
    """
    target = Target(f"manifest {which}", missing, digest)
    request = request_manifest(repository, which, target)
    response = await client.send(request, request_context)
    if begun is not None:
        begun()
    if digest is None and parse_media_type(response.headers.get(hdrs.CONTENT_TYPE)) == HTML:
        response.close()
        raise _no_page(response.url, client.registry)
    document = await read_document(
        response,
        request.target.description,
        limit=client.deps.options.limits.manifest,
        timeouts=client.deps.timeouts,
        digest=digest,
    )
    if document.media_type != HTML:
        return document
    if digest is None or not _has_digest(document.body, digest):
        raise _no_page(response.url, client.registry)
    return document._replace(media_type=None)


def request_manifest(
    repository: str, which: str, target: Target, *, method: Literal["GET", "HEAD"] = "GET"
) -> Request:
    """A request for a manifest, by tag or by digest (rule HTTP-02)."""
    return Request(
        _ROOT,
        target,
        _ACCEPT_MANIFESTS,
        method=method,
        scope=pull_scope(repository),
        path=f"/v2/{repository}/manifests/{which}",
    )


def _has_digest(body: bytes, digest: Digest) -> bool:
    try:
        Manifest.verified(body, None, digest)
    except (ManifestError, VerificationError):
        return False
    return True


def _no_page(url: URL, registry: str) -> MalformedResponseError:
    place = redact(url)
    message = (
        f"{place} answered with an HTML page; "
        f"is {registry} a registry, or is there a portal in between?"
    )
    return MalformedResponseError(message, status=200, url=place)


async def fetch_document(
    client: RegistryClient,
    request: Request,
    request_context: RequestContext,
    *,
    limit: int,
    digest: Digest | None = None,
) -> Document:
    """Get a document from a registry.

    Args:
        client: The registry.
        request: What to get.
        request_context: The reference that it is for.
        limit: The most bytes to accept.
        digest: The digest that it should have, None if it is unknown. It is not verified.

    Raises:
        LimitExceededError: It is larger than `limit`.
        NotFoundError: It does not exist, if the request's target can be missing.
        SourceError: The registry failed or refused.
    """
    response = await client.send(request, request_context)
    what = request.target.description
    timeouts = client.deps.timeouts
    return await read_document(response, what, limit=limit, timeouts=timeouts, digest=digest)


async def read_document(
    response: aiohttp.ClientResponse,
    what: str,
    *,
    limit: int,
    timeouts: Timeouts,
    digest: Digest | None = None,
) -> Document:
    """Read a response to its end, and close it on every path out.

    Args:
        response: A response whose body is unread.
        what: A description of it, for errors.
        limit: The most bytes to accept.
        timeouts: How long to wait.
        digest: The digest that it should have, None if it is unknown. It is not verified.

    Raises:
        LimitExceededError: It is larger than `limit`.
        MalformedResponseError: It is encoded; see `check_encoding`.
        SourceError: It broke off, or came too slowly.
    """
    try:
        body = await read_whole(response, limit, timeouts)
    except BaseException:
        response.close()
        raise
    if body is None:
        message = f"the {what} is larger than {limit} bytes"
        raise LimitExceededError(message, limit=limit)
    check_encoding(response, body, digest)
    media_type = parse_media_type(response.headers.get(hdrs.CONTENT_TYPE))
    return Document(body, media_type, response.headers, response.url)
