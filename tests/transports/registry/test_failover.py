"""Failover over real sockets: whatever one member of a group does, the blob comes whole."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest

from asupplemented.abc import Served, Timeouts
from asupplemented.aio.breaker import BreakerState
from asupplemented.blobs import failover
from asupplemented.blobs.health import health_of
from asupplemented.errors import (
    ClosedError,
    DigestMismatchError,
    FailoverError,
    ForbiddenError,
    NetworkError,
    ServerError,
    SupplementedError,
    TooManyRequestsError,
    UnauthorizedError,
)
from asupplemented.events import AttemptFailed, BlobServed, BlobStarted, RequestRetried
from asupplemented.supplemented import supplement
from asupplemented.testing import (
    Authority,
    Chunked,
    CloseDelimited,
    Corrupt,
    Cut,
    Encoding,
    Endless,
    FakeRegistry,
    Headers,
    Html,
    IgnoreRange,
    Raw,
    Redirect,
    Resize,
    Stall,
    Status,
    Unauthorized,
    WrongRange,
    build_image,
    write_directory,
    write_layout,
)
from tests.suspending import cancel_at_every_await, count_open_files
from tests.transports.registry.raw_servers import free_port
from tests.transports.registry.sessions import OPTIONS_HERE, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from asupplemented.abc import BlobStream
    from asupplemented.testing.recorder import Turn
    from tests.transports.registry.sessions import Watched

LAYER = bytes(range(256)) * 80
SIZE = len(LAYER)
IMAGE = build_image("linux/amd64", [LAYER])
BLOB = IMAGE.layers[0]
DATA = IMAGE.blobs[BLOB]
AT = 9000
"""Where in the middle things break."""
ETAG = f'"{BLOB}"'


class Members(NamedTuple):
    """A group whose last member is asked first."""

    top: str
    rescuer: str
    faulty: str


@pytest.fixture
async def brief(request: pytest.FixtureRequest) -> AsyncIterator[Watched]:
    """A session that does not wait for long where a body stalls.

    Bodies are received past aiohttp, but through it where the rescuer is a layout: so each fault
    meets both ways.
    """
    callspec = getattr(request.node, "callspec", None)
    through_aiohttp = callspec is not None and callspec.params.get("members") == "oci"
    options = replace(OPTIONS_HERE, take_over=None if through_aiohttp else 1)
    async with watch(options=options, timeouts=Timeouts(stall=0.5)) as opened:
        yield opened


@pytest.fixture(params=["small", "large"])
def held_back(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the blob counts as small, and so is verified before its first byte."""
    small = request.param == "small"
    monkeypatch.setattr(failover, "SMALL_BLOB", 1 << 20 if small else -1)
    return small


@pytest.fixture(params=["registry", "oci", "dir"])
def members(
    request: pytest.FixtureRequest, registry: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> Members:
    """A registry that will fail, and somebody of each kind who goes on."""
    match request.param:
        case "registry":
            rescuer = other.add("mirror/app", IMAGE)
        case "oci":
            rescuer = write_layout(tmp_path / "layout", IMAGE, name="app")
        case _:
            rescuer = write_directory(tmp_path / "directory", IMAGE)
    top = other.add("top/app", IMAGE, omit={BLOB})
    return Members(top, rescuer, registry.add("team/app", IMAGE))


async def read(
    watched: Watched, members: Sequence[str], *, shared: bool = True
) -> tuple[bytes, BlobStream]:
    async with supplement(*members).open(watched.session) as image:
        stream = image.open_blob(BLOB, shared=shared)
        async with stream:
            data = b"".join([chunk async for chunk in stream])
    return data, stream


BEFORE: dict[str, Turn] = {
    "404": Status(404),
    "410": Status(410),
    "416": Status(416),
    "429": Status(429),
    "429 for longer than anybody waits": Status(429, {"Retry-After": "100000"}),
    "500": Status(500),
    "502": Status(502),
    "503": Status(503),
    "401": Unauthorized(challenge='Basic realm="x"'),
    "403": Status(403),
    "a page for people": Html(404),
    "no answer, fin": Cut(after=None),
    "no answer, rst": Cut(after=None, how="rst"),
    "no http": Raw(b"\x00\x01\x02"),
    "a shorter blob": Resize(-1),
    "a longer blob": Resize(SIZE * 2),
    "a compressed body": Encoding("gzip"),
    "a redirect to nobody": Redirect(f"http://127.0.0.1:{free_port()}/x"),
}


@pytest.mark.parametrize("fault", BEFORE.values(), ids=BEFORE)
async def test_before_the_first_byte_the_next_member_is_asked(
    registry: FakeRegistry, brief: Watched, members: Members, fault: Turn
) -> None:
    script = registry.script(BLOB, fault, forever=True, method="GET")
    data, stream = await read(brief, members)
    assert data == DATA
    assert stream.verified is True
    assert stream.served == (Served(members.rescuer, 1, 0, len(DATA)),)
    assert script.hits >= 1
    [failed] = brief.told(AttemptFailed)
    assert (failed.member, failed.reference) == (2, members.faulty)


async def test_a_certificate_that_nobody_trusts(
    registry: FakeRegistry, brief: Watched, members: Members
) -> None:
    async with FakeRegistry(tls=Authority().server_context()) as untrusted:
        elsewhere = untrusted.put_file("/layer", DATA).replace("127.0.0.1", "localhost")
        registry.script(BLOB, Redirect(elsewhere), forever=True)
        data, stream = await read(brief, members)
        assert data == DATA
        assert stream.member == 1
        [failed] = brief.told(AttemptFailed)
        assert "certificate" in failed.message
        assert untrusted.requests == []


async def test_a_registry_that_is_gone(brief: Watched, members: Members) -> None:
    async with FakeRegistry() as dying:
        faulty = dying.add("team/app", IMAGE)
        image = await supplement(*members[:2], faulty).open(brief.session)
    async with image, image.open_blob(BLOB) as stream:
        assert await stream.read_all(1 << 20) == DATA
        assert stream.member == 1


HALF = (Cut(after=AT, how="rst"),)
MIDDLE: dict[str, tuple[Turn, ...]] = {
    "rst, and rst": (HALF, Cut(after=100, how="rst")),
    "fin, and fin": (Cut(after=AT), Cut(after=100)),
    "fin of a chunked body": ((Chunked(1000), Cut(after=AT)), Status(503)),
    "fin of a body without length": ((CloseDelimited(), Cut(after=AT)), Status(503)),
    "rst, and nobody there": (HALF, Cut(after=None, how="rst")),
    "stall": (Stall(after=AT), Stall(after=0)),
    "short": ((Resize(AT), Chunked(1000)), Status(503)),
    "416 for the rest": (HALF, Status(416)),
    "404 for the rest": (HALF, Status(404)),
    "401 for the rest": (HALF, Unauthorized(challenge='Basic realm="x"')),
    "503 for the rest": (HALF, Status(503)),
    "another range": (HALF, WrongRange(-1)),
    "a range that is too late": (HALF, WrongRange(1)),
    "no word on which range": (HALF, Headers({"Content-Range": None})),
    "another size": (HALF, Headers({"Content-Range": f"bytes {AT}-{SIZE}/{SIZE + 1}"})),
    "another validator": (HALF, Headers({"ETag": '"changed"'})),
    "another validator on the whole": (HALF, (IgnoreRange(), Headers({"ETag": '"changed"'}))),
}


@pytest.mark.parametrize("turns", MIDDLE.values(), ids=MIDDLE)
async def test_in_the_middle_another_member_goes_on_at_the_same_byte(
    registry: FakeRegistry,
    brief: Watched,
    members: Members,
    turns: tuple[Turn, ...],
    *,
    held_back: bool,
) -> None:
    registry.script(BLOB, *turns, forever=True)
    data, stream = await read(brief, members)
    assert data == DATA
    assert stream.verified is True
    before, after = stream.served
    assert (before.member, before.start, after.member, after.end) == (2, 0, 1, len(DATA))
    assert before.end == after.start >= AT
    assert [(e.member, e.end) for e in brief.told(BlobServed)][-1] == (1, len(DATA))
    assert [e.member for e in brief.told(BlobStarted)][-1] == 1
    assert {e.member for e in brief.told(AttemptFailed)} == {2}
    assert registry.in_flight == 0


MENDED: dict[str, tuple[Turn, ...]] = {
    "rst": HALF,
    "fin": (Cut(after=AT),),
    "stall": (Stall(after=AT),),
    "the whole for the rest": (HALF[0], IgnoreRange()),
    "without a validator": ((HALF[0], Headers({"ETag": None})), None),
    "a total that is not known": (
        HALF[0],
        Headers({"Content-Range": f"bytes {AT}-{len(DATA) - 1}/*"}),
    ),
}


@pytest.mark.parametrize("turns", MENDED.values(), ids=MENDED)
async def test_RES01_what_the_same_member_can_mend_nobody_else_is_asked_for(
    registry: FakeRegistry,
    brief: Watched,
    members: Members,
    turns: tuple[Turn, ...],
    *,
    held_back: bool,
) -> None:
    registry.script(BLOB, *turns)
    data, stream = await read(brief, members)
    assert data == DATA
    assert stream.served == (Served(members.faulty, 2, 0, len(DATA)),)
    assert registry.count(BLOB) == len(turns) + (turns[-1] is not None and len(turns) < 2)
    rest = registry.requests[-1]
    assert rest.header("Range") == f"bytes={AT}-{len(DATA) - 1}"
    assert rest.header("If-Range") in {ETAG, None}
    assert 1.0 <= brief.clock.slept[0] <= 1.1
    assert health_of(brief.session).state(members.faulty) is BreakerState.CLOSED


LIES: dict[str, Turn] = {
    "early": Corrupt(at=1),
    "in the middle": Corrupt(at=AT),
    "the last byte": Corrupt(at=-1),
    "early, and cut": (Corrupt(at=1), Cut(after=AT)),
    "longer than it said": (Resize(SIZE * 2), Chunked(1000)),
    "endless": Endless(b"x" * 512),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_a_wrong_byte_never_completes_a_blob(
    registry: FakeRegistry, brief: Watched, members: Members, lie: Turn, *, held_back: bool
) -> None:
    registry.script(BLOB, lie, forever=True)
    async with supplement(*members).open(brief.session) as image:
        async with image.open_blob(BLOB, shared=False) as stream:
            received = bytearray()
            with suppress(DigestMismatchError):
                async for chunk in stream:
                    received += chunk
        assert (received == DATA) is stream.verified
        assert stream.verified or len(received) < len(DATA)
        assert stream.verified or 2 in {part.member for part in stream.served}
        if held_back:
            assert stream.verified
            assert stream.served == (Served(members.rescuer, 1, 0, len(DATA)),)
        # The source of wrong content is asked last, so the next reader notices nothing.
        asked = registry.count(BLOB)
        async with image.open_blob(BLOB) as again:
            assert await again.read_all(1 << 20) == DATA
        assert registry.count(BLOB) == asked


async def test_an_open_image_explains_which_members_are_asked_last(
    registry: FakeRegistry, brief: Watched, members: Members
) -> None:
    async with supplement(*members).open(brief.session) as image:
        assert image.explain(BLOB) == image.resolution.explain(BLOB)
        registry.script(BLOB, Status(404), forever=True)
        async with image.open_blob(BLOB) as stream:
            await stream.read_all(1 << 20)
        assert image.explain(BLOB) == image.resolution.explain(BLOB)
        registry.clear_scripts()
        registry.script(BLOB, Resize(-1), forever=True)
        async with image.open_blob(BLOB) as stream:
            await stream.read_all(1 << 20)
        brief.clock.time += 20
        lines = str(image.explain(BLOB)).splitlines()
        assert lines[1].startswith(f"  1. member 2 ({members.faulty})")
        assert lines[1].endswith("; asked last for 280 s")
        assert "asked last" not in "".join(lines[2:])
        assert image.explain(IMAGE.digest) == image.resolution.explain(IMAGE.digest)
    with pytest.raises(ClosedError):
        image.explain(BLOB)


@pytest.mark.parametrize("status", [429, 503, 520, 524, 529])
async def test_RET06_a_busy_source_is_left_at_once_and_its_pause_remembered(
    registry: FakeRegistry, brief: Watched, members: Members, status: int
) -> None:
    script = registry.script(BLOB, Status(status, {"Retry-After": "61"}), forever=True)
    for _ in range(2):
        _, stream = await read(brief, members)
        assert stream.member == 1
    assert script.hits == 1
    assert brief.clock.slept == []
    assert health_of(brief.session).state(members.faulty) is BreakerState.OPEN
    brief.clock.time += 60.9
    assert health_of(brief.session).state(members.faulty) is BreakerState.OPEN


async def test_an_authentication_failure_is_the_error_only_if_nobody_serves(
    registry: FakeRegistry, other: FakeRegistry, brief: Watched
) -> None:
    group = (other.add("top/app", IMAGE), registry.add("team/app", IMAGE))
    registry.script(BLOB, Status(403), forever=True)
    data, stream = await read(brief, group)
    assert (data, stream.member) == (DATA, 0)
    other.script(BLOB, Status(404), forever=True)
    with pytest.raises(ForbiddenError) as caught:
        await read(brief, group)
    assert (caught.value.member, caught.value.reference) == (1, group[1])
    assert "another attempt failed as well" in caught.value.__notes__[0]


async def test_when_nobody_serves_every_attempt_is_told(
    registry: FakeRegistry, other: FakeRegistry, brief: Watched, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "layout", IMAGE, name="app", omit={BLOB})
    group = (
        other.add("top/app", IMAGE),
        layout,
        other.add("third/app", IMAGE),
        registry.add("team/app", IMAGE),
    )
    registry.script(BLOB, *HALF, Status(500), forever=True)
    other.script(f"/v2/third/app/blobs/{BLOB}", Status(401), forever=True)
    other.script(f"/v2/top/app/blobs/{BLOB}", Status(429, {"Retry-After": "999"}), forever=True)
    with pytest.raises(FailoverError) as caught:
        await read(brief, group)
    told = [(type(each), each.member) for each in caught.value.attempts]
    assert [member for _, member in told] == [3, 3, 2, 1, 0, 3]
    kinds = [kind for kind, _ in told]
    assert kinds[1:3] == [ServerError, UnauthorizedError]
    assert kinds[4:] == [TooManyRequestsError, ServerError]
    assert caught.value.received == AT
    assert caught.value.digest == BLOB
    assert all(reference in str(caught.value) for reference in group)


async def test_three_kinds_of_members_make_one_blob(
    registry: FakeRegistry,
    other: FakeRegistry,
    brief: Watched,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failover, "SMALL_BLOB", -1)
    for how in ("fin", "rst"):
        brief.clock.time += 1000
        registry.clear_scripts()
        other.clear_scripts()
        directory = write_directory(tmp_path / how, IMAGE)
        group = (directory, other.add("b/app", IMAGE), registry.add("a/app", IMAGE))
        registry.script(BLOB, Cut(after=5000, how=how), Status(404))  # type: ignore[arg-type]
        other.script(BLOB, Cut(after=6000, how=how), Status(503), forever=True)  # type: ignore[arg-type]
        data, stream = await read(brief, group)
        assert data == DATA
        assert stream.served == (
            Served(group[2], 2, 0, 5000),
            Served(group[1], 1, 5000, 11_000),
            Served(directory, 0, 11_000, len(DATA)),
        )


async def test_a_range_is_gone_on_with_by_others(
    registry: FakeRegistry, brief: Watched, members: Members
) -> None:
    registry.script(BLOB, Cut(after=500), Status(503), forever=True)
    async with (
        supplement(*members).open(brief.session) as image,
        image.open_blob(BLOB, start=1000, end=3000) as part,
    ):
        assert await part.read_all(1 << 20) == DATA[1000:3000]
        assert part.served == (
            Served(members.faulty, 2, 1000, 1500),
            Served(members.rescuer, 1, 1500, 3000),
        )
        assert part.verified is False


async def test_many_readers_of_a_member_that_dies_all_get_their_bytes(
    registry: FakeRegistry, brief: Watched, members: Members, *, held_back: bool
) -> None:
    registry.script(BLOB, *([Cut(after=AT, how="rst")] * 12), Status(503), forever=True)
    async with supplement(*members).open(brief.session) as image:

        async def fetch() -> bytes:
            async with image.open_blob(BLOB) as stream:
                return await stream.read_all(1 << 20)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fetch()) for _ in range(20)]
    assert all(task.result() == DATA for task in tasks)
    assert registry.in_flight == 0


@pytest.mark.parametrize("take_over", [None, 1])
async def test_SEC16_cancelled_anywhere_nothing_stays_open(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path, take_over: int | None
) -> None:
    members = (
        write_layout(tmp_path / "layout", IMAGE, name="app"),
        other.add("b/app", IMAGE),
        registry.add("a/app", IMAGE),
    )

    async def run() -> None:
        registry.script(BLOB, Cut(after=AT, how="rst"), Status(404))
        other.script(BLOB, (Cut(after=AT), Headers({"ETag": None})), Status(404))
        options = replace(OPTIONS_HERE, take_over=take_over)
        async with watch(options=options) as watched:  # which checks that nothing is held
            try:
                data, _ = await read(watched, members, shared=False)
            finally:
                registry.clear_scripts()
                other.clear_scripts()
            assert data == DATA

    before = count_open_files()

    async def check() -> None:
        async with asyncio.timeout(5):
            await registry.wait_until(lambda: registry.in_flight == 0)
            await other.wait_until(lambda: other.in_flight == 0)
            while count_open_files() > before:  # noqa: ASYNC110 - those of the servers
                await asyncio.sleep(0)

    awaits = await cancel_at_every_await(run, check)
    assert awaits >= 15


async def test_errors_and_events_tell_no_secret(
    registry: FakeRegistry, other: FakeRegistry, brief: Watched
) -> None:
    url = other.put_file("/layer", DATA) + "?X-Signature=hush"
    other.script("/layer", Cut(after=AT, how="rst"), Status(503), forever=True)
    registry.script(BLOB, Redirect(url), forever=True)
    group = (registry.add("team/app", IMAGE), registry.add("mirror/app", IMAGE))
    with pytest.raises(SupplementedError) as caught:
        await read(brief, group)
    told = repr(brief.events) + repr(caught.value) + str(caught.value)
    assert isinstance(caught.value, FailoverError)
    assert "hush" not in told + "".join(map(str, caught.value.attempts))
    assert brief.told(RequestRetried)
    assert isinstance(caught.value.__cause__, NetworkError | ServerError | EOFError)


# Haste


async def test_RET06_a_registry_that_is_not_the_only_one_does_not_keep_anybody_waiting(
    registry: FakeRegistry, brief: Watched, members: Members
) -> None:
    script = registry.script(BLOB, Status(502), forever=True)
    _, stream = await read(brief, members)
    assert stream.member == 1
    assert script.hits == 2
    assert sum(brief.clock.slept) <= 2


async def test_RET06_when_nobody_else_serves_it_is_asked_with_all_patience(
    registry: FakeRegistry, other: FakeRegistry, brief: Watched
) -> None:
    group = (other.add("top/app", IMAGE, omit={BLOB}), registry.add("team/app", IMAGE))
    script = registry.script(BLOB, *([Status(502)] * 6))
    data, stream = await read(brief, group)
    assert (data, stream.member) == (DATA, 1)
    assert (script.hits, script.remaining) == (6, 0)
    assert registry.count(BLOB) == 7


async def test_RET06_a_pause_for_all_is_not_waited_for_while_others_serve(
    registry: FakeRegistry, brief: Watched, members: Members
) -> None:
    async with supplement(*members).open(brief.session) as image:
        [client] = [c for c in brief.pool._clients.values() if c.registry == registry.host]
        client.limiter.pause(30)
        async with image.open_blob(BLOB) as stream:
            assert await stream.read_all(1 << 20) == DATA
            assert stream.member == 1
    assert brief.clock.slept == []
    assert health_of(brief.session).state(members.faulty) is BreakerState.OPEN
