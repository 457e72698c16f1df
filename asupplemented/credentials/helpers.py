"""Credential helpers: ``docker-credential-*`` programs (rules HELP-01 to HELP-03)."""

from __future__ import annotations

import json
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
"""What a helper prints if it has no credential."""
_MAX_STDIN: Final = 4096
"""Bytes of input, which any pipe holds."""
_TOKEN: Final = "<token>"  # noqa: S105 - the user name that marks an identity token


@dataclass(frozen=True, slots=True)
class HelperLimits:
    """Limits of helpers; each is the largest value that is allowed.

    Attributes:
        timeout: Seconds that a helper may take.
        max_output: Bytes that a helper may print.
        ttl: Seconds that an answer is cached, also the answer that there is no credential.
        max_answers: Answers that are cached at the same time.
    """

    timeout: float = 30.0
    max_output: int = MAX_HELPER_OUTPUT
    ttl: float = 300.0
    max_answers: int = 256


class _Answer(msgspec.Struct, frozen=True, rename={"username": "Username", "secret": "Secret"}):
    username: str = ""
    secret: str = ""

    def __repr__(self) -> str:
        return "<answer of a helper>"


class _Key(NamedTuple):
    suffix: str
    server: str


class _CachedAnswer(NamedTuple):
    credential: Credential | None
    expires: float


class CredentialHelpers:
    """Asks credential helpers, and caches their answers.

    Concurrent lookups of the same credential share one run of the helper. Failures are not
    cached. There is nothing to close. One event loop at a time may use it.

    Args:
        environ: The environment of the helpers, whose ``PATH`` is searched; None for that of
            this process.
        limits: Limits of time, output and cache.
        clock: Gives the time.
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
        self._answers = LRU[_Key, _CachedAnswer](self._limits.max_answers)
        self._flights = SingleFlightMap[_Key, "Credential | None"]()

    async def get(self, suffix: str, server: str) -> Credential | None:
        """Ask ``docker-credential-SUFFIX`` for the credential of a server.

        Args:
            suffix: The name of the helper.
            server: Usually ``host[:port]``; never a namespace.

        Returns:
            None if the helper has no credential.

        Raises:
            ConfigurationError: The helper cannot be run, or its answer is malformed.
            SourceError: The helper failed. Its output is not shown.
            SourceTimeoutError: The helper took too long.
            LimitExceededError: The helper printed too much.
        """
        key = _Key(check_suffix(suffix), _check_server(server))
        known = self._answers.get(key)
        if known is not None and self._clock.now() < known.expires:
            return known.credential
        return await self._flights.run(key, partial(self._ask, key))

    async def store(self, suffix: str, server: str, credential: Credential) -> None:
        """Have ``docker-credential-SUFFIX`` store a user name and password.

        Args:
            suffix: The name of the helper.
            server: See `get`.
            credential: What to store.

        Raises:
            ConfigurationError: The helper cannot be run, or it takes no secret of this length.
            SourceError: The helper failed. Its output is not shown.
        """
        key = _Key(check_suffix(suffix), _check_server(server))
        username, password = credential.pair or ("", "")
        entry = {"ServerURL": server, "Username": username, "Secret": password}
        await self._change(key, "store", json.dumps(entry).encode("ascii"))

    async def erase(self, suffix: str, server: str) -> None:
        """Have ``docker-credential-SUFFIX`` remove the credential of a server.

        Raises:
            ConfigurationError: The helper cannot be run.
            SourceError: The helper failed. Its output is not shown.
        """
        key = _Key(check_suffix(suffix), _check_server(server))
        await self._change(key, "erase", server.encode("ascii"))

    async def _change(self, key: _Key, verb: str, stdin: bytes) -> None:
        if len(stdin) > _MAX_STDIN:
            message = f"the credential of {key.server} is longer than {_MAX_STDIN} bytes"
            raise ConfigurationError(message)
        program = await self._find_program(key)
        outcome = await self._run(Command(program, verb, stdin, self._environ))
        self._answers.pop(key)
        if outcome.status:
            message = (
                f"docker-credential-{key.suffix} {verb} exited with status {outcome.status} for "
                f"{key.server}; run it by hand to see why"
            )
            raise SourceError(message)

    async def _ask(self, key: _Key) -> Credential | None:
        program = await self._find_program(key)
        command = Command(program, "get", key.server.encode("ascii"), self._environ)
        try:
            outcome = await self._run(command)
        except SupplementedError as error:
            error.add_note(f"the helper was asked for the credential of {key.server}")
            raise
        credential = parse_answer(outcome, command.name, key.server)
        self._remember(key, credential)
        return credential

    async def _run(self, command: Command) -> Outcome:
        try:
            return await run(
                command,
                seconds=self._limits.timeout,
                limit=self._limits.max_output,
                sleep=self._clock.sleep,
            )
        except OSError as error:
            if isinstance(error, SupplementedError):
                raise
            reason = error.strerror or type(error).__name__
            message = (
                f"cannot run {command.program}: {reason}; repair it, or the setting that names it"
            )
            raise ConfigurationError(message) from error

    async def _find_program(self, key: _Key) -> str:
        """Find the program of a helper on PATH, but never in a relative directory of it."""
        environ = os.environ if self._environ is None else self._environ
        places = environ.get("PATH", os.defpath).split(os.pathsep)
        path = os.pathsep.join([place for place in places if os.path.isabs(place)])  # noqa: PTH117
        name = f"docker-credential-{key.suffix}"
        look = partial(shutil.which, name, path=path)
        found = await anyio.to_thread.run_sync(look, abandon_on_cancel=True)
        if found is None:
            message = (
                f"there is no program {name} on PATH, the credential helper for {key.server};"
                f" install it, or remove the setting that names it"
            )
            raise ConfigurationError(message)
        return found

    def _remember(self, key: _Key, credential: Credential | None) -> None:
        expires = self._clock.now() + self._limits.ttl
        self._answers.put(key, _CachedAnswer(credential, expires))

    def __repr__(self) -> str:
        return f"<CredentialHelpers with {len(self._answers)} cached answers>"


def check_suffix(suffix: str) -> str:
    """Check the name of a helper (rule SEC-12): it becomes part of the name of a program.

    Returns:
        The same name.

    Raises:
        ConfigurationError: It is empty or too long, or has other characters than letters,
            digits, ``_``, ``.`` and ``-``.
    """
    if _SUFFIX.fullmatch(suffix) is None:
        message = (
            f"{excerpt(suffix)} is not the name of a credential helper: for docker-credential-NAME"
            " give NAME, which has letters, digits, '_', '.' and '-' only"
        )
        raise ConfigurationError(message)
    return suffix


def parse_answer(outcome: Outcome, program: str, server: str) -> Credential | None:
    """Parse the answer of a helper (rule HELP-02).

    Args:
        outcome: The exit status and the output.
        program: The name of the helper, for errors.
        server: The registry that it was asked for, for errors.

    Returns:
        None if the helper has no credential.

    Raises:
        ConfigurationError: The answer is malformed.
        SourceError: The helper failed.
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
    how = f"exited with status {status}" if status > 0 else f"was killed by signal {-status}"
    message = (
        f"{program} {how} when it was asked for the credential of {server}; to see why, run"
        f" {program} get with {server} on its stdin"
    )
    return SourceError(message)


def _check_server(server: str) -> str:
    if _SERVER.fullmatch(server) is None:
        message = f"no credential helper can be asked for {excerpt(server)}: it is not a host"
        raise ConfigurationError(message)
    return server
