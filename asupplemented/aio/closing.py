"""Closing resources on every path out.

Cancellation must not stop a clean-up half way. So all resources are closed first, within a time
limit, and the cancellation is raised after that.
"""

from __future__ import annotations

from asyncio import CancelledError, current_task
from typing import TYPE_CHECKING, Final

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asupplemented.abc import AsyncResource

__all__ = ("CLOSE_TIMEOUT", "close_all", "closing_on_error")

CLOSE_TIMEOUT: Final = 10.0
"""Seconds that a clean-up may take in all."""


async def close_all(resources: Iterable[AsyncResource], what: str) -> None:
    """Close every resource in order, also when some fail or the caller is cancelled.

    Args:
        resources: What to close.
        what: What they are, for the message of the group.

    Raises:
        ExceptionGroup: Those that failed to close; one failure leaves as a group of one.
        CancelledError: The caller was cancelled meanwhile; everything was closed first.
    """
    failures: list[Exception] = []
    cancelled: CancelledError | None = None
    with anyio.move_on_after(CLOSE_TIMEOUT, shield=True) as scope:
        for resource in resources:
            try:
                await resource.aclose()
            except CancelledError as error:
                cancelled = error
            except Exception as error:  # noqa: BLE001 - the rest is closed whatever this one did
                failures.append(error)
    if scope.cancel_called:
        failures.append(TimeoutError(f"not done within {CLOSE_TIMEOUT} s"))
    task = current_task()
    # Our own time limit arrives as a cancellation too; it is a failure, not the caller's wish.
    if cancelled is not None and (not scope.cancel_called or (task and task.cancelling())):
        raise cancelled
    if failures:
        message = f"closing {what}"
        raise ExceptionGroup(message, failures)


class closing_on_error:  # noqa: N801 - it is used as a function
    """Close resources if the body fails or is cancelled; the error of the body prevails.

    Only a cancellation while closing is raised instead: the canceller waits for it.
    A class and no generator, for it is entered several times for each blob.

    Args:
        resources: Gives what is open at the time of the failure.
        what: What they are, for the notes on the error.
    """

    __slots__ = ("_resources", "_what")

    def __init__(self, resources: Callable[[], Iterable[AsyncResource]], what: str) -> None:
        self._resources = resources
        self._what = what

    async def __aenter__(self) -> None:
        """There is nothing to prepare."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if error is None:
            return
        try:
            await close_all(self._resources(), self._what)
        except ExceptionGroup as group:
            for failure in group.exceptions:
                error.add_note(f"{group.message} failed as well: {failure}")
        except CancelledError as cancelled:
            if isinstance(error, Exception):
                raise cancelled from error
            error.add_note(f"cancelled again while closing {self._what}")
