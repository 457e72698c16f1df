"""No step of the event loop takes long, however large an image is (rule X-17).

What is measured is the CPU time of the thread of the loop in each callback, so other load does not
count, and neither does garbage collection, which would walk the objects of other tests. The promise
is 50 ms on a quiet machine of our time. The tests allow ten times as much: work that grows with the
image takes seconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented import AllImages, LayoutCache, Session, supplement
from asupplemented.limits import MAX_LAYERS, MAX_MANIFEST
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from asupplemented.transfer.plan import plan_copy
from asupplemented.transports.memory import MemoryReference
from tests.members import Member, MemberLog

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

IMAGES = 12
"""Images of 10,000 layers each."""

LONGEST = 0.5
"""Seconds that one callback may take."""

pytestmark = pytest.mark.slow


class Longest:
    """The longest callback so far."""

    seconds = 0.0


@contextmanager
def watching(monkeypatch: pytest.MonkeyPatch) -> Generator[Longest]:
    """Measure every callback of the event loop while the body runs."""
    longest = Longest()
    original = asyncio.Handle._run

    def run(self: asyncio.Handle) -> Any:
        began = time.thread_time()
        try:
            return original(self)
        finally:
            longest.seconds = max(longest.seconds, time.thread_time() - began)

    gc.collect()
    gc.disable()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.Handle, "_run", run)
            yield longest
    finally:
        gc.enable()


def large_image(number: int, config: bytes) -> bytes:
    layer = '{"mediaType":"%s","digest":"sha256:%064x","size":123456789}'
    first = number * MAX_LAYERS
    layers = [layer % (OCI_LAYER_GZIP, first + each) for each in range(MAX_LAYERS)]
    named = {"mediaType": OCI_CONFIG, "digest": Digest.of(config), "size": len(config)}
    return (
        f'{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{json.dumps(named)},'
        f'"layers":[{",".join(layers)}]}}'
    ).encode()


def large_config() -> bytes:
    history = [{"created_by": f"RUN {number}", "empty_layer": True} for number in range(70_000)]
    raw = json.dumps({"os": "linux", "architecture": "amd64", "history": history}).encode()
    assert MAX_MANIFEST * 3 // 4 < len(raw) <= MAX_MANIFEST
    return raw


def large_group() -> MemoryReference:
    config = large_config()
    images = [large_image(number, config) for number in range(IMAGES)]
    platform = {"os": "linux", "architecture": "amd64"}
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": Digest.of(raw), "size": len(raw)} for raw in images
    ]
    entries[0]["platform"] = platform
    top = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return MemoryReference.of("x", json.dumps(top).encode(), manifests=images, blobs=[config])


async def test_X17_resolving_and_looking_up_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    large = large_group()
    async with Session() as session:
        with watching(monkeypatch) as longest:
            async with supplement(large).open(session) as image:
                layer = "sha256:" + f"{5:064x}"
                assert len(image.resolution.candidates(layer)) == 1
                image.open_blob(layer)
        assert len(image.resolution.blobs) == IMAGES * MAX_LAYERS + 1
    assert 0 < longest.seconds < LONGEST


async def test_X17_one_image_with_a_large_config(monkeypatch: pytest.MonkeyPatch) -> None:
    large = large_group()
    async with Session() as session:
        with watching(monkeypatch) as longest:
            async with supplement(large).open_image(session, platform="linux/amd64") as image:
                assert len(image.layers) == MAX_LAYERS
                assert len(image.config.history) == 70_000
    assert 0 < longest.seconds < LONGEST


async def test_X17_planning_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    large = large_group()
    async with Session() as session, large.open(session) as source:
        with watching(monkeypatch) as longest:
            plan = await plan_copy(source, AllImages(), session)
        assert len(plan.layers) == IMAGES * MAX_LAYERS
    assert 0 < longest.seconds < LONGEST


async def test_X17_manifests_from_a_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    member = Member("top", MemberLog(), large_group())
    for _ in range(2):
        async with LayoutCache(tmp_path / "cache", 2**30) as cache, Session(cache=cache) as session:
            with watching(monkeypatch) as longest:
                await supplement(member).resolve(session)
        assert 0 < longest.seconds < LONGEST


async def test_X17_a_list_with_as_many_entries_as_a_group_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entries = ",".join(f'{{"digest":"sha256:{number:064x}"}}' for number in range(19_000))
    top = f'{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entries}]}}'.encode()
    async with Session() as session:
        with watching(monkeypatch) as longest:
            group = supplement(MemoryReference.of("x", top), missing="skip")
            found = await group.resolve(session)
        assert len(found.missing) == 19_000
    assert 0 < longest.seconds < LONGEST
