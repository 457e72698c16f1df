"""Where tests write."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.servers import Registry

TRANSPORTS: Final = ("dir", "docker", "oci")


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


def at_digest(place: str, digest: str) -> str:
    """The reference of a place in a registry, by digest in place of the tag."""
    return f"{place.rpartition(':')[0]}@{digest}"
