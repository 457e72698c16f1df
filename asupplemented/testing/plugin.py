"""The pytest plugin: fixtures for tests of what uses images. Installed with the package.

``fake_registry``
    A `asupplemented.testing.FakeRegistry` that listens while the test runs. It is asynchronous:
    the test needs pytest-asyncio, in either mode, or, where that is not installed, the plugin
    of anyio.
``image_builder``
    An `asupplemented.testing.ImageBuilder` that writes below ``tmp_path``.

Images, and directories that hold them, of one test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.testing.disk import write_directory, write_layout
from asupplemented.testing.images import build_artifact, build_image, build_index
from asupplemented.testing.registry import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Container
    from pathlib import Path

    from asupplemented.testing.images import Built

__all__ = ("ImageBuilder", "fake_registry", "image_builder")


class ImageBuilder:
    """Builds images, and writes each into a new directory.

    Args:
        root: Where the directories are made. Who made it removes it.
    """

    image = staticmethod(build_image)
    index = staticmethod(build_index)
    artifact = staticmethod(build_artifact)

    def __init__(self, root: Path) -> None:
        self._root = root
        self._count = 0

    def layout(
        self,
        top: Built,
        *,
        name: str | None = None,
        include: Container[str] | None = None,
        omit: Container[str] = (),
    ) -> str:
        """Write a new OCI layout, as `write_layout` does, and return its reference."""
        return write_layout(self._next(), top, name=name, include=include, omit=omit)

    def directory(
        self, top: Built, *, include: Container[str] | None = None, omit: Container[str] = ()
    ) -> str:
        """Write a new ``dir:`` image, as `write_directory` does, and return its reference."""
        return write_directory(self._next(), top, include=include, omit=omit)

    def _next(self) -> Path:
        self._count += 1
        return self._root / f"image-{self._count}"


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
