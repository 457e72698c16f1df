"""Files below a directory, reached without a link that leads out of it. Blocking, for threads.

Theory of operation. An image may come from a stranger, and a link in it may lead to any file of
this machine. The kernel follows links while it resolves a path, and a link that appears between a
check and an open defeats the check. So each directory below the root is opened relative to the one
above it, and no component may be a link (``openat`` with ``O_NOFOLLOW``). Where links are allowed
within the root, the path is resolved first, and what that gives is opened in the same way. The root
itself is the caller's word, and may be a link.

`is_private` answers another question about a path: whether another user can change what it names.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.aio.files import check_regular, map_os_error, open_regular, read_to_end
from asupplemented.errors import LayoutError, NotFoundError, SupplementedError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

__all__ = (
    "Follow",
    "OpenedFile",
    "is_owned",
    "is_private",
    "open_beneath",
    "open_directory",
    "read_beneath",
)

_DIRECTORY: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH
_MAX_LINKS: Final = 40
"""Links that one path may lead through, as in Linux."""


class Follow(enum.Enum):
    """Which symbolic links below a root are followed."""

    NONE = enum.auto()
    INSIDE = enum.auto()
    """Those that lead to a file below the same root."""
    ANY = enum.auto()
    """All. The caller verifies the content before it hands any of it out."""


class OpenedFile(NamedTuple):
    """A regular file that was opened; the receiver closes `fd`."""

    fd: int
    status: os.stat_result
    linked: bool
    """Whether a link below the root led to it."""


class _LinkFoundError(Exception):
    """A component of a path is a link."""


def open_beneath(
    root: str,
    name: str,
    *,
    missing: Callable[[str], SupplementedError] = NotFoundError,
    follow: Follow,
) -> OpenedFile:
    """Open a regular file below a directory for reading.

    Args:
        root: The directory, which may be reached through links.
        name: The path of the file from there.
        missing: Makes the error for a file that does not exist.
        follow: Which links below `root` are followed.

    Raises:
        LayoutError: A link is in the way that is not followed, or it is no regular file.
        SupplementedError: See `asupplemented.aio.files.open_regular`.
    """
    path = f"{root}/{name}"
    try:
        try:
            fd = _open(root, name.split("/"))
            linked = False
        except _LinkFoundError:
            if follow is Follow.ANY:
                return OpenedFile(*open_regular(path, missing=missing), linked=True)
            fd = _open_inside(root, path, follow)
            linked = True
    except SupplementedError:
        raise  # Some are an OSError, too.
    except FileNotFoundError as error:
        raise missing(f"there is no file {path}") from error
    except OSError as error:
        raise map_os_error(error, path) from error
    try:
        return OpenedFile(fd, check_regular(fd, path), linked)
    except BaseException:  # an interrupt, too, must not leak the fd
        os.close(fd)
        raise


def read_beneath(
    root: str,
    name: str,
    limit: int,
    *,
    missing: Callable[[str], SupplementedError] = NotFoundError,
    follow: Follow,
) -> bytes:
    """Read a small file below a directory whole.

    Args:
        root: The directory.
        name: The path of the file from there.
        limit: The most bytes to accept (rules L-01, L-03).
        missing: Makes the error for a file that does not exist.
        follow: Which links below `root` are followed.

    Raises:
        LimitExceededError: It has more than `limit` bytes.
        SupplementedError: See `open_beneath`.
    """
    fd, status, _ = open_beneath(root, name, missing=missing, follow=follow)
    return read_to_end(fd, status, f"{root}/{name}", limit)


def _open_inside(root: str, path: str, follow: Follow) -> int:
    """Open what links below a root lead to, unless that is elsewhere."""
    base, real = os.path.realpath(root), os.path.realpath(path)
    if follow is Follow.INSIDE and os.path.commonpath((base, real)) == base != real:
        with suppress(_LinkFoundError):  # Another program has just made one.
            return _open(base, os.path.relpath(real, base).split("/"))
    rule = "leads out of the image" if follow is Follow.INSIDE else "must not be followed"
    message = f"cannot read {path}: a symbolic link {rule}; put the file itself there"
    raise LayoutError(message)


def _open(root: str, parts: Sequence[str]) -> int:
    directory = _open_directory(root, parts[:-1], None)
    try:
        return os.open(parts[-1], _FILE, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _LinkFoundError from error
        raise
    finally:
        os.close(directory)


@contextmanager
def open_directory(
    path: Path, *, root: Path | None = None, make: int | None = None
) -> Generator[int]:
    """Keep a directory open, for functions that take ``dir_fd``.

    Args:
        path: The directory.
        root: A directory above it, or itself, below which no link is followed; None for itself.
        make: Make `path`, `root` and what is between them, with these permissions less the umask,
            if they do not exist. What is above `root` has to be there.

    Yields:
        Its descriptor.

    Raises:
        LayoutError: A component below `root` is a link.
        OSError: It cannot be opened or made.
    """
    root = root or path
    try:
        fd = _open_directory(str(root), path.relative_to(root).parts, make)
    except _LinkFoundError as error:
        message = (
            f"cannot write to {path}: a symbolic link leads out of {root}; replace it by a "
            "directory, or mount what it leads to there"
        )
        raise LayoutError(message) from error
    try:
        yield fd
    finally:
        os.close(fd)


def _open_directory(root: str, parts: Sequence[str], make: int | None) -> int:
    if make is not None:
        with suppress(FileExistsError):
            os.mkdir(root, make)  # noqa: PTH102 - a path from the caller is a string
    fd = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            below = _step(fd, part, make)
            os.close(fd)
            fd = below
    except BaseException:  # an interrupt, too, must not leak the fd
        os.close(fd)
        raise
    return fd


def _step(above: int, part: str, make: int | None) -> int:
    if make is not None:
        with suppress(FileExistsError):
            os.mkdir(part, make, dir_fd=above)
    try:
        return os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    except NotADirectoryError as error:
        if stat.S_ISLNK(os.stat(part, dir_fd=above, follow_symlinks=False).st_mode):
            raise _LinkFoundError from error
        raise


def is_owned(status: os.stat_result) -> bool:
    """Whether only this user and root can write a file or directory.

    Access control lists are covered: their mask is what the mode shows as the group's permission.
    """
    return status.st_uid in {os.geteuid(), 0} and not status.st_mode & _WRITABLE


def is_private(path: str | Path) -> bool:
    """Whether only this user and root can change a file, or put another one in its place.

    The file, every link to it and every directory on the way belong to this user or to root, and
    no other user may write them. In a sticky directory such as ``/tmp`` other users may add
    files, but cannot rename or remove these. The answer is no if it cannot be found out.
    """
    try:
        return _is_private(os.path.abspath(path))  # noqa: PTH100 - links must stay
    except OSError:
        return False


def _is_private(path: str) -> bool:
    here, left, links = "", path.split("/")[:0:-1], 0
    if not _is_safe(os.lstat("/")):
        return False
    while left:
        part = left.pop()
        if part == "..":
            here = os.path.dirname(here)  # noqa: PTH120 - a string, and links are resolved
        if part in {"", ".", ".."}:
            continue
        status = os.lstat(f"{here}/{part}")
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS or status.st_uid not in {os.geteuid(), 0}:
                return False
            target = os.readlink(f"{here}/{part}")  # noqa: PTH115 - a string
            if target.startswith("/"):
                here = ""
            left += target.split("/")[::-1]
        elif _is_safe(status):
            here = f"{here}/{part}"
        else:
            return False
    return True


def _is_safe(status: os.stat_result) -> bool:
    if is_owned(status):
        return True
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    return bool(sticky) and status.st_uid in {os.geteuid(), 0}
