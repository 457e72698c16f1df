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


# The commands on a cache


@pytest.fixture
async def cache(registry: FakeRegistry, tmp_path: Path) -> str:
    """A cache that holds one image, pinned."""
    directory = str(tmp_path / "cache")
    reference = registry.reference("team/app")
    await called("prefetch", reference, "--cache", directory, "--pin", "--tls-verify=false")
    return directory


async def test_a_cache_is_listed_and_counted(cache: str) -> None:
    listed = await called("cache", "ls", cache)
    assert listed.out.startswith(TOP.digest[:19])
    assert listed.out.endswith("pinned\n")
    [image] = (await called("cache", "ls", cache, "--json")).json["images"]
    sizes = {built.digest: len(built.raw) for built in TOP.walk()}
    sizes |= {digest: len(data) for digest, data in TOP.blobs.items()}
    assert (image["digest"], image["size"]) == (TOP.digest, sum(sizes.values()))
    blobs = (await called("cache", "ls", cache, "--blobs", "--json")).json["blobs"]
    assert {entry["digest"]: entry["size"] for entry in blobs} == sizes
    counted = (await called("cache", "stats", cache, "--json")).json
    assert counted == {
        "images": 1,
        "entries": len(sizes),
        "pins": 1,
        "bytes": sum(sizes.values()),
    }
    assert "1 images" in (await called("cache", "stats", cache)).out


async def test_a_corrupt_blob_is_found_and_removed(cache: str, tmp_path: Path) -> None:
    assert (await called("cache", "verify", cache)).code == 0
    file = tmp_path / "cache/blobs/sha256" / AMD.layers[0].partition(":")[2]
    file.chmod(0o600)
    file.write_bytes(b"other")
    answer = await called("cache", "verify", cache)
    assert (answer.code, answer.out) == (4, f"{AMD.layers[0]}\n")
    removed = await called("cache", "verify", cache, "--remove", "--json")
    assert (removed.code, removed.json["corrupt"], removed.json["stay"]) == (0, [AMD.layers[0]], [])
    assert not file.exists()
    assert (await called("cache", "verify", cache)).out == ""


async def test_what_is_unpinned_can_be_evicted(cache: str, tmp_path: Path) -> None:
    kept = await called("cache", "gc", cache, "--cache-size", "1")
    assert (kept.code, kept.out) == (0, "")
    assert (await called("cache", "gc", cache)).out == ""
    assert blobs_of(tmp_path / "cache") == whole(TOP)
    assert (await called("cache", "unpin", cache)).code == 2
    assert (await called("cache", "unpin", cache, "sha256:ffff")).code == 3
    unpinned = await called("cache", "unpin", cache, TOP.digest[:19])
    assert (unpinned.code, unpinned.out) == (0, f"{TOP.digest}\n")
    evicted = await called("cache", "gc", cache, "--cache-size", "1")
    assert set(evicted.out.split()) == whole(TOP)
    assert "the cache holds 0 B" in evicted.err
    assert blobs_of(tmp_path / "cache") == set()


def test_there_is_no_cache(cli: Cli, tmp_path: Path) -> None:
    for command in ("ls", "stats", "verify", "gc"):
        answer = cli("cache", command, str(tmp_path))
        assert (answer.code, answer.out) == (3, "")
        assert f"there is no cache at {tmp_path}" in answer.err
