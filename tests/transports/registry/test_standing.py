"""Mirrors that were away: for how long, and who finds out whether they are back."""

from __future__ import annotations

import asyncio

import pytest

from asupplemented.errors import NetworkError, ServerError
from asupplemented.session import Session
from asupplemented.transports.registry.standing import REMEMBERED, Standing
from tests.clocks import FakeClock

HOST = "mirror.example"


def fail(standing: Standing, error: BaseException, host: str = HOST) -> None:
    with pytest.raises(type(error)), standing.watching(host):
        raise error


def test_who_was_away_is_asked_again_after_a_while() -> None:
    clock = FakeClock()
    standing = Standing(clock.clock)
    assert not standing.is_away(HOST)
    fail(standing, NetworkError("gone"))
    assert standing.is_away(HOST)
    assert not standing.is_away("other.example")
    clock.time += 10
    assert not standing.is_away(HOST)
    fail(standing, NetworkError("still gone"))
    clock.time += 10
    assert standing.is_away(HOST)  # the pause doubles
    clock.time += 10
    with standing.watching(HOST):
        assert standing.is_away(HOST)  # one finds out, the others do not wait for it
    assert not standing.is_away(HOST)


def test_an_answer_is_an_answer() -> None:
    clock = FakeClock()
    standing = Standing(clock.clock)
    fail(standing, ServerError("busy", status=503))
    assert not standing.is_away(HOST)
    fail(standing, NetworkError("gone"))
    fail(standing, ServerError("busy", status=503))
    assert not standing.is_away(HOST)


def test_who_is_cancelled_has_found_out_nothing() -> None:
    clock = FakeClock()
    standing = Standing(clock.clock)
    fail(standing, asyncio.CancelledError())
    assert not standing.is_away(HOST)
    fail(standing, NetworkError("gone"))
    clock.time += 10
    fail(standing, asyncio.CancelledError())
    assert not standing.is_away(HOST)  # another one may find out


def test_not_too_many_are_remembered() -> None:
    standing = Standing(FakeClock().clock)
    for number in range(REMEMBERED + 1):
        fail(standing, NetworkError("gone"), f"h{number}")
    assert not standing.is_away("h0")
    assert standing.is_away("h1")
    assert standing.is_away(f"h{REMEMBERED}")


async def test_a_session_has_one() -> None:
    async with Session() as session:
        assert Standing.of(session) is Standing.of(session)
