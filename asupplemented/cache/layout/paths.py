"""Where things are in the directory of a cache: an OCI layout, and beside it what only we read.

What a cache knows of each blob beside its bytes. Blocking.

The record of a blob is a directory: its time of change tells when the blob was last used, and
its files tell who has fetched it and what kind of manifest it is. The blob's own file is never
touched, so that a file once verified can be known again by its timestamps.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.aio.atomic import PREFIX, make_directory
from asupplemented.aio.files import map_write_errors, read_limited
from asupplemented.errors import InvalidDigestError, SupplementedError
from asupplemented.model.digest import ALGORITHMS, Digest
from asupplemented.model.media_type import KNOWN_MANIFESTS
from asupplemented.oci_layout import LayoutStore

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Item", "Places", "Records", "label", "read_labels")

PRIVATE: Final = ".asupplemented"
"""The directory within the layout that other tools have no reason to look into."""


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of a cache. Methods block where they say so; the others only make names.

    Attributes:
        root: The directory of the layout.
        durable: Whether what is written has reached the disk when it is named.
    """

    root: Path
    durable: bool = True

    @property
    def layout(self) -> LayoutStore:
        """What any tool reads."""
        return LayoutStore.at(self.root, durable=self.durable)

    @property
    def ingest(self) -> Path:
        """Files in the making."""
        return self.root / PRIVATE / "ingest"

    @property
    def leads(self) -> Path:
        """Who is fetching what."""
        return self.root / PRIVATE / "leads"

    @property
    def records(self) -> Path:
        """What is known of each blob: who may have it, when it was used, what kind it is."""
        return self.root / PRIVATE / "records"

    @property
    def waiting(self) -> Path:
        """Which tops wait for which blob."""
        return self.root / PRIVATE / "waiting"

    @property
    def pins(self) -> Path:
        """What must not be evicted."""
        return self.root / PRIVATE / "pins"

    @property
    def ledger(self) -> Path:
        """The sum of all sizes."""
        return self.root / PRIVATE / "ledger"

    def blob(self, digest: Digest) -> Path:
        """A blob or manifest."""
        return Path(self.layout.blob_path(digest))

    def has(self, digest: Digest) -> bool:
        """Whether a blob or manifest is there. Blocking, but never raises."""
        return os.access(self.layout.blob_path(digest), os.F_OK)

    def record(self, digest: Digest) -> Path:
        """What is known of a blob; a directory, last changed when the blob was last used."""
        return self.records / digest.algorithm / digest.encoded

    def kind(self, digest: Digest) -> Path:
        """The media type of a manifest; only what was kept as a manifest has one."""
        return self.record(digest) / "media-type"

    def grant(self, digest: Digest, principal: str | None) -> Path:
        """Says that a principal has fetched a blob by itself (rule SEC-13)."""
        return self.record(digest) / f"grant-{_name_of(principal)}"

    def lead(self, digest: Digest, principal: str | None) -> Path:
        """Locked by the process that is fetching a blob for a principal, and names its file."""
        name = hashlib.sha256(f"{_name_of(principal)} {digest}".encode()).hexdigest()
        return self.leads / (PREFIX + name[:32])

    def waiting_for(self, digest: Digest) -> Path:
        """The tops that wait for a blob: a directory of names."""
        return self.waiting / label(digest)

    def pin(self, digest: Digest) -> Path:
        """Says that a blob is pinned."""
        return self.pins / label(digest)

    def make(self) -> None:
        """Make the directories that are not there. Blocking.

        The layout's own is for the user of this process alone, if it is made here.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        if not os.access(self.root, os.F_OK):
            make_directory(self.root, mode=0o700)
        for path in (
            self.root / "blobs",
            self.root / PRIVATE,
            *(self.ingest, self.leads, self.records, self.waiting, self.pins),
        ):
            make_directory(path)


def label(digest: Digest) -> str:
    """A digest as one name, without the colon that some tools split paths at."""
    return f"{digest.algorithm}-{digest.encoded}"


def read_labels(directory: Path) -> Iterator[Digest]:
    """The digests that names in a directory stand for; none if it is not there."""
    try:
        names = os.listdir(directory)  # noqa: PTH208 - a snapshot, and of names only
    except OSError:
        return
    for name in sorted(names):
        with suppress(InvalidDigestError):
            yield Digest(name.replace("-", ":", 1))


def _name_of(principal: str | None) -> str:
    """A name for a principal that tells nothing, and can be the name of a file."""
    if principal is None:
        return "nobody"
    return hashlib.sha256(principal.encode("utf-8", "surrogatepass")).hexdigest()[:32]


FRESH: Final = 60.0
"""Seconds in which a second use of a blob is not written down again."""

MAX_KIND: Final = 256
"""Bytes of a media type."""


class Item(NamedTuple):
    """A blob on disk. Items compare by use: the one that is to go first is the smallest."""

    used: int
    """When it was last used, nanoseconds since the epoch."""
    digest: Digest
    size: int
    """Bytes of its file, as it appears."""


class Records:
    """The records of a cache.

    Args:
        places: The paths of the cache.
    """

    __slots__ = ("_places",)

    def __init__(self, places: Places) -> None:
        self._places = places

    def scan(self) -> Iterator[Item]:
        """Every blob that is there, in no order."""
        for algorithm in ALGORITHMS:
            with suppress(FileNotFoundError):
                yield from self._scan(self._places.root / "blobs" / algorithm, algorithm)

    def _scan(self, directory: Path, algorithm: str) -> Iterator[Item]:
        with os.scandir(directory) as entries:
            for entry in entries:
                with suppress(InvalidDigestError, FileNotFoundError):
                    digest = Digest(f"{algorithm}:{entry.name}")
                    if entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        used = self.used(digest) or status.st_mtime_ns
                        yield Item(used, digest, status.st_size)

    def used(self, digest: Digest) -> int | None:
        """When a blob was last used, nanoseconds since the epoch; None without a record."""
        try:
            return self._places.record(digest).stat().st_mtime_ns
        except OSError:
            return None

    def touch(self, digest: Digest, wall: float) -> None:
        """Note that a blob is used, unless that was noted within the last minute.

        Args:
            digest: The blob.
            wall: Seconds since the epoch.
        """
        used = self.used(digest)
        if used is not None and wall - used / 1e9 < FRESH:
            return
        with suppress(OSError):  # A cache that can only be read serves all the same.
            self.set_used(digest, wall)

    def set_used(self, digest: Digest, wall: float) -> None:
        """Note that a blob is used now.

        Raises:
            OSError: The record cannot be written.
        """
        record = self._places.record(digest)
        record.mkdir(parents=True, exist_ok=True)
        moment = round(wall * 1e9)
        os.utime(record, ns=(moment, moment))

    def is_granted(self, digest: Digest, principal: str | None) -> bool:
        """Whether a principal has fetched a blob by itself."""
        return os.access(self._places.grant(digest, principal), os.F_OK)

    def note(
        self, digest: Digest, principal: str | None, wall: float, kind: str | None = None
    ) -> None:
        """Note that a principal has fetched a blob.

        Args:
            digest: The blob.
            principal: For whom it was fetched.
            wall: Seconds since the epoch.
            kind: Its media type, if it is a manifest.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        record = self._places.record(digest)
        with map_write_errors(record):
            record.mkdir(parents=True, exist_ok=True)
            self._places.grant(digest, principal).touch()
            if kind is not None and self.kind(digest) != kind:
                self._places.kind(digest).write_text(kind, "ascii")
            self.set_used(digest, wall)

    def kind(self, digest: Digest) -> str | None:
        """The media type of a manifest, None for what is none."""
        try:
            raw = read_limited(self._places.kind(digest), MAX_KIND, follow=False)
        except SupplementedError:
            return None
        kind = raw.decode("ascii", "replace")
        return kind if kind in KNOWN_MANIFESTS else None

    def forget(self, digest: Digest) -> None:
        """Drop the record of a blob. It does what it can."""
        record = self._places.record(digest)
        with suppress(OSError):
            with os.scandir(record) as entries:
                for entry in entries:
                    os.unlink(entry.path)  # noqa: PTH108 - entries have strings
            record.rmdir()

    def forget_lost(self) -> None:
        """Drop the records of blobs that are not there, because somebody else removed them."""
        for algorithm in ALGORITHMS:
            with suppress(OSError), os.scandir(self._places.records / algorithm) as entries:
                for entry in entries:
                    with suppress(InvalidDigestError):
                        digest = Digest(f"{algorithm}:{entry.name}")
                        if not self._places.has(digest):
                            self.forget(digest)
