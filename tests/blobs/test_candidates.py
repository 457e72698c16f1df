"""Candidates: asked in order, and when nobody serves, the right one is blamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.blobs.stream import VerifiedStream
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    FailoverError,
    ManifestNotFoundError,
    NetworkError,
    NotFoundError,
    ServerError,
    SizeMismatchError,
    SourceTimeoutError,
    TooManyRequestsError,
    UnauthorizedError,
)
from asupplemented.model.digest import Digest
from tests.candidates import DATA, LARGE, Ledger, Wire, describe, drain

if TYPE_CHECKING:
    from asupplemented.session import Session


@pytest.mark.parametrize(
    "refusal",
    [
        BlobNotFoundError("x"),
        NetworkError("x"),
        SourceTimeoutError("x"),
        ServerError("x", status=503),
        TooManyRequestsError("x", status=429),
        UnauthorizedError("x", status=401),
        SizeMismatchError("x"),
        ConnectionRefusedError(111, "x"),
        TimeoutError(),
        EOFError(),
    ],
    ids=lambda refusal: type(refusal).__name__,
)
async def test_before_the_first_byte_the_next_candidate_is_asked(
    session: Session, ledger: Ledger, refusal: Exception
) -> None:
    first = Wire(DATA, ledger, name="first", refuses=refusal)
    second = Wire(LARGE, ledger, name="second", member=7)
    third = Wire(LARGE, ledger, name="third")
    stream = VerifiedStream(describe(LARGE), [first, second, third], session)
    async with stream:
        assert stream.member == 7
        assert await stream.read_all(len(LARGE)) == LARGE
    assert ledger.names == ["first", "second"]


async def test_an_announced_size_that_differs_is_a_reason_to_ask_the_next(
    session: Session, ledger: Ledger
) -> None:
    first = Wire(DATA, ledger, name="first")
    second = Wire(LARGE, ledger, name="second")
    assert await drain(VerifiedStream(describe(LARGE), [first, second], session)) == LARGE


async def test_nobody_has_it(session: Session, ledger: Ledger) -> None:
    wires = [
        Wire(b"", ledger, name=name, member=n, refuses=BlobNotFoundError("no such blob"))
        for n, name in enumerate(("first", "second"))
    ]
    stream = VerifiedStream(describe(DATA), wires, session)
    with pytest.raises(BlobNotFoundError) as caught:
        await stream.__aenter__()
    error = caught.value
    assert (error.reference, error.member, error.digest) == ("first", 0, Digest.of(DATA))
    assert "second" in error.__notes__[0]
    assert stream.verified is False


async def test_a_miss_of_another_kind_is_a_missing_blob(session: Session, ledger: Ledger) -> None:
    wire = Wire(b"", ledger, refuses=ManifestNotFoundError("x"))
    with pytest.raises(BlobNotFoundError) as caught:
        await VerifiedStream(describe(DATA), [wire], session).__aenter__()
    assert isinstance(caught.value.__cause__, ManifestNotFoundError)


async def test_the_only_failure_that_is_no_miss_is_raised(session: Session, ledger: Ledger) -> None:
    refusals = [BlobNotFoundError("a"), UnauthorizedError("b", status=401), NotFoundError("c")]
    wires = [Wire(b"", ledger, name=str(n), refuses=e) for n, e in enumerate(refusals)]
    with pytest.raises(UnauthorizedError) as caught:
        await VerifiedStream(describe(DATA), wires, session).__aenter__()
    assert caught.value is refusals[1]
    assert len(caught.value.__notes__) == 2


async def test_several_failures_are_told_as_one_that_names_each(
    session: Session, ledger: Ledger
) -> None:
    refusals = [BlobNotFoundError("a"), NetworkError("b"), ServerError("c"), NotFoundError("d")]
    wires = [Wire(b"", ledger, name=f"w{n}", refuses=e) for n, e in enumerate(refusals)]
    with pytest.raises(FailoverError) as caught:
        await VerifiedStream(describe(DATA), wires, session).__aenter__()
    error = caught.value
    assert error.attempts == tuple(refusals)
    assert error.__cause__ is refusals[1]
    assert error.received is None
    assert error.digest == Digest.of(DATA)
    assert error.message.endswith("w0: a; w1: b; w2: c; w3: d")


async def test_of_very_many_failures_the_first_and_the_last_are_told(
    session: Session, ledger: Ledger
) -> None:
    wires = [Wire(b"", ledger, name=f"w{n}", refuses=NetworkError("x")) for n in range(200)]
    with pytest.raises(FailoverError) as caught:
        await VerifiedStream(describe(DATA), wires, session).__aenter__()
    named = [error.reference for error in caught.value.attempts]
    assert (len(named), named[0], named[-1]) == (64, "w0", "w199")
    assert "and 136 more" in caught.value.message


async def test_without_candidates_nobody_has_it(session: Session) -> None:
    with pytest.raises(BlobNotFoundError) as caught:
        await VerifiedStream(describe(DATA), [], session).__aenter__()
    assert caught.value.digest == Digest.of(DATA)


async def test_a_candidate_that_is_misused_is_not_passed_over(
    session: Session, ledger: Ledger
) -> None:
    closed = Wire(b"", ledger, refuses=ClosedError("the source has been closed"))
    with pytest.raises(ClosedError):
        await VerifiedStream(describe(DATA), [closed, Wire(DATA, ledger)], session).__aenter__()
    assert len(ledger.asked) == 1


async def test_a_foreign_error_is_not_passed_over(session: Session, ledger: Ledger) -> None:
    broken = Wire(DATA, ledger, breaks=10, error=ZeroDivisionError)
    stream = VerifiedStream(describe(DATA), [broken, Wire(DATA, ledger)], session)
    with pytest.raises(ZeroDivisionError):
        await drain(stream)
    assert stream.verified is False
    assert ledger.left_open == 0
