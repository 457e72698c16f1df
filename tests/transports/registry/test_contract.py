"""What every adapter passes, over HTTP."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from asupplemented.testing import FakeRegistry
from asupplemented.transports import parse_reference
from tests.transports.contract import AdapterContract
from tests.transports.registry.sessions import watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asupplemented.abc import Reference
    from asupplemented.session import Session
    from tests.worlds import Contents


class RegistryWorld:
    """A registry of its own for each place."""

    @asynccontextmanager
    async def serve(self, contents: Contents) -> AsyncIterator[Reference]:
        async with FakeRegistry() as registry:
            tags = {} if contents.default is None else {contents.default: "latest"}
            for digest, stored in contents.manifests.items():
                registry.put_manifest(
                    "team/app",
                    stored.raw,
                    stored.media_type or "",
                    tag=tags.get(digest),
                    digest=digest,
                )
            for digest, data in contents.blobs.items():
                registry.put_blob("team/app", data, digest=digest)
            yield parse_reference(registry.reference("team/app"))
            async with asyncio.timeout(5):  # the server takes a moment to see that we left
                await registry.wait_until(lambda: registry.in_flight == 0)


class TestRegistry(AdapterContract):
    @pytest.fixture
    def world(self) -> RegistryWorld:
        return RegistryWorld()

    @pytest.fixture
    async def session(self) -> AsyncIterator[Session]:
        async with watch() as watched:
            yield watched.session
