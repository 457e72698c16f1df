"""Lists that come in pages, each of which says where the next one is (rules TAG-01, REFR-01).

Tags: which ones a repository has, and what one points at (rules TAG-01, HTTP-11, HTTP-12).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs
from multidict import CIMultiDict

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
from asupplemented.transports.registry.client import Errand, locate
from asupplemented.transports.registry.documents import fetch_letter
from asupplemented.transports.registry.error_response import Inquiry, decode_document
from asupplemented.transports.registry.redirects import join_url
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import aiohttp
    from yarl import URL

    from asupplemented.abc import Context
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.documents import Letter
    from asupplemented.transports.registry.request import Caller

__all__ = ("Pages", "fetch_digest", "find_next", "list_tags", "parse_tags")

_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_VALUE: Final = rf'(?:"(?:[^"\\]|\\.)*+"|{_WORD})'
_PARAMETER: Final = rf"[ \t]*+;[ \t]*+(?:({_WORD})(?:[ \t]*+=[ \t]*+({_VALUE}))?+)?+"
_LINK: Final = re.compile(
    # Some write the target without brackets, and nobody minds.
    rf"[ \t,]*+(?:<([^<>]*+)>|([^<>;,\s\"]++))((?:{_PARAMETER})*+)[ \t]*+(?:,|\Z)"
)
_BLANK: Final = re.compile(r"[ \t,]*+\Z")
_PARAMETERS: Final = re.compile(_PARAMETER)


class Pages:
    """Reads a list, page after page.

    Args:
        client: The registry.
        errand: Gets the first page.
        caller: Who it is for.
        page: The most bytes of one page.
    """

    __slots__ = ("_caller", "_client", "_errand", "_left", "_limits", "_page", "_seen")

    def __init__(
        self, client: RegistryClient, errand: Errand, caller: Caller, *, page: int
    ) -> None:
        self._client = client
        self._caller = caller
        self._errand: Errand | None = errand
        self._page = page
        self._limits = client.means.options.limits
        self._left = self._limits.listing
        self._seen: set[URL] = set()

    async def fetch(self) -> Letter | None:
        """Get the next page.

        Returns:
            None after the last one.

        Raises:
            LimitExceededError: There are too many pages, or they are too large.
            MalformedResponseError: A page leads to another origin, in a circle, or nowhere.
            NotFoundError: The list is not there, if the errand's inquiry foresees that.
            SourceError: The registry failed or refused.
        """
        errand = self._errand
        if errand is None:
            return None
        if len(self._seen) == self._limits.pages:
            message = f"the {errand.inquiry.what} has more than {self._limits.pages} pages"
            raise LimitExceededError(message, limit=self._limits.pages)
        limit = min(self._page, self._left)
        letter = await fetch_letter(self._client, errand, self._caller, limit=limit)
        self._left -= len(letter.body)
        self._errand = await self._turn(errand, letter)
        return letter

    async def _turn(self, errand: Errand, letter: Letter) -> Errand | None:
        """What gets the page after this one; None if it was the last."""
        values = letter.headers.getall(hdrs.LINK, ())
        if not values:
            return None
        site = await self._client.reach(self._caller)
        current = locate(site.home, errand)
        self._seen.add(current)
        target = find_next(values, current)
        if target is None:
            return None
        self._left -= len(str(target))  # what is remembered counts, too
        if target in self._seen or self._left < 0:
            how = "in a circle" if target in self._seen else "on and on"
            message = f"the pages of the {errand.inquiry.what} go {how}, to {redact(target)}"
            raise MalformedResponseError(message, url=redact(target))
        return errand._replace(path=target.raw_path, query=target.raw_query_string)


def find_next(values: Iterable[str], current: URL) -> URL | None:
    """Read the ``Link`` headers of an answer.

    A link counts if it is for the next page, or if it does not say what it is for.

    Args:
        values: The headers.
        current: The URL that was asked, for links that are relative to it.

    Returns:
        Where the next page is, at the same origin; None if no link says.

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
            message = f"{redact(current)} sends a Link header that cannot be read"
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
        message = f"{place} has its next page at a URL that {error}"
        raise MalformedResponseError(message, url=place) from None
    if not text or origin_of(target) != origin_of(current):
        where = redact(target) if text else "no place"
        message = f"{place} has its next page at {where}, which is not at the same origin"
        raise MalformedResponseError(message, url=place)
    return target


_JSON: Final = "application/json"
_DIGEST: Final = "Docker-Content-Digest"


async def list_tags(
    client: RegistryClient, repository: str, caller: Caller, context: Context
) -> tuple[str, ...]:
    """All tags of a repository, each once, in the order in which the registry gives them.

    Args:
        client: The registry.
        repository: The path of the repository.
        caller: Who it is for.
        context: The session, in whose threads long lists are read.

    Raises:
        ImageNotFoundError: There is no such repository.
        LimitExceededError: The list is too long.
        MalformedResponseError: It holds what is no tag, or its pages lead astray.
        SourceError: The registry failed or refused.
    """
    errand = Errand(
        f"/v2/{repository}/tags/list",
        pull_scope(repository),
        Inquiry(f"list of tags of {repository}", ImageNotFoundError),
        CIMultiDict({hdrs.ACCEPT: _JSON}),
    )
    pages = Pages(client, errand, caller, page=client.means.options.limits.listing)
    tags: dict[str, None] = {}
    while (letter := await pages.fetch()) is not None:
        if len(letter.body) > OFFLOAD_BYTES:
            found = await run_blocking(context, parse_tags, letter.body, letter.url)
        else:
            found = parse_tags(letter.body, letter.url)
        tags.update(dict.fromkeys(found))
    return tuple(tags)


def parse_tags(body: bytes, place: str) -> list[str]:
    """Read one page of tags.

    What is empty is passed over, and so are digests, which some registries list (rule TAG-01).

    Args:
        body: The page.
        place: Its redacted URL, for errors.

    Raises:
        MalformedResponseError: It is none, or holds what is no tag.
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


async def fetch_digest(client: RegistryClient, name: ImageName, caller: Caller) -> Digest:
    """Ask what a tag points at, or whether a digest is there, without reading the manifest.

    It is what the registry says: nothing was read that could prove it.

    Args:
        client: The registry.
        name: The image; its digest counts, if it has one.
        caller: Who it is for.

    Raises:
        ImageNotFoundError: There is no such image.
        MalformedResponseError: The registry does not say, or names another digest.
        SourceError: The registry failed or refused.
    """
    which = name.digest or name.tag or ""
    errand = Errand(
        f"/v2/{name.path}/manifests/{which}",
        pull_scope(name.path),
        Inquiry(f"manifest {which}", ImageNotFoundError, name.digest),
        method="HEAD",
    )
    response = await client.send(errand, caller)
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
