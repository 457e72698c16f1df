"""`View`: one name of a catalog, as one principal sees it, and how its images are opened.

A view holds nothing and lasts for one request. `Catalog` decides when its methods run, and joins
requests that want the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from asupplemented.abc import RemoteReference, RepositoryReference
from asupplemented.aio.closing import closing_on_error
from asupplemented.cache.manifests import find_manifest
from asupplemented.catalog.budget import Spending
from asupplemented.catalog.images import ImageKey, OpenImage, Scope, describe_blob
from asupplemented.catalog.names import ON_DEMAND, at_digest, follows, tags_of
from asupplemented.catalog.upstreams import LONGEST, Upstreams, is_outage
from asupplemented.errors import (
    BlobNotFoundError,
    MalformedResponseError,
    ManifestNotFoundError,
    NotFoundError,
    SupplementedError,
    TooManyRequestsError,
    UnexpectedStatusError,
    UnsupportedOperationError,
)
from asupplemented.events import Warned
from asupplemented.model.index import AllImages
from asupplemented.model.manifest import Index
from asupplemented.model.media_type import KNOWN_MANIFESTS
from asupplemented.source import place_of
from asupplemented.supplemented.reference import supplement

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from asupplemented.abc import Context, Reference
    from asupplemented.catalog.budget import Confirmed, RequestBudget
    from asupplemented.catalog.images import OpenImages
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest
    from asupplemented.supplemented.reference import SupplementedReference

__all__ = ("Lifetimes", "View")

OK = 200

LONGEST_REOPEN = 3600.0
"""The most seconds between attempts to include a supplement that failed."""


class Lifetimes(NamedTuple):
    """For how many seconds images are served after they were confirmed."""

    ttl: float
    """Without asking again."""
    stale_if_error: float
    """After that, if they cannot be confirmed."""

    @property
    def total(self) -> float:
        """At the longest."""
        return self.ttl + self.stale_if_error


class View:
    """A name of a catalog for the principal of a session.

    Args:
        session: Opens images, with the credentials of its principal.
        group: What the name stands for; see `asupplemented.catalog.names`.
        upstreams: Those of the catalog and the session.
        images: The images of the catalog.
        budget: How requests are spent.
        name: The name, with its registry if the client named one.

    Attributes:
        identity: The session, its principal and its credentials: what is known to one identity
            never reaches another (rule SEC-13).
        scope: The identity and the group.
    """

    __slots__ = (
        "_budget",
        "_images",
        "_name",
        "_session",
        "_upstreams",
        "group",
        "identity",
        "scope",
    )

    def __init__(
        self,
        session: Context,
        group: SupplementedReference,
        upstreams: Upstreams,
        images: OpenImages,
        budget: RequestBudget,
        name: str,
    ) -> None:
        self.group = group
        self._name = name
        self._session = session
        self._images = images
        self._upstreams = upstreams
        self._budget = budget
        # The upstreams stand for the session that owns the resources.
        self.identity: Hashable = (self._upstreams, session.principal, session.credentials)
        self.scope = Scope(self.identity, group)

    def now(self) -> float:
        """The time in seconds, by the clock of the session."""
        return self._upstreams.clock.now()

    @property
    def _spending(self) -> Spending:
        return Spending(self._budget, self._session)

    # Tags

    async def open_group(self, group: SupplementedReference, which: str) -> OpenImage:
        """Open a group, and keep it in the place of what is open for a tag or digest."""
        opened = await self._open(group)
        opened.opened = self.now()
        await self._keep(which, opened)
        return opened

    async def _open(self, group: SupplementedReference) -> OpenImage:
        """Open a group; without supplements, an index without what it lists."""
        source = await group.open(self._session)
        top = source.resolution.top
        if group.selection is not ON_DEMAND:
            return OpenImage(source, top)
        async with closing_on_error(lambda: (source,), "the image"):
            parsed = (await source.get_manifest()).parse_once()
        if not isinstance(parsed, Index):
            return OpenImage(source, top)
        if all(entry.media_type in KNOWN_MANIFESTS for entry in parsed.manifests):
            return OpenImage(source, top, listed=frozenset(e.digest for e in parsed.manifests))
        # Only the index says of which type the others are, so they are read with it (rule X-07b).
        await source.aclose()
        return await self._open(replace(group, selection=AllImages()))

    async def refresh(
        self, group: SupplementedReference, tag: str, opened: OpenImage | None, times: Lifetimes
    ) -> OpenImage:
        """Open the image of a tag, or confirm that what is open is still that.

        Args:
            group: The group with its members at the tag.
            tag: The tag.
            opened: What is open, None if nothing is.
            times: For how long images are served.

        Raises:
            SupplementedError: It cannot be opened or confirmed, or this failed lately.
        """
        known = await self._spending.find_digest(group.top)
        if known is not None and known.age < times.ttl:
            shared = await self._adopt(group, tag, opened, known)
            if shared is not None:
                shared.confirm(self.now() - known.age, times.ttl)
                return shared
        try:
            return await self._ask(group, tag, opened, times)
        except SupplementedError as error:
            usable = known is not None and known.age < times.total and is_outage(error)
            if opened is not None or known is None or not usable:
                raise
            shared = await self._adopt(group, tag, None, known)
            if shared is None:
                raise
            shared.confirm(self.now() - known.age, times.ttl)
            self.serve_stale(group.top, shared, shared.confirmed + times.total, error)
            return shared

    async def _ask(
        self, group: SupplementedReference, tag: str, opened: OpenImage | None, times: Lifetimes
    ) -> OpenImage:
        """Open or confirm the image of a tag, and tell the fleet."""
        top, asked = group.top, self.now()
        dispensable = opened is not None and asked < opened.confirmed + times.total
        self._upstreams.check(self.identity, top)
        await self._spending.check(top, dispensable=dispensable)
        try:
            with self._upstreams.recording(self.identity, top):
                if opened is None or await self._has_moved(top, opened.digest):
                    opened = await self.open_group(group, tag)
        except SupplementedError:
            await self._spending.publish(top)
            raise
        opened = await self._complete(group, tag, opened)
        opened.confirm(asked, times.ttl)
        await self._spending.publish(top)
        if opened.digest is not None:
            await self._spending.publish_digest(top, opened.digest, times.total)
        return opened

    async def _complete(
        self, group: SupplementedReference, tag: str, opened: OpenImage
    ) -> OpenImage:
        """Open an image again if it lacks supplements that failed, but not too often."""
        if not any(is_outage(error) for error in opened.list_failures()):
            return opened
        if self.now() < opened.opened + opened.reopen_after or self._spending.is_low(group.top):
            return opened
        try:
            complete = await self.open_group(group, tag)
        except SupplementedError:
            complete = opened
            complete.opened = self.now()
        complete.reopen_after = min(2 * opened.reopen_after, LONGEST_REOPEN)
        return complete

    async def _adopt(
        self,
        group: SupplementedReference,
        tag: str,
        opened: OpenImage | None,
        known: Confirmed,
    ) -> OpenImage | None:
        """The image that a tag was when a member of the fleet asked, if no request is needed."""
        if opened is not None and opened.digest == known.digest:
            return opened
        top = group.top
        if not isinstance(top, RepositoryReference):
            return None
        if await find_manifest(self._session, known.digest, place_of(top)) is None:
            return None
        members = (top.at(known.digest), *group.references[1:])
        try:
            return await self.open_group(replace(group, references=members), tag)
        except SupplementedError:
            return None

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
        pause = self._upstreams.remaining(self.identity, top)
        if isinstance(error, TooManyRequestsError):  # also where none was sent, to save it
            pause = max(pause, min(error.retry_after or 0.0, LONGEST))
        opened.failed = True
        opened.due = min(self.now() + pause, until)
        message = f"{top} failed, so what it had before is served: {error.message}"
        opened.trouble.report(self._warn, message)

    # Digests

    async def find_digest(self, digest: Digest, *, blob: bool | None) -> OpenImage:
        """Open what holds a manifest or a blob; with None, a blob if there is no such manifest.

        Raises:
            NotFoundError: The name does not hold it.
            SupplementedError: A member that may hold it failed.
        """
        if blob:
            return await self._find_blob(digest)
        try:
            return await self._find_manifest(digest)
        except NotFoundError as missing:
            if blob is False:
                raise
            try:
                return await self._find_blob(digest)
            except NotFoundError:
                raise missing from None

    async def _find_manifest(self, digest: Digest) -> OpenImage:
        """Open the first group that has a manifest; see `at_digest`."""
        failures: list[SupplementedError] = []
        # Groups whose top costs nothing come first, where few requests are left.
        groups = sorted(
            at_digest(self.group, digest), key=lambda group: self._spending.is_low(group.top)
        )
        for group in groups:
            try:
                opened, unavailable = await self._open_with(group, digest)
            except NotFoundError:
                continue
            except SupplementedError as error:
                failures.append(error)
                continue
            if opened is not None:
                return opened
            # What was left out may hold the digest.
            failures.extend(error for error in unavailable if is_outage(error))
            if len(group.references) == len(self.group.references):
                break  # all other groups are parts of this one
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
        listed = self._images.lists(self.scope, digest)
        if listed and await find_manifest(self._session, digest, place_of(top)) is not None:
            opened = await self._open(group)  # no request is needed
        else:
            self._upstreams.check(self.identity, top)
            await self._spending.check(top, dispensable=False)
            with self._upstreams.recording(self.identity, top):
                if not listed:
                    await self._confirm_held(top)
                opened = await self._open(group)
        if not opened.has_manifest(digest):
            await opened.aclose()
            return None, opened.list_failures()
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
        members = sorted(
            self.group.references, key=lambda each: (follows(each), self._spending.is_low(each))
        )
        for member in members:
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
        opened.name, opened.owner = self._name, self._upstreams
        try:
            await self._images.put(ImageKey(self.scope, which), opened)
        except ExceptionGroup as group:
            for failure in group.exceptions:
                self._warn(f"an image that is not served any more failed to close: {failure}")

    def _warn(self, message: str) -> None:
        self._session.emit(Warned(str(self.group), message))
