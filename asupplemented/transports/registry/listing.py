"""Lists of tags, the digest of a tag, and the paging that tags and referrers share.

A page of a list names the next one in a ``Link`` header (rules TAG-01, REFR-01). `fetch_digest`
asks for the digest of a tag by HEAD (rules HTTP-11, HTTP-12).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from asupplemented.aio.threads import run_blocking
from asupplemented.errors import (
    ImageNotFoundError,
    InvalidDigestError,
    LimitExceededError,
    MalformedResponseError,
    excerpt,
)
from asupplemented.limits import OFFLOAD_BYTES
from asupplemented.model.digest import Digest
from asupplemented.model.name import is_tag
from asupplemented.transports.registry.addresses import origin_of, redact
from asupplemented.transports.registry.client import resolve_url
from asupplemented.transports.registry.documents import fetch_document
from asupplemented.transports.registry.error_response import Target, decode_document
from asupplemented.transports.registry.redirects import join_url
from asupplemented.transports.registry.request import Request
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import aiohttp

    from asupplemented.abc import Context
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.documents import Document
    from asupplemented.transports.registry.request import RequestContext

__all__ = ("Pages", "fetch_digest", "find_next", "list_tags", "parse_tags")

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE: Final = rf'(?:"(?:[^"\\]|\\.)*+"|{_WORD})'
_PARAMETER: Final = rf"[ \t]*+;[ \t]*+(?:({_WORD})(?:[ \t]*+=[ \t]*+({_VALUE}))?+)?+"
_LINK: Final = re.compile(
    # Some registries write the target without brackets, and clients accept that.
    rf"[ \t,]*+(?:<([^<>]*+)>|([^<>;,\s\"]++))((?:{_PARAMETER})*+)[ \t]*+(?:,|\Z)"
)
_BLANK: Final = re.compile(r"[ \t,]*+\Z")
_PARAMETERS: Final = re.compile(_PARAMETER)


class Pages:
    """Reads a list, page after page.

    Args:
        client: The registry.
        request: Gets the first page.
        request_context: The reference that it is for.
        page: The most bytes of one page.
    """

    __slots__ = ("_client", "_left", "_limits", "_page", "_request", "_request_context", "_seen")

    def __init__(
        self,
        client: RegistryClient,
        request: Request,
        request_context: RequestContext,
        *,
        page: int,
    ) -> None:
        self._client = client
        self._request_context = request_context
        self._request: Request | None = request
        self._page = page
        self._limits = client.deps.options.limits
        self._left = self._limits.listing
        self._seen: set[URL] = set()

    async def fetch(self) -> Document | None:
        """Get the next page.

        Returns:
            None after the last one.

        Raises:
            LimitExceededError: There are too many pages, or they are too large.
            MalformedResponseError: A page leads to another origin, in a circle, or nowhere.
            NotFoundError: The list does not exist, if the request's target can be missing.
            SourceError: The registry failed or refused.
        """
        request = self._request
        if request is None:
            return None
        if len(self._seen) == self._limits.pages:
            message = f"the {request.target.description} has more than {self._limits.pages} pages"
            raise LimitExceededError(message, limit=self._limits.pages)
        limit = min(self._page, self._left)
        document = await fetch_document(self._client, request, self._request_context, limit=limit)
        self._left -= len(document.body)
        self._request = await self._next_request(request, document)
        return document

    async def _next_request(self, request: Request, document: Document) -> Request | None:
        """The request for the page after this one; None if it was the last."""
        values = document.headers.getall(hdrs.LINK, ())
        if not values:
            return None
        ping_result = await self._client.ensure_pinged(self._request_context)
        current = resolve_url(ping_result.redirect_client.endpoint, request.url)
        self._seen.add(current)
        target = find_next(values, current)
        if target is None:
            return None
        self._left -= len(str(target))  # visited URLs are kept, so they count as well
        if target in self._seen or self._left < 0:
            how = "in a circle" if target in self._seen else "on and on"
            message = f"the pages of the {request.target.description} go {how}, to {redact(target)}"
            raise MalformedResponseError(message, url=redact(target))
        return request._replace(url=target)


def find_next(values: Iterable[str], current: URL) -> URL | None:
    """Read the ``Link`` headers of a response.

    A link counts if its relation is "next", or if it has none.

    Args:
        values: The headers.
        current: The URL of this page, for links that are relative to it.

    Returns:
        The URL of the next page, at the same origin; None if no link names one.

    Raises:
        MalformedResponseError: A header cannot be read, or the page is at another origin.
    """
    for value in values:
        for target in _read_links(value, current):
            return _check(target, current)
    return None


def _read_links(value: str, current: URL) -> Iterable[str]:
    position = 0
    while _BLANK.match(value, position) is None:
        match = _LINK.match(value, position)
        if match is None:
            message = f"{redact(current)} sends a Link header that is malformed"
            raise MalformedResponseError(message, url=redact(current))
        position = match.end()
        if _is_next(match[3]):
            yield (match[1] or match[2] or "").strip()


def _is_next(parameters: str) -> bool:
    for parameter in _PARAMETERS.finditer(parameters):
        if (parameter[1] or "").lower() == "rel":
            return "next" in (parameter[2] or "").strip('"').lower().split()
    return True


def _check(text: str, current: URL) -> URL:
    place = redact(current)
    try:
        target = join_url(current, text)
    except ValueError as error:
        message = f"{place} names a URL for its next page that {error}"
        raise MalformedResponseError(message, url=place) from None
    if not text or origin_of(target) != origin_of(current):
        where = redact(target) if text else "an empty URL"
        message = f"{place} names {where} for its next page, which is not at the same origin"
        raise MalformedResponseError(message, url=place)
    return target


_JSON: Final = "application/json"
_DIGEST: Final = "Docker-Content-Digest"


async def list_tags(
    client: RegistryClient, repository: str, request_context: RequestContext, context: Context
) -> tuple[str, ...]:
    """All tags of a repository, each once, in the order in which the registry gives them.

    Args:
        client: The registry.
        repository: The path of the repository.
        request_context: The reference that it is for.
        context: The session, in whose threads long lists are parsed.

    Raises:
        ImageNotFoundError: There is no such repository.
        LimitExceededError: The list is too long.
        MalformedResponseError: It holds something that is no tag, or its pages cannot be
            followed.
        SourceError: The registry failed or refused.
    """
    request = Request(
        URL(f"/v2/{repository}/tags/list", encoded=True),
        Target(f"list of tags of {repository}", ImageNotFoundError),
        CIMultiDict({hdrs.ACCEPT: _JSON}),
        scope=pull_scope(repository),
    )
    pages = Pages(client, request, request_context, page=client.deps.options.limits.listing)
    tags: dict[str, None] = {}
    while (document := await pages.fetch()) is not None:
        if len(document.body) > OFFLOAD_BYTES:
            found = await run_blocking(context, parse_tags, document.body, document.place)
        else:
            found = parse_tags(document.body, document.place)
        tags.update(dict.fromkeys(found))
    return tuple(tags)


def parse_tags(body: bytes, place: str) -> list[str]:
    """Read one page of tags.

    Empty entries are skipped, and so are digests, which some registries list (rule TAG-01).

    Args:
        body: The page.
        place: Its redacted URL, for errors.

    Raises:
        MalformedResponseError: It is not one, or holds something that is no tag.
    """
    try:
        return list(_tags_of(body))
    except ValueError as error:
        message = f"{place} answered with something that is no list of tags: {error}"
        raise MalformedResponseError(message, url=place) from None


def _tags_of(body: bytes) -> Iterator[str]:
    listed = decode_document(body).get("tags")
    if listed is not None and not isinstance(listed, list):
        message = "its tags are no list"
        raise ValueError(message)
    for tag in listed or ():
        if isinstance(tag, str) and is_tag(tag):
            yield tag
        elif tag is not None and tag != "" and _digest_of(tag) is None:
            shown = excerpt(tag) if isinstance(tag, str) else f"a {type(tag).__name__}"
            message = f"{shown} is no tag"
            raise ValueError(message)


def _digest_of(value: object) -> Digest | None:
    try:
        return Digest(value) if isinstance(value, str) else None
    except InvalidDigestError:
        return None


async def fetch_digest(
    client: RegistryClient, name: ImageName, request_context: RequestContext
) -> Digest:
    """Ask for the digest of a tag, or whether a digest exists, without reading the manifest.

    The digest is the registry's claim: only reading the manifest would prove it.

    Args:
        client: The registry.
        name: The image; its digest counts, if it has one.
        request_context: The reference that it is for.

    Raises:
        ImageNotFoundError: There is no such image.
        MalformedResponseError: The registry names no digest, or another one.
        SourceError: The registry failed or refused.
    """
    which = name.digest or name.tag or ""
    request = Request(
        URL(f"/v2/{name.path}/manifests/{which}", encoded=True),
        Target(f"manifest {which}", ImageNotFoundError, name.digest),
        method="HEAD",
        scope=pull_scope(name.path),
    )
    response = await client.send(request, request_context)
    response.close()
    said = set(response.headers.getall(_DIGEST, ()))
    digest = _digest_of(said.pop()) if len(said) == 1 else None
    if digest is None:
        raise _wrong(response, f"does not say which digest manifest {which} has")
    if name.digest is None:
        return digest
    if digest.algorithm == name.digest.algorithm and digest != name.digest:
        raise _wrong(response, f"says that manifest {which} has the digest {digest}")
    return name.digest


def _wrong(response: aiohttp.ClientResponse, fault: str) -> MalformedResponseError:
    place = redact(response.url)
    message = f"{place} {fault}; open the image to read the manifest itself"
    return MalformedResponseError(message, status=response.status, url=place)
