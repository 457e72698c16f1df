"""What the tests of the registry share: an image, a catalog, and both applications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from asupplemented.testing import FaultyReference, SourceControl, build_image, hold_in_memory
from tests.web.catalogs import FakeCatalog
from tests.web.clients import aiohttp_client, asgi_client

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from asupplemented import Session
    from asupplemented.testing import BuiltImage
    from tests.web.clients import Client

LARGE = bytes(range(256)) * 20_480  # 5 MiB: more than is verified before the first byte
SMALL = b"a small layer"


@pytest.fixture(scope="session")
def image() -> BuiltImage:
    """An image with a small layer and a large one."""
    return build_image(layers=[SMALL, LARGE])


@pytest.fixture
def control() -> SourceControl:
    """The script of the upstream of the image."""
    return SourceControl()


@pytest.fixture
def catalog(image: BuiltImage, control: SourceControl) -> FakeCatalog:
    """A catalog with the image as "team/app"."""
    return FakeCatalog({"team/app": FaultyReference(hold_in_memory("app", image), control)})


class Serve(Protocol):
    """Runs one of the applications."""

    def __call__(
        self, catalog: object, session: Session, **options: Any
    ) -> AbstractAsyncContextManager[Client]: ...


@pytest.fixture(params=[aiohttp_client, asgi_client], ids=["aiohttp", "asgi"])
def serve(request: pytest.FixtureRequest) -> Serve:
    return request.param


@pytest.fixture
async def client(serve: Serve, catalog: FakeCatalog, session: Session) -> Any:
    """A client of the catalog."""
    async with serve(catalog, session) as client:
        yield client
