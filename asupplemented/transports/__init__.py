"""Transports: one adapter per module, and the way from text to a reference.

A reference is ``scheme:rest``. The scheme picks a class from a table of names, whose module is
imported when its first reference is parsed: a program that never names a registry never loads a
client. A scheme that is not in the table is looked for among those that the program registered,
and then among the entry points of installed packages.
"""

from __future__ import annotations

import importlib
import re
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from asupplemented.errors import (
    ConfigurationError,
    InvalidReferenceError,
    UnknownTransportError,
    excerpt,
)
from asupplemented.remedies import TRANSPORT, advise

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.metadata import EntryPoint

    from asupplemented.abc import Reference

__all__ = (
    "ENTRY_POINTS",
    "FOREIGN_TRANSPORTS",
    "MAX_REFERENCE",
    "TRANSPORTS",
    "ReferenceType",
    "TransportFactory",
    "is_transport",
    "parse_reference",
    "register_transport",
)

TransportFactory: TypeAlias = "Callable[[str], Reference]"
"""Makes a reference of what follows ``scheme:``, or raises `InvalidReferenceError`.

The ``transport`` of the reference is the scheme, and its ``str()`` parses back to an equal value.
"""

ENTRY_POINTS: Final = "asupplemented.transports"
"""The group of entry points by which packages offer transports: scheme to `TransportFactory`."""

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
_REGISTRY: Final = "docker"
_SHOWN: Final = 150
"""Characters of untrusted text that a message shows."""


class ReferenceType(Protocol):
    """What the table of transports names: a class of references that parses its own text."""

    @classmethod
    def parse(cls, rest: str, /) -> Reference:
        """Read the rest of a reference, what follows ``scheme:``.

        Raises:
            InvalidReferenceError: It is no reference of this transport.
        """
        ...


def parse_reference(text: str, *, allow_ipv6: bool = False) -> Reference:
    """Read a reference: ``oci:PATH[:IMAGE|:@N]``, ``dir:PATH`` or ``docker://NAME``.

    Other schemes come from `register_transport` and from installed packages. Nothing is looked
    up: a reference to what does not exist is a reference.

    Args:
        text: The reference; ``str()`` of what is returned parses back to an equal value.
        allow_ipv6: Accept a registry like ``[::1]:5000`` (rule REF-12).

    Raises:
        UnknownTransportError: No transport has the scheme.
        InvalidReferenceError: There is no scheme, or what follows it is malformed.
        ConfigurationError: The installed package that offers the transport cannot be loaded, or
            several packages offer it.
    """
    if len(text) > MAX_REFERENCE:
        message = f"a reference of {len(text)} characters, at most {MAX_REFERENCE} are read"
        raise InvalidReferenceError(message)
    scheme, colon, rest = text.partition(":")
    if not colon or _SCHEME.fullmatch(scheme) is None:
        raise _without_scheme(text)
    factory = _find(scheme)
    if factory is None:
        raise _unknown(scheme, rest)
    try:
        if allow_ipv6 and scheme == _REGISTRY:
            factory = partial(cast("Callable[..., Reference]", factory), allow_ipv6=True)
        return factory(rest)
    except InvalidReferenceError as error:
        error.reference = _shown(scheme, rest)  # Whole, but for what may be a password.
        raise


def register_transport(scheme: str, factory: TransportFactory) -> None:
    """Have `parse_reference` read references of another transport, in this process.

    A package that is installed with the entry point ``scheme = "module:factory"`` in the group
    ``asupplemented.transports`` needs no call. What is registered precedes entry points.

    Args:
        scheme: What precedes the first colon, as in ``scheme:rest``. Case matters.
        factory: Makes a reference of the rest; it may be a class, or the ``parse`` of one.

    Raises:
        ConfigurationError: The scheme is malformed, or is one of `TRANSPORTS`, or another factory
            was registered for it.
    """
    if _SCHEME.fullmatch(scheme) is None:
        message = f"{excerpt(scheme)} is no scheme; write a letter, then letters, digits and +.-"
        raise ConfigurationError(message)
    if scheme in TRANSPORTS:
        message = f"the transport {scheme}: is built in; register another scheme"
        raise ConfigurationError(message)
    if _registered.setdefault(scheme, factory) != factory:
        message = (
            f"the transport {scheme}: is another factory's already; register it before a "
            "reference is parsed, or take another scheme"
        )
        raise ConfigurationError(message)


_registered: Final[dict[str, TransportFactory]] = {}
"""What the program registered, and what was loaded from entry points, by scheme.

It belongs to the process, as entry points do: text becomes a reference without a session.
"""


def is_transport(scheme: str) -> bool:
    """Whether a scheme is that of a transport, or is known from other tools. Loads nothing."""
    known = scheme in TRANSPORTS or scheme in FOREIGN_TRANSPORTS or scheme in _registered
    return known or bool(_entry_points(scheme))


def _find(scheme: str) -> TransportFactory | None:
    if scheme in TRANSPORTS:
        return _load(TRANSPORTS[scheme]).parse
    if scheme not in _registered:
        plug_in = _load_plug_in(scheme)
        if plug_in is None:
            return None
        _registered[scheme] = plug_in
    return _registered[scheme]


def _load(path: str) -> type[ReferenceType]:
    module, _, name = path.partition(":")
    return cast("type[ReferenceType]", getattr(importlib.import_module(module), name))


def _entry_points(scheme: str) -> tuple[EntryPoint, ...]:
    # Imported here, for it is slow to import, and most programs need no other transports.
    from importlib.metadata import entry_points  # noqa: PLC0415

    return tuple(entry_points(group=ENTRY_POINTS, name=scheme))


def _load_plug_in(scheme: str) -> TransportFactory | None:
    """The factory of an installed package, None if no package offers the scheme."""
    found = _entry_points(scheme)
    if not found:
        return None
    point, *others = found
    if others:
        message = (
            f"several packages offer the transport {scheme}: {', '.join(map(_origin, found))}; "
            "uninstall all but one"
        ) + advise("or choose one with {}", TRANSPORT)
        raise ConfigurationError(message)
    try:
        factory: object = point.load()
    except Exception as error:
        message = f"the transport {scheme}: of {_origin(point)} cannot be loaded: {error!r}"
        raise ConfigurationError(message) from error
    if not callable(factory):
        message = (
            f"the transport {scheme}: of {_origin(point)} is no function that makes a reference, "
            f"but a {type(factory).__name__}"
        )
        raise ConfigurationError(message)
    return cast("TransportFactory", factory)


def _origin(point: EntryPoint) -> str:
    package = "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    return f"{package} ({point.value})"


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
    known = ", ".join(f"{name}:" for name in (*TRANSPORTS, *sorted(_registered)))
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
