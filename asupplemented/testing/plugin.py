"""The pytest plugin: fixtures for tests of what uses images. Installed with the package.

``fake_registry``
    A `asupplemented.testing.FakeRegistry` that listens while the test runs. It is asynchronous:
    the test needs pytest-asyncio, in either mode, or, if that is not installed, the plugin of
    anyio.
``image_builder``
    An `asupplemented.testing.ImageBuilder` that writes below ``tmp_path``.
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
    """Builds images, and writes each one to a new directory.

    Args:
        root: The parent of the directories. The caller removes it.
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
    """Make an asynchronous fixture for the plugin that is installed."""
    try:
        import pytest_asyncio  # noqa: PLC0415  # not needed with anyio's plugin
    except ModuleNotFoundError:
        return pytest.fixture(function)
    return pytest_asyncio.fixture(function)


@_fixture
async def fake_registry() -> AsyncIterator[FakeRegistry]:
    """A registry in this process, which answers correctly until a script says otherwise."""
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def image_builder(tmp_path: Path) -> ImageBuilder:
    """A builder that writes images below the temporary directory of the test."""
    return ImageBuilder(tmp_path / "images")
