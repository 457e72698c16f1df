"""Platforms: what an instance runs on, and which of them a host accepts (rules WP)."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from asupplemented.errors import InvalidPlatformError, excerpt

__all__ = ("Platform", "wanted_platforms")

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
    `wanted_platforms`, which looks at the first three fields only (rules WP-02, WP-09).

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
        """Read ``os/architecture[/variant]`` as a user writes it.

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

    def __str__(self) -> str:
        known = (self.os, self.architecture, self.variant)
        return "/".join(part for part in known if part is not None)


def wanted_platforms(platform: Platform | None) -> tuple[Platform, ...]:
    """What an instance may say to be chosen for `platform`, best first (rules WP-05 to WP-08).

    Args:
        platform: What is wanted, its variant taken literally; None for this host, whose
            variant is detected (rule WP-03).

    Returns:
        Platforms of os, architecture and variant alone. An instance matches one if these three
        are equal; nothing else counts.
    """
    wanted = Platform.host() if platform is None else platform
    row = _FALLBACKS.get(wanted.architecture, ())
    variants: tuple[str | None, ...]
    if wanted.variant is None:
        variants = (None, *row)
    elif wanted.variant in row:
        variants = (*row[row.index(wanted.variant) :], None)
    else:
        variants = (wanted.variant, None)
    return tuple(Platform(wanted.os, wanted.architecture, variant) for variant in variants)


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
