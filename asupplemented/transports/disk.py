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
from typing import TYPE_CHECKING, Self, TypeVar

from asupplemented.abc import Destination, RawManifest
from asupplemented.aio.atomic import (
    make_directory,
    remove_leftovers,
    sync_directory,
    write_file,
)
from asupplemented.aio.beneath import Follow, open_directory, read_beneath
from asupplemented.aio.closing import closing_on_error
from asupplemented.aio.concurrency import SingleFlight
from asupplemented.aio.file_writer import FileWriter, holds
from asupplemented.aio.files import map_write_errors, read_limited
from asupplemented.aio.locks import LOCK_FILE, LockBusy, retry_while_locked, try_lock
from asupplemented.aio.threads import run_blocking, run_opening
from asupplemented.blobs.blob_file import has_content, open_blob_file, share_blob_file
from asupplemented.errors import (
    ClosedError,
    ImageNotFoundError,
    InvalidReferenceError,
    LayoutError,
    ManifestNotFoundError,
    NotFoundError,
    SourceError,
    SupplementedError,
    UnsupportedManifestError,
    excerpt,
)
from asupplemented.limits import MAX_MANIFEST
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import SCHEMA1

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Collection,
        Generator,
        Iterable,
        Iterator,
        Sequence,
    )

    from asupplemented.abc import BlobFile, BlobStream, Context, Reference
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform

__all__ = (
    "DiskDestination",
    "DiskSource",
    "check_path",
    "first_found",
    "is_whole",
)

T = TypeVar("T")


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

    A blob or an instance is verified before any of it is handed out, so a link may lead to it from
    anywhere. What no digest names must not lie behind a link out of the image: the error or the
    answer would tell what is in a file of someone else (rule DI-07).

    Args:
        session: The session, whose threads read.
        root: The directory below which everything is.
        follow: Whether files may be symbolic links.
        named: Whether a digest names the default manifest.
    """

    def __init__(self, session: Context, root: str, *, follow: bool, named: bool) -> None:
        self._session = session
        self._root = root
        self._follow = Follow.ANY if follow else Follow.NONE
        self._follow_unnamed = Follow.INSIDE if follow else Follow.NONE
        default = self._follow if named else self._follow_unnamed
        # Made once, because a batch reads thousands of manifests.
        self._read_default = self._reader(_no_image, default)
        self._read_instance = self._reader(ManifestNotFoundError, self._follow)

    def _reader(
        self, missing: Callable[[str], SupplementedError], follow: Follow
    ) -> Callable[[str], bytes]:
        if follow is Follow.ANY:
            root = self._root
            return lambda name: read_limited(f"{root}/{name}", MAX_MANIFEST, missing=missing)
        read_strictly = partial(read_beneath, missing=missing, follow=follow)
        return lambda name: read_strictly(self._root, name, MAX_MANIFEST)

    @abc.abstractmethod
    def manifest_names(self, instance: Digest | None) -> Iterable[str]:
        """The files to try for a manifest, as paths from the root, the likeliest first."""

    @abc.abstractmethod
    def blob_names(self, digest: Digest) -> Iterable[str]:
        """The files to try for a blob, as paths from the root, the likeliest first."""

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
        return first_found(self.manifest_names(instance), read)

    def open_file(self, blob: Descriptor) -> BlobFile:
        """Open the file of a blob. Blocking. URLs in the descriptor are ignored (rule OC-08)."""
        return first_found(self.blob_names(Digest(blob.digest)), self._open)

    def _open(self, name: str) -> BlobFile:
        root = Path(self._root)
        return open_blob_file(root / name, root=root, follow=self._follow)

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
    session: Context,
    root: Path,
    path: Path,
    digest: Digest,
    size: int | None,
    *,
    follow: bool = True,
) -> bool:
    """Whether a file holds exactly the bytes that a digest names. It is read to its end.

    Args:
        session: The session, whose threads read.
        root: A directory above it.
        path: The file, which need not be there, nor be a file.
        digest: What it should hold.
        size: Bytes it should have, None if not known.
        follow: Whether links below `root` are followed.
    """
    follows = Follow.ANY if follow else Follow.NONE
    opener = partial(open_blob_file, path, root=root, follow=follows)
    try:
        file = await run_opening(session, opener, lambda late: late.close())
    except (NotFoundError, SourceError):
        return False
    reader = share_blob_file(file)
    try:
        if size is not None and file.size != size:
            return False
        return await has_content(session, reader, file.size, digest)
    except SourceError:
        return False
    finally:
        reader.close()


class DiskDestination(Destination):
    """Writes manifests and blobs as files that become visible when they are whole.

    Args:
        reference: Where it writes, as the user gave it.
        session: The session, whose threads write.
        root: The directory of the image. It is made by `prepare`; its parent has to be there.
        staging: Where files are made, and below which blobs and manifests go: `root`, or a
            directory in it or elsewhere.
        blob_root: The directory below which no link is followed when blobs and manifests are
            written: `root`, or `staging` if that is elsewhere.
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
        blob_root: Path,
        durable: bool,
        follow: bool,
    ) -> None:
        self._reference = reference
        self._session = session
        self._root = root
        self._staging = staging
        self._blob_root = blob_root
        self._durable = durable
        self._follow = follow
        self._writer = FileWriter(session, staging=staging, root=blob_root, durable=durable)
        self._held: set[Digest] = set()
        self._absent: set[Digest] = set()
        """Blobs that were not there when they were looked up."""
        self._touched: set[Path] = set()
        self._algorithms: set[str] = set()
        self._made: list[Path] = []
        self._marked = False
        self._marking = SingleFlight[None]()
        self._closed = False

    # Different in each kind

    @abc.abstractmethod
    def blob_path(self, digest: Digest) -> Path:
        """Where a blob goes."""

    @abc.abstractmethod
    def manifest_path(self, digest: Digest) -> Path:
        """Where a manifest goes that is not the top."""

    @abc.abstractmethod
    def mark(self) -> None:
        """Say in a file that the directory holds images, unless there is such a file. Blocking.

        Called under the lock of the directory before any other file gets its name. The mark stays,
        so the directory of a copy that failed is known again, and no other copy removes it.
        """

    @abc.abstractmethod
    async def publish(self, top: Manifest, platform: Platform | None) -> None:
        """Make the image visible. All that it references has been written before."""

    def prepare(self) -> None:
        """Check that the directory can be written, and make it. Blocking."""
        for directory in dict.fromkeys((self._root, self._staging)):
            if not os.access(directory, os.F_OK):
                self._made.append(directory)
            make_directory(directory)
        with (
            map_write_errors(self._staging),
            suppress(FileNotFoundError),  # Another copy has just removed it; it is made again.
            open_directory(self._staging, root=self._blob_root),
        ):
            remove_leftovers(self._root)
            remove_leftovers(self._staging, root=self._blob_root)

    def abandon(self) -> None:
        """Remove the directories that `prepare` made, unless there is a file in them. Blocking."""
        for directory in reversed(self._made):
            with suppress(OSError):
                directory.rmdir()

    async def _begin(self) -> None:
        """Mark the directory, before the first file in it gets its name."""
        if not self._marked:
            await self._marking.run(self._mark)

    async def _mark(self) -> None:
        lock = self._root / LOCK_FILE
        await retry_while_locked(self._session, lock, partial(self._try_mark, lock))
        self._marked = True

    def _try_mark(self, lock: Path) -> None:
        make_directory(self._root)
        try:
            with try_lock(lock) as held:
                if held:
                    self.mark()
                    return
        except LayoutError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
        # It is locked; or another copy, which wrote nothing, has just removed the directory. A
        # third one may have made it again by now.
        raise LockBusy

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

    async def expect_blobs(self, blobs: Collection[Descriptor]) -> None:
        """Find out in one hop which files are not there; `has_blob` need not look for these."""
        self._check_open()
        digests = [Digest(blob.digest) for blob in blobs]
        self._absent.update(await run_blocking(self._session, self._list_absent, digests))

    def _list_absent(self, digests: Iterable[Digest]) -> list[Digest]:
        return [each for each in digests if not os.path.lexists(self.blob_path(each))]

    async def has_blob(self, blob: Descriptor) -> bool:
        """Whether the blob is there, of the right size and content; it is read once to know."""
        self._check_open()
        digest = Digest(blob.digest)
        if digest in self._held:
            return True
        if digest in self._absent:
            return False
        path = self.blob_path(digest)
        whole = await is_whole(
            self._session, self._blob_root, path, digest, blob.size, follow=self._follow
        )
        if whole:
            self._hold(digest, path)
        return whole

    async def put_blob(self, stream: BlobStream) -> None:
        self._check_open()
        digest = Digest(stream.descriptor.digest)
        path = self.blob_path(digest)
        await self._writer.ingest(stream, path, before=self._begin)
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
            await self._begin()
            await self._writer.write(path, manifest.raw)
        self._touched.add(path.parent)

    async def commit(self, top: Manifest, *, platform: Platform | None = None) -> None:
        self._check_open()
        self._check_kind(top)
        with self._located(top.digest):
            await self._begin()
            await run_blocking(self._session, self._sync)
            await self.publish(top, platform)

    def write(self, path: Path, data: bytes) -> None:
        """Write a small file, unless it has these bytes already. Blocking."""
        if not holds(path, data):
            write_file(
                path, data, staging=self._staging, root=self._blob_root, durable=self._durable
            )
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
