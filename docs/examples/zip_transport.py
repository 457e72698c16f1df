"""A transport of your own: ``zip:PATH`` reads an image from an OCI layout in a zip file.

``python docs/examples/zip_transport.py app.zip`` prints the layers of the image.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from zipfile import BadZipFile, ZipFile

import asupplemented as asup
from asupplemented.abc import RawManifest
from asupplemented.limits import CHUNK_MAX, MAX_MANIFEST

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType
    from typing import IO


@dataclass(frozen=True)
class ZipReference:
    """A reference ``zip:PATH``. It names the first image of the layout."""

    path: str

    @property
    def transport(self) -> str:
        """The scheme."""
        return "zip"

    def open(self, session: asup.Context) -> asup.Opening[asup.Source]:
        """Open the file. `open_verified` adds verification, limits and hooks."""

        async def opener() -> ZipSource:
            return await asyncio.to_thread(ZipSource, self.path)

        return asup.open_verified(opener, self, session)

    def __str__(self) -> str:
        return f"zip:{self.path}"


class ZipSource:
    """The adapter: raw bytes, nothing verified. The constructor blocks."""

    default_descriptor: asup.Descriptor
    """What ``index.json`` says of the image; the default manifest is verified against it."""

    def __init__(self, path: str) -> None:
        with _mapped_errors():
            self._archive = ZipFile(path)
        try:
            self.default_descriptor = _first_entry(self._read("index.json"))
        except BaseException:
            self._archive.close()
            raise

    async def fetch_manifest(self, instance: asup.Digest | None) -> RawManifest:
        """Read the manifest of a digest, or the default manifest."""
        digest = instance or asup.Digest(self.default_descriptor.digest)
        return RawManifest(await asyncio.to_thread(self._read, _path_of(digest)), None)

    def _read(self, name: str) -> bytes:
        with _mapped_errors(asup.ManifestNotFoundError), self._archive.open(name) as file:
            return file.read(MAX_MANIFEST + 1)  # With one byte too many it is refused.

    def open_blob(
        self,
        blob: asup.Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,  # noqa: ARG002 - a zip file has no validators
    ) -> ZipBlob:
        """Prepare to read ``[start, end)`` of a blob."""
        return ZipBlob(self._archive, _path_of(asup.Digest(blob.digest)), start, end)

    async def aclose(self) -> None:
        """Close the file."""
        self._archive.close()


class ZipBlob:
    """One attempt to read a blob: entering opens it, iterating gives its bytes."""

    etag: str | None = None

    def __init__(self, archive: ZipFile, name: str, start: int, end: int | None) -> None:
        self._archive = archive
        self._name = name
        self._end = end
        self._file: IO[bytes] | None = None
        self.start = start
        self.size: int | None = None

    async def __aenter__(self) -> Self:
        self._file = await asyncio.to_thread(self._open)
        return self

    def _open(self) -> IO[bytes]:
        with _mapped_errors(asup.BlobNotFoundError):
            size = self.size = self._archive.getinfo(self._name).file_size
            if self.start > size:
                message = f"the range starts at {self.start}, the blob has {size} bytes"
                raise asup.RangeError(message)
            file = self._archive.open(self._name)
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
        chunk = await asyncio.to_thread(self._read)
        if not chunk:
            raise StopAsyncIteration
        return chunk

    def _read(self) -> bytes:
        file = self._file
        if file is None:
            return b""
        with _mapped_errors():
            left = CHUNK_MAX if self._end is None else self._end - file.tell()
            return file.read(max(0, min(CHUNK_MAX, left)))


def _first_entry(index: bytes) -> asup.Descriptor:
    try:
        entries = json.loads(index)["manifests"]
        if entries:
            entry = entries[0]
            return asup.Descriptor(entry["mediaType"], entry["digest"], entry["size"])
    except (ValueError, LookupError, TypeError) as error:
        raise asup.LayoutError("index.json is malformed") from error
    raise asup.ImageNotFoundError("index.json lists no image")


def _path_of(digest: asup.Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


@contextmanager
def _mapped_errors(missing: type[asup.NotFoundError] = asup.ImageNotFoundError) -> Generator[None]:
    """Raise errors of the library. It maps any OSError itself, but not to a miss."""
    try:
        yield
    except (KeyError, FileNotFoundError) as error:
        raise missing(str(error)) from error
    except BadZipFile as error:
        raise asup.SourceError(str(error)) from error


async def show(path: str) -> None:
    """Print the layers of an image in a zip file."""
    asup.register_transport("zip", ZipReference)
    reference = asup.parse_reference(f"zip:{path}")
    async with asup.Session() as session, asup.open_image(reference, session) as image:
        for layer in image.layers:
            print(layer.digest, layer.size)


if __name__ == "__main__":
    asyncio.run(show(sys.argv[1]))
