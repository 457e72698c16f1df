"""A server in this process: what it finishes, what it cuts, and what changes under its streams."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from asupplemented.errors import ConfigurationError
from asupplemented.serve.config import Address, ServeConfig, TlsFiles
from asupplemented.serve.connections import HEAD_BYTES
from asupplemented.serve.server import RegistryServer
from asupplemented.serve.sockets import Listeners
from tests.serve.clients import IMAGE, LARGE, Client, get, is_refused, write_image
from tests.web.clients import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.testing import Authority

TAG = "/v2/team/app/manifests/latest"
BLOB = f"/v2/team/app/blobs/{IMAGE.layers[0]}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_image(tmp_path_factory.mktemp("layout"))


@pytest.fixture
def config(reference: str) -> ServeConfig:
    return ServeConfig(names={"team/app": reference}, access_log="off")


def changed(config: ServeConfig, **values: Any) -> ServeConfig:
    fields = {name: getattr(config, name) for name in config.__struct_fields__}
    return ServeConfig(**(fields | values))


class Serving:
    """A server and the sockets that it was given."""

    def __init__(self, listeners: Listeners, server: RegistryServer) -> None:
        self.listeners = listeners
        self.server = server
        self.address = listeners.names[0]

    async def reload(self, config: ServeConfig) -> None:
        await self.server.prepare(config)
        await self.server.finish(use=True)


@asynccontextmanager
async def serving(config: ServeConfig, address: Address | None = None) -> AsyncIterator[Serving]:
    with Listeners([address or Address("127.0.0.1", 0)]) as listeners:
        async with RegistryServer(listeners.of_worker[0]) as server:
            await server.start(config)
            yield Serving(listeners, server)
            await server.stop(0)


async def begin(address: str) -> tuple[Client, int]:
    """A client that has read the head of a large blob, and no more."""
    client = await asyncio.to_thread(Client, address)
    head = await asyncio.to_thread(client.ask, BLOB)
    assert head == (200, len(LARGE))
    return client, head.length


async def test_SRV44_a_stop_refuses_clients_and_finishes_what_it_has_begun(
    config: ServeConfig,
) -> None:
    async with serving(config) as served:
        idle = await asyncio.to_thread(Client, served.address)
        with idle:
            head = await asyncio.to_thread(idle.ask, TAG)
            await asyncio.to_thread(idle.body, head.length)
            client, length = await begin(served.address)
            with client:
                served.listeners.close()
                stopping = asyncio.create_task(served.server.stop(3600))
                assert await asyncio.to_thread(idle.is_closed)
                assert await asyncio.to_thread(is_refused, served.address)
                assert not stopping.done()
                assert await asyncio.to_thread(client.body, length) == LARGE
                assert await asyncio.to_thread(client.is_closed)
                await stopping


async def test_SRV44_a_stop_cuts_what_is_open_at_its_deadline(config: ServeConfig) -> None:
    async with serving(config) as served:
        client, length = await begin(served.address)
        with client:
            await served.server.stop(0)
            body = await asyncio.to_thread(client.body, length)
            assert len(body) < length
            assert LARGE.startswith(body)


async def test_SRV46_a_stream_keeps_its_catalog_and_new_requests_have_the_new_one(
    config: ServeConfig,
) -> None:
    async with serving(config) as served:
        kept = await asyncio.to_thread(Client, served.address)
        client, length = await begin(served.address)
        with client, kept:
            assert (await asyncio.to_thread(kept.ask, "/v2/")).status == 200
            await asyncio.to_thread(kept.body, 2)
            await served.reload(changed(config, names={"other": config.names["team/app"]}))
            other = TAG.replace("team/app", "other")
            assert (await asyncio.to_thread(kept.ask, other)).status == 200
            assert (await asyncio.to_thread(get, served.address, TAG))[0] == 404
            assert len(served.server._retired) == 1
            assert await asyncio.to_thread(client.body, length) == LARGE
            await until(lambda: not served.server._retired)


async def test_SRV46_a_configuration_that_cannot_be_used_changes_nothing(
    config: ServeConfig, tmp_path: Path
) -> None:
    async with serving(config) as served:
        broken = changed(config, names={}, htpasswd=tmp_path / "absent")
        with pytest.raises(ConfigurationError):
            await served.server.prepare(broken)
        await served.server.finish(use=True)  # nothing was prepared
        assert (await asyncio.to_thread(get, served.address, TAG))[0] == 200
        await served.server.prepare(changed(config, names={}))
        await served.server.finish(use=False)
        assert (await asyncio.to_thread(get, served.address, TAG))[0] == 200


async def test_SRV46_certificates_are_read_again(
    config: ServeConfig, tmp_path: Path, authority: Authority
) -> None:
    files = TlsFiles(cert=tmp_path / "tls.crt", key=tmp_path / "tls.key")

    def renew() -> bytes:
        leaf = authority._authority.issue_cert("127.0.0.1")
        leaf.cert_chain_pems[0].write_to_path(files.cert)
        leaf.private_key_pem.write_to_path(files.key)
        return leaf.cert_chain_pems[0].bytes()

    def seen(address: str) -> tuple[int, str]:
        with Client(address, authority.client_context()) as client:
            status = client.ask("/v2/").status
            shown = client.socket.getpeercert(binary_form=True)  # type: ignore[attr-defined]
            return status, ssl.DER_cert_to_PEM_cert(shown)

    secure = changed(config, tls=files)
    first = renew()
    async with serving(secure) as served:
        assert await asyncio.to_thread(seen, served.address) == (200, first.decode())
        second = renew()
        assert await asyncio.to_thread(seen, served.address) == (200, first.decode())
        await served.reload(secure)
        assert await asyncio.to_thread(seen, served.address) == (200, second.decode())
        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(Client, served.address, ssl.create_default_context())
        await until(lambda: not served.server._connections)
        files.key.write_bytes(trustme.CA().issue_cert("127.0.0.1").private_key_pem.bytes())
        with pytest.raises(ConfigurationError, match="tls"):
            await served.server.prepare(secure)
        assert await asyncio.to_thread(seen, served.address) == (200, second.decode())


async def test_SRV43_heads_are_limited_and_many_ranges_are_within(config: ServeConfig) -> None:
    async with serving(config) as served:
        client = await asyncio.to_thread(Client, served.address)
        with client:
            ranges = ",".join(f"{at * 100}-{at * 100 + 9}" for at in range(1024))
            head = await asyncio.to_thread(client.ask, BLOB, f"Range: bytes={ranges}")
            assert head.status == 206
            await asyncio.to_thread(client.body, head.length)
            for _ in range(3):  # pipelined: each head is one of its own
                await asyncio.to_thread(client.send, "/v2/", f"x: {'x' * (HEAD_BYTES // 2)}")
            for _ in range(3):
                assert await asyncio.to_thread(client.head) == (200, 2)
                await asyncio.to_thread(client.body, 2)
            lines = [f"x-{n}: {'x' * 1000}" for n in range(100)]
            assert sum(map(len, lines)) > HEAD_BYTES
            assert (await asyncio.to_thread(client.ask, "/v2/", *lines)).status == 431
            assert await asyncio.to_thread(client.is_closed)


async def test_a_server_listens_on_a_path(config: ServeConfig, tmp_path: Path) -> None:
    async with serving(config, Address(path=tmp_path / "registry.sock")) as served:
        assert (await asyncio.to_thread(get, served.address, TAG))[0] == 200
