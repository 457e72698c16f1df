"""Blob streams: what is handed out in full is right, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.blobs import failover
from asupplemented.blobs import stream as verified
from asupplemented.blobs.hashing import HASHING, WINDOW_MAX, Hashing
from asupplemented.blobs.stream import VerifiedStream
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    DigestMismatchError,
    FailoverError,
    InvalidDigestError,
    LimitExceededError,
    NetworkError,
    RangeError,
    ServerError,
    SizeMismatchError,
    SourceError,
    SupplementedError,
    TruncatedError,
    UsageError,
)
from asupplemented.events import AttemptFailed, BlobFinished, BlobServed, BlobStarted, Event
from asupplemented.limits import BLOCK, CHUNK_MAX, MIB, SMALL_BLOB
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.session import Session
from tests.candidates import DATA, LARGE, WRONG, Body, Disk, Ledger, Wire, describe, drain, fail
from tests.suspending import cancel_at_every_await, count_open_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from asupplemented.abc import BlobCandidate, RawBlob
    from tests.clocks import FakeClock


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small blobs are handed out as large ones are, and chunks are tiny."""
    monkeypatch.setattr(failover, "SMALL_BLOB", -1)
    monkeypatch.setattr(verified, "CHUNK_MAX", 16)


# Whole blobs


@pytest.mark.parametrize("data", [b"", b"x", DATA, LARGE[:SMALL_BLOB], LARGE], ids=len)
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("claims", ["right", None])
async def test_a_whole_blob_from_the_wire(
    session: Session, ledger: Ledger, data: bytes, *, sized: bool, claims: str | None
) -> None:
    wire = Wire(data, ledger, claims=claims, sizes=(100, 3, 300_000), member=4)
    stream = VerifiedStream(describe(data, sized=sized), [wire], session)
    assert stream.size == (len(data) if sized else None)
    assert (stream.received, stream.verified, stream.member) == (0, None, None)
    chunks: list[bytes] = []
    async with stream as entered:
        assert entered is stream
        assert stream.member == 4
        async for chunk in stream:
            chunks.append(chunk)
            assert stream.received == sum(map(len, chunks))
        assert stream.verified is True
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert b"".join(chunks) == data
    assert all(1 <= len(chunk) <= CHUNK_MAX for chunk in chunks)
    assert (stream.size, stream.received, stream.verified) == (len(data), len(data), True)
    assert ledger.asked == [("wire", 0, None)]
    assert ledger.left_open == 0


@pytest.mark.parametrize("data", [b"", b"x", DATA, LARGE[:SMALL_BLOB], LARGE], ids=len)
@pytest.mark.parametrize("sized", [True, False])
async def test_a_whole_blob_from_disk(
    session: Session, tmp_path: Path, data: bytes, *, sized: bool
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(data)
    before = count_open_files()
    stream = VerifiedStream(describe(data, sized=sized), [Disk(path, session)], session)
    async with stream:
        assert stream.size == len(data)
        chunks = [chunk async for chunk in stream]
    assert b"".join(chunks) == data
    assert all(1 <= len(chunk) <= BLOCK for chunk in chunks)
    assert stream.verified is True
    assert count_open_files() == before


async def test_a_blob_within_a_larger_file(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(b"before" + DATA + b"behind")
    disk = Disk(path, session, offset=6, size=len(DATA))
    assert await drain(VerifiedStream(describe(DATA), [disk], session)) == DATA


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("data", [DATA, LARGE], ids=len)
async def test_the_digest_says_how_to_verify(
    session: Session, ledger: Ledger, algorithm: str, data: bytes
) -> None:
    wire = Wire(data, ledger, sizes=(MIB,))
    descriptor = describe(data, algorithm=algorithm)
    assert await drain(VerifiedStream(descriptor, [wire], session)) == data
    lie = Wire(data[::-1], ledger, sizes=(MIB,))
    _, error = await fail(VerifiedStream(descriptor, [lie], session))
    assert isinstance(error, DigestMismatchError)
    assert error.actual == Digest.of(data[::-1], algorithm)


async def test_chunks_larger_than_the_cap_are_split(session: Session, ledger: Ledger) -> None:
    wire = Wire(LARGE, ledger, sizes=(3 * MIB + 1,))
    async with VerifiedStream(describe(LARGE), [wire], session) as stream:
        sizes = [len(chunk) async for chunk in stream]
    assert sizes == [MIB, MIB, MIB, 1, MIB, MIB, 4]


async def test_progress_is_reported_after_each_chunk(session: Session, ledger: Ledger) -> None:
    reported: list[int] = []
    async with VerifiedStream(describe(LARGE), [Wire(LARGE, ledger)], session) as stream:
        stream.on_progress(reported.append)
        received = [stream.received async for _ in stream]
    assert reported == received
    assert (reported[-1], stream.failure) == (len(LARGE), None)


async def test_progress_counts_what_is_held_back_and_begins_again_with_a_source(
    session: Session, ledger: Ledger
) -> None:
    data, reported = LARGE[: 3 * MIB], list[int]()
    lie, truth = (Wire(each, ledger, sizes=(MIB,)) for each in (data[::-1], data))
    stream = VerifiedStream(describe(data), [lie, truth], session)
    stream.on_progress(reported.append)
    assert await drain(stream) == data
    growing = [MIB, 2 * MIB, 3 * MIB]
    assert reported == [*growing, *growing]


async def test_a_stream_that_failed_says_why(session: Session, ledger: Ledger) -> None:
    stream = VerifiedStream(describe(LARGE), [Wire(LARGE[:-1] + b"!", ledger)], session)
    _, error = await fail(stream)
    assert stream.failure is error


# The law of the withheld tail


@pytest.mark.usefixtures("nothing_is_small")
@given(
    data=st.binary(max_size=200),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=8),
    sized=st.booleans(),
    claimed=st.booleans(),
)
def test_BLOB05_the_last_byte_waits_for_the_end_and_the_digest(
    data: bytes, sizes: list[int], *, sized: bool, claimed: bool
) -> None:
    async def run() -> None:
        ledger = Ledger()
        wire = Wire(data, ledger, sizes=sizes, claims="right" if claimed else None)
        received = b""
        async with Session() as session:
            stream = VerifiedStream(describe(data, sized=sized), [wire], session)
            async with stream:
                async for chunk in stream:
                    assert 1 <= len(chunk) <= 16
                    received += chunk
                    whole = len(received) == len(data)
                    assert stream.verified is (True if whole else None)
                    assert not whole or ledger.bodies[0].ended
        assert received == data
        assert stream.verified is True
        assert ledger.left_open == 0

    asyncio.run(run())


@pytest.mark.usefixtures("nothing_is_small")
@given(
    data=st.binary(min_size=1, max_size=100),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    sized=st.booleans(),
    claimed=st.booleans(),
    flaw=st.data(),
)
def test_BLOB05_a_wrong_byte_anywhere_keeps_the_last_byte_back(
    data: bytes, sizes: list[int], *, sized: bool, claimed: bool, flaw: st.DataObject
) -> None:
    at = flaw.draw(st.integers(0, len(data) - 1))
    wrong = data[:at] + bytes((data[at] ^ flaw.draw(st.integers(1, 255)),)) + data[at + 1 :]

    async def run() -> None:
        ledger = Ledger()
        wire = Wire(wrong, ledger, sizes=sizes, claims="right" if claimed else None, member=2)
        async with Session() as session:
            stream = VerifiedStream(describe(data, sized=sized), [wire], session)
            received, error = await fail(stream)
        assert isinstance(error, DigestMismatchError)
        assert (error.digest, error.member, error.suspects) == (Digest.of(data), 2, (2,))
        assert error.actual == Digest.of(wrong)
        assert len(received) < len(data)
        assert wrong.startswith(received)
        assert ledger.left_open == 0

    asyncio.run(run())


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("claims", ["whole", None])
async def test_BLOB05_a_body_cut_anywhere_never_ends_well(
    session: Session, *, sized: bool, claims: str | None
) -> None:
    data = DATA[:50]
    for cut in range(50):
        ledger = Ledger()
        wire = Wire(data[:cut], ledger, sizes=(7,), claims=claims and 50)
        received, error = await fail(VerifiedStream(describe(data, sized=sized), [wire], session))
        if sized or claims:
            assert isinstance(error, TruncatedError)
            assert error.received == cut
        else:
            assert isinstance(error, DigestMismatchError)
        assert len(received) <= cut
        assert data.startswith(received)
        assert ledger.left_open == 0


@pytest.mark.usefixtures("nothing_is_small")
async def test_BLOB05_a_connection_that_breaks_anywhere_never_ends_well(session: Session) -> None:
    data = DATA[:50]
    for at in range(51):
        ledger = Ledger()
        wire = Wire(data, ledger, name="oci:/srv", member=1, sizes=(7,), breaks=at)
        received, error = await fail(VerifiedStream(describe(data), [wire], session))
        assert isinstance(error, NetworkError)
        assert isinstance(error.__cause__, ConnectionResetError)
        assert (error.reference, error.digest, error.member) == ("oci:/srv", Digest.of(data), 1)
        assert error.received == at
        assert len(received) < 50
        assert data.startswith(received)
        assert ledger.left_open == 0


@pytest.mark.usefixtures("nothing_is_small")
@pytest.mark.parametrize("sizes", [(1,), (7,), (50,), (51,), (1000,)])
async def test_BLOB05_a_surplus_byte_is_an_error_and_not_handed_out(
    session: Session, ledger: Ledger, sizes: tuple[int]
) -> None:
    data = DATA[:50]
    wire = Wire(data + b"!", ledger, sizes=sizes, claims=None)
    received, error = await fail(VerifiedStream(describe(data), [wire], session))
    assert isinstance(error, SizeMismatchError)
    assert error.expected == 50
    assert error.actual is not None
    assert error.actual > 50
    assert len(received) < 50


async def test_BLOB05_an_endless_body_of_unknown_size_meets_the_cap(
    session: Session, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "MAX_BLOB", 1000)
    exact = Wire(DATA[:1000], ledger, sizes=(10,), claims=None)
    assert len(await drain(VerifiedStream(describe(DATA[:1000], sized=False), [exact], session)))
    more = Wire(DATA, ledger, sizes=(10,), claims=None)
    received, error = await fail(VerifiedStream(describe(DATA, sized=False), [more], session))
    assert isinstance(error, LimitExceededError)
    assert error.limit == 1000
    assert len(received) < 1000


@pytest.mark.parametrize("where", [0, len(LARGE) // 2, len(LARGE) - 1])
async def test_BLOB05_a_wrong_byte_on_disk(session: Session, tmp_path: Path, where: int) -> None:
    wrong = LARGE[:where] + bytes((LARGE[where] ^ 1,)) + LARGE[where + 1 :]
    path = tmp_path / "blob"
    path.write_bytes(wrong)
    received, error = await fail(VerifiedStream(describe(LARGE), [Disk(path, session)], session))
    assert isinstance(error, DigestMismatchError)
    assert len(received) == 5 * MIB


async def test_a_file_that_shrinks_while_it_is_read(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "blob"
    data = LARGE * 4  # far more than is read ahead
    path.write_bytes(data)
    stream = VerifiedStream(describe(data), [Disk(path, session)], session)
    async with stream:
        await anext(stream)
        with path.open("r+b") as file:
            file.truncate(16 * MIB)
        with pytest.raises(TruncatedError) as caught:
            async for _ in stream:
                pass
    assert caught.value.received == 16 * MIB


@pytest.mark.parametrize("data", [DATA, LARGE], ids=len)
async def test_BLOB05_an_announced_size_that_differs_is_an_error_before_any_byte(
    session: Session, ledger: Ledger, data: bytes
) -> None:
    wire = Wire(data, ledger, claims=len(data) + 1)
    stream = VerifiedStream(describe(data), [wire], session)
    with pytest.raises(SizeMismatchError) as caught:
        await stream.__aenter__()
    assert (caught.value.expected, caught.value.actual) == (len(data), len(data) + 1)
    assert ledger.left_open == 0
    assert not ledger.bodies[0].ended


async def test_a_file_of_another_size_is_an_error_before_any_byte(
    session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(DATA + b"!")
    with pytest.raises(SizeMismatchError):
        await VerifiedStream(describe(DATA), [Disk(path, session)], session).__aenter__()


# Small blobs


@pytest.mark.parametrize("at", [0, 100, len(DATA) - 1])
async def test_a_small_blob_is_verified_before_its_first_byte(
    session: Session, ledger: Ledger, at: int
) -> None:
    wrong = DATA[:at] + bytes((DATA[at] ^ 1,)) + DATA[at + 1 :]
    received, error = await fail(
        VerifiedStream(describe(DATA), [Wire(wrong, ledger, sizes=(9,))], session)
    )
    assert isinstance(error, DigestMismatchError)
    assert received == b""


@pytest.mark.parametrize(
    "liar",
    [
        {"data": WRONG},
        {"data": WRONG, "claims": None},
        {"data": DATA[:-1], "claims": None},
        {"data": DATA + b"!", "claims": None},
        {"data": DATA, "breaks": 100},
        {"data": DATA, "breaks": 100, "error": EOFError},
        {"data": DATA, "breaks": 100, "error": lambda: ServerError("x", status=500)},
    ],
    ids=["wrong", "wrong, no size", "short", "long", "reset", "eof", "server error"],
)
@pytest.mark.parametrize("sized", [True, False])
async def test_a_liar_about_a_small_blob_is_replaced(
    session: Session, ledger: Ledger, liar: dict[str, object], *, sized: bool
) -> None:
    if not sized and liar.get("claims", "right") is None:
        liar = {**liar, "claims": "right"}
    first = Wire(ledger=ledger, name="liar", member=1, sizes=(64,), **liar)  # type: ignore[arg-type]
    second = Wire(DATA, ledger, name="honest", member=2, sizes=(64,))
    stream = VerifiedStream(describe(DATA, sized=sized), [first, second], session)
    async with stream:
        assert stream.member == 1
        assert b"".join([chunk async for chunk in stream]) == DATA
        assert stream.member == 2
    assert stream.verified is True
    assert stream.size == len(DATA)
    assert list(dict.fromkeys(ledger.names)) == ["liar", "honest"]
    assert ledger.left_open == 0


async def test_a_small_file_that_lies_is_replaced(
    session: Session, ledger: Ledger, tmp_path: Path
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(WRONG)
    before = count_open_files()
    candidates: list[BlobCandidate] = [Disk(path, session), Wire(DATA, ledger)]
    assert await drain(VerifiedStream(describe(DATA), candidates, session)) == DATA
    assert count_open_files() == before


async def test_a_liar_about_an_empty_blob_is_replaced(session: Session, ledger: Ledger) -> None:
    liar = Wire(b"!", ledger, name="liar", claims=None)
    candidates = [liar, Wire(b"", ledger, name="honest")]
    assert await drain(VerifiedStream(describe(b""), candidates, session)) == b""
    assert ledger.names == ["liar", "honest"]


async def test_a_size_that_a_liar_announced_is_forgotten_with_it(
    session: Session, ledger: Ledger
) -> None:
    liar = Wire(b"short", ledger, name="liar")
    honest = Wire(LARGE, ledger, name="honest", sizes=(MIB,))
    stream = VerifiedStream(describe(LARGE, sized=False), [liar, honest], session)
    async with stream:
        assert stream.size == 5
        assert b"".join([chunk async for chunk in stream]) == LARGE
    assert stream.size == len(LARGE)


@pytest.mark.parametrize(("size", "handed_out"), [(SMALL_BLOB, False), (SMALL_BLOB + 1, True)])
async def test_where_small_ends(
    session: Session, ledger: Ledger, size: int, *, handed_out: bool
) -> None:
    wire = Wire(LARGE[: size - 1] + b"?", ledger, sizes=(MIB,))
    received, error = await fail(VerifiedStream(describe(LARGE[:size]), [wire], session))
    assert isinstance(error, DigestMismatchError)
    assert bool(received) is handed_out


async def test_when_everybody_lies_all_lies_are_told(session: Session, ledger: Ledger) -> None:
    liars = [Wire(WRONG, ledger, name=f"liar {n}", member=n) for n in range(3)]
    received, error = await fail(VerifiedStream(describe(DATA), liars, session))
    assert received == b""
    assert isinstance(error, FailoverError)
    assert [type(each) for each in error.attempts] == [DigestMismatchError] * 3
    assert [each.reference for each in error.attempts] == ["liar 0", "liar 1", "liar 2"]
    assert [each.member for each in error.attempts] == [0, 1, 2]
    assert error.__cause__ is error.attempts[0]
    assert all(f"liar {n}: the content" in error.message for n in range(3))
    assert ledger.left_open == 0


async def test_a_liar_that_cannot_be_closed_is_replaced_all_the_same(
    session: Session, ledger: Ledger
) -> None:
    liar = Wire(WRONG, ledger, fails_to_close=OSError("stuck"))
    stream = VerifiedStream(describe(DATA), [liar, Wire(DATA, ledger)], session)
    assert await drain(stream) == DATA


# Ranges


RANGES = [(0, 1), (1, 2), (0, 1023), (1, 1024), (500, None), (1023, None), (500, 5000), (7, 1024)]


@pytest.mark.parametrize(("start", "end"), RANGES)
@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("claims", ["right", None])
@pytest.mark.parametrize("ignores_ranges", [True, False])
async def test_a_range_from_the_wire_is_a_slice_and_not_verified(
    session: Session,
    ledger: Ledger,
    start: int,
    end: int | None,
    *,
    sized: bool,
    claims: str | None,
    ignores_ranges: bool,
) -> None:
    wire = Wire(DATA, ledger, sizes=(100,), claims=claims, ignores_ranges=ignores_ranges)
    stream = VerifiedStream(describe(DATA, sized=sized), [wire], session, start=start, end=end)
    assert await drain(stream) == DATA[start:end]
    assert stream.verified is False
    assert stream.received == len(DATA[start:end])
    assert ledger.asked == [("wire", start, min(end, 1024) if end and sized else end)]
    assert ledger.left_open == 0


@pytest.mark.parametrize(("start", "end"), RANGES)
async def test_a_range_from_disk_is_a_slice(
    session: Session, tmp_path: Path, start: int, end: int | None
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    stream = VerifiedStream(describe(DATA), [Disk(path, session)], session, start=start, end=end)
    assert await drain(stream) == DATA[start:end]
    assert stream.verified is False


@pytest.mark.parametrize("end", [1024, 1025, 10**12])
@pytest.mark.parametrize("sized", [True, False])
async def test_a_range_over_everything_is_the_whole_blob(
    session: Session, ledger: Ledger, end: int, *, sized: bool
) -> None:
    wire = Wire(DATA, ledger)
    stream = VerifiedStream(describe(DATA, sized=sized), [wire], session, end=end)
    assert await drain(stream) == DATA
    assert stream.verified is True
    lie = VerifiedStream(describe(DATA, sized=sized), [Wire(WRONG, ledger)], session, end=end)
    _, error = await fail(lie)
    assert isinstance(error, DigestMismatchError)


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (1024, None), (1024, 2000)])
async def test_an_empty_range_asks_nobody(
    session: Session, ledger: Ledger, start: int, end: int | None
) -> None:
    stream = VerifiedStream(describe(DATA), [Wire(DATA, ledger)], session, start=start, end=end)
    assert await drain(stream) == b""
    assert stream.verified is False
    assert ledger.asked == []


@pytest.mark.parametrize(("start", "end"), [(-1, None), (5, 4), (0, -1)])
def test_a_range_that_is_none(start: int, end: int | None) -> None:
    with pytest.raises(RangeError):
        VerifiedStream(describe(DATA), [], Session(), start=start, end=end)


@pytest.mark.parametrize("sized", [True, False])
async def test_a_range_behind_the_end(session: Session, ledger: Ledger, *, sized: bool) -> None:
    wire = Wire(DATA, ledger)
    stream = VerifiedStream(describe(DATA, sized=sized), [wire], session, start=1025)
    with pytest.raises(RangeError) as caught:
        await stream.__aenter__()
    assert caught.value.digest == Digest.of(DATA)
    assert ledger.left_open == 0


async def test_a_range_that_is_cut_short(session: Session, ledger: Ledger) -> None:
    wire = Wire(DATA[:600], ledger, claims=1024)
    received, error = await fail(
        VerifiedStream(describe(DATA), [wire], session, start=500, end=700)
    )
    assert isinstance(error, TruncatedError)
    assert error.received == 100
    assert DATA[500:600].startswith(received)


async def test_RES06_a_source_that_starts_too_early_is_skipped_but_not_for_ever(
    session: Session, ledger: Ledger
) -> None:
    far = Descriptor(digest=Digest.of(DATA), size=1 << 30)
    wire = Wire(DATA, ledger, claims=None, ignores_ranges=True)
    stream = VerifiedStream(far, [wire], session, start=64 * MIB + 1, end=64 * MIB + 2)
    with pytest.raises(SourceError, match="starts at byte 0"):
        await stream.__aenter__()
    assert ledger.left_open == 0


# Use and misuse


def test_a_digest_is_validated_before_anything_else() -> None:
    with pytest.raises(InvalidDigestError):
        VerifiedStream(Descriptor(digest="sha256:../../etc/passwd"), [], Session())


async def test_a_stream_is_entered_before_it_is_read(session: Session, ledger: Ledger) -> None:
    stream = VerifiedStream(describe(DATA), [Wire(DATA, ledger)], session)
    for misuse in (stream.__anext__(), stream.read_all(10)):
        with pytest.raises(UsageError, match="async with"):
            await misuse
    assert ledger.asked == []
    await stream.aclose()


async def test_a_stream_is_entered_once(session: Session, ledger: Ledger) -> None:
    stream = VerifiedStream(describe(DATA), [Wire(DATA, ledger)], session)
    async with stream:
        with pytest.raises(UsageError, match="open_blob"):
            await stream.__aenter__()
    with pytest.raises(UsageError):
        await stream.__aenter__()


async def test_a_closed_stream_says_so(session: Session, ledger: Ledger) -> None:
    stream = VerifiedStream(describe(DATA), [Wire(DATA, ledger)], session)
    async with stream:
        pass
    await stream.aclose()
    for misuse in (stream.__anext__(), stream.read_all(10)):
        with pytest.raises(ClosedError):
            await misuse


async def test_a_failure_is_told_again(session: Session, ledger: Ledger) -> None:
    async with VerifiedStream(describe(DATA), [Wire(WRONG, ledger)], session) as stream:
        with pytest.raises(DigestMismatchError) as first:
            await anext(stream)
        with pytest.raises(DigestMismatchError) as second:
            await anext(stream)
    assert first.value is second.value


async def test_a_stream_is_read_by_one_task(session: Session, ledger: Ledger) -> None:
    async with VerifiedStream(describe(DATA), [Wire(DATA, ledger)], session) as stream:
        one = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        with pytest.raises(UsageError, match="one task"):
            await anext(stream)
        assert await one == DATA


@pytest.mark.parametrize("data", [DATA, LARGE], ids=len)
async def test_BLOB06_an_early_end_is_not_verified_and_releases_everything(
    session: Session, ledger: Ledger, data: bytes
) -> None:
    wire = Wire(data, ledger, sizes=(100,))
    stream = VerifiedStream(describe(data), [wire], session)
    async with stream:
        await anext(stream)
        assert stream.verified is None
    assert stream.verified is False
    assert ledger.left_open == 0


@pytest.mark.parametrize("data", [DATA, LARGE], ids=len)
async def test_what_ended_early_leaves_its_window_to_others(
    session: Session, ledger: Ledger, data: bytes
) -> None:
    hashing = session.resource(HASHING, Hashing)
    short = Wire(DATA[:-1], ledger, claims=None)
    candidates = [short, Wire(DATA, ledger)] if data is DATA else [Wire(LARGE, ledger)]
    for _ in range(20):
        async with VerifiedStream(describe(data), candidates, session) as stream:
            await anext(stream)
    assert hashing.window == WINDOW_MAX


async def test_BLOB06_a_stream_that_was_not_read_is_not_verified(
    session: Session, ledger: Ledger
) -> None:
    async with VerifiedStream(describe(DATA), [Wire(DATA, ledger)], session) as stream:
        assert stream.verified is None
    assert stream.verified is False


async def test_closing_in_the_middle_of_a_read_ends_the_read(
    session: Session, ledger: Ledger, tmp_path: Path
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(LARGE)
    for candidate in (Wire(LARGE, ledger, sizes=(100,)), Disk(path, session)):
        stream = VerifiedStream(describe(LARGE), [candidate], session)
        await stream.__aenter__()
        reading = asyncio.create_task(stream.read_all(len(LARGE)))
        await asyncio.sleep(0)
        await stream.aclose()
        with pytest.raises(ClosedError):
            await reading
    assert ledger.left_open == 0


async def test_an_error_that_comes_of_closing_says_so(session: Session, ledger: Ledger) -> None:
    class Hanging(Body):
        left = asyncio.Event()

        async def __anext__(self) -> bytes:
            await self.left.wait()
            raise ConnectionResetError

        async def __aexit__(self, *_: object) -> None:
            self.left.set()

    class HangingWire(Wire):
        def open(self, start: int = 0, end: int | None = None, etag: str | None = None) -> RawBlob:
            return Hanging(self, start, end)

    stream = VerifiedStream(describe(DATA), [HangingWire(DATA, ledger)], session)
    await stream.__aenter__()
    reading = asyncio.create_task(stream.read_all(len(DATA)))
    await asyncio.sleep(0)
    await stream.aclose()
    with pytest.raises(ClosedError) as caught:
        await reading
    assert isinstance(caught.value.__cause__, NetworkError)


async def test_a_source_that_cannot_be_closed_is_told_as_such(
    session: Session, ledger: Ledger
) -> None:
    stuck = Wire(DATA, ledger, fails_to_close=OSError("stuck"))
    stream = VerifiedStream(describe(DATA), [stuck], session)
    await stream.__aenter__()
    with pytest.raises(ExceptionGroup) as caught:
        await stream.aclose()
    assert [str(e) for e in caught.value.exceptions] == ["stuck"]
    await stream.aclose()


async def test_a_stream_left_open_warns(session: Session, ledger: Ledger) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stream = VerifiedStream(describe(DATA), [Wire(DATA, ledger)], session)
        await stream.__aenter__()
        del stream
        VerifiedStream(describe(DATA), [Wire(DATA, ledger)], session)
        gc.collect()
    messages = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert len(messages) == 1
    assert "unclosed <VerifiedStream of sha256" in messages[0]


# Reading all


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("claims", ["right", None])
async def test_read_all_accepts_its_limit_and_not_a_byte_more(
    session: Session, ledger: Ledger, *, sized: bool, claims: str | None
) -> None:
    wire = Wire(LARGE, ledger, claims=claims, sizes=(MIB,))
    descriptor = describe(LARGE, sized=sized)
    async with VerifiedStream(descriptor, [wire], session) as stream:
        assert await stream.read_all(len(LARGE)) == LARGE
    async with VerifiedStream(descriptor, [wire], session) as stream:
        with pytest.raises(LimitExceededError) as caught:
            await stream.read_all(len(LARGE) - 1)
        assert caught.value.limit == len(LARGE) - 1
        known = sized or claims is not None
        assert (stream.received == 0) is known


async def test_read_all_reads_the_rest(session: Session, ledger: Ledger) -> None:
    async with VerifiedStream(describe(DATA), [Wire(DATA, ledger, sizes=(24,))], session) as blob:
        assert await anext(blob) == DATA[:24]
        assert await blob.read_all(1000) == DATA[24:]
        assert await blob.read_all(0) == b""
    wire = Wire(DATA, ledger)
    async with VerifiedStream(describe(DATA), [wire], session, start=10, end=20) as blob:
        assert await blob.read_all(10) == DATA[10:20]


# Cancellation


@pytest.mark.parametrize("data", [DATA, LARGE], ids=len)
@pytest.mark.parametrize("end", [None, 900])
async def test_SEC16_cancelled_at_any_await_nothing_stays_open(
    data: bytes, end: int | None
) -> None:
    ledger = Ledger()

    async def run() -> None:
        candidates = [
            Wire(data, ledger, claims=1),
            Wire(data[::-1] if data is DATA else b"", ledger, claims=None, sizes=(300,)),
            Wire(data, ledger, sizes=(len(data) // 5,)),
        ]
        if data is LARGE:
            del candidates[1]
        async with Session() as session:
            stream = VerifiedStream(describe(data), candidates, session, end=end)
            try:
                if len(await drain(stream)) == len(data):
                    assert stream.verified is True
            finally:
                assert ledger.left_open == 0
                assert stream.verified is not None

    async def check() -> None:
        assert ledger.left_open == 0

    assert await cancel_at_every_await(run, check) >= 5


async def test_SEC16_cancelled_at_any_await_no_file_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(LARGE)
    (tmp_path / "wrong").write_bytes(LARGE[:-1])

    async def run() -> None:
        async with Session() as session:
            candidates = [Disk(tmp_path / "wrong", session), Disk(path, session)]
            assert await drain(VerifiedStream(describe(LARGE), candidates, session)) == LARGE

    before = count_open_files()

    async def check() -> None:
        assert count_open_files() == before

    assert await cancel_at_every_await(run, check) > 3


async def test_a_stream_whose_reader_was_cancelled_does_not_go_on(
    session: Session, ledger: Ledger
) -> None:
    async with VerifiedStream(describe(DATA), [Wire(DATA, ledger, pause=60)], session) as stream:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await anext(stream)
        with pytest.raises(ClosedError, match="interrupted"):
            await anext(stream)
    assert stream.verified is False


# Events


async def observe(candidates: Sequence[BlobCandidate], *, start: int = 0) -> list[Event]:
    told: list[Event] = []
    async with Session(hooks=[told.append]) as session:
        stream = VerifiedStream(describe(DATA), candidates, session, start=start)
        with suppress(SupplementedError):
            await drain(stream)
    return told


async def test_hooks_hear_of_begin_and_end(ledger: Ledger) -> None:
    digest = Digest.of(DATA)
    told = await observe([Wire(DATA, ledger, name="dir:/a", member=3)])
    assert told == [
        BlobStarted("dir:/a", digest, 0, 3),
        BlobServed("dir:/a", digest, 0, len(DATA), 3),
        BlobFinished("dir:/a", digest, 0, len(DATA), 3, verified=True, error=None),
    ]


async def test_hooks_hear_of_failures_and_replacements(ledger: Ledger) -> None:
    digest = Digest.of(DATA)
    told = await observe([Wire(b"", ledger, refuses=BlobNotFoundError("x")), Wire(WRONG, ledger)])
    assert [type(event) for event in told] == [
        AttemptFailed,
        BlobStarted,
        BlobServed,
        AttemptFailed,
        BlobFinished,
    ]
    assert told[0] == AttemptFailed("wire", digest, None, "BlobNotFoundError", "x")
    assert told[-1] == BlobFinished(
        "wire", digest, 0, 0, None, verified=False, error="DigestMismatchError"
    )
    told = await observe([Wire(WRONG, ledger, name="a"), Wire(DATA, ledger, name="b")])
    assert [type(event) for event in told] == [
        BlobStarted,
        BlobServed,
        AttemptFailed,
        BlobStarted,
        BlobServed,
        BlobFinished,
    ]
    assert told[-1] == BlobFinished("b", digest, 0, len(DATA), None, verified=True, error=None)


async def test_hooks_hear_that_a_range_is_not_verified(ledger: Ledger) -> None:
    told = await observe([Wire(DATA, ledger)], start=1000)
    assert told[-1] == BlobFinished(
        "wire", Digest.of(DATA), 1000, 24, None, verified=False, error=None
    )


async def test_hooks_hear_nothing_of_a_blob_that_nobody_served(ledger: Ledger) -> None:
    assert await observe([]) == []


# Verified files


def believe_that_files_are_old(clock: FakeClock) -> None:
    clock.epoch = 1e11


def write_old_file(path: Path, content: bytes) -> None:
    """Write a file whose times differ from those of all that is written later.

    Two writes within a tick of the kernel's clock, some milliseconds, leave the same times.
    """
    path.write_bytes(content)
    os.utime(path, (1, 1))


async def test_the_path_of_a_file_is_known_once_it_was_verified(
    session: Session, clock: FakeClock, tmp_path: Path
) -> None:
    believe_that_files_are_old(clock)
    path = tmp_path / "blob"
    write_old_file(path, DATA)
    disk = Disk(path, session)
    async with VerifiedStream(describe(DATA), [disk], session) as first:
        assert first.take_path() is None
        await first.read_all(len(DATA))
    async with VerifiedStream(describe(DATA), [disk], session) as second:
        assert second.take_path() == path
        assert second.verified is True
    assert second.verified is True
    async with VerifiedStream(describe(DATA), [disk], session, start=5, end=9) as part:
        assert part.take_path() is None
        assert await part.read_all(4) == DATA[5:9]
    assert part.verified is True


async def test_taking_the_path_uses_the_stream(
    session: Session, clock: FakeClock, tmp_path: Path
) -> None:
    believe_that_files_are_old(clock)
    path = tmp_path / "blob"
    write_old_file(path, DATA)
    disk = Disk(path, session)
    await drain(VerifiedStream(describe(DATA), [disk], session))
    stream = VerifiedStream(describe(DATA), [disk], session)
    with pytest.raises(UsageError, match="entered"):
        stream.take_path()
    async with stream:
        assert stream.take_path() == path
        for misuse in (stream.take_path, lambda: anext(stream)):
            with pytest.raises(UsageError, match="was taken"):
                await misuse()  # type: ignore[misc]
    with pytest.raises(ClosedError):
        stream.take_path()
    async with VerifiedStream(describe(DATA), [disk], session) as read:
        assert await anext(read) == DATA
        assert read.take_path() is None


async def test_a_file_that_changed_is_not_verified_any_more(
    session: Session, clock: FakeClock, tmp_path: Path
) -> None:
    believe_that_files_are_old(clock)
    path = tmp_path / "blob"
    write_old_file(path, DATA)
    disk = Disk(path, session)
    await drain(VerifiedStream(describe(DATA), [disk], session))
    path.write_bytes(WRONG)
    async with VerifiedStream(describe(DATA), [disk], session) as stream:
        assert stream.take_path() is None
        with pytest.raises(DigestMismatchError):
            await anext(stream)
    async with VerifiedStream(describe(DATA), [disk], session, start=5) as part:
        await part.read_all(len(DATA))
    assert part.verified is False


async def test_a_file_that_changes_while_a_range_is_read_is_not_trusted(
    session: Session, clock: FakeClock, tmp_path: Path
) -> None:
    believe_that_files_are_old(clock)
    path = tmp_path / "blob"
    content = LARGE * 3  # more than is read ahead
    write_old_file(path, content)
    disk = Disk(path, session)
    await drain(VerifiedStream(describe(content), [disk], session))
    async with VerifiedStream(describe(content), [disk], session, start=1) as part:
        await anext(part)
        with path.open("r+b") as file:
            file.write(b"other bytes")
        with pytest.raises(SourceError, match="changed"):
            await part.read_all(len(content))
    assert part.verified is False


async def test_a_file_that_was_just_written_is_not_remembered(
    session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "blob"
    write_old_file(path, DATA)
    disk = Disk(path, session)
    await drain(VerifiedStream(describe(DATA), [disk], session))
    async with VerifiedStream(describe(DATA), [disk], session) as stream:
        assert stream.take_path() is None


async def test_a_wrong_or_partial_file_is_not_remembered(
    session: Session, clock: FakeClock, tmp_path: Path
) -> None:
    believe_that_files_are_old(clock)
    path = tmp_path / "blob"
    write_old_file(path, DATA + b"!")
    part = Disk(path, session, size=len(DATA))
    await drain(VerifiedStream(describe(DATA), [part], session))
    async with VerifiedStream(describe(DATA), [part], session) as stream:
        assert stream.take_path() is None
    whole = Disk(path, session)
    async with VerifiedStream(describe(DATA, sized=False), [whole], session) as stream:
        assert stream.take_path() is None
    path.write_bytes(LARGE)
    async with VerifiedStream(describe(LARGE), [Disk(path, session)], session) as stream:
        await anext(stream)
    async with VerifiedStream(describe(LARGE), [Disk(path, session)], session) as stream:
        assert stream.take_path() is None


async def test_a_blob_from_the_wire_has_no_path(session: Session, ledger: Ledger) -> None:
    async with VerifiedStream(describe(DATA), [Wire(DATA, ledger)], session) as stream:
        await stream.read_all(len(DATA))
        assert stream.take_path() is None
