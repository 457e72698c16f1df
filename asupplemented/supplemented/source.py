"""Groups as sources: each digest is routed to the members that have it.

Manifests come from the one member that the resolution chose. Blobs have several candidates, in the
order of the resolution: the stream that reads a blob asks the next one if the first fails.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from asupplemented.abc import AsyncResource, BlobCandidate, Source
from asupplemented.aio.closing import close_all
from asupplemented.budget import ledger_of
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    InstanceNotFoundError,
    SupplementedError,
    UnsupportedOperationError,
    VerificationError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest, UnreadManifest
from asupplemented.supplemented.lookahead import Want

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from asupplemented.abc import (
        BlobFile,
        BlobStream,
        Context,
        GroupReference,
        ManifestTrace,
        RawBlob,
        RawParts,
    )
    from asupplemented.events import CopyProgress, PrefetchReport
    from asupplemented.model.index import Selection
    from asupplemented.model.platform import Platform
    from asupplemented.model.signature import Signature
    from asupplemented.supplemented.resolution import Candidate, Explanation, Instance, Resolution

__all__ = ("SupplementedSource",)


class SupplementedSource(Source):
    """An open group: every digest is routed to the member that serves it.

    Made by `SupplementedReference.open`.

    Attributes:
        resolution: Which member serves which manifest and blob, and why.
    """

    __slots__ = (
        "_closed",
        "_manifests",
        "_members",
        "_reference",
        "_rerouted",
        "_session",
        "resolution",
    )

    def __init__(
        self,
        reference: GroupReference,
        resolution: Resolution,
        members: Mapping[int, Source],
        manifests: Mapping[Want, Manifest | UnreadManifest],
        session: Context,
    ) -> None:
        self.resolution = resolution
        self._reference = reference
        self._members = dict(members)
        self._manifests = dict(manifests)
        """What is in memory, by the fetch that gave it; read when it is first asked for."""
        self._session = session
        self._rerouted: dict[Digest, tuple[Digest, Descriptor]] = {}
        self._closed = False

    @property
    def reference(self) -> GroupReference:
        """The group; its ``top`` is what ``Reference()`` returns in the Go package (rule X-11)."""
        return self._reference

    @property
    def concurrent_blobs(self) -> bool:
        """Whether blobs can be read concurrently from every member (rule X-11)."""
        return all(member.concurrent_blobs for member in self._members.values())

    def instances(self) -> tuple[Instance, ...]:
        """All manifests that can be served, with their platforms; see `Resolution.instances`."""
        return self.resolution.instances()

    def find(self, platform: Platform | str | None = None) -> Instance:
        """The best image for a platform; see `Resolution.find`."""
        return self.resolution.find(platform)

    def list_missing(self) -> frozenset[str]:
        """Instances that no member supplies, as lists write them; see `Resolution.missing`."""
        return frozenset(missing.digest for missing in self.resolution.missing)

    def list_images(self) -> dict[Digest, Platform | None]:
        """All images that can be served, with their platforms; indexes are not among them."""
        instances = self.resolution.instances()
        images = [each for each in instances if not each.is_index and not each.is_opaque]
        return {each.digest: each.platform for each in images}

    def explain(self, digest: Digest | str) -> Explanation:
        """Say which member serves a manifest or blob, which others could, and why.

        As `Resolution.explain`. It also says which candidates of a blob failed lately and are
        therefore asked after the others, and for how long; and how many requests a registry said
        are left.

        Raises:
            InvalidDigestError: `digest` is no digest.
            InstanceNotFoundError: The group has neither a manifest nor a blob of that digest.
            ClosedError: The image or its session was closed.
        """
        from asupplemented.blobs.health import health_of

        self._check_open()
        planned = self.resolution.explain(digest)
        health, ledger = health_of(self._session), ledger_of(self._session)

        def reasons(candidate: Candidate) -> Iterator[str]:
            yield candidate.reason
            pause = health.remaining(candidate.reference) if planned.kind == "blob" else 0
            if pause:
                yield f"asked last for {pause:.0f} s"
            balance = ledger.find_for(self._session.principal, candidate.reference)
            if balance is not None:
                yield str(balance)

        return planned._replace(
            candidates=tuple(
                each._replace(reason="; ".join(reasons(each))) for each in planned.candidates
            )
        )

    # Manifests

    async def get_manifest(self, instance: Digest | str | None = None) -> Manifest:
        """The top's default manifest (None), or any manifest of the group, verified.

        Args:
            instance: The digest of the manifest.

        Raises:
            InstanceNotFoundError: The group has no such manifest (rule X-09).
            VerificationError: The member now serves other bytes than when it was opened.
        """
        self._check_open()
        digest = self.resolution.top if instance is None else Digest(instance)
        number, asked = self._route(digest)
        want = Want(number, asked)
        kept = self._manifests.get(want)
        if isinstance(kept, UnreadManifest):
            kept = Manifest(kept.raw, self.resolution.media_type(digest), digest)
            self._manifests[want] = kept
        if kept is not None:
            return kept
        member = self._members[number]
        with _of_member(number):
            if asked is not None:
                [outcome] = await member.fetch_manifests([asked])
                if isinstance(outcome, SupplementedError):
                    raise outcome
                return Manifest(outcome.raw, self.resolution.media_type(digest), digest)
            manifest = await member.get_manifest()
            if manifest.digest != digest:
                message = "the default manifest has changed since the group was resolved"
                raise VerificationError(message, reference=member.reference, digest=digest)
            return manifest

    async def fetch_manifests(
        self, instances: Sequence[Digest]
    ) -> Sequence[UnreadManifest | SupplementedError]:
        """Many manifests of the group as verified bytes, one outcome each."""
        outcomes: list[UnreadManifest | SupplementedError] = []
        for instance in instances:
            try:
                found = await self.get_manifest(instance)
                outcomes.append(UnreadManifest(found.raw, found.media_type, found.digest))
            except SupplementedError as error:
                outcomes.append(error)
        return outcomes

    def trace_manifest(self, digest: Digest) -> ManifestTrace:
        """Where a manifest that was read comes from, by its digest.

        Raises:
            InstanceNotFoundError: The group has no such manifest.
        """
        number, asked = self._route(digest)
        trace = self._members[number].trace_manifest(digest)
        return trace._replace(held=trace.held or Want(number, asked) in self._manifests)

    def _route(self, digest: Digest) -> tuple[int, Digest | None]:
        """The member that serves a manifest, and the digest to ask for, None for its default."""
        number = self.resolution.sources.get(digest)
        if number is None:
            message = "this group has no such manifest"
            raise InstanceNotFoundError(
                message, reference=self._reference, digest=digest, digests=(digest,)
            )
        default = self.resolution.defaults[number] == digest
        return number, None if default else digest

    async def check_defaults(self) -> None:
        """Check that the members' default manifests are those of the resolution.

        Raises:
            VerificationError: One of them has changed.
        """
        for number, member in self._members.items():
            expected = self.resolution.defaults[number]
            with _of_member(number):
                manifest = await member.get_manifest()
            if manifest.digest != expected:
                message = f"the default manifest is now {manifest.digest}; resolve again"
                raise VerificationError(
                    message, reference=member.reference, digest=expected, member=number
                )
            self._manifests[Want(number, None)] = manifest

    # Blobs

    def blob_candidates(self, blob: Descriptor) -> Sequence[BlobCandidate]:
        """The candidates of every member that can serve a blob, best first.

        Raises:
            UnsupportedOperationError: All of these members serve manifests only.
        """
        self._check_open()
        found: list[BlobCandidate] = []
        unable: UnsupportedOperationError | None = None
        for number in self._numbers(Digest(blob.digest)):
            try:
                inner = self._members[number].blob_candidates(blob)
            except BlobNotFoundError:
                continue  # a nested group that was resolved otherwise; another member may have it
            except UnsupportedOperationError as error:
                unable = error.locate(member=number)
                continue
            found.extend(_MemberCandidate(candidate, number) for candidate in inner)
        if unable is not None and not found:
            raise unable
        principal, ledger = self._session.principal, ledger_of(self._session)
        # Members that cost nothing first, where few requests are left.
        return sorted(found, key=lambda each: ledger.is_low(principal, each.reference))

    def _numbers(self, digest: Digest) -> list[int]:
        """Members to ask for a blob, best first; `layers_for_copy` may have named one."""
        rerouted = self._rerouted.get(digest)
        numbers: list[int] = []
        if rerouted is not None:
            manifest = rerouted[0]
            numbers.append(self.resolution.sources[manifest])
            numbers.extend(self.resolution.alternates.get(manifest, ()))
        if rerouted is None or digest in self.resolution.blobs:
            numbers.extend(c.member for c in self.resolution.candidates(digest))
        return [n for n in dict.fromkeys(numbers) if n in self._members]

    def open_blob(
        self,
        blob: Digest | str | Descriptor,
        *,
        start: int = 0,
        end: int | None = None,
        shared: bool = True,
    ) -> BlobStream:
        """A stream over ``[start, end)`` of a blob, not yet opened.

        Args:
            blob: Its digest, or a descriptor; with a digest, size and media type come from the
                manifest that names it.
            start: Offset of the first byte.
            end: Offset behind the last byte; None is the end of the blob.
            shared: See `Source.open_blob`.

        Raises:
            BlobNotFoundError: No manifest of the group names the blob (rule X-09).
        """
        from asupplemented.cache.sharing import open_stream

        descriptor = blob if isinstance(blob, Descriptor) else self._descriptor(Digest(blob))
        candidates = self.blob_candidates(descriptor)
        return open_stream(
            descriptor, candidates, self._session, start=start, end=end, shared=shared
        )

    def open_parts(
        self, blob: Digest | str | Descriptor, ranges: Sequence[tuple[int, int | None]]
    ) -> RawParts:
        """Ranges of a blob from the first member, in order, that can read several at once.

        Raises:
            BlobNotFoundError: No manifest of the group names the blob (rule X-09).
            UnsupportedOperationError: No member that has the blob can do that.
        """
        self._check_open()
        descriptor = blob if isinstance(blob, Descriptor) else self._descriptor(Digest(blob))
        for number in self._numbers(Digest(descriptor.digest)):
            try:
                return self._members[number].open_parts(descriptor, ranges)
            except (BlobNotFoundError, UnsupportedOperationError):
                continue
        return super().open_parts(descriptor, ranges)

    def _descriptor(self, digest: Digest) -> Descriptor:
        rerouted = self._rerouted.get(digest)
        try:
            return self.resolution.descriptor(digest) if rerouted is None else rerouted[1]
        except BlobNotFoundError as error:
            raise error.locate(reference=self._reference) from None

    async def prefetch(
        self,
        *,
        selection: Selection | None = None,
        concurrency: int | None = None,
        progress: Callable[[CopyProgress], None] | None = None,
    ) -> PrefetchReport:
        """Fetch the image into the cache of the session; see `Source.prefetch`.

        The selection of the group is the default.
        """
        from asupplemented.transfer.prefetch import prefetch

        self._check_open()
        return await prefetch(
            self,
            self._session,
            selection=selection or self._reference.selection,
            concurrency=concurrency,
            progress=progress,
        )

    # What belongs to instances

    async def get_signatures(self, instance: Digest | str | None = None) -> tuple[Signature, ...]:
        """The signatures of a manifest in the member that serves it.

        Raises:
            InstanceNotFoundError: The group has no such manifest.
        """
        number, asked = self._member_of(instance)
        with _of_member(number):
            return await self._members[number].get_signatures(asked)

    async def layers_for_copy(
        self, instance: Digest | str | None = None
    ) -> tuple[Descriptor, ...] | None:
        """The layers to ask for instead of those in a manifest, None if the manifest is right.

        From then on the member that serves the instance also serves these layers (rule X-10). The
        resolution does not change.

        Raises:
            InstanceNotFoundError: The group has no such manifest.
        """
        number, asked = self._member_of(instance)
        with _of_member(number):
            layers = await self._members[number].layers_for_copy(asked)
        manifest = self.resolution.top if instance is None else Digest(instance)
        for layer in layers or ():
            self._rerouted[Digest(layer.digest)] = (manifest, layer)
        return layers

    async def get_referrers(
        self, subject: Digest | str, artifact_type: str | None = None
    ) -> tuple[Descriptor, ...]:
        """The manifests that refer to a manifest of the group, in every member that holds it.

        The member that serves the manifest comes first; of equal digests the first one counts.
        Referrers are not part of the group: read them from a reference to their member.

        Raises:
            InstanceNotFoundError: The group has no such manifest.
            UnsupportedOperationError: No member that holds it has lists of referrers.
        """
        digest = Digest(subject)
        self._member_of(digest)
        numbers = (self.resolution.sources[digest], *self.resolution.alternates.get(digest, ()))
        found: dict[str, Descriptor] = {}
        able = False
        for number in [n for n in dict.fromkeys(numbers) if n in self._members]:
            try:
                with _of_member(number):
                    listed = await self._members[number].get_referrers(digest, artifact_type)
            except (InstanceNotFoundError, UnsupportedOperationError):
                continue  # a nested group without this manifest, or a member without such lists
            able = True
            for each in listed:
                found.setdefault(each.digest, each)
        return tuple(found.values()) if able else await super().get_referrers(digest)

    def _member_of(self, instance: Digest | str | None) -> tuple[int, Digest | None]:
        self._check_open()
        if instance is None:
            return 0, None
        return self._route(Digest(instance))

    # Closing

    def _check_open(self) -> None:
        if self._closed:
            message = "the image has been closed; open the reference again"
            raise ClosedError(message, reference=self._reference)

    async def aclose(self) -> None:
        """Close every member, also those that serve nothing (rule X-14).

        Raises:
            ExceptionGroup: Some members failed to close; the others are closed.
        """
        if self._closed:
            return
        self._closed = True
        self._manifests.clear()
        await close_all(self._members.values(), "the members of a group")

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<SupplementedSource of {self._reference}, {state}>"


@contextmanager
def _of_member(number: int) -> Generator[None]:
    """Give errors the number of a member; a nested group counts its members for itself."""
    try:
        yield
    except SupplementedError as error:
        error.member = number
        raise


class _MemberCandidate(BlobCandidate):
    """A candidate of a member, under the member's number in this group."""

    __slots__ = ("_inner", "_member")

    def __init__(self, inner: BlobCandidate, member: int) -> None:
        self._inner = inner
        self._member = member

    @property
    def member(self) -> int:
        return self._member

    @property
    def reference(self) -> str:
        return self._inner.reference

    @property
    def local(self) -> bool:
        return self._inner.local

    def hold(self) -> AsyncResource:
        return self._inner.hold()

    def open(self, start: int = 0, end: int | None = None, etag: str | None = None, /) -> RawBlob:
        return self._inner.open(start, end, etag)

    async def open_file(self) -> BlobFile | None:
        return await self._inner.open_file()
