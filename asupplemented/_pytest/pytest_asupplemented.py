"""The pytest plugin: fixtures for tests of what uses images. Installed with the package.

``fake_registry``
    A `asupplemented.testing.FakeRegistry` that listens while the test runs. It is asynchronous:
    the test needs pytest-asyncio, in either mode, or, if that is not installed, the plugin of
    anyio.
``image_builder``
    An `asupplemented.testing.ImageBuilder` that writes below ``tmp_path``.

pytest imports this module whenever it starts, also for projects whose tests use no fixture of it.
So it is installed beside the package, which takes longer to import, and the fixtures import what
they need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from asupplemented.testing import FakeRegistry, ImageBuilder

__all__ = ("fake_registry", "image_builder")


def _fixture(function: Callable[[], AsyncIterator[FakeRegistry]]) -> object:
    """Make an asynchronous fixture for the plugin that is installed."""
    try:
        import pytest_asyncio  # not needed with anyio's plugin
    except ModuleNotFoundError:
        return pytest.fixture(function)
    return pytest_asyncio.fixture(function)


@_fixture
async def fake_registry() -> AsyncIterator[FakeRegistry]:
    """A registry in this process, which answers correctly until a script says otherwise."""
    from asupplemented.testing import FakeRegistry

    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def image_builder(tmp_path: Path) -> ImageBuilder:
    """A builder that writes images below the temporary directory of the test."""
    from asupplemented.testing import ImageBuilder

    return ImageBuilder(tmp_path / "images")
