"""Builds images and writes them below one directory. Blocking, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.testing.disk import write_directory, write_layout
from asupplemented.testing.images import build_artifact, build_image, build_index

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from asupplemented.testing.images import Built

__all__ = ("ImageBuilder",)


class ImageBuilder:
    """Builds images, and writes each one to a new directory.

    `image`, `index` and `artifact` are `build_image`, `build_index` and `build_artifact`.

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
        """Write a new OCI layout; see `write_layout`.

        Returns:
            Its reference.
        """
        return write_layout(self._next(), top, name=name, include=include, omit=omit)

    def directory(
        self, top: Built, *, include: Container[str] | None = None, omit: Container[str] = ()
    ) -> str:
        """Write a new ``dir:`` image; see `write_directory`.

        Returns:
            Its reference.
        """
        return write_directory(self._next(), top, include=include, omit=omit)

    def _next(self) -> Path:
        self._count += 1
        return self._root / f"image-{self._count}"
