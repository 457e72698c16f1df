"""The page of guides, with the programs that it names: nginx, Redis, object storage, containerd."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import aiohttp

from asupplemented.serve.config import ServeConfig
from asupplemented.testing import Cut, FakeRegistry, Slow, Status, build_image
from tests.cli.test_serving import line_with, program
from tests.interop.programs import find, run
from tests.interop.reading import read_reference
from tests.interop.servers import HOST, run_server
from tests.interop.storage import Bucket, run_redis, run_s3
from tests.modules import code_blocks, read_page
from tests.serve.clients import IMAGE, LARGE, Client
from tests.serve.test_server import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator
    from pathlib import Path

    import pytest

    import asupplemented as asup
    from tests.interop.busybox import Family
    from tests.interop.places import Places
    from tests.interop.programs import Skopeo
    from tests.interop.servers import Certificates

HOSTS, NGINX_PAGE = read_page("howto/hosts.md"), read_page("howto/nginx.md")

NGINX = """
daemon off;
user root;
pid {0}/nginx.pid;
error_log {0}/error.log warn;
error_log stderr notice;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {0}/tmp;
    proxy_temp_path {0}/tmp;
    fastcgi_temp_path {0}/tmp;
    uwsgi_temp_path {0}/tmp;
    scgi_temp_path {0}/tmp;
    include {0}/registry.conf;
}}
"""


@contextmanager
def run_nginx(directory: Path, upstream: str, certificates: Certificates) -> Generator[str]:
    """Run nginx as the guide configures it, in front of a server; gives its address."""
    [text] = code_blocks(NGINX_PAGE, "nginx")
    directory.mkdir()
    (directory / "nginx.conf").write_text(NGINX.format(directory))
    with socket.create_server((HOST, 0)) as listening:  # no other program can take the port then
        address = f"{HOST}:{listening.getsockname()[1]}"
        for place, other in {
            "listen 443": f"listen {address}",
            "127.0.0.1:5000": upstream,
            "/etc/ssl/registry.crt": str(certificates.chain),
            "/etc/ssl/registry.key": str(certificates.key),
        }.items():
            assert place in text
            text = text.replace(place, other)
        (directory / "registry.conf").write_text(text)
        command = [find("nginx"), "-e", "stderr", "-p", str(directory)]
        with run_server([*command, "-c", str(directory / "nginx.conf")], (listening,)) as server:
            server.wait_for(re.compile(r"(nginx/\d\S*)"))
            yield address


async def test_SRV47_skopeo_pulls_through_nginx(
    family: Family,
    skopeo: Skopeo,
    places: Places,
    certificates: Certificates,
    session: asup.Session,
    tmp_path: Path,
) -> None:
    upstream, copy = places.find("docker", "family"), places.find("oci", "family")
    skopeo.copy(family.reference(), upstream, "--all")
    config = ServeConfig(names={"team/family": upstream}, tls_verify=False, access_log="off")
    async with serving(config) as served:
        with run_nginx(tmp_path / "nginx", served.address, certificates) as address:
            pulled = f"docker://{address}/team/family:1"
            await asyncio.to_thread(skopeo.copy, pulled, copy, "--all", "--preserve-digests")
    assert await read_reference(copy, session) == family.contents()


async def test_SRV47_nginx_sends_what_the_server_sends(
    certificates: Certificates, tmp_path: Path
) -> None:
    trusting = ssl.create_default_context(cafile=certificates.authority)
    broken = build_image(layers=[bytes(8 << 20)], gzip=False)
    async with FakeRegistry() as registry:
        reference = f"docker://{registry.host}/{{name}}"
        registry.add("team/app", IMAGE)
        registry.add("team/broken", broken)
        registry.script(broken.layers[0], Cut(4 << 20))
        registry.script(broken.layers[0], Status(404), forever=True)
        config = ServeConfig(names={"team/*": reference}, tls_verify=False, access_log="off")
        async with serving(config) as served:
            with run_nginx(tmp_path / "nginx", served.address, certificates) as address:
                client = await asyncio.to_thread(Client, address, trusting)
                with client:
                    blob = f"/v2/team/app/blobs/{IMAGE.layers[0]}"
                    ranges = ",".join(f"{at * 100}-{at * 100 + 9}" for at in range(1024))
                    head = await asyncio.to_thread(client.ask, blob, f"Range: bytes={ranges}")
                    assert head.status == 206
                    await asyncio.to_thread(client.body, head.length)
                    # Buffered, what the client does not read meanwhile would be in a file.
                    assert await asyncio.to_thread(client.ask, blob) == (200, len(LARGE))
                    with await asyncio.to_thread(Client, address, trusting) as other:
                        await asyncio.to_thread(other.ask, blob)
                        assert await asyncio.to_thread(other.body, len(LARGE)) == LARGE
                    assert await asyncio.to_thread(client.body, len(LARGE)) == LARGE
                    tag = "/v2/team/broken/manifests/latest"
                    cut = f"/v2/team/broken/blobs/{broken.layers[0]}"
                    manifest = await asyncio.to_thread(client.ask, tag)
                    await asyncio.to_thread(client.body, manifest.length)
                    assert await asyncio.to_thread(client.ask, cut) == (200, 8 << 20)
                    received = await asyncio.to_thread(client.body, 8 << 20)
                    assert len(received) < 8 << 20
                    assert await asyncio.to_thread(client.is_closed)
        logged = (tmp_path / "nginx" / "error.log").read_text()
    assert "temporary file" not in logged


@asynccontextmanager
async def run_host(directory: Path, text: str) -> AsyncIterator[str]:
    """A host with a configuration and a cache of its own; gives its address."""
    directory.mkdir()
    path = directory / "serve.toml"
    path.write_text(text.replace("/var/cache", str(directory)))
    async with program("asupplemented", "serve", "--config", str(path)) as process:
        yield await line_with(process, "serving on ")
        process.terminate()
        await process.communicate()  # it waits for its uploads


async def test_several_hosts_download_a_blob_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = build_image(layers=[bytes(range(256)) * 16384], gzip=False)
    [layer] = image.layers
    [text] = code_blocks(HOSTS, "toml")
    with run_s3() as endpoint, run_redis(tmp_path / "redis.sock", "password") as redis:
        bucket = Bucket(endpoint, "bucket")
        bucket.ask(method="PUT")
        for name, value in {
            "AWS_ACCESS_KEY_ID": "clara",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT": endpoint,
            "AWS_ALLOW_HTTP": "true",
        }.items():
            assert f"`{name}" in HOSTS
            monkeypatch.setenv(name, value)
        async with FakeRegistry() as registry, aiohttp.ClientSession() as client:
            registry.add("team/app", image)
            registry.script(layer, Slow(64 * 1024, seconds=0.001), forever=True)
            text = text.replace("redis://redis.lan:6379/0", redis)
            text = text.replace("0.0.0.0:5000", "127.0.0.1:0")
            text = text.replace("docker://docker.io", f"docker://{registry.host}")
            text = f"tls_verify = false\n{text}"

            async def pull(address: str) -> bytes:
                url = f"http://{address}/v2/docker.io/team/app"
                async with client.get(f"{url}/manifests/latest") as response:
                    assert await response.read() == image.raw
                async with client.get(f"{url}/blobs/{layer}") as response:
                    return await response.read()

            async with (
                run_host(tmp_path / "one", text) as one,
                run_host(tmp_path / "other", text) as other,
            ):
                answers = await asyncio.gather(pull(one), pull(other), pull(one))
            async with run_host(tmp_path / "late", text) as late:
                answers.append(await pull(late))
            assert set(answers) == {image.blobs[layer]}
            requests = registry.select_requests(f"*/blobs/{layer}")
            assert [dict(each.headers).get("Range") for each in requests].count(None) == 1


def test_containerd_reads_its_files_where_the_guide_says(tmp_path: Path) -> None:
    [text] = code_blocks(read_page("howto/clients.md"), "toml")
    path = tmp_path / "config.toml"
    path.write_text(text)
    assert b'config_path = "/etc/containerd/certs.d"' in run(
        "containerd", "--config", str(path), "config", "dump"
    )
