"""What a registry does at the moment, as values: `StatusBoard` folds events into a `Status`.

Theory of operation. The board is a hook. Each event changes a counter or an entry of a table with a
fixed number of rows, so the memory of a board does not grow with what clients ask for. What is not
told by events is read when a snapshot is made: the open images of the catalog and their plans,
breakers, request limits, and the requests that are being answered. A plan never changes, so it is
explained once and kept for as long as its image is shown.

The cache is the exception: counting its files blocks. That is done in a thread of the session, at
most every 10 seconds, and a snapshot has the last count.

A status shows no secret. Principals are left out, and texts are freed of what URLs have behind
``?`` and before ``@``. The status of several processes is merged by `merge_status`; it has the same
bounds as its parts.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict, deque
from itertools import islice
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from asupplemented._version import __version__
from asupplemented.aio.breaker import BreakerState
from asupplemented.aio.retry import Clock
from asupplemented.aio.threads import run_blocking
from asupplemented.blobs.health import breakers_of, host_of
from asupplemented.budget import ledger_of
from asupplemented.events import (
    AttemptFailed,
    BlobEvicted,
    BlobServed,
    ManifestFetched,
    RequestServed,
    UpstreamResponded,
    Warned,
)
from asupplemented.web.record import running_requests

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from asupplemented.cache.layout.layout_cache import CacheStats, LayoutCache
    from asupplemented.catalog.catalog import Catalog
    from asupplemented.catalog.images import CatalogEntry
    from asupplemented.errors import SupplementedError
    from asupplemented.events import Event
    from asupplemented.session import Session
    from asupplemented.supplemented.resolution import Resolution

__all__ = (
    "BlobsStatus",
    "BudgetStatus",
    "CacheStatus",
    "EvictionStatus",
    "Health",
    "ManifestStatus",
    "MemberStatus",
    "NameStatus",
    "PlanStatus",
    "RequestedName",
    "RunningStatus",
    "Status",
    "StatusBoard",
    "Totals",
    "WarningStatus",
    "end_status",
    "merge_status",
)

T = TypeVar("T")
Health: TypeAlias = Literal["ok", "probing", "failing"]
"""Of a member: its breaker is closed, half-open or open."""

MAX_NAMES: Final = 64
"""Names that are shown: those of the configuration, and those that were requested last."""
MAX_PLANS: Final = 16
MAX_MANIFESTS: Final = 16
"""Manifests of a plan that are shown."""
MAX_BLOBS: Final = 1024
"""Blobs of a plan that are explained, and blobs after which a snapshot explains no further plan.

A thousand take about 20 milliseconds, for which the event loop is busy.
"""
MAX_MEMBERS: Final = 64
MAX_RUNNING: Final = 64
MAX_NEWEST: Final = 20
"""Evictions and warnings that are shown."""
LONGEST_TEXT: Final = 300
COUNT_AGAIN: Final = 10.0
"""Seconds after which the files of a cache are counted again."""

_USER: Final = re.compile(r"(\w://)[^\s/@]*@")
_QUERY: Final = re.compile(r"(\w://[^\s?#]*)[?#][^\s'\",;)]*")
_SEVERITY: Final[dict[Health, int]] = {"ok": 0, "probing": 1, "failing": 2}
_STATES: Final[dict[BreakerState, Health]] = {
    BreakerState.CLOSED: "ok",
    BreakerState.HALF_OPEN: "probing",
    BreakerState.OPEN: "failing",
}


class Totals(msgspec.Struct, kw_only=True):
    """Counts since the start. Sizes are bytes."""

    requests: int = 0
    """Requests of clients that were answered, or given up."""
    refused: int = 0
    """Of these, with a status from 400 to 499."""
    failed: int = 0
    """Of these, with a status from 500, or with an answer that was cut."""
    sent: int = 0
    hits: int = 0
    """Manifests and blobs that were served without a fetch, or by joining one."""
    misses: int = 0
    """Manifests and blobs that were fetched for the request."""
    asked: int = 0
    """Requests to registries."""
    fetched: int = 0
    """Bytes that were read from members."""


class NameStatus(msgspec.Struct, frozen=True):
    """A name of the configuration."""

    name: str
    """As written; ``*`` stands for any characters."""
    members: tuple[str, ...]
    """The top and its supplements, as written."""


class RequestedName(msgspec.Struct, kw_only=True):
    """A name that clients have read from."""

    name: str
    requests: int = 0
    sent: int = 0
    """Bytes."""
    last: float = 0.0
    """When it was requested last, in seconds since the epoch."""


class BlobsStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Blobs of one manifest that the same members serve."""

    count: int
    size: int
    """Bytes, of those whose size is known."""
    members: tuple[int, ...]
    """The members that have them, best first."""
    rule: str
    """Why the first one serves them."""


class ManifestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest of a plan."""

    digest: str
    kind: str
    """"index", "image" or "opaque"."""
    platform: str | None
    members: tuple[int, ...]
    """The members that have it; the first one serves it."""
    rule: str
    """Why the first one serves it."""
    blobs: tuple[BlobsStatus, ...]


class PlanStatus(msgspec.Struct, frozen=True, kw_only=True):
    """An open image: which member serves what."""

    name: str
    reference: str
    """The tag or digest that was asked for."""
    digest: str
    stale: bool
    """Whether its upstream could not confirm it."""
    age: float | None
    """Seconds since it was confirmed; None for a digest, which needs none."""
    leases: int
    """Requests that use it."""
    members: tuple[str, ...]
    """The top and its supplements."""
    unavailable: dict[int, str]
    """Member to the error because of which it was left out."""
    manifests: tuple[ManifestStatus, ...]
    manifest_count: int
    """Manifests in all."""
    missing: tuple[str, ...]
    """Digests of manifests that no member has."""


class BudgetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a registry still allows: the account of which it allows least."""

    remaining: int
    limit: int | None
    resets: float
    """When there are new requests at the latest, in seconds since the epoch."""
    low: bool
    """Whether only the reserve is left."""


class MemberStatus(msgspec.Struct, kw_only=True):
    """A registry, or another source, that serves members."""

    source: str
    """``docker://HOST/`` for all that is in one registry, else a reference."""
    health: Health = "ok"
    retry_in: float = 0.0
    """Seconds for which others are asked first."""
    error: str | None = None
    """Its last failure."""
    failed: float = 0.0
    """When that was, in seconds since the epoch."""
    requests: int = 0
    """Requests to it, for registries."""
    failures: int = 0
    """Requests without a response or with a status from 500, and blobs that it did not serve."""
    seconds: float = 0.0
    """Until its last response came."""
    served: int = 0
    """Bytes that were read from it."""
    budget: BudgetStatus | None = None


class CacheStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A cache on disk. Sizes are bytes."""

    path: str
    bytes: int
    limit: int
    entries: int
    pins: int
    hits: int
    misses: int
    counted: float
    """When it was counted, in seconds since the epoch."""


class EvictionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A blob or manifest that was removed from the cache."""

    at: float
    """Seconds since the epoch."""
    digest: str
    size: int
    unused: float | None
    """Seconds for which it was not used."""


class RunningStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A request that is being answered."""

    name: str | None
    reference: str | None
    """A tag or digest, None for lists."""
    client: str | None
    """The address of the client."""
    source: str | None
    """What serves the bytes; None until something does."""
    cache: str
    """See `asupplemented.events.CacheUse`."""
    sent: int
    size: int | None
    """Bytes of the answer, None until its head is known."""
    seconds: float
    """Since the request."""


class WarningStatus(msgspec.Struct, kw_only=True):
    """Something that works but that the operator should know."""

    at: float
    """When it came last, in seconds since the epoch."""
    source: str
    message: str
    count: int = 1


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a registry does, all its processes together."""

    version: str | None
    """Of this library, None if it is not installed."""
    started: float
    """When the first process started, in seconds since the epoch."""
    taken: float
    """When this was so."""
    processes: int = 1
    totals: Totals
    running: tuple[RunningStatus, ...]
    """The oldest requests that are being answered."""
    running_count: int
    """How many there are."""
    members: tuple[MemberStatus, ...]
    plans: tuple[PlanStatus, ...]
    plan_count: int
    """Open images in all; those that are not shown may count once for each process."""
    names: tuple[NameStatus, ...]
    requested: tuple[RequestedName, ...]
    """Those that were requested last, newest first."""
    cache: CacheStatus | None
    evictions: tuple[EvictionStatus, ...]
    """Newest first."""
    warnings: tuple[WarningStatus, ...]
    """Newest first."""


class _Newest(Generic[T]):
    """A table that keeps the entries that were used last."""

    __slots__ = ("_entries", "_limit", "_make")

    def __init__(self, limit: int, make: Callable[[str], T]) -> None:
        self._limit = limit
        self._make = make
        self._entries: OrderedDict[str, T] = OrderedDict()

    def use(self, key: str) -> T:
        """The entry of a key, which is the newest now; it is made if it is not there."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = self._make(key)
        self._entries.move_to_end(key)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)
        return entry

    def newest(self) -> list[T]:
        """All entries, newest first."""
        return list(reversed(self._entries.values()))


class StatusBoard:
    """A hook that can say what a registry does: ``Session(hooks=[board])``.

    Several sessions may use one board.

    Args:
        clock: Where the time comes from.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._wall = (clock or Clock()).wall
        self._started = self._wall()
        self._totals = Totals()
        self._members = _Newest(MAX_MEMBERS, lambda key: MemberStatus(source=key))
        self._requested = _Newest(MAX_NAMES, lambda key: RequestedName(name=key))
        self._warnings = _Newest(
            MAX_NEWEST, lambda _: WarningStatus(at=0.0, source="", message="", count=0)
        )
        self._evictions: deque[EvictionStatus] = deque(maxlen=MAX_NEWEST)
        self._plans: dict[int, tuple[Resolution, tuple[ManifestStatus, ...]]] = {}
        """What is shown of a resolution, by its identity."""
        self._cache: CacheStatus | None = None
        self._count: asyncio.Task[CacheStats] | None = None

    def __call__(self, event: Event) -> None:
        """Take note of an event."""
        match event:
            case RequestServed():
                self._note_request(event)
            case UpstreamResponded():
                self._note_response(event)
            case ManifestFetched(reference=reference, size=size, cached=False):
                self._note_read(reference, size)
            case BlobServed(reference=reference, start=start, end=end, cached=False):
                self._note_read(reference, end - start)
            case AttemptFailed(reference=reference, error=error, message=message):
                self._note_failure(host_of(reference), f"{error}: {message}")
            case BlobEvicted(digest=digest, size=size, seconds_unused=unused):
                eviction = EvictionStatus(
                    at=self._wall(), digest=str(digest), size=size, unused=unused
                )
                self._evictions.appendleft(eviction)
            case Warned(reference=reference, message=message):
                self._note_warning(_clean(reference), _clean(message))
            case _:
                pass

    def _note_request(self, event: RequestServed) -> None:
        totals = self._totals
        totals.requests += 1
        totals.sent += event.sent
        totals.failed += event.status >= 500 or (event.error is not None and event.status < 400)  # noqa: PLR2004
        totals.refused += 400 <= event.status < 500  # noqa: PLR2004
        totals.hits += event.cache in {"hit", "joined", "stale"}
        totals.misses += event.cache == "miss"
        if event.name is None or event.status >= 400:  # noqa: PLR2004
            return  # It may be anything, and clients must not fill the table with it.
        name = event.name if event.registry is None else f"{event.registry}/{event.name}"
        requested = self._requested.use(_clean(name))
        requested.requests += 1
        requested.sent += event.sent
        requested.last = self._wall()

    def _note_response(self, event: UpstreamResponded) -> None:
        self._totals.asked += 1
        source = f"docker://{event.registry}/"
        member = self._members.use(source)
        member.requests += 1
        member.seconds = event.seconds
        if event.error is not None:
            self._note_failure(source, event.error)
        elif event.status is not None and event.status >= 500:  # noqa: PLR2004
            self._note_failure(source, f"{event.method} was answered with status {event.status}")

    def _note_read(self, reference: str, size: int) -> None:
        self._totals.fetched += size
        self._members.use(host_of(reference)).served += size

    def _note_failure(self, source: str, error: str) -> None:
        member = self._members.use(source)
        member.failures += 1
        member.error = _clean(error)
        member.failed = self._wall()

    def _note_warning(self, source: str, message: str) -> None:
        warning = self._warnings.use(f"{source} {message}")
        warning.source, warning.message = source, message
        warning.count += 1
        warning.at = self._wall()

    def snapshot(
        self,
        catalog: Catalog | None = None,
        cache: LayoutCache | None = None,
        sessions: Iterable[Session] = (),
    ) -> Status:
        """What the registry does now. Must be called on the event loop of the sessions.

        Args:
            catalog: Whose names and open images are shown.
            cache: Which is shown; its files are counted in the background, so the first
                snapshot does not have it.
            sessions: Whose running requests, breakers and request limits are shown. Give the
                current one first, and then those that were replaced and still serve.
        """
        usable = [session for session in sessions if not session.closed]
        current = usable[:1]
        entries = [
            each
            for session in current
            if catalog is not None
            for each in catalog.list_open(session)
        ]
        plans = self._explain(entries)
        running = [each for session in usable for each in running_requests(session)]
        if cache is not None and usable:
            self._count_again(cache, usable[0])
        return Status(
            version=__version__,
            started=self._started,
            taken=self._wall(),
            totals=msgspec.structs.replace(self._totals),
            running=tuple(
                RunningStatus(
                    name=None if each.name is None else _clean(each.name),
                    reference=None if each.reference is None else _clean(each.reference),
                    client=each.client,
                    source=None if each.source is None else _clean(each.source),
                    cache=each.cache,
                    sent=each.sent,
                    size=each.size,
                    seconds=each.seconds,
                )
                for each in islice(running, MAX_RUNNING)
            ),
            running_count=len(running),
            members=self._describe_members(plans, catalog, current),
            plans=plans,
            plan_count=len({(e.name, e.reference, e.resolution.top) for e in entries}),
            names=() if catalog is None else _describe_names(catalog),
            requested=tuple(map(msgspec.structs.replace, self._requested.newest())),
            cache=self._cache if cache is not None else None,
            evictions=tuple(self._evictions),
            warnings=tuple(map(msgspec.structs.replace, self._warnings.newest())),
        )

    # Plans

    def _explain(self, entries: Sequence[CatalogEntry]) -> tuple[PlanStatus, ...]:
        before, self._plans = self._plans, {}
        plans: dict[Hashable, PlanStatus] = {}  # Principals may have the same image open.
        explained = 0
        for entry in entries:
            if len(plans) == MAX_PLANS:
                break
            resolution = entry.resolution
            known = before.get(id(resolution)) or self._plans.get(id(resolution))
            if known is None and explained >= MAX_BLOBS:
                continue  # The next snapshot has it.
            explained += len(resolution.blobs) if known is None else 0
            manifests = _explain_manifests(resolution) if known is None else known[1]
            self._plans[id(resolution)] = resolution, manifests
            plan = PlanStatus(
                name=_clean(entry.name),
                reference=entry.reference,
                digest=str(resolution.top),
                stale=entry.stale,
                age=entry.age,
                leases=entry.leases,
                members=tuple(map(_clean, resolution.members)),
                unavailable={
                    member: _clean(f"{type(error).__name__}: {error.message}")
                    for member, error in resolution.unavailable.items()
                },
                manifests=manifests,
                manifest_count=len(resolution.sources),
                missing=tuple(
                    str(each.digest) for each in islice(resolution.missing, MAX_MANIFESTS)
                ),
            )
            _add_plan(plans, plan)
        return tuple(plans.values())

    # Members

    def _describe_members(
        self, plans: Iterable[PlanStatus], catalog: Catalog | None, sessions: Iterable[Session]
    ) -> tuple[MemberStatus, ...]:
        members = {each.source: msgspec.structs.replace(each) for each in self._members.newest()}

        def find(source: str) -> MemberStatus:
            return members.setdefault(_clean(source), MemberStatus(source=_clean(source)))

        for plan in plans:
            for reference in plan.members:
                find(host_of(reference))
        for session in sessions:
            for name, state, remaining in breakers_of(session):
                _worsen(find(host_of(name)), _STATES[state], remaining)
            failing = () if catalog is None else catalog.list_failing(session)
            for each in failing:
                member = find(host_of(each.source))
                _worsen(member, _STATES[each.state], each.remaining)
                member.error = member.error or _clean(_describe_error(each.error))
            for account, balance in ledger_of(session).balances():
                member = find(f"docker://{account.registry}/")
                budget = BudgetStatus(
                    remaining=balance.remaining,
                    limit=balance.limit,
                    resets=balance.resets,
                    low=balance.is_low(),
                )
                member.budget = _tightest(member.budget, budget)
        return _first_members(members.values())

    # The cache

    def _count_again(self, cache: LayoutCache, session: Session) -> None:
        """Have the files of the cache counted, unless that was done lately."""
        if self._count is not None:
            return
        known = self._cache
        if known is not None and known.path == str(cache.path):
            if 0 <= self._wall() - known.counted < COUNT_AGAIN:
                return
        else:
            self._cache = None

        def take(task: asyncio.Task[CacheStats]) -> None:
            self._count = None
            if task.cancelled() or task.exception() is not None:
                return  # The disk fails, of which the cache warns; or the session was closed.
            stats = task.result()
            self._cache = CacheStatus(
                path=str(cache.path),
                bytes=stats.bytes,
                limit=stats.limit,
                entries=stats.entries,
                pins=stats.pins,
                hits=stats.hits,
                misses=stats.misses,
                counted=self._wall(),
            )

        self._count = asyncio.get_running_loop().create_task(run_blocking(session, cache.stats))
        self._count.add_done_callback(take)


def end_status(status: Status) -> Status:
    """What stays of the status of a process that has ended: what it has counted and told.

    Give it to `merge_status` with the parts of the processes that run, so that no count falls.
    """
    members = (
        msgspec.structs.replace(member, health="ok", retry_in=0.0, budget=None)
        for member in status.members
    )
    return msgspec.structs.replace(
        status,
        processes=0,
        running=(),
        running_count=0,
        members=tuple(members),
        plans=(),
        plan_count=0,
    )


def merge_status(parts: Sequence[Status]) -> Status:
    """The status of several processes that serve the same configuration, as one.

    Counts are added; see `end_status` for processes that have ended.

    Args:
        parts: One or more.

    Raises:
        ValueError: There is no part.
    """
    if not parts:
        raise ValueError("there is no status to merge; give that of one process at least")
    newest = max(parts, key=lambda part: (part.processes > 0, part.taken))
    running = sorted((each for part in parts for each in part.running), key=lambda r: -r.seconds)
    members: dict[str, MemberStatus] = {}
    requested: dict[str, RequestedName] = {}
    plans: dict[Hashable, PlanStatus] = {}
    warnings: dict[tuple[str, str], WarningStatus] = {}
    for part in parts:
        for member in part.members:
            _add_member(members, member)
        for name in part.requested:
            known = requested.setdefault(name.name, RequestedName(name=name.name))
            known.requests += name.requests
            known.sent += name.sent
            known.last = max(known.last, name.last)
        for plan in part.plans:
            _add_plan(plans, plan)
        for warning in part.warnings:
            key = warning.source, warning.message
            before = warnings.setdefault(key, msgspec.structs.replace(warning, count=0))
            before.count += warning.count
            before.at = max(before.at, warning.at)
    caches = [part.cache for part in parts if part.cache is not None]
    return Status(
        version=newest.version,
        started=min(part.started for part in parts),
        taken=newest.taken,
        processes=sum(part.processes for part in parts),
        totals=Totals(
            **{
                field: sum(getattr(part.totals, field) for part in parts)
                for field in Totals.__struct_fields__
            }
        ),
        running=tuple(running[:MAX_RUNNING]),
        running_count=sum(part.running_count for part in parts),
        members=_first_members(members.values()),
        plans=tuple(islice(plans.values(), MAX_PLANS)),
        plan_count=len(plans) + sum(part.plan_count - len(part.plans) for part in parts),
        names=newest.names,
        requested=tuple(sorted(requested.values(), key=lambda name: -name.last)[:MAX_NAMES]),
        cache=_merge_caches(caches),
        evictions=_newest(each for part in parts for each in part.evictions),
        warnings=_newest(warnings.values()),
    )


def _add_plan(plans: dict[Hashable, PlanStatus], plan: PlanStatus) -> None:
    """Add a plan; of the same one in several places, the one that was confirmed last is shown."""
    key = plan.name, plan.reference, plan.digest
    known = plans.get(key)
    if known is None:
        plans[key] = plan
        return
    newer = plan if (plan.age or 0.0) < (known.age or 0.0) else known
    plans[key] = msgspec.structs.replace(newer, leases=plan.leases + known.leases)


def _add_member(members: dict[str, MemberStatus], member: MemberStatus) -> None:
    known = members.get(member.source)
    if known is None:
        members[member.source] = msgspec.structs.replace(member)
        return
    _worsen(known, member.health, member.retry_in)
    if member.failed > known.failed:
        known.error, known.failed = member.error, member.failed
    known.requests += member.requests
    known.failures += member.failures
    known.served += member.served
    known.seconds = member.seconds or known.seconds
    if member.budget is not None:
        known.budget = _tightest(known.budget, member.budget)


def _worsen(member: MemberStatus, health: Health, retry_in: float) -> None:
    """Take over what is known of a member elsewhere, if it is worse."""
    member.health = max(member.health, health, key=_SEVERITY.__getitem__)
    member.retry_in = max(member.retry_in, retry_in)


def _tightest(known: BudgetStatus | None, budget: BudgetStatus) -> BudgetStatus:
    """The budget with the fewest requests; within a window this is also the newest one."""
    return budget if known is None or budget.remaining < known.remaining else known


def _first_members(members: Iterable[MemberStatus]) -> tuple[MemberStatus, ...]:
    """The members that are shown: those that fail first, then by name."""
    ranked = sorted(members, key=lambda member: (-_SEVERITY[member.health], member.source))
    return tuple(ranked[:MAX_MEMBERS])


def _merge_caches(caches: Sequence[CacheStatus]) -> CacheStatus | None:
    if not caches:
        return None
    newest = max(caches, key=lambda cache: cache.counted)
    return msgspec.structs.replace(
        newest,
        hits=sum(cache.hits for cache in caches),
        misses=sum(cache.misses for cache in caches),
    )


E = TypeVar("E", EvictionStatus, WarningStatus)


def _newest(entries: Iterable[E]) -> tuple[E, ...]:
    return tuple(sorted(entries, key=lambda entry: -entry.at)[:MAX_NEWEST])


def _describe_names(catalog: Catalog) -> tuple[NameStatus, ...]:
    return tuple(
        NameStatus(_clean(name), tuple(map(_clean, members)))
        for name, members in islice(catalog.names.items(), MAX_NAMES)
    )


def _describe_error(error: SupplementedError) -> str:
    return f"{type(error).__name__}: {error.message}"


def _explain_manifests(resolution: Resolution) -> tuple[ManifestStatus, ...]:
    """Which member serves each manifest and its blobs, and why."""
    blobs: dict[str, dict[tuple[int, ...], BlobsStatus]] = {}
    for digest in islice(resolution.blobs, MAX_BLOBS):
        explained = resolution.explain(digest)
        members = tuple(candidate.member for candidate in explained.candidates)
        groups = blobs.setdefault(explained.manifest, {})
        group = groups.get(members)
        size = resolution.descriptor(digest).size or 0
        groups[members] = BlobsStatus(
            count=1 + (0 if group is None else group.count),
            size=size + (0 if group is None else group.size),
            members=members,
            rule=explained.rule if group is None else group.rule,
        )
    manifests: list[ManifestStatus] = []
    for instance in islice(resolution.instances(), MAX_MANIFESTS):
        explained = resolution.explain(instance.digest)
        manifests.append(
            ManifestStatus(
                digest=str(instance.digest),
                kind=explained.kind,
                platform=None if instance.platform is None else str(instance.platform),
                members=tuple(candidate.member for candidate in explained.candidates),
                rule=explained.rule,
                blobs=tuple(blobs.get(instance.digest, {}).values()),
            )
        )
    return tuple(manifests)


def _clean(text: str) -> str:
    """A text without what URLs have behind ``?`` and before ``@``, and not too long."""
    text = _QUERY.sub(r"\1", _USER.sub(r"\1", str(text)))
    return text if len(text) <= LONGEST_TEXT else f"{text[: LONGEST_TEXT - 1]}…"
