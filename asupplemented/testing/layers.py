"""Layers with the same bytes on every machine: tar archives, plain or in a gzip frame."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("pack_files", "wrap_gzip")

_GZIP_HEAD: Final = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # deflate, no flags, no time, any system
_STORED_MAX: Final = 0xFFFF


def pack_files(files: Mapping[str, bytes | str]) -> bytes:
    """A tar archive of some files, as unpackers expect a layer.

    Args:
        files: Path to content; text is encoded as UTF-8. A path that ends in ``/`` is an empty
            directory. Parent directories are added. Order does not matter.

    Returns:
        The archive: sorted names, owner 0, time 0, modes 0644 and 0755.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(_with_parents(files).items()):
            archive.addfile(_member(name, content), io.BytesIO(content or b""))
    return buffer.getvalue()


def wrap_gzip(data: bytes) -> bytes:
    """A gzip frame around stored (not compressed) blocks.

    Compressors differ between versions of zlib, and a digest must not. Every reader of gzip
    reads this.
    """
    blocks = [_stored(data, at) for at in range(0, len(data), _STORED_MAX)] or [_stored(b"", 0)]
    tail = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return b"".join((_GZIP_HEAD, *blocks, tail))


def _stored(data: bytes, at: int) -> bytes:
    block = data[at : at + _STORED_MAX]
    last = at + _STORED_MAX >= len(data)
    return struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block


def _with_parents(files: Mapping[str, bytes | str]) -> dict[str, bytes | None]:
    """Clean names to content, None for a directory."""
    members: dict[str, bytes | None] = {}
    for path, content in files.items():
        name = PurePosixPath(path.lstrip("/"))
        for parent in list(name.parents)[:-1]:
            members[str(parent)] = None
        data = content.encode() if isinstance(content, str) else content
        members[str(name)] = None if path.endswith("/") else data
    return members


def _member(name: str, content: bytes | None) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    if content is None:
        member.type = tarfile.DIRTYPE
        member.mode = 0o755
    else:
        member.size = len(content)
        member.mode = 0o644
    return member
