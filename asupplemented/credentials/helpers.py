"""Credential helpers: programs that keep credentials (rules HELP-01 to HELP-03)."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import anyio.to_thread
import msgspec

from asupplemented.aio.concurrency import SingleFlightMap
from asupplemented.aio.lru import LRU
from asupplemented.aio.retry import Clock
from asupplemented.credentials.auth_json import (
    decode_secrets,
    make_credential,
)
from asupplemented.credentials.helper_process import Command, run
from asupplemented.errors import ConfigurationError, SourceError, SupplementedError, excerpt
from asupplemented.limits import MAX_HELPER_OUTPUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asupplemented.credentials.helper_process import Outcome
    from asupplemented.model.credential import Credential

__all__ = ("CredentialHelpers", "HelperLimits", "check_suffix", "parse_answer")

_SUFFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}", re.ASCII)
_SERVER: Final = re.compile(r"(?!-)[!-~]{1,512}", re.ASCII)

_NOTHING: Final = b"credentials not found in native keychain"
"""What a helper prints that has no credential."""
_TOKEN: Final = "<token>"  # noqa: S105 - a user name that says what the secret is


@dataclass(frozen=True, slots=True)
class HelperLimits:
    """Caps; each is the largest value that still passes.

    Attributes:
        seconds: That a helper may take.
        output: Bytes that it may print.
        fresh: Seconds that an answer is good for; also the answer that there is nothing.
        answers: That are remembered at the same time.
    """

    seconds: float = 30.0
    output: int = MAX_HELPER_OUTPUT
    fresh: float = 300.0
    answers: int = 256


class _Answer(msgspec.Struct, frozen=True, rename={"username": "Username", "secret": "Secret"}):
    username: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return "<answer of a helper>"


class _Question(NamedTuple):
    suffix: str
    server: str


class _Known(NamedTuple):
    credential: Credential | None
    expires: float


class CredentialHelpers:
    """Asks credential helpers, and remembers for a while what they said.

    Those who want to know the same at the same time wait for one answer. Failures are not
    remembered. It holds nothing that must be closed, and serves one event loop at a time.

    Args:
        environ: The environment in which programs are looked for and run; None for that of this
            process.
        limits: How much to bear.
        clock: Where time comes from.
    """

    def __init__(
        self,
        *,
        environ: Mapping[str, str] | None = None,
        limits: HelperLimits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._environ = environ
        self._limits = limits or HelperLimits()
        self._clock = clock or Clock()
        self._known = LRU[_Question, _Known](self._limits.answers)
        self._flights = SingleFlightMap[_Question, "Credential | None"]()

    async def get(self, suffix: str, server: str) -> Credential | None:
        """Ask ``docker-credential-SUFFIX`` for the credential of a server.

        Args:
            suffix: Which helper.
            server: Usually ``host[:port]``; never a namespace.

        Returns:
            None if the helper says that it has none.

        Raises:
            ConfigurationError: No such helper can be run, or its answer cannot be understood.
            SourceError: It failed. What it printed is not shown.
            SourceTimeoutError: It took too long.
            LimitExceededError: It printed too much.
        """
        question = _Question(check_suffix(suffix), _check_server(server))
        known = self._known.get(question)
        if known is not None and self._clock.now() < known.expires:
            return known.credential
        return await self._flights.run(question, partial(self._ask, question))

    async def _ask(self, question: _Question) -> Credential | None:
        program = await self._locate(question)
        command = Command(program, "get", question.server.encode("ascii"), self._environ)
        limits = self._limits
        try:
            outcome = await run(
                command, longest=limits.seconds, limit=limits.output, sleep=self._clock.sleep
            )
        except SupplementedError as error:
            error.add_note(f"it was asked for the credential of {question.server}")
            raise
        except OSError as error:
            reason = error.strerror or type(error).__name__
            message = f"{program} cannot be run: {reason}; repair it, or what names it as a helper"
            raise ConfigurationError(message) from error
        credential = parse_answer(outcome, command.name, question.server)
        self._keep(question, credential)
        return credential

    async def _locate(self, question: _Question) -> str:
        """Find a program on PATH, but not in whatever directory happens to be the current one."""
        environ = os.environ if self._environ is None else self._environ
        places = environ.get("PATH", os.defpath).split(os.pathsep)
        path = os.pathsep.join([place for place in places if os.path.isabs(place)])  # noqa: PTH117
        name = f"docker-credential-{question.suffix}"
        look = partial(shutil.which, name, path=path)
        found = await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
        if found is None:
            message = (
                f"there is no program {name} on PATH, which keeps the credential of"
                f" {question.server}; install it, or remove what names it as a helper"
            )
            raise ConfigurationError(message)
        return found

    def _keep(self, question: _Question, credential: Credential | None) -> None:
        expires = self._clock.now() + self._limits.fresh
        self._known.put(question, _Known(credential, expires))

    def __repr__(self) -> str:
        return f"<helpers, {len(self._known)} answers kept, {len(self._flights)} asked>"


def check_suffix(suffix: str) -> str:
    """Check what names a helper (rule SEC-12): it becomes part of the name of a program.

    Returns:
        The same.

    Raises:
        ConfigurationError: It is empty or too long, or has characters that no helper's name has.
    """
    if _SUFFIX.fullmatch(suffix) is None:
        message = (
            f"{excerpt(suffix)} names no credential helper: for docker-credential-NAME give NAME,"
            " which has letters, digits, '_', '.' and '-' only"
        )
        raise ConfigurationError(message)
    return suffix


def parse_answer(outcome: Outcome, program: str, server: str) -> Credential | None:
    """What a helper said (rule HELP-02).

    Args:
        outcome: How it ended.
        program: Its name, for errors.
        server: What it was asked for, for errors.

    Returns:
        None if it has no credential.

    Raises:
        ConfigurationError: Its answer cannot be understood.
        SourceError: It failed.
    """
    if outcome.status:
        if outcome.output.strip() == _NOTHING:
            return None
        raise _failure(outcome, program, server)
    what = f"the answer of {program} for {server}"
    answer = decode_secrets(outcome.output, _Answer, what, trailing=True)
    try:
        if answer.username == _TOKEN:
            return make_credential("", "", identity_token=answer.secret)
        return make_credential(answer.username, answer.secret)
    except ConfigurationError as error:
        message = f"{what} cannot be used: {error.message}"
        raise ConfigurationError(message) from None


def _failure(outcome: Outcome, program: str, server: str) -> SourceError:
    status = outcome.status
    how = f"exited with status {status}" if status > 0 else f"was ended by signal {-status}"
    message = (
        f"{program} {how} when it was asked for the credential of {server}; run it by hand to see"
        f" why: {program} get, with {server} on its stdin"
    )
    return SourceError(message)


def _check_server(server: str) -> str:
    if _SERVER.fullmatch(server) is None:
        message = f"no credential helper is asked for {excerpt(server)}, which is no name of a host"
        raise ConfigurationError(message)
    return server
