"""Bodies of blobs: what is claimed, which part comes, and how they end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from asupplemented.abc import RawBlob, Timeouts
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    MalformedResponseError,
    NetworkError,
    RangeError,
    RegistryError,
    SizeMismatchError,
    SourceError,
    SourceTimeoutError,
    TruncatedError,
    UnexpectedStatusError,
    UsageError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.name import ImageName
from asupplemented.testing import (
    Chunked,
    CloseDelimited,
    ContentLength,
    Cut,
    FakeRegistry,
    Headers,
    IgnoreRange,
    Redirect,
    Resize,
    Stall,
    Status,
    WrongRange,
    build_image,
)
from asupplemented.transports.registry.reference import open_adapter
from tests.suspending import settle
from tests.transports.registry.sessions import (
    BLOB,
    BLOB_DIGEST,
    OPTIONS_HERE,
    fill,
    limited,
    watch,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextvars import Context

    from asupplemented.abc import Source
    from asupplemented.transports.registry.adapter import RegistryAdapter
    from tests.transports.registry.sessions import Watched

SIZE = len(BLOB)
SIZED = Descriptor(digest=BLOB_DIGEST, size=SIZE)
UNSIZED = Descriptor(digest=BLOB_DIGEST)
BLOBS = "*/blobs/*"


@pytest.fixture(params=[None, 1], ids=["aiohttp", "taken over"])
async def watched(request: pytest.FixtureRequest) -> AsyncIterator[Watched]:
    """A session that receives bodies through aiohttp, or past it."""
    async with watch(options=replace(OPTIONS_HERE, take_over=request.param)) as opened:
        yield opened


@pytest.fixture
async def adapter(registry: FakeRegistry, watched: Watched) -> AsyncIterator[RegistryAdapter]:
    fill(registry)
    name = ImageName.parse(f"{registry.host}/team/app")
    opened = await open_adapter(name, "docker://x", watched.session)
    yield opened
    await opened.aclose()


async def read(blob: RawBlob) -> bytes:
    data = b""
    async with blob as body:
        async for chunk in body:
            assert chunk
            data += chunk
    return data


async def read_until_error(blob: RawBlob) -> tuple[bytes, OSError]:
    data = b""
    async with blob as body:
        try:
            async for chunk in body:
                data += chunk
        except OSError as error:
            return data, error
    pytest.fail("it ended without an error")


async def test_BLOB04_the_size_is_what_is_claimed(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    registry.script(BLOBS, None, Chunked(1000), CloseDelimited())
    for size in (SIZE, None, None):
        blob = adapter.open_blob(UNSIZED)
        async with blob:
            assert (blob.start, blob.size) == (0, size)
        assert registry.requests[-1].header("Range") is None


@pytest.mark.parametrize("framing", [None, Chunked(1000), CloseDelimited()])
async def test_a_whole_body(
    registry: FakeRegistry, adapter: RegistryAdapter, framing: Chunked | None
) -> None:
    registry.script(BLOBS, framing)
    assert await read(adapter.open_blob(SIZED)) == BLOB


@pytest.mark.parametrize(
    ("blob", "start", "end", "header"),
    [
        (SIZED, 5, 10, "bytes=5-9"),
        (SIZED, 0, 10, "bytes=0-9"),
        (SIZED, 5, None, f"bytes=5-{SIZE - 1}"),
        (UNSIZED, 5, None, "bytes=5-"),
        (SIZED, SIZE - 1, None, f"bytes={SIZE - 1}-{SIZE - 1}"),
        (SIZED, 5, SIZE + 100, f"bytes=5-{SIZE + 99}"),
    ],
)
async def test_RES04_a_range_is_asked_for_and_checked(
    registry: FakeRegistry,
    adapter: RegistryAdapter,
    blob: Descriptor,
    start: int,
    end: int | None,
    header: str,
) -> None:
    body = adapter.open_blob(blob, start, end)
    assert await read(body) == BLOB[start:end]
    assert (body.start, body.size) == (start, SIZE)
    assert registry.requests[-1].header("Range") == header


async def test_RES05_a_total_may_be_unknown(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    registry.script(BLOBS, Headers({"Content-Range": "bytes 5-9/*"}))
    body = adapter.open_blob(UNSIZED, 5, 10)
    assert await read(body) == BLOB[5:10]
    assert body.size is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "bytes 5-9",
        f"bytes 4-8/{SIZE}",
        f"bytes 6-10/{SIZE}",
        f"bytes 5-8/{SIZE}",
        f"bytes 5-10/{SIZE}",
        "bytes 5-9/9",
        f"bytes +5-9/{SIZE}",
        f"bytes 5-9/{SIZE} ",
        f"items 5-9/{SIZE}",
    ],
)
async def test_RES05_another_range_is_refused(
    registry: FakeRegistry, adapter: RegistryAdapter, value: str | None
) -> None:
    registry.script(BLOBS, Headers({"Content-Range": value}))
    if value is not None and value.endswith(" "):
        assert await read(adapter.open_blob(SIZED, 5, 10)) == BLOB[5:10]  # HTTP drops the blank
        return
    with pytest.raises(MalformedResponseError) as caught:
        await read(adapter.open_blob(SIZED, 5, 10))
    assert caught.value.digest == BLOB_DIGEST
    assert caught.value.status == 206


async def test_RES05_a_range_to_the_end_ends_at_the_end(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    registry.script(BLOBS, Headers({"Content-Range": f"bytes 5-{SIZE - 2}/{SIZE}"}))
    with pytest.raises(MalformedResponseError, match="another range"):
        await read(adapter.open_blob(UNSIZED, 5))


async def test_RES05_the_length_and_the_range_agree(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    registry.script(BLOBS, Resize(3))
    with pytest.raises(MalformedResponseError, match="two different lengths"):
        await read(adapter.open_blob(SIZED, 5, 10))


@pytest.mark.parametrize("shift", [-1, 1])
async def test_RES05_a_shifted_range_is_refused(
    registry: FakeRegistry, adapter: RegistryAdapter, shift: int
) -> None:
    registry.script(BLOBS, WrongRange(shift))
    with pytest.raises(MalformedResponseError):
        await read(adapter.open_blob(SIZED, 5, 10))


async def test_RES06_the_whole_for_a_range_says_where_it_starts(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    registry.script(BLOBS, IgnoreRange())
    body = adapter.open_blob(SIZED, 5, 10)
    async with body:
        assert (body.start, body.size) == (0, SIZE)


async def test_RES06_the_stream_passes_over_what_was_not_asked_for(
    registry: FakeRegistry, watched: Watched
) -> None:
    registry.script(BLOBS, IgnoreRange())
    async with (
        await watched.open(fill(registry)) as source,
        source.open_blob(SIZED, start=5, end=10) as blob,
    ):
        assert await blob.read_all(100) == BLOB[5:10]


@pytest.mark.parametrize(
    ("etag", "kept"),
    [
        ('"abc"', '"abc"'),
        ('W/"abc"', None),
        ("abc", None),
        ('""', '""'),
        ('"a"b"', None),
        (None, None),
    ],
)
async def test_RES06_only_a_strong_validator_counts(
    registry: FakeRegistry, adapter: RegistryAdapter, etag: str | None, kept: str | None
) -> None:
    registry.script(BLOBS, Headers({"ETag": etag}))
    body = adapter.open_blob(SIZED)
    async with body:
        assert body.etag == kept


ETAG = f'"{BLOB_DIGEST}"'
"""What the registry says of the blob as it is."""


async def test_RES06_going_on_is_under_the_condition_that_it_is_the_same(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    begun = adapter.open_blob(SIZED)
    async with begun:
        assert begun.etag == ETAG
    body = adapter.open_blob(SIZED, 5, 10, begun.etag)
    assert await read(body) == BLOB[5:10]
    assert (body.start, body.size, body.etag) == (5, SIZE, ETAG)
    assert registry.requests[-1].header("If-Range") == ETAG
    assert registry.requests[-1].header("Range") == "bytes=5-9"


@pytest.mark.parametrize(
    "etag", [None, "", "abc", 'W/"abc"', '"abc', '"a"b"', '"a\r\nX-Evil: 1"', '"é"', '"a b"']
)
async def test_RES06_SEC09_what_is_no_strong_validator_is_not_sent(
    registry: FakeRegistry, adapter: RegistryAdapter, etag: str | None
) -> None:
    assert await read(adapter.open_blob(SIZED, 5, 10, etag)) == BLOB[5:10]
    request = registry.requests[-1]
    assert (request.header("If-Range"), request.header("X-Evil")) == (None, None)


async def test_RES06_the_whole_is_asked_for_without_conditions(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    assert await read(adapter.open_blob(SIZED, etag=ETAG)) == BLOB
    assert registry.requests[-1].header("If-Range") is None


async def test_RES06_what_has_changed_begins_at_its_start(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    body = adapter.open_blob(SIZED, 5, 10, '"before"')
    async with body:
        assert (body.start, body.size, body.etag) == (0, SIZE, ETAG)
        assert b"".join([chunk async for chunk in body]) == BLOB


async def test_RES06_a_server_without_ranges_is_told_by_where_it_begins(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    registry.script(BLOBS, IgnoreRange())
    body = adapter.open_blob(SIZED, 5, 10, ETAG)
    async with body:
        assert (body.start, body.etag) == (0, ETAG)


@pytest.mark.parametrize("etag", ['"other"', f"W/{ETAG}"])
async def test_RES06_a_part_of_something_else_is_refused(
    registry: FakeRegistry, adapter: RegistryAdapter, etag: str
) -> None:
    registry.script(BLOBS, Headers({"ETag": etag}))
    with pytest.raises(MalformedResponseError, match="another version") as caught:
        await read(adapter.open_blob(SIZED, 5, 10, ETAG))
    assert caught.value.status == 206


async def test_RES06_a_part_may_come_without_a_validator(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    registry.script(BLOBS, Headers({"ETag": None}))
    body = adapter.open_blob(SIZED, 5, 10, ETAG)
    assert await read(body) == BLOB[5:10]
    assert body.etag is None


async def test_RES06_an_empty_rest_needs_no_more_than_its_offset(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    body = adapter.open_blob(UNSIZED, SIZE, None, ETAG)
    assert await read(body) == b""
    assert body.size == SIZE
    with pytest.raises(RangeError):
        await read(adapter.open_blob(UNSIZED, SIZE + 1, None, ETAG))


@pytest.mark.parametrize("status", [203, 204, 304, 403, 412, 505])
async def test_RES05_no_other_status_is_an_answer_to_a_range(
    registry: FakeRegistry, adapter: RegistryAdapter, status: int
) -> None:
    registry.script(BLOBS, Status(status))
    with pytest.raises(RegistryError) as caught:
        await read(adapter.open_blob(SIZED, 5, 10, ETAG))
    assert caught.value.status == status


async def test_RES06_the_condition_goes_wherever_the_range_goes(
    registry: FakeRegistry, other: FakeRegistry, adapter: RegistryAdapter
) -> None:
    other.repository("x").blobs[BLOB_DIGEST] = BLOB
    registry.script(BLOBS, Redirect(f"{other.url}/v2/x/blobs/{BLOB_DIGEST}"))
    assert await read(adapter.open_blob(SIZED, 5, 10, ETAG)) == BLOB[5:10]
    [request] = other.requests
    assert (request.header("Range"), request.header("If-Range")) == ("bytes=5-9", ETAG)


@pytest.mark.parametrize("total", [SIZE - 1, SIZE + 1])
async def test_RES06_a_total_that_is_not_the_known_size_is_seen(
    registry: FakeRegistry, watched: Watched, total: int
) -> None:
    registry.script(BLOBS, Headers({"Content-Range": f"bytes 5-9/{total}"}))
    async with await watched.open(fill(registry)) as source:
        with pytest.raises(SizeMismatchError) as caught:
            async with source.open_blob(SIZED, start=5, end=10):
                pass
    assert (caught.value.expected, caught.value.actual) == (SIZE, total)


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_RES07_cut_anywhere_and_gone_on_with_nothing_is_lost_or_doubled(
    registry: FakeRegistry, adapter: RegistryAdapter, how: Literal["fin", "rst"]
) -> None:
    data = bytes(range(40))
    blob = Descriptor(digest=registry.put_blob("team/app", data), size=len(data))
    for offset in range(1, len(data)):
        registry.script(BLOBS, Cut(after=offset, how=how))
        begun = adapter.open_blob(blob)
        before, _ = await read_until_error(begun)
        rest = adapter.open_blob(blob, len(before), None, begun.etag)
        assert before + await read(rest) == data
        assert rest.start == len(before)
    assert registry.requests[-1].header("Range") == f"bytes={len(data) - 1}-{len(data) - 1}"


async def test_PART04_a_range_beyond_the_end(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    with pytest.raises(RangeError, match=f"of {SIZE} bytes") as caught:
        await read(adapter.open_blob(UNSIZED, SIZE + 1))
    assert caught.value.digest == BLOB_DIGEST


REFUSALS = {
    "400": Status(400, body=b"<Error/>"),
    "400, unknown": Status(400, body=b'{"errors":[{"code":"BLOB_UNKNOWN"}]}'),
    "501": Status(501),
    "416 without a size": Status(416),
    "416 within the size": Status(416, {"Content-Range": f"bytes */{SIZE}"}),
    "416 of nonsense": Status(416, {"Content-Range": "bytes 1-2/x"}),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("redirected", [False, True])
@pytest.mark.parametrize(("start", "end"), [(5, 10), (5, None), (0, 10), (SIZE - 1, None)])
async def test_RES05_a_range_that_is_refused_becomes_the_whole(
    registry: FakeRegistry,
    other: FakeRegistry,
    adapter: RegistryAdapter,
    refusal: Any,
    start: int,
    end: int | None,
    *,
    redirected: bool,
) -> None:
    refusing, path = registry, BLOBS
    if redirected:
        registry.script(BLOBS, Redirect(other.put_file("/storage", BLOB)), forever=True)
        refusing, path = other, "/storage"
    refusing.script(path, refusal)
    body = adapter.open_blob(UNSIZED, start, end, ETAG)
    async with body:
        data = b"".join([chunk async for chunk in body])
    assert (body.start, data) == (0, BLOB)
    assert [request.header("Range") is None for request in refusing.select_requests(path)] == [
        False,
        True,
    ]


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_RES05_but_not_if_too_many_bytes_would_be_skipped(
    registry: FakeRegistry, refusal: Any
) -> None:
    fill(registry)
    registry.script(BLOBS, refusal, forever=True)
    async with (
        watch(options=limited(discard=4)) as watched,
        await watched.open(registry.reference("team/app")) as source,
    ):
        with pytest.raises((RegistryError, RangeError, BlobNotFoundError)):
            async with source.open_blob(BLOB_DIGEST, start=5) as blob:
                await blob.read_all(SIZE)
    assert registry.count(BLOBS) == 1


async def read_part(source: Source, start: int, end: int | None) -> None:
    async with source.open_parts(BLOB_DIGEST, [(start, end)]) as parts:
        async for part in parts:
            assert [chunk async for chunk in part]


async def test_RES05_a_range_of_unknown_size_that_is_cut_is_an_error(
    registry: FakeRegistry, watched: Watched
) -> None:
    """Without a length nothing but the end of the connection says where the body ends."""
    fill(registry)
    cut = (IgnoreRange(), CloseDelimited(), Cut(after=SIZE - 2))
    async with await watched.open(registry.reference("team/app")) as source:
        for start, end in ((5, None), (5, SIZE - 1), (0, SIZE - 1)):
            registry.script(BLOBS, cut, forever=True)
            with pytest.raises(SourceError):
                async with source.open_blob(BLOB_DIGEST, start=start, end=end) as blob:
                    await blob.read_all(SIZE)
            with pytest.raises(TruncatedError):
                await read_part(source, start, end)
            registry.clear_scripts()
            registry.script(BLOBS, (IgnoreRange(), Chunked(50)))
            async with source.open_blob(BLOB_DIGEST, start=start, end=end) as blob:
                assert await blob.read_all(SIZE) == BLOB[start:end]


async def test_the_rest_after_the_last_byte_is_empty(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    body = adapter.open_blob(UNSIZED, SIZE)
    assert await read(body) == b""
    assert body.size == SIZE
    before = len(registry.requests)
    assert await read(adapter.open_blob(SIZED, 5, 5)) == b""
    assert len(registry.requests) == before


async def test_416_is_no_answer_to_a_whole_blob(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    registry.script(BLOBS, Status(416))
    with pytest.raises(UnexpectedStatusError):
        await read(adapter.open_blob(UNSIZED))


@pytest.mark.parametrize(("start", "end"), [(-1, None), (5, 4), (-5, -1)])
async def test_a_range_that_is_none_is_refused(
    adapter: RegistryAdapter, start: int, end: int | None
) -> None:
    with pytest.raises(RangeError):
        adapter.open_blob(SIZED, start, end)


async def test_BLOB08_an_empty_blob(registry: FakeRegistry, adapter: RegistryAdapter) -> None:
    empty = registry.put_blob("team/app", b"")
    body = adapter.open_blob(Descriptor(digest=empty, size=0))
    assert await read(body) == b""
    assert body.size == 0


async def test_a_missing_blob(adapter: RegistryAdapter) -> None:
    absent = Digest.of(b"absent")
    with pytest.raises(BlobNotFoundError) as caught:
        await read(adapter.open_blob(Descriptor(digest=absent)))
    assert caught.value.digest == absent


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("framing", [(), (Chunked(1000),)], ids=["length", "chunked"])
async def test_RES01_a_cut_is_truncation_and_says_how_much_came(
    registry: FakeRegistry, adapter: RegistryAdapter, how: str, framing: tuple[Chunked, ...]
) -> None:
    registry.script(BLOBS, (*framing, Cut(after=4000, how=how)))  # type: ignore[arg-type]
    data, error = await read_until_error(adapter.open_blob(SIZED))
    assert isinstance(error, TruncatedError | NetworkError)
    assert data == BLOB[: len(data)]
    assert error.received == len(data) == 4000


async def test_RES01_a_length_that_lies(registry: FakeRegistry, adapter: RegistryAdapter) -> None:
    registry.script(BLOBS, ContentLength(SIZE + 1))
    data, error = await read_until_error(adapter.open_blob(SIZED))
    assert isinstance(error, TruncatedError)
    assert data == BLOB


@pytest.mark.parametrize("framing", [Chunked(3), CloseDelimited()])
async def test_RES05_a_range_that_ends_too_early_is_truncated(
    registry: FakeRegistry, adapter: RegistryAdapter, framing: Chunked
) -> None:
    registry.script(BLOBS, (Resize(3), framing))
    data, error = await read_until_error(adapter.open_blob(SIZED, 5, 10))
    assert isinstance(error, TruncatedError)
    assert (data, error.received) == (BLOB[5:8], 3)


@pytest.mark.parametrize("framing", [Chunked(3), CloseDelimited()])
async def test_RES05_a_range_that_is_too_long_is_refused(
    registry: FakeRegistry, adapter: RegistryAdapter, framing: Chunked
) -> None:
    registry.script(BLOBS, (Resize(9), framing))
    data, error = await read_until_error(adapter.open_blob(SIZED, 5, 10))
    assert isinstance(error, MalformedResponseError)
    assert len(data) <= 5


async def test_BLOB07_a_body_until_the_end_cannot_be_checked_here(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    registry.script(BLOBS, (CloseDelimited(), Cut(after=10)))
    assert await read(adapter.open_blob(SIZED)) == BLOB[:10]


@pytest.mark.parametrize("take_over", [None, 1])
async def test_a_stalled_body_times_out_here_too(
    registry: FakeRegistry, take_over: int | None
) -> None:
    fill(registry)
    registry.script(BLOBS, Stall(after=10))
    options = replace(OPTIONS_HERE, take_over=take_over)
    async with watch(options=options, timeouts=Timeouts(stall=0.5)) as watched:
        name = ImageName.parse(f"{registry.host}/team/app")
        adapter = await open_adapter(name, "x", watched.session)
        data, error = await read_until_error(adapter.open_blob(SIZED))
        assert isinstance(error, SourceTimeoutError)
        assert (data, error.received) == (BLOB[:10], 10)
        await adapter.aclose()


@pytest.mark.parametrize("take_over", [None, 1])
@pytest.mark.parametrize("alone", [True, False], ids=["by itself", "as a stream"])
async def test_SEC07_a_body_sets_one_timer_however_many_chunks_come(
    registry: FakeRegistry,
    monkeypatch: pytest.MonkeyPatch,
    take_over: int | None,
    *,
    alone: bool,
) -> None:
    built = build_image(layers=[bytes(5 << 20)])
    big, layer = registry.add("team/app", built), built.layers[0]
    loop = asyncio.get_running_loop()
    timers: list[float] = []
    call_at = loop.call_at

    def note(
        when: float, callback: Callable[..., object], *args: object, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timers.append(when - loop.time())
        return call_at(when, callback, *args, context=context)

    options = replace(OPTIONS_HERE, take_over=take_over)
    async with (
        watch(options=options, timeouts=Timeouts(stall=7777)) as watched,
        await watched.open(big) as image,
    ):
        name = ImageName.parse(f"{registry.host}/team/app")
        adapter = await open_adapter(name, "x", watched.session)
        monkeypatch.setattr(loop, "call_at", note)
        if alone:
            async with adapter.open_blob(Descriptor(digest=layer)) as body:
                chunks = len([chunk async for chunk in body])
        else:
            async with image.open_blob(layer, shared=False) as stream:
                chunks = len([chunk async for chunk in stream])
        await adapter.aclose()
    assert chunks > 5
    assert len([seconds for seconds in timers if 7000 < seconds < 8000]) == 1


async def test_chunks_are_not_larger_than_the_limit(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    big = registry.put_blob("team/app", bytes(5 << 20))
    async with adapter.open_blob(Descriptor(digest=big)) as body:
        await settle(100)  # more than one chunk arrives
        sizes = [len(chunk) async for chunk in body]
    assert sum(sizes) == 5 << 20
    assert max(sizes) <= 1 << 20


async def test_BLOB06_leaving_early_hangs_up(
    registry: FakeRegistry, adapter: RegistryAdapter
) -> None:
    big = registry.put_blob("team/app", bytes(20 << 20))
    body = adapter.open_blob(Descriptor(digest=big))
    async with body:
        await anext(body)
    async with asyncio.timeout(5):
        await registry.wait_until(lambda: registry.abandoned == 1)
    with pytest.raises(ClosedError):
        await anext(body)
    await body.__aexit__(None, None, None)


async def test_a_body_is_entered_once_and_read_within(adapter: RegistryAdapter) -> None:
    body = adapter.open_blob(SIZED)
    with pytest.raises(ClosedError):
        await anext(body)
    async with body:
        with pytest.raises(UsageError):
            await body.__aenter__()
    with pytest.raises(UsageError):
        await body.__aenter__()


async def test_a_body_read_to_its_end_leaves_the_connection(registry: FakeRegistry) -> None:
    fill(registry)
    async with watch() as watched:
        name = ImageName.parse(f"{registry.host}/team/app")
        adapter = await open_adapter(name, "docker://x", watched.session)
        for _ in range(5):
            assert await read(adapter.open_blob(SIZED)) == BLOB
        await adapter.aclose()
    assert len({request.connection for request in registry.requests}) == 1


@pytest.mark.parametrize("take_over", [None, 1])
async def test_closing_the_session_under_a_body_ends_it(
    registry: FakeRegistry, take_over: int | None
) -> None:
    big = registry.put_blob("team/app", bytes(20 << 20))
    async with watch(options=replace(OPTIONS_HERE, take_over=take_over)) as watched:
        name = ImageName.parse(f"{registry.host}/team/app")
        adapter = await open_adapter(name, "x", watched.session)
        body = adapter.open_blob(Descriptor(digest=big))
        await body.__aenter__()
        await anext(body)
        await watched.connections.aclose()
        with pytest.raises((NetworkError, TruncatedError, ClosedError)):
            async for _ in body:
                pass
        await body.__aexit__(None, None, None)
        with pytest.raises(ClosedError):
            await adapter.fetch_manifest(None)
        await adapter.aclose()
