"""Closing resources on every path out.

Cancellation must not stop a clean-up half way. So all resources are closed first, within a time
limit, and the cancellation is raised after that.
"""

from __future__ import annotations

from asyncio import CancelledError, current_task
from itertools import chain
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

    Resources with a method ``close_at_once`` are closed by it. It closes without waiting and
    returns True, or changes nothing and returns False. Those of most blobs have one, and need no
    shield and no time limit.

    Args:
        resources: What to close.
        what: What they are, for the message of the group.

    Raises:
        ExceptionGroup: Those that failed to close; one failure leaves as a group of one.
        CancelledError: The caller was cancelled meanwhile; everything was closed first.
    """
    failures: list[Exception] = []
    # A resource is taken once those before it are closed, because it may serve them until then.
    left = iter(resources)
    for resource in left:
        close: Callable[[], bool] | None = getattr(resource, "close_at_once", None)
        try:
            closed = close is not None and close()
        except Exception as error:  # noqa: BLE001 - the rest is closed whatever this one did
            failures.append(error)
            continue
        if not closed:
            await _close_slowly(chain((resource,), left), failures)
            break
    if failures:
        message = f"closing {what}"
        raise ExceptionGroup(message, failures)


async def _close_slowly(resources: Iterable[AsyncResource], failures: list[Exception]) -> None:
    """Close resources that wait, shielded and within a time limit."""
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
