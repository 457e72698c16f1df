"""Referrers: the manifests of a repository whose subject is a manifest (rules REFR-01 to -04)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from asupplemented.aio.threads import run_blocking
from asupplemented.errors import (
    LimitExceededError,
    MalformedResponseError,
    ManifestNotFoundError,
    NotFoundError,
    RegistryError,
)
from asupplemented.limits import MAX_INSTANCES, OFFLOAD_BYTES
from asupplemented.model.digest import check_digests
from asupplemented.model.manifest import Manifest
from asupplemented.model.media_type import OCI_INDEX
from asupplemented.transports.registry.documents import fetch_manifest
from asupplemented.transports.registry.error_response import Target
from asupplemented.transports.registry.listing import Pages
from asupplemented.transports.registry.request import Request
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from asupplemented.abc import Context
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.documents import Document
    from asupplemented.transports.registry.request import RequestContext

__all__ = ("fallback_tag", "fetch_referrers")

_LONGEST_ALGORITHM: Final = 32
_LONGEST_ENCODED: Final = 64
_NOT_IN_TAGS: Final = re.compile(r"[^0-9A-Za-z_.-]")
_UNKNOWN_API: Final = frozenset((404, 405, 406, 410, 501))
"""Statuses of registries without this API, whatever the code in the body (rule REFR-02)."""
_BAD_REQUEST: Final = 400


async def fetch_referrers(
    client: RegistryClient,
    repository: str,
    subject: Digest,
    artifact_type: str | None,
    request_context: RequestContext,
    context: Context,
) -> tuple[Descriptor, ...]:
    """The descriptors of a manifest's referrers, each once.

    Registries without the referrers API may have the list under a tag (rule REFR-02).

    Args:
        client: The registry.
        repository: The path of the repository.
        subject: The manifest. It need not exist.
        artifact_type: Only those of this type; None for all.
        request_context: The reference that it is for.
        context: The session, in whose threads long lists are parsed.

    Raises:
        ManifestError: A list is malformed.
        InvalidDigestError: A list names something that is no digest.
        LimitExceededError: There are too many of them.
        SourceError: The registry failed or refused.
    """
    search = _Search(client, repository, subject, request_context, context)
    found = await search.fetch_list(artifact_type)
    if found is None:
        found = await search.fetch_tag()
    # Filtered here as well, even if the registry claims to have done so (rule REFR-04).
    return tuple(each for each in found.values() if artifact_type in {None, each.artifact_type})


def fallback_tag(subject: Digest) -> str:
    """The tag under which clients keep the list if the registry does not (rule REFR-03)."""
    algorithm = subject.algorithm[:_LONGEST_ALGORITHM]
    return _NOT_IN_TAGS.sub("-", f"{algorithm}-{subject.encoded[:_LONGEST_ENCODED]}")


class _Search:
    """The search for the referrers of one manifest."""

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        subject: Digest,
        request_context: RequestContext,
        context: Context,
    ) -> None:
        self._client = client
        self._context = context
        self._repository = repository
        self._subject = subject
        self._request_context = request_context
        self._limit = client.deps.options.limits.manifest
        self._found: dict[str, Descriptor] = {}

    async def fetch_list(self, artifact_type: str | None) -> dict[str, Descriptor] | None:
        """Use the referrers API; None if the registry does not have it."""
        query = "" if artifact_type is None else f"?artifactType={quote(artifact_type, safe='')}"
        request = Request(
            URL(f"/v2/{self._repository}/referrers/{self._subject}{query}", encoded=True),
            Target(f"list of referrers of {self._subject}", ManifestNotFoundError),
            CIMultiDict({hdrs.ACCEPT: OCI_INDEX}),
            scope=pull_scope(self._repository),
        )
        pages = Pages(self._client, request, self._request_context, page=self._limit)
        document = await self._fetch_first(pages)
        if document is None or document.media_type != OCI_INDEX:
            return None
        while document is not None:
            await self._add(document)
            document = await self._fetch_next(pages)
        return self._found

    async def fetch_tag(self) -> dict[str, Descriptor]:
        """Read the list under the tag; a manifest there that is no index counts as none."""
        path, tag, missing = self._repository, fallback_tag(self._subject), ManifestNotFoundError
        try:
            document = await fetch_manifest(
                self._client, path, tag, None, missing, self._request_context
            )
        except NotFoundError:
            return {}
        # Some registries take such a tag for the digest, and give the subject itself.
        if document.media_type == OCI_INDEX and not self._subject.matches(document.body):
            await self._add(document)
        return self._found

    async def _fetch_first(self, pages: Pages) -> Document | None:
        try:
            return await pages.fetch()
        except NotFoundError:
            return None
        except RegistryError as error:
            refused = error.status == _BAD_REQUEST and error.code != "DIGEST_INVALID"
            if error.status not in _UNKNOWN_API and not refused:
                raise
            return None

    async def _fetch_next(self, pages: Pages) -> Document | None:
        try:
            document = await pages.fetch()
        except NotFoundError as error:
            message = f"a page of the referrers of {self._subject} does not exist"
            raise MalformedResponseError(message) from error
        if document is not None and document.media_type != OCI_INDEX:
            message = f"{document.place} is a page of referrers, and no index"
            raise MalformedResponseError(message, url=document.place)
        return document

    async def _add(self, document: Document) -> None:
        if len(document.body) > OFFLOAD_BYTES:
            entries = await run_blocking(self._context, _read_entries, document)
        else:
            entries = _read_entries(document)
        for entry in entries:
            self._found.setdefault(entry.digest, entry)
        if len(self._found) > MAX_INSTANCES:
            message = f"more than {MAX_INSTANCES} manifests refer to {self._subject}"
            raise LimitExceededError(message, limit=MAX_INSTANCES)


def _read_entries(document: Document) -> tuple[Descriptor, ...]:
    entries = Manifest.verified(document.body, document.media_type, None).parse_index().manifests
    check_digests([entry.digest for entry in entries])
    return entries
