"""Modules of the package and blocks of pages, for tests that read sources and documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = "asupplemented"

EXTRAS = frozenset({"obstore", "opentelemetry", "prometheus_client", "redis"})
"""Packages that a module may need and a machine that runs the tests may lack."""


@dataclass(frozen=True)
class Module:
    """A module of the package, named but not imported."""

    name: str
    path: Path

    @property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def is_public(self) -> bool:
        """Whether no part of the name is private; ``__main__`` is a program, not an interface."""
        return not any(part.startswith("_") for part in self.name.split("."))


def find_modules() -> dict[str, Module]:
    """Every module of the package by its full name, sorted."""
    found = (name_of(path) for path in (ROOT / PACKAGE).rglob("*.py"))
    return {module.name: module for module in sorted(found, key=lambda module: module.name)}


def name_of(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path)


def read_page(name: str) -> str:
    """A page of the site, by its path below ``docs``."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def code_blocks(text: str, language: str) -> list[str]:
    """The blocks of code of one language in a page of Markdown."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
