"""Images in memory that fail, wait and lie by script."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from asupplemented.abc import RawManifest, Signed, SourceAdapter
from asupplemented.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    ForbiddenError,
    ImageNotFoundError,
    LimitExceededError,
    ManifestNotFoundError,
    NetworkError,
    RangeError,
    ServerError,
    SourceError,
    SupplementedError,
    TooManyRequestsError,
    TruncatedError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import OCI_INDEX, OCI_MANIFEST
from asupplemented.testing import (
    Body,
    Chunked,
    ContentLength,
    Corrupt,
    Cut,
    Delay,
    Endless,
    FaultyReference,
    FaultySource,
    Headers,
    Hold,
    IgnoreRange,
    Raise,
    Redirect,
    Slow,
    SourceControl,
    Stall,
    Status,
    WrongRange,
    build_image,
    build_index,
    hold_in_memory,
)
from asupplemented.transports.memory import MemoryBlob, MemoryReference, MemorySource

if TYPE_CHECKING:
    from asupplemented.abc import RawBlob
    from asupplemented.session import Session
    from asupplemented.testing import Fault

AMD64 = build_image(layers=[b"0123456789"])
ARM = build_image("linux/arm/v7")
INDEX = build_index([AMD64, ARM])
LAYER = AMD64.layers[0]
BLOB = Descriptor(digest=LAYER)
UNKNOWN = Digest("sha256:" + "0" * 64)


def make(*, control: SourceControl | None = None) -> FaultyReference:
    return FaultyReference(hold_in_memory("app", INDEX), control or SourceControl())


def make_adapter() -> tuple[FaultySource, SourceControl]:
    control = SourceControl()
    return FaultySource(MemorySource(hold_in_memory("app", INDEX)), control), control


async def collect(source: SourceAdapter, chunks: list[bytes]) -> None:
    async with source.open_blob(BLOB) as raw:
        async for chunk in raw:
            chunks.append(chunk)  # noqa: PERF401  # what came before an error stays


async def read(source: SourceAdapter, start: int = 0, end: int | None = None) -> bytes:
    async with source.open_blob(BLOB, start, end) as raw:
        return b"".join([chunk async for chunk in raw])


def test_an_image_is_held_whole_or_with_holes() -> None:
    whole = hold_in_memory("app", INDEX)
    assert str(whole) == "memory:app"
    assert whole.default == RawManifest(INDEX.raw, OCI_INDEX)
    assert set(whole.manifests) == {INDEX.digest, AMD64.digest, ARM.digest}
    assert whole.manifests[ARM.digest] == RawManifest(ARM.raw, OCI_MANIFEST)
    assert set(whole.blobs) == {*AMD64.blobs, *ARM.blobs}
    sparse = hold_in_memory("app", INDEX, include=[ARM.digest], omit=[ARM.config, INDEX.digest])
    assert sparse.default == whole.default
    assert set(sparse.manifests) == {ARM.digest}
    assert set(sparse.blobs) == set(ARM.layers)


async def test_without_a_script_all_is_right(session: Session) -> None:
    reference = make()
    assert (str(reference), reference.transport) == ("memory:app", "memory")
    control = reference.control
    async with reference.open(session) as image:
        assert (await image.get_manifest()).raw == INDEX.raw
        assert (await image.get_manifest(ARM.digest)).raw == ARM.raw
        async with image.open_blob(LAYER) as blob:
            assert await blob.read_all(100) == b"0123456789"
        assert (control.left_open, control.in_flight) == (1, 0)
        assert await image.get_signatures() == ()
    assert [request.path for request in control.requests] == [
        "/open",
        "/manifests/default",
        f"/manifests/{ARM.digest}",
        f"/blobs/{LAYER}",
        "/signatures/default",
        "/close",
    ]
    opened = (control.sources_opened, control.bodies_opened)
    assert opened == (control.sources_closed, control.bodies_closed) == (1, 1)
    assert control.left_open == 0


def test_two_references_are_never_equal() -> None:
    image, control = hold_in_memory("app", INDEX), SourceControl()
    assert FaultyReference(image, control) != FaultyReference(image, control)
    assert len({FaultyReference(image, control), FaultyReference(image, control)}) == 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(404), ImageNotFoundError),
        (Status(401), UnauthorizedError),
        (Status(403), ForbiddenError),
        (Status(429, {"Retry-After": "7"}), TooManyRequestsError),
        (Status(503), ServerError),
        (Status(418), UnexpectedStatusError),
        (Redirect("/else"), UnexpectedStatusError),
        (Endless(), LimitExceededError),
        (Cut(), TruncatedError),
        (Cut(how="rst"), NetworkError),
        (Raise(lambda: SourceError("own")), SourceError),
    ],
)
@pytest.mark.parametrize("path", ["/open", "default"])
async def test_opening_fails_and_leaves_nothing_open(
    session: Session, path: str, fault: Fault, error: type[SupplementedError]
) -> None:
    reference = make()
    reference.control.script(path, fault)
    with pytest.raises(error) as caught:
        await reference.open(session)
    assert type(caught.value) is error
    assert caught.value.reference == "memory:app"
    assert getattr(caught.value, "retry_after", 7) in {7, None}
    assert reference.control.left_open == 0
    async with reference.open(session):
        assert reference.control.left_open == 1


async def test_statuses_carry_what_those_of_registries_do() -> None:
    adapter, control = make_adapter()
    control.script("default", Status(429, {"Retry-After": "7"}))
    with pytest.raises(TooManyRequestsError) as caught:
        await adapter.fetch_manifest(None)
    assert (caught.value.status, caught.value.retry_after) == (429, 7.0)


async def test_what_is_not_there_is_a_miss() -> None:
    adapter, control = make_adapter()
    with pytest.raises(ManifestNotFoundError) as missing:
        await adapter.fetch_manifest(UNKNOWN)
    assert type(missing.value) is ManifestNotFoundError
    assert missing.value.digest == UNKNOWN
    with pytest.raises(BlobNotFoundError):
        await adapter.open_blob(Descriptor(digest=UNKNOWN)).__aenter__()
    assert control.in_flight == 0
    empty = FaultySource(MemorySource(MemoryReference("empty")), control)
    with pytest.raises(ImageNotFoundError):
        await empty.fetch_manifest(None)


async def test_what_is_there_can_be_missed_and_what_is_not_can_be_given() -> None:
    adapter, control = make_adapter()
    control.script(LAYER, Status(404))
    with pytest.raises(BlobNotFoundError):
        await read(adapter)
    assert await read(adapter) == b"0123456789"
    control.script(UNKNOWN, [Status(200, {"Content-Type": "text/x"}), Body(b"made up")])
    assert await adapter.fetch_manifest(UNKNOWN) == (b"made up", "text/x")


async def test_a_lie_about_a_manifest_is_found_above(session: Session) -> None:
    reference = make()
    reference.control.script(ARM.digest, Corrupt(5), Headers({"Content-Type": None}))
    async with reference.open(session) as image:
        with pytest.raises(DigestMismatchError):
            await image.get_manifest(ARM.digest)
        assert (await image.get_manifest(ARM.digest)).raw == ARM.raw


@pytest.mark.parametrize(
    ("fault", "span", "start", "size", "body"),
    [
        (None, (0, None), 0, 10, b"0123456789"),
        (None, (3, 5), 3, 10, b"34"),
        (None, (10, None), 10, 10, b""),
        (Corrupt(4), (3, 5), 3, 10, b"3\xcb"),
        (IgnoreRange(), (3, 5), 0, 10, b"0123456789"),
        (WrongRange(1), (3, 5), 4, 10, b"4"),
        (WrongRange(-1, lie=True), (3, 5), 3, 10, b"234"),
        (ContentLength(12), (0, None), 0, 12, b"0123456789"),
        (Chunked(3), (0, None), 0, None, b"0123456789"),
        (Body(b"short"), (0, None), 0, 5, b"short"),
    ],
)
async def test_what_a_body_claims_and_gives(
    fault: Fault | None,
    span: tuple[int, int | None],
    start: int,
    size: int | None,
    body: bytes,
) -> None:
    adapter, control = make_adapter()
    control.script(LAYER, fault)
    async with adapter.open_blob(BLOB, *span) as raw:
        assert (raw.start, raw.size) == (start, size)
        assert b"".join([chunk async for chunk in raw]) == body
    assert control.left_open == 1  # the adapter itself


async def test_ranges_are_logged() -> None:
    adapter, control = make_adapter()
    for span in [(0, None), (3, 5), (3, None), (0, 5)]:
        await read(adapter, *span)
    assert [request.header("Range") for request in control.requests] == [
        None,
        "bytes=3-4",
        "bytes=3-",
        "bytes=0-4",
    ]
    with pytest.raises(RangeError):
        await read(adapter, 11)
    assert control.in_flight == 0


async def test_a_condition_is_logged_and_a_scripted_validator_told() -> None:
    adapter, control = make_adapter()
    control.script(LAYER, Headers({"ETag": '"a"'}))
    async with adapter.open_blob(BLOB, 3, 5, '"a"') as raw:
        assert (raw.start, raw.etag) == (3, '"a"')
    assert control.requests[0].header("If-Range") == '"a"'


@pytest.mark.parametrize(("etag", "start"), [(None, 3), ('"a"', 3), ('"b"', 0)])
async def test_what_has_changed_comes_whole(etag: str | None, start: int) -> None:
    class Validated(MemorySource):
        def open_blob(
            self,
            blob: Descriptor,
            start: int = 0,
            end: int | None = None,
            etag: str | None = None,
        ) -> MemoryBlob:
            raw = super().open_blob(blob, start, end, etag)
            raw.etag = '"a"'
            return raw

    adapter = FaultySource(Validated(hold_in_memory("app", INDEX)), SourceControl())
    async with adapter.open_blob(BLOB, 3, 5, etag) as raw:
        assert (raw.start, raw.etag) == (start, '"a"')


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Cut(4), TruncatedError),
        (Cut(4, "rst"), NetworkError),
        (Raise(lambda: SourceError("own", received=4), after=4), SourceError),
    ],
)
async def test_a_body_breaks_off(fault: Fault, error: type[SourceError]) -> None:
    adapter, control = make_adapter()
    control.script(LAYER, fault)
    received: list[bytes] = []
    with pytest.raises(error) as caught:
        await collect(adapter, received)
    assert (b"".join(received), caught.value.received) == (b"0123", 4)
    assert (control.in_flight, control.bodies_opened, control.bodies_closed) == (0, 1, 1)


async def test_a_body_trickles_and_stalls() -> None:
    adapter, control = make_adapter()
    permits, go_on = asyncio.Semaphore(0), asyncio.Event()
    control.script(LAYER, [Slow(4, permits=permits), Stall(9, until=go_on)])
    permits.release()  # the one before the first byte
    async with adapter.open_blob(BLOB) as raw:
        chunks = aiter(raw)
        assert await anext(chunks) == b"0123"
        permits.release()
        assert await anext(chunks) == b"4567"
        permits.release()
        assert await anext(chunks) == b"8"
        waiting = asyncio.ensure_future(anext(chunks))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert control.in_flight == 1
        go_on.set()
        assert await waiting == b"9"
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)


async def test_fetches_are_held_and_counted() -> None:
    adapter, control = make_adapter()
    go_on = asyncio.Event()
    control.script("/manifests/*", Hold(go_on), forever=True)
    async with asyncio.TaskGroup() as tasks:
        for digest in (None, AMD64.digest, ARM.digest):
            tasks.create_task(adapter.fetch_manifest(digest))
        await control.wait_until(lambda: control.in_flight == 3)
        go_on.set()
    assert (control.in_flight, control.max_in_flight, control.abandoned) == (0, 3, 0)
    assert control.count("/manifests/*") == 3


async def test_a_delay_uses_the_clock_it_was_given() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    control = SourceControl(sleep=sleep)
    adapter = FaultySource(MemorySource(hold_in_memory("app", INDEX)), control)
    control.script("default", Delay(60.0))
    await adapter.fetch_manifest(None)
    assert slept == [60.0]


@pytest.mark.parametrize("path", ["/open", "default", LAYER])
async def test_cancelling_leaves_nothing_open(session: Session, path: str) -> None:
    reference = make()
    control = reference.control
    script = control.script(path, Stall(None))

    async def use() -> None:
        async with reference.open(session) as image, image.open_blob(LAYER) as blob:
            await blob.read_all(100)

    task = asyncio.create_task(use())
    await control.wait_until(lambda: script.hits == 1)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (control.left_open, control.in_flight, control.abandoned) == (0, 0, 1)


async def test_closing_can_fail_and_closes_all_the_same(session: Session) -> None:
    reference = make()
    reference.control.script("/close", Raise(lambda: NetworkError("goodbye")), forever=True)
    image = await reference.open(session)
    with pytest.raises(NetworkError, match="goodbye"):
        await image.aclose()
    await image.aclose()
    assert reference.control.left_open == 0
    assert reference.control.count("/close") == 1


async def test_several_references_share_a_log(session: Session) -> None:
    control = SourceControl()
    first, second = make(control=control), make(control=control)
    async with first.open(session), second.open(session):
        assert control.left_open == 2
    assert control.sources_opened == control.sources_closed == 2


async def test_signatures_are_passed_on_where_there_are_any() -> None:
    adapter, _ = make_adapter()
    assert isinstance(adapter, Signed)
    assert await adapter.fetch_signatures(None) == ()
    assert adapter.concurrent_blobs
    bare = FaultySource(Unsigned(), SourceControl())
    assert await bare.fetch_signatures(ARM.digest) == ()


class Unsigned:
    """An adapter with no abilities beyond the minimum."""

    concurrent_blobs = False

    def __init__(self) -> None:
        self.inner = MemorySource(hold_in_memory("app", INDEX))

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        return await self.inner.fetch_manifest(instance)

    def open_blob(
        self,
        blob: Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
    ) -> RawBlob:
        return self.inner.open_blob(blob, start, end, etag)

    async def aclose(self) -> None: ...


async def test_a_server_shows_what_only_sources_can_do() -> None:
    from asupplemented.testing import FakeRegistry
    from tests.testing.raw_client import connect

    registry = await FakeRegistry().__aenter__()
    registry.script("/v2/", Raise(lambda: SourceError("own")))
    async with connect(registry) as client:
        client.get("/v2/")
        assert await client.read_to_end() == (b"", "fin")
    with pytest.raises(ExceptionGroup) as caught:
        await registry.aclose()
    assert caught.group_contains(SourceError, match="own")
