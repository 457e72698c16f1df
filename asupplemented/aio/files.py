"""Files: opened only if they are regular, and closed by their last user. Blocking, for threads.

`SharedFile` serves several threads at once. A file descriptor that one thread closes while another
one reads may stand for another file by then, so closing is left to the last user.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from asupplemented.errors import (
    ClosedError,
    LayoutError,
    LimitExceededError,
    NetworkError,
    NotFoundError,
    PermissionDeniedError,
    SourceError,
    SourceTimeoutError,
    TruncatedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asupplemented.errors import SupplementedError

__all__ = (
    "SharedFile",
    "check_regular",
    "map_os_error",
    "map_write_errors",
    "open_regular",
    "read_limited",
    "read_to_end",
)

_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""A FIFO opens at once instead of waiting for a writer; no terminal takes control (rule DI-07)."""

_NOT_A_FILE: Final = frozenset((errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ENXIO))
_REFUSED: Final = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
_IN_THE_WAY: Final = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    )
)


# Errors


def map_os_error(error: OSError | EOFError, what: object) -> SourceError:
    """Translate an exception of the standard library into an error of this one.

    Args:
        error: What was raised.
        what: What was read, for the message.
    """
    reason = (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else None) or (
        str(error) or type(error).__name__
    )
    message = f"cannot read {what}: {reason}"
    match error:
        case TimeoutError():
            return SourceTimeoutError(message)
        case PermissionError():
            return PermissionDeniedError(f"{message}; check its permissions")
        case ConnectionError():
            return NetworkError(message)
        case EOFError():
            return TruncatedError(message)
        case _ if error.errno in _NOT_A_FILE:
            return LayoutError(message)
        case _:
            return SourceError(message)


@contextmanager
def map_write_errors(path: Path) -> Generator[None]:
    """Translate errors of the operating system about writing into errors of the library.

    Args:
        path: What is written, for the message.

    Raises:
        PermissionDeniedError: No permission, or a read-only file system.
        LayoutError: Something else is there, such as a file in the place of a directory.
        SourceError: The disk is full, or failed.
    """
    try:
        yield
    except SourceError:
        raise
    except OSError as error:
        raise _map_write_error(error, path) from error


def _map_write_error(error: OSError, path: Path) -> SourceError:
    message = f"cannot write {path}: {os.strerror(error.errno) if error.errno else error}"
    if error.errno in _REFUSED:
        return PermissionDeniedError(
            f"{message}; check its permissions, and whether it is mounted read-only"
        )
    if error.errno in _FULL:
        return SourceError(f"{message}; make room and try again, whole blobs are kept")
    return LayoutError(message) if error.errno in _IN_THE_WAY else SourceError(message)


# Opening and reading


def open_regular(
    path: str | Path,
    *,
    missing: Callable[[str], SupplementedError] = NotFoundError,
    follow: bool = True,
) -> tuple[int, os.stat_result]:
    """Open a regular file for reading, and nothing else (rule DI-07). Never waits.

    Args:
        path: The file.
        missing: Makes the error for a file that is not there.
        follow: Whether the last part of the path may be a symbolic link.

    Returns:
        The file descriptor, to be closed by the caller, and the status of the open file.

    Raises:
        SupplementedError: What `missing` made.
        PermissionDeniedError: No permission.
        LayoutError: It is a directory, FIFO, device or socket, or a link where none may be.
        SourceError: It cannot be opened for another reason.
    """
    try:
        fd = os.open(path, _FLAGS if follow else _FLAGS | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise missing(f"there is no file {path}") from error
    except OSError as error:
        raise map_os_error(error, path) from error
    try:
        return fd, check_regular(fd, path)
    except BaseException:  # an interrupt, too, must not leak the fd
        os.close(fd)
        raise


def check_regular(fd: int, path: str | Path) -> os.stat_result:
    """The status of an open file, which has to be a regular one (rule DI-07).

    Raises:
        LayoutError: It is a directory, FIFO, device or socket.
        SourceError: The operating system does not tell.
    """
    try:
        status = os.fstat(fd)
    except OSError as error:
        raise map_os_error(error, path) from error
    if not stat.S_ISREG(status.st_mode):
        message = f"{path} is not a regular file"
        raise LayoutError(message)
    return status


def read_limited(
    path: str | Path,
    limit: int,
    *,
    missing: Callable[[str], SupplementedError] = NotFoundError,
    follow: bool = True,
) -> bytes:
    """Read a small file whole.

    Args:
        path: A regular file.
        limit: The most bytes to accept (rules L-01, L-03).
        missing: Makes the error for a file that is not there.
        follow: See `open_regular`.

    Raises:
        LimitExceededError: It has more than `limit` bytes.
        SupplementedError: See `open_regular`.
    """
    fd, status = open_regular(path, missing=missing, follow=follow)
    return read_to_end(fd, status, path, limit)


def read_to_end(fd: int, status: os.stat_result, path: str | Path, limit: int) -> bytes:
    """Read a small file that was just opened, and close it.

    Args:
        fd: The open file; it is closed on every path out.
        status: Its status.
        path: Its name, for messages.
        limit: The most bytes to accept.

    Raises:
        LimitExceededError: It has more than `limit` bytes.
        SourceError: It cannot be read.
    """
    try:
        data = os.read(fd, min(status.st_size, limit) + 1)
        if len(data) != status.st_size:  # Otherwise that was the end, and one call is saved.
            while len(data) <= limit and (more := os.read(fd, limit + 1 - len(data))):
                data += more
    except OSError as error:
        raise map_os_error(error, path) from error
    finally:
        os.close(fd)
    if len(data) > limit:
        message = f"{path} exceeded maximum allowed size of {limit} bytes"
        raise LimitExceededError(message, limit=limit)
    return data


class SharedFile:
    """An open file that several threads read and write by position; its last user closes it.

    Closing never waits: calls that other threads have begun end first, and the last one closes the
    file. Later calls find it closed.

    Args:
        fd: The open file; it belongs to this object from now on.
        path: Its name, for messages; it may be gone.
        offset: Where position 0 lies within the file.
        close: Closes `fd`; None for `os.close`.
    """

    __slots__ = ("_closed", "_fd", "_lock", "_offset", "_release", "_users", "path")

    def __init__(
        self, fd: int, path: Path, *, offset: int = 0, close: Callable[[], None] | None = None
    ) -> None:
        self.path = path
        self._fd = fd
        self._offset = offset
        self._release = close
        self._lock = threading.Lock()
        self._users = 0
        self._closed = False

    @classmethod
    def temporary(cls, directory: str | Path | None = None) -> Self:
        """Make a file without a name, which is gone when it is closed.

        Args:
            directory: Where its bytes lie, None for the system's directory for such files.

        Raises:
            SourceError: See `map_write_errors`.
        """
        with map_write_errors(Path(directory or "the directory for temporary files")):
            fd, name = tempfile.mkstemp(dir=directory)
            try:
                os.unlink(name)  # noqa: PTH108 - a name from the system is a string
            except BaseException:  # an interrupt, too, must not leak the fd
                os.close(fd)
                raise
        return cls(fd, Path(name))

    def read(self, start: int, size: int) -> bytes:
        """Read up to `size` bytes from `start` on; none behind the end, or if it is closed.

        Raises:
            SourceError: The disk failed.
        """
        with self.use() as fd:
            try:
                return b"" if fd is None else os.pread(fd, size, self._offset + start)
            except OSError as error:
                raise map_os_error(error, self.path) from error

    def write(self, start: int, *chunks: bytes | memoryview) -> None:
        """Write all chunks, one behind the other, from `start` on.

        On a failure, some of it may be there.

        Raises:
            ClosedError: The file was closed.
            SourceError: See `map_write_errors`.
        """
        position = self._offset + start
        with self.use() as fd, map_write_errors(self.path):
            if fd is None:
                message = f"{self.path} was closed while it was being written; open the blob again"
                raise ClosedError(message)
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    written = os.pwrite(fd, view, position)
                    position += written
                    view = view[written:]

    def status(self) -> os.stat_result | None:
        """The status of the file now; None if it is closed.

        Raises:
            SourceError: The operating system does not tell.
        """
        with self.use() as fd:
            try:
                return None if fd is None else os.fstat(fd)
            except OSError as error:
                raise map_os_error(error, self.path) from error

    @contextmanager
    def use(self) -> Generator[int | None]:
        """Keep the file open meanwhile; gives its descriptor, None if it is closed."""
        with self._lock:
            usable = not self._closed
            self._users += usable
        try:
            yield self._fd if usable else None
        finally:
            with self._lock:
                self._users -= usable
                last = usable and self._closed and not self._users
            if last:
                self._close_now()

    def close(self) -> None:
        """Close the file, now or after the calls that are running. May be called again."""
        with self._lock:
            closing = not self._closed and not self._users
            self._closed = True
        if closing:
            self._close_now()

    def _close_now(self) -> None:
        if self._release is not None:
            self._release()
            return
        with suppress(OSError):  # An error of the disk concerns a file that is dropped anyway.
            os.close(self._fd)

    def __del__(self) -> None:
        self.close()
