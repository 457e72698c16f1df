"""Tags: which ones a repository has, and what one points at (rules TAG-01, HTTP-11, HTTP-12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import hdrs
from multidict import CIMultiDict

from asupplemented.aio.files import run_blocking
from asupplemented.errors import ImageNotFoundError, InvalidDigestError, MalformedResponseError
from asupplemented.limits import OFFLOAD_BYTES
from asupplemented.model.digest import Digest
from asupplemented.model.name import is_tag
from asupplemented.model.text import excerpt
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.client import Errand
from asupplemented.transports.registry.error_response import Inquiry, decode_document
from asupplemented.transports.registry.listing import Pages
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    import aiohttp

    from asupplemented.abc import Context
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.request import Caller

__all__ = ("fetch_digest", "list_tags", "parse_tags")

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
