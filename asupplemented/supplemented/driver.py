"""The driver of the resolver: fetches what it wants, concurrently, and closes what it opened.

Theory of operation. The resolver decides and the driver fetches. Each task is a worker: it fetches
one want, feeds the outcome to the resolver, and goes on with a want that is free then, so a fetch
needs no task of its own. All workers belong to one task group, the only one in resolving.

The head, the manifest that serial order reads next, is always in flight, so every round commits at
least one manifest and the resolution ends. Beyond the head at most `lookahead` fetches are in
flight, wrong guesses included. A member that reads in batches (files) reads up to `BATCH` manifests
in one hop to a thread instead.

Whichever worker brings an outcome, one of them at a time commits. A large manifest is committed in
a thread, and after many small ones the event loop gets a turn, so that no group holds it for long.
Meanwhile others only put down what they bring.

Memory is bounded by bytes. Manifests in flight, each by the size in its descriptor, and manifests
that wait for serial order are at most `MAX_READ_AHEAD` together. Only the head is read regardless.

When the resolver is done, the other workers are cancelled: serial order never reached what they
fetch. On every way out without a result all members that were opened are closed.
"""

from __future__ import annotations

import asyncio
from copy import copy
from functools import partial
from itertools import filterfalse
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.abc import reference_for
from asupplemented.aio.closing import closing_on_error
from asupplemented.aio.threads import run_blocking
from asupplemented.errors import SupplementedError
from asupplemented.events import ResolutionFinished
from asupplemented.limits import MAX_MANIFEST, OFFLOAD_BYTES
from asupplemented.source import open_in_time
from asupplemented.supplemented.resolution import Document, Resolution, Unavailable
from asupplemented.supplemented.resolver import Bounds, Resolver, Want

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asupplemented.abc import Context, Reference, Source
    from asupplemented.model.index import Selection
    from asupplemented.model.manifest import Manifest, UnreadManifest
    from asupplemented.supplemented.resolution import Preference
    from asupplemented.supplemented.resolver import (
        MissingPolicy,
        Outcome,
        UnavailablePolicy,
        UnknownPolicy,
    )

__all__ = ("Members", "Resolved", "open_members", "resolve")

BATCH: Final = 64
"""Manifests of a batched member read in one hop, unless lookahead allows more."""

LAZY_BYTES: Final = 2 * 1024 * 1024
"""Bytes of the manifests of a group whose blobs are indexed when one of them is looked up.

These name at most 25,000 blobs, which takes the event loop some 10 ms.
"""

UNKNOWN_SIZE: Final = 1024 * 1024
"""Bytes that a manifest of unknown size counts as while it is in flight."""

STEP_COST: Final = 8 * 1024
"""Bytes that a step counts as, beside its manifest, until the event loop gets a turn."""

MAX_KEPT: Final = 64 * 1024 * 1024
"""Bytes of manifests that stay in memory after resolving; others are read again when used."""


class Members(NamedTuple):
    """The references of a group, and which of them have to be opened."""

    references: tuple[Reference, ...]
    distinct: tuple[int, ...]
    """Numbers of the references that occur for the first time."""

    @classmethod
    def of(cls, references: Iterable[Reference]) -> Members:
        """Number references by position; a reference given again keeps its first number."""
        numbered = tuple(references)
        first: dict[Reference, int] = {}
        for number, reference in enumerate(numbered):
            first.setdefault(reference, number)
        return cls(numbered, tuple(first.values()))


class Resolved(NamedTuple):
    """A finished resolution and the open members, which the caller closes."""

    resolution: Resolution
    sources: dict[int, Source]
    manifests: dict[Want, Manifest | UnreadManifest]
    """Manifests that were read and are kept, up to `MAX_KEPT` bytes; the top's always is."""


async def resolve(
    members: Members,
    selection: Selection,
    session: Context,
    *,
    missing: MissingPolicy = "raise",
    unavailable: UnavailablePolicy = "raise",
    unknown: UnknownPolicy = "raise",
    prefer: Preference = "manifest",
    bounds: Bounds | None = None,
) -> Resolved:
    """Open the members of a group and find out which member serves which manifest.

    Args:
        members: The references; the first is the top.
        selection: What is taken from each list.
        session: Gives connections, credentials, limits and caches.
        missing: What happens to an instance that its member does not hold; see `supplement`.
        unavailable: What happens to a supplement that cannot be opened.
        unknown: What happens to an entry of unknown media type or digest algorithm.
        prefer: Which member is asked first for a blob; it changes nothing else.
        bounds: Caps against hostile input.

    Returns:
        The resolution and the open members, which the caller closes. Members that serve nothing
        are open too, because they may be alternates.

    Raises:
        SupplementedError: The first failure that serial order meets. Then, and on cancellation,
            all members are closed.
    """
    resolver = Resolver(
        members.distinct,
        selection,
        missing=missing,
        unavailable=unavailable,
        unknown=unknown,
        bounds=bounds,
    )
    driver = _Driver(members.references, resolver, session, selection, bounds or Bounds())
    started = perf_counter()
    async with closing_on_error(driver.sources.values, "the members"):
        try:
            await driver.run()
        finally:
            session.emit(driver.summary(perf_counter() - started))
        if resolver.failure is not None:
            raise resolver.failure
        freeze = partial(_freeze, resolver, members.references, prefer)
        if driver.committed <= LAZY_BYTES:
            resolution = freeze()
        else:  # its maps take longer than the event loop may wait
            resolution = await run_blocking(session, lambda: freeze().with_maps())
        return Resolved(resolution, driver.sources, driver.kept)


def _freeze(resolver: Resolver, references: Sequence[Reference], prefer: Preference) -> Resolution:
    """The result of a resolver that is done, without failure."""
    defaults = resolver.defaults
    document = Document(
        members=tuple(str(reference) for reference in references),
        top=defaults[0],
        defaults=tuple(defaults.get(number) for number in range(len(references))),
        commits=tuple(resolver.commits),
        manifests=tuple(
            contribution.with_alternates(resolver.alternates(digest))
            for digest, contribution in resolver.committed.items()
        ),
        missing=tuple(resolver.missing),
        unavailable=tuple(
            Unavailable(member, type(error).__name__, error.message)
            for member, error in resolver.unavailable.items()
        ),
        prefer=prefer,
    )
    return Resolution(document, dict(resolver.unavailable))


async def open_members(
    members: Members, numbers: Iterable[int], selection: Selection, session: Context
) -> dict[int, Source]:
    """Open some members concurrently, without resolving.

    Raises:
        SupplementedError: Of the members that failed, the failure of the first one. Then, and on
            cancellation, all members are closed.
    """
    sources: dict[int, Source] = {}
    failures: dict[int, SupplementedError] = {}
    limiter = asyncio.Semaphore(1 + session.lookahead)

    async def open_one(number: int) -> None:
        async with limiter:
            try:
                reference = reference_for(members.references[number], selection)
                sources[number] = await open_in_time(reference, session)
            except SupplementedError as error:
                error.member = number  # a nested group counts its members for itself
                failures[number] = error.locate(reference=members.references[number])

    async with closing_on_error(sources.values, "the members"):
        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(open_one(number))
        if failures:
            raise failures[min(failures)]
        return sources


def _copy_error(error: SupplementedError) -> SupplementedError:
    twin = copy(error)
    twin.__cause__ = error
    return twin


class _Driver:
    """One run of a resolver."""

    def __init__(
        self,
        references: Sequence[Reference],
        resolver: Resolver,
        session: Context,
        selection: Selection,
        bounds: Bounds,
    ) -> None:
        self.sources: dict[int, Source] = {}
        self.committed = 0
        """Bytes of the manifests that were committed."""
        self.kept: dict[Want, Manifest | UnreadManifest] = {}
        """Manifests that stay in memory."""
        self._selection = selection
        self._read_ahead = bounds.read_ahead
        self._inbox: list[tuple[Want, Outcome]] = []
        """Outcomes that the resolver has not been offered."""
        self._committing = False
        self._references = references
        self._resolver = resolver
        self._session = session
        self._lookahead = session.lookahead
        self._flying: dict[Want, int] = {}
        """Wants in flight, each with the bytes that it is expected to bring."""
        self._flying_bytes = 0
        """The sum of these bytes."""
        self._batched: set[Want] = set()
        self._has_batched = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetches = 0
        self._stepped = 0
        """Bytes worked on since the event loop last got a turn."""
        self._kept_bytes = 0

    async def run(self) -> None:
        """Drive the resolver to its end. The caller raises its failure, if there is one."""
        try:
            while not self._resolver.done:
                async with asyncio.TaskGroup() as group:
                    self._spawn(group, self._allowed())
        except BaseExceptionGroup as errors:
            # A single exception of a worker, a bug or a foreign error, leaves without its group.
            if len(errors.exceptions) == 1:
                raise errors.exceptions[0] from None
            raise

    def summary(self, seconds: float) -> ResolutionFinished:
        """The event for hooks."""
        failure = self._resolver.failure
        return ResolutionFinished(
            reference=str(self._references[0]),
            manifests=len(self._resolver.sources),
            fetches=self._fetches,
            seconds=seconds,
            error=None if failure is None else type(failure).__name__,
        )

    # Deciding

    def _allowed(self) -> list[list[Want]]:
        """The wants to start now: singles, and one batch for each batched member."""
        resolver, flying, lookahead = self._resolver, self._flying, self._lookahead
        batching = lookahead > 0 and self._has_batched
        cap = max(lookahead, BATCH) if batching else lookahead
        wants = resolver.wants(cap)
        head = wants[0] if wants else None
        # The head has a slot of its own: it does not count against the lookahead.
        ahead = len(flying) - len(self._batched) - (head in flying and head not in self._batched)
        room = self._read_ahead - resolver.waiting - self._flying_bytes
        singles: list[list[Want]] = []
        batches: dict[int, list[Want]] = {}
        for want in filterfalse(flying.__contains__, wants):
            size = self._expected(want)
            if size > room and want is not head:
                break
            if batching and want.digest is not None and self.sources[want.member].batched:
                if want is not head and len(self._batched) >= cap:
                    continue
                batches.setdefault(want.member, []).append(want)
                self._batched.add(want)
            elif want is head or ahead < lookahead:
                singles.append([want])
                ahead += want is not head
            else:
                continue
            flying[want] = size
            self._flying_bytes += size
            room -= size
        return [*singles, *batches.values()]

    def _expected(self, want: Want) -> int:
        """The bytes that a fetch is expected to bring."""
        size = self._resolver.size_of(want)
        return UNKNOWN_SIZE if size is None else min(size, MAX_MANIFEST)

    # Fetching

    def _spawn(self, group: asyncio.TaskGroup, work: Sequence[list[Want]]) -> None:
        for wants in work:
            task = group.create_task(self._work(group, wants))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, group: asyncio.TaskGroup, wants: list[Want]) -> None:
        """Fetch, commit, and go on with what is wanted then, while anything may start."""
        while wants:
            self._fetches += len(wants)
            try:
                outcomes = await self._fetch(wants)
            finally:
                # What is put down is no longer in flight when the next wants are chosen.
                self._flying_bytes -= sum(map(self._flying.pop, wants))
                self._batched.difference_update(wants)
            self._put_down(wants, outcomes)
            if self._committing:
                return  # The worker that commits chooses the next wants, too.
            self._committing = True
            try:
                await self._commit()
            finally:
                self._committing = False
            if self._resolver.done:
                self._cancel_others()
                return
            # A source in memory never waits, and this loop must not run on alone.
            if self._is_turn_over(0):
                await asyncio.sleep(0)
            if self._committing:
                return  # Another worker commits meanwhile, and outcomes in its inbox look wanted.
            wants, *others = self._allowed() or [[]]
            self._spawn(group, others)

    def _put_down(self, wants: Sequence[Want], outcomes: Sequence[Outcome]) -> None:
        for want, outcome in zip(wants, outcomes, strict=True):
            if isinstance(outcome, SupplementedError):
                outcome.locate(reference=self._references[want.member], digest=want.digest)
                outcome.member = want.member  # a nested group counts its members for itself
            self._inbox.append((want, outcome))

    async def _commit(self) -> None:
        """Commit as far as serial order allows. The resolver is not used by others meanwhile."""
        resolver = self._resolver
        while True:
            for want, outcome in self._inbox:
                resolver.offer(want, outcome)
            self._inbox.clear()
            ready, head = resolver.ready, resolver.head
            if ready is None or head is None:
                return
            size = 0
            if not isinstance(ready, SupplementedError):
                size = len(ready.raw)
                self.committed += size
                self._keep(head, ready, size)
            if size > OFFLOAD_BYTES:
                await run_blocking(self._session, resolver.step)
                continue
            resolver.step()
            if self._is_turn_over(size):
                await asyncio.sleep(0)

    def _is_turn_over(self, size: int) -> bool:
        """Count a step and its bytes; after enough of them, the event loop is due a turn."""
        self._stepped += size + STEP_COST
        if self._stepped <= OFFLOAD_BYTES:
            return False
        self._stepped = 0
        return True

    async def _fetch(self, wants: list[Want]) -> Sequence[Outcome]:
        member, digest = wants[0]
        try:
            if digest is None:
                reference = reference_for(self._references[member], self._selection)
                source = await open_in_time(reference, self._session)
                self.sources[member] = source
                self._has_batched |= source.batched
                return [await source.get_manifest()]
            source = self.sources[member]
            return await source.fetch_manifests([w.digest for w in wants if w.digest])
        except SupplementedError as error:
            # Each want needs an error of its own, because `_feed` writes the digest into it.
            return [error, *(_copy_error(error) for _ in wants[1:])]

    def _keep(self, want: Want, manifest: Manifest | UnreadManifest, size: int) -> None:
        """Keep a manifest in memory, so that it need not be read again."""
        kept = self._kept_bytes + size
        if kept <= MAX_KEPT or (want.digest is None and want.member == 0):
            self._kept_bytes = kept
            self.kept[want] = manifest

    def _cancel_others(self) -> None:
        """Cancel the fetches that serial order did not reach."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
