"""Fixtures of real programs: the servers of a run, and the images that all tests read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from asupplemented.session import Session
from tests.interop.busybox import Family, build_family
from tests.interop.programs import Home, Skopeo, Umoci
from tests.interop.servers import Account, Certificates, Registry, run_registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for what lives as long as the run."""
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="session")
def home(workshop: Path) -> Home:
    return Home.make(workshop / "home")


@pytest.fixture(scope="session")
def skopeo(home: Home) -> Skopeo:
    return Skopeo(home)


@pytest.fixture(scope="session")
def umoci(home: Home) -> Umoci:
    return Umoci(home)


@pytest.fixture(scope="session")
def family(workshop: Path, umoci: Umoci) -> Family:
    """Real images of three platforms. To be read only."""
    return build_family(workshop / "family", umoci)


@pytest.fixture(scope="session")
def registry(workshop: Path) -> Iterator[Registry]:
    """A registry over plain http, for everybody; each test takes repositories of its own."""
    with run_registry(workshop / "registry") as opened:
        yield opened


@pytest.fixture(scope="session")
def certificates(workshop: Path) -> Certificates:
    return Certificates.make(workshop / "certificates")


@pytest.fixture(scope="session")
def account() -> Account:
    return Account("clara", "correct horse: battery, staple")


@dataclass(frozen=True)
class Places:
    """Where one test may write: nobody else knows of it."""

    directory: Path
    registry: Registry

    def find(self, transport: str, name: str = "app") -> str:
        """A reference to a place of that kind; the same name is the same place."""
        if transport == "docker":
            repository = re.sub("[^a-z0-9]+", "-", self.directory.name.lower()).strip("-")
            return self.registry.reference(f"{repository}/{name}:1")
        path = self.directory / f"{transport}-{name}"
        return f"oci:{path}:1" if transport == "oci" else f"dir:{path}"


@pytest.fixture
def places(tmp_path: Path, registry: Registry) -> Places:
    return Places(tmp_path, registry)


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    """A session that takes plain http."""
    async with Session(tls_verify=False) as opened:
        yield opened
