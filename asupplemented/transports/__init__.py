"""Transports: one adapter per module, and the way from text to a reference.

A reference is ``scheme:rest``. The scheme picks a class from a table of names, and its module
is imported when its first reference is parsed: who never names a registry never loads a client.
"""

from __future__ import annotations

import importlib
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, cast

from asupplemented.errors import InvalidReferenceError, UnknownTransportError, excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asupplemented.abc import Reference

__all__ = ("FOREIGN_TRANSPORTS", "MAX_REFERENCE", "TRANSPORTS", "ReferenceType", "parse_reference")

MAX_REFERENCE: Final = 64 * 1024
"""Characters of a reference: more than any path or name that an operating system takes."""

TRANSPORTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "dir": "asupplemented.transports.directory:DirectoryReference",
        "docker": "asupplemented.transports.registry:RegistryReference",
        "oci": "asupplemented.transports.oci:LayoutReference",
    }
)
"""Scheme to ``module:Class``. The class has `ReferenceType.parse`."""

FOREIGN_TRANSPORTS: Final = frozenset(
    (
        "atomic",
        "containers-storage",
        "docker-archive",
        "docker-daemon",
        "oci-archive",
        "ostree",
        "sif",
        "tarball",
    )
)
"""Schemes that other tools speak and that we know by name only."""

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*+", re.ASCII)
_DIGEST_LIKE: Final = re.compile(r"[a-z0-9]++:[0-9a-fA-F]", re.ASCII)
_SHOWN: Final = 150
"""Characters of a stranger's reference that a message shows."""


class ReferenceType(Protocol):
    """What the table of transports names: a class of references that parses its own text."""

    @classmethod
    def parse(cls, rest: str) -> Reference:
        """Read what follows ``scheme:``.

        Raises:
            InvalidReferenceError: It is no reference of this transport.
        """
        ...


def parse_reference(text: str) -> Reference:
    """Read a reference: ``oci:PATH[:IMAGE|:@N]``, ``dir:PATH`` or ``docker://NAME``.

    Nothing is looked up: a reference to what does not exist is a reference.

    Args:
        text: The reference; ``str()`` of what is returned parses back to an equal value.

    Raises:
        UnknownTransportError: The scheme is not one of `TRANSPORTS`.
        InvalidReferenceError: There is no scheme, or what follows it is malformed.
    """
    if len(text) > MAX_REFERENCE:
        message = f"a reference of {len(text)} characters, at most {MAX_REFERENCE} are read"
        raise InvalidReferenceError(message)
    scheme, colon, rest = text.partition(":")
    if not colon or _SCHEME.fullmatch(scheme) is None:
        raise _without_scheme(text)
    if scheme not in TRANSPORTS:
        raise _unknown(scheme, rest)
    try:
        return _load(TRANSPORTS[scheme]).parse(rest)
    except InvalidReferenceError as error:
        error.reference = _shown(scheme, rest)  # Whole, but for what may be a password.
        raise


def _load(path: str) -> type[ReferenceType]:
    module, _, name = path.partition(":")
    return cast("type[ReferenceType]", getattr(importlib.import_module(module), name))


def _without_scheme(text: str) -> InvalidReferenceError:
    if not text:
        message = "an empty reference, write transport:rest"
    elif text[0] in "./~":
        shown = _printable(text)
        message = f"a path without a transport: did you mean oci:{shown} or dir:{shown}?"
    else:
        message = f"a reference without a transport: did you mean docker://{_without_user(text)}?"
    return InvalidReferenceError(message)


def _unknown(scheme: str, rest: str) -> UnknownTransportError:
    known = ", ".join(f"{name}:" for name in TRANSPORTS)
    if scheme in FOREIGN_TRANSPORTS:
        message = f"the transport {scheme}: is not supported yet, supported are {known}"
    elif rest.startswith("//"):
        shown = _without_user(rest[2:])
        message = (
            f"unknown transport {excerpt(scheme)}, known are {known}; "
            f"did you mean docker://{shown}?"
        )
    else:
        shown = _without_user(f"{scheme}:{rest}")
        message = (
            f"unknown transport {excerpt(scheme)}, known are {known}; "
            f"an image in a registry is docker://{shown}"
        )
    return UnknownTransportError(message)


def _shown(scheme: str, rest: str) -> str:
    slashes = "//" if rest.startswith("//") else ""
    return f"{scheme}:{slashes}{_without_user(rest[2:]) if slashes else _printable(rest)}"


def _without_user(text: str) -> str:
    """What may be the name of an image, without what may be a user and password before it."""
    before, at, after = text.rpartition("@")
    if at and _DIGEST_LIKE.match(after):
        return _printable(f"{before.rpartition('@')[2]}@{after}")
    return _printable(after)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:_SHOWN])
