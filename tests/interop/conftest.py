"""Fixtures of real programs: the servers of a run, and the images that all tests read."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import pytest

from asupplemented.session import Session
from asupplemented.testing import build_image, write_layout
from tests.interop.busybox import LOST, Family, build_family
from tests.interop.places import Places, at_digest
from tests.interop.programs import Home, Skopeo, Umoci
from tests.interop.pullers import CLIENTS
from tests.interop.servers import Account, Certificates, Registry, run_registry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from asupplemented.testing import BuiltImage
    from tests.interop.pullers import Client, Clients

LARGE_SIZE: Final = 24 << 20
"""Bytes of the larger layer."""


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


@pytest.fixture
def places(tmp_path: Path, registry: Registry) -> Places:
    return Places(tmp_path, registry)


@pytest.fixture
def holey(family: Family, places: Places, skopeo: Skopeo) -> str:
    """An index in a registry that lost all of its instances but one.

    docker-registry takes only whole indexes, but forgets what it is told to.
    """
    place = places.find("docker", "holey")
    skopeo.copy(family.reference(), place, "--all")
    for platform in LOST:
        skopeo.delete(at_digest(place, family.images[platform].digest))
    return place


@pytest.fixture
def supplements(family: Family, places: Places, skopeo: Skopeo) -> tuple[str, str]:
    """What the registry lost: an image in a layout by skopeo, another in a directory."""
    layout, directory = places.find("oci", "lost"), places.find("dir", "lost")
    for platform, place in zip(LOST, (layout, directory), strict=True):
        skopeo.copy(family.reference(platform), place)
    return layout, directory


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    """A session that takes plain http."""
    async with Session(tls_verify=False) as opened:
        yield opened


@pytest.fixture(scope="session")
def large() -> BuiltImage:
    """An image with a layer that no buffer between two processes holds."""
    content = hashlib.shake_256(b"large").digest(LARGE_SIZE)
    return build_image(layers=[{"small": b"a small file"}, {"large": content}])


@pytest.fixture(scope="session")
def large_layout(workshop: Path, large: BuiltImage) -> str:
    """A layout that has it."""
    return write_layout(workshop / "large", large, name="1")


@pytest.fixture
def make_client(clients: Clients) -> Iterator[Callable[[str], Client]]:
    """Makes clients of what the module serves, by their names."""
    made: list[Client] = []

    def make(program: str) -> Client:
        made.append(clients.make(program))
        return made[-1]

    yield make
    for client in made:
        for image in tuple(client.pulled):
            client.forget(image)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, make_client: Callable[[str], Client]) -> Client:
    return make_client(request.param)
