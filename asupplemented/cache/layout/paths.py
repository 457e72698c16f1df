"""The files of a cache: where they are, and what is known of each blob beside its bytes.

The directory is an OCI layout that any tool can read. Within it, `PRIVATE` holds what only this
library reads. The metadata of a blob is a directory there. Its time of change tells when the blob
was last used. Its files tell which principals fetched the blob, and the identity that its file had
when it was verified. For a manifest, they also tell which principal read it from which source, and
the media type that this source gave. A blob's own file is never touched, so that a file that was
verified once can be recognised by its inode, size and timestamps.
"""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.aio.atomic import PREFIX, make_directory
from asupplemented.aio.beneath import is_owned
from asupplemented.aio.files import map_write_errors, read_limited
from asupplemented.errors import InvalidDigestError, LayoutError, SupplementedError
from asupplemented.model.credential import hash_principal
from asupplemented.model.digest import ALGORITHMS, Digest
from asupplemented.model.media_type import KNOWN_MANIFESTS
from asupplemented.oci_layout import LayoutStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asupplemented.blobs.blob_file import FileIdentity

__all__ = (
    "BlobMetadata",
    "BlobUsage",
    "CachePaths",
    "ManifestOrigin",
    "label",
    "read_labels",
    "read_number",
)

PRIVATE: Final = ".asupplemented"
"""The directory within the layout that other tools have no reason to look into."""

FRESH: Final = 60.0
"""Seconds in which a second use of a blob is not written down again."""

MAX_TEXT: Final = 256
"""Bytes of a media type, of an identity, or of a number."""


@dataclass(frozen=True, slots=True)
class CachePaths:
    """The paths of a cache. Methods block where they say so; the others only make names.

    The names on disk are older than those of the properties, and stay, so that caches that are
    filled already are still read.

    Attributes:
        root: The directory of the layout.
        durable: Whether the bytes of a file are on the disk before it is named.
    """

    root: Path
    durable: bool = True

    @property
    def layout(self) -> LayoutStore:
        """The OCI layout, which any tool reads."""
        return LayoutStore.at(self.root, durable=self.durable)

    @property
    def ingest(self) -> Path:
        """Files in the making."""
        return self.root / PRIVATE / "ingest"

    @property
    def fetch_locks(self) -> Path:
        """The lock files of blobs that are being fetched."""
        return self.root / PRIVATE / "leads"

    @property
    def metadata(self) -> Path:
        """The metadata of blobs."""
        return self.root / PRIVATE / "records"

    @property
    def waiting(self) -> Path:
        """Which tops wait for which blob."""
        return self.root / PRIVATE / "waiting"

    @property
    def pins(self) -> Path:
        """Blobs that must not be evicted."""
        return self.root / PRIVATE / "pins"

    @property
    def quota(self) -> Path:
        """The file that holds the sum of all sizes."""
        return self.root / PRIVATE / "ledger"

    def blob(self, digest: Digest) -> Path:
        """The file of a blob or manifest."""
        return Path(self.layout.blob_path(digest))

    def has(self, digest: Digest) -> bool:
        """Whether a blob or manifest is there. Blocking, but never raises."""
        return os.access(self.layout.blob_path(digest), os.F_OK)

    def metadata_of(self, digest: Digest) -> Path:
        """The metadata of a blob: a directory, last changed when the blob was last used."""
        return self.metadata / digest.algorithm / digest.encoded

    @property
    def reservations(self) -> Path:
        """For each file in the making, under the same name, the bytes that are reserved for it."""
        return self.root / PRIVATE / "reservations"

    def identity(self, digest: Digest) -> Path:
        """The identity that the file of a blob had when it was verified."""
        return self.metadata_of(digest) / "identity"

    def manifest_grant(self, digest: Digest, principal: str | None, source: str | None) -> Path:
        """The media type of a manifest, as a principal read it from a source."""
        name = hashlib.sha256(
            f"{_name_of(principal)} {source or ''}".encode("utf-8", "surrogatepass")
        ).hexdigest()
        return self.metadata_of(digest) / f"manifest-{name[:32]}"

    def grant(self, digest: Digest, principal: str | None) -> Path:
        """The file that says that a principal fetched a blob itself (rule SEC-13)."""
        return self.metadata_of(digest) / f"grant-{_name_of(principal)}"

    def fetch_lock(self, digest: Digest, principal: str | None) -> Path:
        """The lock file of the process that fetches a blob for a principal."""
        name = hashlib.sha256(f"{_name_of(principal)} {digest}".encode()).hexdigest()
        return self.fetch_locks / (PREFIX + name[:32])

    def waiting_for(self, digest: Digest) -> Path:
        """The tops that wait for a blob: a directory of labels."""
        return self.waiting / label(digest)

    def pin(self, digest: Digest) -> Path:
        """The file that says that a blob is pinned."""
        return self.pins / label(digest)

    def make(self) -> None:
        """Make the directories that are not there, and check that they are ours. Blocking.

        If the layout's own directory is made here, only the user of this process may use it. Only
        that user may use the directory of lock files, so that no other user can hold a lock.

        Raises:
            LayoutError: A directory belongs to another user, may be written by other users, or is
                a link (rule SEC-20).
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        private = self.root / PRIVATE
        own = (
            *(self.ingest, self.reservations, self.fetch_locks),
            *(self.metadata, self.waiting, self.pins),
        )
        blobs = self.root / "blobs"
        for path in (self.root, blobs, private, *own):
            make_directory(path, mode=0o700 if path in {self.root, private} else 0o755)
            _check_owned(path, linked=path == self.root)
        for algorithm in ALGORITHMS:
            with suppress(FileNotFoundError):
                _check_owned(blobs / algorithm)
        with map_write_errors(private):
            status = private.stat()
            if status.st_uid == os.geteuid() and status.st_mode & 0o077:
                private.chmod(0o700)


def _check_owned(path: Path, *, linked: bool = False) -> None:
    status = path.stat(follow_symlinks=linked)
    if stat.S_ISLNK(status.st_mode):
        message = f"{path} in the cache is a symbolic link; replace it by a directory"
        raise LayoutError(message)
    if status.st_uid not in {os.geteuid(), 0}:
        message = (
            f"the cache directory {path} belongs to user {status.st_uid}, who could change what is "
            "in it; use a directory of your own"
        )
        raise LayoutError(message)
    if not is_owned(status):
        message = (
            f"other users may write the cache directory {path}; run chmod go-w on it, empty it if "
            "others may have written there, or use another directory"
        )
        raise LayoutError(message)


def label(digest: Digest) -> str:
    """A digest as the name of a file, without the colon at which some tools split paths."""
    return f"{digest.algorithm}-{digest.encoded}"


def read_labels(directory: Path) -> Iterator[Digest]:
    """The digests whose labels are in a directory; none if there is no such directory."""
    try:
        names = os.listdir(directory)  # noqa: PTH208 - a snapshot, and of names only
    except OSError:
        return
    for name in sorted(names):
        with suppress(InvalidDigestError):
            yield Digest(name.replace("-", ":", 1))


def read_number(path: Path) -> int:
    """The number in a file; 0 if there is none. Blocking."""
    text = _read_text(path)
    return int(text) if text is not None and text.isascii() and text.isdigit() else 0


def _read_text(path: Path) -> str | None:
    try:
        return read_limited(path, MAX_TEXT, follow=False).decode("ascii", "replace")
    except SupplementedError:
        return None


def _show(identity: FileIdentity) -> str:
    """An identity as text, without the device, whose number may change when a system starts."""
    return f"{identity.inode} {identity.size} {identity.modified} {identity.changed}"


def _name_of(principal: str | None) -> str:
    """A name for a principal that reveals nothing, and can be the name of a file."""
    return hash_principal(principal)[:32]


class BlobUsage(NamedTuple):
    """A blob on disk. Usages compare by last use: the least recently used blob is the smallest."""

    used: int
    """When it was last used, nanoseconds since the epoch."""
    digest: Digest
    size: int
    """Bytes of its file, as it appears."""


class ManifestOrigin(NamedTuple):
    """Where a manifest was read from, and what it was read as."""

    source: str | None
    media_type: str


class BlobMetadata:
    """The metadata of all blobs of a cache. Blocking.

    Args:
        paths: The paths of the cache.
    """

    __slots__ = ("_paths",)

    def __init__(self, paths: CachePaths) -> None:
        self._paths = paths

    def scan(self) -> Iterator[BlobUsage]:
        """Every blob that is there, in no order."""
        for algorithm in ALGORITHMS:
            with suppress(FileNotFoundError):
                yield from self._scan(self._paths.root / "blobs" / algorithm, algorithm)

    def _scan(self, directory: Path, algorithm: str) -> Iterator[BlobUsage]:
        with os.scandir(directory) as entries:
            for entry in entries:
                with suppress(InvalidDigestError, FileNotFoundError):
                    digest = Digest(f"{algorithm}:{entry.name}")
                    if entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        used = self.last_used(digest) or status.st_mtime_ns
                        yield BlobUsage(used, digest, status.st_size)

    def last_used(self, digest: Digest) -> int | None:
        """When a blob was last used, nanoseconds since the epoch; None without metadata."""
        try:
            return self._paths.metadata_of(digest).stat().st_mtime_ns
        except OSError:
            return None

    def touch(self, digest: Digest, wall: float) -> None:
        """Record that a blob is used, unless that was recorded within the last minute.

        Args:
            digest: The blob.
            wall: Seconds since the epoch.
        """
        used = self.last_used(digest)
        if used is not None and wall - used / 1e9 < FRESH:
            return
        with suppress(OSError):  # A cache that can only be read serves all the same.
            self.set_used(digest, wall)

    def set_used(self, digest: Digest, wall: float) -> None:
        """Record that a blob is used now.

        Raises:
            OSError: The metadata cannot be written.
        """
        directory = self._paths.metadata_of(digest)
        directory.mkdir(parents=True, exist_ok=True)
        moment = round(wall * 1e9)
        os.utime(directory, ns=(moment, moment))

    def is_granted(self, digest: Digest, principal: str | None) -> bool:
        """Whether a principal fetched a blob itself."""
        return os.access(self._paths.grant(digest, principal), os.F_OK)

    def add_grant(
        self,
        digest: Digest,
        principal: str | None,
        wall: float,
        manifest: ManifestOrigin | None = None,
    ) -> None:
        """Record that a principal fetched a blob, and that the blob is used now.

        Args:
            digest: The blob.
            principal: For whom it was fetched.
            wall: Seconds since the epoch.
            manifest: Where it was read from, if it is a manifest.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        directory = self._paths.metadata_of(digest)
        with map_write_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._paths.grant(digest, principal).touch()
            if manifest is not None:
                source, media_type = manifest
                if self.media_type(digest, principal, source) != media_type:
                    path = self._paths.manifest_grant(digest, principal, source)
                    path.write_text(media_type, "ascii")
            self.set_used(digest, wall)  # Last, because the files above change the time as well.

    def media_type(self, digest: Digest, principal: str | None, source: str | None) -> str | None:
        """The media type of a manifest as a source gave it to a principal; None if it did not."""
        path = self._paths.manifest_grant(digest, principal, source)
        media_type = _read_text(path)
        return media_type if media_type in KNOWN_MANIFESTS else None

    def is_verified(self, digest: Digest, identity: FileIdentity) -> bool:
        """Whether a file is the one that was verified, and has not changed since."""
        return _read_text(self._paths.identity(digest)) == _show(identity)

    def set_verified(self, digest: Digest, identity: FileIdentity) -> None:
        """Record the identity of a file that was verified. Errors are ignored."""
        path = self._paths.identity(digest)
        with suppress(OSError):  # Without a record, the file is hashed before it is served.
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_show(identity), "ascii")

    def remove(self, digest: Digest) -> None:
        """Remove the metadata of a blob. Errors are ignored."""
        directory = self._paths.metadata_of(digest)
        with suppress(OSError):
            with os.scandir(directory) as entries:
                for entry in entries:
                    os.unlink(entry.path)  # noqa: PTH108 - entries have strings
            directory.rmdir()

    def remove_lost(self) -> None:
        """Remove the metadata of blobs that another program removed. Errors are ignored."""
        for algorithm in ALGORITHMS:
            with suppress(OSError), os.scandir(self._paths.metadata / algorithm) as entries:
                for entry in entries:
                    with suppress(InvalidDigestError):
                        digest = Digest(f"{algorithm}:{entry.name}")
                        if not self._paths.has(digest):
                            self.remove(digest)
