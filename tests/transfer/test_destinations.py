"""Copying to real layouts and directories, and from one to another."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.errors import BlobNotFoundError
from asupplemented.session import Session
from asupplemented.supplemented import supplement
from asupplemented.testing import FakeRegistry, write_layout
from asupplemented.testing.images import build_image, build_index
from asupplemented.transfer.copy import copy
from asupplemented.transports import parse_reference
from tests.cache.driving import Events
from tests.members import hold
from tests.suspending import wait_until
from tests.worlds import read_index

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.model.digest import Digest

BASE = {"etc/base": b"shared" * 100_000}
AMD = build_image("linux/amd64", [BASE, {"a": "1"}])
ARM = build_image("linux/arm64/v8", [BASE, {"b": "2"}])
TOP = build_index([AMD, ARM])
OTHER = build_index([ARM, build_image("linux/riscv64", [BASE, {"c": "3"}])])


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with Session(tls_verify=False) as opened:
        yield opened


def names(layout: Path) -> list[str]:
    return [
        entry["annotations"]["org.opencontainers.image.ref.name"] for entry in read_index(layout)
    ]


def file_of(layout: Path, digest: Digest) -> Path:
    return layout / "blobs" / digest.algorithm / digest.encoded


async def test_copies_to_one_layout_at_the_same_time_all_succeed(
    session: Session, tmp_path: Path
) -> None:
    images = {f"app-{n}": (TOP, OTHER, AMD)[n % 3] for n in range(9)}
    reports = await asyncio.gather(
        *(copy(hold(name, top), f"oci:{tmp_path}:{name}", session) for name, top in images.items())
    )
    assert sorted(names(tmp_path)) == sorted(images)
    for report, (name, top) in zip(reports, images.items(), strict=True):
        assert report.digest == top.digest
        again = await copy(f"oci:{tmp_path}:{name}", f"dir:{tmp_path / name}.copy", session)
        assert again.blobs == len(top.blobs)
    assert not list(tmp_path.glob("**/.asupplemented*"))
    assert not list(tmp_path.glob("**/*.lock"))


async def test_the_same_name_copied_twice_at_once_is_there_once(
    session: Session, tmp_path: Path
) -> None:
    await asyncio.gather(
        *(copy(hold("x", TOP), f"oci:{tmp_path}:app", session) for _ in range(4)),
    )
    assert names(tmp_path) == ["app"]


async def test_a_copy_goes_through_every_kind_of_store_unchanged(
    session: Session, tmp_path: Path
) -> None:
    places = [f"oci:{tmp_path / 'a'}:app", f"dir:{tmp_path / 'b'}", f"oci:{tmp_path / 'c'}"]
    source: Any = hold("memory", TOP)
    for place in places:
        report = await copy(source, place, session)
        assert (report.digest, report.manifests, report.blobs) == (TOP.digest, 3, 5)
        source = place
    for digest, data in TOP.blobs.items():
        assert file_of(tmp_path / "c", digest).read_bytes() == data
        assert (tmp_path / "b" / digest.encoded).read_bytes() == data


async def test_a_second_copy_fetches_only_what_lacks(session: Session, tmp_path: Path) -> None:
    async with FakeRegistry() as registry:
        source = registry.add("team/app", TOP)
        await copy(source, f"oci:{tmp_path}:app", session)
        file_of(tmp_path, ARM.layers[1]).unlink()
        spoilt = file_of(tmp_path, AMD.layers[1])
        spoilt.write_bytes(b"?" + spoilt.read_bytes()[1:])
        before = registry.count("/v2/team/app/blobs/*")
        report = await copy(source, f"oci:{tmp_path}:app", session)
        asked = registry.select_requests("/v2/team/app/blobs/*")[before:]
    assert {request.path.rpartition("/")[2] for request in asked} >= {ARM.layers[1]}
    assert AMD.layers[0] not in {request.path.rpartition("/")[2] for request in asked}
    assert file_of(tmp_path, ARM.layers[1]).read_bytes() == ARM.blobs[ARM.layers[1]]
    assert report.blobs + report.reused_blobs == 5
    assert spoilt.read_bytes() == AMD.blobs[AMD.layers[1]]


async def test_a_failed_copy_leaves_the_layout_as_its_readers_saw_it(
    session: Session, tmp_path: Path
) -> None:
    await copy(hold("x", AMD), f"oci:{tmp_path}:app", session)
    before = (tmp_path / "index.json").read_bytes()
    broken = write_layout(tmp_path / "broken", OTHER, omit={ARM.layers[1]})
    with pytest.raises(BlobNotFoundError) as caught:
        await copy(broken, f"oci:{tmp_path}:app", session)
    assert caught.value.digest == ARM.layers[1]
    assert (tmp_path / "index.json").read_bytes() == before
    # A call that had begun in a thread when the copy was given up runs to its end.
    await wait_until(lambda: "0 calls" in repr(session.resource(WORKERS, Workers)))
    assert not list(tmp_path.glob("**/.asupplemented*"))
    assert (await copy(f"oci:{tmp_path}:app", f"dir:{tmp_path / 'out'}", session)).blobs == 3


async def test_extras_are_listed_once_and_without_a_name(session: Session, tmp_path: Path) -> None:
    group = supplement(hold("top", TOP), hold("other", OTHER))
    for _ in range(2):
        report = await copy(group, f"oci:{tmp_path}:app", session, extras=True)
    app, extra = read_index(tmp_path)
    assert app["digest"] == TOP.digest
    assert extra["platform"] == {"architecture": "riscv64", "os": "linux"}
    assert "annotations" not in extra
    assert report.warnings == ()
    async with supplement(f"oci:{tmp_path}:@1").open(session) as image:
        assert image.resolution.top == extra["digest"]


async def test_OC05_a_nameless_copy_beside_others_is_reported_where_it_can_be_opened(
    session: Session, tmp_path: Path
) -> None:
    target = f"oci:{tmp_path / 'out'}"
    report = await copy(hold("first", AMD), target, session)
    assert (report.destination, report.warnings) == (target, ())
    report = await copy(hold("again", AMD), target, session)
    assert (report.destination, report.warnings) == (target, ())
    await copy(hold("named", ARM), f"{target}:arm", session)
    for image in (OTHER, AMD, TOP):
        report = await copy(hold("next", image), target, session)
        [warning] = report.warnings
        assert report.destination in warning
        assert f"{target}:NAME" in warning
        async with parse_reference(report.destination).open(session) as copied:
            assert (await copied.get_manifest()).raw == image.raw


@pytest.mark.parametrize("cached", [False, True])
async def test_a_damaged_supplement_that_another_member_made_up_for_is_a_warning(
    tmp_path: Path, *, cached: bool
) -> None:
    write_layout(tmp_path / "good", AMD)
    write_layout(tmp_path / "bad", AMD)
    [layer, *_] = AMD.layers
    damaged = file_of(tmp_path / "bad", layer)
    damaged.write_bytes(bytes(damaged.stat().st_size))
    group = supplement(f"oci:{tmp_path / 'good'}", f"oci:{tmp_path / 'bad'}")
    events = Events()
    cache = LayoutCache(tmp_path / "cache", 10**9) if cached else None
    async with Session(cache=cache, hooks=[events]) as session:
        report = await copy(group, f"dir:{tmp_path / 'out'}", session)
    [warning] = report.warnings
    assert warning in events.messages
    assert f"oci:{tmp_path / 'bad'} is damaged" in warning
    assert f"copied from oci:{tmp_path / 'good'}" in warning
    assert layer in warning
