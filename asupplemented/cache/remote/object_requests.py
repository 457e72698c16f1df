"""Requests to object storage: bounded in time, and their errors made ours.

What storage says when it fails may hold keys, signed URLs and whole answers. So nothing of it
is repeated or chained: an error tells the kind of failure, and the status if there was one.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final, TypeVar

from asupplemented.errors import (
    AccessError,
    BlobNotFoundError,
    NetworkError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ("ask",)

T = TypeVar("T")

_STATUS: Final = re.compile(r"\bstatus code: (\d{3})\b")
_REFUSED: Final = frozenset({"PermissionDeniedError", "UnauthenticatedError"})
_LOOKED_AT: Final = 4096
"""Characters of an error that are searched for a status."""


async def ask(request: Awaitable[T], seconds: float | None) -> T:
    """Wait for the answer to a request.

    Args:
        request: What obstore does.
        seconds: How long to wait; None leaves that to the caller.

    Raises:
        BlobNotFoundError: There is no such object.
        AccessError: The credentials are missing, or do not allow it.
        SourceTimeoutError: There was no answer in time.
        SourceError: Storage failed.
    """
    failure: SupplementedError
    try:
        async with asyncio.timeout(seconds):
            return await request
    except SupplementedError:
        raise
    except FileNotFoundError:
        failure = BlobNotFoundError("object storage has no such object, or no such bucket")
    except TimeoutError:
        failure = SourceTimeoutError(_tell_time(seconds))
    except Exception as error:  # noqa: BLE001 - each store of obstore raises what it likes
        failure = _map(error)
    raise failure  # Here, because an error that is raised while another is handled keeps it.


def _tell_time(seconds: float | None) -> str:
    within = "in time" if seconds is None else f"within {seconds:g} s"
    return f"object storage did not answer {within}"


def _map(error: Exception) -> SourceError:
    kind = type(error).__name__
    if kind in _REFUSED or isinstance(error, PermissionError):
        return AccessError(f"object storage refused access ({kind}); check its credentials")
    if (found := _STATUS.search(str(error)[:_LOOKED_AT])) is not None:
        return SourceError(f"object storage answered with status {found[1]}")
    return NetworkError(f"object storage could not be asked ({kind})")
