"""`Catalog`: names, tags and digests to open images.

Theory of operation. A request names a tag or a digest, and the catalog leases it an open image.

*A tag* is resolved once, by one task, however many requests wait for it. It is served for `ttl`
seconds. After that the next request has it *confirmed*: the digest of the top is asked for by HEAD,
or by reading the top if HEAD says nothing. If the tag has moved, the group is opened again and
takes the place of the old image at once; requests that lease the old one keep it until they end. If
the upstream fails, or takes longer than `PATIENCE`, the image is served *stale*, for at most
`stale_if_error` seconds after its time was over. A failure opens a breaker
(`asupplemented.catalog.upstreams`), and while that is open no request asks again (rule SRV-33).

An index of a repository without supplements is opened without the images that it lists. They are
read when a client asks for them by digest, so a pull costs no requests for other platforms.

*A digest* never changes, so it is never confirmed. It is looked for in the open images of the name,
then in the group with its members at that digest. A digest that a cache has is no permission: the
name itself must hold it (rule SRV-13).

*A manifest in memory* is given by `peek` without a lease or a task, if its image is open and needs
no confirmation. It knows no name that a function decides on: such a function is always asked.

Tasks belong to the catalog, not to the request that began them. A client that gives up after 10
seconds does not throw away what an upstream needs 20 seconds for: its next attempt joins the task.

All state belongs to one session, principal and set of credentials, its *identity*, so that what one
principal may read never reaches another (rule SEC-13). It exists only where an image is open or a
request waits, so a name that is unknown costs nothing that stays.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.abc import AsyncResource, Opening, ResourceKey
from asupplemented.aio.concurrency import SingleFlightMap, TaskMap
from asupplemented.aio.lru import LRU
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.catalog.budget import RequestBudget
from asupplemented.catalog.images import (
    CatalogEntry,
    CatalogImage,
    HeldManifest,
    ImageKey,
    OpenImage,
    OpenImages,
    Scope,
)
from asupplemented.catalog.names import Defaults, Names, pin
from asupplemented.catalog.upstreams import Upstreams, is_outage
from asupplemented.catalog.view import Lifetimes, View
from asupplemented.errors import (
    ClosedError,
    ConfigurationError,
    InvalidReferenceError,
    SourceTimeoutError,
    SupplementedError,
    excerpt,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.name import DEFAULT_TAG, is_tag
from asupplemented.supplemented.source import SupplementedSource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from asupplemented.abc import Context
    from asupplemented.catalog.names import Allow, Named
    from asupplemented.catalog.upstreams import FailingUpstream
    from asupplemented.events import CacheUse
    from asupplemented.supplemented.reference import SupplementedReference

__all__ = ("Catalog", "CatalogStats")

PATIENCE: Final = 3.0
"""Seconds that a request waits for an image to be confirmed, if the image may be served stale."""


MAX_KNOWN: Final = 256
"""Names whose manifests in memory are found without waiting."""


class CatalogStats(NamedTuple):
    """What a catalog holds at the moment."""

    open_images: int
    """Images that are kept open, at most ``max_open``."""
    leases: int
    """Requests that use one of them."""
    names: int
    """Names with an open image, counted for each principal."""
    pending: int
    """Images that are being opened or confirmed, and lists that are being read."""


class Catalog(AsyncResource):
    """Opens images by the names, tags and digests that clients of a registry ask for.

    It may be used with several sessions. Close it before them. ::

        catalog = asup.Catalog(
            {
                "team/app": ["docker://registry.example/team/app", "oci:/srv/airgap/app:1.4"],
                "docker.io/*": "docker://mirror.example/{registry}/{name}",
            }
        )
        async with catalog.open(session, "team/app", "1.4") as image:
            manifest = await image.get_manifest()

    Args:
        names: What each name stands for: a reference, a list of a top and its supplements, or a
            `SupplementedReference`. A key is ``[REGISTRY/]PATH`` and may have ``*``, which stands
            for any characters; the reference of such a key has ``{name}`` and ``{registry}`` for
            what the key fitted. Or an async function of a path and a registry (None where the
            client named none), which gives one of these, or None for an unknown name. A registry
            reference with the tag "latest", or without a tag, is read at the tag or digest that
            the client asks for. Every other reference is read as it is, and as a top it is served
            by its own tag and by "latest". Blobs come from a supplement that has them, else from
            the top.
        allow: Patterns of the names that may be read, or a function of a path and a registry that
            says so; None for all. It is asked before anything else.
        default_registry: The registry of names that fit no key and name no registry, such as
            "docker.io": docker asks a mirror of Docker Hub for them (rule SRV-19).
        ttl: Seconds for which a tag is not asked for again.
        stale_if_error: Seconds after `ttl` for which an image is served if the upstream fails.
        max_open: The most images that are kept open without being used.
        missing: See `supplement`; for groups that are not given as a `SupplementedReference`.
        unavailable: See `supplement`; likewise.
        unknown: See `supplement`; likewise.
        budget: How the requests that registries allow are spent; None for `RequestBudget`'s
            defaults.

    Raises:
        ConfigurationError: An argument is not what it should be.
        InvalidReferenceError: A text in `names` is no reference.
    """

    __slots__ = (
        "__weakref__",
        "_budget",
        "_closed",
        "_images",
        "_key",
        "_known",
        "_names",
        "_openings",
        "_referrers",
        "_tags",
        "_times",
    )

    def __init__(  # noqa: PLR0913 - given by name, and few of them
        self,
        names: Mapping[str, Named] | Callable[[str, str | None], Awaitable[Named | None]],
        *,
        allow: Allow | None = None,
        default_registry: str | None = None,
        ttl: float = 60.0,
        stale_if_error: float = 86400.0,
        max_open: int = 256,
        missing: str = "fallback",
        unavailable: str = "skip",
        unknown: str = "opaque",
        budget: RequestBudget | None = None,
    ) -> None:
        if not (ttl >= 0 and stale_if_error >= 0):
            message = f"ttl={ttl} and stale_if_error={stale_if_error} are seconds, 0 or more"
            raise ConfigurationError(message)
        if isinstance(max_open, bool) or max_open < 1:
            message = f"max_open={max_open} is a number of images, 1 or more"
            raise ConfigurationError(message)
        self._names = Names(names, allow, Defaults(missing, unavailable, unknown), default_registry)
        self._times = Lifetimes(ttl, stale_if_error)
        self._budget = budget or RequestBudget()
        self._images = OpenImages(max_open)
        self._openings = TaskMap[ImageKey, OpenImage](max_open)
        self._tags = SingleFlightMap[object, tuple[str, ...]]()
        self._referrers = SingleFlightMap[object, tuple[Descriptor, ...]]()
        self._key = ResourceKey[Upstreams]("upstreams of a catalog")
        self._known = LRU[tuple[str, str | None], Scope](MAX_KNOWN)
        """Names as clients write them, which were found and are allowed, for the last identity."""
        self._closed = False

    def open(
        self,
        session: Context,
        name: str,
        reference: str | None = None,
        *,
        registry: str | None = None,
        blob: bool | None = None,
    ) -> Opening[CatalogImage]:
        """A lease of the image of a tag or digest.

        Args:
            session: Opens the image, with the credentials of its principal. Sessions that are
                scoped to different principals or credentials share nothing.
            name: The path, as the client wrote it; it may begin with a registry.
            reference: A tag or a digest; None is the tag "latest".
            registry: The registry of the name (``ns``), None if the client named none.
            blob: Whether the digest is that of a blob (True) or of a manifest (False). None looks
                among manifests first, and then among blobs, which may cost more requests.

        Raises:
            InvalidReferenceError: On use: the name or the tag breaks the grammar.
            InvalidDigestError: On use: `reference` has a colon and is no digest.
            NameUnknownError: On use: the catalog has no such name, or it is not allowed.
            NotFoundError: On use: the name does not hold the tag or digest.
            SourceError: On use: the upstream failed, and there is nothing to serve instead.
            ClosedError: On use: the catalog was closed.
        """
        which = DEFAULT_TAG if reference is None else reference

        async def opener() -> CatalogImage:
            view = await self._view(session, name, registry)
            if ":" in which:
                return await self._open_digest(view, Digest(which), blob=blob)
            return await self._open_tag(view, which)

        return Opening(opener, (name, which))

    def peek(
        self, session: Context, name: str, reference: str, *, registry: str | None = None
    ) -> HeldManifest | None:
        """The manifest of a tag or digest, if nothing has to be waited for.

        It is what `open` and `CatalogImage.get_manifest` give, without a lease: the image is open,
        its tag need not be confirmed, and the manifest is in memory. None says nothing: use `open`.

        Args:
            session: As for `open`.
            name: As for `open`.
            reference: A tag or a digest.
            registry: As for `open`.

        Raises:
            ClosedError: The session is closed.
        """
        upstreams = self._upstreams(session)
        scope = self._known.get((name, registry))
        identity = (upstreams, session.principal, session.credentials)
        if scope is None or scope.identity != identity or self._closed:
            return None
        if ":" in reference:
            opened = self._images.find_manifest(scope, reference)
            return None if opened is None else opened.peek(reference, stale=False, age=0.0)
        now = upstreams.clock.now()
        opened = self._images.find(ImageKey(scope, reference)) if is_tag(reference) else None
        if opened is None or opened.digest is None or opened.due <= now:
            return None
        return opened.peek(opened.digest, stale=opened.failed, age=opened.age(now))

    async def list_tags(
        self, session: Context, name: str, *, registry: str | None = None
    ) -> tuple[str, ...]:
        """The tags of a name in all members, each once, sorted; `registry` as in `open`.

        Members that follow the client are asked for their tags. A member that fails is left out
        if another one gives tags, unless it is the top.

        Raises:
            InvalidReferenceError: The name breaks the grammar.
            NameUnknownError: The catalog has no such name, or it is not allowed.
            ImageNotFoundError: No member has the repository.
            SourceError: The top failed, or all members did.
        """
        view = await self._view(session, name, registry)
        return await self._tags.run(view.scope, view.list_tags)

    async def list_referrers(
        self,
        session: Context,
        name: str,
        digest: Digest | str,
        *,
        registry: str | None = None,
        artifact_type: str | None = None,
    ) -> tuple[Descriptor, ...]:
        """What refers to a manifest in all members, each once; the first member counts.

        Args:
            session: Asks, with the credentials of its principal.
            name: As for `open`.
            digest: The manifest, which need not exist.
            registry: As for `open`.
            artifact_type: Only those of this type; None for all.

        Raises:
            InvalidReferenceError: The name breaks the grammar.
            InvalidDigestError: `digest` is no digest.
            NameUnknownError: The catalog has no such name, or it is not allowed.
            SourceError: The top failed, or all members did.
        """
        subject = Digest(digest)
        view = await self._view(session, name, registry)
        return await self._referrers.run(
            (view.scope, subject, artifact_type),
            lambda: view.list_referrers(subject, artifact_type),
        )

    def stats(self) -> CatalogStats:
        """What the catalog holds at the moment."""
        images = self._images.values()
        return CatalogStats(
            open_images=len(images),
            leases=sum(image.users for image in images),
            names=self._images.scopes,
            pending=len(self._openings) + len(self._tags) + len(self._referrers),
        )

    @property
    def names(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the mapping, and the references of each as text; none for a function."""
        return self._names.described

    def list_open(self, session: Context) -> tuple[CatalogEntry, ...]:
        """The images that are open, the newest first, for all principals of a session.

        Raises:
            ClosedError: The session is closed.
        """
        now = session.resource(CLOCK, Clock).now()
        owner = self._upstreams(session)
        found: list[CatalogEntry] = []
        for key, opened in reversed(self._images.items()):
            source = opened.source
            if opened.owner is not owner or not isinstance(source, SupplementedSource):
                continue
            if " " in key.which:
                continue  # a single member, open for its blobs
            age = opened.age(now) if is_tag(key.which) else None
            found.append(
                CatalogEntry(
                    *(opened.name, key.which, source.resolution),
                    *(opened.users, opened.failed, age),
                )
            )
        return tuple(found)

    def list_failing(self, session: Context) -> tuple[FailingUpstream, ...]:
        """The references and registries that failed lately, as this catalog saw it.

        Args:
            session: Whose failures are listed, those of all its principals.

        Raises:
            ClosedError: The session is closed.
        """
        return self._upstreams(session).list_failing()

    async def aclose(self) -> None:
        """Stop what is running, and close all images; one that is leased closes with its lease.

        Raises:
            ExceptionGroup: Some images failed to close; the others are closed.
        """
        self._closed = True
        await self._openings.aclose()
        await self._images.aclose()

    def _upstreams(self, session: Context) -> Upstreams:
        return session.resource(self._key, partial(Upstreams, session))

    async def _view(self, session: Context, name: str, registry: str | None) -> View:
        """One name for one principal; nothing was asked of any source."""
        if self._closed:
            raise ClosedError("the catalog was closed; make another one")
        group = await self._names.find(name, registry)
        full = name if registry is None else f"{registry}/{name}"
        upstreams = self._upstreams(session)
        view = View(session, group, upstreams, self._images, self._budget, full)
        if self._names.are_fixed:
            self._known.put((name, registry), view.scope)
        return view

    async def _open_tag(self, view: View, tag: str) -> CatalogImage:
        if not is_tag(tag):
            message = f"{excerpt(tag)} is no tag"
            raise InvalidReferenceError(message)
        key = ImageKey(view.scope, tag)
        use: CacheUse = "hit"
        while True:
            opened = found = self._images.find(key)
            if opened is None or opened.due <= view.now():
                group, joined = pin(view.group, tag), key in self._openings
                opened = await self._refresh_in_time(view, group, key, opened)
                if opened is not found:
                    use = "joined" if joined else "miss"
            # Another request may have evicted it while this one waited.
            if opened.digest is not None and opened.acquire():
                age, stale = opened.age(view.now()), opened.failed
                return CatalogImage(opened, opened.digest, stale=stale, age=age, use=use)

    async def _refresh_in_time(
        self, view: View, group: SupplementedReference, key: ImageKey, opened: OpenImage | None
    ) -> OpenImage:
        """Open or confirm an image, or serve it as it is if that takes too long."""
        work = partial(self._refresh, view, group, key)
        if opened is None or self._end_of(opened) <= view.now():
            return await self._openings.run(key, work)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._openings.run(key, work)
        except SupplementedError:
            raise  # a SourceTimeoutError is a TimeoutError, too
        except TimeoutError:
            # The task goes on, and further requests are served at once until it ends.
            message = f"{group.top} did not answer within {PATIENCE} s"
            error = SourceTimeoutError(message, reference=group.top)
            view.record_failure(group.top, error)
            view.serve_stale(group.top, opened, self._end_of(opened), error)
            return opened

    async def _refresh(self, view: View, group: SupplementedReference, key: ImageKey) -> OpenImage:
        """Open or confirm the image of a tag; one task at a time does this."""
        opened = self._images.find(key)
        if opened is not None and opened.due > view.now():
            return opened
        try:
            return await view.refresh(group, key.which, opened, self._times)
        except SupplementedError as error:
            if opened is None:
                raise
            if not is_outage(error) or self._end_of(opened) <= view.now():
                await self._images.drop(key)
                raise
            view.serve_stale(group.top, opened, self._end_of(opened), error)
            return opened

    def _end_of(self, opened: OpenImage) -> float:
        """When an image is not served any more, by the clock."""
        return opened.confirmed + self._times.total

    async def _open_digest(self, view: View, digest: Digest, *, blob: bool | None) -> CatalogImage:
        use: CacheUse = "hit"
        while True:
            opened: OpenImage | None = None
            if blob is not True:
                opened = self._images.find_manifest(view.scope, digest)
            if blob is not False and opened is None:
                opened = self._images.find_blob(view.scope, digest)
            if opened is None:
                key = ImageKey(view.scope, f"{digest} blob={blob}")
                work = partial(view.find_digest, digest, blob=blob)
                use = "joined" if key in self._openings else "miss"
                opened = await self._openings.run(key, work)
            if opened.acquire():
                return CatalogImage(opened, digest, use=use)
