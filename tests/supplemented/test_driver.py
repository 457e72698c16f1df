"""The driver: concurrency within bounds, and nothing left behind on any path."""

from __future__ import annotations

import asyncio
import random
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented import (
    AllImages,
    DigestMismatchError,
    LimitExceededError,
    ManifestNotFoundError,
    NetworkError,
    Session,
    SourceTimeoutError,
    SupplementedError,
    Timeouts,
    supplement,
)
from asupplemented.events import Event, ResolutionFinished
from asupplemented.model.manifest import Manifest, UnreadManifest
from asupplemented.supplemented.driver import Members, resolve
from asupplemented.supplemented.resolver import Bounds, weigh
from asupplemented.testing.images import build_image, build_index
from tests.members import Member, MemberLog, hold
from tests.suspending import settle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asupplemented.model.manifest import ImageManifest
    from asupplemented.supplemented import SupplementedReference
    from asupplemented.testing.images import BuiltImage

IMAGES = [build_image("linux/amd64", [{"name": str(number)}]) for number in range(24)]
TOP = build_index(IMAGES)
NESTED = build_index([build_index(IMAGES[:4]), build_index(IMAGES[4:8]), IMAGES[8]])


def slow(turns: int) -> Callable[[str, str | None], int]:
    return lambda _name, _digest: turns


def group_of(log: MemberLog, turns: Callable[[str, str | None], int]) -> SupplementedReference:
    """A sparse top, a sparse supplement with nested lists, and images one by one."""
    return supplement(
        Member("top", log, hold("top", TOP, without=IMAGES[:9]), turns=turns),
        Member("nested", log, hold("nested", NESTED, without=IMAGES[2:4]), turns=turns),
        *(
            Member(f"image {number}", log, hold("image", IMAGES[number]), turns=turns)
            for number in (2, 3, 0)
        ),
    )


def others() -> set[asyncio.Task[object]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


@pytest.mark.parametrize("lookahead", [0, 1, 2, 7, 64])
async def test_the_plan_does_not_depend_on_timing(lookahead: int) -> None:
    plans: set[bytes] = set()
    for seed in range(10):
        rng = random.Random(seed)
        delays: dict[tuple[str, str | None], int] = {}

        def turns(
            name: str,
            digest: str | None,
            rng: random.Random = rng,
            delays: dict[tuple[str, str | None], int] = delays,
        ) -> int:
            return delays.setdefault((name, digest), rng.randrange(9))

        log = MemberLog()
        async with Session(lookahead=lookahead) as session:
            plans.add((await group_of(log, turns).resolve(session)).to_json())
        assert log.peak <= 1 + lookahead
        assert log.left_open == 0
    assert len(plans) == 1


async def test_members_open_side_by_side() -> None:
    """Sixteen supplements take as long as one."""
    log = MemberLog()
    members = [
        Member(f"image {n}", log, hold("image", image), turns=slow(50))
        for n, image in enumerate(IMAGES[:16])
    ]
    whole = build_index(IMAGES[:16])
    top = Member("top", log, hold("top", whole, without=IMAGES), turns=slow(50))
    async with Session() as session, supplement(top, *members).open(session):
        assert log.peak == 17
        assert len(log.reads) == 17


async def test_the_window_is_full_while_there_is_work() -> None:
    log = MemberLog()
    top = Member("top", log, hold("top", TOP), turns=slow(5))
    async with Session(lookahead=7) as session, supplement(top).open(session):
        assert log.peak == 8


async def test_at_lookahead_0_all_is_serial() -> None:
    log = MemberLog()
    async with Session(lookahead=0) as session:
        await group_of(log, slow(3)).resolve(session)
    assert log.peak == 1


async def test_the_answer_does_not_wait_for_what_is_not_needed() -> None:
    """A fetch that a wrong guess started is given up once the plan is complete."""
    log = MemberLog()
    image = IMAGES[0]

    def turns(name: str, digest: str | None) -> int:
        return 10**9 if (name, digest) == ("top", image.digest) else 2

    # The top's entry for the image is started, and then the nested list supplies it.
    top = Member("top", log, hold("top", build_index([image])), turns=turns)
    nested = build_index([build_index([image], annotations={"is": "another"})])
    supplying = Member("nested", log, hold("nested", nested), turns=turns)
    async with Session() as session, asyncio.timeout(3):
        plan = await supplement(top, supplying).resolve(session)
    assert plan.sources[image.digest] == 1
    assert ("top", image.digest) in log.reads
    assert (log.flying, log.left_open) == (0, 0)


FAULTS: list[SupplementedError] = [
    NetworkError("down"),
    ManifestNotFoundError("gone"),
    DigestMismatchError("lies"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("where", [None, IMAGES[20].digest])
@pytest.mark.parametrize("lookahead", [0, 64])
async def test_an_error_leaves_nothing_open(
    fault: SupplementedError, where: str | None, lookahead: int
) -> None:
    log = MemberLog()
    top = Member("top", log, hold("top", TOP), faults={where: fault}, turns=slow(2))
    group = supplement(Member("first", log, hold("f", IMAGES[0]), turns=slow(9)), top)
    async with Session(lookahead=lookahead) as session:
        with pytest.raises(type(fault)) as failure:
            await group.open(session)
        assert failure.value is fault
        await settle()
        assert not others()
    assert (failure.value.member, failure.value.reference) == (1, "top")
    assert log.left_open == 0


async def test_an_error_of_closing_does_not_hide_the_first_one() -> None:
    log = MemberLog()
    bad = Member("bad", log, hold("b", IMAGES[0]), close_error=OSError("stuck"))
    down = Member("down", log, hold("d", IMAGES[1]), faults={None: NetworkError("down")})
    async with Session() as session:
        with pytest.raises(NetworkError) as failure:
            await supplement(bad, down).open(session)
    assert any("stuck" in note for note in failure.value.__notes__)
    assert log.left_open == 0


async def cancel_at_every_step(
    start: Callable[[], Awaitable[object]], check: Callable[[], None]
) -> int:
    """Run it again and again, cancelled one turn of the loop later each time."""
    for turns in count():
        task = asyncio.ensure_future(start())
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = task.done()
        task.cancel()
        await asyncio.wait([task])
        await settle()
        check()
        if finished:
            task.result()
            return turns
    raise AssertionError


@pytest.mark.parametrize("lookahead", [0, 3, 64])
async def test_SEC16_cancelled_at_every_await(lookahead: int) -> None:
    log = MemberLog()

    def check() -> None:
        assert log.left_open == 0
        assert log.flying == 0
        assert not others()

    async with Session(lookahead=lookahead) as session:
        group = group_of(log, slow(1))
        steps = await cancel_at_every_step(lambda: group.resolve(session), check)
    assert steps > 5


async def test_a_deadline_of_the_caller_works() -> None:
    log = MemberLog()
    top = Member("top", log, hold("top", TOP), turns=slow(10**9))
    async with Session() as session:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await supplement(top).open(session)
    assert log.left_open == 0


async def test_a_member_may_be_too_slow_to_open() -> None:
    log = MemberLog()
    top = Member("top", log, hold("top", TOP), turns=slow(10**9))
    async with Session(timeouts=Timeouts(open=0.01)) as session:
        with pytest.raises(SourceTimeoutError) as failure:
            await supplement(top).open(session)
    assert (failure.value.member, failure.value.reference) == (0, "top")
    assert log.left_open == 0


async def test_hooks_are_told() -> None:
    log, told = MemberLog(), list[Event]()
    async with Session(hooks=[told.append]) as session:
        await group_of(log, slow(0)).resolve(session)
    finished = [event for event in told if isinstance(event, ResolutionFinished)]
    assert [(event.manifests, event.error) for event in finished] == [(28, None)]


async def test_many_groups_in_one_session() -> None:
    """A session serves many tasks at once."""
    log = MemberLog()
    async with Session(lookahead=4) as session, asyncio.TaskGroup() as tasks:
        plans = [tasks.create_task(group_of(log, slow(n % 3)).resolve(session)) for n in range(20)]
    assert len({plan.result().to_json() for plan in plans}) == 1
    assert log.left_open == 0


# Memory


@pytest.mark.parametrize("late", [0, 5])
@pytest.mark.parametrize("room", [0, 1, 3, 10])
async def test_X17_what_is_in_flight_and_what_waits_is_bounded_by_bytes(
    monkeypatch: pytest.MonkeyPatch, room: int, late: int
) -> None:
    """The head is always read, and counts; others only as far as there is room for their bytes."""
    log, asked, behind = MemberLog(), set[str | None](), list[int]()
    original = UnreadManifest.parse_as

    def parse(self: UnreadManifest, *args: Any, **options: Any) -> object:
        if self.digest == IMAGES[late].digest:
            behind.append(sum(image.digest in asked for image in IMAGES[late + 1 :]))
        return original(self, *args, **options)

    def turns(_: str, digest: str | None) -> int:
        asked.add(digest)
        return 500 if digest == IMAGES[late].digest else 1

    monkeypatch.setattr(UnreadManifest, "parse_as", parse)
    top = Member("top", log, hold("top", TOP), turns=turns)
    bounds = Bounds(read_ahead=room * max(len(image.raw) for image in IMAGES))
    async with Session(lookahead=64) as session:
        resolved = await resolve(Members.of([top]), AllImages(), session, bounds=bounds)
        for source in resolved.sources.values():
            await source.aclose()
    # All that there was room for had been read before the late one was committed, and no more.
    assert behind == [max(room - 1, 0)]
    assert log.peak <= max(room, 1)


async def test_X17_what_waits_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    log, parsed = MemberLog(), list[str]()
    original = UnreadManifest.parse_as

    def parse(self: UnreadManifest, *args: Any, **options: Any) -> object:
        parsed.append(self.digest)
        if self.digest in [image.digest for image in IMAGES[1:]]:
            assert log.flying == 0, "the second image, which is late, has not arrived"
        return original(self, *args, **options)

    monkeypatch.setattr(UnreadManifest, "parse_as", parse)

    def turns(name: str, digest: str | None) -> int:
        return 300 if digest == IMAGES[1].digest else 1

    top = Member("top", log, hold("top", TOP), turns=turns)
    async with Session(lookahead=64) as session:
        await supplement(top).resolve(session)
    assert parsed == [image.digest for image in IMAGES]


async def test_X17_descriptors_are_weighed() -> None:
    reference = hold("top", TOP)
    parsed = Manifest.verified(TOP.raw, None, None).parse_index()
    blobs = [blob for image in IMAGES for blob in image_of(image).blobs]
    weight = weigh(parsed.manifests) + weigh(blobs)
    for memory, fits in ((weight, True), (weight - 1, False)):
        async with Session() as session:
            group = resolve(
                Members.of([reference]), AllImages(), session, bounds=Bounds(memory=memory)
            )
            if fits:
                for source in (await group).sources.values():
                    await source.aclose()
            else:
                with pytest.raises(LimitExceededError) as caught:
                    await group
                assert caught.value.limit == memory


def image_of(built: BuiltImage) -> ImageManifest:
    return Manifest.verified(built.raw, None, None).parse_image()
