"""Run one command: an event loop, a session with the credentials of this host, exit codes.

Exit codes: 0 success, 1 failure, 2 wrong usage, 3 not found, 4 content that does not match its
digest or is malformed, 5 credentials that are missing or refused, 130 after SIGINT and 143 after
SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar

import click

from asupplemented.cli.console import ConsoleReporter
from asupplemented.cli.digests import DigestPrefix, complete_instances
from asupplemented.cli.options import parse_creds
from asupplemented.cli.wording import in_options
from asupplemented.errors import (
    AmbiguousManifestError,
    ImageNotFoundError,
    InvalidDigestError,
    InvalidReferenceError,
    MalformedManifestError,
    ManifestNotFoundError,
    NotFoundError,
    SupplementedError,
    UnauthorizedError,
    VerificationError,
)
from asupplemented.events import Warned
from asupplemented.model.index import SpecificImages
from asupplemented.session import Session
from asupplemented.supplemented.lookahead import is_unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Mapping

    from asupplemented.abc import Setting
    from asupplemented.abc.context import Hook
    from asupplemented.cache.layout.layout_cache import LayoutCache
    from asupplemented.cli.options import GroupOptions, ReferenceOptions
    from asupplemented.model.credential import Credential
    from asupplemented.supplemented import SupplementedReference
    from asupplemented.transports.registry.host_config import HostCredentials

__all__ = (
    "FAILED",
    "NOT_FOUND",
    "UNAUTHORIZED",
    "USAGE",
    "WRONG_CONTENT",
    "CommandRunner",
    "call",
    "exit_code",
    "reporting_errors",
    "running",
)


T = TypeVar("T")

FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
WRONG_CONTENT: Final = 4
UNAUTHORIZED: Final = 5

_LOCAL: Final = ("oci:", "dir:")
"""Prefixes of references that are read without a registry."""

_WRONG_CONTENT_ERRORS: Final = (
    VerificationError,
    MalformedManifestError,
    AmbiguousManifestError,
    InvalidDigestError,  # Arguments were parsed before, so this digest is in a document.
)


def exit_code(error: BaseException) -> int:
    """The exit code for an error."""
    if isinstance(error, NotFoundError):
        return NOT_FOUND
    if isinstance(error, InvalidReferenceError):
        return USAGE
    if isinstance(error, UnauthorizedError):
        return UNAUTHORIZED
    return WRONG_CONTENT if isinstance(error, _WRONG_CONTENT_ERRORS) else FAILED


@dataclass(frozen=True, slots=True)
class CommandRunner:
    """Runs the coroutines of one command in a session that its options describe."""

    options: GroupOptions | ReferenceOptions
    reporter: ConsoleReporter
    cache: LayoutCache | None = None
    creds: Mapping[str, Credential] = field(default_factory=dict[str, "Credential"])
    """Credentials by registry, which come before those of the host."""
    hooks: tuple[Hook, ...] = ()
    """Hooks of the session, besides the reporter."""

    def run(self, work: Callable[[Session], Coroutine[None, None, T]]) -> T:
        """Run `work` with a session, in a new event loop."""

        async def in_session() -> T:
            host, settings = self._registry_access()

            async def find_credential(name: str) -> Credential | None:
                given = self.creds.get(name.partition("/")[0])
                return given or (None if host is None else await host(name))

            session = Session(
                lookahead=self.options.lookahead,
                tls_verify=self.options.tls_verify,
                timeouts=self.options.timeouts,
                credentials=None if host is None else find_credential,
                hooks=(self.reporter, *self.hooks),
                settings=settings,
                cache=self.cache,
            )
            if host is not None:
                host.context = session
            async with self.cache or nullcontext(), session:
                return await work(session)

        return asyncio.run(_run_until_terminated(in_session))

    def complete(self, group: SupplementedReference) -> SupplementedReference:
        """A group with the instances that its options abbreviate, for which its lists are read."""
        wanted = self.options.parse_instances()
        if not any(isinstance(each, DigestPrefix) for each in wanted):
            return group
        runner = replace(self, cache=None)
        found = runner.run(lambda session: complete_instances(group, wanted, session))
        return group.with_options(selection=SpecificImages(found))

    def _registry_access(self) -> tuple[HostCredentials | None, tuple[Setting, ...]]:
        """Credentials and configuration of this host, if a registry is asked."""
        if all(text.startswith(_LOCAL) for text in self.options.texts):
            return None, ()
        from asupplemented.transports.registry.host_config import (
            HostCredentials,
            make_registry_options,
        )

        credentials = HostCredentials(self.options.authfile, self._warn)
        return credentials, (make_registry_options(self.options),)

    def _warn(self, message: str) -> None:
        self.reporter(Warned("", message))


def call(work: Callable[[Session], Coroutine[None, None, T]], session: Session | None = None) -> T:
    """Run `work` in a new event loop, with a session or with one that has the defaults."""

    async def in_session() -> T:
        async with session or Session() as opened:
            return await work(opened)

    return asyncio.run(_run_until_terminated(in_session))


@contextmanager
def running(
    options: GroupOptions | ReferenceOptions,
    cache: LayoutCache | None = None,
    hooks: tuple[Hook, ...] = (),
) -> Generator[CommandRunner]:
    """Give the body a `CommandRunner`, and turn its errors into messages and exit codes.

    Args:
        options: The arguments of the command.
        cache: Where the session caches blobs; None for no cache.
        hooks: Hooks of the session, besides those that report.

    Raises:
        click.exceptions.Exit: The body failed or a signal ended it. The error is already on stderr.
    """
    if options.authfile is not None and not options.authfile.exists():
        message = f"there is no file {options.authfile}; asupplemented login writes one"
        raise click.BadParameter(message, param_hint="--authfile")
    reporter = ConsoleReporter(verbose=options.verbose, quiet=options.quiet)
    creds = parse_creds(options)
    with reporting_errors(reporter), in_options(), _telling_of_options(options):
        yield CommandRunner(options, reporter, cache, creds, hooks)


@contextmanager
def _telling_of_options(options: GroupOptions | ReferenceOptions) -> Generator[None]:
    """Add a note to an error that an option of the command can avoid."""
    try:
        yield
    except SupplementedError as error:
        for hint in _hints(error, options):
            error.add_note(hint)
        raise


def _hints(error: SupplementedError, options: GroupOptions | ReferenceOptions) -> tuple[str, ...]:
    """The options that avoid an error."""
    if isinstance(error, UnauthorizedError):
        if options.creds is not None:
            return ("check the user and the password of --creds",)
        registry = str(error.reference or "").removeprefix("docker://").partition("/")[0]
        return (f"log in with asupplemented login {registry}, or give --creds USER:PASSWORD",)
    if error.member and error.digest is None and is_unavailable(error):
        return options.hints_for_unavailable()
    lacking = isinstance(error, ManifestNotFoundError) and error.member is not None
    if lacking and not isinstance(error, ImageNotFoundError):
        return options.hints_for_missing()
    return ()


@contextmanager
def reporting_errors(reporter: ConsoleReporter) -> Generator[None]:
    """Turn errors of the body into messages and exit codes.

    Args:
        reporter: Writes the messages.

    Raises:
        click.exceptions.Exit: The body failed or a signal ended it.
    """
    try:
        yield
    except KeyboardInterrupt:
        reporter.error("interrupted")
        raise click.exceptions.Exit(128 + signal.SIGINT) from None
    except _Terminated:
        reporter.error("terminated")
        raise click.exceptions.Exit(128 + signal.SIGTERM) from None
    except SupplementedError as error:
        reporter.exception(error)
        raise click.exceptions.Exit(exit_code(error)) from None
    except ExceptionGroup as errors:
        if errors.split((SupplementedError, OSError))[1] is not None:
            raise  # A bug: show its traceback.
        reporter.exception(errors)
        raise click.exceptions.Exit(FAILED) from None


class _Terminated(Exception):  # noqa: N818 - like KeyboardInterrupt, it is no error
    """The process received SIGTERM."""


async def _run_until_terminated(work: Callable[[], Coroutine[None, None, T]]) -> T:
    """Await the work. SIGTERM cancels it, so that it can clean up."""
    with _cancelling_on_sigterm(asyncio.current_task()) as received:
        try:
            return await work()
        except asyncio.CancelledError:
            if received():
                raise _Terminated from None
            raise


@contextmanager
def _cancelling_on_sigterm(task: asyncio.Task[object] | None) -> Generator[Callable[[], bool]]:
    """Let the first SIGTERM cancel a task; a second one ends the process.

    Yields:
        Whether SIGTERM was received.
    """
    loop = asyncio.get_running_loop()
    received = False

    def terminate() -> None:
        nonlocal received
        received = True
        loop.remove_signal_handler(signal.SIGTERM)
        if task is not None:
            task.cancel()

    if threading.current_thread() is not threading.main_thread():
        yield lambda: received
        return
    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        yield lambda: received
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
