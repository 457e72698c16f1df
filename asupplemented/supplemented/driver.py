"""The driver of the resolver: fetches what it wants, concurrently, and closes what it opened.

This is the only task group in resolving. Each task is a worker that fetches one want, feeds the
outcome, and goes on with the next want, so that a fetch costs no task of its own. The head, the
manifest that serial order reads next, is in flight at all times; at most ``1 + lookahead``
fetches are, those that a wrong guess started included. A `batched` member (disk) reads up to
`BATCH` manifests in one hop instead.
"""

from __future__ import annotations

import asyncio
from copy import copy
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.aio.closing import closing_on_error
from asupplemented.errors import SourceTimeoutError, SupplementedError
from asupplemented.events import ResolutionFinished
from asupplemented.supplemented.resolution import Resolution
from asupplemented.supplemented.resolver import Resolver, Want

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asupplemented.abc import Context, Reference, Source
    from asupplemented.model.digest import Digest
    from asupplemented.model.index import Selection
    from asupplemented.model.manifest import Manifest
    from asupplemented.supplemented.resolution import Preference
    from asupplemented.supplemented.resolver import (
        Bounds,
        MissingPolicy,
        Outcome,
        UnavailablePolicy,
    )

__all__ = ("Members", "Resolved", "open_members", "resolve")

BATCH: Final = 64
"""Manifests of a batched member read in one hop, where lookahead does not allow more."""

MAX_KEPT: Final = 64 * 1024 * 1024
"""Bytes of manifests that stay in memory after resolving; what is beyond is read again."""


class Members(NamedTuple):
    """The references of a group, and which of them have to be opened."""

    references: tuple[Reference, ...]
    distinct: tuple[int, ...]
    """Numbers of the references that occur for the first time."""

    @classmethod
    def of(cls, references: Iterable[Reference]) -> Members:
        """Number references by position; one given again keeps its first number."""
        numbered = tuple(references)
        first: dict[Reference, int] = {}
        for number, reference in enumerate(numbered):
            first.setdefault(reference, number)
        return cls(numbered, tuple(first.values()))


class Resolved(NamedTuple):
    """A finished resolution and the open members, which its receiver closes."""

    resolution: Resolution
    sources: dict[int, Source]
    manifests: dict[Digest, Manifest]
    """Manifests that were read and are kept, up to `MAX_KEPT` bytes; the top's always is."""


async def resolve(
    members: Members,
    selection: Selection,
    context: Context,
    *,
    missing: MissingPolicy = "raise",
    unavailable: UnavailablePolicy = "raise",
    prefer: Preference = "manifest",
    bounds: Bounds | None = None,
) -> Resolved:
    """Open the members of a group and find out who serves what (DESIGN, the resolver).

    Args:
        members: The references; the first is the top.
        selection: What is taken from each list.
        context: The session.
        missing: What an instance does that its member does not hold.
        unavailable: What a supplement does that cannot be opened.
        prefer: Which member is asked first for a blob; it changes nothing else.
        bounds: Caps against hostile input.

    Returns:
        The plan and the open members, to be closed by the caller. Members that nothing is
        served from are open too: they may be alternates.

    Raises:
        SupplementedError: The first failure that serial order meets. Nothing stays open then,
            nor on cancellation.
    """
    resolver = Resolver(
        members.distinct, selection, missing=missing, unavailable=unavailable, bounds=bounds
    )
    driver = _Driver(members.references, resolver, context)
    started = perf_counter()
    async with closing_on_error(driver.sources.values, "the members"):
        try:
            await driver.run()
        finally:
            context.emit(driver.summary(perf_counter() - started))
        if resolver.failure is not None:
            raise resolver.failure
        texts = [str(reference) for reference in members.references]
        resolution = Resolution.of(resolver, texts, prefer)
        return Resolved(resolution, driver.sources, driver.manifests(resolution))


async def open_members(
    members: Members, numbers: Iterable[int], context: Context
) -> dict[int, Source]:
    """Open some members side by side, without resolving.

    Raises:
        SupplementedError: The failure of the lowest-numbered member that failed. Nothing stays
            open then, nor on cancellation.
    """
    sources: dict[int, Source] = {}
    failures: dict[int, SupplementedError] = {}
    limiter = asyncio.Semaphore(1 + context.lookahead)

    async def open_one(number: int) -> None:
        async with limiter:
            try:
                sources[number] = await _open(members.references[number], context)
            except SupplementedError as error:
                failures[number] = error.locate(member=number, reference=members.references[number])

    async with closing_on_error(sources.values, "the members"):
        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(open_one(number))
        if failures:
            raise failures[min(failures)]
        return sources


async def _open(reference: Reference, context: Context) -> Source:
    limit = context.timeouts.open
    try:
        async with asyncio.timeout(limit):
            return await reference.open(context)
    except SupplementedError:
        raise
    except TimeoutError as error:
        message = f"opening took longer than {limit} s"
        raise SourceTimeoutError(message, reference=reference) from error


def _another(error: SupplementedError) -> SupplementedError:
    twin = copy(error)
    twin.__cause__ = error
    return twin


class _Driver:
    """One run of a resolver."""

    def __init__(
        self, references: Sequence[Reference], resolver: Resolver, context: Context
    ) -> None:
        self.sources: dict[int, Source] = {}
        self._references = references
        self._resolver = resolver
        self._context = context
        self._lookahead = context.lookahead
        self._flying: set[Want] = set()
        self._batched: set[Want] = set()
        self._has_batched = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetches = 0
        self._kept: dict[Want, Manifest] = {}
        self._kept_bytes = 0

    async def run(self) -> None:
        """Drive the resolver to its end. Its failure is left for the caller to raise."""
        try:
            while not self._resolver.done:
                async with asyncio.TaskGroup() as group:
                    self._spawn(group, self._allowed())
        except BaseExceptionGroup as errors:
            # A worker that raises is a bug or a foreign error: it leaves as itself.
            if len(errors.exceptions) == 1:
                raise errors.exceptions[0] from None
            raise

    def summary(self, seconds: float) -> ResolutionFinished:
        """What the hooks are told."""
        failure = self._resolver.failure
        return ResolutionFinished(
            reference=str(self._references[0]),
            manifests=len(self._resolver.sources),
            fetches=self._fetches,
            seconds=seconds,
            error=None if failure is None else type(failure).__name__,
        )

    def manifests(self, resolution: Resolution) -> dict[Digest, Manifest]:
        """The manifests in memory, each as the member that serves it gave it."""
        found: dict[Digest, Manifest] = {}
        for digest, member in resolution.sources.items():
            default = resolution.defaults[member] == digest
            manifest = self._kept.get(Want(member, None if default else digest))
            if manifest is not None:
                found[digest] = manifest
        return found

    # Deciding

    def _allowed(self) -> list[list[Want]]:
        """The wants to start now: singles, and one batch for each batched member."""
        lookahead = self._lookahead
        batching = lookahead > 0 and self._has_batched
        cap = max(lookahead, BATCH) if batching else lookahead
        singles: list[list[Want]] = []
        batches: dict[int, list[Want]] = {}
        ahead = len(self._flying) - len(self._batched)
        for position, want in enumerate(self._resolver.wants(cap)):
            head = position == 0
            if want in self._flying:
                # The head has a place of its own: it does not count against the lookahead.
                ahead -= head and want not in self._batched
                continue
            if batching and want.digest is not None and self.sources[want.member].batched:
                if head or len(self._batched) < cap:
                    batches.setdefault(want.member, []).append(want)
                    self._batched.add(want)
                    self._flying.add(want)
            elif head or ahead < lookahead:
                singles.append([want])
                self._flying.add(want)
                ahead += not head
        return [*singles, *batches.values()]

    # Fetching

    def _spawn(self, group: asyncio.TaskGroup, work: Sequence[list[Want]]) -> None:
        for wants in work:
            task = group.create_task(self._work(group, wants))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _work(self, group: asyncio.TaskGroup, wants: list[Want]) -> None:
        """Fetch, feed, and go on with what is wanted then, until nothing more may start."""
        while wants:
            self._fetches += len(wants)
            try:
                outcomes = await self._fetch(wants)
            finally:
                self._flying.difference_update(wants)
                self._batched.difference_update(wants)
            self._feed(wants, outcomes)
            if self._resolver.done:
                self._cancel_others()
                return
            wants, *others = self._allowed() or [[]]
            self._spawn(group, others)

    def _feed(self, wants: Sequence[Want], outcomes: Sequence[Outcome]) -> None:
        for want, outcome in zip(wants, outcomes, strict=True):
            if isinstance(outcome, SupplementedError):
                reference = self._references[want.member]
                outcome.locate(reference=reference, digest=want.digest, member=want.member)
            else:
                self._keep(want, outcome)
            self._resolver.feed(want, outcome)

    async def _fetch(self, wants: list[Want]) -> Sequence[Outcome]:
        member, digest = wants[0]
        try:
            if digest is None:
                source = await _open(self._references[member], self._context)
                self.sources[member] = source
                self._has_batched |= source.batched
                return [await source.get_manifest()]
            source = self.sources[member]
            if len(wants) > 1:
                return await source.get_manifests([w.digest for w in wants if w.digest])
            return [await source.get_manifest(digest)]
        except SupplementedError as error:
            # Each want has an error of its own, which will name its own digest.
            return [error, *(_another(error) for _ in wants[1:])]

    def _keep(self, want: Want, manifest: Manifest) -> None:
        """Hold on to a manifest, so that nobody has to read it again."""
        kept = self._kept_bytes + manifest.size
        if kept <= MAX_KEPT or (want.digest is None and want.member == 0):
            self._kept_bytes = kept
            self._kept[want] = manifest

    def _cancel_others(self) -> None:
        """Nobody waits for fetches that serial order never met."""
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
