"""Reads whole images through the library, and weighs every byte on scales of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asupplemented.model.manifest import Index
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from asupplemented.abc import Context, Source
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.manifest import Manifest


@dataclass
class Contents:
    """All that an image has."""

    manifests: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Digest to bytes, the top first."""
    blobs: dict[str, int] = field(default_factory=dict[str, int])
    """Digest to size."""


async def read_contents(source: Source) -> Contents:
    """Read an open image from the top down, every blob to its end."""
    contents = Contents()
    await _read_manifest(source, await source.get_manifest(), contents)
    return contents


async def read_reference(reference: str, session: Context) -> Contents:
    """Open a single reference and read all of it."""
    async with parse_reference(reference).open(session) as source:
        return await read_contents(source)


async def _read_manifest(source: Source, manifest: Manifest, contents: Contents) -> None:
    contents.manifests[manifest.digest] = manifest.raw
    parsed = manifest.parse()
    if isinstance(parsed, Index):
        for entry in parsed.manifests:
            await _read_manifest(source, await source.get_manifest(entry.digest), contents)
        return
    for blob in parsed.blobs:
        contents.blobs[blob.digest] = await _weigh(source, blob)


async def _weigh(source: Source, blob: Descriptor) -> int:
    size, seen = 0, hashlib.sha256()
    async with source.open_blob(blob) as stream:
        async for chunk in stream:
            size += len(chunk)
            seen.update(chunk)
        assert stream.verified is True
    assert f"sha256:{seen.hexdigest()}" == blob.digest
    assert blob.size in {size, None}
    return size
