"""The proof of the resolver: serial answers, whatever arrives when.

Worlds are resolved twice, by the serial loop of `tests.serial_model` and by the resolver, whose
wants are fetched by the driver of `tests.resolving`, where outcomes arrive in any order. What
`wants` may and must say is taken from the queue of the serial loop too.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asupplemented import limits
from asupplemented.errors import (
    LimitExceededError,
    ManifestNotFoundError,
    NetworkError,
    ServerError,
    SupplementedError,
)
from asupplemented.model.index import AllImages
from asupplemented.supplemented.resolver import Bounds, Resolver, Want
from tests.resolving import Run, assert_same, drive, frontier, resolve, resolver_for
from tests.serial_model import Request, World, resolve_serially
from tests.strategies import NAMES, group, image, index, named, requests, worlds

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator
    from types import FrameType, TracebackType

    TraceFunction: TypeAlias = Callable[[FrameType, str, Any], Any]

LOOKAHEADS = st.sampled_from((0, 1, 2, 3, 5, 8, 64))
ORDERS = st.randoms(use_true_random=True)
THOROUGHLY = settings(max_examples=4 * settings().max_examples)  # four times the profile's


# The answer is that of the serial loop


@THOROUGHLY
@given(worlds(), requests(), LOOKAHEADS, ORDERS, st.sampled_from((None, None, 0, 700)))
def test_answer_is_that_of_the_serial_loop(
    world: World, asked: Request, lookahead: int, order: random.Random, read_ahead: int | None
) -> None:
    answer = resolve_serially(world, asked)
    run = drive(world, asked, lookahead, order=order, read_ahead=read_ahead)
    assert_same(run.resolver, answer, world)
    assert set(answer.reads) <= set(run.fed)
    assert len(set(run.started)) == len(run.started)


@given(worlds(), requests())
def test_without_lookahead_the_reads_are_those_of_the_serial_loop(
    world: World, asked: Request
) -> None:
    assert drive(world, asked).started == resolve_serially(world, asked).reads


@given(worlds(), requests(), ORDERS)
def test_the_state_after_a_failure_does_not_depend_on_order_either(
    world: World, asked: Request, order: random.Random
) -> None:
    one, other = (drive(world, asked, n, order=order).resolver for n in (64, 3))
    for name in ("commits", "sources", "blobs", "defaults", "missing", "unavailable"):
        assert repr(getattr(one, name)) == repr(getattr(other, name))
    assert repr(one.failure) == repr(other.failure)


# The laws of wants and feed


@THOROUGHLY
@given(worlds(), requests(), LOOKAHEADS, ORDERS)
def test_laws_of_wants(world: World, asked: Request, lookahead: int, order: random.Random) -> None:
    def check(run: Run, wanted: list[Want]) -> None:
        found = frontier(world, asked, run.fed)
        assert wanted[0] == found.wants[0], "the head comes first"
        assert len(set(wanted)) == len(wanted) <= lookahead + 1
        assert not {want.digest for want in wanted} & set(run.resolver.sources)
        assert not set(wanted) & set(run.fed)
        assert set(wanted) <= set(found.wants), "nothing behind a failure that would raise"
        if not found.missed:
            assert wanted == found.wants[: lookahead + 1], "in serial order"
        elif not found.barred:
            assert len(wanted) == min(lookahead + 1, len(found.wants)), "as many as there are"

    drive(world, asked, lookahead, order=order, check=check)


@given(worlds(), requests(), ORDERS)
def test_wants_changes_nothing(world: World, asked: Request, order: random.Random) -> None:
    def check(run: Run, wanted: list[Want]) -> None:
        assert run.resolver.wants(5) == wanted
        assert run.resolver.wants(0) == wanted[:1]
        assert run.resolver.wants(100)[:1] == wanted[:1]

    drive(world, asked, 5, order=order, check=check)


ANY_WANT = st.builds(
    Want, st.integers(0, 6), st.one_of(st.none(), st.sampled_from([named(n) for n in NAMES]))
)


@given(worlds(), requests(), st.lists(ANY_WANT, max_size=40), st.integers(0, 64))
def test_feed_never_raises_whatever_the_want(
    world: World, asked: Request, wants: list[Want], n: int
) -> None:
    resolver = resolver_for(world, asked)
    for want in wants:
        known = want.digest is not None or want.member in world.defaults
        resolver.feed(want, world.read(*want) if known else NetworkError("unknown"))
        assert len(resolver.wants(n)) <= n + 1


@given(worlds(), requests(), LOOKAHEADS, ORDERS)
def test_unwanted_outcomes_do_not_change_the_answer(
    world: World, asked: Request, lookahead: int, order: random.Random
) -> None:
    def babble(run: Run, _: list[Want]) -> None:
        for want in run.fed:
            run.resolver.feed(want, ServerError("said before"))
            run.resolver.feed(want, image("nonsense", "u"))
        run.resolver.feed(Want(99, None), image("A", "u"))
        run.resolver.feed(Want(99, named("A")), image("A", "v"))

    run = drive(world, asked, lookahead, order=order, check=babble)
    assert_same(run.resolver, resolve_serially(world, asked), world)


def test_the_first_outcome_of_a_want_counts() -> None:
    resolver = Resolver([0, 1], AllImages())
    resolver.feed(Want(1, None), image("A", "u"))
    resolver.feed(Want(1, None), NetworkError("too late"))
    resolver.feed(Want(0, None), image("T", "u"))
    assert resolver.done
    assert resolver.failure is None
    assert resolver.sources == {named("T"): 0, named("A"): 1}


def test_an_outcome_counts_for_its_member_only() -> None:
    resolver = Resolver([0, 1, 2], AllImages())
    resolver.feed(Want(0, None), image("T"))
    resolver.feed(Want(1, None), index("K", "A"))
    resolver.feed(Want(2, None), index("L", "A", "B"))
    resolver.feed(Want(1, named("A")), image("A", "u"))
    resolver.feed(Want(2, named("B")), image("B", "u"))
    assert resolver.wants(0) == [(2, named("A"))]
    assert not resolver.done
    resolver.feed(Want(2, named("A")), image("A", "u"))
    assert resolver.sources[named("A")] == 2


def test_before_all_defaults_are_committed_only_defaults_are_wanted() -> None:
    resolver = Resolver([0, 1, 2], AllImages())
    resolver.feed(Want(0, None), index("T", "A", "B"))
    resolver.feed(Want(2, None), index("K", "A", "B"))
    assert resolver.wants(9) == [(1, None)]


def test_many_defaults_keep_the_lookahead_busy_while_the_head_is_slow() -> None:
    resolver = Resolver(range(1000), AllImages())
    for member in range(1, 600):
        resolver.feed(Want(member, None), image(f"{member}"))
    assert resolver.wants(64) == [(0, None), *((member, None) for member in range(600, 664))]


def test_tolerated_misses_keep_the_lookahead_busy() -> None:
    names = [f"{number}" for number in range(400)]
    resolver = Resolver([0, 1], AllImages(), missing="fallback")
    resolver.feed(Want(0, None), index("T", *names))
    resolver.feed(Want(1, None), index("K", *names))
    for name in names[-2:-258:-1]:
        resolver.feed(Want(1, named(name)), ManifestNotFoundError("not here"))
    wanted = resolver.wants(64)
    assert wanted[0] == Want(1, named("399"))
    assert len(wanted) == 65
    resolver.feed(wanted[0], ManifestNotFoundError("not here"))
    assert len(resolver.wants(64)) == 65


def test_a_failure_that_would_raise_stops_what_lies_behind_it() -> None:
    resolver = Resolver([0], AllImages())
    resolver.feed(Want(0, None), index("T", "A", "B", "C", "D", "E"))
    resolver.feed(Want(0, named("C")), NetworkError("broken"))
    assert resolver.wants(9) == [(0, named("A")), (0, named("B"))]


def test_of_several_failures_that_would_raise_the_first_one_stops() -> None:
    resolver = Resolver([0], AllImages())
    resolver.feed(Want(0, None), index("T", "A", "B", "C", "D", "E"))
    resolver.feed(Want(0, named("D")), NetworkError("broken"))
    resolver.feed(Want(0, named("B")), NetworkError("broken"))
    assert resolver.wants(9) == [(0, named("A"))]


def test_a_failure_moves_up_when_it_is_queued_again_in_front() -> None:
    resolver = Resolver([0, 1], AllImages())
    resolver.feed(Want(0, None), image("T"))
    resolver.feed(Want(1, None), index("K", "D", "L"))
    resolver.feed(Want(1, named("D")), NetworkError("broken"))
    resolver.feed(Want(1, named("L")), index("L", "E", "D", "F"))
    assert resolver.wants(9) == [(1, named("F"))]


def test_a_failure_stops_nothing_while_another_entry_may_serve_its_digest() -> None:
    resolver = Resolver([0, 1, 2], AllImages())
    resolver.feed(Want(0, None), index("T", "A"))
    resolver.feed(Want(1, None), index("K", "D", "C"))
    resolver.feed(Want(2, None), index("L", "M"))
    resolver.feed(Want(1, named("D")), NetworkError("broken"))
    assert resolver.wants(9) == [(2, named("M")), (1, named("C"))]
    resolver.feed(Want(2, named("M")), index("M", "D"))
    assert resolver.wants(9) == [(2, named("D")), (1, named("C")), (0, named("A"))]


def test_a_default_that_failed_stops_what_lies_behind_it() -> None:
    resolver = Resolver([0, 1, 2, 3], AllImages())
    resolver.feed(Want(2, None), NetworkError("broken"))
    assert resolver.wants(9) == [(0, None), (1, None)]


def test_a_miss_that_is_tolerated_stops_nothing() -> None:
    resolver = Resolver([0], AllImages(), missing="skip")
    resolver.feed(Want(0, None), index("T", "A", "B", "C"))
    resolver.feed(Want(0, named("B")), ManifestNotFoundError("not here"))
    assert resolver.wants(9) == [(0, named("A")), (0, named("C"))]


def test_after_a_miss_the_next_entry_for_the_digest_is_wanted() -> None:
    resolver = Resolver([0, 1], AllImages(), missing="fallback")
    resolver.feed(Want(0, None), index("T", "A", "B"))
    resolver.feed(Want(1, None), index("K", "A", "C"))
    resolver.feed(Want(1, named("A")), ManifestNotFoundError("not here"))  # waits behind C
    assert resolver.wants(9) == [(1, named("C")), (0, named("B")), (0, named("A"))]


def test_after_a_miss_of_the_head_the_next_entry_for_the_digest_is_wanted() -> None:
    resolver = Resolver([0, 1], AllImages(), missing="fallback")
    resolver.feed(Want(0, None), index("T", "A", "B"))
    resolver.feed(Want(1, None), index("K", "A", "B"))
    resolver.feed(Want(1, named("B")), ManifestNotFoundError("not here"))
    assert resolver.wants(9) == [(1, named("A")), (0, named("B"))]


def test_the_head_comes_first_although_a_miss_brought_it_up() -> None:
    resolver = Resolver([0, 1], AllImages(), missing="fallback")
    resolver.feed(Want(0, None), index("T", "A", "B", "C"))
    resolver.feed(Want(1, None), index("K", "A"))
    resolver.feed(Want(1, named("A")), ManifestNotFoundError("not here"))
    assert resolver.wants(9) == [(0, named("A")), (0, named("B")), (0, named("C"))]
    assert resolver.wants(1) == [(0, named("A")), (0, named("B"))]


def test_a_want_that_missed_is_not_wanted_when_it_is_queued_again() -> None:
    resolver = Resolver([0, 1], AllImages(), missing="skip")
    resolver.feed(Want(0, None), image("T"))
    resolver.feed(Want(1, None), index("K", "L", "A"))
    resolver.feed(Want(1, named("A")), ManifestNotFoundError("not here"))
    resolver.feed(Want(1, named("L")), index("L", "B", "A", "C"))
    assert resolver.wants(9) == [(1, named("C")), (1, named("B"))]


def test_what_waits_is_not_wanted_when_it_is_queued_again() -> None:
    resolver = Resolver([0, 1], AllImages())
    resolver.feed(Want(0, None), image("T"))
    resolver.feed(Want(1, None), index("K", "A", "L"))
    resolver.feed(Want(1, named("A")), image("A"))
    resolver.feed(Want(1, named("L")), index("L", "A", "B"))
    assert resolver.wants(9) == [(1, named("B"))]


def test_manifests_that_wait_stop_the_lookahead_at_the_cap_of_bytes() -> None:
    held = image("B", "u")
    for cap, expected in ((held.size, 2), (held.size - 1, 1)):
        resolver = Resolver([0], AllImages(), bounds=Bounds(read_ahead=cap))
        resolver.feed(Want(0, None), index("T", "A", "B", "C"))
        resolver.feed(Want(0, named("B")), held)
        assert len(resolver.wants(9)) == expected


def test_manifests_that_are_not_needed_any_more_do_not_count_as_waiting() -> None:
    resolver = Resolver([0, 1], AllImages(), bounds=Bounds(read_ahead=0))
    resolver.feed(Want(0, None), index("T", "A", "B", "C"))
    resolver.feed(Want(1, None), index("K", "L", "A"))
    resolver.feed(Want(1, named("L")), index("L", "A", "B"))  # waits behind A
    assert resolver.wants(9) == [(1, named("A"))]
    resolver.feed(Want(0, named("B")), image("B"))  # waits, and will not be needed
    resolver.feed(Want(1, named("A")), image("A"))
    resolver.feed(Want(1, named("B")), image("B"))
    assert len(resolver.wants(9)) == 1
    resolver.feed(Want(0, named("C")), image("C"))
    assert resolver.done
    assert resolver._outcomes.size == 0  # pyright: ignore[reportPrivateUsage]


# The cost of wants and feed


class Opcodes:
    """Counts the instructions that Python runs within the block: work, without a clock."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Self:
        self._old = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        sys.settrace(self._old)

    def _trace(self, frame: FrameType, event: str, _: object) -> TraceFunction:
        frame.f_trace_opcodes = True
        self.count += event == "opcode"
        return self._trace


def opened(entries: int) -> Resolver:
    """A resolver whose queue has `entries` entries, half of them fetched ahead."""
    names = [f"{number}" for number in range(entries)]
    resolver = Resolver([0], AllImages())
    resolver.feed(Want(0, None), index("T", *names))
    for name in names[1::2]:
        resolver.feed(Want(0, named(name)), image(name, "u"))
    return resolver


def test_wants_costs_the_same_whatever_the_length_of_the_queue() -> None:
    counts: list[int] = []
    for entries in (100, 10_000):
        resolver = opened(entries)
        for _ in range(2):  # Python 3.12 sees instructions only where it has traced before
            with Opcodes() as work:
                assert len(resolver.wants(8)) == 9
        counts.append(work.count)
    assert counts[0] == counts[1] > 0


def test_wants_touches_no_more_than_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counting(OrderedDict[Want, int]):
        touched = 0

        def __iter__(self) -> Iterator[Want]:
            for want in super().__iter__():
                Counting.touched += 1
                yield want

    resolver = opened(10_000)
    advice = resolver._lookahead  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(advice, "planned", Counting(advice.planned))
    Counting.touched = 0
    assert len(resolver.wants(8)) == 9
    assert Counting.touched == 9


def test_resolving_is_linear() -> None:
    counts: list[int] = []
    for entries in (10, 100, 200):  # the first one is for Python 3.12, see above
        names = [f"{number}" for number in range(entries)]
        resolver = Resolver([0, 1], AllImages())
        manifests = {named(name): image(name, "u") for name in names}
        defaults = (index("T", *names), index("K", *names[::2]))
        with Opcodes() as work:
            for member, default in enumerate(defaults):
                resolver.feed(Want(member, None), default)
            while not resolver.done:
                for want in reversed(resolver.wants(8)):
                    assert want.digest is not None
                    resolver.feed(want, manifests[want.digest])
        assert len(resolver.sources) == entries + 2
        counts.append(work.count)
    assert counts[2] < 2.1 * counts[1]


# Bounds, each on both sides


def assert_refused(failure: SupplementedError | None, limit: int) -> None:
    assert isinstance(failure, LimitExceededError)
    assert failure.limit == limit
    assert str(limit) in str(failure)


def test_X15_distinct_manifests_are_bounded() -> None:
    world = group([index("T", "A", "B", "A"), image("A"), image("B")], [image("S")])
    assert resolve(world, Request(max_instances=4)).failure is None
    assert_refused(resolve(world, Request(max_instances=3)).failure, 3)


def test_X15_a_default_counts_as_a_manifest() -> None:
    world = group([image("T")], [image("S")], [image("S")])
    assert resolve(world, Request(max_instances=2)).failure is None
    assert_refused(resolve(world, Request(max_instances=1)).failure, 1)


def test_X15_entries_are_bounded() -> None:
    world = group([index("T", "A", "A"), image("A")], [index("S", "A")])
    world.instances[1, named("A")] = image("A")
    assert resolve(world, Request(max_entries=3)).failure is None
    assert_refused(resolve(world, Request(max_entries=2)).failure, 2)


@pytest.mark.parametrize("lists", [8, 9])
def test_X15_lists_nest_eight_deep(lists: int) -> None:
    chain = [index(f"{depth}", f"{depth + 1}") for depth in range(lists)]
    failure = resolve(group([*chain, image(f"{lists}")])).failure
    if lists == 8:
        assert failure is None
    else:
        assert_refused(failure, 8)
        assert failure is not None
        assert failure.digest == named("8")


def test_X15_bytes_are_bounded() -> None:
    members = ([index("T", "A"), image("A")], [image("S")])
    total = sum(manifest.size for held in members for manifest in held)
    assert resolve(group(*members), Request(max_bytes=total)).failure is None
    assert_refused(resolve(group(*members), Request(max_bytes=total - 1)).failure, total - 1)


@pytest.mark.parametrize("entries", [19_999, 20_000])
def test_X15_twenty_thousand_manifests_pass_and_one_more_does_not(entries: int) -> None:
    resolver = Resolver([0], AllImages())
    resolver.feed(Want(0, None), index("T", *(f"{number}" for number in range(entries))))
    if entries == 19_999:
        assert len(resolver.wants(64)) == 65
    else:
        assert_refused(resolver.failure, 20_000)


def test_X15_the_caps_are_those_of_limits() -> None:
    assert Bounds() == Bounds(
        limits.MAX_INSTANCES,
        limits.MAX_ENTRIES,
        limits.MAX_NESTING,
        limits.MAX_MANIFESTS_TOTAL,
        limits.MAX_READ_AHEAD,
    )
    assert (limits.MAX_INSTANCES, limits.MAX_NESTING) == (20_000, 8)
    assert limits.MAX_MANIFESTS_TOTAL == 256 * 1024 * 1024


def test_X15_an_index_that_names_itself_ends() -> None:
    resolver = resolve(group([index("T", "T", "A", "T"), image("A")]))
    assert resolver.commits == [(0, named("T")), (0, named("A"))]
