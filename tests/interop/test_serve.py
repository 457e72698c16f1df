"""``asupplemented serve`` before layouts and docker-registry, and what pulls through it."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest

from tests.interop.busybox import HELD, LOST
from tests.interop.conftest import LARGE_SIZE
from tests.interop.places import at_digest
from tests.interop.programs import SECONDS
from tests.interop.pullers import DOCKER_HUB, QUAY, Clients, curl
from tests.interop.servers import HOST, run_server

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from asupplemented.testing import BuiltImage
    from tests.interop.busybox import Family
    from tests.interop.programs import Home, Skopeo
    from tests.interop.pullers import Client
    from tests.interop.servers import Registry, Server

FAMILY: Final = "library/family:1"
HOLEY: Final = "team/holey:1"
LARGE: Final = "team/large"

_SERVING: Final = re.compile(r"serving on (\S+)")


@dataclass(frozen=True)
class Served:
    """A running command.

    Attributes:
        address: ``host:port``.
    """

    address: str
    server: Server

    def blob(self, name: str, digest: str) -> str:
        """The URL of a blob in a repository of the mirrored registry."""
        return f"http://{self.address}/v2/{QUAY}/{name}/blobs/{digest}"


@contextmanager
def serve(directory: Path, home: Home, upstream: Registry, *names: str) -> Generator[Served]:
    """Mirror two registries that docker-registry stands for, and serve further names."""
    directory.mkdir()
    registries_conf = directory / "registries.conf"
    registries_conf.write_text(
        "".join(
            f'[[registry]]\nprefix = "{each}"\nlocation = "{upstream.address}"\ninsecure = true\n'
            for each in (DOCKER_HUB, QUAY)
        )
    )
    command = [sys.executable, "-m", "asupplemented", "serve"]
    command += [f"--mirror={DOCKER_HUB}", f"--mirror={QUAY}", *names]
    command += [f"--listen={HOST}:0", f"--cache={directory / 'cache'}", "--workers=2"]
    environment = home.environment | {"CONTAINERS_REGISTRIES_CONF": str(registries_conf)}
    with run_server(command, environment=environment) as server:
        yield Served(server.wait_for(_SERVING), server)


@pytest.fixture(scope="module")
def served(
    workshop: Path, home: Home, registry: Registry, family: Family, skopeo: Skopeo
) -> Iterator[Served]:
    """docker-registry has the family, and an index that lost two images; two layouts have those."""
    for name in (FAMILY, HOLEY):
        skopeo.copy(family.reference(), registry.reference(name), "--all")
    supplements: list[str] = []
    for platform in LOST:
        digest = family.images[platform].digest
        skopeo.delete(at_digest(registry.reference(HOLEY), digest))
        supplements.append(f"oci:{workshop}/lost-{digest.encoded}:1")
        skopeo.copy(family.reference(platform), supplements[-1])
    name = HOLEY.partition(":")[0]
    group = ",".join((f"docker://{QUAY}/{name}", *supplements))
    with serve(workshop / "serve", home, registry, f"{QUAY}/{name}={group}") as served:
        yield served


@pytest.fixture(scope="module")
def clients(workshop: Path, home: Home, served: Served) -> Iterator[Clients]:
    with Clients(workshop / "clients-of-serve", home, served.address) as clients:
        yield clients


def test_SRV55_clients_pull_what_registry_and_layouts_have_together(
    client: Client, family: Family
) -> None:
    if client.registry == DOCKER_HUB:
        assert family.config(HELD) in client.pull(FAMILY)
    elif client.keeps_lists:
        contents = family.contents()
        assert client.pull(HOLEY) == {*contents.manifests, *contents.blobs}
    else:
        for platform in (HELD, *LOST):
            assert family.config(platform) in client.pull(HOLEY, platform)


@pytest.fixture
def large_upstream(registry: Registry, large_layout: str, skopeo: Skopeo) -> Registry:
    skopeo.copy(large_layout, registry.reference(f"{LARGE}:1"))
    return registry


def test_SRV26_curl_reads_a_range_of_a_cold_blob(
    served: Served, large_upstream: Registry, large: BuiltImage
) -> None:
    digest = large.layers[-1]
    blob, url = large.blobs[digest], served.blob(LARGE, digest)
    for wanted, expected in (("5000-5999", blob[5000:6000]), ("-10", blob[-10:])):
        told = ("--write-out", "%{stderr}%{http_code} %header{content-range}")
        done = subprocess.run(
            curl("--range", wanted, *told, url), capture_output=True, timeout=SECONDS, check=True
        )
        assert done.stdout == expected
        start = blob.index(expected)
        span = f"bytes {start}-{start + len(expected) - 1}/{len(blob)}"
        assert done.stderr.decode() == f"206 {span}"
    done = subprocess.run(curl(url), capture_output=True, timeout=SECONDS, check=True)
    assert hashlib.sha256(done.stdout).hexdigest() == digest.encoded


def test_SRV44_a_pull_that_runs_ends_well_after_SIGTERM(
    home: Home, large_upstream: Registry, large: BuiltImage, tmp_path: Path
) -> None:
    digest = large.layers[-1]
    with serve(tmp_path / "serve", home, large_upstream) as served:
        url, seconds = served.blob(LARGE, digest), 3
        slowly = ("--limit-rate", str(LARGE_SIZE // seconds), "--no-buffer", url)
        with subprocess.Popen(curl(*slowly), stdout=subprocess.PIPE) as pulling:
            assert pulling.stdout is not None
            begin = pulling.stdout.read(1)
            served.server.stop()
            rest = pulling.stdout.read()
        assert pulling.returncode == 0
        assert hashlib.sha256(begin + rest).hexdigest() == digest.encoded
        assert served.server.wait() == 0
        refused = subprocess.run(curl(url), capture_output=True, timeout=SECONDS, check=False)
        assert refused.returncode == 7, "nothing listens there"
