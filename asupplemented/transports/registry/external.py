"""Blobs that are somewhere else: the URLs in descriptors (rules BLOB-01, BLOB-02, RES-08).

Layers that must not be distributed are not pushed; their descriptors say where to get them.
Such a URL comes from whoever wrote the manifest, so nobody follows it unasked.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs
from multidict import CIMultiDict

from asupplemented.aio.retry import retry
from asupplemented.errors import BlobNotFoundError, NotFoundError, SupplementedError
from asupplemented.model.media_type import (
    DOCKER_FOREIGN_LAYER,
    DOCKER_FOREIGN_LAYER_GZIP,
    OCI_NONDISTRIBUTABLE_LAYER,
    OCI_NONDISTRIBUTABLE_LAYER_GZIP,
    OCI_NONDISTRIBUTABLE_LAYER_ZSTD,
)
from asupplemented.transports.registry.blobs import HttpBlob
from asupplemented.transports.registry.bodies import refuse
from asupplemented.transports.registry.courier import Courier, Parcel
from asupplemented.transports.registry.error_response import Inquiry
from asupplemented.transports.registry.patience import judge
from asupplemented.transports.registry.redirects import parse_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    import aiohttp
    from yarl import URL

    from asupplemented.model.descriptor import Descriptor
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.options import RegistryOptions
    from asupplemented.transports.registry.request import Caller

__all__ = ("ExternalBlob", "find_urls")

_FOREIGN: Final = frozenset(
    (
        DOCKER_FOREIGN_LAYER,
        DOCKER_FOREIGN_LAYER_GZIP,
        OCI_NONDISTRIBUTABLE_LAYER,
        OCI_NONDISTRIBUTABLE_LAYER_GZIP,
        OCI_NONDISTRIBUTABLE_LAYER_ZSTD,
    )
)
_OK: Final = 200


def find_urls(blob: Descriptor, options: RegistryOptions) -> tuple[URL, ...]:
    """Where a blob may be read from besides its registry, in order of preference.

    Returns:
        Nothing unless the options allow it and the blob is a layer that must not be
        distributed. URLs that are neither http nor https, or hold a user, are left out.
    """
    if not options.allow_external_urls or blob.media_type not in _FOREIGN:
        return ()
    urls = (_read(text) for text in blob.urls)
    return tuple(url for url in urls if url is not None)[: options.limits.external_urls]


def _read(text: str) -> URL | None:
    try:
        return parse_url(text)
    except ValueError:
        return None


class ExternalBlob(HttpBlob):
    """One attempt to read a whole blob: from its registry, or if that lacks it from elsewhere.

    Elsewhere nothing is told of us: no credentials, whatever is answered (rule CRED-03). An
    address has to be as public as the registry's, and https is not left for http. A body from
    there has no validator, since there is no going on with it in the middle (rule RES-08).

    Args:
        client: The registry.
        repository: The path of the repository.
        digest: The blob, a valid digest.
        urls: Where else it may be, in order of preference.
        caller: Who it is for.
    """

    __slots__ = ("_abroad", "_urls")

    def __init__(
        self,
        client: RegistryClient,
        repository: str,
        digest: str,
        *,
        urls: Sequence[URL],
        caller: Caller,
    ) -> None:
        super().__init__(client, repository, digest, start=0, end=None, caller=caller)
        self._urls = urls
        self._abroad = False

    async def _ask(self) -> aiohttp.ClientResponse:
        try:
            return await super()._ask()
        except BlobNotFoundError as error:
            missing = error
        self._abroad = True
        return await self._ask_elsewhere(missing)

    @property
    def resumable(self) -> bool:
        """Whether it came from the registry."""
        return not self._abroad

    def _inspect(self, response: aiohttp.ClientResponse) -> None:
        super()._inspect(response)
        if self._abroad:
            self.etag = None

    async def _ask_elsewhere(self, missing: BlobNotFoundError) -> aiohttp.ClientResponse:
        """Ask one after another.

        Raises:
            SupplementedError: The first failure that is more than a miss, else `missing`.
        """
        means = self._client.means
        site = await self._client.reach(self._caller)
        home = replace(site.home, insecure=False)
        courier = Courier(means.connections, means.options, home)
        failures: list[SupplementedError] = []
        for url in self._urls:
            try:
                return await self._ask_at(url, courier)
            except SupplementedError as error:
                failures.append(error)
        hard = [each for each in failures if not isinstance(each, NotFoundError)]
        verdict = hard[0] if hard else missing
        for each in (missing, *failures):
            if each is not verdict:
                verdict.add_note(f"another place failed as well: {each}")
        raise verdict

    async def _ask_at(self, url: URL, courier: Courier) -> aiohttp.ClientResponse:
        means = self._client.means
        return await retry(
            partial(self._try_at, url, courier),
            judge=judge,
            policy=self._patience,
            clock=means.clock,
            notify=self._caller.report_retry,
        )

    async def _try_at(self, url: URL, courier: Courier) -> aiohttp.ClientResponse:
        headers = CIMultiDict({hdrs.ACCEPT: "*/*"})
        timeout = self._client.means.connections.body_timeout
        response, _ = await courier.deliver(Parcel(url, headers, headers, timeout=timeout))
        if response.status == _OK:
            return response
        inquiry = Inquiry(f"blob {self._digest}", BlobNotFoundError, self._digest)
        raise await refuse(response, inquiry, self._client.means)
