from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.aio.locks import LOCK_FILE, try_lock
from asupplemented.aio.retry import CLOCK
from asupplemented.errors import (
    LimitExceededError,
    MalformedManifestError,
    SourceTimeoutError,
)
from asupplemented.limits import MAX_MANIFEST
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.model.platform import Platform
from asupplemented.oci_layout import (
    REF_NAME,
    LayoutStore,
    add_beside,
    add_entry,
    describe,
)
from asupplemented.session import Session
from asupplemented.testing import build_image
from tests.clocks import FakeClock
from tests.suspending import wait_until

if TYPE_CHECKING:
    from asupplemented.oci_layout import Tree

ROOT = Path(__file__).parent.parent
IMAGE = build_image()


def entry(digest: str, name: str | None = None, **more: object) -> dict[str, object]:
    named = {} if name is None else {"annotations": {REF_NAME: name}}
    return {"digest": digest, **named, **more}


def listed(digest: str, name: str | None = None) -> Descriptor:
    return Descriptor(digest=digest, annotations={} if name is None else {REF_NAME: name})


# Paths


def test_OC03_OC09_paths() -> None:
    digest = Digest.of(b"x", "sha512")
    own, shared = LayoutStore.at("/a/b"), LayoutStore.at("/a/b", shared="/s")
    assert own.blob_path(digest) == f"/a/b/blobs/sha512/{digest.encoded}"
    assert shared.blob_path(digest) == f"/s/sha512/{digest.encoded}"


# Entries


@pytest.mark.parametrize(
    ("before", "added", "after"),
    [
        ([], listed("a", "x"), [entry("a", "x")]),
        ([entry("b", "y")], listed("a", "x"), [entry("b", "y"), entry("a", "x")]),
        ([entry("b", "x")], listed("a", "x"), [entry("b"), entry("a", "x")]),
        ([entry("a", "x")], listed("a", "x"), [entry("a", "x")]),
        ([entry("a")], listed("a", "x"), [entry("a", "x")]),
        ([entry("a"), entry("b")], listed("a"), [entry("a"), entry("b")]),
        ([entry("a", "y")], listed("a", "x"), [entry("a", "y"), entry("a", "x")]),
        ([entry("a", "y")], listed("a"), [entry("a", "y"), entry("a")]),
        ([entry("b"), entry("a", "")], listed("a", "x"), [entry("b"), entry("a", "x")]),
        (
            [entry("b", "x"), entry("c", "x")],
            listed("a", "x"),
            [entry("b"), entry("c"), entry("a", "x")],
        ),
    ],
)
def test_OC12_adding_an_entry(
    before: list[dict[str, object]], added: Descriptor, after: list[dict[str, object]]
) -> None:
    tree: Tree = {"schemaVersion": 2, "manifests": before, "other": 1}  # type: ignore[dict-item]
    copy = json.loads(json.dumps(tree))
    assert add_entry(tree, added) == {"schemaVersion": 2, "manifests": after, "other": 1}
    assert tree == copy


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y", None])),
        min_size=1,
        max_size=12,
    )
)
def test_OC12_a_name_means_what_was_last_given_it(steps: list[tuple[str, str | None]]) -> None:
    tree: Tree = {}
    for digest, name in steps:
        tree = add_entry(tree, listed(digest, name))
    entries: list[dict[str, object]] = tree["manifests"]  # type: ignore[assignment]
    names = [e["annotations"][REF_NAME] for e in entries if "annotations" in e]  # type: ignore[index]
    expected = {name: digest for digest, name in steps if name is not None}
    assert {
        n: next(e["digest"] for e in entries if e == entry(e["digest"], n)) for n in names
    } == expected  # type: ignore[arg-type]
    assert len(names) == len(set(names))
    assert {e["digest"] for e in entries} == {digest for digest, _ in steps}  # Nothing is lost.


def test_adding_beside_lists_what_is_not_listed_yet() -> None:
    tree: Tree = {"manifests": [entry("a", "x"), entry("b")]}  # type: ignore[list-item]
    images = [listed("b"), listed("c"), listed("a"), listed("c"), listed("d")]
    assert add_beside(tree, images) == {
        "manifests": [entry("a", "x"), entry("b"), entry("c"), entry("d")]
    }
    assert add_beside({}, []) == {"manifests": []}


def test_an_entry_says_what_is_known() -> None:
    manifest = Manifest.verified(IMAGE.raw, None, None)
    bare = {"mediaType": IMAGE.media_type, "digest": IMAGE.digest, "size": len(IMAGE.raw)}
    assert describe(manifest).to_dict() == bare
    assert describe(manifest, Platform("linux", "arm", "v7"), "app").to_dict() == {
        **bare,
        "platform": {"os": "linux", "architecture": "arm", "variant": "v7"},
        "annotations": {REF_NAME: "app"},
    }


# Changing the index


def add(name: str) -> Descriptor:
    return listed(Digest.of(name.encode()), name)


def names(root: Path) -> list[str]:
    document = json.loads((root / "index.json").read_bytes())
    return [each["annotations"][REF_NAME] for each in document["manifests"]]


async def change(session: Session, root: Path, name: str) -> None:
    await LayoutStore.at(root).update_index(session, lambda tree: add_entry(tree, add(name)))


async def test_changes_by_many_tasks_are_all_kept(tmp_path: Path) -> None:
    wanted = [f"n{n}" for n in range(40)]
    async with Session() as session:
        await asyncio.gather(*(change(session, tmp_path, name) for name in wanted))
    assert sorted(names(tmp_path)) == sorted(wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "oci-layout"]


PROGRAM = """
import asyncio, pathlib, sys
from asupplemented.oci_layout import LayoutStore, REF_NAME, add_entry
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.session import Session

async def main(root, who, count):
    store = LayoutStore.at(root, durable=False)
    print("ready", flush=True)
    sys.stdin.readline()
    async with Session() as session:
        for number in range(count):
            name = f"{who}-{number}"
            added = Descriptor(digest=Digest.of(name.encode()), annotations={REF_NAME: name})
            await store.update_index(session, lambda tree: add_entry(tree, added))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def test_changes_by_several_processes_are_all_kept(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path), f"p{n}", "25"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.communicate("go\n", timeout=60)
        assert writer.returncode == 0
    expected = {f"p{n}-{number}" for n in range(4) for number in range(25)}
    assert set(names(tmp_path)) == expected
    assert len(names(tmp_path)) == len(expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "oci-layout"]


async def test_readers_see_a_whole_index_at_any_time(tmp_path: Path) -> None:
    store = LayoutStore.at(tmp_path)
    async with Session() as session:
        await change(session, tmp_path, "first")
        writing = asyncio.gather(*(change(session, tmp_path, f"n{n}") for n in range(20)))
        sizes = [0]
        while not writing.done():
            index = store.read_index()
            assert index is not None
            sizes.append(len(index.manifests))
            await asyncio.sleep(0)
        await writing
    assert sizes == sorted(sizes)


async def test_a_lock_that_is_never_given_back_is_waited_for_a_minute(tmp_path: Path) -> None:
    clock = FakeClock()
    async with Session() as session:
        session.resource(CLOCK, lambda: clock.clock)
        with try_lock(tmp_path / LOCK_FILE) as held:
            assert held
            with pytest.raises(SourceTimeoutError, match=f"{LOCK_FILE}.*60 s"):
                await change(session, tmp_path, "late")
    assert 60 <= clock.time < 61
    assert not (tmp_path / "index.json").exists()


async def test_a_lock_that_is_given_back_is_taken(tmp_path: Path) -> None:
    clock = FakeClock()
    async with Session() as session:
        session.resource(CLOCK, lambda: clock.clock)
        with try_lock(tmp_path / LOCK_FILE):
            task = asyncio.create_task(change(session, tmp_path, "late"))
            await wait_until(lambda: len(clock.slept) >= 2)
        await task
    assert names(tmp_path) == ["late"]


async def test_the_layout_file_is_written_once_and_left_alone(tmp_path: Path) -> None:
    async with Session() as session:
        await change(session, tmp_path, "one")
        assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
        (tmp_path / "oci-layout").write_text("mine")
        await change(session, tmp_path, "two")
    assert (tmp_path / "oci-layout").read_text() == "mine"


async def test_a_change_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    async with Session() as session:
        await change(session, tmp_path, "one")
        before = (tmp_path / "index.json").stat().st_ino
        await change(session, tmp_path, "one")
    assert (tmp_path / "index.json").stat().st_ino == before


async def test_L03_an_index_that_would_be_too_large_is_not_written(tmp_path: Path) -> None:
    def grow(tree: Tree) -> Tree:
        return {**tree, "annotations": {"x": "y" * MAX_MANIFEST}}

    async with Session() as session:
        await change(session, tmp_path, "one")
        with pytest.raises(LimitExceededError, match=str(MAX_MANIFEST)):
            await LayoutStore.at(tmp_path).update_index(session, grow)
        await change(session, tmp_path, "two")  # The lock is free.
    assert names(tmp_path) == ["one", "two"]


async def test_a_broken_index_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{")
    async with Session() as session:
        with pytest.raises(MalformedManifestError, match=r"index\.json"):
            await change(session, tmp_path, "one")
    assert (tmp_path / "index.json").read_text() == "{"


async def test_a_number_that_cannot_be_written_again_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text('{"x":1e999}')
    async with Session() as session:
        with pytest.raises(MalformedManifestError, match="number"):
            await change(session, tmp_path, "one")
    assert (tmp_path / "index.json").read_text() == '{"x":1e999}'


async def test_text_beyond_ascii_and_large_numbers_survive(tmp_path: Path) -> None:
    document = {"manifests": [], "x": "é\u2028😀", "n": 2**70, "f": 0.1}
    (tmp_path / "index.json").write_text(json.dumps(document, ensure_ascii=False))
    async with Session() as session:
        await change(session, tmp_path, "one")
    after = json.loads((tmp_path / "index.json").read_bytes())
    assert {key: after[key] for key in ("x", "n", "f")} == {"x": "é\u2028😀", "n": 2**70, "f": 0.1}


def test_there_may_be_no_index(tmp_path: Path) -> None:
    assert LayoutStore.at(tmp_path).read_index() is None
    assert LayoutStore.at(tmp_path / "nowhere").read_index() is None
