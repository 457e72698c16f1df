"""What the machine says about registries, and the names that people type without a transport."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from asupplemented.testing import Authority, Basic, FakeRegistry, Status, build_image
from asupplemented.transports.registry import ConfigurationPaths
from tests.cli.conftest import call
from tests.cli.test_running import log_in
from tests.hostconfig.machine import Machine
from tests.transports.registry.configuring import table
from tests.transports.registry.proxy import run_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.cli.conftest import Answer

IMAGE = build_image()


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        opened.add("team/app", IMAGE)
        yield opened


@pytest.fixture
async def other() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        opened.add("copies/app", IMAGE)
        yield opened


async def run(*arguments: str) -> Answer:
    return await asyncio.to_thread(call, *arguments)


async def resolve(*arguments: str) -> Answer:
    answer = await run("resolve", "--json", *arguments)
    if answer.code == 0:
        assert answer.json["top"]["digest"] == IMAGE.digest
    return answer


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


async def test_CONF01_the_files_of_the_machine_are_read(
    registry: FakeRegistry,
    other: FakeRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(tmp_path / "root", tmp_path / "home")
    paths = ConfigurationPaths(root=machine.root, home=machine.home)
    monkeypatch.setattr(ConfigurationPaths, "default", lambda _: paths)
    machine.write_system(
        "containers/registries.conf", table(f"{registry.host}/team", f"{other.host}/copies")
    )
    answer = await resolve(registry.reference("team/app"))
    assert answer.code == 0, answer.err
    assert registry.requests == []


async def test_CONF01_a_file_may_be_named(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    conf = write(tmp_path / "x.conf", table(f"{registry.host}/team", f"{other.host}/copies"))
    other.script("*/manifests/*", Status(500), forever=True)
    reference = registry.reference("team/app")
    answer = await resolve(reference, "--registries-conf", conf)
    assert answer.code == 0, answer.err
    assert "so the next place is asked" in answer.err
    assert registry.count("*/manifests/*") == 1


async def test_CONF02_so_may_the_directory_of_drop_ins(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    write(tmp_path / "x.conf", table(registry.host, more="blocked = true"))
    answer = await resolve(registry.reference("team/app"), "--registries-conf-dir", str(tmp_path))
    assert answer.code == 1
    assert "blocked" in answer.err
    assert str(tmp_path / "x.conf") in answer.err


async def test_errors_name_the_file(registry: FakeRegistry, tmp_path: Path) -> None:
    conf = write(tmp_path / "x.conf", "[[registry")
    answer = await resolve(registry.reference("team/app"), "--registries-conf", conf)
    assert answer.code == 1
    assert conf in answer.err
    answer = await resolve("app", "--registries-conf", conf)
    assert answer.code == 2
    assert conf in answer.err


async def test_nothing_is_read_for_local_places(tmp_path: Path) -> None:
    answer = await run("resolve", f"oci:{tmp_path / 'none'}", "--registries-conf", "/nowhere")
    assert answer.code == 3  # the image is missing, and not the file


@pytest.mark.parametrize("flags", [(), ("--tls-verify",), ("--no-tls-verify",)])
async def test_TLS05_what_is_said_here_overrides_the_file(
    registry: FakeRegistry, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    conf = write(tmp_path / "x.conf", table(registry.host))
    answer = await resolve(registry.reference("team/app"), "--registries-conf", conf, *flags)
    assert (answer.code == 0) == ("--tls-verify" not in flags)


async def test_TLS01_certificates_are_read_from_a_directory(tmp_path: Path) -> None:
    authority = Authority()
    directory = authority.write(tmp_path / "certs", client=True)
    async with FakeRegistry(tls=authority.server_context(demand_client=True)) as secure:
        reference = secure.add("team/app", IMAGE)
        answer = await resolve(reference, "--cert-dir", str(directory))
        assert answer.code == 0, answer.err
        answer = await resolve(reference)
    assert answer.code == 1
    assert "certificate" in answer.err


async def test_SIG04_the_places_of_signatures_may_be_named(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    conf = write(tmp_path / "x.conf", table(registry.host))
    (tmp_path / "d").mkdir()
    file = write(tmp_path / "d" / "x.yaml", "docker: [")
    to = ("--to", f"oci:{tmp_path / 'out'}")
    where = ("--registries-conf", conf, "--registries.d", str(tmp_path / "d"))
    answer = await run("copy", registry.reference("team/app"), *to, *where)
    assert answer.code == 1
    assert file in answer.err


async def test_TLS07_proxies_are_those_of_the_environment(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_proxy({"registry.example": registry.host}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url("bob:hunter2@"))
        answer = await resolve("docker://registry.example/team/app:latest", "--no-tls-verify")
    assert answer.code == 0, answer.err
    assert proxy.asked[0].target.startswith("http://registry.example/v2/")


async def test_TLS07_a_proxy_that_is_none_is_named_and_not_shown(
    registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "socks5://bob:hunter2@proxy.example")
    answer = await resolve(registry.reference("team/app"))
    assert answer.code == 1
    assert "HTTP_PROXY" in answer.err
    assert "hunter2" not in answer.err


async def test_FILE12_helpers_are_those_of_registries_conf(
    registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.access = Basic({"ada": "correct horse"})
    said = json.dumps({"ServerURL": "x", "Username": "ada", "Secret": "correct horse"})
    helper = tmp_path / "docker-credential-here"
    helper.write_text(f"#!/bin/sh\ncat >/dev/null\necho '{said}'\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    conf = write(tmp_path / "x.conf", 'credential-helpers = ["here"]\n' + table(registry.host))
    reference = registry.reference("team/app")
    answer = await resolve(reference, "--registries-conf", conf)
    assert answer.code == 0, answer.err
    conf = write(tmp_path / "x.conf", table(registry.host))
    authfile = log_in(tmp_path / "auth.json", registry.host)
    answer = await resolve(reference, "--registries-conf", conf, "--authfile", str(authfile))
    assert answer.code == 0, answer.err


# Short names


async def test_SHORT01_an_alias_stands_for_an_image(registry: FakeRegistry, tmp_path: Path) -> None:
    lines = f'[aliases]\n"app" = "{registry.host}/team/app"\n'
    conf = write(tmp_path / "x.conf", lines + table(registry.host))
    answer = await resolve("app:latest", "--registries-conf", conf)
    assert answer.code == 0, answer.err
    assert answer.json["members"] == [registry.reference("team/app")]


async def test_SHORT01_else_registries_are_searched_in_order(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    search = f'unqualified-search-registries = ["{other.host}", "{registry.host}"]\n'
    conf = write(tmp_path / "x.conf", search + table(registry.host) + "\n" + table(other.host))
    where = ("--registries-conf", conf)
    answer = await resolve("team/app", *where)
    assert answer.code == 0, answer.err
    assert other.count("/v2/team/app/manifests/latest") == 1
    for command, told in (("tags", "latest"), ("digest", IMAGE.digest)):
        answer = await run(command, "team/app", *where)
        assert (answer.code, answer.out.strip()) == (0, told), answer.err
    answer = await resolve("nobodys/app", *where)
    assert answer.code == 3
    assert "another registry failed first" in answer.err
    assert other.host in answer.err
    assert registry.host in answer.err


async def test_SHORT01_enforcing_lets_nobody_guess(tmp_path: Path) -> None:
    conf = write(
        tmp_path / "x.conf",
        'unqualified-search-registries = ["a.invalid", "b.invalid"]\n'
        'short-name-mode = "enforcing"\n',
    )
    answer = await resolve("team/app", "--registries-conf", conf)
    assert answer.code == 2
    assert "a.invalid/team/app" in answer.err


async def test_SHORT01_a_full_name_needs_no_transport(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    conf = write(tmp_path / "x.conf", table(registry.host))
    answer = await resolve(f"{registry.host}/team/app", "--registries-conf", conf)
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("text", ["docker-daemon:app", "dokcer://host/app", "oci:", "/srv/app"])
async def test_SHORT01_what_is_something_else_is_no_name(tmp_path: Path, text: str) -> None:
    conf = write(tmp_path / "x.conf", 'unqualified-search-registries = ["a.invalid"]\n')
    answer = await resolve(text, "--registries-conf", conf)
    assert answer.code == 2
    assert "a.invalid" not in answer.err


async def test_SHORT01_a_name_with_a_transport_is_as_it_is(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    """To the transport itself, and to skopeo, it is an image of Docker Hub."""
    conf = write(
        tmp_path / "x.conf",
        f'[aliases]\n"app" = "{registry.host}/team/app"\n'
        + table("docker.io", location=f"{registry.host}/hub"),
    )
    registry.add("hub/library/app", IMAGE)
    answer = await resolve("docker://app", "--registries-conf", conf)
    assert answer.code == 0, answer.err
    assert registry.count("/v2/hub/library/app/*") == 1
