"""The status of a registry: what events and resources make of it, its bounds, and its merging."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from asupplemented import Catalog, LayoutCache, RegistryOptions, RetryPolicy, Session
from asupplemented.aio.retry import Clock
from asupplemented.cache.sharing import settle
from asupplemented.events import (
    AttemptFailed,
    BlobEvicted,
    BlobServed,
    RequestServed,
    UpstreamResponded,
    Warned,
)
from asupplemented.model.digest import Digest
from asupplemented.testing import FakeRegistry, Headers, Hold, Status, build_image, build_index
from asupplemented.web import Identity, StatusBoard, basic, merge_status
from asupplemented.web import status as statuses
from tests.clocks import FakeClock
from tests.web.clients import aiohttp_client, until
from tests.web.conftest import LARGE, SMALL

if TYPE_CHECKING:
    from pathlib import Path

AMD = build_image("linux/amd64", [SMALL, LARGE])
ARM = build_image("linux/arm64", [b"arm layer"])
INDEX = build_index([AMD, ARM])
OPTIONS = RegistryOptions(retry=RetryPolicy(attempts=1))
REQUEST = RequestServed(
    *("GET", "blob", "quay.io", "team/app", "latest", 200, 10, 1.0, 0.5, "docker://quay.io/a"),
    *("hit", "ann", "10.0.0.1"),
    complete=True,
    error=None,
)
SECRET = "hunter2"  # noqa: S105 - what must not be shown


async def test_events_are_counted() -> None:
    clock = FakeClock()
    board = StatusBoard(clock.clock)
    for event in (
        REQUEST,
        REQUEST._replace(cache="joined", sent=5),
        REQUEST._replace(cache="miss", registry=None),
        REQUEST._replace(cache="", status=404, error="NameUnknownError", name="unknown"),
        REQUEST._replace(cache="", status=502, error="NetworkError"),
        REQUEST._replace(cache="miss", complete=False, error="DigestMismatchError"),
        REQUEST._replace(cache="hit", complete=False),  # The client left.
        UpstreamResponded("quay.io", "GET", 200, 0.25, None),
        UpstreamResponded("quay.io", "HEAD", 503, 0.5, None),
        UpstreamResponded("mirror.lan", "GET", None, 3.0, "NetworkError"),
        BlobServed("docker://quay.io/a:1", "sha256:00", 5, 25, 0),
        BlobServed("oci:/srv/a:1", "sha256:00", 0, 7, 1),
        BlobServed("oci:/cache", "sha256:00", 0, 1000, None, cached=True),
        AttemptFailed("oci:/srv/a:1", "sha256:00", 1, "LayoutError", "it is damaged"),
        BlobEvicted("sha256:00", 12, 60.0),
        Warned("docker://quay.io/a", "careful"),
        Warned("docker://quay.io/a", "careful"),
    ):
        clock.time += 1
        board(event)
    status = board.snapshot()
    assert msgspec.to_builtins(status.totals) == {
        "requests": 7, "refused": 1, "failed": 2, "sent": 65, "hits": 3, "misses": 2,
        "asked": 3, "fetched": 27,
    }  # fmt: skip
    names = {each.name: (each.requests, each.sent) for each in status.requested}
    assert names == {"quay.io/team/app": (4, 35), "team/app": (1, 10)}
    members = {each.source: each for each in status.members}
    assert {
        name: (each.requests, each.failures, each.served) for name, each in members.items()
    } == {
        "docker://quay.io/": (2, 1, 20),
        "docker://mirror.lan/": (1, 1, 0),
        "oci:/srv/a:1": (0, 1, 7),
    }
    assert members["docker://quay.io/"].error == "HEAD was answered with status 503"
    assert members["docker://quay.io/"].seconds == 0.5
    assert members["docker://mirror.lan/"].error == "NetworkError"
    assert members["oci:/srv/a:1"].error == "LayoutError: it is damaged"
    ((eviction,), (warning,)) = status.evictions, status.warnings
    assert (eviction.digest, eviction.size, eviction.unused) == ("sha256:00", 12, 60.0)
    assert (warning.message, warning.count, warning.at) == ("careful", 2, status.taken)
    assert (status.taken - status.started, status.processes) == (17.0, 1)


async def test_SRV49_memory_is_bounded_whatever_clients_ask_for() -> None:
    board = StatusBoard()
    for n in range(10_000):
        board(REQUEST._replace(name=f"n{n}", status=404, error="NameUnknownError"))
    assert board.snapshot().requested == ()
    for n in range(2_000):
        board(REQUEST._replace(name=f"n{n}"))
        board(UpstreamResponded(f"r{n}", "GET", 200, 0.1, None))
        board(BlobEvicted(f"sha256:{n}", 1, None))
        board(Warned("r", f"{n} " + "long " * 1000))
    status = board.snapshot()
    assert [each.name for each in status.requested[:2]] == ["quay.io/n1999", "quay.io/n1998"]
    assert len(status.requested) == statuses.MAX_NAMES
    assert len(status.members) == statuses.MAX_MEMBERS
    assert len(status.evictions) == len(status.warnings) == statuses.MAX_NEWEST
    assert len(msgspec.json.encode(status)) < 40_000


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (f"GET https://r.example/v2/?token={SECRET} failed", "GET https://r.example/v2/ failed"),
        (f"at 'https://u:{SECRET}@r.example/x#f', twice", "at 'https://r.example/x', twice"),
        (f"http://{SECRET}@a/?x={SECRET};http://b/?{SECRET}", "http://a/;http://b/"),
        ("is it so? yes", "is it so? yes"),
    ],
)
async def test_no_query_and_no_user_of_a_url_is_shown(told: str, shown: str) -> None:
    board = StatusBoard()
    board(Warned("docker://r.example/a", told))
    board(AttemptFailed("docker://r.example/a", "sha256:00", 0, "NetworkError", told))
    board(REQUEST._replace(name=told))
    status = board.snapshot()
    assert status.warnings[0].message == shown
    assert status.members[0].error == f"NetworkError: {shown}"
    assert SECRET.encode() not in msgspec.json.encode(status)


async def test_a_registry_that_serves(  # noqa: PLR0915 - one world, looked at from all sides
    tmp_path: Path,
) -> None:
    clock, layer, gate = FakeClock(), Digest.of(LARGE), asyncio.Event()
    board = StatusBoard(clock.clock)
    accounts = basic(lambda user, _password, _access: Identity(f"principal {user}"))
    async with (
        FakeRegistry() as top,
        FakeRegistry() as broken,
        LayoutCache(tmp_path / "cache", 1 << 30) as cache,
        Session(cache=cache, tls_verify=False, settings=[OPTIONS], hooks=[board]) as session,
        Catalog(
            {"team/*": [f"docker://{host}/{{name}}" for host in (top.host, broken.host)]}
        ) as catalog,
        aiohttp_client(catalog, session, authenticate=accounts) as client,
    ):
        user = ("Authorization", "Basic " + "YW5uOnBhc3M=")
        top.add("team/app", INDEX)
        broken.script("*", Status(503), forever=True)
        window = {"RateLimit-Limit": "100;w=3600", "RateLimit-Remaining": "7;w=3600"}
        top.script("*/manifests/*", Headers(window), forever=True)
        top.script(f"*/blobs/{layer}", Hold(gate))

        def look() -> statuses.Status:
            status = board.snapshot(catalog, cache, [session])
            assert b"principal" not in msgspec.json.encode(status)
            return status

        assert look().plans == look().running == ()
        await client.get("/v2/team/app/manifests/latest", user)
        pull = asyncio.ensure_future(client.get(f"/v2/team/app/blobs/{layer}", user))
        await until(lambda: look().running)
        (running,) = look().running
        assert (running.name, running.reference) == ("team/app", layer)
        assert (running.client, running.sent) == ("127.0.0.1", 0)
        gate.set()
        await pull
        await until(lambda: not look().running)
        await settle(session)
        status = look()

        # Names, and which member serves what, and why.
        (name,) = status.names
        assert (name.name, name.members[0]) == ("team/*", f"docker://{top.host}/{{name}}")
        (plan,) = status.plans
        assert (plan.name, plan.reference, plan.digest) == ("team/app", "latest", INDEX.digest)
        assert (plan.stale, plan.leases, plan.manifest_count) == (False, 0, 3)
        assert plan.members == tuple(f"docker://{r.host}/team/app:latest" for r in (top, broken))
        assert plan.unavailable.keys() == {1}
        kinds = [(each.kind, each.platform, each.members) for each in plan.manifests]
        assert kinds == [
            ("index", None, (0,)),
            ("image", "linux/amd64", (0,)),
            ("image", "linux/arm64", (0,)),
        ]
        (blobs,) = plan.manifests[1].blobs
        assert (blobs.count, blobs.members) == (3, (0,))
        assert blobs.size > len(LARGE)
        assert blobs.rule == f"{AMD.digest} names it"
        assert plan.manifests[0].rule == "its default manifest, which is always read first"
        # The same plan is not explained again.
        assert look().plans[0].manifests is plan.manifests

        members = {each.source: each for each in status.members}
        first, second = (members[f"docker://{r.host}/"] for r in (top, broken))
        assert second.failures >= 1
        assert first.served > len(LARGE)
        assert first.budget is not None
        assert (first.budget.remaining, first.budget.limit, first.budget.low) == (7, 100, True)

        # The cache is counted in the background, now and then.
        known = look().cache
        assert known is None or known.counted == clock.epoch
        clock.time += statuses.COUNT_AGAIN
        await until(lambda: (found := look().cache) and found.counted > clock.epoch)
        counted = look().cache
        assert counted is not None
        assert (counted.path, counted.limit) == (str(cache.path), 1 << 30)
        assert counted.bytes > len(LARGE)
        assert counted.entries >= 2


async def test_members_that_fail_come_first() -> None:
    async with (
        FakeRegistry() as registry,
        Session(tls_verify=False, settings=[OPTIONS]) as session,
        Catalog({"*": f"docker://{registry.host}/{{name}}"}) as catalog,
    ):
        registry.script("*", Status(500), forever=True)
        async with aiohttp_client(catalog, session) as client:
            await client.get("/v2/app/manifests/latest")
        board = StatusBoard()
        board(UpstreamResponded("a.example", "GET", 200, 0.1, None))
        first, second = board.snapshot(catalog, None, [session]).members
        assert (second.source, second.health) == ("docker://a.example/", "ok")
        assert first.health == "failing"
        assert 0 < first.retry_in <= 60
        assert first.error is not None
        assert "500" in first.error
    # A session that was closed is left out.
    assert board.snapshot(None, None, [session]).running == ()


def make_status(started: float, *events: Any, taken: float) -> statuses.Status:
    now = [started]
    board = StatusBoard(Clock(wall=lambda: now[0]))
    now[0] = taken
    for event in events:
        board(event)
    return board.snapshot()


def test_SRV50_processes_are_one_and_no_count_falls() -> None:
    budget = statuses.BudgetStatus(remaining=7, limit=100, resets=900.0, low=True)
    cache = statuses.CacheStatus(
        path="/c", bytes=5, limit=9, entries=2, pins=0, hits=3, misses=1, counted=50.0
    )
    plan = statuses.PlanStatus(
        name="a", reference="1", digest="d", stale=False, age=9.0, leases=1, members=("m",),
        unavailable={}, manifests=(), manifest_count=1, missing=(),
    )  # fmt: skip
    warned = Warned("r", "careful")
    one = make_status(
        10.0, REQUEST, warned, UpstreamResponded("q", "GET", 500, 1, None), taken=60.0
    )
    two = make_status(
        *(20.0, REQUEST, REQUEST, warned, BlobEvicted("sha256:00", 1, None)), taken=50.0
    )
    one = msgspec.structs.replace(one, cache=cache, plans=(plan,), plan_count=1)
    two = msgspec.structs.replace(
        two,
        cache=msgspec.structs.replace(cache, bytes=6, counted=51.0),
        plans=(msgspec.structs.replace(plan, age=3.0, leases=2),),
        plan_count=1,
        members=(
            statuses.MemberStatus(
                source="docker://q/", health="failing", failures=2, budget=budget
            ),
        ),
    )
    both = merge_status([one, two])
    assert (both.processes, both.started, both.taken) == (2, 10.0, 60.0)
    assert (both.totals.requests, both.totals.sent, both.totals.asked) == (3, 30, 1)
    assert [(each.name, each.requests) for each in both.requested] == [("quay.io/team/app", 3)]
    assert [(each.age, each.leases) for each in both.plans] == [(3.0, 3)]
    assert both.plan_count == 1
    assert both.cache == msgspec.structs.replace(cache, bytes=6, counted=51.0, hits=6, misses=2)
    ((member,), (warning,)) = both.members, both.warnings
    assert (member.health, member.failures, member.requests) == ("failing", 3, 1)
    assert (member.error, member.budget) == ("GET was answered with status 500", budget)
    assert (warning.count, warning.at) == (2, 60.0)
    assert len(both.evictions) == 1

    ended = statuses.end_status(two)
    after = merge_status([ended, one])
    assert (after.processes, after.plans, after.running_count) == (1, one.plans, 0)
    assert after.totals == both.totals
    assert [each.requests for each in after.requested] == [3]
    assert after.members[0].health == "ok"
    # What has ended stays one part, however many processes are replaced.
    again = merge_status([merge_status([ended, statuses.end_status(one)]), one])
    assert (again.processes, again.totals.requests) == (1, 4)
    assert merge_status([both]) == both
    assert msgspec.json.decode(msgspec.json.encode(both), type=statuses.Status) == both
    with pytest.raises(ValueError, match="at least"):
        merge_status([])
