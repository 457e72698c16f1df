"""Referrers: what says of itself that it is about a manifest (rules REFR-01 to REFR-04)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aiohttp import hdrs
from multidict import CIMultiDict

from asupplemented.aio.threads import run_blocking
from asupplemented.errors import (
    LimitExceededError,
    MalformedResponseError,
    ManifestNotFoundError,
    NotFoundError,
    UnexpectedStatusError,
)
from asupplemented.limits import MAX_INSTANCES, OFFLOAD_BYTES
from asupplemented.model.digest import check_digests
from asupplemented.model.manifest import Manifest
from asupplemented.model.media_type import OCI_INDEX
from asupplemented.transports.registry.client import Errand
from asupplemented.transports.registry.documents import fetch_letter
from asupplemented.transports.registry.error_response import Inquiry
from asupplemented.transports.registry.listing import Pages
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from asupplemented.abc import Context
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.documents import Letter
    from asupplemented.transports.registry.request import Caller

__all__ = ("fallback_tag", "fetch_referrers")

_HTML: Final = "text/html"
_LONGEST_ALGORITHM: Final = 32
_LONGEST_ENCODED: Final = 64
_NOT_IN_TAGS: Final = re.compile(r"[^0-9A-Za-z_.-]")
_UNKNOWN_API: Final = frozenset((400, 406))
"""Statuses of registries without the interface, besides 404 (rule REFR-02)."""


async def fetch_referrers(
    client: RegistryClient,
    repository: str,
    subject: Digest,
    artifact_type: str | None,
    caller: Caller,
    context: Context,
) -> tuple[Descriptor, ...]:
    """The manifests of a repository whose subject is a manifest, each once.

    Where the registry does not keep the list, it is under a tag, or nowhere (rule REFR-02).

    Args:
        client: The registry.
        repository: The path of the repository.
        subject: What they are about. It need not exist.
        artifact_type: Only those of this type; None for all.
        caller: Who it is for.
        context: The session, in whose threads long lists are read.

    Raises:
        ManifestError: A list is malformed.
        InvalidDigestError: A list names something that is no digest.
        LimitExceededError: There are too many of them.
        SourceError: The registry failed or refused.
    """
    search = _Search(client, repository, subject, caller, context)
    found = await search.ask(artifact_type)
    if found is None:
        found = await search.look_up()
    # Filtered here, too, even where the registry says that it has done so (rule REFR-04).
    return tuple(each for each in found.values() if artifact_type in {None, each.artifact_type})


def fallback_tag(subject: Digest) -> str:
    """The tag under which clients keep a list that the registry does not (rule REFR-03)."""
    algorithm = subject.algorithm[:_LONGEST_ALGORITHM]
    return _NOT_IN_TAGS.sub("-", f"{algorithm}-{subject.encoded[:_LONGEST_ENCODED]}")


class _Search:
    """The search for the referrers of one manifest."""

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        subject: Digest,
        caller: Caller,
        context: Context,
    ) -> None:
        self._client = client
        self._context = context
        self._repository = repository
        self._subject = subject
        self._caller = caller
        self._limit = client.means.options.limits.manifest
        self._found: dict[str, Descriptor] = {}

    async def ask(self, artifact_type: str | None) -> dict[str, Descriptor] | None:
        """Ask the registry; None if it does not keep such lists."""
        query = "" if artifact_type is None else f"artifactType={quote(artifact_type, safe='')}"
        path = f"/v2/{self._repository}/referrers/{self._subject}"
        pages = Pages(self._client, self._errand(path, query), self._caller, page=self._limit)
        letter = await self._fetch_first(pages)
        if letter is None or letter.media_type != OCI_INDEX:
            return None
        while letter is not None:
            await self._take(letter)
            letter = await self._fetch_next(pages)
        return self._found

    async def look_up(self) -> dict[str, Descriptor]:
        """Read the list under the tag; what is there and no list counts as none."""
        path = f"/v2/{self._repository}/manifests/{fallback_tag(self._subject)}"
        errand = self._errand(path)
        try:
            letter = await fetch_letter(self._client, errand, self._caller, limit=self._limit)
        except NotFoundError:
            return {}
        if letter.media_type == _HTML:
            message = f"{letter.url} answered with a page for people"
            raise MalformedResponseError(message, url=letter.url)
        if letter.media_type == OCI_INDEX:
            await self._take(letter)
        return self._found

    async def _fetch_first(self, pages: Pages) -> Letter | None:
        try:
            return await pages.fetch()
        except NotFoundError:
            return None
        except UnexpectedStatusError as error:
            if error.status not in _UNKNOWN_API:
                raise
            return None

    async def _fetch_next(self, pages: Pages) -> Letter | None:
        try:
            letter = await pages.fetch()
        except NotFoundError as error:
            message = f"a page of the referrers of {self._subject} is not there"
            raise MalformedResponseError(message) from error
        if letter is not None and letter.media_type != OCI_INDEX:
            message = f"{letter.url} is a page of referrers, and no index"
            raise MalformedResponseError(message, url=letter.url)
        return letter

    def _errand(self, path: str, query: str = "") -> Errand:
        inquiry = Inquiry(f"list of referrers of {self._subject}", ManifestNotFoundError)
        headers = CIMultiDict({hdrs.ACCEPT: OCI_INDEX})
        scope = pull_scope(self._repository)
        return Errand(path, scope, inquiry, headers, query=query)

    async def _take(self, letter: Letter) -> None:
        if len(letter.body) > OFFLOAD_BYTES:
            entries = await run_blocking(self._context, _read_entries, letter)
        else:
            entries = _read_entries(letter)
        for entry in entries:
            self._found.setdefault(entry.digest, entry)
        if len(self._found) > MAX_INSTANCES:
            message = f"more than {MAX_INSTANCES} manifests refer to {self._subject}"
            raise LimitExceededError(message, limit=MAX_INSTANCES)


def _read_entries(letter: Letter) -> tuple[Descriptor, ...]:
    entries = Manifest.verified(letter.body, letter.media_type, None).parse_index().manifests
    check_digests([entry.digest for entry in entries])
    return entries
