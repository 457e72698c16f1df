"""The cache on disk from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.testing import FakeRegistry, Status
from tests.cli.conftest import AMD, TOP, called, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.cli.conftest import Cli


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        registry.add("team/app", TOP)
        yield registry


def blobs_of(cache: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (cache / "blobs" / "sha256").iterdir()}


async def test_prefetch_fills_the_cache(registry: FakeRegistry, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    arguments = ("prefetch", registry.reference("team/app"), "--cache", str(cache))
    answer = await called(*arguments, "--no-tls-verify")
    assert (answer.code, answer.out) == (0, f"{TOP.digest}\n")
    assert "3 manifests, fetched" in answer.err
    assert blobs_of(cache) == whole(TOP)
    before = registry.count("*/blobs/*")
    again = await called(*arguments, "--json", "--no-tls-verify")
    assert again.json["digest"] == TOP.digest
    assert (again.json["blobs"], again.json["missing"]) == (0, [])
    assert registry.count("*/blobs/*") == before


async def test_a_copy_reads_and_fills_the_cache(registry: FakeRegistry, tmp_path: Path) -> None:
    reference, cache = registry.reference("team/app"), tmp_path / "cache"
    for number in range(2):
        target = f"oci:{tmp_path}/copy{number}:app"
        answer = await called(
            "copy", reference, "--to", target, "--cache", str(cache), "--no-tls-verify"
        )
        assert answer.code == 0
    assert blobs_of(cache) == whole(TOP)
    assert registry.count(f"*/blobs/{AMD.config}") == 1


async def test_a_pinned_image_is_marked(registry: FakeRegistry, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    reference = registry.reference("team/app")
    answer = await called("prefetch", reference, "--cache", str(cache), "--pin", "--no-tls-verify")
    assert answer.code == 0
    assert any(TOP.digest.encoded in path.name for path in cache.rglob("pins/*"))


async def test_what_cannot_be_fetched(registry: FakeRegistry, tmp_path: Path) -> None:
    registry.script(f"*/blobs/{AMD.config}", Status(403), forever=True)
    reference = registry.reference("team/app")
    answer = await called(
        "prefetch", reference, "--cache", str(tmp_path / "cache"), "--no-tls-verify"
    )
    assert answer.code == 1
    assert AMD.config in answer.err


def test_prefetch_needs_a_cache(cli: Cli) -> None:
    answer = cli("prefetch", "docker://registry.example/app")
    assert answer.code == 2
    assert "--cache" in answer.err


def test_a_size_that_is_none(cli: Cli, tmp_path: Path) -> None:
    answer = cli("resolve", "oci:x", "--cache", str(tmp_path), "--cache-size", "plenty")
    assert answer.code == 2
    assert "10GiB" in answer.err
