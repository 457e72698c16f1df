"""Sessions for tests of the registry client: no waiting, everything counted, nothing left."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asupplemented.model.digest import Digest
from asupplemented.session import Session
from asupplemented.testing import build_image
from asupplemented.transports import parse_reference
from asupplemented.transports.registry.connections import CONNECTIONS, Connections
from asupplemented.transports.registry.options import RegistryLimits, RegistryOptions
from asupplemented.transports.registry.pool import REGISTRIES, RegistryPool
from tests.clocks import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asupplemented.abc import Source
    from asupplemented.events import Event
    from asupplemented.testing import FakeRegistry, Request

BLOB = bytes(range(256)) * 64
BLOB_DIGEST = Digest.of(BLOB)
IMAGE = build_image("linux/amd64", [BLOB])
LIMITS = RegistryLimits(head_start=30.0)
"""Plain servers of tests refuse TLS at once, so how often they are asked depends on no clock."""
OPTIONS_HERE = RegistryOptions(limits=LIMITS)


class Watched:
    """A session, its clock, and what it told.

    Attributes:
        session: To open references with.
        clock: Stands still unless somebody sleeps.
        events: Everything the hooks were told.
    """

    def __init__(self, session: Session, clock: FakeClock, events: list[Event]) -> None:
        self.session = session
        self.clock = clock
        self.events = events

    def told(self, kind: type[Any]) -> list[Any]:
        """The events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def open(self, reference: str) -> Source:
        return await parse_reference(reference).open(self.session)

    async def try_open(self, reference: str) -> None:
        async with parse_reference(reference).open(self.session):
            pass

    @property
    def pool(self) -> RegistryPool:
        return self.session.resource(REGISTRIES, _not_made)

    @property
    def connections(self) -> Connections:
        return self.session.resource(CONNECTIONS, _not_made)

    def check_quiet(self) -> None:
        """Nothing is held: no client, no place for a body, no connection, no wait."""
        try:
            pool = self.pool
        except AssertionError:
            return  # Nothing was opened yet.
        assert repr(pool).endswith(" 0 leases>")
        for client in pool._clients.values():
            assert client.limiter.bodies.in_use == 0
            assert client._pings.idle
            assert client._contacts.idle
            if client._contact is not None:
                assert "<SingleFlightMap of 0 keys>" in repr(client)
        assert repr(self.connections) == "<Connections: 0 requests wait for an answer>"
        for client in self.connections._clients.values():
            connector = client.session.connector
            assert connector is not None
            assert not connector._acquired


async def read_blob(watched: Watched, reference: str, start: int = 0) -> bytes:
    """The blob of `IMAGE`, from an image at a reference."""
    async with (
        await watched.open(reference) as source,
        source.open_blob(BLOB_DIGEST, start=start) as blob,
    ):
        return await blob.read_all(1 << 20)


def token_requests(registry: FakeRegistry) -> list[Request]:
    return registry.select_requests("/token")


@asynccontextmanager
async def watch(
    *, options: RegistryOptions = OPTIONS_HERE, clock: FakeClock | None = None, **settings: Any
) -> AsyncIterator[Watched]:
    """A session on a fake clock; at its end nothing may be held any more."""
    events: list[Event] = []
    clock = clock or FakeClock()
    settings = {"tls_verify": False, "hooks": [events.append], **settings}
    async with Session(settings=[options, clock.clock], **settings) as session:
        watched = Watched(session, clock, events)
        yield watched
        watched.check_quiet()


def limited(**limits: Any) -> RegistryOptions:
    """The usual options with other limits."""
    return replace(OPTIONS_HERE, limits=replace(LIMITS, **limits))


def fill(registry: FakeRegistry, repository: str = "team/app") -> str:
    """Put the image into a registry; its reference by tag."""
    return registry.add(repository, IMAGE)


def _not_made() -> Any:
    message = "nothing was opened yet"
    raise AssertionError(message)
