"""The page of guides does what it says: its files and commands, with the addresses of a test."""

from __future__ import annotations

import asyncio
import shlex
import tomllib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import pytest

from asupplemented.aio.retry import CLOCK
from asupplemented.cache.sharing import settle
from asupplemented.serve.config import load_config, open_config
from asupplemented.testing import Cut, FakeRegistry, Slow, build_image, build_index, write_layout
from tests.cli.conftest import AMD, ARM, BASE, TOP, call, called, whole
from tests.cli.test_serving import line_with, program
from tests.clocks import FakeClock
from tests.modules import ROOT, code_blocks, read_page
from tests.web.clients import Client, aiohttp_client
from tests.web.test_guide import localized

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.testing.images import BuiltImage, BuiltIndex

Built: TypeAlias = "BuiltImage | BuiltIndex"

PAGES = ("howto/air-gap.md", "howto/mirrors.md", "howto/hosts.md", "howto/clients.md")
GUIDES = "\n".join(map(read_page, PAGES))
AIRGAP, SLOW_LINE, MIRRORS, HOSTS, CONTAINERD = code_blocks(GUIDES, "toml")
APP = "/v2/registry.example/team/app"
NEXT = build_index([build_image("linux/amd64", [BASE, {"a": "2"}]), ARM])


def command(*words: str) -> list[str]:
    """The arguments of the only command of the page with these words."""
    lines = "".join(code_blocks(GUIDES, "console")).splitlines()
    [found] = [line for line in lines if all(word in line for word in words)]
    return shlex.split(found.removeprefix("$ "))


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        opened.add("team/app", TOP, tag="1.4")
        yield opened


@asynccontextmanager
async def serving(
    text: str, directory: Path, places: dict[str, str] | None = None
) -> AsyncIterator[Client]:
    """A configuration of the page, whose references lead elsewhere, and a client of it."""
    for place, other in {
        "/srv": str(directory),
        "/var/cache": str(directory),
        **(places or {}),
    }.items():
        text = text.replace(place, other)
    path = directory / "serve.toml"
    path.write_text(f"tls_verify = false\n{text}")
    async with open_config(load_config(path)) as opened:
        clock = FakeClock()
        opened.session.resource(CLOCK, lambda: clock.clock)
        async with aiohttp_client(opened.catalog, opened.session) as client:
            yield client
            await settle(opened.session)


async def pull(client: Client, tag: str, image: Built, app: str = APP) -> None:
    """Read all of an image, as a client does that keeps lists."""
    top = await client.get(f"{app}/manifests/{tag}")
    assert (top.status, top.body) == (200, image.raw)
    for manifest in image.walk():
        assert (await client.get(f"{app}/manifests/{manifest.digest}")).body == manifest.raw
    for digest, content in image.blobs.items():
        assert (await client.get(f"{app}/blobs/{digest}")).body == content


def asked(registry: FakeRegistry) -> list[str]:
    return [request.path for request in registry.requests]


async def test_an_air_gapped_site_contacts_no_registry(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    (tmp_path / "airgap").mkdir()
    _, *arguments = command("asupplemented copy")
    places = {"registry.example": registry.host, "/srv": str(tmp_path)}
    for place, other in places.items():
        arguments = [each.replace(place, other) for each in arguments]
    answer = await called(*arguments, "--no-tls-verify")
    assert answer.code == 0, answer.err
    before = len(registry.requests)
    async with serving(AIRGAP, tmp_path) as client:
        for tag in ("1.4", "latest"):
            await pull(client, tag, TOP)
        assert (await client.get(f"{APP}/manifests/1.5")).status == 404
    assert len(registry.requests) == before


async def test_a_slow_line_is_used_for_what_the_layout_lacks_only(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    registry.add("team/app", NEXT, tag="1.5")
    write_layout(tmp_path / "airgap" / "app", TOP, name="1.4")
    places = {"docker://registry.example": f"docker://{registry.host}"}
    async with serving(SLOW_LINE, tmp_path, places) as client:
        for _ in range(2):
            await pull(client, "1.4", TOP)
        assert asked(registry) == ["/v2/team/app/manifests/1.4"]
        for _ in range(2):
            await pull(client, "1.5", NEXT)
        lacking = whole(NEXT) - whole(TOP) - {NEXT.digest}
        paths = asked(registry)[1:]
        assert paths[0] == "/v2/team/app/manifests/1.5"
        assert sorted(path.rpartition("/")[2] for path in paths[1:]) == sorted(lacking)
        await registry.aclose()
    # After a restart, the line is still down.
    async with serving(SLOW_LINE, tmp_path, places) as client:
        await pull(client, TOP.digest, TOP)
        assert (await client.get(f"{APP}/manifests/1.4")).status >= 500


async def test_an_image_of_which_the_layout_has_one_platform(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    write_layout(tmp_path / "airgap" / "app", AMD, name="1.4")
    places = {"docker://registry.example": f"docker://{registry.host}"}
    async with serving(SLOW_LINE, tmp_path, places) as client:
        await pull(client, "1.4", TOP)
    blobs = [path for path in asked(registry) if "/blobs/" in path]
    lacking = set(ARM.blobs) - set(AMD.blobs)
    assert sorted(blobs) == sorted(f"/v2/team/app/blobs/{digest}" for digest in lacking)


async def test_mirrors_are_asked_before_the_registry_and_never_make_a_tag_older(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    async with FakeRegistry() as current, FakeRegistry() as behind:
        places = {"quay.io/{": f"{registry.host}/{{", "mirror-a.lan:5000": current.host}
        places["mirror-b.lan:5000"] = behind.host
        registry.add("team/app", NEXT)
        current.add("team/app", NEXT)
        behind.add("team/app", TOP)
        kept = ARM.layers[1]
        [new] = [digest for digest in NEXT.members[0].blobs if digest not in AMD.blobs][1:]
        current.script(new, Cut(1), forever=True)
        async with serving(MIRRORS, tmp_path, places) as client:
            await pull(client, "latest", NEXT, "/v2/quay.io/team/app")
            assert [
                [each.count(f"*/blobs/{digest}") > 0 for digest in (kept, new)]
                for each in (behind, current, registry)
            ] == [[True, False], [False, True], [False, True]]
            await current.aclose()
            await behind.aclose()
            await pull(client, "latest", NEXT, "/v2/quay.io/team/app")
        assert registry.count(f"*/blobs/{kept}") == 1


def test_several_hosts_have_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "serve.toml"
    path.write_text(HOSTS)
    config = load_config(path, files=False)
    assert config.cache is not None
    assert (config.cache.storage, config.redis) == ("s3://bucket/cache", "redis://redis.lan:6379/0")


def test_containerd_and_podman_are_told_of_the_server(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(MIRRORS)
    for client, files in (
        ("podman", ["asupplemented.conf"]),
        ("containerd", ["_default/hosts.toml", "quay.io/hosts.toml"]),
    ):
        _, *arguments, path = command("mirrors", client)
        arguments[arguments.index("serve.toml")] = str(tmp_path / "serve.toml")
        written = tmp_path / client
        answer = call(*arguments, str(written))
        assert (answer.code, answer.out) == (0, "")
        found = sorted(each for each in written.rglob("*") if each.is_file())
        assert [str(each.relative_to(written)) for each in found] == files
        assert all("10.0.0.5:5000" in each.read_text() for each in found)
        if client == "containerd":
            [plugin] = tomllib.loads(CONTAINERD)["plugins"].values()
            assert plugin == {"registry": {"config_path": path}}
            assert path in command("ctr images pull")
            assert path in answer.err


@pytest.mark.slow
@pytest.mark.parametrize("words", ["asupplemented serve", "uvicorn"])
async def test_workers_share_one_cache(words: str, registry: FakeRegistry, tmp_path: Path) -> None:
    layer = AMD.layers[1]
    registry.script(layer, Slow(64, seconds=0.001), forever=True)
    _, *arguments = command(words)
    if words == "uvicorn":
        example = (ROOT / "docs" / "examples" / "fastapi_proxy.py").read_text("utf-8")
        (tmp_path / "fastapi_proxy.py").write_text(localized(example, registry, tmp_path))
        places = {"docs/examples": str(tmp_path), "5000": "0"}
        module, told, app = "uvicorn", "running on http://", "quay.io/team/app"
        ready = ["Application startup complete"] * 2
    else:
        places = {"quay.io": registry.host, "/srv/cache": str(tmp_path / "cache")}
        arguments += ["--listen", "127.0.0.1:0", "--no-tls-verify"]
        module, told, app = "asupplemented", "serving on ", f"{registry.host}/team/app"
        ready = []
    places["4"] = "2"  # enough to share, and sooner there
    arguments = [places.get(each, each) for each in arguments]
    async with program(module, *arguments) as process, aiohttp.ClientSession() as client:
        address = (await line_with(process, told)).split()[0]
        for each in ready:
            await line_with(process, each)

        async def read() -> bytes:
            url = f"http://{address}/v2/{app}/blobs/{layer}"
            async with client.get(url, headers={"Connection": "close"}) as response:
                return await response.read()

        answers = await asyncio.gather(*(read() for _ in range(32)))
        process.terminate()
        await process.communicate()
    assert set(answers) == {AMD.blobs[layer]}
    # A worker that has not read the manifest asks for the size by a range of one byte.
    requests = registry.select_requests(f"*/blobs/{layer}")
    ranges = [dict(each.headers).get("Range") for each in requests]
    assert ranges.count(None) == 1
    assert set(ranges) == {None, "bytes=0-0"}
