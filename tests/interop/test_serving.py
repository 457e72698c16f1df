"""Real clients pull through the registry endpoint, with docker-registry behind it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

import pytest
from aiohttp import web
from fastapi import FastAPI

import asupplemented as asup
from asupplemented.events import BlobStarted
from asupplemented.model.digest import Digest
from asupplemented.testing import build_image, write_layout
from tests.interop.busybox import HELD, read_blob
from tests.interop.fuse import Fuse
from tests.interop.programs import ProgramError, Skopeo
from tests.interop.pullers import (
    ContainerdClient,
    DockerClient,
    PodmanClient,
    SkopeoClient,
    need_root,
    run_containerd,
    run_dockerd,
)
from tests.interop.servers import HOST, MortalRegistry
from tests.web.servers import run_aiohttp, run_uvicorn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from asupplemented.events import Event
    from asupplemented.testing import BuiltImage
    from tests.interop.busybox import Family
    from tests.interop.programs import Home
    from tests.interop.pullers import Client
    from tests.interop.servers import Registry

QUAY: Final = "quay.test"
"""A registry that exists as a name only."""

FAMILY: Final = "library/family:1"
LARGE: Final = "library/large:1"
ONE_PLATFORM: Final = "linux/arm/v7"

CLIENTS: Final = ("skopeo", "buildah", "podman", "containerd", "docker")
SIZE: Final = 24 << 20
"""Bytes of a layer that no buffer between two processes holds."""


@pytest.fixture(scope="session")
def large() -> BuiltImage:
    """An image with one layer that takes a while."""
    content = hashlib.shake_256(b"large").digest(SIZE)
    return build_image(layers=[{"small": b"a small file"}, {"large": content}])


@pytest.fixture(scope="module")
def layout(workshop: Path, large: BuiltImage) -> str:
    """A layout that has it."""
    return write_layout(workshop / "large", large, name="1")


@pytest.fixture(scope="module")
def mortals(workshop: Path, layout: str, skopeo: Skopeo) -> Iterator[MortalRegistry]:
    """A registry that has it, which tests may kill."""
    mortal = MortalRegistry(workshop / "mortal")
    skopeo.copy(layout, mortal.registry.reference(LARGE))
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
def address(listening: socket.socket) -> str:
    return f"{HOST}:{listening.getsockname()[1]}"


# Clients, and what their users write


@pytest.fixture(scope="module")
def registries_conf(workshop: Path, address: str) -> Path:
    path = workshop / "endpoint.conf"
    path.write_text(
        f"""unqualified-search-registries = []
[[registry]]
location = "{QUAY}"
[[registry.mirror]]
location = "{address}/{QUAY}"
insecure = true
"""
    )
    return path


@pytest.fixture(scope="module")
def hosts(workshop: Path, address: str) -> Path:
    path = workshop / "hosts" / "_default" / "hosts.toml"
    path.parent.mkdir(parents=True)
    path.write_text(f'[host."http://{address}"]\ncapabilities = ["pull", "resolve"]\n')
    return path.parent.parent


@pytest.fixture(scope="module")
def containerd(workshop: Path) -> Iterator[Path]:
    need_root("containerd")
    with run_containerd(workshop / "containerd") as opened:
        yield opened


@pytest.fixture(scope="module")
def dockerd(workshop: Path, containerd: Path, address: str) -> Iterator[Path]:
    settings: dict[str, object] = {"registry-mirrors": [f"http://{address}"]}
    with run_dockerd(workshop / "dockerd", settings, containerd) as opened:
        yield opened


@pytest.fixture
def runroot() -> Iterator[Path]:
    """What podman and buildah change while they run: podman refuses a path over 50 characters."""
    with TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture
def make_client(
    request: pytest.FixtureRequest, home: Home, tmp_path: Path, registries_conf: Path, hosts: Path
) -> Iterator[Callable[[str], Client]]:
    """Makes a client by its name; its store has none of the images."""
    made: list[Client] = []

    def make(program: str) -> Client:
        client: Client
        match program:
            case "skopeo":
                client = SkopeoClient(Skopeo(home, registries_conf), tmp_path, QUAY)
            case "containerd":
                client = ContainerdClient(request.getfixturevalue("containerd"), hosts, QUAY)
            case "docker":
                client = DockerClient(request.getfixturevalue("dockerd"), home)
            case _:
                need_root(program)
                run = request.getfixturevalue("runroot") / program
                client = PodmanClient(program, home, tmp_path / program, run, registries_conf, QUAY)
        made.append(client)
        return client

    yield make
    for client in made:
        for image in (FAMILY, LARGE):
            with suppress(ProgramError):  # most tests pull one of them
                client.forget(image)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, make_client: Callable[[str], Client]) -> Client:
    return make_client(request.param)


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
        names = {key: list(members) for key in (f"{QUAY}/*", "docker.io/*", "library/*")}
        catalog = asup.Catalog(names, **options)
        await self.scope.enter_async_context(catalog)
        await self.serve(self.scope, self.listening.dup(), catalog, session)

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
    image = family.images[platform or HELD]
    config = Digest(json.loads(image.raw)["config"]["digest"])
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
    async with Fuse(mortal, SIZE // 3, restart=True).run() as address:
        await endpoint.start(f"docker://{address}/{{name}}")
        pulled = await asyncio.to_thread(client.pull, LARGE)
    assert pulled == digests_of_large(client, large)
    first, *others = endpoint.starts(large.layers[-1])
    assert first == 0
    assert others
    assert all(0 < start < SIZE for start in others), "resumed, not begun again"


@pytest.mark.parametrize("endpoint", [serve_fastapi], ids=["fastapi"], indirect=True)
async def test_SRV24_clients_pull_the_rest_from_another_member_when_the_registry_is_killed(
    client: Client, endpoint: Endpoint, large: BuiltImage, mortal: MortalRegistry, layout: str
) -> None:
    async with Fuse(mortal, SIZE // 3, restart=False).run() as address:
        # The registry is the supplement, so it is asked first.
        await endpoint.start(layout, f"docker://{address}/{{name}}")
        pulled = await asyncio.to_thread(client.pull, LARGE)
    assert pulled == digests_of_large(client, large)
    first, other = endpoint.starts(large.layers[-1])
    assert first == 0
    assert 0 < other < SIZE


@pytest.mark.parametrize("client", ["podman"], indirect=True)
async def test_SRV33_a_client_pulls_what_is_cached_when_the_registry_is_gone(
    client: Client, endpoint: Endpoint, large: BuiltImage, mortal: MortalRegistry
) -> None:
    await endpoint.start(f"docker://{mortal.registry.address}/{{name}}", ttl=0)
    first = await asyncio.to_thread(client.pull, LARGE)
    await asyncio.to_thread(client.forget, LARGE)
    mortal.kill()
    assert await asyncio.to_thread(client.pull, LARGE) == first == digests_of_large(client, large)
