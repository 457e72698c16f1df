"""Platforms: what an instance runs on, and which of them a host accepts (rules WP)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from asupplemented.errors import InvalidPlatformError, excerpt

__all__ = ("Platform", "Rank", "WantedPlatform", "wanted_platforms")

_COMPONENT: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)

_OS_ALIASES: Final = {"macos": "darwin"}

_ARCHITECTURE_ALIASES: Final = {
    "aarch64": ("arm64", None),
    "armel": ("arm", "v6"),
    "armhf": ("arm", "v7"),
    "i386": ("386", None),
    "i486": ("386", None),
    "i586": ("386", None),
    "i686": ("386", None),
    "loongarch64": ("loong64", None),
    "mips64el": ("mips64le", None),
    "mipsel": ("mipsle", None),
    "x86": ("386", None),
    "x86-64": ("amd64", None),
    "x86_64": ("amd64", None),
}
"""Names that users and kernels say, each with the Go name and the variant that it implies."""

_FALLBACKS: Final = {"arm": ("v8", "v7", "v6", "v5"), "arm64": ("v8",)}
"""Variants from best to worst, where an older one runs on a newer host (rule WP-05)."""

_CPU_VARIANTS: Final = {
    **dict.fromkeys(("8", "aarch64"), "v8"),
    **dict.fromkeys(("7", "7m", *(f"?({number})" for number in range(12, 18))), "v7"),
    **dict.fromkeys(("6", "6tej"), "v6"),
    **dict.fromkeys(("5", "5t", "5te", "5tej"), "v5"),
    **dict.fromkeys(("4", "4t"), "v4"),
    "3": "v3",
}
"""What Linux reports as "CPU architecture", and the variant that it means (rule WP-04)."""


class Platform(
    msgspec.Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True
):
    """An operating system and a processor, by their Go names.

    Platforms are compared field by field; which instance a host takes is the business of
    `WantedPlatform`.

    Attributes:
        os: "linux", "windows", ...; "" where a document does not say.
        architecture: "amd64", "arm64", "arm", ...; "" where a document does not say.
        variant: "v7", ..., or None. An empty variant is the same as none, and stored as None.
        os_version: As the document says, or None.
        os_features: As the document says, in its order.
    """

    os: str = ""
    architecture: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")

    def __post_init__(self) -> None:
        if self.variant == "":
            msgspec.structs.force_setattr(self, "variant", None)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read a text, ``os/architecture[/variant]``, as a user writes it.

        Case does not matter, and common names stand for Go's: ``x86_64`` is ``amd64``,
        ``aarch64`` is ``arm64``, ``armhf`` is ``arm/v7``, ``macos`` is ``darwin``.

        Raises:
            InvalidPlatformError: It has not two or three parts, or a part is no plain word.
        """
        parts = text[:256].lower().split("/")
        if len(parts) not in (2, 3) or not all(map(_COMPONENT.fullmatch, parts)):
            message = f"{excerpt(text)} is not os/architecture[/variant], like linux/arm/v7"
            raise InvalidPlatformError(message)
        system, machine, *rest = parts
        architecture, implied = _ARCHITECTURE_ALIASES.get(machine, (machine, None))
        variant = rest[0] if rest else implied
        return cls(_OS_ALIASES.get(system, system), architecture, variant)

    @classmethod
    def host(
        cls,
        *,
        machine: str | None = None,
        system: str | None = None,
        cpuinfo: str | None = None,
    ) -> Platform:
        """The platform of this host, or of the host described (rules WP-01 to WP-04).

        Args:
            machine: What `platform.machine` says; None asks it.
            system: What `platform.system` says; None asks it.
            cpuinfo: The text of ``/proc/cpuinfo``; None reads the file, and only where Linux
                runs on an ARM processor. A file that cannot be read means no variant.
        """
        import platform as _machine  # noqa: PLC0415 - slow to import, and needed once

        machine = (_machine.machine() if machine is None else machine).lower()
        system = (_machine.system() if system is None else system).lower()
        architecture = _go_architecture(machine)
        return cls(system, architecture, _host_variant(system, architecture, cpuinfo))

    def normalized(self) -> Platform:
        """The same platform in Go's words: lower case, and no other names (rule WP-09).

        ``Linux/x86_64`` is ``linux/amd64``, ``armhf`` is ``arm/v7``, and variant ``7`` of ARM is
        ``v7``. Version and features of the system stay as they are.
        """
        system, machine = self.os.lower(), self.architecture.lower()
        architecture, implied = _ARCHITECTURE_ALIASES.get(machine, (machine, None))
        variant = implied if self.variant is None else self.variant.lower()
        if architecture in _FALLBACKS and variant is not None and variant.isdecimal():
            variant = f"v{variant}"
        return Platform(
            _OS_ALIASES.get(system, system),
            architecture,
            variant,
            self.os_version,
            self.os_features,
        )

    def __str__(self) -> str:
        known = (self.os, self.architecture, self.variant)
        return "/".join(part for part in known if part is not None)


def wanted_platforms(platform: Platform | None) -> tuple[Platform, ...]:
    """What an instance may say to be chosen for `platform`, best first (rules WP-05 to WP-08).

    Args:
        platform: What is wanted, its variant taken literally; None for this host, whose
            variant is detected (rule WP-03).

    Returns:
        Platforms of os, architecture and variant alone, in Go's words. An instance matches one if
        these three are equal once its own are in Go's words.
    """
    wanted = Platform.host() if platform is None else platform.normalized()
    row = _FALLBACKS.get(wanted.architecture, ())
    variants: tuple[str | None, ...]
    if wanted.variant is None:
        variants = (None, *row)
    elif wanted.variant in row:
        variants = (*row[row.index(wanted.variant) :], None)
    else:
        variants = (wanted.variant, None)
    return tuple(Platform(wanted.os, wanted.architecture, variant) for variant in variants)


class Rank(NamedTuple):
    """How well a platform fits what is wanted; a smaller one is better."""

    platform: int
    """Position among `wanted_platforms`."""
    version: int = 0
    """0 for the version wanted, 1 for another revision of the same build."""
    features: int = 0
    """Number of features beyond those wanted."""


class WantedPlatform:
    """What is wanted of an instance, in a form that ranks many quickly (rules WP-05 to WP-09).

    Args:
        platform: What is wanted; None for this host.
    """

    __slots__ = ("_features", "_ranks", "_version", "first")

    def __init__(self, platform: Platform | None) -> None:
        wanted = wanted_platforms(platform)
        self.first = wanted[0]
        """The best platform, for messages."""
        self._ranks = {(p.os, p.architecture, p.variant): rank for rank, p in enumerate(wanted)}
        self._version = None if platform is None else platform.os_version or None
        self._features = frozenset(() if platform is None else platform.os_features)

    @property
    def last(self) -> Rank:
        """A rank behind all others."""
        return Rank(len(self._ranks))

    def rank(self, offered: Platform) -> Rank | None:
        """How well a platform fits; None if not at all.

        A version that is wanted must be equal or, in a worse rank, have the same first three
        numbers. Features that are wanted must be offered, others may be.
        """
        plain = offered.normalized()
        rank = self._ranks.get((plain.os, plain.architecture, plain.variant))
        if rank is None:
            return None
        version = 0
        if self._version is not None and offered.os_version != self._version:
            if _build(offered.os_version or "") != _build(self._version):
                return None
            version = 1
        features = frozenset(offered.os_features)
        if not self._features <= features:
            return None
        return Rank(rank, version, len(features - self._features) if self._features else 0)


def _build(version: str) -> tuple[str, ...]:
    """The numbers of a Windows version without its revision: major, minor, build."""
    return tuple(version.split(".")[:3])


def _go_architecture(machine: str) -> str:
    if machine in _ARCHITECTURE_ALIASES:
        return _ARCHITECTURE_ALIASES[machine][0]
    # armv5tel, armv6l, armv7l, and armv8l: a 32-bit system on a 64-bit processor.
    return "arm" if machine.startswith("armv") else machine


def _host_variant(system: str, architecture: str, cpuinfo: str | None) -> str | None:
    if architecture not in ("arm", "arm64"):
        return None
    if system in ("darwin", "windows"):
        return "v8" if architecture == "arm64" else "v7"
    if system != "linux":
        return None
    return _cpu_variant(architecture, _read_cpuinfo() if cpuinfo is None else cpuinfo)


def _cpu_variant(architecture: str, cpuinfo: str) -> str | None:
    reported = _cpu_field(cpuinfo, "cpu architecture")
    # ARMv6 boards whose kernel reports 7 all the same.
    if architecture == "arm" and reported == "7":
        model = _cpu_field(cpuinfo, "model name")
        if model.startswith("armv6-compatible"):
            return "v6"
    return _CPU_VARIANTS.get(reported)


def _cpu_field(cpuinfo: str, wanted: str) -> str:
    """The first value of a field, in lowercase, "" if there is none."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip().lower() == wanted:
            return value.strip().lower()
    return ""


def _read_cpuinfo() -> str:
    from pathlib import Path  # noqa: PLC0415 - slow to import, and needed once

    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
