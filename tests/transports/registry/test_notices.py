"""What a registry says beside its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import TooManyRequestsError
from asupplemented.events import RateLimitTold
from asupplemented.testing import Headers, Redirect, Status
from asupplemented.transports.registry.notices import Allowance, parse_allowance
from tests.transports.registry.sessions import fill

if TYPE_CHECKING:
    from asupplemented.testing import FakeRegistry
    from tests.transports.registry.sessions import Watched


def said(limit: str | None, remaining: str | None) -> Headers:
    return Headers({"RateLimit-Limit": limit, "RateLimit-Remaining": remaining})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["100;w=21600"], Allowance(100, 21600)),
        (["0;w=21600"], Allowance(0, 21600)),
        (["76"], Allowance(76, None)),
        ([], None),
        (["100;w=21600", "100;w=21600"], None),
        ([""], None),
        (["-1"], None),
        (["+1"], None),
        (["1_0"], None),
        (["1.5"], None),
        (["\u0661"], None),
        (["100;w="], None),
        (["100; w=21600"], None),
        (["100, 100;w=21600"], None),
        (["100;w=21600;x=1"], None),
        (["9" * 16], None),
        (["1" * 5000], None),
        (["100\n"], None),
    ],
)
def test_RET09_what_is_left_is_read_strictly(values: list[str], expected: Allowance | None) -> None:
    assert parse_allowance(values) == expected


async def test_RET09_rate_limits_are_told_when_they_change(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    turns = [("100;w=21600", "76;w=21600")] * 2 + [("100;w=21600", "75;w=21600"), (None, None)]
    registry.script("latest", *(said(*turn) for turn in (*turns, turns[2])))
    for _ in range(len(turns) + 1):
        await watched.try_open(reference)
    assert watched.told(RateLimitTold) == [
        RateLimitTold(reference, registry.host, 100, 76, 21600),
        RateLimitTold(reference, registry.host, 100, 75, 21600),
    ]


@pytest.mark.parametrize(
    ("limit", "remaining", "told"),
    [
        ("100", "76", [(100, 76, None)]),
        ("100;w=60", "76", [(100, 76, 60)]),
        ("100;w=60", None, [(100, None, 60)]),
        ("many", "76;w=60", [(None, 76, 60)]),
        ("0", "0", [(0, 0, None)]),
        ("many", "few", []),
    ],
)
async def test_RET09_what_is_not_understood_is_not_told(
    registry: FakeRegistry,
    watched: Watched,
    limit: str,
    remaining: str | None,
    told: list[tuple[int | None, int | None, int | None]],
) -> None:
    registry.script("latest", said(limit, remaining))
    await watched.try_open(fill(registry))
    assert [tuple(event[2:]) for event in watched.told(RateLimitTold)] == told


async def test_RET09_nothing_is_decided_on_rate_limits(
    registry: FakeRegistry, watched: Watched
) -> None:
    registry.script("latest", said("100;w=21600", "0;w=21600"), forever=True)
    reference = fill(registry)
    for _ in range(3):
        await watched.try_open(reference)
    assert (registry.count("latest"), watched.clock.slept) == (3, [])


async def test_RET09_a_refusal_tells_them_as_well(registry: FakeRegistry, watched: Watched) -> None:
    refusal = [Status(429, headers={"Retry-After": "3600"}), said("100", "0")]
    registry.script("latest", refusal)
    with pytest.raises(TooManyRequestsError):
        await watched.try_open(fill(registry))
    assert [event.remaining for event in watched.told(RateLimitTold)] == [0]


async def test_RET09_only_the_registry_itself_is_believed(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    fill(other)
    registry.script("latest", Redirect(f"{other.url}/v2/team/app/manifests/latest"))
    other.script("latest", said("100", "76"))
    await watched.try_open(reference)
    assert watched.told(RateLimitTold) == []
