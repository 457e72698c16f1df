"""What the tests of the command line share: places to read from, and a way to call it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import pytest
from click import Context
from click.testing import CliRunner

from asupplemented.cli.app import COMMANDS, app
from asupplemented.model.digest import Digest
from asupplemented.testing.disk import write_layout
from asupplemented.testing.images import build_image, build_index
from asupplemented.transports.registry import ConfigurationPaths

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.testing.images import BuiltImage, BuiltIndex

BASE = {"etc/base": "the same in every image"}
AMD = build_image("linux/amd64", [BASE, {"a": "1"}], labels={"of": "amd64"})
ARM = build_image("linux/arm64/v8", [BASE, {"b": "2"}], labels={"of": "arm64"})
RISCV = build_image("linux/riscv64", [BASE, {"c": "3"}])
TOP = build_index([AMD, ARM])
CONTEXT = Context(app)


class Answer(NamedTuple):
    """How a call of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Cli(Protocol):
    def __call__(self, *arguments: str) -> Answer: ...


class Places(NamedTuple):
    """One image in two places, of which the top lacks an instance."""

    top: str
    supplement: str
    directory: Path


def list_commands() -> dict[str, Any]:
    """The commands of the program by name, those of ``cache`` included."""
    found: dict[str, Any] = {name: app.get_command(CONTEXT, name) for name in COMMANDS}
    return {**found, **found["cache"].commands}


def call(*arguments: str) -> Answer:
    result = CliRunner().invoke(app, arguments, prog_name="asupplemented", catch_exceptions=False)
    return Answer(result.exit_code, result.stdout, result.stderr)


async def called(*arguments: str) -> Answer:
    """A call in a thread, while this one serves a registry."""
    return await asyncio.to_thread(call, *arguments)


@pytest.fixture(autouse=True)
def isolate_from_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the credentials, mirrors and proxies of the user that runs the tests."""
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "absent.json"))
    monkeypatch.setattr(ConfigurationPaths, "default", lambda *_: ConfigurationPaths())
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def cli() -> Cli:
    """Calls the command line in this process. What is no error of the library is raised."""
    return call


@pytest.fixture
def places(tmp_path: Path) -> Places:
    top = write_layout(tmp_path / "top", TOP, name="app", include={AMD.digest})
    other = write_layout(tmp_path / "other", build_index([ARM, RISCV]))
    return Places(top, other, tmp_path)


@pytest.fixture
def group(places: Places) -> tuple[str, ...]:
    """The arguments that make a whole image of the two places."""
    return (places.top, places.supplement)


def write_raw(path: Path, raw: bytes, media_type: str, digest: str | None = None) -> str:
    """A layout whose only image is some bytes, under their digest or one that lies."""
    name = Digest(digest or Digest.of(raw))
    file = path / "blobs" / name.algorithm / name.encoded
    file.parent.mkdir(parents=True)
    file.write_bytes(raw)
    entry = {"mediaType": media_type, "digest": name, "size": len(raw)}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return f"oci:{path}"


def blob_file(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / digest.algorithm / digest.encoded


def whole(top: BuiltIndex | BuiltImage) -> set[str]:
    """Digests of everything that belongs to something built."""
    return {built.digest for built in top.walk()} | set(top.blobs)
