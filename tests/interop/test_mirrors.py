"""Mirrors and certificates as a system has them configured: read by skopeo, and by us."""

from __future__ import annotations

import shutil
import socket
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import asupplemented as asup
from asupplemented.events import BlobStarted
from tests.interop.programs import ProgramError
from tests.interop.reading import read_reference
from tests.interop.servers import HOST, run_cutter, run_mirror, run_registry
from tests.transports.registry.configuring import table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asupplemented.events import Event
    from tests.interop.busybox import Family
    from tests.interop.programs import Home, Skopeo
    from tests.interop.servers import Account, Certificates, Registry

NAME = "mirrored/app:1"
BLOBS = "location ~ ^/v2/.*/blobs/(sha256):(..)(.*)$"


@pytest.fixture(scope="module")
def source(family: Family, registry: Registry, skopeo: Skopeo) -> Registry:
    """A registry that has the image."""
    skopeo.copy(family.reference(), registry.reference(NAME), "--all")
    return registry


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def mirror(
    request: pytest.FixtureRequest, source: Registry, tmp_path: Path, running: ExitStack
) -> str:
    """A mirror in the state that the test asks for; its ``host:port``."""
    behind = f"proxy_pass http://{source.address}; proxy_set_header Host $http_host;"
    state: str = request.param
    match state:
        case "away":
            with socket.create_server((HOST, 0)) as listening:
                return f"{HOST}:{listening.getsockname()[1]}"
        case "whole":
            locations = f"location / {{ {behind} }}"
        case "empty":
            locations = "location = /v2/ { return 200; } location / { return 404; }"
        case "busy":
            locations = "location / { return 503; }"
        case "without blobs":
            locations = f"location / {{ {behind} }} {BLOBS} {{ return 404; }}"
        case "cut":
            cutter = running.enter_context(run_cutter())
            cut = f"proxy_pass http://{cutter}; proxy_http_version 1.1;"
            locations = f"location / {{ {behind} }} {BLOBS} {{ {cut} }}"
        case "lying":
            root = corrupt(source, tmp_path)
            file = f"{root}/docker/registry/v2/blobs/$1/$2/$2$3/data"
            locations = f"location / {{ {behind} }} {BLOBS} {{ alias {file}; }}"
        case _:
            pytest.fail(f"no such state: {state}")
    return running.enter_context(run_mirror(tmp_path / "mirror", locations))


def corrupt(source: Registry, directory: Path) -> Path:
    """A copy of a store with another last byte in each blob that is large."""
    root = directory / "store"
    shutil.copytree(source.store / "docker/registry/v2/blobs", root / "docker/registry/v2/blobs")
    for file in root.rglob("data"):
        data = bytearray(file.read_bytes())
        if len(data) > 10_000:
            data[-1] ^= 0xFF
            file.write_bytes(data)
    return root


def configure(directory: Path, source: Registry, mirror: str) -> Path:
    conf = directory / "registries.conf"
    conf.write_text(table(f"{source.address}/mirrored", f"{mirror}/mirrored"))
    return conf


FALLING_OVER = ["whole", "away", "empty", "busy"]
"""States of which other programs make the best, too."""


@pytest.mark.parametrize("mirror", [*FALLING_OVER, "without blobs", "cut", "lying"], indirect=True)
async def test_CONF18_the_image_is_whole_whatever_the_mirror_does(
    request: pytest.FixtureRequest, family: Family, source: Registry, mirror: str, tmp_path: Path
) -> None:
    paths = asup.ConfigurationPaths(registries=configure(tmp_path, source, mirror))
    events: list[Event] = []
    settings = [asup.RegistryOptions(configuration=paths)]
    async with asup.Session(settings=settings, hooks=[events.append]) as session:
        found = await read_reference(source.reference(NAME), session)
    assert found == family.contents()
    started = [event.reference for event in events if isinstance(event, BlobStarted)]
    places = {reference.partition("//")[2].partition("/")[0] for reference in started}
    state: str = request.node.callspec.params["mirror"]
    assert (mirror in places) == (state in {"whole", "cut", "lying"})
    assert (source.address in places) == (state != "whole")


@pytest.mark.parametrize("mirror", FALLING_OVER, indirect=True)
def test_CONF14_skopeo_reads_the_same(
    family: Family, source: Registry, mirror: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    theirs = replace(skopeo, registries_conf=configure(tmp_path, source, mirror))
    assert theirs.read_raw(source.reference(NAME)) == family.index
    copied = tmp_path / "copied"
    theirs.copy(source.reference(NAME), f"dir:{copied}", "--all")
    names = {digest.partition(":")[2] for digest in family.contents().blobs}
    assert names <= {file.name for file in copied.iterdir()}


@pytest.mark.parametrize("mirror", ["without blobs", "lying"], indirect=True)
def test_CONF14_to_skopeo_the_first_mirror_that_answers_is_final(
    source: Registry, mirror: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    theirs = replace(skopeo, registries_conf=configure(tmp_path, source, mirror))
    with pytest.raises(ProgramError):
        theirs.copy(source.reference(NAME), f"dir:{tmp_path / 'copied'}", "--all")


@pytest.mark.parametrize("mirror", ["whole"], indirect=True)
async def test_CONF17_a_blocked_registry_is_read_from_its_mirror(
    family: Family, source: Registry, mirror: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    conf = configure(tmp_path, source, mirror)
    place = source.address
    conf.write_text(table(f"{place}/mirrored", f"{mirror}/mirrored", more="blocked = true"))
    theirs = replace(skopeo, registries_conf=conf)
    assert theirs.read_raw(source.reference(NAME)) == family.index
    paths = asup.ConfigurationPaths(registries=conf)
    async with asup.Session(settings=[asup.RegistryOptions(configuration=paths)]) as session:
        assert await read_reference(source.reference(NAME), session) == family.contents()


# Certificates


@pytest.fixture
def demanding(
    source: Registry, certificates: Certificates, account: Account, tmp_path: Path
) -> Iterator[Registry]:
    """A registry over TLS that wants a client certificate and a password."""
    with run_registry(
        tmp_path / "demanding",
        store=source.store,
        certificates=certificates,
        demand_client=True,
        account=account,
    ) as opened:
        yield opened


@pytest.fixture
def trusting(home: Home, demanding: Registry, certificates: Certificates) -> Iterator[Path]:
    """A home with a certs.d that has what is needed for the registry."""
    directory = home.settings / "certs.d" / demanding.address
    shutil.copytree(certificates.identity, directory)
    yield home.path
    shutil.rmtree(directory.parent)


def options(home: Path | None = None) -> asup.RegistryOptions:
    return asup.RegistryOptions(configuration=asup.ConfigurationPaths(home=home))


async def test_TLS01_TLS03_the_certificates_of_a_home_are_ours_and_theirs(
    family: Family,
    demanding: Registry,
    account: Account,
    trusting: Path,
    skopeo: Skopeo,
) -> None:
    reference = demanding.reference(NAME)
    verify = ("--tls-verify=true", f"--creds={account.text}")
    assert skopeo.read_raw(reference, *verify) == family.index
    credentials = {demanding.address: (account.user, account.password)}
    async with asup.Session(credentials=credentials, settings=[options(trusting)]) as session:
        assert await read_reference(reference, session) == family.contents()


async def test_TLS03_without_a_client_certificate_nobody_is_let_in(
    demanding: Registry, account: Account, certificates: Certificates, skopeo: Skopeo
) -> None:
    reference = demanding.reference(NAME)
    verify = ("--tls-verify=true", f"--creds={account.text}")
    trusted = certificates.authority.parent
    with pytest.raises(ProgramError, match=r"certificate|tls"):
        skopeo.read_raw(reference, *verify, f"--cert-dir={trusted}")
    paths = asup.ConfigurationPaths(certificates=trusted)
    once = asup.RetryPolicy(attempts=1)
    settings = [asup.RegistryOptions(configuration=paths, retry=once)]
    credentials = {demanding.address: (account.user, account.password)}
    async with asup.Session(credentials=credentials, settings=settings) as session:
        with pytest.raises(asup.NetworkError):
            await asup.parse_reference(reference).open(session)
