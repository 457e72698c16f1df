"""The pytest plugin: fixtures for tests of what uses images. Installed with the package.

``fake_registry``
    A `asupplemented.testing.FakeRegistry` that listens while the test runs. It is asynchronous:
    the test needs pytest-asyncio, in either mode, or, where that is not installed, the plugin
    of anyio.
``image_builder``
    An `asupplemented.testing.ImageBuilder` that writes below ``tmp_path``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.testing.builder import ImageBuilder
from asupplemented.testing.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

__all__ = ("fake_registry", "image_builder")


def _fixture(function: Callable[[], AsyncIterator[FakeRegistry]]) -> object:
    """An asynchronous fixture, of the plugin that is there to run it."""
    try:
        import pytest_asyncio  # noqa: PLC0415  # not needed by those who use anyio's
    except ModuleNotFoundError:
        return pytest.fixture(function)
    return pytest_asyncio.fixture(function)


@_fixture
async def fake_registry() -> AsyncIterator[FakeRegistry]:
    """A registry in the process of the test, right until it is told otherwise."""
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def image_builder(tmp_path: Path) -> ImageBuilder:
    """Builds images, and writes them below the temporary directory of the test."""
    return ImageBuilder(tmp_path / "images")
