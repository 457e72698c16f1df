"""The registry of the benchmarks answers right, or its figures mean nothing."""

from __future__ import annotations

import time
import urllib.request
from typing import TYPE_CHECKING

import aiohttp
import pytest

from asupplemented.model.digest import Digest
from asupplemented.model.media_type import OCI_INDEX, OCI_MANIFEST
from benchmarks.server import MANIFEST_BYTES, LeanRegistry, build_padded_image, hold, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize("number", [0, 9, 10, 12345])
def test_manifests_have_the_size_they_should(number: int) -> None:
    assert len(build_padded_image(number).raw) == MANIFEST_BYTES
    assert build_padded_image(number).digest != build_padded_image(number + 1).digest


async def test_every_manifest_is_there(http: aiohttp.ClientSession) -> None:
    async with LeanRegistry(hold(3, singles=2)) as registry:
        offer = registry.offer
        assert len(offer.instances) == 3
        async with http.get(offer.url + "/v2/") as answer:
            assert (answer.status, await answer.read()) == (200, b"{}")
        for key in ("all", *offer.instances, "single-0", "single-1"):
            async with http.get(offer.manifest_url(key)) as answer:
                raw = await answer.read()
                assert Digest(answer.headers["Docker-Content-Digest"]).matches(raw)
                assert answer.content_type == (OCI_INDEX if key == "all" else OCI_MANIFEST)
            async with http.head(offer.manifest_url(key)) as answer:
                assert (answer.content_length, await answer.read()) == (len(raw), b"")
        async with http.get(offer.manifest_url("single-2")) as answer:
            assert answer.status == 404


async def test_blobs_of_the_images_are_there(http: aiohttp.ClientSession) -> None:
    async with LeanRegistry(hold(1)) as registry:
        for digest, data in build_padded_image(0).blobs.items():
            async with http.get(f"{registry.offer.url}/v2/bench/blobs/{digest}") as answer:
                assert await answer.read() == data


async def test_a_file_is_served_as_a_blob(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(bytes(range(256)) * 40_000)
    async with LeanRegistry(hold(0, file=file)) as registry:
        offer = registry.offer
        assert (offer.blob, offer.blob_size) == (Digest.of(file.read_bytes()), 10_240_000)
        for _ in range(2):
            async with http.head(offer.blob_url) as answer:
                assert answer.content_length == 10_240_000
            async with http.get(offer.blob_url) as answer:
                assert await answer.read() == file.read_bytes()


async def test_a_client_may_leave_in_the_middle(
    http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    file = tmp_path / "blob"
    file.write_bytes(bytes(32 * 1024 * 1024))
    async with LeanRegistry(hold(0, file=file)) as registry:
        async with http.get(registry.offer.blob_url) as answer:
            await answer.content.readexactly(10)
        async with http.get(registry.offer.url + "/v2/") as answer:
            assert answer.status == 200


async def test_latency_comes_before_each_answer(http: aiohttp.ClientSession) -> None:
    async with LeanRegistry(hold(0), latency=0.05) as registry:
        began = time.perf_counter()
        async with http.get(registry.offer.url + "/v2/") as answer:
            await answer.read()
        assert time.perf_counter() - began >= 0.045


def test_a_process_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"content")
    with serve(instances=2, singles=1, file=file) as offer:
        assert offer.reference() == f"docker://127.0.0.1:{offer.port}/bench:all"
        for url in (offer.manifest_url(offer.instances[1]), offer.manifest_url("single-0")):
            with urllib.request.urlopen(url) as answer:  # noqa: S310  # our own server
                assert len(answer.read()) == MANIFEST_BYTES
        with urllib.request.urlopen(offer.blob_url) as answer:  # noqa: S310
            assert answer.read() == b"content"
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(offer.url + "/v2/")  # noqa: S310
