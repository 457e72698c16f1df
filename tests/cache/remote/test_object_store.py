"""Object storage: what is where, how it is read and written, and what errors say."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest
from obstore import exceptions
from obstore.store import LocalStore, MemoryStore

from asupplemented.blobs.stream import VerifiedStream
from asupplemented.cache.remote.object_store import (
    ANONYMOUS,
    ObjectStore,
    _manifest_grant,
    namespace_of,
)
from asupplemented.cache.remote.uploads import PART
from asupplemented.errors import (
    BlobNotFoundError,
    ConfigurationError,
    DigestMismatchError,
    LimitExceededError,
    NetworkError,
    PermissionDeniedError,
    RangeError,
    SourceError,
    SourceTimeoutError,
    TruncatedError,
)
from asupplemented.limits import CHUNK_MAX, MAX_MANIFEST, MIB
from asupplemented.model.digest import Digest
from asupplemented.session import Session
from asupplemented.testing import build_index
from tests.cache.stores import HIDDEN, FlakyStore, failure
from tests.candidates import DATA, LARGE, Ledger, Wire, describe, drain
from tests.suspending import cancel_at_every_await, run_leaping, wait_until
from tests.worlds import manifest_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from asupplemented.abc import RawBlob
    from asupplemented.cache.remote.uploads import Read

DIGEST = Digest.of(DATA)
HUGE = random.Random(2).randbytes(2 * PART + 5)
"""A blob that is uploaded in parts."""
MANIFEST = manifest_of(build_index([]))


def reader(data: bytes) -> Read:
    async def read(start: int, size: int) -> bytes:
        assert 0 < size <= MIB
        await asyncio.sleep(0)
        return data[start : start + size]

    return read


@pytest.fixture
def flaky() -> FlakyStore:
    return FlakyStore()


@pytest.fixture
def storage(flaky: FlakyStore) -> ObjectStore:
    return open_storage(flaky)


def open_storage(store: Any, **options: Any) -> ObjectStore:
    return ObjectStore(store, name="s3://bucket", **options)


async def put(storage: ObjectStore, data: bytes, namespace: str = ANONYMOUS) -> Digest:
    digest = Digest.of(data)
    await storage.put_blob(namespace, digest, len(data), reader(data))
    return digest


async def read(storage: ObjectStore, digest: Digest, *bounds: int | None) -> bytes:
    async with storage.blob(digest).open(*bounds) as body:
        chunks = [chunk async for chunk in body]
    assert all(0 < len(chunk) <= CHUNK_MAX for chunk in chunks)
    return b"".join(chunks)


async def collect(body: RawBlob, received: bytearray) -> None:
    async for chunk in body:
        received += chunk


async def test_it_is_an_oci_layout_with_grants(flaky: FlakyStore, storage: ObjectStore) -> None:
    await put(storage, DATA)
    await put(storage, DATA, namespace_of("clara"))
    assert flaky.names() == [
        f"blobs/sha256/{DIGEST.encoded}",
        *sorted(
            f"grants/{namespace}/sha256/{DIGEST.encoded}"
            for namespace in (ANONYMOUS, namespace_of("clara"))
        ),
        "index.json",
        "oci-layout",
    ]
    assert json.loads(flaky.read("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
    assert json.loads(flaky.read("index.json")) == {"schemaVersion": 2, "manifests": []}
    assert flaky.read(f"blobs/sha256/{DIGEST.encoded}") == DATA


async def test_what_makes_it_a_layout_is_left_alone_if_it_is_there(flaky: FlakyStore) -> None:
    flaky.inner.put("index.json", b"mine")
    await put(open_storage(flaky), DATA)
    assert flaky.read("index.json") == b"mine"
    assert flaky.read("oci-layout")


def test_SEC_13_namespaces_are_hashes_that_cannot_be_mistaken() -> None:
    names = [None, "", ANONYMOUS, "clara", "../clara", "\udcff"]
    namespaces = [namespace_of(name) for name in names]
    assert len(set(namespaces)) == len(names)
    assert all(space.isalnum() for space in namespaces)


async def test_SEC_13_what_one_brought_is_not_there_for_another(storage: ObjectStore) -> None:
    await put(storage, DATA, namespace_of("clara"))
    assert await storage.has(namespace_of("clara"), DIGEST)
    assert not await storage.has(namespace_of("bruno"), DIGEST)
    assert not await storage.has(ANONYMOUS, DIGEST)
    await storage.put_manifest(namespace_of("clara"), MANIFEST, "a")
    assert await storage.get_manifest(namespace_of("bruno"), MANIFEST.digest, "a") is None
    assert await storage.get_manifest(namespace_of("clara"), MANIFEST.digest, "b") is None


async def test_content_is_uploaded_once_whoever_brings_it(
    flaky: FlakyStore, storage: ObjectStore
) -> None:
    for principal in (None, "clara", "bruno"):
        await put(storage, DATA, namespace_of(principal))
    assert flaky.asked.count(("put", f"blobs/sha256/{DIGEST.encoded}")) == 1


async def test_what_is_wrong_is_replaced(flaky: FlakyStore, storage: ObjectStore) -> None:
    key = f"blobs/sha256/{DIGEST.encoded}"
    flaky.inner.put(key, DATA[:-1])
    await put(storage, DATA)
    assert flaky.read(key) == DATA, "the size told that it was wrong"
    flaky.inner.put(key, bytes(len(DATA)))
    await storage.put_blob(ANONYMOUS, DIGEST, len(DATA), reader(DATA), replace=True)
    assert flaky.read(key) == DATA


@pytest.mark.parametrize("kind", ["memory", "disk"])
@pytest.mark.parametrize("data", [b"", DATA, LARGE, HUGE], ids=["empty", "small", "large", "huge"])
async def test_a_blob_is_read_as_it_was_written(kind: str, data: bytes, tmp_path: Path) -> None:
    store = MemoryStore() if kind == "memory" else LocalStore(tmp_path)
    storage = open_storage(store)
    digest = await put(storage, data)
    assert await read(storage, digest) == data
    async with Session() as session:
        candidate = storage.blob(digest)
        assert await candidate.open_file() is None
        assert await drain(VerifiedStream(describe(data), [candidate], session)) == data
        assert candidate.ended is bool(data)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, None), (0, 1), (1, 1), (5, 700), (5, 10**9), (1023, None), (1024, None), (1024, 1024)],
)
async def test_a_range_ends_before_its_end(
    start: int, end: int | None, storage: ObjectStore
) -> None:
    await put(storage, DATA)
    candidate = storage.blob(DIGEST)
    async with candidate.open(start, end) as body:
        assert (body.start, body.size, body.etag) == (start, len(DATA), None)
        assert b"".join([chunk async for chunk in body]) == DATA[start:end]
    assert candidate.ended is (start < len(DATA) and (end is None or end >= len(DATA)))


@pytest.mark.parametrize("end", [None, 1025])
async def test_a_range_behind_the_end_is_refused(end: int | None, storage: ObjectStore) -> None:
    await put(storage, DATA)
    with pytest.raises(RangeError, match="starts at 1025, and the object has 1024 bytes"):
        await read(storage, DIGEST, 1025, end)


@pytest.mark.parametrize("start", [0, 7])
async def test_a_blob_that_is_not_there_is_a_miss(start: int, storage: ObjectStore) -> None:
    with pytest.raises(BlobNotFoundError):
        await read(storage, DIGEST, start, None)


async def test_a_body_that_breaks_is_read_on_from_where_it_broke(
    flaky: FlakyStore, storage: ObjectStore
) -> None:
    candidate = storage.blob(await put(storage, LARGE))
    flaky.cut = MIB
    received = bytearray()
    async with candidate.open() as body:
        with pytest.raises(SourceError, match="status 503"):
            await collect(body, received)
    assert received == LARGE[:MIB]
    assert not candidate.ended
    flaky.cut = None
    async with candidate.open(MIB) as body:
        assert received + b"".join([chunk async for chunk in body]) == LARGE
    assert candidate.ended


async def test_RES_01_a_body_that_breaks_for_good_is_taken_over_where_it_broke(
    flaky: FlakyStore, storage: ObjectStore
) -> None:
    candidate = storage.blob(await put(storage, LARGE))
    flaky.cut, ledger = MIB, Ledger()
    async with Session() as session:
        candidates = [candidate, Wire(LARGE, ledger)]
        assert await drain(VerifiedStream(describe(LARGE), candidates, session)) == LARGE
    assert not candidate.ended
    [(_, start, _)] = ledger.asked
    assert start >= MIB


async def test_wrong_bytes_are_found_out_and_replaced(
    flaky: FlakyStore, storage: ObjectStore
) -> None:
    flaky.inner.put(f"blobs/sha256/{DIGEST.encoded}", bytes(len(DATA)))
    async with Session() as session:
        with pytest.raises(DigestMismatchError):
            await drain(VerifiedStream(describe(DATA), [storage.blob(DIGEST)], session))
        candidates = [storage.blob(DIGEST), Wire(DATA, Ledger())]
        assert await drain(VerifiedStream(describe(DATA), candidates, session)) == DATA


# Errors


@pytest.mark.parametrize(
    ("raised", "kind", "told"),
    [
        (failure(503), SourceError, "answered with status 503"),
        (
            exceptions.GenericError(f"no idea, {HIDDEN}"),
            NetworkError,
            "could not be asked (GenericError)",
        ),
        (
            exceptions.PermissionDeniedError(HIDDEN),
            PermissionDeniedError,
            "refused access (PermissionDeniedError)",
        ),
        (
            exceptions.UnauthenticatedError(HIDDEN),
            PermissionDeniedError,
            "refused access (UnauthenticatedError)",
        ),
        (ConnectionResetError(HIDDEN), NetworkError, "(ConnectionResetError)"),
        (ValueError(HIDDEN), NetworkError, "(ValueError)"),
        (NotImplementedError(HIDDEN), NetworkError, "(NotImplementedError)"),
    ],
)
@pytest.mark.parametrize("method", ["head", "get", "put"])
async def test_an_error_tells_the_kind_and_no_secret(
    method: str,
    raised: Exception,
    kind: type[SourceError],
    told: str,
    flaky: FlakyStore,
    storage: ObjectStore,
) -> None:
    await storage._mark()
    flaky.faults[method] = raised
    with pytest.raises(kind) as caught:
        await (put(storage, DATA) if method != "get" else read(storage, DIGEST))
    assert told in str(caught.value)
    assert HIDDEN not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


@pytest.mark.parametrize("method", ["head", "get", "put"])
def test_storage_that_does_not_answer_is_given_up(method: str) -> None:
    async def main() -> None:
        flaky = FlakyStore()
        storage = open_storage(flaky, timeout=3)
        flaky.hanging = {method}
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "head": lambda: storage.has(ANONYMOUS, DIGEST),
            "get": lambda: storage.get_manifest(ANONYMOUS, DIGEST, None),
            "put": lambda: storage._write("key", DATA),
        }
        with pytest.raises(SourceTimeoutError, match="did not answer within 3"):
            await calls[method]()

    run_leaping(main)


# Uploads


async def test_a_large_blob_goes_up_in_parts(flaky: FlakyStore, storage: ObjectStore) -> None:
    flaky.gate = asyncio.Event()
    upload = asyncio.create_task(put(storage, HUGE))
    digest = Digest.of(HUGE)
    key = f"blobs/sha256/{digest.encoded}"
    await wait_until(lambda: key in flaky.parts)
    assert not await storage.has(ANONYMOUS, digest)
    assert key not in flaky.names(), "it is visible before it is whole"
    flaky.gate.set()
    await upload
    assert flaky.read(key) == HUGE
    assert await storage.has(ANONYMOUS, digest)


@pytest.mark.parametrize("data", [DATA, HUGE], ids=["whole", "parts"])
async def test_an_upload_can_be_cancelled_at_any_await(data: bytes) -> None:
    stores: list[FlakyStore] = []
    digest = Digest.of(data)

    async def run() -> None:
        stores.append(FlakyStore())
        await put(open_storage(stores[-1]), data)

    async def check() -> None:
        assert stores[-1].parts == {}, "parts were left behind"
        key = f"blobs/sha256/{digest.encoded}"
        keys = stores[-1].names()
        assert key not in keys or stores[-1].read(key) == data
        assert f"grants/{ANONYMOUS}/sha256/{digest.encoded}" not in keys or key in keys
        assert asyncio.all_tasks() == {asyncio.current_task()}

    assert await cancel_at_every_await(run, check) > 8


async def test_a_cancelled_upload_is_ended_in_the_middle_of_a_read(
    flaky: FlakyStore, storage: ObjectStore
) -> None:
    reached, cancelled = asyncio.Event(), asyncio.Event()

    async def stuck(start: int, size: int) -> bytes:
        if start < PART:
            return HUGE[start : start + size]
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    digest = Digest.of(HUGE)
    upload = asyncio.create_task(storage.put_blob(ANONYMOUS, digest, len(HUGE), stuck))
    await reached.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert cancelled.is_set()
    assert flaky.aborted == [f"blobs/sha256/{digest.encoded}"]


@pytest.mark.parametrize("size", [len(DATA), len(HUGE)])
async def test_a_source_that_ends_too_soon_leaves_nothing(
    size: int, flaky: FlakyStore, storage: ObjectStore
) -> None:
    async def short(start: int, size: int) -> bytes:
        return b"?" if start == 0 else b""

    with pytest.raises(TruncatedError, match="after 1 of"):
        await storage.put_blob(ANONYMOUS, DIGEST, size, short)
    assert flaky.names() == ["index.json", "oci-layout"]


async def test_a_disk_that_fails_is_named(flaky: FlakyStore, storage: ObjectStore) -> None:
    async def broken(start: int, size: int) -> bytes:
        message = "the disk failed"
        raise SourceError(message)

    with pytest.raises(SourceError, match="the disk failed"):
        await storage.put_blob(ANONYMOUS, Digest.of(HUGE), len(HUGE), broken)
    assert flaky.parts == {}


# Manifests


async def test_a_manifest_keeps_its_media_type(flaky: FlakyStore, storage: ObjectStore) -> None:
    assert await storage.get_manifest(ANONYMOUS, MANIFEST.digest, None) is None
    await storage.put_manifest(ANONYMOUS, MANIFEST, None)
    assert await storage.get_manifest(ANONYMOUS, MANIFEST.digest, None) == (
        MANIFEST.raw,
        MANIFEST.media_type,
    )
    puts = flaky.count("put")
    await storage.put_manifest(ANONYMOUS, MANIFEST, None)
    assert flaky.count("put") == puts, "it was there already"
    await storage.put_manifest(ANONYMOUS, MANIFEST, None, replace=True)
    assert flaky.count("put") > puts


async def test_L01_a_manifest_that_is_too_large_is_not_read(
    flaky: FlakyStore, storage: ObjectStore
) -> None:
    flaky.inner.put(f"blobs/sha256/{DIGEST.encoded}", bytes(MAX_MANIFEST))
    grant = _manifest_grant(ANONYMOUS, DIGEST, None)
    flaky.inner.put(grant, bytes(255))
    found = await storage.get_manifest(ANONYMOUS, DIGEST, None)
    assert found is not None
    flaky.inner.put(grant, bytes(256))
    with pytest.raises(LimitExceededError):
        await storage.get_manifest(ANONYMOUS, DIGEST, None)
    flaky.inner.put(grant, bytes(255))
    flaky.inner.put(f"blobs/sha256/{DIGEST.encoded}", bytes(MAX_MANIFEST + 1))
    with pytest.raises(LimitExceededError):
        await storage.get_manifest(ANONYMOUS, DIGEST, None)


# Opening


async def test_a_url_names_a_layout(tmp_path: Path) -> None:
    storage = ObjectStore.from_url(f"{tmp_path.as_uri()}/")
    assert await read(storage, await put(storage, DATA)) == DATA
    assert (tmp_path / "blobs" / "sha256" / DIGEST.encoded).read_bytes() == DATA
    assert storage.name == tmp_path.as_uri()


def test_what_is_shown_of_a_url_is_no_secret() -> None:
    options = {"region": "us-east-1", "secret_access_key": HIDDEN, "access_key_id": HIDDEN}
    storage = ObjectStore.from_url("s3://bucket/prefix/", options, allow_http=True)
    assert repr(storage) == "<ObjectStore s3://bucket/prefix>"
    assert storage.blob(DIGEST).reference == "s3://bucket/prefix"


@pytest.mark.parametrize(
    ("url", "options"),
    [
        (HIDDEN, {}),
        (f"who://user:{HIDDEN}@bucket", {}),
        ("s3://bucket", {HIDDEN: HIDDEN}),
        (f"s3://[{HIDDEN}", {}),
    ],
)
def test_a_url_that_is_not_understood_is_not_repeated(url: str, options: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="not understood") as caught:
        ObjectStore.from_url(url, options)
    assert HIDDEN not in repr(caught.value)
    assert caught.value.__context__ is None


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'asupplemented\[s3\]'"):
        ObjectStore.from_url("s3://bucket")
