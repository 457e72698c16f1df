"""What a cache knows of each blob beside its bytes. Blocking.

The record of a blob is a directory: its time of change tells when the blob was last used, and
its files tell who has fetched it and what kind of manifest it is. The blob's own file is never
touched, so that a file once verified can be known again by its timestamps.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.aio.atomic import map_write_errors
from asupplemented.aio.files import read_limited
from asupplemented.errors import InvalidDigestError, SupplementedError
from asupplemented.model.digest import ALGORITHMS, Digest
from asupplemented.model.media_type import KNOWN_MANIFESTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asupplemented.cache.layout.paths import Places

__all__ = ("Item", "Records")

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
            SourceError: See `asupplemented.aio.atomic.map_write_errors`.
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
