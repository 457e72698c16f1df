"""Several ranges of a blob in one request: how they come, and what may be wrong with them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from asupplemented.abc import Ranged, RawPart, RawParts, Timeouts
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    ForbiddenError,
    InvalidDigestError,
    LimitExceededError,
    MalformedResponseError,
    NetworkError,
    RangeError,
    ServerError,
    SizeMismatchError,
    SourceTimeoutError,
    TruncatedError,
    UnsupportedOperationError,
    UsageError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import DOCKER_FOREIGN_LAYER
from asupplemented.testing import (
    Chunked,
    CloseDelimited,
    Cut,
    FakeRegistry,
    Headers,
    IgnoreRange,
    Redirect,
    Resize,
    Slow,
    Stall,
    Status,
)
from asupplemented.transports.registry.adapter import RegistryAdapter
from tests.suspending import cancel_at_every_await, settle
from tests.transports.registry.sessions import BLOB, OPTIONS_HERE, fill, limited, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asupplemented.abc import Source
    from asupplemented.testing import Answer, Request
    from tests.transports.registry.sessions import Watched

DIGEST = Digest.of(BLOB)
SIZE = len(BLOB)
SIZED = Descriptor(digest=DIGEST, size=SIZE)
UNSIZED = Descriptor(digest=DIGEST)
BLOBS = "*/blobs/*"
RANGES = [(0, 10), (10, 12), (5000, 6000), (SIZE - 3, SIZE)]
WHOLE = Headers({"Content-Type": "application/octet-stream"})


@pytest.fixture
async def source(registry: FakeRegistry, watched: Watched) -> AsyncIterator[Source]:
    async with await watched.open(fill(registry)) as opened:
        yield opened


async def collect(part: RawPart) -> bytes:
    chunks = [chunk async for chunk in part]
    assert all(chunks)
    return b"".join(chunks)


async def read(parts: RawParts) -> list[bytes]:
    async with parts as opened:
        return [await collect(part) async for part in opened]


def cut(ranges: Sequence[tuple[int, int | None]]) -> list[bytes]:
    return [BLOB[start:end] for start, end in ranges]


def test_a_registry_reads_ranges() -> None:
    assert issubclass(RegistryAdapter, Ranged)


@pytest.mark.parametrize("blob", [SIZED, UNSIZED, DIGEST, str(DIGEST)])
@pytest.mark.parametrize(
    ("ranges", "header"),
    [
        (RANGES, f"bytes=0-9,10-11,5000-5999,{SIZE - 3}-{SIZE - 1}"),
        ([(5, 10)], "bytes=5-9"),
        ([(5, 10), (20, 21)], "bytes=5-9,20-20"),
    ],
)
async def test_PART01_one_request_for_all(
    registry: FakeRegistry,
    source: Source,
    blob: Any,
    ranges: list[tuple[int, int | None]],
    header: str,
) -> None:
    before = len(registry.requests)
    assert await read(source.open_parts(blob, ranges)) == cut(ranges)
    [request] = registry.requests[before:]
    assert request.header("Range") == header


@pytest.mark.parametrize("ranges", [[(7, None)], [(0, 1), (7, None)], [(0, None)]])
@pytest.mark.parametrize("blob", [SIZED, UNSIZED])
@pytest.mark.parametrize("fault", [None, IgnoreRange(), (IgnoreRange(), WHOLE), Chunked(100)])
async def test_PART01_the_last_one_may_go_to_the_end(
    registry: FakeRegistry,
    source: Source,
    blob: Descriptor,
    ranges: list[tuple[int, int | None]],
    fault: Any,
) -> None:
    registry.script(BLOBS, fault)
    assert await read(source.open_parts(blob, ranges)) == cut(ranges)
    last = f"{SIZE - 1}" if blob is SIZED else ""
    assert (registry.requests[-1].header("Range") or "").endswith(f"-{last}")


async def test_parts_say_which_they_are(registry: FakeRegistry, source: Source) -> None:
    for blob in (SIZED, UNSIZED):
        async with source.open_parts(blob, [(1, 3), (9, SIZE + 50)]) as parts:
            assert parts.size == (SIZE if blob is SIZED else None)
            assert [(part.start, part.end) async for part in parts] == [(1, 3), (9, SIZE)]
            assert parts.size == SIZE


@pytest.mark.parametrize(
    "ranges",
    [
        [],
        [(5, 5)],
        [(5, 4)],
        [(-1, 4)],
        [(0, 5), (4, 6)],
        [(5, 6), (0, 1)],
        [(0, None), (7, 8)],
        [(0, None), (7, None)],
        [(SIZE, None)],
        [(0, 1), (SIZE, SIZE + 1)],
    ],
)
async def test_PART01_ranges_that_are_none_are_refused(
    registry: FakeRegistry, source: Source, ranges: list[tuple[int, int | None]]
) -> None:
    before = len(registry.requests)
    with pytest.raises(RangeError) as caught:
        source.open_parts(SIZED, ranges)
    assert caught.value.digest == DIGEST
    assert caught.value.reference == str(source.reference)
    assert len(registry.requests) == before


async def test_PART01_ranges_have_a_limit(registry: FakeRegistry) -> None:
    ranges = [(n * 3, n * 3 + 1) for n in range(5)]
    async with (
        watch(options=limited(parts=4)) as watched,
        await watched.open(fill(registry)) as source,
    ):
        assert await read(source.open_parts(SIZED, ranges[:4])) == cut(ranges[:4])
        with pytest.raises(LimitExceededError) as caught:
            source.open_parts(SIZED, ranges)
        assert caught.value.limit == 4


async def test_PART01_what_may_be_elsewhere_is_read_whole(registry: FakeRegistry) -> None:
    blob = Descriptor(
        digest=DIGEST, media_type=DOCKER_FOREIGN_LAYER, urls=("https://host.example/x",)
    )
    options = replace(OPTIONS_HERE, allow_external_urls=True)
    async with watch(options=options) as watched, await watched.open(fill(registry)) as source:
        with pytest.raises(UnsupportedOperationError):
            source.open_parts(blob, [(0, 1)])


@pytest.mark.parametrize("digest", ["", "latest", "sha256:../../x"])
async def test_SEC03_what_is_no_digest_is_refused(source: Source, digest: str) -> None:
    for blob in (digest, Descriptor(digest=digest)):
        with pytest.raises(InvalidDigestError):
            source.open_parts(blob, [(0, 1)])


# How they come


@pytest.mark.parametrize(
    "fault", [IgnoreRange(), (IgnoreRange(), Chunked(700)), (IgnoreRange(), CloseDelimited())]
)
async def test_PART02_parts_are_cut_from_the_whole(
    registry: FakeRegistry, source: Source, fault: Any
) -> None:
    registry.script(BLOBS, fault)
    assert await read(source.open_parts(UNSIZED, RANGES)) == cut(RANGES)


@pytest.mark.parametrize(("limit", "passes"), [(989, True), (988, False)])
async def test_PART02_RES06_not_too_much_is_passed_over(
    registry: FakeRegistry, limit: int, *, passes: bool
) -> None:
    registry.script(BLOBS, IgnoreRange())
    ranges = [(10, 20), (999, 1000)]
    async with (
        watch(options=limited(discard=limit)) as watched,
        await watched.open(fill(registry)) as source,
    ):
        if passes:
            assert await read(source.open_parts(SIZED, ranges)) == cut(ranges)
        else:
            with pytest.raises(UnsupportedOperationError, match="989 bytes would be skipped"):
                await read(source.open_parts(SIZED, ranges))


async def test_PART02_the_whole_may_be_shorter_than_was_hoped(
    registry: FakeRegistry, source: Source
) -> None:
    registry.script(BLOBS, IgnoreRange(), IgnoreRange())
    assert await read(source.open_parts(UNSIZED, [(5, SIZE + 100)])) == [BLOB[5:]]
    with pytest.raises(RangeError):
        await read(source.open_parts(UNSIZED, [(5, 6), (SIZE, SIZE + 100)]))


@pytest.mark.parametrize("framing", [(), Chunked(1), Chunked(999), CloseDelimited()])
async def test_PART02_parts_of_a_body_of_parts(
    registry: FakeRegistry, source: Source, framing: Any
) -> None:
    ranges = [(0, 3), (5, 8)] if framing == Chunked(1) else RANGES
    registry.script(BLOBS, framing)
    assert await read(source.open_parts(SIZED, ranges)) == cut(ranges)


async def test_PART02_one_part_may_come_as_a_body_of_parts(
    registry: FakeRegistry, source: Source
) -> None:
    registry.script(BLOBS, partial(send_parts, [(5, 10)]))
    assert await read(source.open_parts(SIZED, [(5, 10)])) == [BLOB[5:10]]


def send_parts(ranges: Sequence[tuple[int, int]], answer: Answer, _request: Request) -> Answer:
    """Send some parts, whatever was asked for."""
    body = b""
    for start, end in ranges:
        body += f"\r\n--sep\r\nContent-Range: bytes {start}-{end - 1}/{SIZE}\r\n\r\n".encode()
        body += BLOB[start:end]
    media_type = "multipart/byteranges; boundary=sep"
    changes = {"Content-Type": media_type, "Content-Range": None}
    answer = replace(answer, status=206, body=body + b"\r\n--sep--\r\n", whole=None)
    return answer.with_headers(changes)


@pytest.mark.parametrize(
    ("ranges", "fault"),
    [
        ([(0, 10), (20, 30), (40, 50)], "more parts"),
        ([(0, 10)], "fewer parts"),
        ([], "fewer parts"),
        ([(20, 30), (0, 10)], "another range"),
        ([(0, 10), (20, 29)], "another range"),
        ([(0, 10), (20, 31)], "another range"),
        ([(0, 10), (19, 30)], "another range"),
        ([(0, 30)], "another range"),
    ],
)
async def test_PART02_PART05_other_parts_are_refused(
    registry: FakeRegistry, source: Source, ranges: list[tuple[int, int]], fault: str
) -> None:
    registry.script(BLOBS, partial(send_parts, ranges))
    with pytest.raises(MalformedResponseError, match=fault) as caught:
        await read(source.open_parts(SIZED, [(0, 10), (20, 30)]))
    assert (caught.value.digest, caught.value.reference) == (DIGEST, str(source.reference))


@pytest.mark.parametrize(
    "value",
    [None, "", f"bytes 0-9/{SIZE}", f"bytes 0-29/{SIZE}", f"bytes 0-{SIZE - 1}/{SIZE}"],
)
async def test_PART02_one_stretch_for_several_ranges_is_refused(
    registry: FakeRegistry, source: Source, value: str | None
) -> None:
    changes = {"Content-Type": "application/octet-stream", "Content-Range": value}
    registry.script(BLOBS, Headers(changes))
    with pytest.raises(MalformedResponseError, match="which parts"):
        await read(source.open_parts(SIZED, [(0, 10), (20, 30)]))


@pytest.mark.parametrize(
    "value",
    [
        None,
        "bytes 5-9",
        f"bytes 4-8/{SIZE}",
        f"bytes 5-8/{SIZE}",
        f"bytes 5-10/{SIZE}",
        f"bytes +5-9/{SIZE}",
    ],
)
async def test_PART02_one_stretch_has_to_be_the_one_asked_for(
    registry: FakeRegistry, source: Source, value: str | None
) -> None:
    registry.script(BLOBS, Headers({"Content-Range": value}))
    with pytest.raises(MalformedResponseError):
        await read(source.open_parts(SIZED, [(5, 10)]))


@pytest.mark.parametrize("fault", [None, IgnoreRange(), partial(send_parts, [(0, 3), (5, 8)])])
async def test_BLOB05_another_size_is_refused(
    registry: FakeRegistry, source: Source, fault: Any
) -> None:
    registry.script(BLOBS, fault)
    with pytest.raises(SizeMismatchError) as caught:
        await read(source.open_parts(replace_size(SIZE - 1), [(0, 3), (5, 8)]))
    assert (caught.value.expected, caught.value.actual) == (SIZE - 1, SIZE)


def replace_size(size: int) -> Descriptor:
    return Descriptor(digest=DIGEST, size=size)


async def test_PART02_two_lengths_are_one_too_many(registry: FakeRegistry, source: Source) -> None:
    registry.script(BLOBS, Resize(3))
    with pytest.raises(MalformedResponseError, match="two different lengths"):
        await read(source.open_parts(SIZED, [(5, 10)]))


@pytest.mark.parametrize(
    "content_type",
    ["multipart/byteranges", 'multipart/byteranges; boundary="', "multipart/byteranges; boundary="],
)
async def test_PART02_parts_without_a_boundary_are_refused(
    registry: FakeRegistry, source: Source, content_type: str
) -> None:
    registry.script(BLOBS, Headers({"Content-Type": content_type}))
    with pytest.raises(MalformedResponseError, match="without naming the boundary"):
        await read(source.open_parts(SIZED, RANGES))


async def test_PART03_a_boundary_with_a_colon(registry: FakeRegistry, source: Source) -> None:
    def rename(answer: Answer, _request: Request) -> Answer:
        body = answer.body.replace(b"THIS_STRING_SEPARATES", b"CloudFront:3F75")
        media_type = "multipart/byteranges; boundary=CloudFront:3F75"
        return replace(answer, body=body).with_headers({"Content-Type": media_type})

    registry.script(BLOBS, rename)
    assert await read(source.open_parts(SIZED, RANGES)) == cut(RANGES)


async def test_PART05_malformed_parts_are_refused(registry: FakeRegistry, source: Source) -> None:
    def lie(answer: Answer, _request: Request) -> Answer:
        return replace(answer, body=answer.body.replace(b"bytes 0-9/", b"bytes 0-8/"))

    registry.script(BLOBS, lie)
    with pytest.raises(MalformedResponseError):
        await read(source.open_parts(SIZED, RANGES))


# What is not there, or not given


@pytest.mark.parametrize("code", [400, 416, 501])
async def test_PART04_ranges_that_are_refused_are_cut_from_the_whole(
    registry: FakeRegistry, source: Source, code: int
) -> None:
    registry.script(BLOBS, Status(code))
    assert await read(source.open_parts(SIZED, RANGES)) == cut(RANGES)
    assert [request.header("Range") is None for request in registry.select_requests(BLOBS)] == [
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(404), BlobNotFoundError),
        (Status(403), ForbiddenError),
        (Status(500), ServerError),
    ],
)
async def test_PART04_other_statuses_are_errors(
    registry: FakeRegistry, source: Source, fault: Any, error: type[Exception]
) -> None:
    registry.script(BLOBS, fault, forever=True)
    with pytest.raises(error):
        await read(source.open_parts(SIZED, RANGES))


async def test_REDIR04_parts_come_from_where_the_blob_is(
    registry: FakeRegistry, other: FakeRegistry, source: Source
) -> None:
    registry.script(BLOBS, Redirect(other.put_file("/storage", BLOB)))
    assert await read(source.open_parts(SIZED, RANGES)) == cut(RANGES)


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize(
    "faults", [(), (IgnoreRange(),), (Chunked(50),), (CloseDelimited(),)], ids=range(4)
)
async def test_RES01_parts_that_break_off_are_not_resumed(
    registry: FakeRegistry, source: Source, faults: tuple[Any, ...], how: Any
) -> None:
    registry.script(BLOBS, (*faults, Cut(after=5100, how=how)))
    async with source.open_parts(SIZED, [(0, 10), (4000, 9000)]) as parts:
        assert await collect(await anext(aiter(parts))) == BLOB[:10]
        second = await anext(aiter(parts))
        with pytest.raises((TruncatedError, NetworkError)) as caught:
            await collect(second)
        assert caught.value.received
        with pytest.raises(ClosedError):
            await anext(aiter(parts))
    assert registry.count(BLOBS) == 1


async def test_SEC07_parts_may_not_stall(registry: FakeRegistry) -> None:
    registry.script(BLOBS, Stall(after=150))
    async with (
        watch(timeouts=Timeouts(stall=0.5)) as watched,
        await watched.open(fill(registry)) as source,
    ):
        with pytest.raises(SourceTimeoutError):
            await read(source.open_parts(SIZED, RANGES))


async def test_SEC07_parts_may_not_trickle(registry: FakeRegistry) -> None:
    async with (
        watch(timeouts=Timeouts(stall=2.0, min_rate=1000)) as watched,
        await watched.open(fill(registry)) as source,
    ):
        permits = asyncio.Semaphore(0)
        registry.script(BLOBS, (IgnoreRange(), Slow(size=1, permits=permits)))
        async with source.open_parts(SIZED, [(0, 100)]) as parts:
            part = await anext(aiter(parts))

            async def receive_slowly() -> None:
                for _ in range(4):
                    reading = asyncio.ensure_future(anext(aiter(part)))
                    await settle()
                    watched.clock.time += 0.6
                    permits.release()
                    await reading

            with pytest.raises(SourceTimeoutError, match="too slow"):
                await receive_slowly()


# Reading them


async def test_PART05_what_is_not_read_is_passed_over(
    registry: FakeRegistry, source: Source
) -> None:
    for fault in (None, IgnoreRange()):
        registry.script(BLOBS, fault)
        async with source.open_parts(SIZED, RANGES) as parts:
            taken = aiter(parts)
            await anext(taken)
            second = await anext(taken)
            assert await anext(aiter(second)) == BLOB[10:12]
            await anext(taken)
            assert await collect(await anext(taken)) == BLOB[-3:]
            with pytest.raises(StopAsyncIteration):
                await anext(taken)
            with pytest.raises(StopAsyncIteration):
                await anext(taken)


async def test_PART05_a_part_is_read_before_the_next_one(source: Source) -> None:
    async with source.open_parts(SIZED, RANGES) as parts:
        first = await anext(aiter(parts))
        await anext(aiter(parts))
        with pytest.raises(ClosedError):
            await anext(aiter(first))
    with pytest.raises(ClosedError):
        await anext(aiter(parts))


async def test_parts_are_entered_once_and_read_within(source: Source) -> None:
    parts = source.open_parts(SIZED, RANGES)
    with pytest.raises(ClosedError):
        await anext(aiter(parts))
    async with parts:
        with pytest.raises(UsageError):
            await parts.__aenter__()
    with pytest.raises(UsageError):
        await parts.__aenter__()


async def test_PART05_leaving_early_hangs_up(registry: FakeRegistry, watched: Watched) -> None:
    registry.put_blob("team/app", bytes(20 << 20))
    big = Descriptor(digest=Digest.of(bytes(20 << 20)))
    async with await watched.open(fill(registry)) as source:
        async with source.open_parts(big, [(0, 1 << 20), (2 << 20, None)]) as parts:
            await anext(aiter(await anext(aiter(parts))))
        async with asyncio.timeout(5):
            await registry.wait_until(lambda: registry.abandoned == 1)


async def test_RET07_parts_take_the_place_of_one_body(
    registry: FakeRegistry, watched: Watched
) -> None:
    async with await watched.open(fill(registry)) as source:
        [client] = cast("Any", watched.pool)._clients.values()
        async with source.open_parts(SIZED, RANGES):
            assert client.limiter.bodies.in_use > 0
        assert client.limiter.bodies.in_use == 0
        registry.script(BLOBS, Status(404))
        with pytest.raises(BlobNotFoundError):
            await read(source.open_parts(SIZED, RANGES))
        assert client.limiter.bodies.in_use == 0


async def test_parts_read_to_the_end_leave_the_connection(
    registry: FakeRegistry, source: Source
) -> None:
    for _ in range(4):
        assert await read(source.open_parts(SIZED, RANGES)) == cut(RANGES)
    assert len({request.connection for request in registry.select_requests(BLOBS)}) == 1


async def test_a_closed_source_gives_no_parts(registry: FakeRegistry, watched: Watched) -> None:
    source = await watched.open(fill(registry))
    await source.aclose()
    with pytest.raises(ClosedError):
        source.open_parts(SIZED, RANGES)


@pytest.mark.parametrize("fault", [None, IgnoreRange()])
async def test_SEC16_cancelled_anywhere(
    registry: FakeRegistry, watched: Watched, fault: Any
) -> None:
    async with await watched.open(fill(registry)) as source:
        [client] = cast("Any", watched.pool)._clients.values()

        async def run() -> None:
            registry.clear_scripts()
            registry.script(BLOBS, (fault, Chunked(1000)) if fault else Chunked(1000))
            assert await read(source.open_parts(SIZED, RANGES)) == cut(RANGES)

        async def check() -> None:
            assert client.limiter.bodies.in_use == 0
            assert repr(watched.connections) == "<Connections: 0 requests wait for an answer>"

        assert await cancel_at_every_await(run, check) >= 2


async def test_a_source_that_reads_no_ranges_says_so(watched: Watched, tmp_path: Any) -> None:
    from asupplemented.testing import build_image, write_layout

    reference = write_layout(tmp_path / "x", build_image())
    async with await watched.open(reference) as source:
        with pytest.raises(UnsupportedOperationError) as caught:
            source.open_parts(SIZED, RANGES)
        assert caught.value.reference == reference
        with pytest.raises(UnsupportedOperationError):
            await source.get_referrers(DIGEST)
        with pytest.raises(InvalidDigestError):
            await source.get_referrers("x")
