"""The adapter of one image in one registry, raw and unverified (rules HTTP-02 to HTTP-10)."""

from __future__ import annotations

from asyncio import CancelledError
from typing import TYPE_CHECKING

from asupplemented.abc import RawManifest
from asupplemented.aio.timers import WaitTimers, running_task, time_limit
from asupplemented.errors import (
    ClosedError,
    ImageNotFoundError,
    MalformedResponseError,
    ManifestNotFoundError,
    RangeError,
    SupplementedError,
    UnsupportedOperationError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.manifest import Manifest
from asupplemented.model.media_type import KNOWN_MANIFESTS
from asupplemented.transports.registry.blobs import (
    ExternalBlob,
    HttpBlob,
    advise_external_urls,
    find_urls,
)
from asupplemented.transports.registry.documents import fetch_manifest
from asupplemented.transports.registry.host_config import HostConfig
from asupplemented.transports.registry.listing import check_login, fetch_digest, list_tags
from asupplemented.transports.registry.parts import HttpParts
from asupplemented.transports.registry.pool import REGISTRIES, RegistryPool
from asupplemented.transports.registry.referrers import fetch_referrers
from asupplemented.transports.registry.request import ClientDeps
from asupplemented.transports.registry.signatures import Signatures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from yarl import URL

    from asupplemented.abc import Context
    from asupplemented.hostconfig.registries import ImageLocation
    from asupplemented.model.digest import Digest
    from asupplemented.model.name import ImageName
    from asupplemented.model.signature import Signature
    from asupplemented.transports.registry.pool import ClientLease
    from asupplemented.transports.registry.request import RequestContext

__all__ = ("RegistryAdapter", "enter")


async def enter(
    candidate: ImageLocation, request_context: RequestContext, context: Context
) -> RegistryAdapter:
    """Take a client for an image in one place. No request is sent yet.

    Credentials are looked up by the name of the image in that place: mirrors do not get the
    credentials of the registry (rule CRED-04).

    Args:
        candidate: The image, and how it is reached.
        request_context: The reference that it is for.
        context: The session.

    Raises:
        ConfigurationError: The place is blocked, or its configuration cannot be used.
    """
    candidate.check_allowed()
    name = candidate.name
    deps = ClientDeps.of(context)
    config = await HostConfig.of(context).make_endpoint_config(candidate, request_context.warn)
    credential = await context.credentials(name.repository)
    pool = context.resource(REGISTRIES, lambda: RegistryPool(deps))
    lease = pool.lease(config, credential, principal=context.principal)
    return RegistryAdapter(name, lease, request_context, context)


class RegistryAdapter:
    """One image in a registry, raw and unverified.

    Args:
        name: The image; its digest is what is read, if it has one (rule REF-11).
        lease: The client of the registry; released on closing.
        request_context: The reference that it is for.
        context: The session, in whose threads long lists and local files are read.
    """

    __slots__ = (
        "_context",
        "_default",
        "_lease",
        "_name",
        "_open",
        "_request_context",
        "_waits",
    )

    def __init__(
        self, name: ImageName, lease: ClientLease, request_context: RequestContext, context: Context
    ) -> None:
        self._name = name
        self._context = context
        self._default: RawManifest | None = None
        """The default manifest that was read last, so that signatures fit it (rule HTTP-09)."""
        self._lease = lease
        self._request_context = request_context
        self._waits = WaitTimers(context.timeouts.open)
        """Limits each manifest with its redirects, tokens, retries and pauses."""
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
        ``Docker-Content-Digest`` is ignored: it proves nothing (rule HTTP-06).

        Args:
            instance: Which one.
            begun: Called when the head of the response is there.

        Raises:
            ImageNotFoundError: The tag, repository or image does not exist.
            ManifestNotFoundError: The instance does not exist.
            LimitExceededError: It is larger than ``RegistryLimits.manifest``.
            SourceError: The registry failed or refused.
            ClosedError: The source was closed.
        """
        self._check_open()
        missing = ImageNotFoundError if instance is None else ManifestNotFoundError
        digest = instance or self._name.digest
        which = digest or self._name.tag or ""
        client, waits, task = self._lease.client, self._waits, running_task()
        cancelling = task.cancelling()
        waits.begin(task)
        try:
            document = await fetch_manifest(
                client, self._name.path, which, digest, missing, self._request_context, begun
            )
        except CancelledError:
            if waits.end(task) and task.cancelling() <= cancelling:
                raise waits.give_up(f"manifest {which}") from None
            raise
        except SupplementedError as error:
            client.secrets.scrub(error)
            raise
        finally:
            waits.end(task)
            self._close_waits()
        secrets, media_type = client.secrets, document.media_type
        if secrets.occur_in(document.body):
            # Errors of parsing quote manifests, long after they have left this adapter.
            message = f"{document.place} sent a manifest that repeats our credentials"
            raise MalformedResponseError(message, url=document.place, digest=digest)
        if media_type not in KNOWN_MANIFESTS and media_type is not None:
            media_type = media_type if secrets.censor_own(media_type) == media_type else None
        raw = RawManifest(document.body, media_type)
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
        """Prepare to read ``[start, end)`` of a blob, or to resume one (rule RES-06).

        Raises:
            RangeError: `start` is negative, or greater than `end`.
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
            return ExternalBlob(
                client,
                path,
                blob.digest,
                urls=urls,
                expected=blob.size,
                request_context=self._request_context,
            )
        last = blob.size if end is None else end
        return HttpBlob(
            client,
            path,
            blob.digest,
            start=start,
            end=end,
            etag=etag,
            expected=None if last is None else last - start,
            request_context=self._request_context,
            advice=advise_external_urls(blob, client.deps.options),
        )

    def open_parts(self, blob: Descriptor, ranges: Sequence[tuple[int, int | None]]) -> HttpParts:
        """Prepare to read ranges of a blob, all in one request (rule PART-01).

        Raises:
            RangeError: The ranges are none, not sorted, or outside of the blob.
            LimitExceededError: There are too many of them.
            UnsupportedOperationError: The blob may have to be read from an external URL.
            ClosedError: The source was closed.
        """
        self._check_open()
        client, path = self._lease.client, self._name.path
        if self._find_urls(blob):
            message = "ranges of a blob with external URLs cannot be read; read it as a whole"
            raise UnsupportedOperationError(message, digest=blob.digest)
        return HttpParts(client, path, blob, ranges, request_context=self._request_context)

    async def fetch_signatures(self, instance: Digest | None) -> tuple[Signature, ...]:
        """The signatures of the default manifest (None), or of an instance.

        The digest of the default manifest is that of the reference if it is sha256, else that of
        the bytes that were read, so that both agree while a tag moves (rules HTTP-09, SIG-03).

        Raises:
            SupplementedError: See `Signatures.fetch`.
            ClosedError: The source was closed.
        """
        self._check_open()
        places = await HostConfig.of(self._context).find_places(self._request_context.warn)
        signatures = Signatures(
            self._lease.client, self._name, places, self._request_context, self._context
        )
        async with self._time_limit("reading the signatures"):
            return await signatures.fetch(instance or await self._find_default())

    def _find_urls(self, blob: Descriptor) -> tuple[URL, ...]:
        """The external URLs of a blob; only the last registry to ask uses them (BLOB-02)."""
        options = self._lease.client.deps.options
        return () if self._request_context.has_alternatives else find_urls(blob, options)

    async def _find_default(self) -> Digest:
        named = self._name.digest
        if named is not None and named.algorithm == "sha256":
            return named
        raw, media_type = self._default or await self.fetch_manifest(None)
        return Manifest.verified(raw, media_type, None).digest

    async def fetch_referrers(
        self, subject: Digest, artifact_type: str | None
    ) -> tuple[Descriptor, ...]:
        """The manifests of the repository that refer to a manifest (rules REFR-01 to REFR-04).

        Raises:
            SupplementedError: See `asupplemented.transports.registry.referrers`.
            ClosedError: The source was closed.
        """
        self._check_open()
        client, path = self._lease.client, self._name.path
        async with self._time_limit(f"the list of referrers of {subject}"):
            return await fetch_referrers(
                client, path, subject, artifact_type, self._request_context, self._context
            )

    async def list_tags(self) -> tuple[str, ...]:
        """All tags of the repository, each once (rule TAG-01).

        Raises:
            SupplementedError: See `asupplemented.transports.registry.listing`.
            ClosedError: The source was closed.
        """
        self._check_open()
        client, path = self._lease.client, self._name.path
        async with self._time_limit(f"the list of tags of {path}"):
            return await list_tags(client, path, self._request_context, self._context)

    async def check_login(self) -> None:
        """Ask whether the registry accepts the credential (rule PING-01).

        Raises:
            SourceError: It does not, or it cannot be reached.
            ClosedError: The source was closed.
        """
        self._check_open()
        async with self._time_limit("the login"):
            await check_login(self._lease.client, self._request_context)

    async def fetch_digest(self) -> Digest:
        """The digest of the default manifest, as the registry claims it (rule HTTP-11).

        Raises:
            SupplementedError: See `asupplemented.transports.registry.listing`.
            ClosedError: The source was closed.
        """
        self._check_open()
        async with self._time_limit(f"asking for the digest of {self._name}"):
            return await fetch_digest(self._lease.client, self._name, self._request_context)

    async def aclose(self) -> None:
        """Release the client. Bodies that are entered stay open until they are left."""
        self._open = False
        self._close_waits()
        self._lease.release()

    def _close_waits(self) -> None:
        """After closing, cancel the timer once no manifest is being fetched any more."""
        if not self._open and not self._waits:
            self._waits.close()

    def scrub(self, error: SupplementedError) -> None:
        """Remove what the registry must not make us repeat from an error (rule CRED-07)."""
        self._lease.client.secrets.scrub(error)

    def _time_limit(self, what: str) -> time_limit:
        """Limit one operation with its redirects, tokens, retries and pages; scrub its errors."""
        return time_limit(self._context.timeouts.open, what, self._lease.client.secrets.scrub)

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("the source was closed; open the reference again")
