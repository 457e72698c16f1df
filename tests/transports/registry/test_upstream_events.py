"""What hooks are told of HTTP requests: each once, under the registry that it is for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asupplemented.events import UpstreamResponded
from asupplemented.testing import Bearer, Hold, Redirect, Status
from tests.transports.registry.sessions import BLOB, BLOB_DIGEST, fill, read_blob, watch

if TYPE_CHECKING:
    from asupplemented.testing import FakeRegistry
    from tests.transports.registry.sessions import Watched


def statuses(watched: Watched) -> list[tuple[str, int | None]]:
    return [(event.method, event.status) for event in watched.told(UpstreamResponded)]


async def test_every_request_is_told_once(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry)
    registry.access = Bearer()
    registry.script("latest", Status(503), None, None)
    await watched.try_open(reference)
    assert statuses(watched) == [
        ("GET", None),  # a ping over https, which is not spoken here
        ("GET", 503),
        ("GET", None),  # nothing says yet that this is a registry
        ("GET", 401),
        ("GET", 200),  # a token
        ("GET", 200),
    ]
    assert len(registry.requests) == 4
    for event in watched.told(UpstreamResponded):
        if event.status is None:
            assert (event.registry, event.origin) == (registry.host, f"https://{registry.host}")
            assert event.error == "NetworkError"
            continue
        assert (event.registry, event.error) == (registry.host, None)
        assert event.origin == f"http://{registry.host}"
        assert event.seconds >= 0


async def test_a_redirect_counts_for_the_registry_that_it_came_from(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    fill(other)
    registry.script(
        f"*/blobs/{BLOB_DIGEST}",
        Redirect(f"http://{other.host}/v2/team/app/blobs/{BLOB_DIGEST}?secret=1"),
    )
    assert await read_blob(watched, reference) == BLOB
    *_, first, second = watched.told(UpstreamResponded)
    assert (first.status, second.status) == (307, 200)
    assert {first.registry, second.registry} == {registry.host}
    assert second.origin == f"http://{other.host}"
    assert "secret" not in repr(watched.events)


async def test_a_request_that_is_given_up_has_no_error(registry: FakeRegistry) -> None:
    reference = fill(registry)
    async with watch() as watched:
        registry.script("latest", Hold(asyncio.Event()), forever=True)
        opening = asyncio.ensure_future(watched.try_open(reference))
        await registry.wait_until(lambda: registry.in_flight == 1)
        opening.cancel()
        await asyncio.wait((opening,))
        told = watched.told(UpstreamResponded)[-1]
        assert (told.status, told.error) == (None, None)


async def test_nothing_is_told_without_hooks(registry: FakeRegistry) -> None:
    async with watch(hooks=()) as watched:
        await watched.try_open(fill(registry))
        assert watched.connections._emit is None
