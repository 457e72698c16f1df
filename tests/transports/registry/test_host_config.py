"""What a session knows of the system: read once, off the loop, told once, read again on demand."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import asupplemented as asup
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.errors import ConfigurationError
from asupplemented.events import Warned
from asupplemented.hostconfig.registries import Registries
from asupplemented.session import Session
from asupplemented.testing import FakeRegistry
from asupplemented.transports import parse_reference
from asupplemented.transports.registry import (
    OPTIONS,
    ConfigurationPaths,
    RegistryOptions,
    reload_configuration,
)
from asupplemented.transports.registry.host_config import KEPT, HostConfig
from asupplemented.transports.registry.signatures import attachment_tag
from tests.transports.registry.configuring import Configured, table
from tests.transports.registry.sessions import IMAGE, OPTIONS_HERE, fill, watch
from tests.transports.registry.signing import SIGNATURES, get, looking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path


@pytest.fixture
def system(tmp_path: Path) -> Configured:
    return Configured.make(tmp_path)


@pytest.fixture
async def mirror() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        fill(opened, "copies/app")
        yield opened


# Settings


def test_the_face_offers_what_a_session_is_given() -> None:
    assert (asup.RegistryOptions, asup.ConfigurationPaths) == (RegistryOptions, ConfigurationPaths)
    assert asup.Proxies.from_environment({}) == asup.Proxies()


async def test_options_are_a_setting() -> None:
    options = RegistryOptions(user_agent="proxy/1")
    async with Session(settings=[options]) as session:
        assert session.resource(OPTIONS, RegistryOptions) is options
        assert isinstance(options, asup.abc.Setting)


async def test_options_may_still_be_made_first(registry: FakeRegistry) -> None:
    async with Session(tls_verify=False) as session:
        session.resource(CLOCK, Clock)
        session.resource(OPTIONS, lambda: replace(OPTIONS_HERE, user_agent="proxy/1"))
        async with parse_reference(fill(registry)).open(session):
            pass
    assert registry.requests[-1].header("User-Agent") == "proxy/1"


def test_two_of_one_kind_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two settings are registry options"):
        Session(settings=[RegistryOptions(), RegistryOptions()])


# Reading


async def test_CONF21_files_are_parsed_once_in_a_worker_thread(
    registry: FakeRegistry, system: Configured, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    parse = Registries.parse

    def count(texts: Sequence[tuple[Path, str]], main: Path | None) -> Registries:
        threads.append(threading.current_thread())
        return parse(texts, main)

    monkeypatch.setattr(Registries, "parse", count)
    system.write_registries(table(registry.host))
    reference = fill(registry)
    async with system.watch() as watched:
        assert threads == []
        await asyncio.gather(*(watched.try_open(reference) for _ in range(20)))
        await watched.try_open(reference)
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_CONF21_a_failure_is_not_remembered(
    registry: FakeRegistry, system: Configured
) -> None:
    conf = system.write_registries("[[registry")
    async with system.watch() as watched:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=str(conf)):
                await watched.try_open(fill(registry))
        system.write_registries(table(registry.host))
        await watched.try_open(fill(registry))


async def test_CONF21_files_are_read_again_on_demand(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured
) -> None:
    system.write_registries(table(registry.host))
    reference = fill(registry)
    async with system.watch() as watched:
        await watched.try_open(reference)
        conf = system.write_registries(table(f"{registry.host}/team", f"{mirror.host}/copies"))
        await watched.try_open(reference)
        assert mirror.requests == []
        await reload_configuration(watched.session)
        await watched.try_open(reference)
        assert mirror.count("*/manifests/*") == 1
        conf.write_text("[[registry")
        with pytest.raises(ConfigurationError, match=str(conf)):
            await reload_configuration(watched.session)
        await watched.try_open(reference)
        assert mirror.count("*/manifests/*") == 2  # what was read before stays in force


async def test_CONF21_without_files_there_is_nothing_to_read_again() -> None:
    async with Session() as session:
        await reload_configuration(session)


async def test_CONF01_a_file_that_was_named_must_exist(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    paths = ConfigurationPaths(registries=tmp_path / "none.conf")
    options = replace(OPTIONS_HERE, configuration=paths)
    async with watch(options=options) as watched:
        with pytest.raises(ConfigurationError, match=r"none\.conf"):
            await watched.try_open(fill(registry))
    assert registry.requests == []


async def test_CONF04_what_is_odd_is_told_once(registry: FakeRegistry, system: Configured) -> None:
    system.write_registries("colour = 'red'", table(registry.host))
    async with system.watch() as watched:
        await asyncio.gather(*(watched.try_open(fill(registry)) for _ in range(5)))
        [warning] = watched.told(Warned)
    assert "colour" in warning.message


async def test_CONF10_a_prefix_that_lost_by_its_spelling_is_told_once(
    registry: FakeRegistry, system: Configured
) -> None:
    place = registry.host
    system.write_registries(
        table("*.b.invalid", location=f"{place}/x"), table("a.b.invalid", location=f"{place}/y")
    )
    fill(registry, "x/app")
    async with system.watch() as watched:
        for _ in range(2):
            await watched.try_open("docker://a.b.invalid/app:latest")
        [warning] = watched.told(Warned)
    assert "a.b.invalid" in warning.message


async def test_certificates_of_few_registries_are_remembered(system: Configured) -> None:
    async with system.watch() as watched:
        known = HostConfig.of(watched.session)
        for number in range(KEPT + 5):
            name = asup.parse_reference(f"docker://h{number}.invalid/a").name  # type: ignore[attr-defined]
            [candidate] = await known.list_candidates(name, print)
            await known.make_endpoint_config(candidate, print)
        assert len(known._certificates) == KEPT


# Signatures


def write_signatures(directory: Path, path: str) -> Path:
    """Put signatures where a lookaside has them (rule SIG-02)."""
    place = directory / f"{path}@{IMAGE.digest.replace(':', '=')}"
    place.mkdir(parents=True)
    for number, signature in enumerate(SIGNATURES, 1):
        (place / f"signature-{number}").write_bytes(signature.to_blob())
    return directory


async def test_SIG04_signatures_lie_where_registries_d_says(
    registry: FakeRegistry, system: Configured, tmp_path: Path
) -> None:
    store = write_signatures(tmp_path / "store", "team/app")
    system.write_registries(table(registry.host))
    system.write_system(
        "containers/registries.d/x.yaml",
        f"docker:\n  {registry.host}:\n    lookaside: file://{store}\n",
    )
    async with system.watch() as watched:
        assert await get(watched, fill(registry)) == SIGNATURES


async def test_SIG05_else_where_the_user_keeps_them(
    registry: FakeRegistry, system: Configured
) -> None:
    write_signatures(system.home / ".local/share/containers/sigstore", "team/app")
    system.write_registries(table(registry.host))
    async with system.watch() as watched:
        assert await get(watched, fill(registry)) == SIGNATURES


async def test_CONF18_signatures_are_looked_for_by_the_physical_name(
    registry: FakeRegistry, mirror: FakeRegistry, system: Configured, tmp_path: Path
) -> None:
    ours = write_signatures(tmp_path / "ours", "copies/app")
    theirs = tmp_path / "theirs"
    system.write_registries(table(f"{registry.host}/team", f"{mirror.host}/copies"))
    system.write_system(
        "containers/registries.d/x.yaml",
        f"""
        docker:
          {mirror.host}/copies: {{lookaside: "file://{ours}"}}
          {registry.host}: {{lookaside: "file://{theirs}"}}
        """,
    )
    reference = fill(registry)
    async with system.watch() as watched:
        assert await get(watched, reference) == SIGNATURES
        mirror.script("*/manifests/*", lambda answer, _: replace(answer, status=500), forever=True)
        assert await get(watched, reference) == ()


async def test_SIG06_attachments_are_looked_for_if_that_is_configured(
    registry: FakeRegistry, system: Configured
) -> None:
    system.write_registries(table(registry.host))
    tag = attachment_tag(IMAGE.digest)
    reference = fill(registry)
    async with system.watch() as watched:
        await get(watched, reference)
        assert registry.count(f"*/manifests/{tag}") == 0
    system.write_system(
        "containers/registries.d/x.yaml",
        f"docker: {{'{registry.host}': {{use-sigstore-attachments: true}}}}",
    )
    async with system.watch() as watched:
        await get(watched, reference)
        await get(watched, reference)
        assert registry.count(f"*/manifests/{tag}") == 2


async def test_SIG04_a_file_that_cannot_be_followed_is_named_when_signatures_are_asked_for(
    registry: FakeRegistry, system: Configured
) -> None:
    system.write_registries(table(registry.host))
    file = system.write_system("containers/registries.d/x.yaml", "docker: [")
    async with system.watch() as watched, await watched.open(fill(registry)) as source:
        with pytest.raises(ConfigurationError, match=str(file)):
            await source.get_signatures()
        file.write_text("colour: red")
        assert await source.get_signatures() == ()
        assert await source.get_signatures() == ()
        [warning] = watched.told(Warned)
    assert "colour" in warning.message


async def test_SIG04_places_that_are_given_go_before_files(
    registry: FakeRegistry, system: Configured, tmp_path: Path
) -> None:
    store = write_signatures(tmp_path / "store", "team/app")
    system.write_registries(table(registry.host))
    system.write_system("containers/registries.d/x.yaml", "docker: [")
    options = replace(looking(f"file://{store}"), configuration=system.paths)
    async with system.watch(options) as watched:
        assert await get(watched, fill(registry)) == SIGNATURES
