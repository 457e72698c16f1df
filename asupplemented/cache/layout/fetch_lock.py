"""Leads: which process is fetching a blob, and what the others do about it. Blocking.

Who holds the lock on the lead file of a blob fetches it, and names its file in there; who does
not reads that file while it grows. When the lock is free and the blob is not there, the process
that held it is gone, and whoever takes the lock next goes on in its stead. What another process
wrote is never believed: each reader hashes for itself.
"""

from __future__ import annotations

import enum
import os
import re
import threading
from typing import TYPE_CHECKING, Final

from asupplemented.aio.atomic import PREFIX, StagedFile
from asupplemented.aio.files import SharedFile, map_write_errors, open_regular, read_limited
from asupplemented.aio.locks import acquire_lock, release_lock
from asupplemented.blobs.blob_file import share_blob_file
from asupplemented.errors import NotFoundError, SupplementedError
from asupplemented.limits import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asupplemented.abc import BlobFile

__all__ = ("Claim", "News", "Trail", "read_name")

MAX_NAME: Final = 64
_TRIES: Final = 100
"""More than anybody needs who only sweeps."""
_NAME: Final = re.compile(re.escape(PREFIX) + "[0-9a-f]{16}")


class Claim:
    """One fetch of a blob by this process: its file, and the lead if it has it.

    Methods may be called from any thread.

    Args:
        ingest: Where files in the making lie.
        lead: The lead file of the blob.
    """

    __slots__ = ("_dropped", "_held", "_lead", "_lock", "file")

    def __init__(self, ingest: Path, lead: Path) -> None:
        self._lead = lead
        self._lock = threading.Lock()
        self._held: int | None = None
        self._dropped = False
        self.file = StagedFile.create(ingest)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that fetches."""
        return self._held is not None

    def begin(self) -> bool:
        """Take the lead, unless another process has it; gives whether it is ours.

        Who looks for what dead processes left behind holds the lock of each lead file for a
        moment, and removes the file, too. It signs nothing, though, and a process that leads does.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        for _ in range(_TRIES):
            if self.take_lead() or read_name(self._lead) is not None:
                break
            os.sched_yield()
        return self.leads

    def take_lead(self) -> bool:
        """Take the lead if nobody has it; gives whether it is ours now.

        Raises:
            SourceError: See `asupplemented.aio.files.map_write_errors`.
        """
        with self._lock:
            if self._dropped:
                return False
            if self._held is None:
                self._held = acquire_lock(self._lead)
                if self._held is not None:
                    self._sign(self._held)
            return self._held is not None

    def _sign(self, fd: int) -> None:
        with map_write_errors(self._lead):
            os.ftruncate(fd, 0)
            os.pwrite(fd, self.file.path.name.encode("ascii"), 0)

    def let_go(self) -> None:
        """Give the lead back, if it is ours. May be called again."""
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            release_lock(held, self._lead)

    def drop(self) -> None:
        """End the fetch: give the lead back, and close the file. May be called again."""
        with self._lock:
            self._dropped = True
            self._let_go()
        self.file.close()

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.drop()


class News(enum.Enum):
    """What a look at the fetch of another process told, if not bytes."""

    WAIT = enum.auto()
    """Nothing new."""
    CHANGED = enum.auto()
    """Another process has taken over: look again."""
    END = enum.auto()
    """The blob is whole, and was read to its end."""
    GONE = enum.auto()
    """The other process is gone, and this one leads now."""


class Trail:
    """What other processes have fetched so far of one blob.

    Looking is done by one thread at a time; closing may be done from another one.

    Args:
        claim: The fetch of this process, which takes the lead when it is free.
        lead: The lead file of the blob.
        ingest: Where files in the making lie.
        finished: Opens the whole blob, if it is there and this principal may have it.
    """

    __slots__ = ("_claim", "_closed", "_finished", "_ingest", "_lead", "_lock", "_name", "_reader")

    def __init__(
        self,
        claim: Claim,
        lead: Path,
        ingest: Path,
        finished: Callable[[], BlobFile | None],
    ) -> None:
        self._claim = claim
        self._lead = lead
        self._ingest = ingest
        self._finished: Callable[[], BlobFile | None] | None = finished
        self._lock = threading.Lock()
        self._closed = False
        self._name: str | None = None
        self._reader: SharedFile | None = None

    def look(self, position: int) -> bytes | News:
        """The bytes from a position on, or how things stand.

        Raises:
            SupplementedError: A file cannot be read.
        """
        data = b"" if self._reader is None else self._reader.read(position, BLOCK)
        if data:
            return data
        if self._finished is None or self._closed:
            return News.END
        return self._look_around(position)

    def _look_around(self, position: int) -> bytes | News:
        if self._claim.leads:
            return News.GONE
        if self._turn_to_whole():
            return self.look(position)
        if self._turn_to_leader():
            return News.CHANGED
        if not self._claim.take_lead():
            return News.WAIT
        if self._turn_to_whole():  # It came between the two looks.
            self._claim.let_go()
            return self.look(position)
        return News.GONE

    def close(self) -> None:
        """Close the file that is being read. May be called again."""
        with self._lock:
            self._closed = True
            reader = self._reader
        if reader is not None:
            reader.close()

    def _turn_to_whole(self) -> bool:
        file = None if self._finished is None else self._finished()
        if file is None:
            return False
        self._finished = None
        self._turn_to(share_blob_file(file))
        return True

    def _turn_to_leader(self) -> bool:
        """Open the file that the lead file names, if that is another one than before."""
        name = read_name(self._lead)
        if name is None or name == self._name:
            return False
        path = self._ingest / name
        try:
            fd, _ = open_regular(path, follow=False)
        except NotFoundError:
            return False
        self._name = name
        self._turn_to(SharedFile(fd, path))
        return True

    def _turn_to(self, reader: SharedFile) -> None:
        with self._lock:
            before, self._reader = self._reader, reader
            closed = self._closed
        if before is not None:
            before.close()
        if closed:
            reader.close()


def read_name(lead: Path) -> str | None:
    """The file that whoever leads writes to, None if nobody has signed a lead file. Blocking."""
    try:
        raw = read_limited(lead, MAX_NAME, follow=False)
    except SupplementedError:
        return None
    name = raw.decode("ascii", "replace")
    return name if _NAME.fullmatch(name) else None
