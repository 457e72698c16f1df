"""Files that the kernel sends to a client, in slices (rule SRV-40).

Each call of ``loop.sendfile`` costs several turns of the event loop, and one without a limit stops
it for as long as its client takes bytes. Here one callback serves a client until the file ends: the
event loop calls it when the socket takes bytes, and it sends one slice. So all clients that can
take bytes get a slice in each turn.

The event loop refuses to watch the socket of a transport, so a duplicate of its descriptor is
watched. Nothing else may write to the transport meanwhile, and its buffer has to be empty.
"""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING, Final

from asupplemented.errors import TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ("SLICE", "can_send", "send_file")

SLICE: Final = 2 * 1024 * 1024
"""The most bytes that one client is sent before the others have their turn.

Each turn of the event loop costs CPU. Slices of 512 KiB cost two thirds more, and the wait for the
first byte was no more even (64 clients of 64 MiB).
"""

_UNSUPPORTED: Final = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP))
"""What a system says that cannot send this file to this socket."""


def can_send(transport: asyncio.WriteTransport) -> bool:
    """Whether the kernel can send files to a client now: not over TLS, nor behind other bytes."""
    return (
        hasattr(os, "sendfile")
        and transport.get_extra_info("sslcontext") is None
        and transport.get_extra_info("socket") is not None
        and transport.get_write_buffer_size() == 0
    )


async def send_file(
    transport: asyncio.WriteTransport,
    file: int,
    start: int,
    end: int,
    *,
    on_sent: Callable[[int], None],
) -> bool:
    """Send ``[start, end)`` of a file.

    Args:
        transport: The connection; see `can_send`.
        file: The descriptor of the file.
        start: Offset of the first byte.
        end: Offset behind the last byte, above `start`.
        on_sent: Called with the number of bytes of each slice.

    Returns:
        False if the kernel cannot send this file; nothing was sent then.

    Raises:
        TruncatedError: The file ends before `end` (rule SRV-39).
        OSError: The client has gone.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[bool] = loop.create_future()
    position = start
    connection = os.dup(transport.get_extra_info("socket").fileno())

    def send_slice() -> None:
        nonlocal position
        if done.done():
            return
        try:
            sent = os.sendfile(connection, file, position, min(SLICE, end - position))
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            if position == start and error.errno in _UNSUPPORTED:
                done.set_result(False)
            else:
                done.set_exception(error)
            return
        if not sent:
            done.set_exception(TruncatedError("the file of a blob is shorter than the blob"))
            return
        position += sent
        on_sent(sent)
        if position == end:
            done.set_result(True)

    try:
        loop.add_writer(connection, send_slice)
        try:
            return await done
        finally:
            loop.remove_writer(connection)
    finally:
        os.close(connection)
