"""Remedies: the settings that errors advise, worded for the reader.

A message names the setting that lifts a refusal. A program sets a parameter, and a user of the
command line gives an option, so the message asks for the words when it is made: `advise` takes
the parameter, unless the program has replaced the words with `wording`.

Rules for messages: advise a setting only where it would change the outcome, and never one that is
set already.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = (
    "ALLOW_IPV6",
    "CACHE",
    "EXTERNAL_URLS",
    "MIN_RATE",
    "OPEN_TIMEOUT",
    "PRIVATE_TARGETS",
    "STALL_TIMEOUT",
    "TLS_VERIFY",
    "TOKEN_SERVERS",
    "TRANSPORT",
    "Remedy",
    "advise",
    "wording",
)


class Remedy(NamedTuple):
    """One setting.

    Attributes:
        parameter: How a program sets it, a template for `str.format`.
    """

    parameter: str


TLS_VERIFY: Final = Remedy("Session(tls_verify=False)")
TOKEN_SERVERS: Final = Remedy("RegistryOptions(token_servers={{{registry!r}: [{origin!r}]}})")
PRIVATE_TARGETS: Final = Remedy("RegistryOptions(private_targets=True)")
EXTERNAL_URLS: Final = Remedy("RegistryOptions(allow_external_urls=True)")
ALLOW_IPV6: Final = Remedy("parse_reference(..., allow_ipv6=True)")
OPEN_TIMEOUT: Final = Remedy("Timeouts(open=...)")
STALL_TIMEOUT: Final = Remedy("Timeouts(stall=...)")
MIN_RATE: Final = Remedy("Timeouts(min_rate=...)")
CACHE: Final = Remedy("Session(cache=...)")
TRANSPORT: Final = Remedy("register_transport(scheme=..., factory=...)")

_words: ContextVar[Callable[[Remedy], str | None]] = ContextVar(
    "words", default=lambda remedy: remedy.parameter
)


def advise(text: str, remedy: Remedy, **values: str) -> str:
    """The end of a message that advises a setting.

    Args:
        text: The advice, with ``{}`` for the setting.
        remedy: The setting.
        **values: The values of its template.

    Returns:
        ``; `` and the advice; nothing if the reader has no such setting.
    """
    template = _words.get()(remedy)
    return "" if template is None else f"; {text.format(template.format(**values))}"


@contextmanager
def wording(words: Callable[[Remedy], str | None]) -> Generator[None]:
    """Word the remedies of messages that are made in the body, and in tasks that begin there.

    Args:
        words: Gives the template of a remedy, or None if the reader has no such setting.
    """
    token = _words.set(words)
    try:
        yield
    finally:
        _words.reset(token)
