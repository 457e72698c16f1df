"""A machine to configure: a root and a home of its own, so that no test sees the real ones."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asupplemented.hostconfig.paths import ConfigurationPaths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

USER = ".config/containers"


@dataclass(frozen=True)
class Machine:
    """Two directories, and the paths of the configuration in them."""

    root: Path
    home: Path

    @property
    def paths(self) -> ConfigurationPaths:
        return ConfigurationPaths.default({"HOME": str(self.home)}, root=self.root, superuser=False)

    def write_system(self, name: str, text: str = "") -> Path:
        """Write a file below /etc."""
        return write(self.root / "etc" / name, text)

    def write_user(self, name: str, text: str = "") -> Path:
        """Write a file below the user's directory for containers."""
        return write(self.home / USER / name, text)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def forbid(monkeypatch: pytest.MonkeyPatch, call: str, path: Path) -> None:
    """Have a function of `os` refuse one path: to root, who may run this, nothing is forbidden."""
    allowed: Callable[..., object] = getattr(os, call)

    def refuse(asked: object, *args: object, **kwargs: object) -> object:
        if str(asked) == str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return allowed(asked, *args, **kwargs)

    monkeypatch.setattr(os, call, refuse)
