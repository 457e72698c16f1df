"""`View`: one name of a catalog, as one principal sees it, and how its images are opened.

A view holds nothing and lasts for one request. `Catalog` decides when its methods run, and joins
requests that want the same.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from asupplemented.abc import RemoteReference, RepositoryReference
from asupplemented.aio.closing import closing_on_error
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.catalog.images import ImageKey, OpenImage, describe_blob
from asupplemented.catalog.names import at_digest, follows, tags_of
from asupplemented.catalog.upstreams import Upstreams, is_outage
from asupplemented.errors import (
    BlobNotFoundError,
    MalformedResponseError,
    ManifestNotFoundError,
    NotFoundError,
    SupplementedError,
    UnexpectedStatusError,
    UnsupportedOperationError,
)
from asupplemented.events import Warned
from asupplemented.supplemented.reference import supplement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from asupplemented.abc import Context, Reference, ResourceKey
    from asupplemented.catalog.images import OpenImages
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.supplemented.reference import SupplementedReference

__all__ = ("View",)

OK = 200


class View:
    """A name of a catalog for the principal of a session.

    Args:
        session: Opens images, with the credentials of its principal.
        group: What the name stands for; see `asupplemented.catalog.names`.
        key: Of the upstreams of the catalog, of which each session has its own.
        images: The images of the catalog.

    Attributes:
        identity: The session, its principal and its credentials: what is known to one identity
            never reaches another (rule SEC-13).
        scope: The identity and the group.
    """

    __slots__ = ("_clock", "_images", "_session", "_upstreams", "group", "identity", "scope")

    def __init__(
        self,
        session: Context,
        group: SupplementedReference,
        key: ResourceKey[Upstreams],
        images: OpenImages,
    ) -> None:
        self.group = group
        self._session = session
        self._images = images
        self._upstreams = session.resource(key, partial(Upstreams, session))
        self._clock = session.resource(CLOCK, Clock)
        # The upstreams stand for the session that owns the resources.
        self.identity: Hashable = (self._upstreams, session.principal, session.credentials)
        self.scope: Hashable = (self.identity, group)

    def now(self) -> float:
        """The time in seconds, by the clock of the session."""
        return self._clock.now()

    # Tags

    async def open_group(self, group: SupplementedReference, which: str) -> OpenImage:
        """Open a group, and keep it in the place of what is open for a tag or digest."""
        source = await group.open(self._session)
        opened = OpenImage(source, source.resolution.top)
        await self._keep(which, opened)
        return opened

    async def refresh(
        self, group: SupplementedReference, tag: str, opened: OpenImage | None, ttl: float
    ) -> OpenImage:
        """Open the image of a tag, or confirm that what is open is still that.

        Args:
            group: The group with its members at the tag.
            tag: The tag.
            opened: What is open, None if nothing is.
            ttl: Seconds until it is confirmed again.

        Raises:
            SupplementedError: It cannot be opened or confirmed, or this failed lately.
        """
        top = group.top
        self._upstreams.check(self.identity, top)
        with self._upstreams.recording(self.identity, top):
            asked = self.now()
            if opened is None or await self._has_moved(top, opened.digest):
                opened = await self.open_group(group, tag)
            opened.confirm(asked, ttl)
        return opened

    async def _has_moved(self, top: Reference, digest: Digest | None) -> bool:
        """Whether a reference names another manifest by now: by HEAD, else by reading it."""
        if isinstance(top, RemoteReference):
            try:
                claimed = await top.get_digest(self._session)
            except (MalformedResponseError, UnexpectedStatusError):
                claimed = None  # HEAD says nothing
            if claimed and digest and claimed.algorithm == digest.algorithm:
                return claimed != digest
        async with top.open(self._session) as source:
            return (await source.get_manifest()).digest != digest

    def record_failure(self, top: Reference, error: SupplementedError) -> None:
        """Record that an upstream failed, for a request that still waits for it."""
        self._upstreams.fail(self.identity, top, error)

    def serve_stale(
        self, top: Reference, opened: OpenImage, until: float, error: SupplementedError
    ) -> None:
        """Have an image served as it is until its upstream is asked again.

        Args:
            top: The upstream.
            opened: The image.
            until: When it is not served any more, by the clock.
            error: What the upstream failed with.
        """
        opened.failed = True
        opened.due = min(self.now() + self._upstreams.remaining(self.identity, top), until)
        message = f"{top} failed, so what it had before is served: {error.message}"
        opened.trouble.report(self._warn, message)

    # Digests

    async def find_digest(self, digest: Digest, *, blob: bool) -> OpenImage:
        """Open what holds a manifest or, with `blob` or if there is no such manifest, a blob.

        Raises:
            NotFoundError: The name does not hold it.
            SupplementedError: A member that may hold it failed.
        """
        if blob:
            return await self._find_blob(digest)
        try:
            return await self._find_manifest(digest)
        except NotFoundError as missing:
            try:
                return await self._find_blob(digest)
            except NotFoundError:
                raise missing from None

    async def _find_manifest(self, digest: Digest) -> OpenImage:
        """Open the first group that has a manifest; see `at_digest`."""
        failures: list[SupplementedError] = []
        for group in at_digest(self.group, digest):
            try:
                opened, unavailable = await self._open_with(group, digest)
            except NotFoundError:
                continue
            except SupplementedError as error:
                failures.append(error)
                continue
            if opened is not None:
                return opened
            # All other groups are parts of this one. What was left out may hold the digest.
            failures.extend(error for error in unavailable if is_outage(error))
            break
        if failures:
            raise failures[0]
        message = f"{self.group.top} and its supplements do not hold this manifest"
        raise ManifestNotFoundError(message, digest=digest)

    async def _open_with(
        self, group: SupplementedReference, digest: Digest
    ) -> tuple[OpenImage | None, Sequence[SupplementedError]]:
        """Open a group if it has a manifest.

        Returns:
            The image, None if the group does not have it; and what its supplements failed with.
        """
        top = group.top
        self._upstreams.check(self.identity, top)
        with self._upstreams.recording(self.identity, top):
            await self._confirm_held(top)
            source = await group.open(self._session)
        if digest not in source.resolution.sources:
            await source.aclose()
            return None, tuple(source.resolution.unavailable.values())
        opened = OpenImage(source, source.resolution.top)
        await self._keep(digest, opened)
        return opened, ()

    async def _confirm_held(self, reference: Reference) -> None:
        """Check that a repository holds the digest of a reference (rule SRV-13).

        With a cache, opening the reference proves nothing: its manifest may come from there.

        Raises:
            ImageNotFoundError: It does not.
            SourceError: The registry failed or refused.
        """
        if self._session.cache is None or not isinstance(reference, RemoteReference):
            return
        try:
            await reference.get_digest(self._session)
        except MalformedResponseError as error:
            if error.status != OK:  # a response without a digest, to a request that had it
                raise

    async def _find_blob(self, digest: Digest) -> OpenImage:
        """Find a blob in the members that are fixed, then in the repositories of the others."""
        failures: list[SupplementedError] = []
        for member in sorted(self.group.references, key=follows):
            try:
                self._upstreams.check(self.identity, member)
                with self._upstreams.recording(self.identity, member):
                    opened = await self._find_blob_in(member, digest)
            except (NotFoundError, UnsupportedOperationError):
                continue
            except SupplementedError as error:
                failures.append(error)
            else:
                return opened
        if failures:
            raise failures[0]
        message = f"{self.group.top} and its supplements do not hold this blob"
        raise BlobNotFoundError(message, digest=digest)

    async def _find_blob_in(self, member: Reference, digest: Digest) -> OpenImage:
        """A member, kept open for what is named by digest, if it has a blob."""
        which = f"member {member}"  # neither a tag nor a digest
        kept = self._images.find(ImageKey(self.scope, which))
        opened = kept or await self._open_member(member)
        opened.acquire()  # so that it is not evicted meanwhile
        try:
            async with closing_on_error(lambda: () if kept else (opened,), "the member"):
                found = opened.find_blob(digest) or await describe_blob(opened.source, digest)
        finally:
            await opened.release()
        # Another request may have opened the member meanwhile.
        earlier = kept or self._images.find(ImageKey(self.scope, which))
        if earlier is None:
            await self._keep(which, opened)
        elif earlier is not opened:
            await opened.aclose()
        (earlier or opened).blobs.put(digest, found)
        return earlier or opened

    async def _open_member(self, member: Reference) -> OpenImage:
        if isinstance(member, RepositoryReference) and follows(member):
            return OpenImage(await member.open_repository(self._session))
        source = await supplement(member, missing="skip").open(self._session)
        return OpenImage(source, source.resolution.top)

    # Lists

    async def list_tags(self) -> tuple[str, ...]:
        """See `Catalog.list_tags`."""
        top = self.group.top
        found: set[str] = set() if follows(top) else set(tags_of(top))

        async def ask(member: Reference) -> None:
            if isinstance(member, RemoteReference):
                found.update(await member.list_tags(self._session))

        await self._ask_all([each for each in self.group.references if follows(each)], ask)
        return tuple(sorted(found))

    async def list_referrers(
        self, subject: Digest, artifact_type: str | None
    ) -> tuple[Descriptor, ...]:
        """See `Catalog.list_referrers`."""
        found: dict[str, Descriptor] = {}

        async def ask(member: Reference) -> None:
            opening = (
                member.open_repository(self._session)
                if isinstance(member, RepositoryReference) and follows(member)
                else member.open(self._session)
            )
            try:
                async with opening as source:
                    listed = await source.get_referrers(subject, artifact_type)
            except (UnsupportedOperationError, NotFoundError):
                return  # it has no such list, or is a group without the manifest
            for each in listed:
                found.setdefault(each.digest, each)

        await self._ask_all(self.group.references, ask)
        return tuple(found.values())

    async def _ask_all(
        self, members: Sequence[Reference], ask: Callable[[Reference], Awaitable[None]]
    ) -> None:
        """Ask members one after the other.

        Raises:
            SourceError: The top failed, or all members did.
            NotFoundError: None of them has the repository.
        """
        failures: list[SupplementedError] = []
        for member in members:
            try:
                self._upstreams.check(self.identity, member)
                with self._upstreams.recording(self.identity, member):
                    await ask(member)
            except SupplementedError as error:
                if member == self.group.top and not isinstance(error, NotFoundError):
                    raise
                failures.append(error)
        if failures and len(failures) == len(members):
            raise next((e for e in failures if not isinstance(e, NotFoundError)), failures[0])

    # Helpers

    async def _keep(self, which: str, opened: OpenImage) -> None:
        try:
            await self._images.put(ImageKey(self.scope, which), opened)
        except ExceptionGroup as group:
            for failure in group.exceptions:
                self._warn(f"an image that is not served any more failed to close: {failure}")

    def _warn(self, message: str) -> None:
        self._session.emit(Warned(str(self.group), message))
