"""References to images in registries: ``docker://[registry/]path[:tag][@digest]``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from asupplemented.errors import InvalidReferenceError
from asupplemented.model.name import ImageName
from asupplemented.model.text import excerpt
from asupplemented.source import open_verified
from asupplemented.transports.registry.source import open_adapter

if TYPE_CHECKING:
    from asupplemented.abc import Context, Opening, Source

__all__ = ("RegistryReference",)

MAX_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class RegistryReference:
    """An image in a registry. ``str()`` is the full form and parses back.

    With a digest it is read by that alone, and a tag beside it is for people (rule REF-11).

    Raises:
        InvalidReferenceError: The port of the registry does not exist.
    """

    name: ImageName

    def __post_init__(self) -> None:
        host, colon, port = self.name.registry.rpartition(":")
        if colon and not host.endswith(":") and port.isdecimal() and not 0 < int(port) <= MAX_PORT:
            message = f"there is no port {excerpt(port, 10)}"
            raise InvalidReferenceError(message, reference=self)

    @classmethod
    def parse(cls, rest: str, *, allow_ipv6: bool = False) -> RegistryReference:
        """Read what follows ``docker:``.

        Args:
            rest: ``//`` and a name (rule REF-03).
            allow_ipv6: Accept a registry like ``[::1]:5000`` (rule REF-12).

        Raises:
            InvalidReferenceError: It is no name of an image; the message says why.
        """
        if not rest.startswith("//"):
            message = (
                f"docker:{excerpt(rest)} is no reference: the name of an image follows docker://"
            )
            raise InvalidReferenceError(message)
        return cls(ImageName.parse(rest[2:], allow_ipv6=allow_ipv6))

    @property
    def transport(self) -> str:
        return "docker"

    def open(self, context: Context) -> Opening[Source]:
        """Open the image: ask for its default manifest, and verify it (rule SRC-01).

        Raises:
            ImageNotFoundError: On use: there is no such image.
            SourceError: On use: the registry is not there, failed or refused.
        """
        return open_verified(partial(open_adapter, self.name, str(self), context), self, context)

    def __str__(self) -> str:
        return f"docker://{self.name}"
