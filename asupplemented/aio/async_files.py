"""Files read and written with aiofiles, for everything that is not a batch or a hot path.

Each call of aiofiles is one hop to a thread of the event loop. A whole batch of small files, and
the loop that reads and hashes a blob, take one hop instead (`asupplemented.aio.files`).

A caller that is cancelled while aiofiles opens a file gets no file object that it could close,
although the thread still opens the file. So `opened` closes such a file when it arrives.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

import aiofiles

from asupplemented.aio.files import map_os_error, open_regular
from asupplemented.errors import LimitExceededError, NotFoundError, SupplementedError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

__all__ = ("opened", "read_file")


class _Closable(Protocol):
    async def close(self) -> None: ...


T = TypeVar("T", bound=_Closable)


@asynccontextmanager
async def opened(opening: Awaitable[T]) -> AsyncGenerator[T]:
    """Enter a file that aiofiles opens, and close it on every path out.

    Args:
        opening: What ``aiofiles.open`` returned.

    Yields:
        The file.

    Raises:
        OSError: The file cannot be opened or closed.
    """
    task = asyncio.ensure_future(opening)
    try:
        file = await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_close_late)
        raise
    try:
        yield file
    finally:
        await asyncio.shield(asyncio.ensure_future(file.close()))


async def read_file(
    path: str | Path,
    limit: int,
    *,
    missing: Callable[[str], SupplementedError] = NotFoundError,
    follow: bool = True,
) -> bytes:
    """Read a small file whole.

    Args:
        path: A regular file (rule DI-07).
        limit: The most bytes to accept (rules L-01, L-03).
        missing: Makes the error for a file that does not exist.
        follow: Whether the last part of the path may be a symbolic link.

    Raises:
        LimitExceededError: The file has more than `limit` bytes.
        SupplementedError: See `asupplemented.aio.files.open_regular`.
    """

    def opener(name: str, _flags: int) -> int:
        fd, _ = open_regular(name, missing=missing, follow=follow)
        return fd

    try:
        async with opened(aiofiles.open(path, "rb", opener=opener)) as file:
            data = await file.read(limit + 1)
    except SupplementedError:
        raise  # Some are an OSError, too.
    except OSError as error:
        raise map_os_error(error, path) from error
    if len(data) > limit:
        message = f"{path} exceeded maximum allowed size of {limit} bytes"
        raise LimitExceededError(message, limit=limit)
    return data


def _close_late(task: asyncio.Future[T]) -> None:
    """Close a file that was opened after its caller was cancelled."""
    if not task.cancelled() and task.exception() is None:
        asyncio.ensure_future(task.result().close())  # noqa: RUF006 - its thread refers to it
