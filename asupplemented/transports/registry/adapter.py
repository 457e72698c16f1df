"""Reading images from registries: the adapter, which is thin (rules HTTP-02 to HTTP-10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import hdrs

from asupplemented.abc import RawManifest
from asupplemented.errors import (
    ClosedError,
    ImageNotFoundError,
    LimitExceededError,
    MalformedResponseError,
    ManifestNotFoundError,
    RangeError,
    UnsupportedOperationError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.manifest import Manifest
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.blobs import ExternalBlob, HttpBlob, find_urls
from asupplemented.transports.registry.bodies import check_encoding, read_whole
from asupplemented.transports.registry.client import Errand
from asupplemented.transports.registry.error_response import Inquiry, parse_media_type
from asupplemented.transports.registry.host_config import System
from asupplemented.transports.registry.listing import fetch_digest, list_tags
from asupplemented.transports.registry.parts import HttpParts
from asupplemented.transports.registry.pool import REGISTRIES, RegistryPool
from asupplemented.transports.registry.referrers import fetch_referrers
from asupplemented.transports.registry.request import Means
from asupplemented.transports.registry.signatures import Signatures
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import aiohttp
    from yarl import URL

    from asupplemented.abc import Context
    from asupplemented.hostconfig.registries import ImageLocation
    from asupplemented.model.digest import Digest
    from asupplemented.model.name import ImageName
    from asupplemented.model.signature import Signature
    from asupplemented.transports.registry.pool import Lease
    from asupplemented.transports.registry.request import Caller

__all__ = ("RegistryAdapter", "enter")

_HTML: Final = "text/html"


async def enter(candidate: ImageLocation, caller: Caller, context: Context) -> RegistryAdapter:
    """Take a client for an image in one place. Nothing is asked of the registry yet.

    Who we are there is looked up by the name that the image has there: what is known for a
    registry is not for its mirrors (rule CRED-04).

    Args:
        candidate: The image, and how it is reached.
        caller: Who it is for.
        context: The session.

    Raises:
        ConfigurationError: The place is blocked, or what is configured for it cannot be used.
    """
    candidate.check_allowed()
    name = candidate.name
    means = Means.of(context)
    route = await System.of(context).plan_route(candidate, caller.warn)
    credential = await context.credentials(name.repository)
    pool = context.resource(REGISTRIES, lambda: RegistryPool(means))
    lease = pool.lease(route, credential, principal=context.principal)
    return RegistryAdapter(name, lease, caller, context)


class RegistryAdapter:
    """One image in a registry, raw and unverified.

    Args:
        name: The image; its digest is what is read, if it has one (rule REF-11).
        lease: The client of the registry; given back on closing.
        caller: Who it is for.
        context: The session, in whose threads long lists and local files are read.
    """

    __slots__ = (
        "_caller",
        "_context",
        "_default",
        "_lease",
        "_manifests",
        "_name",
        "_open",
        "_scope",
    )

    def __init__(self, name: ImageName, lease: Lease, caller: Caller, context: Context) -> None:
        self._name = name
        self._context = context
        self._default: RawManifest | None = None
        """The default manifest as it came, so that signatures agree with it (rule HTTP-09)."""
        self._lease = lease
        self._caller = caller
        self._manifests = f"/v2/{name.path}/manifests/"
        self._scope = pull_scope(name.path)
        self._open = True

    @property
    def default_descriptor(self) -> Descriptor | None:
        """The digest of the reference, None if it has only a tag."""
        digest = self._name.digest
        return None if digest is None else Descriptor(digest=digest)

    async def fetch_manifest(
        self, instance: Digest | None, begun: Callable[[], object] | None = None
    ) -> RawManifest:
        """Read the default manifest (None), or that of a digest.

        The media type is that of the header, without its parameters (rule HTTP-04).
        ``Docker-Content-Digest`` is not looked at: it proves nothing (rule HTTP-06).

        Args:
            instance: Which one.
            begun: Called when the answer begins.

        Raises:
            ImageNotFoundError: There is no such tag, repository or image.
            ManifestNotFoundError: There is no such instance.
            LimitExceededError: It is larger than ``MAX_MANIFEST``.
            SourceError: The registry failed or refused.
            ClosedError: The source was closed.
        """
        self._check_open()
        missing = ImageNotFoundError if instance is None else ManifestNotFoundError
        digest = instance or self._name.digest
        which = digest or self._name.tag or ""
        inquiry = Inquiry(f"manifest {which}", missing, digest)
        errand = Errand(self._manifests + which, self._scope, inquiry)
        response = await self._lease.client.send(errand, self._caller)
        if begun is not None:
            begun()
        raw = await self._read(response, which)
        if instance is None:
            self._default = raw
        return raw

    def open_blob(
        self,
        blob: Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
    ) -> HttpBlob:
        """Prepare to read ``[start, end)`` of a blob, or to go on with one (rule RES-06).

        Raises:
            RangeError: No range goes from `start` to `end`.
            ClosedError: The source was closed.
        """
        self._check_open()
        if start < 0 or (end is not None and end < start):
            message = f"no range of bytes goes from {start} to {end}"
            raise RangeError(message, digest=blob.digest)
        if start and end is None:
            end = blob.size  # some servers refuse a range without an end
        client, path = self._lease.client, self._name.path
        urls = () if start or end is not None else self._find_urls(blob)
        if urls:
            return ExternalBlob(client, path, blob.digest, urls=urls, caller=self._caller)
        return HttpBlob(
            client, path, blob.digest, start=start, end=end, etag=etag, caller=self._caller
        )

    def open_parts(self, blob: Descriptor, ranges: Sequence[tuple[int, int | None]]) -> HttpParts:
        """Prepare to read ranges of a blob, all in one request (rule PART-01).

        Raises:
            RangeError: The ranges are none, not sorted, or outside of the blob.
            LimitExceededError: There are too many of them.
            UnsupportedOperationError: The blob is one that may be somewhere else.
            ClosedError: The source was closed.
        """
        self._check_open()
        client, path = self._lease.client, self._name.path
        if self._find_urls(blob):
            message = "a blob that may be somewhere else is read as a whole"
            raise UnsupportedOperationError(message, digest=blob.digest)
        return HttpParts(client, path, blob, ranges, caller=self._caller)

    async def fetch_signatures(self, instance: Digest | None) -> tuple[Signature, ...]:
        """The signatures of the default manifest (None), or of an instance.

        The digest of the default manifest is that of the reference if it is sha256, else that of
        what was read, so that they agree while a tag moves (rules HTTP-09, SIG-03).

        Raises:
            SupplementedError: See `Signatures.fetch`.
            ClosedError: The source was closed.
        """
        self._check_open()
        signatures = Signatures(self._lease.client, self._name, self._caller, self._context)
        return await signatures.fetch(instance or await self._find_default())

    def _find_urls(self, blob: Descriptor) -> tuple[URL, ...]:
        """Where else a blob may be: all registries that have it are asked before (BLOB-02)."""
        options = self._lease.client.means.options
        return () if self._caller.rivals else find_urls(blob, options)

    async def _find_default(self) -> Digest:
        named = self._name.digest
        if named is not None and named.algorithm == "sha256":
            return named
        raw, media_type = self._default or await self.fetch_manifest(None)
        return Manifest.verified(raw, media_type, None).digest

    async def fetch_referrers(
        self, subject: Digest, artifact_type: str | None
    ) -> tuple[Descriptor, ...]:
        """What the repository holds that refers to a manifest (rules REFR-01 to REFR-04).

        Raises:
            SupplementedError: See `asupplemented.transports.registry.referrers`.
            ClosedError: The source was closed.
        """
        self._check_open()
        client, path = self._lease.client, self._name.path
        return await fetch_referrers(
            client, path, subject, artifact_type, self._caller, self._context
        )

    async def list_tags(self) -> tuple[str, ...]:
        """All tags of the repository, each once (rule TAG-01).

        Raises:
            SupplementedError: See `asupplemented.transports.registry.listing`.
            ClosedError: The source was closed.
        """
        self._check_open()
        client, path = self._lease.client, self._name.path
        return await list_tags(client, path, self._caller, self._context)

    async def fetch_digest(self) -> Digest:
        """The digest of the default manifest, as the registry claims it (rule HTTP-11).

        Raises:
            SupplementedError: See `asupplemented.transports.registry.listing`.
            ClosedError: The source was closed.
        """
        self._check_open()
        return await fetch_digest(self._lease.client, self._name, self._caller)

    async def aclose(self) -> None:
        """Give the client back. Bodies that are being read are left by those who entered them."""
        self._open = False
        self._lease.release()

    async def _read(self, response: aiohttp.ClientResponse, which: str) -> RawManifest:
        means = self._lease.client.means
        limit = means.options.limits.manifest
        media_type = parse_media_type(response.headers.get(hdrs.CONTENT_TYPE))
        try:
            check_encoding(response)
            self._check_kind(response, media_type)
            body = await read_whole(response, limit, means.timeouts)
        except BaseException:
            response.close()
            raise
        if body is None:
            message = f"the manifest {which} is larger than {limit} bytes"
            raise LimitExceededError(message, limit=limit)
        return RawManifest(body, media_type)

    def _check_kind(self, response: aiohttp.ClientResponse, media_type: str | None) -> None:
        if media_type != _HTML:
            return
        place = redact(response.url)
        message = (
            f"{place} answered with a page for people; "
            f"is {self._name.registry} a registry, or is there a portal in between?"
        )
        raise MalformedResponseError(message, status=response.status, url=place)

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("the source was closed; open the reference again")
