"""The examples of the documentation do what they say."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest

import asupplemented as asup
from asupplemented.aio.retry import CLOCK
from asupplemented.blobs.health import health_of
from tests.clocks import FakeClock
from tests.modules import ROOT, code_blocks, read_page
from tests.transports.contract import AMD64, CONTENTS, AdapterContract
from tests.transports.places import open_files
from tests.worlds import Contents, write_layout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from asupplemented.abc import Reference
    from tests.transports.contract import World

EXAMPLES = ROOT / "docs" / "examples"
STREAMS = read_page("explanation/streams.md")
ARCHITECTURE = read_page("explanation/architecture.md")


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"docs_examples_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


ZIP = load("zip_transport")


async def test_two_of_three_die_and_the_blob_comes_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = load("failover")
    clock = FakeClock()
    async with asup.Session(tls_verify=False, hooks=[example.tell]) as session:
        session.resource(CLOCK, lambda: clock.clock)
        await example.show(session, tmp_path)
    out = capsys.readouterr().out
    parts = re.findall(r"bytes +(\d+) to +(\d+)  (\w+):", out)
    assert [kind for _, _, kind in parts] == ["docker", "docker", "oci"]
    starts, ends = ([int(part[n]) for part in parts] for n in (0, 1))
    assert starts == [0, *ends[:-1]]
    assert ends[-1] == 12 << 20
    assert all(end >= death for end, death in zip(ends, example.DEATHS, strict=False))
    assert f"Verified: True, {12 << 20} bytes of {example.LAYER}" in out
    assert out.endswith("Members: 2 1 0\n")
    assert clock.slept, "both were asked for the rest once more"


def test_what_the_page_about_streams_shows_compiles() -> None:
    assert len(code_blocks(STREAMS, "python")) == 4
    for block in code_blocks(STREAMS, "python"):
        compile(block, "streams.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def test_how_long_a_source_is_asked_last_is_set_as_the_page_says() -> None:
    [block] = [each for each in code_blocks(STREAMS, "python") if "BreakerPolicy" in each]
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102 - our own page
    async with names["session"] as session:
        clock = FakeClock()
        session.resource(CLOCK, lambda: clock.clock)
        health = health_of(session)
        health.record_failure("a", asup.NetworkError("x"))
        assert health.remaining("a") == 2


# A transport of a user's own


def write_zip(root: Path, contents: Contents) -> Path:
    write_layout(root, contents)
    with ZipFile(root.with_suffix(".zip"), "w") as archive:
        for file in root.rglob("*"):
            archive.write(file, file.relative_to(root))
    return root.with_suffix(".zip")


class ZipWorld:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._numbers = count()

    @asynccontextmanager
    async def serve(self, contents: Contents) -> AsyncIterator[Reference]:
        yield ZIP.ZipReference(str(write_zip(self._root / str(next(self._numbers)), contents)))


class TestZipTransport(AdapterContract):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[World]:
        yield ZipWorld(tmp_path)
        assert open_files(tmp_path) == []


async def test_the_zip_transport_shows_the_layers_of_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asupplemented.transports._registered", {})
    await ZIP.show(str(write_zip(tmp_path / "app", Contents.of(AMD64))))
    out = capsys.readouterr().out
    assert out.splitlines() == [f"{digest} {len(AMD64.blobs[digest])}" for digest in AMD64.layers]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        pytest.param(b"no zip file", asup.SourceError, id="no zip file"),
        pytest.param(None, asup.NotFoundError, id="no file"),
    ],
)
async def test_a_file_that_cannot_be_read_raises_an_error_of_the_library(
    tmp_path: Path, data: bytes | None, kind: type[asup.SupplementedError]
) -> None:
    path = tmp_path / "app.zip"
    if data is not None:
        path.write_bytes(data)
    async with asup.Session() as session:
        with pytest.raises(kind, match="zip"):
            await ZIP.ZipReference(str(path)).open(session)


def test_damaged_content_of_a_zip_file_is_an_error_of_the_source(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "app", CONTENTS)
    data = bytearray(path.read_bytes())
    at = data.index(b'{"schemaVersion": 2, "manifests"')
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(asup.SourceError, match="CRC"):
        ZIP.ZipSource(str(path))


# The page about the architecture


def test_every_file_that_the_page_about_the_architecture_names_is_there() -> None:
    found = [f"/{path.relative_to(ROOT)}" for path in ROOT.rglob("*.py")]
    named = set(re.findall(r"[\w./]+\.py\b", ARCHITECTURE))
    assert len(named) > 30
    assert [name for name in named if not any(each.endswith(f"/{name}") for each in found)] == []


def test_a_transport_is_registered_as_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asupplemented.transports._registered", {})
    [block] = code_blocks(read_page("howto/transport.md"), "python")
    names: dict[str, Any] = {"asup": asup, "ZipReference": ZIP.ZipReference}
    exec(block, names)  # noqa: S102 - our own page
    assert names["reference"].references[1] == ZIP.ZipReference("/srv/app.zip")
