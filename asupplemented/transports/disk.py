"""What `dir:` and `oci:` share: manifests and blobs are files, one each.

A source says which files to try, and a destination where files go. Reading, writing and verifying
is the same for both.
"""

from __future__ import annotations

import abc
import os
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, TypeVar

from asupplemented.abc import Destination, RawManifest
from asupplemented.aio.atomic import (
    ingest,
    make_directory,
    remove_leftovers,
    sync_directory,
    write_file,
)
from asupplemented.aio.closing import closing_on_error
from asupplemented.aio.files import read_limited
from asupplemented.aio.threads import run_blocking, run_opening
from asupplemented.blobs.blob_file import open_blob_file, share_blob_file
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    ImageNotFoundError,
    InvalidReferenceError,
    ManifestNotFoundError,
    NotFoundError,
    SourceError,
    SupplementedError,
    UnsupportedManifestError,
    excerpt,
)
from asupplemented.limits import BLOCK, MAX_MANIFEST
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import SCHEMA1

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

    from asupplemented.abc import BlobFile, BlobStream, Context, Reference
    from asupplemented.aio.files import SharedFile
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Hasher
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform

__all__ = (
    "DiskDestination",
    "DiskSource",
    "check_path",
    "first_found",
    "holds",
    "is_whole",
)

T = TypeVar("T")

_HASH_BLOCK: Final = 4 * BLOCK
"""Bytes to read and hash in one hop to a thread; the check can be cancelled between two hops."""


def check_path(path: str) -> None:
    """Check that a path can be used.

    Raises:
        InvalidReferenceError: It is empty, holds NUL, or cannot be encoded for the file system.
    """
    if not path:
        message = "the path is empty; write . for the current directory"
        raise InvalidReferenceError(message)
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError as error:
        message = f"the path {excerpt(path)} cannot be encoded for the file system"
        raise InvalidReferenceError(message) from error
    if b"\0" in encoded:
        message = f"the path {excerpt(path)} holds a NUL character"
        raise InvalidReferenceError(message)


class DiskSource(abc.ABC):
    """Reads manifests and blobs that are files.

    Args:
        session: The session, whose threads read.
        follow: Whether a file may be a symbolic link, wherever it leads.
    """

    def __init__(self, session: Context, *, follow: bool) -> None:
        self._session = session
        self._follow = follow
        # Made once, because a batch reads thousands of manifests.
        read = partial(read_limited, limit=MAX_MANIFEST, follow=follow)
        self._read_default = partial(read, missing=_no_image)
        self._read_instance = partial(read, missing=ManifestNotFoundError)

    @abc.abstractmethod
    def manifest_paths(self, instance: Digest | None) -> Iterable[str]:
        """The files to try for a manifest, the likeliest first."""

    @abc.abstractmethod
    def blob_paths(self, digest: Digest) -> Iterable[str]:
        """The files to try for a blob, the likeliest first."""

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        return await run_blocking(self._session, self.read_manifest, instance)

    def fetch_manifests(
        self, instances: Sequence[Digest]
    ) -> Sequence[RawManifest | SupplementedError]:
        """Read manifests by digest, one outcome each. Blocking."""
        outcomes: list[RawManifest | SupplementedError] = []
        for instance in instances:
            try:
                outcomes.append(self.read_manifest(instance))
            except SupplementedError as error:
                outcomes.append(error)
        return outcomes

    def read_manifest(self, instance: Digest | None) -> RawManifest:
        """Read one manifest, with its media type if that is known. Blocking."""
        return RawManifest(self.read_bytes(instance), None)

    def read_bytes(self, instance: Digest | None) -> bytes:
        """Read the bytes of a manifest. Blocking."""
        read = self._read_default if instance is None else self._read_instance
        return first_found(self.manifest_paths(instance), read)

    def open_file(self, blob: Descriptor) -> BlobFile:
        """Open the file of a blob. Blocking. URLs in the descriptor are ignored (rule OC-08)."""
        return first_found(self.blob_paths(Digest(blob.digest)), self._open)

    def _open(self, path: str) -> BlobFile:
        return open_blob_file(Path(path), missing=BlobNotFoundError, follow=self._follow)

    async def aclose(self) -> None:  # noqa: B027 - not for subclasses to define
        """There is nothing to release: files are open only while they are read."""


def _no_image(message: str) -> ImageNotFoundError:
    return ImageNotFoundError(f"{message}: perhaps a copy was not finished, then copy again")


def first_found(paths: Iterable[str], read: Callable[[str], T]) -> T:
    """Read the first file that is there.

    Raises:
        NotFoundError: There is none; the error is that of the first file.
        SupplementedError: What `read` raises otherwise.
    """
    absent: NotFoundError | None = None
    for path in paths:
        try:
            return read(path)
        except NotFoundError as error:
            absent = absent or error
    raise absent or NotFoundError("there is no file to try")


async def is_whole(
    session: Context, path: Path, digest: Digest, size: int | None, *, follow: bool = True
) -> bool:
    """Whether a file holds exactly the bytes that a digest names. It is read to its end.

    Args:
        session: The session, whose threads read.
        path: The file, which need not be there, nor be a file.
        digest: What it should hold.
        size: Bytes it should have, None if not known.
        follow: Whether it may be a symbolic link.
    """
    opener = partial(open_blob_file, path, follow=follow)
    try:
        file = await run_opening(session, opener, lambda late: late.close())
    except (NotFoundError, SourceError):
        return False
    reader = share_blob_file(file)
    try:
        if size is not None and file.size != size:
            return False
        hasher = digest.hasher()
        position = 0
        while count := await run_blocking(session, _hash_block, reader, hasher, position):
            position += count
    except SourceError:
        return False
    finally:
        reader.close()
    return hasher.hexdigest() == digest.encoded


def _hash_block(reader: SharedFile, hasher: Hasher, position: int) -> int:
    block = reader.read(position, _HASH_BLOCK)
    hasher.update(block)
    return len(block)


class DiskDestination(Destination):
    """Writes manifests and blobs as files that become visible when they are whole.

    Args:
        reference: Where it writes, as the user gave it.
        session: The session, whose threads write.
        root: The directory of the image. It is made by `prepare`; its parent has to be there.
        staging: Where files are made, and below which blobs and manifests go: `root`, or a
            directory in it or elsewhere.
        durable: Whether `commit` waits until everything is on the disk.
        follow: Whether a blob that is there already may be a symbolic link.
    """

    def __init__(
        self,
        reference: Reference,
        session: Context,
        root: Path,
        *,
        staging: Path,
        durable: bool,
        follow: bool,
    ) -> None:
        self._reference = reference
        self._session = session
        self._root = root
        self._staging = staging
        self._durable = durable
        self._follow = follow
        self._held: set[Digest] = set()
        self._touched: set[Path] = set()
        self._algorithms: set[str] = set()
        self._made: list[Path] = []
        self._closed = False

    # Different in each kind

    @abc.abstractmethod
    def blob_path(self, digest: Digest) -> Path:
        """Where a blob goes."""

    @abc.abstractmethod
    def manifest_path(self, digest: Digest) -> Path:
        """Where a manifest goes that is not the top."""

    @abc.abstractmethod
    async def publish(self, top: Manifest, platform: Platform | None) -> None:
        """Make the image visible. All that it references has been written before."""

    def prepare(self) -> None:
        """Check that the directory can be written, and make it. Blocking."""
        for directory in dict.fromkeys((self._root, self._staging)):
            if not os.access(directory, os.F_OK):
                self._made.append(directory)
            make_directory(directory)
            remove_leftovers(directory)

    def abandon(self) -> None:
        """Undo `prepare`, because nothing was written. Blocking."""
        for directory in reversed(self._made):
            with suppress(OSError):
                directory.rmdir()

    # The same in all kinds

    async def start(self) -> Self:
        """Prepare, and return the destination; on failure and cancellation nothing stays."""
        async with closing_on_error(lambda: (self,), "the destination"):
            with self._located():
                await run_blocking(self._session, self.prepare)
        return self

    @property
    def reference(self) -> Reference:
        return self._reference

    async def has_blob(self, blob: Descriptor) -> bool:
        """Whether the blob is there, of the right size and content; it is read once to know."""
        self._check_open()
        digest = Digest(blob.digest)
        if digest in self._held:
            return True
        path = self.blob_path(digest)
        whole = await is_whole(self._session, path, digest, blob.size, follow=self._follow)
        if whole:
            self._hold(digest, path)
        return whole

    async def put_blob(self, stream: BlobStream) -> None:
        self._check_open()
        digest = Digest(stream.descriptor.digest)
        path = self.blob_path(digest)
        await ingest(self._session, stream, path, staging=self._staging, durable=self._durable)
        self._hold(digest, path)

    def _hold(self, digest: Digest, path: Path) -> None:
        self._held.add(digest)
        self._algorithms.add(digest.algorithm)
        self._touched.add(path.parent)

    async def put_manifest(self, manifest: Manifest) -> None:
        self._check_open()
        self._check_kind(manifest)
        self._algorithms.add(manifest.digest.algorithm)
        path = self.manifest_path(manifest.digest)
        with self._located(manifest.digest):
            await run_blocking(self._session, self.write, path, manifest.raw)

    async def commit(self, top: Manifest, *, platform: Platform | None = None) -> None:
        self._check_open()
        self._check_kind(top)
        with self._located(top.digest):
            await run_blocking(self._session, self._sync)
            await self.publish(top, platform)

    def write(self, path: Path, data: bytes) -> None:
        """Write a small file, unless it has these bytes already. Blocking."""
        if not holds(path, data):
            write_file(path, data, staging=self._staging, durable=self._durable)
        self._touched.add(path.parent)

    def _sync(self) -> None:
        if not self._durable:
            return
        for directory in {name for touched in self._touched for name in self._up(touched)}:
            sync_directory(directory)
        for directory in self._made:
            with suppress(SourceError):  # It may belong to another user, and be unreadable.
                sync_directory(directory.parent)

    def _up(self, directory: Path) -> Iterator[Path]:
        """A directory and those above it, up to `staging`, below which everything is written."""
        for each in (directory, *directory.parents):
            yield each
            if each == self._staging:
                return

    def _check_open(self) -> None:
        if self._closed:
            message = "the destination has been closed; create it again"
            raise ClosedError(message, reference=self._reference)

    def _check_kind(self, manifest: Manifest) -> None:
        if manifest.media_type in SCHEMA1:
            message = "a schema 1 manifest is read but never written; convert the image first"
            raise UnsupportedManifestError(
                message, reference=self._reference, digest=manifest.digest
            )

    @contextmanager
    def _located(self, digest: Digest | None = None) -> Generator[None]:
        try:
            yield
        except SupplementedError as error:
            error.locate(reference=self._reference, digest=digest)
            raise

    async def aclose(self) -> None:
        """End the writing. What was written and not committed stays for the next attempt."""
        if self._closed:
            return
        self._closed = True
        if not self._touched:
            await run_blocking(self._session, self.abandon)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            message = f"unclosed destination {self._reference}; use it with 'async with'"
            warnings.warn(message, ResourceWarning, stacklevel=1, source=self)


def holds(path: Path, data: bytes) -> bool:
    """Whether there is a file with exactly these bytes. Blocking."""
    try:
        return read_limited(path, len(data)) == data
    except SupplementedError:
        return False
