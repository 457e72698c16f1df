"""Real programs: found on PATH, run to their end, kept away from the settings of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PACKAGES: Final = {
    "buildah": "buildah",
    "busybox": "busybox-static",
    "chromium": "chromium",
    "containerd": "containerd",
    "ctr": "containerd",
    "curl": "curl",
    "docker": "docker.io",
    "docker-registry": "docker-registry",
    "dockerd": "docker.io",
    "htpasswd": "apache2-utils",
    "nginx": "nginx",
    "podman": "podman",
    "redis-server": "redis-server",
    "skopeo": "skopeo",
    "umoci": "umoci",
}
"""Program -> the Debian package that has it."""

SECONDS: Final = 60
"""A program that takes longer hangs."""

_SERVERS_LIVE_IN: Final = "/usr/sbin"  # Debian has it on the PATH of root only


class ProgramError(Exception):
    """A program failed; the message has what it said."""


def find(program: str) -> str:
    """The path of a program; without it no test here can mean anything, so the test fails."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), _SERVERS_LIVE_IN])
    found = shutil.which(program, path=path)
    if found is None:
        pytest.fail(f"no {program} here; run: apt-get install {PACKAGES[program]}", pytrace=False)
    return found


def run(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> bytes:
    """Run a program and return its stdout.

    Raises:
        ProgramError: It failed.
    """
    done = subprocess.run(
        [find(program), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        message = f"{program} exited {done.returncode}: {said} ({' '.join(arguments)})"
        raise ProgramError(message)
    return done.stdout


@dataclass(frozen=True)
class Home:
    """A home directory for programs, with nothing of the user's or the machine's in it."""

    path: Path

    @classmethod
    def make(cls, path: Path) -> Home:
        settings = path / ".config" / "containers"
        settings.mkdir(parents=True)
        (settings / "registries.conf").write_text("unqualified-search-registries = []\n")
        (settings / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
        (settings / "registries.d").mkdir()
        (path / "tmp").mkdir()
        return cls(path)

    @property
    def settings(self) -> Path:
        return self.path / ".config" / "containers"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.path),
            "PATH": os.environ.get("PATH", os.defpath),
            "TMPDIR": str(self.path / "tmp"),
            "XDG_CONFIG_HOME": str(self.path / ".config"),
            "XDG_DATA_HOME": str(self.path / ".local"),
            "XDG_RUNTIME_DIR": str(self.path),
            # for root too: what it knows of blobs belongs here, not into /var/lib/containers
            "_CONTAINERS_ROOTLESS_UID": "1000",
        }


@dataclass(frozen=True)
class Skopeo:
    """Copies and inspects images. Plain http is fine, unless later options say otherwise."""

    home: Home
    registries_conf: Path | None = None
    """In place of that of the home."""

    def copy(
        self, source: str, destination: str, *options: str, platform: str | None = None
    ) -> None:
        """Copy an image; `platform` is what to choose from a list, None for this machine's."""
        insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
        self._run(platform, "copy", "--quiet", *insecure, *options, source, destination)

    def read_raw(self, reference: str, *options: str) -> bytes:
        """The default manifest, byte for byte."""
        return self._inspect(reference, "--raw", *options)

    def inspect(self, reference: str, *options: str, platform: str | None = None) -> dict[str, Any]:
        """What skopeo says of the image for a platform."""
        inspection: dict[str, Any] = json.loads(
            self._inspect(reference, *options, platform=platform)
        )
        return inspection

    def read_config(self, reference: str, *, platform: str | None = None) -> bytes:
        """The config of the image for a platform, byte for byte."""
        return self._inspect(reference, "--config", "--raw", platform=platform)

    def delete(self, reference: str) -> None:
        """Have a registry forget a manifest."""
        self._run(None, "delete", "--tls-verify=false", reference)

    def _inspect(self, reference: str, *options: str, platform: str | None = None) -> bytes:
        return self._run(platform, "inspect", "--tls-verify=false", *options, reference)

    def _run(self, platform: str | None, *arguments: str) -> bytes:
        settings, conf = self.home.settings, self.registries_conf
        return run(
            "skopeo",
            f"--policy={settings / 'policy.json'}",
            f"--registries.d={settings / 'registries.d'}",
            *(() if conf is None else (f"--registries-conf={conf}",)),
            *_override(platform),
            *arguments,
            environment=self.home.environment,
        )


@dataclass(frozen=True)
class Umoci:
    """Makes and unpacks images in layouts; it knows tags of one platform only."""

    home: Home

    def __call__(self, *arguments: str) -> bytes:
        return run("umoci", *arguments, environment=self.home.environment)

    def unpack(self, image: str, bundle: Path) -> Path:
        """Make a bundle of an image, given as ``PATH:TAG``; returns its root file system."""
        self("unpack", "--rootless", f"--image={image}", str(bundle))
        return bundle / "rootfs"

    def stat(self, image: str) -> dict[str, Any]:
        """What umoci says of the history of an image."""
        history: dict[str, Any] = json.loads(self("stat", "--json", f"--image={image}"))
        return history

    def list(self, layout: Path) -> list[str]:
        """The tags of a layout, sorted."""
        return sorted(self("list", f"--layout={layout}").decode().split())


def _override(platform: str | None) -> list[str]:
    if platform is None:
        return []
    os_name, architecture, *variant = platform.split("/")
    chosen = [f"--override-os={os_name}", f"--override-arch={architecture}"]
    return chosen + [f"--override-variant={each}" for each in variant]
