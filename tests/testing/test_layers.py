from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.model.digest import Digest
from asupplemented.testing.images import pack_files, wrap_gzip


def members(archive: bytes) -> dict[str, tuple[bytes | None, int]]:
    found: dict[str, tuple[bytes | None, int]] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            file = opened.extractfile(member)
            found[member.name] = (None if file is None else file.read(), member.mode)
    return found


def test_files_are_packed_with_their_parents() -> None:
    archive = pack_files({"etc/deep/motd": "hi", "/bin/sh": b"\x7fELF", "var/empty/": b""})
    assert members(archive) == {
        "bin": (None, 0o755),
        "bin/sh": (b"\x7fELF", 0o644),
        "etc": (None, 0o755),
        "etc/deep": (None, 0o755),
        "etc/deep/motd": (b"hi", 0o644),
        "var": (None, 0o755),
        "var/empty": (None, 0o755),
    }
    assert list(members(archive)) == sorted(members(archive))


def test_order_of_the_files_does_not_matter() -> None:
    assert pack_files({"a": "1", "b": "2"}) == pack_files({"b": "2", "a": "1"})


def test_bytes_are_the_same_everywhere() -> None:
    packed = wrap_gzip(pack_files({"etc/platform": "linux/amd64\n"}))
    assert Digest.of(packed) == (
        "sha256:0b27c0d7ce161d5f88a7fabdd4d35d9bb61fb2dbc2bd8d22c0a53fd77529f576"
    )


@pytest.mark.parametrize("size", [0, 1, 65534, 65535, 65536, 131070, 200_000])
def test_gzip_is_read_back(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert gzip.decompress(wrap_gzip(data[:size])) == data[:size]


@given(st.binary(max_size=1000))
def test_gzip_of_anything_is_read_back(data: bytes) -> None:
    assert gzip.decompress(wrap_gzip(data)) == data
