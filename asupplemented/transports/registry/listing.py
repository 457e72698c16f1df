"""Lists of tags, the digest of a tag, and the paging that tags and referrers share.

A page of a list names the next one in a ``Link`` header (rules TAG-01, REFR-01). `fetch_digest`
asks for the digest of a tag (rules HTTP-11, HTTP-12).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from asupplemented.aio.threads import run_blocking
from asupplemented.errors import (
    ImageNotFoundError,
    InvalidDigestError,
    LimitExceededError,
    MalformedResponseError,
    NotFoundError,
    RegistryError,
    excerpt,
)
from asupplemented.limits import OFFLOAD_BYTES
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.model.name import is_tag
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.client import resolve_url
from asupplemented.transports.registry.documents import (
    fetch_document,
    fetch_manifest,
    request_manifest,
)
from asupplemented.transports.registry.error_response import Target, decode_typed
from asupplemented.transports.registry.failures import should_retry
from asupplemented.transports.registry.redirects import join_url
from asupplemented.transports.registry.request import Request
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asupplemented.abc import Context
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.documents import Document
    from asupplemented.transports.registry.request import RequestContext

__all__ = ("Pages", "TagList", "check_login", "fetch_digest", "find_next", "list_tags")

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE: Final = rf'(?:"(?:[^"\\]|\\.)*+"|{_WORD})'
_PARAMETER: Final = rf"[ \t]*+;[ \t]*+(?:({_WORD})(?:[ \t]*+=[ \t]*+({_VALUE}))?+)?+"
_LINK: Final = re.compile(
    # Some registries write the target without brackets, and clients accept that.
    rf"[ \t,]*+(?:<([^<>]*+)>|([^<>;,\s\"]++))((?:{_PARAMETER})*+)[ \t]*+(?:,|\Z)"
)
_BLANK: Final = re.compile(r"[ \t,]*+\Z")
_AUTHORITY: Final = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*+:)?+//[^/?#]*+")
"""Scheme and host of a link. A registry behind a proxy often does not know its own."""
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
            MalformedResponseError: The pages go in a circle, or nowhere.
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
        redirect_client = await self._client.find(self._request_context)
        current = resolve_url(redirect_client.endpoint, request)
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
        The URL of the next page; None if no link names one. Path and query are those of the link,
        the origin is ours, whatever the link says (rule TAG-01).

    Raises:
        MalformedResponseError: A header or its URL cannot be read.
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
    authority = _AUTHORITY.match(text)
    rest = text if authority is None else text[authority.end() :]
    if authority is not None and not rest.startswith("/"):
        rest = f"/{rest}"
    try:
        target = join_url(current, rest)
    except ValueError as error:
        message = f"{place} names a URL for its next page that {error}"
        raise MalformedResponseError(message, url=place) from None
    if not text:
        message = f"{place} names an empty URL for its next page"
        raise MalformedResponseError(message, url=place)
    query = f"?{target.raw_query_string}" if target.raw_query_string else ""
    return URL(f"{current.origin()}{target.raw_path}{query}", encoded=True)


MAX_EXAMPLES: Final = 3
"""Invalid tags that a warning shows."""
MAX_EXAMPLE: Final = 256
"""Characters of an invalid tag that are kept to be shown."""

_JSON: Final = "application/json"
_LIST_START: Final = re.compile(rb"\[[ \t\r\n]*+")
_LIST_ENTRY: Final = re.compile(
    rb'("(?:[^"\\]|\\.)*+"|null)[ \t\r\n]*+(?:,[ \t\r\n]*+|(?=\]))', re.DOTALL
)
_DIGEST: Final = "Docker-Content-Digest"


async def check_login(client: RegistryClient, request_context: RequestContext) -> None:
    """Ask for the version of the API, which needs a credential but no repository.

    Args:
        client: The registry.
        request_context: The reference that it is for.

    Raises:
        SourceError: The registry failed, or does not accept the credential.
    """
    request = Request(URL("/v2/", encoded=True), Target("the login"))
    limit = client.deps.options.limits.listing
    await fetch_document(client, request, request_context, limit=limit)


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
        MalformedResponseError: It is no list of tags, or its pages cannot be followed.
        SourceError: The registry failed or refused.
    """
    request = Request(
        URL(f"/v2/{repository}/tags/list", encoded=True),
        Target(f"list of tags of {repository}", ImageNotFoundError),
        CIMultiDict({hdrs.ACCEPT: _JSON}),
        scope=pull_scope(repository),
    )
    limits = client.deps.options.limits
    pages = Pages(client, request, request_context, page=limits.listing)
    tags = TagList(limits.tags)
    while (document := await pages.fetch()) is not None:
        if len(document.body) > OFFLOAD_BYTES:
            await run_blocking(context, tags.add_page, document.body, document.place)
        else:
            tags.add_page(document.body, document.place)
    if tags.invalid:
        shown = ", ".join(excerpt(client.secrets.censor(each), 40) for each in tags.examples)
        request_context.warn(
            f"{client.registry} lists {tags.invalid} tags of {repository} that are invalid, and "
            f"were left out: {shown}"
        )
    return tuple(tags.found)


class _TagsPage(msgspec.Struct):
    tags: msgspec.Raw = msgspec.Raw(b"null")


class TagList:
    """Tags of one repository, read page by page.

    Empty entries are skipped, and so are digests, which some registries list; any other invalid
    tag is left out and counted (rule TAG-01).

    Args:
        limit: The most entries, valid or not.

    Attributes:
        found: The tags, each once, in order.
        invalid: How many entries were left out.
        examples: The first of them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries = 0
        self.found: dict[str, None] = {}
        self.invalid = 0
        self.examples: list[str] = []

    def add_page(self, body: bytes, place: str) -> None:
        """Add the tags of a page. Blocking, in small steps: other threads run meanwhile.

        Args:
            body: The page.
            place: Its redacted URL, for errors.

        Raises:
            LimitExceededError: There are too many entries.
            MalformedResponseError: It is no list of tags.
        """
        try:
            for tag in _read_tags(body):
                self._add(tag)
        except ValueError as error:
            if isinstance(error, LimitExceededError):
                raise
            message = f"{place} answered with something that is no list of tags: {error}"
            raise MalformedResponseError(message, url=place) from None

    def _add(self, tag: str) -> None:
        self._entries += 1
        if self._entries > self._limit:
            message = f"the list of tags has more than {self._limit} entries"
            raise LimitExceededError(message, limit=self._limit)
        if is_tag(tag):
            self.found[tag] = None
        elif tag and _digest_of(tag) is None:
            self.invalid += 1
            if len(self.examples) < MAX_EXAMPLES:
                self.examples.append(tag[:MAX_EXAMPLE])


def _read_tags(body: bytes) -> Iterator[str]:
    """The texts in the list of a page, one after another, so that few are in memory at once."""
    listed = decode_typed(body, _TagsPage).tags
    text = bytes(listed)
    if text == b"null":
        return
    match = _LIST_START.match(text)
    if match is None:
        message = "its tags are no list"
        raise ValueError(message)
    position = match.end()
    while (match := _LIST_ENTRY.match(text, position)) is not None:
        position = match.end()
        if match[1] != b"null":
            yield msgspec.json.decode(match[1], type=str)
    if text[position : position + 1] != b"]":
        message = "an entry is no text"
        raise ValueError(message)


def _digest_of(value: object) -> Digest | None:
    try:
        return Digest(value) if isinstance(value, str) else None
    except InvalidDigestError:
        return None


async def fetch_digest(
    client: RegistryClient, name: ImageName, request_context: RequestContext
) -> Digest:
    """Ask for the digest of a tag, or whether a digest exists, by HEAD if that is possible.

    After a HEAD the digest is the registry's claim. A HEAD that gives no digest says nothing of
    the image: then the manifest is read, and only that decides (rule HTTP-11).

    Args:
        client: The registry.
        name: The image; its digest counts, if it has one.
        request_context: The reference that it is for.

    Raises:
        ImageNotFoundError: There is no such image.
        VerificationError: The manifest does not have the digest that names it.
        ManifestError: What is there is no manifest.
        LimitExceededError: The manifest is too large.
        SourceError: The registry failed or refused.
    """
    which = name.digest or name.tag or ""
    target = Target(f"manifest {which}", ImageNotFoundError, name.digest)
    digest = await _ask_by_head(client, name.path, which, target, request_context)
    if digest is not None and name.digest is None:
        return digest
    if digest is None or digest != name.digest:
        document = await fetch_manifest(
            client, name.path, which, name.digest, ImageNotFoundError, request_context
        )
        return Manifest.verified(document.body, document.media_type, name.digest).digest
    return digest


async def _ask_by_head(
    client: RegistryClient,
    repository: str,
    which: str,
    target: Target,
    request_context: RequestContext,
) -> Digest | None:
    """The digest that a HEAD names, None if there is no single one."""
    request = request_manifest(repository, which, target, method="HEAD")
    try:
        response = await client.send(request, request_context)
    except (NotFoundError, RegistryError) as error:
        if should_retry(error) is not None:
            raise  # it was retried in vain, and that says enough
        return None
    response.close()
    named = set(response.headers.getall(_DIGEST, ()))
    return _digest_of(named.pop()) if len(named) == 1 else None
