"""Clients of a registry that keep what they pull in a store of their own.

Each is told of a mirror by the file that its users write, so that images have their real names.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest

from tests.interop.busybox import read_tree
from tests.interop.programs import Home, Skopeo, find, run
from tests.interop.servers import run_server

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Self

    from tests.interop.busybox import Tree

DOCKER_HUB: Final = "docker.io"
QUAY: Final = "quay.test"
"""A registry that exists as a name only."""

CLIENTS: Final = ("skopeo", "buildah", "podman", "containerd", "docker")

_BOOTED: Final = re.compile(r"(containerd successfully booted)")
_LISTENING: Final = re.compile(r"API listen on (\S+)")


class Client(Protocol):
    """Pulls images by name."""

    @property
    def registry(self) -> str:
        """The registry in the names of the images that it pulls."""
        ...

    @property
    def keeps_lists(self) -> bool:
        """Whether it pulls all platforms where none is chosen, and keeps every byte as it came."""
        ...

    @property
    def pulled(self) -> set[str]:
        """The images that it has."""
        ...

    def pull(self, image: str, platform: str | None = None) -> set[str]:
        """Pull an image.

        Args:
            image: ``REPOSITORY:TAG``.
            platform: What to choose from a list; None for all, or for this machine's.

        Returns:
            The digests of manifests and blobs, or where the client keeps no bytes as they came
            those of the config and of the unpacked layers.

        Raises:
            ProgramError: It failed.
        """
        ...

    def forget(self, image: str) -> None:
        """Remove an image from the store, so that the next pull asks for all of it."""
        ...


@dataclass
class SkopeoClient:
    """Copies images into layouts."""

    skopeo: Skopeo
    directory: Path
    registry: str = QUAY
    keeps_lists: bool = True
    pulled: set[str] = field(default_factory=set[str])

    def pull(self, image: str, platform: str | None = None) -> set[str]:
        layout = self._layout(image)
        whole = ("--all", "--preserve-digests") if platform is None else ()
        source = f"docker://{self.registry}/{image}"
        self.skopeo.copy(source, f"oci:{layout}", *whole, platform=platform)
        self.pulled.add(image)
        return {f"sha256:{path.name}" for path in (layout / "blobs" / "sha256").iterdir()}

    def forget(self, image: str) -> None:
        self.pulled.discard(image)
        for path in sorted(self._layout(image).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()

    def _layout(self, image: str) -> Path:
        return self.directory / re.sub("[/:]", "-", image)


@dataclass
class PodmanClient:
    """podman or buildah; both keep images in the same kind of store."""

    program: str
    home: Home
    root: Path
    runroot: Path
    registries_conf: Path
    registry: str = QUAY
    keeps_lists: bool = False
    pulled: set[str] = field(default_factory=set[str])

    def pull(self, image: str, platform: str | None = None) -> set[str]:
        chosen = () if platform is None else (f"--platform={platform}",)
        self._run(self.program, "pull", "--quiet", *chosen, f"{self.registry}/{image}")
        self.pulled.add(image)
        found = self._inspect(image)
        return {f"sha256:{found['Id']}", *found["RootFS"]["Layers"]}

    def read_tree(self, image: str) -> Tree:
        """The root file system of an image."""
        mounted = self._run("podman", "image", "mount", f"{self.registry}/{image}")
        return read_tree(Path(mounted.decode().strip()))

    def forget(self, image: str) -> None:
        self.pulled.discard(image)
        self._run(self.program, "rmi", "--force", f"{self.registry}/{image}")

    def _inspect(self, image: str) -> dict[str, Any]:
        [found] = json.loads(self._run("podman", "image", "inspect", f"{self.registry}/{image}"))
        inspection: dict[str, Any] = found
        return inspection

    def _run(self, program: str, *arguments: str) -> bytes:
        environment = self.home.environment | {
            "CONTAINERS_REGISTRIES_CONF": str(self.registries_conf)
        }
        return run(
            program,
            f"--root={self.root}",
            f"--runroot={self.runroot}",
            "--storage-driver=vfs",
            *arguments,
            environment=environment,
        )


@dataclass
class ContainerdClient:
    """ctr with a containerd of its own."""

    socket: Path
    hosts: Path
    """The directory of ``hosts.toml`` files."""
    registry: str = QUAY
    keeps_lists: bool = True
    pulled: set[str] = field(default_factory=set[str])

    def pull(self, image: str, platform: str | None = None) -> set[str]:
        # It fetches and verifies as `images pull` does, and unpacks nothing.
        chosen = "--all-platforms" if platform is None else f"--platform={platform}"
        name = f"{self.registry}/{image}"
        self._run("content", "fetch", f"--hosts-dir={self.hosts}", chosen, name)
        self.pulled.add(image)
        return set(self._run("content", "ls", "--quiet").decode().split())

    def forget(self, image: str) -> None:
        self.pulled.discard(image)
        self._run("images", "rm", "--sync", f"{self.registry}/{image}")

    def _run(self, *arguments: str) -> bytes:
        return run("ctr", f"--address={self.socket}", *arguments)


@dataclass
class DockerClient:
    """docker with a dockerd of its own, which asks mirrors for images of Docker Hub only."""

    socket: Path
    home: Home
    registry: str = DOCKER_HUB
    keeps_lists: bool = False
    pulled: set[str] = field(default_factory=set[str])

    def pull(self, image: str, platform: str | None = None) -> set[str]:
        chosen = () if platform is None else (f"--platform={platform}",)
        self._run("pull", *chosen, f"{self.registry}/{image}")
        self.pulled.add(image)
        [found] = json.loads(self._run("image", "inspect", f"{self.registry}/{image}"))
        return {found["Id"], *found["RootFS"]["Layers"]}

    def forget(self, image: str) -> None:
        self.pulled.discard(image)
        self._run("rmi", "--force", f"{self.registry}/{image}")

    def _run(self, *arguments: str) -> bytes:
        host = f"--host=unix://{self.socket}"
        return run("docker", host, *arguments, environment=self.home.environment)


class Clients:
    """Makes clients that pull through one proxy, told by the files that ``mirrors`` writes.

    Use it as a context manager. Daemons start when their client is first made.

    Args:
        directory: Made for it.
        home: Of the programs.
        address: ``host:port`` of the proxy.
    """

    def __init__(self, directory: Path, home: Home, address: str) -> None:
        directory.mkdir()
        self._directory = directory
        self._home = home
        self._scope = ExitStack()
        self._stores = 0
        for client in ("podman", "containerd", "docker"):
            mirrored = [f"--mirror={registry}" for registry in (DOCKER_HUB, QUAY)]
            where = (f"--address=http://{address}", f"--output={directory / client}")
            run(
                sys.executable, "-m", "asupplemented", "mirrors", "--for", client, *mirrored, *where
            )

    def make(self, program: str) -> Client:
        """A client by its name, whose store has no image of another test."""
        self._stores += 1
        store = self._directory / f"store{self._stores}"
        store.mkdir()
        registries_conf = self._directory / "podman" / "asupplemented.conf"
        if program == "skopeo":
            return SkopeoClient(Skopeo(self._home, registries_conf), store)
        if os.geteuid() != 0:
            pytest.skip(f"{program} is tested as root only: it keeps files of other users")
        if program == "containerd":
            return ContainerdClient(self._containerd, self._directory / "containerd")
        if program == "docker":
            return DockerClient(self._dockerd, self._home)
        run = self._runroot / str(self._stores)
        return PodmanClient(program, self._home, store, run, registries_conf)

    @cached_property
    def _containerd(self) -> Path:
        return self._scope.enter_context(run_containerd(self._directory / "containerd-state"))

    @cached_property
    def _dockerd(self) -> Path:
        settings = json.loads((self._directory / "docker" / "daemon.json").read_bytes())
        directory = self._directory / "dockerd"
        return self._scope.enter_context(run_dockerd(directory, settings, self._containerd))

    @cached_property
    def _runroot(self) -> Path:
        # podman refuses a path over 50 characters.
        return Path(self._scope.enter_context(TemporaryDirectory()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scope.close()


def curl(*arguments: str) -> list[str]:
    """A command that prints a body, and fails on an error."""
    return [find("curl"), "--silent", "--show-error", "--fail", *arguments]


@contextmanager
def run_containerd(directory: Path) -> Generator[Path]:
    """Run containerd without network plugins.

    Yields:
        Its socket.
    """
    directory.mkdir()
    socket = directory / "containerd.sock"
    configuration = directory / "config.toml"
    configuration.write_text(
        f"""version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{socket}"
[ttrpc]
address = "{socket}.ttrpc"
"""
    )
    with run_server([find("containerd"), f"--config={configuration}"]) as server:
        server.wait_for(_BOOTED)
        yield socket


@contextmanager
def run_dockerd(directory: Path, settings: dict[str, object], containerd: Path) -> Generator[Path]:
    """Run dockerd without a network for containers.

    Args:
        directory: Made for it.
        settings: What a user writes into ``daemon.json``.
        containerd: The socket of a containerd.

    Yields:
        Its socket.
    """
    directory.mkdir()
    socket = directory / "docker.sock"
    configuration = directory / "daemon.json"
    isolated: dict[str, object] = {
        "bridge": "none",
        "containerd": str(containerd),
        "data-root": str(directory / "data"),
        "exec-root": str(directory / "exec"),
        "hosts": [f"unix://{socket}"],
        "ip-forward": False,
        "ip6tables": False,
        "iptables": False,
        "pidfile": str(directory / "docker.pid"),
        "storage-driver": "vfs",
    }
    configuration.write_text(json.dumps(isolated | settings))
    with run_server([find("dockerd"), f"--config-file={configuration}"]) as server:
        server.wait_for(_LISTENING)
        yield socket
