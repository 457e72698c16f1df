"""Reading large files: a thread reads and hashes blocks ahead of the stream.

The thread goes on by itself as long as the stream keeps up, so that neither waits for the other,
and one hop serves many blocks.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from asupplemented.abc import ResourceKey
from asupplemented.aio.lru import LRU
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.aio.threads import WORKERS, Workers
from asupplemented.blobs.blob_file import identify, matches
from asupplemented.blobs.hashing import resolve_future
from asupplemented.errors import ClosedError, SourceError
from asupplemented.limits import BLOCK

if TYPE_CHECKING:
    from concurrent.futures import Future

    from asupplemented.abc import Context
    from asupplemented.aio.files import SharedFile
    from asupplemented.blobs.blob_file import FileIdentity
    from asupplemented.model.digest import Digest, Hasher

__all__ = ("VERIFIED", "ReadAhead", "VerifiedFiles", "verified_files")

AHEAD: Final = 4
"""Blocks that are kept ready for the reader of a file."""

BATCH: Final = 2
"""Blocks that are worth waking the reader for, as long as more are coming."""

FEW: Final = 4
"""Files that are read in whole blocks at the same time; with more of them, blocks get smaller."""

SMALL_BLOCK: Final = 256 * 1024
"""A block when many files are read at once: slower, but memory is for all of them."""

TURN: Final = 8
"""Blocks that a thread reads in one turn at most, before other work has its turn."""

MAX_CHANGES: Final = 4
"""Changes of a verified file, during one block, after each of which it is hashed as a whole."""

SETTLED: Final = 2.0
"""Seconds after which a change of a file is sure to change its timestamps."""

MAX_REMEMBERED: Final = 4096
"""Verified files that a session remembers."""


class VerifiedFiles:
    """Files that were hashed and found right, by digest.

    Args:
        clock: Tells how old a file is. A file that changed just now may change again without a
            change of its timestamps, so it is not remembered.
    """

    __slots__ = ("_clock", "_known")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known = LRU["Digest", "FileIdentity"](MAX_REMEMBERED)

    def remember(self, digest: Digest, identity: FileIdentity) -> None:
        """Remember a file that holds one blob and nothing else."""
        age = self._clock.wall() - max(identity.modified, identity.changed) / 1e9
        if age < SETTLED:
            return
        self._known.put(digest, identity)

    def recall(self, digest: Digest) -> FileIdentity | None:
        """The identity that a blob's file had when it was verified, None if it was not."""
        return self._known.get(digest)


VERIFIED: Final = ResourceKey["VerifiedFiles"]("files that were verified")


def verified_files(context: Context) -> VerifiedFiles:
    """The files that a session has verified."""
    return context.resource(VERIFIED, lambda: VerifiedFiles(context.resource(CLOCK, Clock)))


class ReadAhead:
    """Blocks of a file, in order.

    Args:
        context: The session, whose threads read.
        reader: What to read; closed with this.
        start: Offset of the first byte within the blob.
        end: Offset behind the last byte.
        hasher: Hashes every block before it is handed out; None hashes nothing.
        trust: The digest of the file, and the identity that it had when it was verified, if its
            blocks are handed out without being hashed. A block counts only if the file has that
            identity after it was read. If only its inode has changed, by a link or its mode, it is
            hashed as a whole before any more of it is handed out. If its content was written to,
            reading ends.
    """

    __slots__ = (
        "_ahead",
        "_batch",
        "_block",
        "_blocks",
        "_closed",
        "_end",
        "_ended",
        "_failure",
        "_hasher",
        "_identity",
        "_lock",
        "_loop",
        "_position",
        "_reader",
        "_reading",
        "_trust",
        "_waiter",
        "_workers",
    )

    def __init__(
        self,
        context: Context,
        reader: SharedFile,
        start: int,
        end: int,
        hasher: Hasher | None,
        trust: tuple[Digest, FileIdentity] | None = None,
    ) -> None:
        self._workers = context.resource(WORKERS, Workers)
        self._loop = asyncio.get_running_loop()
        self._reader = reader
        self._end = end
        self._hasher = hasher
        few = self._workers.add_reader() <= FEW
        self._block = BLOCK if few else SMALL_BLOCK
        self._ahead = AHEAD if few else 1
        self._batch = BATCH if few else 1
        # Only the thread at work uses these:
        self._position = start
        self._identity: FileIdentity | None = None
        self._trust = trust
        # Shared with it, under the lock:
        self._lock = threading.Lock()
        self._blocks: deque[bytes] = deque()
        self._reading = False
        self._ended = start >= end
        self._failure: Exception | None = None
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """The next block, nothing at the end.

        A file that became shorter since it was opened ends early.

        Raises:
            SourceError: The file cannot be read.
        """
        while True:
            with self._lock:
                block = self._blocks.popleft() if self._blocks else b""
                finished = not block and (self._ended or self._closed)
                starting = not finished and self._may_start()
                waiter = None if block or finished else self._wait()
            if starting:
                self._start()
            if waiter is None:
                if finished and self._failure is not None:
                    raise self._failure
                return block
            await waiter

    @property
    def identity(self) -> FileIdentity | None:
        """The file's identity if it stayed the same from the first block to the last."""
        return self._identity if self._ended else None

    @property
    def trusted(self) -> bool:
        """Whether the file was as it was verified, from the first block to the last."""
        return self._trust is not None and self._ended and self._failure is None

    def close(self) -> None:
        """Stop reading, and close the file as soon as no thread uses it. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._blocks.clear()
        self._workers.remove_reader()
        self._reader.close()
        if self._waiter is not None:
            resolve_future(self._waiter)

    # Under the lock

    def _may_start(self) -> bool:
        if self._reading or self._ended or self._closed or len(self._blocks) >= self._ahead:
            return False
        self._reading = True
        return True

    def _wait(self) -> asyncio.Future[None]:
        self._waiter = self._loop.create_future()
        return self._waiter

    # In a thread

    def _start(self) -> None:
        """Ask for a turn in a thread; done on the event loop or in the turn before."""
        try:
            self._workers.submit(self._work).add_done_callback(self._note)
        except ClosedError as error:
            self._post(b"", error)

    def _note(self, turn: Future[None]) -> None:
        if turn.cancelled():
            message = "the session was closed while the blob was being read"
            self._post(b"", ClosedError(message))

    def _work(self) -> None:
        """Read on until enough blocks are ready, or the turn is over."""
        for _ in range(TURN):
            if not self._work_once():
                return
        self._start()

    def _work_once(self) -> bool:
        try:
            block = self._read_block()
        except Exception as error:  # noqa: BLE001 - raised where the blocks are taken
            return self._post(b"", error)
        return self._post(block, None)

    def _read_block(self) -> bytes:
        if self._identity is None:
            self._identity = identify(self._reader)
        length = min(self._block, self._end - self._position)
        if self._trust is None:
            block = self._reader.read(self._position, length)
        else:
            block = self._read_trusted(length, *self._trust)
        if self._hasher is not None:
            self._hasher.update(block)
        self._position += len(block)
        if self._position >= self._end and identify(self._reader) != self._identity:
            self._identity = None
        return block

    def _read_trusted(self, length: int, digest: Digest, trusted: FileIdentity) -> bytes:
        for _ in range(MAX_CHANGES):
            block = self._reader.read(self._position, length)
            now = identify(self._reader)
            if now is None or now == trusted:
                return block
            if now.modified != trusted.modified:
                # The kernel notes the time before it writes the bytes, so they may still come.
                break
            with self._reader.use() as fd:
                if fd is None or not matches(fd, digest) or identify(self._reader) != now:
                    break
            self._identity = trusted = now
            self._trust = digest, now
        message = "the file was changed while it was read; open the blob again"
        raise SourceError(message)

    def _post(self, block: bytes, failure: Exception | None) -> bool:
        """Hand over what was read; gives whether to go on."""
        with self._lock:
            if block and not self._closed:
                self._blocks.append(block)
            self._failure = failure
            self._ended = not block or self._position >= self._end
            self._reading = False
            going = self._may_start()
            if going and len(self._blocks) < self._batch:
                return True
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            with suppress(RuntimeError):  # The loop was closed, and so no stream waits.
                self._loop.call_soon_threadsafe(resolve_future, waiter)
        return going
