"""Mirrors: asked in order, before the registry itself, and none of them is the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from asupplemented.abc import Placed, Timeouts
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    ConfigurationError,
    ForbiddenError,
    ImageNotFoundError,
    ManifestNotFoundError,
    NetworkError,
    RangeError,
    ServerError,
    SourceTimeoutError,
    UnauthorizedError,
    UsageError,
)
from asupplemented.events import BlobStarted, Warned
from asupplemented.limits import MAX_MANIFEST
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.name import ImageName
from asupplemented.testing import (
    Basic,
    Bearer,
    Body,
    Corrupt,
    Cut,
    FakeRegistry,
    Html,
    Raw,
    Stall,
    Status,
    build_artifact,
    build_image,
    build_index,
)
from asupplemented.transports import parse_reference
from asupplemented.transports.registry.mirrors import MirroredAdapter
from asupplemented.transports.registry.reference import open_adapter
from tests.clocks import let_pass
from tests.suspending import cancel_at_every_await
from tests.transports.registry.configuring import Configured, table
from tests.transports.registry.sessions import BLOB, IMAGE, fill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.abc import Source
    from asupplemented.testing.recorder import Turn
    from tests.transports.registry.sessions import Watched

BLOB_DIGEST = Digest.of(BLOB)
ARM = build_image("linux/arm64")
INDEX = build_index([IMAGE, ARM])
MANIFEST = "/v2/team/app/manifests/latest"


@pytest.fixture
def system(tmp_path: Path) -> Configured:
    return Configured.make(tmp_path)


@pytest.fixture
async def mirror() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        yield opened


@pytest.fixture
def both(registry: FakeRegistry, mirror: FakeRegistry, system: Configured) -> str:
    """The image in a registry and in its mirror, which is configured; its reference."""
    fill(mirror, "copies/app")
    system.write_registries(table(f"{registry.host}/team", f"{mirror.host}/copies"))
    return fill(registry)


def served(registry: FakeRegistry) -> int:
    """How often it was asked for anything but its version."""
    return registry.count("/v2/*/*")


async def read(source: Source) -> bytes:
    async with source.open_blob(BLOB_DIGEST) as blob:
        return await blob.read_all(1 << 20)


# Candidates


async def test_CONF13_a_mirror_is_asked_before_the_registry(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    async with system.watch() as watched, await watched.open(both) as source:
        assert (await source.get_manifest()).digest == IMAGE.digest
        assert await read(source) == BLOB
    assert registry.requests == []
    assert mirror.count("/v2/copies/app/manifests/latest") == 1
    assert mirror.count(f"/v2/copies/app/blobs/{BLOB_DIGEST}") == 1


async def test_CONF13_mirrors_are_asked_in_the_order_of_the_file(
    registry: FakeRegistry, mirror: FakeRegistry, other: FakeRegistry, system: Configured
) -> None:
    fill(other, "second/app")
    mirrors = (f"{mirror.host}/first", f"{other.host}/second")
    system.write_registries(table(f"{registry.host}/team", *mirrors))
    async with system.watch() as watched:
        await watched.try_open(fill(registry))
    assert (served(mirror), served(other), served(registry)) == (1, 1, 0)


@pytest.mark.parametrize(
    ("pulls", "by_tag", "by_digest"), [("digest-only", 0, 1), ("tag-only", 1, 0), ("all", 1, 1)]
)
async def test_CONF13_mirrors_serve_the_pulls_they_are_for(
    registry: FakeRegistry,
    mirror: FakeRegistry,
    system: Configured,
    pulls: str,
    by_tag: int,
    by_digest: int,
) -> None:
    fill(mirror, "copies/app")
    fill(registry)
    place = f'{mirror.host}/copies\npull-from-mirror = "{pulls}"'
    system.write_registries(table(f"{registry.host}/team", place))
    async with system.watch() as watched:
        await watched.try_open(registry.reference("team/app"))
        assert served(mirror) == by_tag
        await watched.try_open(registry.reference("team/app", IMAGE.digest))
        assert served(mirror) == by_tag + by_digest


async def test_CONF12_a_registry_may_be_elsewhere(
    registry: FakeRegistry, system: Configured
) -> None:
    fill(registry, "moved/app")
    system.write_registries(table("gone.invalid/team", location=f"{registry.host}/moved"))
    async with system.watch() as watched:
        reference = "docker://gone.invalid/team/app:latest"
        async with await watched.open(reference) as source:
            assert str(source.reference) == reference
            assert await read(source) == BLOB
        [event] = watched.told(BlobStarted)
        assert event.reference == registry.reference("moved/app")


async def test_CONF12_a_location_that_makes_no_name_fails_before_any_request(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    conf = system.write_registries(table(f"{registry.host}/team", mirror.host, "docker.io"))
    async with system.watch() as watched:
        with pytest.raises(ConfigurationError, match=str(conf)):
            await watched.try_open(fill(registry))
    assert registry.requests == mirror.requests == []


async def test_without_configuration_no_file_is_read(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, watched: Watched
) -> None:
    await watched.try_open(both)
    assert (mirror.requests, served(registry)) == ([], 1)


# What counts as a failure


@pytest.mark.parametrize(
    "fault",
    [
        *(pytest.param(Status(code), id=str(code)) for code in (401, 403, 404, 500, 502, 503)),
        pytest.param(Cut(after=None), id="no answer"),
        pytest.param(Cut(after=10), id="half an answer"),
        pytest.param(Raw(b"SSH-2.0-x\r\n"), id="not HTTP"),
        pytest.param(Html(), id="a page for people"),
        pytest.param(Body(b"no JSON"), id="no manifest"),
        pytest.param(Body(b" " * (MAX_MANIFEST + 1)), id="too large"),
        pytest.param(Status(307, {"Location": "ftp://x"}), id="a bad redirect"),
    ],
)
async def test_CONF14_whatever_fails_the_next_place_is_asked_at_once(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured, fault: object
) -> None:
    script = mirror.script("*/manifests/*", fault, forever=True)  # type: ignore[arg-type]
    async with system.watch() as watched:
        async with await watched.open(both) as source:
            assert await read(source) == BLOB
        assert watched.clock.slept == []
    assert script.hits == (2 if fault == Cut(after=None) else 1)  # aiohttp's own, rule TLS-09
    assert mirror.count("*/blobs/*") == 0  # the place that served the manifest comes first
    assert served(registry) == 2


async def test_CONF14_a_mirror_that_is_away_costs_no_time(
    registry: FakeRegistry, system: Configured
) -> None:
    system.write_registries(table(f"{registry.host}/team", "127.0.0.1:1/copies"))
    async with system.watch() as watched:
        await watched.try_open(fill(registry))
        assert watched.clock.slept == []
        [warning] = watched.told(Warned)
    assert warning.reference == "docker://127.0.0.1:1/copies/app:latest"
    assert "failed, so the next place is asked: no connection" in warning.message


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_RET06_a_busy_mirror_is_left_at_once_and_its_pause_remembered(
    both: str,
    registry: FakeRegistry,
    mirror: FakeRegistry,
    system: Configured,
    status: int,
) -> None:
    script = mirror.script("*/manifests/*", Status(status, {"Retry-After": "40"}), forever=True)
    async with system.watch() as watched:
        for _ in range(2):
            await watched.try_open(both)
        assert watched.clock.slept == []
        assert script.hits == 1
        mirror.clear_scripts()
        watched.clock.time += 41
        before = len(registry.requests)
        await watched.try_open(both)
    assert len(registry.requests) == before


async def test_RET06_a_busy_mirror_is_waited_for_if_the_registry_fails(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/manifests/*", Status(429, {"Retry-After": "3"}))
    registry.script("*", Status(403), forever=True)
    async with system.watch() as watched:
        await watched.try_open(both)
        assert watched.clock.slept == [3.0]


async def test_RET06_a_busy_mirror_is_not_waited_for_if_the_registry_has_no_such_image(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/manifests/*", Status(429, {"Retry-After": "3"}))
    registry.script("*/manifests/*", Status(404), forever=True)
    async with system.watch() as watched:
        with pytest.raises(ImageNotFoundError):
            await watched.try_open(both)
        assert watched.clock.slept == []


async def test_CONF14_a_certificate_that_nobody_trusts_is_a_failure_too(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    fill(mirror, "copies/app")
    system.write_registries(
        f"""
        [[registry]]
        location = "{registry.host}/team"
        insecure = true
        [[registry.mirror]]
        location = "{mirror.host}/copies"
        """
    )
    async with system.watch() as watched:
        await watched.try_open(fill(registry))
    assert (mirror.requests, served(registry)) == ([], 1)  # no http where it is not allowed


async def test_CONF15_the_only_candidate_fails_as_it_is(
    registry: FakeRegistry, system: Configured
) -> None:
    system.write_registries(table(f"{registry.host}/team"))
    async with system.watch() as watched:
        with pytest.raises(ImageNotFoundError) as caught:
            await watched.try_open(registry.reference("team/app"))
    assert "irrors" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_CONF15_the_error_is_that_of_the_registry_and_tells_of_the_mirrors(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/manifests/*", Status(404), forever=True)
    registry.script("*/manifests/*", Status(401), forever=True)
    async with system.watch() as watched:
        with pytest.raises(UnauthorizedError) as caught:
            await watched.try_open(both)
    error = caught.value
    text = str(error)
    first = f"(Mirrors also failed: [{mirror.host}/copies/app:latest: "
    assert text.startswith(first)
    assert f"]): {registry.host}/team/app:latest: " in text
    assert (error.status, error.reference) == (401, both)
    assert isinstance(error.__cause__, UnauthorizedError)


# Time


async def test_CONF16_a_mirror_that_keeps_silent_is_not_waited_for(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/manifests/*", Stall(after=None))
    async with system.watch(system.options(mirror=1)) as watched:
        async with await watched.open(both):
            [warning] = watched.told(Warned)
        assert "did not begin to answer within 1 s" in warning.message
    assert served(registry) == 1


async def test_CONF16_nor_is_it_by_the_next_image_until_it_had_time_to_come_back(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    second = fill(registry, "team/second")
    fill(mirror, "copies/second")
    mirror.script("*/manifests/*", Stall(after=None))
    async with system.watch(system.options(mirror=1)) as watched:
        await watched.try_open(both)
        await watched.try_open(second)
        assert (served(mirror), served(registry)) == (1, 2)
        watched.clock.time += 11
        await watched.try_open(second)
        await watched.try_open(both)
        assert (served(mirror), served(registry)) == (3, 2)


@pytest.mark.parametrize(
    "turns",
    [
        pytest.param((Cut(after=100, how="rst"), Cut(after=None)), id="reset"),
        pytest.param((Cut(after=100), Cut(after=None)), id="closed"),
        pytest.param((Stall(after=100), Stall(after=None)), id="silent"),
    ],
)
async def test_CONF16_a_mirror_that_dies_in_a_blob_is_asked_last_for_every_image(
    both: str,
    registry: FakeRegistry,
    mirror: FakeRegistry,
    system: Configured,
    turns: tuple[Turn, ...],
) -> None:
    images = [both]
    for name in ("open", "second"):
        images.append(fill(registry, f"team/{name}"))
        fill(mirror, f"copies/{name}")
    mirror.script("*/copies/app/blobs/*", *turns, forever=True)
    timeouts = Timeouts(stall=1.5, first_byte=1.5)
    async with (
        system.watch(timeouts=timeouts) as watched,
        await watched.open(images[0]) as source,
        await watched.open(images[1]) as another,
    ):
        assert served(registry) == 0
        assert await read(source) == BLOB
        asked = served(mirror)
        assert await read(another) == BLOB
        for image in images:
            await watched.try_open(image)
        assert served(mirror) == asked
        watched.clock.time += 1000
        await watched.try_open(images[2])
        assert served(mirror) == asked + 1
        assert await read(another) == BLOB
        assert served(mirror) == asked + 2


async def test_CONF16_who_was_away_is_asked_all_the_same_if_nobody_else_has_it(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/manifests/*", Cut(after=None), Cut(after=None))
    registry.script("*/manifests/*", None, Status(404), forever=True)
    async with system.watch() as watched:
        await watched.try_open(both)
        await watched.try_open(both)
    assert served(registry) == 2


async def test_SEC13_a_mirror_that_failed_one_principal_is_asked_first_by_another(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    async with system.watch() as watched:
        reference = parse_reference(both)
        alice, mallory = (watched.session.scoped(name) for name in ("alice", "mallory"))
        script = mirror.script("*/manifests/*", Cut(after=None), forever=True)
        async with reference.open(mallory):
            assert (script.hits, served(registry)) == (2, 1)  # aiohttp's own, rule TLS-09
        mirror.clear_scripts()
        for principal, asked in ((mallory, 2), (alice, 3)):
            async with reference.open(principal):
                assert served(mirror) == asked


@pytest.mark.parametrize(("status", "again"), [(503, 0), (429, 0), (404, 1), (401, 1), (403, 1)])
async def test_CONF16_an_answer_says_nothing_of_other_images(
    both: str,
    registry: FakeRegistry,
    mirror: FakeRegistry,
    system: Configured,
    status: int,
    again: int,
) -> None:
    second = fill(registry, "team/second")
    fill(mirror, "copies/second")
    script = mirror.script("*/copies/app/manifests/*", Status(status), forever=True)
    async with system.watch() as watched:
        await watched.try_open(both)
        asked = script.hits
        await watched.try_open(second)
        assert served(registry) == 1
        await watched.try_open(both)
        assert script.hits == asked * (1 + again)  # a fault of the server sets this image back
        watched.clock.time += 1000
        await watched.try_open(both)
        assert script.hits == asked * (2 + again)


async def test_CONF16_the_deadline_is_for_the_first_byte(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    go_on = asyncio.Event()
    mirror.script("*/manifests/*", Stall(after=10, until=go_on))
    async with system.watch(system.options(mirror=10.0)) as watched:
        task = asyncio.create_task(watched.try_open(both))
        async with asyncio.timeout(5):
            await mirror.wait_until(lambda: mirror.count("*/manifests/*") == 1)
        await let_pass(20)  # longer than the deadline
        go_on.set()
        await task
    assert registry.requests == []


async def test_CONF16_the_registry_itself_has_all_the_time_of_a_session(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    go_on = asyncio.Event()
    mirror.script("*/manifests/*", Status(404), forever=True)
    registry.script("*/manifests/*", Stall(after=None, until=go_on))
    async with system.watch(system.options(mirror=10.0)) as watched:
        task = asyncio.create_task(watched.try_open(both))
        async with asyncio.timeout(5):
            await registry.wait_until(lambda: served(registry) == 1)
        await let_pass(20)
        go_on.set()
        await task


async def test_CONF16_mirrors_that_all_keep_silent_are_a_timeout(
    registry: FakeRegistry, mirror: FakeRegistry, other: FakeRegistry, system: Configured
) -> None:
    for each in (mirror, other):
        each.script("*/manifests/*", Stall(after=None))
    mirrors = (f"{mirror.host}/a", f"{other.host}/b")
    system.write_registries(table(f"{registry.host}/team", *mirrors, more="blocked = true"))
    async with system.watch(system.options(mirror=10.0)) as watched:
        task = asyncio.create_task(watched.try_open(registry.reference("team/app")))
        await mirror.wait_until(lambda: served(mirror) == 1)
        await let_pass(20)  # the first one has had its time
        await other.wait_until(lambda: served(other) == 1)
        await let_pass(20)
        assert not task.done()  # the last one that may be read is not hurried
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_CONF16_who_is_cancelled_asks_nobody_else(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/manifests/*", Stall(after=None))
    async with system.watch() as watched:
        task = asyncio.create_task(watched.try_open(both))
        async with asyncio.timeout(5):
            await mirror.wait_until(lambda: served(mirror) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert watched.told(Warned) == []
    assert registry.requests == []


async def test_CONF16_a_deadline_of_the_caller_is_his(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/manifests/*", Stall(after=None))
    async with system.watch() as watched:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05):
                await watched.try_open(both)
        assert not isinstance(caught.value, SourceTimeoutError)
    assert registry.requests == []


async def test_CONF16_a_wrong_digest_is_a_failure(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/manifests/*", Corrupt(at=-1), forever=True)
    reference = registry.reference("team/app", IMAGE.digest)
    async with system.watch() as watched, await watched.open(reference) as source:
        assert (await source.get_manifest()).digest == IMAGE.digest
    assert (served(mirror), served(registry)) == (1, 1)


async def test_SEC16_cancelled_at_every_await_nothing_stays_behind(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("latest", Status(503), forever=True)
    async with system.watch() as watched:

        async def run() -> None:
            watched.clock.time += 1000
            async with await watched.open(both) as source:
                assert await read(source) == BLOB

        async def check() -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            watched.check_quiet()

        assert await cancel_at_every_await(run, check) >= 6


# Blocked


async def test_CONF17_a_blocked_registry_is_read_from_its_mirror(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.add("copies/app", INDEX, omit={ARM.digest})
    place = f"{mirror.host}/copies"
    system.write_registries(table(f"{registry.host}/team", place, more="blocked = true"))
    async with (
        system.watch() as watched,
        await watched.open(registry.reference("team/app")) as source,
    ):
        assert await read(source) == BLOB
        with pytest.raises(ManifestNotFoundError) as caught:
            await source.get_manifest(ARM.digest)
        with pytest.raises(BlobNotFoundError):
            async with source.open_blob(Digest.of(b"nowhere")):
                pass
    assert "blocked" not in str(caught.value)
    assert registry.connections == 0


async def test_CONF17_only_the_attempt_at_the_registry_itself_is_refused(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/manifests/*", Status(404), forever=True)
    place = f"{mirror.host}/copies"
    conf = system.write_registries(table(f"{registry.host}/team", place, more="blocked = true"))
    async with system.watch() as watched:
        with pytest.raises(ConfigurationError) as caught:
            await watched.try_open(both)
    assert str(conf) in str(caught.value)
    assert f"[{mirror.host}/copies/app:latest: " in str(caught.value)
    assert registry.connections == 0


async def test_CONF17_a_blocked_registry_without_mirrors_is_asked_nothing(
    registry: FakeRegistry, system: Configured
) -> None:
    system.write_registries(table(registry.host, more="blocked = true"))
    reference = parse_reference(fill(registry))
    async with system.watch() as watched:
        with pytest.raises(ConfigurationError, match="blocked"):
            await reference.open(watched.session)
        with pytest.raises(ConfigurationError, match="blocked"):
            await reference.list_tags(watched.session)  # type: ignore[attr-defined]
    assert registry.connections == 0


# What comes later


async def test_CONF18_the_reference_stays_and_blobs_say_where_they_are_from(
    both: str, mirror: FakeRegistry, system: Configured
) -> None:
    async with system.watch() as watched:
        async with await watched.open(both) as source:
            assert str(source.reference) == both
            await read(source)
        [event] = watched.told(BlobStarted)
    assert event.reference == mirror.reference("copies/app")


async def test_CONF18_an_instance_that_a_mirror_lacks_is_read_from_the_next_place(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.add("copies/app", INDEX, omit={ARM.digest})
    reference = registry.add("team/app", INDEX)
    system.write_registries(table(f"{registry.host}/team", f"{mirror.host}/copies"))
    async with system.watch() as watched:
        async with await watched.open(reference) as source:
            assert (await source.get_manifest(ARM.digest)).digest == ARM.digest
            assert (await source.get_manifest(IMAGE.digest)).digest == IMAGE.digest
        assert watched.told(Warned) == []
    assert registry.count(f"*/{IMAGE.digest}") == 0  # who merely lacks something stays first


async def test_CONF18_an_instance_with_the_wrong_bytes_is_read_from_the_next_place(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.add("copies/app", INDEX)
    mirror.script(ARM.digest, Corrupt())
    reference = registry.add("team/app", INDEX)
    system.write_registries(table(f"{registry.host}/team", f"{mirror.host}/copies"))
    async with system.watch() as watched:
        async with await watched.open(reference) as source:
            assert (await source.get_manifest(ARM.digest)).raw == ARM.raw
            await source.get_manifest(IMAGE.digest)
        assert len(watched.told(Warned)) == 1
    assert registry.count(f"*/{IMAGE.digest}") == 1  # wrong content sets it back


async def test_CONF18_an_instance_that_nobody_has(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    fill(mirror, "copies/app")
    mirror.script(ARM.digest, Status(500), forever=True)
    system.write_registries(table(f"{registry.host}/team", f"{mirror.host}/copies"))
    async with system.watch() as watched, await watched.open(fill(registry)) as source:
        with pytest.raises(ManifestNotFoundError) as caught:
            await source.get_manifest(ARM.digest)
    assert caught.value.digest == ARM.digest
    assert "500" in caught.value.message


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Status(404), id="404"),
        pytest.param(Status(500), id="500"),
        pytest.param(Status(503), id="503"),
        pytest.param(Cut(after=None), id="no answer"),
        pytest.param(Cut(after=100), id="cut"),
        pytest.param(Cut(after=100, how="rst"), id="reset"),
        pytest.param(Corrupt(at=100), id="corrupt"),
        pytest.param(Body(b"short"), id="short"),
        pytest.param(Status(200, {"Content-Encoding": "gzip"}, b"x"), id="encoded"),
    ],
)
async def test_CONF18_a_blob_is_read_from_the_next_place(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured, fault: object
) -> None:
    mirror.script("*/blobs/*", fault, forever=True)  # type: ignore[arg-type]
    async with system.watch() as watched:
        async with await watched.open(both) as source:
            assert await read(source) == BLOB
        assert watched.told(BlobStarted)[-1].reference == both
    assert registry.count("*/manifests/*") == 0


async def test_CONF18_a_large_blob_goes_on_in_the_next_place(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    large = bytes(range(251)) * 25_000  # handed out before it is whole
    for each, repository in ((mirror, "copies/app"), (registry, "team/app")):
        fill(each, repository)
        each.put_blob(repository, large)
    mirror.script("*/blobs/*", Cut(after=3_000_000), Status(503), forever=True)
    system.write_registries(table(f"{registry.host}/team", f"{mirror.host}/copies"))
    reference = registry.reference("team/app")
    async with system.watch() as watched, await watched.open(reference) as source:
        wanted = Descriptor(digest=Digest.of(large), size=len(large))
        async with source.open_blob(wanted) as blob:
            assert b"".join([chunk async for chunk in blob]) == large
            assert blob.verified
        started = [(each.reference, each.start) for each in watched.told(BlobStarted)]
    [(first, start), (second, offset)] = started
    assert (first, start, second) == (mirror.reference("copies/app"), 0, reference)
    assert 0 < offset <= 3_000_000  # what was on its way when the connection ended may be lost
    [request] = registry.select_requests("*/blobs/*")
    assert request.header("Range") == f"bytes={offset}-{len(large) - 1}"


async def test_CONF18_a_blob_that_nobody_has(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    async with system.watch() as watched, await watched.open(both) as source:
        with pytest.raises(BlobNotFoundError):
            async with source.open_blob(Digest.of(b"nowhere")):
                pass
    assert registry.count("*/blobs/*") == mirror.count("*/blobs/*") == 1


async def test_CONF18_a_range_is_read_from_the_next_place(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/blobs/*", Status(404), forever=True)
    async with (
        system.watch() as watched,
        await watched.open(both) as source,
        source.open_blob(BLOB_DIGEST, start=100, end=300) as blob,
    ):
        assert await blob.read_all(1 << 20) == BLOB[100:300]
    assert registry.select_requests("*/blobs/*")[0].header("Range") == "bytes=100-299"


async def test_PART01_parts_are_read_from_the_next_place(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/blobs/*", Status(500), forever=True)
    async with system.watch() as watched, await watched.open(both) as source:
        parts = source.open_parts(BLOB_DIGEST, [(0, 5), (300, 310)])
        async with parts:
            found = [b"".join([chunk async for chunk in part]) async for part in parts]
            assert parts.size == len(BLOB)
        assert found == [BLOB[:5], BLOB[300:310]]
        with pytest.raises(UsageError):
            async with parts:
                pass
        with pytest.raises(RangeError):
            async with source.open_parts(BLOB_DIGEST, [(5, 5)]):
                pass


async def test_RET06_a_mirror_that_asks_for_a_pause_is_not_waited_for_while_others_serve(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    script = mirror.script("*/blobs/*", Status(429, {"Retry-After": "30"}), forever=True)
    async with system.watch() as watched, await watched.open(both) as source:
        watched.clock.slept.clear()
        await read(source)
        assert watched.told(BlobStarted)[-1].reference == registry.reference("team/app")
        assert watched.clock.slept == []
    assert script.hits == 1


async def test_X_ranges_that_do_not_exist_are_nobodys_fault(
    both: str, mirror: FakeRegistry, system: Configured
) -> None:
    async with system.watch() as watched, await watched.open(both) as source:
        with pytest.raises(RangeError) as caught:
            async with source.open_blob(BLOB_DIGEST, start=1 << 20):
                pass
        assert "another attempt failed as well: no byte" in caught.value.__notes__[0]
        await read(source)
        assert watched.told(Warned) == []
        assert watched.told(BlobStarted)[-1].reference == mirror.reference("copies/app")


async def test_SIG07_a_mirror_that_knows_of_no_referrers_is_not_believed(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    artifact = build_artifact("application/x", b"ours", subject=IMAGE)
    registry.add("team/app", artifact, tag=None)
    async with system.watch() as watched, await watched.open(both) as source:
        [found] = await source.get_referrers(IMAGE.digest)
        assert found.digest == artifact.digest
        mirror.script("*/referrers/*", Status(500), forever=True)
        [found] = await source.get_referrers(IMAGE.digest)
        assert found.digest == artifact.digest
        registry.script("*/referrers/*", Status(403), forever=True)
        with pytest.raises(ForbiddenError, match="Mirrors also failed"):
            await source.get_referrers(IMAGE.digest)


async def test_SIG07_a_mirror_that_knows_of_referrers_is_enough(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    artifact = build_artifact("application/x", b"ours", subject=IMAGE)
    mirror.add("copies/app", artifact, tag=None)
    async with system.watch() as watched, await watched.open(both) as source:
        [found] = await source.get_referrers(IMAGE.digest)
    assert found.digest == artifact.digest
    assert registry.requests == []


async def test_HTTP11_tags_and_digests_are_those_of_the_registry_itself(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    fill(registry, "moved/app")
    fill(mirror, "copies/app")
    moved = f"{registry.host}/moved"
    system.write_registries(table("gone.invalid/team", f"{mirror.host}/copies", location=moved))
    reference = parse_reference("docker://gone.invalid/team/app:latest")
    async with system.watch() as watched:
        assert await reference.list_tags(watched.session) == ("latest",)  # type: ignore[attr-defined]
        assert await reference.get_digest(watched.session) == IMAGE.digest  # type: ignore[attr-defined]
    assert mirror.requests == []


async def test_closing_gives_every_client_back(both: str, system: Configured) -> None:
    async with system.watch() as watched:
        name = ImageName.parse(both.removeprefix("docker://"))
        adapter = await open_adapter(name, both, watched.session)
        assert isinstance(adapter, MirroredAdapter)
        assert isinstance(adapter, Placed)
        place, last = adapter.blob_places()
        await adapter.fetch_signatures(None)
        await last.enter()
        blob = last.open_blob(Descriptor(digest=BLOB_DIGEST))
        with pytest.raises(UsageError, match="after it was entered"):
            _ = blob.size
        async with blob:
            assert (blob.start, blob.size, blob.etag) == (0, len(BLOB), blob.etag)
            assert b"".join([chunk async for chunk in blob]) == BLOB
        assert repr(watched.pool).endswith(" 2 leases>")
        await adapter.aclose()
        assert repr(watched.pool).endswith(" 0 leases>")
        with pytest.raises(ClosedError):
            await place.enter()
        with pytest.raises(ClosedError):
            adapter.blob_places()


async def test_many_may_enter_a_place_at_once(both: str, system: Configured) -> None:
    async with system.watch() as watched:
        name = ImageName.parse(both.removeprefix("docker://"))
        adapter = await open_adapter(name, both, watched.session)
        assert isinstance(adapter, MirroredAdapter)
        place, _ = adapter.blob_places()
        entered = await asyncio.gather(*(place.enter() for _ in range(5)))
        assert len(set(map(id, entered))) == 1
        assert repr(watched.pool).endswith(" 1 leases>")
        await adapter.aclose()


# Who we are there, and what is told


async def test_CRED04_credentials_of_a_registry_are_not_for_its_mirrors(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.access = Basic({"bob": "secret"})
    registry.access = Basic({"bob": "secret"})
    async with (
        system.watch(credentials={registry.host: ("bob", "secret")}) as watched,
        await watched.open(both) as source,
    ):
        assert await read(source) == BLOB
    assert [r for r in mirror.requests if r.header("Authorization")] == []
    assert served(registry) == 3  # the first one without credentials


async def test_CRED04_nor_is_a_token_of_the_registry(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.access = Bearer()
    mirror.access = replace(mirror.access, public=False)
    async with system.watch(credentials={registry.host: "a registry token"}) as watched:
        await watched.try_open(both)
    assert "registry token" not in repr(mirror.requests)
    assert served(registry) == 1


async def test_CRED04_a_mirror_has_its_own_credentials(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.access = Basic({"mira": "mirror"})
    asked: list[str] = []

    async def who(name: str) -> tuple[str, str] | None:
        asked.append(name)
        return ("mira", "mirror") if name.startswith(mirror.host) else ("bob", "secret")

    async with system.watch(credentials=who) as watched:
        await watched.try_open(both)
        [warning] = watched.told(Warned)
    assert asked == [f"{mirror.host}/copies/app"]
    assert registry.requests == []
    assert "plain http" in warning.message  # rule CRED-05


async def test_CRED05_nothing_is_sent_over_plain_http_where_that_is_not_allowed(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    fill(mirror, "copies/app")
    mirror.access = Basic({"mira": "mirror"})
    place = f"{mirror.host}/copies"
    system.write_registries(table(f"{registry.host}/team", place, insecure=False))
    async with system.watch(credentials={mirror.host: ("mira", "mirror")}) as watched:
        with pytest.raises(NetworkError):
            await watched.try_open(fill(registry))
    assert mirror.requests == registry.requests == []


async def test_CONF20_a_mirror_is_told_whom_it_stands_in_for_if_it_wants_to_know(
    registry: FakeRegistry, mirror: FakeRegistry, other: FakeRegistry, system: Configured
) -> None:
    fill(other, "plain/app")
    mirror.add("copies/app", IMAGE, omit={BLOB_DIGEST})
    telling = f"{mirror.host}/copies\nasupplemented-tells-registry = true"
    system.write_registries(table(f"{registry.host}/team", telling, f"{other.host}/plain"))
    async with system.watch() as watched, await watched.open(fill(registry)) as source:
        assert await read(source) == BLOB
    asked = [request.argument("ns") for request in mirror.select_requests("/v2/*/*")]
    assert asked == [registry.host, registry.host]
    assert [request.argument("ns") for request in other.requests] == [None]


async def test_TLS05_what_the_caller_says_overrides_what_is_configured(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    async with system.watch(tls_verify=True) as watched:
        with pytest.raises(NetworkError):
            await watched.try_open(both)
    assert registry.requests == mirror.requests == []
    system.write_registries(table(registry.host, insecure=False))
    async with system.watch(tls_verify=False) as watched:
        await watched.try_open(both)


async def test_RET06_a_registry_with_mirrors_is_asked_with_patience(
    both: str, registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    mirror.script("*/manifests/*", Status(503), forever=True)
    registry.script("*/manifests/*", Status(503), Status(503), None)
    async with system.watch() as watched:
        await watched.try_open(both)
        assert len(watched.clock.slept) == 2
    registry.script("*/manifests/*", Status(500), forever=True)
    async with system.watch() as watched:
        with pytest.raises(ServerError):
            await watched.try_open(both)
