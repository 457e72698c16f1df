"""Reading images from registries: the adapter, which is thin (rules HTTP-02 to HTTP-10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import hdrs

from asupplemented.abc import RawManifest
from asupplemented.errors import (
    ClosedError,
    ImageNotFoundError,
    InvalidReferenceError,
    LimitExceededError,
    MalformedResponseError,
    ManifestNotFoundError,
    RangeError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.transports.registry.addresses import redact
from asupplemented.transports.registry.answers import Inquiry, parse_media_type
from asupplemented.transports.registry.blob import HttpBlob
from asupplemented.transports.registry.bodies import check_encoding, read_whole
from asupplemented.transports.registry.caller import Caller
from asupplemented.transports.registry.client import Errand
from asupplemented.transports.registry.means import Means
from asupplemented.transports.registry.pool import REGISTRIES, RegistryPool
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    import aiohttp

    from asupplemented.abc import Context
    from asupplemented.model.digest import Digest
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.pool import Lease

__all__ = ("RegistryAdapter", "open_adapter")

_HTML: Final = "text/html"


async def open_adapter(name: ImageName, reference: str, context: Context) -> RegistryAdapter:
    """Take a client for an image. Nothing is asked of the registry yet.

    Args:
        name: The image.
        reference: The same as users write it, for events.
        context: The session.

    Raises:
        InvalidReferenceError: It has a tag and a digest, and the options refuse that (REF-11).
        ConfigurationError: The session borrowed a client that cannot be used.
    """
    means = Means.of(context)
    if means.options.tag_and_digest == "refuse" and None not in {name.tag, name.digest}:
        message = "a reference with both a tag and a digest is not supported; drop one of them"
        raise InvalidReferenceError(message, reference=reference)
    credential = await context.credentials(name.repository)
    pool = context.resource(REGISTRIES, lambda: RegistryPool(means))
    lease = pool.lease(name.registry, credential)
    return RegistryAdapter(name, lease, Caller(reference, context.emit))


class RegistryAdapter:
    """One image in a registry, raw and unverified.

    Args:
        name: The image; its digest is what is read, if it has one (rule REF-11).
        lease: The client of the registry; given back on closing.
        caller: Who it is for.
    """

    __slots__ = ("_caller", "_lease", "_manifests", "_name", "_open", "_scope")

    def __init__(self, name: ImageName, lease: Lease, caller: Caller) -> None:
        self._name = name
        self._lease = lease
        self._caller = caller
        self._manifests = f"/v2/{name.path}/manifests/"
        self._scope = pull_scope(name.path)
        self._open = True

    @property
    def concurrent_blobs(self) -> bool:
        return True

    @property
    def default_descriptor(self) -> Descriptor | None:
        """The digest of the reference, None if it has only a tag."""
        digest = self._name.digest
        return None if digest is None else Descriptor(digest=digest)

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        """Read the default manifest (None), or that of a digest.

        The media type is that of the header, without its parameters (rule HTTP-04).
        ``Docker-Content-Digest`` is not looked at: it proves nothing (rule HTTP-06).

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
        return await self._read(response, which)

    def open_blob(self, blob: Descriptor, start: int = 0, end: int | None = None) -> HttpBlob:
        """Prepare to read ``[start, end)`` of a blob.

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
        return HttpBlob(client, path, blob.digest, start=start, end=end, caller=self._caller)

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
