"""Real clients pull through the registry endpoint, with docker-registry behind it."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pytest
from aiohttp import web
from fastapi import FastAPI

import asupplemented as asup
from asupplemented.events import BlobStarted
from asupplemented.model.digest import Digest
from tests.interop.busybox import HELD, read_blob
from tests.interop.conftest import LARGE_SIZE
from tests.interop.fuse import Fuse
from tests.interop.pullers import CLIENTS, DOCKER_HUB, QUAY, Clients, PodmanClient, curl
from tests.interop.servers import HOST, MortalRegistry, run_mirror
from tests.web.servers import run_aiohttp, run_uvicorn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from asupplemented.events import Event
    from asupplemented.testing import BuiltImage
    from tests.interop.busybox import Family
    from tests.interop.programs import Home, Skopeo
    from tests.interop.pullers import Client
    from tests.interop.servers import Registry

FAMILY: Final = "library/family:1"
LARGE: Final = "library/large:1"
ONE_PLATFORM: Final = "linux/arm/v7"


@pytest.fixture(scope="module")
def mortals(workshop: Path, large_layout: str, skopeo: Skopeo) -> Iterator[MortalRegistry]:
    """A registry that has the large image, which tests may kill."""
    mortal = MortalRegistry(workshop / "mortal")
    skopeo.copy(large_layout, mortal.registry.reference(LARGE))
    yield mortal
    mortal.close()


@pytest.fixture
def mortal(mortals: MortalRegistry) -> MortalRegistry:
    """That registry, alive."""
    mortals.kill()
    mortals.restart()
    return mortals


@pytest.fixture(scope="module")
def upstream(family: Family, registry: Registry, skopeo: Skopeo) -> Registry:
    """A registry that has the family."""
    skopeo.copy(family.reference(), registry.reference(FAMILY), "--all")
    return registry


@pytest.fixture(scope="module")
def listening() -> Iterator[socket.socket]:
    """Where the endpoint of each test listens, since clients are told once."""
    with socket.create_server((HOST, 0)) as listening:
        yield listening


@pytest.fixture(scope="module")
def clients(workshop: Path, home: Home, listening: socket.socket) -> Iterator[Clients]:
    with Clients(workshop / "clients", home, address_of(listening)) as clients:
        yield clients


def address_of(listening: socket.socket) -> str:
    return f"{HOST}:{listening.getsockname()[1]}"


# The endpoint, mounted in the application of a user


async def serve_aiohttp(
    scope: AsyncExitStack, listening: socket.socket, catalog: asup.Catalog, session: asup.Session
) -> None:
    app = web.Application()
    app.add_subapp("/v2/", asup.web.registry_app(catalog, session))
    await scope.enter_async_context(run_aiohttp(app, listening))


async def serve_fastapi(
    scope: AsyncExitStack, listening: socket.socket, catalog: asup.Catalog, session: asup.Session
) -> None:
    app = FastAPI()
    app.mount("/v2", asup.web.asgi_app(catalog, session))
    await scope.enter_async_context(run_uvicorn(app, listening))


@dataclass
class Endpoint:
    """Serves a registry under the names of others, from a cold cache.

    Attributes:
        events: What happened.
    """

    scope: AsyncExitStack
    listening: socket.socket
    cache: asup.LayoutCache
    serve: Any
    events: list[Event] = field(default_factory=list["Event"])

    async def start(self, *members: str, **options: Any) -> None:
        """Serve groups of members, whose references may have ``{name}``."""
        session = asup.Session(
            cache=self.cache,
            tls_verify=False,
            hooks=[self.events.append, *options.pop("hooks", ())],
        )
        await self.scope.enter_async_context(session)
        names = {f"{registry}/*": list(members) for registry in (QUAY, DOCKER_HUB)}
        catalog = asup.Catalog(names, default_registry=DOCKER_HUB, **options)
        await self.scope.enter_async_context(catalog)
        await self.serve(self.scope, self.listening.dup(), catalog, session)

    @property
    def address(self) -> str:
        """``host:port``."""
        return address_of(self.listening)

    def starts(self, digest: str) -> list[int]:
        """Where the sources of a blob began, the cache aside."""
        started = (event for event in self.events if isinstance(event, BlobStarted))
        return [each.start for each in started if each.digest == digest and not each.cached]


@pytest.fixture(params=[serve_aiohttp, serve_fastapi], ids=["aiohttp", "fastapi"])
async def endpoint(
    request: pytest.FixtureRequest, listening: socket.socket, tmp_path: Path
) -> AsyncIterator[Endpoint]:
    async with AsyncExitStack() as scope:
        cache = asup.LayoutCache(tmp_path / "cache", max_bytes=1 << 30, fills=True)
        await scope.enter_async_context(cache)
        yield Endpoint(scope, listening, cache, request.param)


def digests_of(client: Client, family: Family, platform: str | None) -> set[str]:
    """What a client has after it pulled the family, the index aside."""
    if client.keeps_lists:
        contents = family.contents(platform)
        return {*contents.manifests, *contents.blobs} - {family.digest}
    config = family.config(platform or HELD)
    return {config, *json.loads(read_blob(family.layout, config))["rootfs"]["diff_ids"]}


def digests_of_large(client: Client, large: BuiltImage) -> set[str]:
    if client.keeps_lists:
        return {large.digest, *large.blobs}
    return {large.config, *json.loads(large.blobs[large.config])["rootfs"]["diff_ids"]}


@pytest.mark.parametrize("platform", [None, ONE_PLATFORM], ids=["all", "one"])
async def test_SRV55_clients_pull_what_the_registry_has(
    client: Client, endpoint: Endpoint, upstream: Registry, family: Family, platform: str | None
) -> None:
    await endpoint.start(f"docker://{upstream.address}/{{name}}")
    pulled = await asyncio.to_thread(client.pull, FAMILY, platform)
    assert pulled - {family.digest} == digests_of(client, family, platform)
    if isinstance(client, PodmanClient):
        tree = await asyncio.to_thread(client.read_tree, FAMILY)
        assert tree == family.images[platform or HELD].tree


async def test_SRV12_clients_that_pull_at_once_are_one_fetch(
    make_client: Callable[[str], Client],
    endpoint: Endpoint,
    large: BuiltImage,
    mortal: MortalRegistry,
) -> None:
    clients = [make_client(name) for name in CLIENTS]
    await endpoint.start(f"docker://{mortal.registry.address}/{{name}}")
    pulling = [asyncio.to_thread(client.pull, LARGE) for client in clients]
    for client, pulled in zip(clients, await asyncio.gather(*pulling), strict=True):
        assert pulled == digests_of_large(client, large)
    for digest in large.blobs:
        assert endpoint.starts(digest) == [0]


@pytest.mark.parametrize("endpoint", [serve_aiohttp], ids=["aiohttp"], indirect=True)
async def test_SRV24_clients_pull_while_the_registry_is_killed_and_restarted(
    client: Client, endpoint: Endpoint, large: BuiltImage, mortal: MortalRegistry
) -> None:
    async with Fuse(mortal, LARGE_SIZE // 3, restart=True).run() as address:
        await endpoint.start(f"docker://{address}/{{name}}")
        pulled = await asyncio.to_thread(client.pull, LARGE)
    assert pulled == digests_of_large(client, large)
    first, *others = endpoint.starts(large.layers[-1])
    assert first == 0
    assert others
    assert all(0 < start < LARGE_SIZE for start in others), "resumed, not begun again"


@pytest.mark.parametrize("endpoint", [serve_fastapi], ids=["fastapi"], indirect=True)
async def test_SRV24_clients_pull_the_rest_from_another_member_when_the_registry_is_killed(
    client: Client, endpoint: Endpoint, large: BuiltImage, mortal: MortalRegistry, large_layout: str
) -> None:
    async with Fuse(mortal, LARGE_SIZE // 3, restart=False).run() as address:
        # The registry is the supplement, so it is asked first.
        await endpoint.start(large_layout, f"docker://{address}/{{name}}")
        pulled = await asyncio.to_thread(client.pull, LARGE)
    assert pulled == digests_of_large(client, large)
    first, other = endpoint.starts(large.layers[-1])
    assert first == 0
    assert 0 < other < LARGE_SIZE


@pytest.mark.parametrize("client", ["podman"], indirect=True)
async def test_SRV33_a_client_pulls_what_is_cached_when_the_registry_is_gone(
    client: Client, endpoint: Endpoint, large: BuiltImage, mortal: MortalRegistry
) -> None:
    await endpoint.start(f"docker://{mortal.registry.address}/{{name}}", ttl=0)
    first = await asyncio.to_thread(client.pull, LARGE)
    await asyncio.to_thread(client.forget, LARGE)
    mortal.kill()
    assert await asyncio.to_thread(client.pull, LARGE) == first == digests_of_large(client, large)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_SRV47_SRV32_nginx_passes_on_what_it_gets(
    endpoint: Endpoint, large: BuiltImage, mortal: MortalRegistry, tmp_path: Path, version: str
) -> None:
    await endpoint.start(f"docker://{mortal.registry.address}/{{name}}")
    log = tmp_path / "nginx.log"
    behind = f"proxy_pass http://{endpoint.address}; proxy_http_version {version};"
    behind += f"error_log {log} warn;"
    digest = large.layers[-1]
    with run_mirror(tmp_path / "nginx", f"location / {{ {behind} }}") as address:
        url = f"http://{address}/v2/{QUAY}/{LARGE.partition(':')[0]}/blobs/{digest}"
        pulling = await asyncio.create_subprocess_exec(
            *curl("--limit-rate", str(LARGE_SIZE), url), stdout=asyncio.subprocess.PIPE
        )
        assert pulling.stdout is not None
        body = await pulling.stdout.read()
        assert await pulling.wait() == 0
        assert Digest.of(body) == digest
        assert "buffered to a temporary file" not in log.read_text(), "nginx was asked not to"
        part = await asyncio.create_subprocess_exec(
            *curl("--range", "1000-1999", url), stdout=asyncio.subprocess.PIPE
        )
        assert (await part.communicate())[0] == body[1000:2000]
