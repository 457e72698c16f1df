"""Blobs in files that other users can change, and files that a link leads to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from asupplemented.aio.beneath import is_private
from asupplemented.blobs.read_ahead import SETTLED
from asupplemented.errors import SupplementedError
from asupplemented.limits import MIB
from asupplemented.model.digest import Digest
from asupplemented.session import Session
from asupplemented.testing import build_image, write_layout
from asupplemented.transfer.copy import copy
from asupplemented.transports.oci import LayoutReference
from tests.candidates import drain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

OTHER = 12_345
"""A user that is not the one who runs the tests."""

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
IMAGE = build_image("linux/amd64", [b"x" * (6 * MIB)], gzip=False)
LAYER = IMAGE.layers[0]
DATA = IMAGE.blobs[LAYER]


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with Session() as opened:
        yield opened


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    write_layout(tmp_path / "in", IMAGE)
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just now count as old enough to be remembered."""
    monkeypatch.setattr("asupplemented.blobs.read_ahead.SETTLED", -SETTLED)


def blob(layout: Path) -> Path:
    return layout / "blobs" / "sha256" / LAYER.encoded


def change_silently(path: Path) -> None:
    """Change a file as a program does that has mapped it: its timestamps stay."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(b"wrong")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def path_of(reference: LayoutReference, session: Session) -> Path | None:
    async with reference.open(session) as image, image.open_blob(LAYER) as stream:
        return stream.take_path()


SPOILED = {
    "a file of another user": lambda layout: os.chown(blob(layout), OTHER, OTHER),
    "a file that the group may write": lambda layout: blob(layout).chmod(0o664),
    "a file that all may write": lambda layout: blob(layout).chmod(0o646),
    "a directory of another user": lambda layout: os.chown(blob(layout).parent, OTHER, OTHER),
    "a directory that all may write": lambda layout: layout.chmod(0o777),
}


@root_only
@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
async def test_SEC19_a_file_that_others_can_change_is_hashed_whenever_it_is_read(
    layout: Path, tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch, spoil: object
) -> None:
    reference = LayoutReference(str(layout))
    spoil(layout)  # type: ignore[operator]
    assert not is_private(blob(layout))
    monkeypatch.setattr(  # As if no change showed.
        "asupplemented.blobs.blob_file.FileIdentity.of", classmethod(lambda cls, _: cls(*range(5)))
    )
    async with reference.open(session) as image:
        assert await drain(image.open_blob(LAYER)) == DATA
        assert await path_of(reference, session) is None
        change_silently(blob(layout))
        stream = image.open_blob(LAYER)
        with pytest.raises(SupplementedError):
            await drain(stream)
        assert stream.verified is False
        with pytest.raises(SupplementedError):
            await copy(image, f"oci:{tmp_path / 'out'}:app", session)
    assert not (tmp_path / "out" / "index.json").exists()


async def test_SEC19_a_private_file_is_known_again(layout: Path, session: Session) -> None:
    reference = LayoutReference(str(layout))
    assert is_private(blob(layout))
    assert await path_of(reference, session) is None
    async with reference.open(session) as image:
        assert await drain(image.open_blob(LAYER)) == DATA
    assert await path_of(reference, session) == blob(layout)


def test_SEC19_every_directory_and_link_on_the_way_counts(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    file = inner / "file"
    file.write_bytes(b"x")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open" / "link").symlink_to(inner)
    (tmp_path / "by").symlink_to("open/link/file")
    (tmp_path / "loop").symlink_to("loop")
    assert is_private(file)
    assert is_private(inner / ".." / "b" / "file")
    assert not is_private(tmp_path / "open" / "link" / "file")
    assert not is_private(tmp_path / "by")
    assert not is_private(tmp_path / "loop")
    assert not is_private(tmp_path / "missing")
    (tmp_path / "open").chmod(0o1777)  # Sticky: what lies there stays ours.
    assert is_private(tmp_path / "by")
    inner.chmod(0o775)
    assert not is_private(file)


@pytest.mark.parametrize("where", ["", "sha256", "blobs"])
@pytest.mark.parametrize(("start", "end"), [(0, None), (0, 10), (MIB, 2 * MIB)])
async def test_DI07_nothing_of_a_linked_file_is_handed_out_unless_all_of_it_is_the_blob(
    layout: Path, tmp_path: Path, session: Session, where: str, start: int, end: int | None
) -> None:
    link = {"": blob(layout), "sha256": blob(layout).parent, "blobs": layout / "blobs"}[where]
    target = tmp_path / "elsewhere"
    link.symlink_to(link.rename(target))
    async with LayoutReference(str(layout)).open(session) as image:
        expected = DATA[start:end]
        assert await drain(image.open_blob(LAYER, start=start, end=end)) == expected
        with blob(layout).open("r+b") as file:
            file.seek(len(DATA) - 1)
            file.write(b"y")
        got: list[bytes] = []
        with pytest.raises(SupplementedError):
            async with image.open_blob(LAYER, start=start, end=end) as stream:
                got += [chunk async for chunk in stream]
        assert got == []


async def test_OC10_without_links_no_directory_is_followed_either(
    layout: Path, tmp_path: Path, session: Session
) -> None:
    directory = layout / "blobs" / "sha256"
    directory.symlink_to(directory.rename(tmp_path / "elsewhere"))
    with pytest.raises(SupplementedError, match="link must not be followed"):
        await LayoutReference(str(layout), follow_symlinks=False).open(session)


async def test_DI07_an_index_behind_a_link_out_of_the_layout_is_refused(
    layout: Path, tmp_path: Path, session: Session
) -> None:
    (layout / "index.json").rename(tmp_path / "secret")
    (layout / "index.json").symlink_to(tmp_path / "secret")
    with pytest.raises(SupplementedError, match="leads out of the image"):
        await LayoutReference(str(layout)).open(session)


def test_the_layer_is_large() -> None:
    assert Digest.of(DATA) == LAYER
    assert len(DATA) > 5 * MIB
