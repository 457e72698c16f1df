"""A transport of your own: ``zip:PATH`` reads an image from an OCI layout in a zip file.

``python docs/examples/zip_transport.py app.zip`` prints the layers of the image.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from zipfile import BadZipFile, ZipFile

import asupplemented as asup
from asupplemented.abc import RawManifest
from asupplemented.limits import MAX_MANIFEST

if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

BLOCK = 1024 * 1024
"""Bytes that are read at a time."""


@dataclass(frozen=True)
class ZipReference:
    """A reference ``zip:PATH``. It names the first image of the layout."""

    path: str

    @property
    def transport(self) -> str:
        """The scheme."""
        return "zip"

    def open(self, session: asup.Context) -> asup.Opening[asup.Source]:
        """Open the file; `open_verified` adds verification, limits and hooks."""

        async def opener() -> ZipSource:
            try:
                return ZipSource(await asyncio.to_thread(ZipFile, self.path))
            except BadZipFile as error:
                raise asup.LayoutError(str(error)) from error

        return asup.open_verified(opener, self, session)

    def __str__(self) -> str:
        return f"zip:{self.path}"


class ZipSource:
    """The adapter: raw bytes, nothing verified."""

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive

    async def fetch_manifest(self, instance: asup.Digest | None) -> RawManifest:
        """Read the manifest of a digest, or the first manifest that ``index.json`` lists."""
        if instance is None:
            index = json.loads(await asyncio.to_thread(self._read, "index.json"))
            instance = asup.Digest(index["manifests"][0]["digest"])
        return RawManifest(await asyncio.to_thread(self._read, _path_of(instance)), None)

    def _read(self, name: str) -> bytes:
        try:
            with self._archive.open(name) as file:
                return file.read(MAX_MANIFEST + 1)  # one byte too many is refused
        except KeyError:
            message = f"there is no {name} in the zip file"
            raise asup.ManifestNotFoundError(message) from None

    def open_blob(
        self,
        blob: asup.Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,  # noqa: ARG002 - a zip file has no validators
    ) -> ZipBlob:
        """Prepare to read ``[start, end)`` of a blob."""
        return ZipBlob(self._archive, asup.Digest(blob.digest), start, end)

    async def aclose(self) -> None:
        """Close the file."""
        self._archive.close()


class ZipBlob:
    """One attempt to read a blob: entering opens it, iterating gives its bytes."""

    etag: str | None = None

    def __init__(self, archive: ZipFile, digest: asup.Digest, start: int, end: int | None) -> None:
        self._archive = archive
        self._digest = digest
        self._end = end
        self._left = 0
        self._file: IO[bytes] | None = None
        self.start = start
        self.size: int | None = None

    async def __aenter__(self) -> Self:
        self._file = await asyncio.to_thread(self._open)
        return self

    def _open(self) -> IO[bytes]:
        try:
            size = self.size = self._archive.getinfo(_path_of(self._digest)).file_size
        except KeyError:
            message = "the blob is not in the zip file"
            raise asup.BlobNotFoundError(message) from None
        if self.start > size:
            message = f"the range starts at {self.start}, the blob has {size} bytes"
            raise asup.RangeError(message)
        self._left = (size if self._end is None else min(self._end, size)) - self.start
        file = self._archive.open(_path_of(self._digest))
        file.seek(self.start)
        return file

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._file is None or self._left <= 0:
            raise StopAsyncIteration
        chunk = await asyncio.to_thread(self._file.read, min(BLOCK, self._left))
        if not chunk:
            raise StopAsyncIteration
        self._left -= len(chunk)
        return chunk


def _path_of(digest: asup.Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


async def show(path: str) -> None:
    """Print the layers of an image in a zip file."""
    asup.register_transport("zip", ZipReference)
    reference = asup.parse_reference(f"zip:{path}")
    async with asup.Session() as session, asup.open_image(reference, session) as image:
        for layer in image.layers:
            print(layer.digest, layer.size)


if __name__ == "__main__":
    asyncio.run(show(sys.argv[1]))
