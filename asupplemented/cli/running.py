"""Running one command: an event loop, a session, signals, and how it ends.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 content that is not what was named,
130 after an interrupt and 143 after a request to terminate.

Who the command line is to registries: whoever is logged in on this machine.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import typer

from asupplemented.cli.console import Narrator
from asupplemented.cli.names import find_options
from asupplemented.errors import (
    AmbiguousManifestError,
    InvalidDigestError,
    InvalidReferenceError,
    MalformedManifestError,
    NotFoundError,
    SupplementedError,
    VerificationError,
)
from asupplemented.events import Warned
from asupplemented.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from pathlib import Path

    from asupplemented.abc import Context, CredentialProvider, Setting
    from asupplemented.cache.layout.layout_cache import LayoutCache
    from asupplemented.cli.options import GroupOptions, PlaceOptions
    from asupplemented.model.credential import Credential
    from asupplemented.supplemented import SupplementedReference, SupplementedSource

__all__ = ("FAILED", "NOT_FOUND", "USAGE", "WRONG_CONTENT", "Desk", "Login", "exit_code", "working")


class Login:
    """Looks up credentials where people log in. Nothing is read before a registry is asked.

    Args:
        authfile: The one file to read, None for those that programs usually read.
        warn: Told of what the operator should know.
    """

    def __init__(self, authfile: Path | None, warn: Callable[[str], None]) -> None:
        self._authfile = authfile
        self._warn = warn
        self._provider: CredentialProvider | None = None
        self.context: Context | None = None
        """The session that asks; its configuration names the helpers (rule FILE-12)."""

    async def __call__(self, name: str, /) -> Credential | None:
        if self._provider is None:
            self._provider = await self._prepare()
        return await self._provider(name)

    async def _prepare(self) -> CredentialProvider:
        from asupplemented.credentials import (
            AuthFileCredentials,
            default_auth_file,
        )
        from asupplemented.hostconfig import Registries
        from asupplemented.transports.registry.host_config import System

        registries = Registries()
        if self.context is not None:
            registries = await System.of(self.context).load_registries(self._warn)
        return AuthFileCredentials(
            self._authfile or default_auth_file(),
            helpers=registries.credential_helpers,
            docker=True,
            warn=self._warn,
        )


T = TypeVar("T")

FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
WRONG_CONTENT: Final = 4

_LOCAL: Final = ("oci:", "dir:")
"""How references begin for which no registry is asked."""

_WRONG: Final = (
    VerificationError,
    MalformedManifestError,
    AmbiguousManifestError,
    InvalidDigestError,  # Arguments were read before: this one is in a document.
)


def exit_code(error: BaseException) -> int:
    """The code that tells of an error."""
    if isinstance(error, NotFoundError):
        return NOT_FOUND
    if isinstance(error, InvalidReferenceError):
        return USAGE
    return WRONG_CONTENT if isinstance(error, _WRONG) else FAILED


@dataclass(frozen=True, slots=True)
class Desk:
    """Where a command does its work: a session as its options say, and who tells of it."""

    options: GroupOptions | PlaceOptions
    narrator: Narrator
    cache: LayoutCache | None = None

    def run(self, work: Callable[[Session], Coroutine[None, None, T]]) -> T:
        """Do something with a session, in an event loop of its own."""

        async def in_session() -> T:
            login = Login(self.options.authfile, self._warn)
            session = Session(
                lookahead=self.options.lookahead,
                tls_verify=self.options.tls_verify,
                credentials=login,
                hooks=(self.narrator,),
                settings=self._settings(),
                cache=self.cache,
            )
            login.context = session
            async with self.cache or nullcontext(), session:
                return await work(session)

        return asyncio.run(_run_until_terminated(in_session))

    def _settings(self) -> tuple[Setting, ...]:
        """What this machine says about registries, if one is to be asked."""
        if all(text.startswith(_LOCAL) for text in self.options.texts):
            return ()
        return (find_options(self.options),)

    def _warn(self, message: str) -> None:
        self.narrator(Warned("", message))

    def run_on(
        self,
        group: SupplementedReference,
        work: Callable[[SupplementedSource], Coroutine[None, None, T]],
    ) -> T:
        """Open a group and do something with it."""

        async def on_image(session: Session) -> T:
            async with group.open(session) as image:
                return await work(image)

        return self.run(on_image)


@contextmanager
def working(
    options: GroupOptions | PlaceOptions, cache: LayoutCache | None = None
) -> Generator[Desk]:
    """A desk to work at. Errors of the library end the program with words and a code.

    Args:
        options: As the command was given them.
        cache: What the session keeps blobs in, None for nothing.

    Raises:
        typer.Exit: The body failed, or the user ended it. What had to be said has been.
    """
    narrator = Narrator(verbose=options.verbose)
    with _ending_well(narrator):
        yield Desk(options, narrator, cache)


@contextmanager
def _ending_well(narrator: Narrator) -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt:
        narrator.complain("interrupted")
        raise typer.Exit(128 + signal.SIGINT) from None
    except _Terminated:
        narrator.complain("terminated")
        raise typer.Exit(128 + signal.SIGTERM) from None
    except SupplementedError as error:
        narrator.tell_error(error)
        raise typer.Exit(exit_code(error)) from None
    except ExceptionGroup as errors:
        if errors.split((SupplementedError, OSError))[1] is not None:
            raise  # A bug is shown as one.
        narrator.tell_error(errors)
        raise typer.Exit(FAILED) from None


class _Terminated(Exception):  # noqa: N818 - like KeyboardInterrupt, it is no error
    """Somebody asked the program to end."""


async def _run_until_terminated(work: Callable[[], Coroutine[None, None, T]]) -> T:
    """Await the work; a request to terminate cancels it, so that it can clean up."""
    with _terminating(asyncio.current_task()) as asked:
        try:
            return await work()
        except asyncio.CancelledError:
            if asked():
                raise _Terminated from None
            raise


@contextmanager
def _terminating(task: asyncio.Task[object] | None) -> Generator[Callable[[], bool]]:
    """Let SIGTERM cancel a task, once; a second one ends the process as it always does."""
    loop = asyncio.get_running_loop()
    asked = False

    def terminate() -> None:
        nonlocal asked
        asked = True
        loop.remove_signal_handler(signal.SIGTERM)
        if task is not None:
            task.cancel()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: asked
        return
    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        yield lambda: asked
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
