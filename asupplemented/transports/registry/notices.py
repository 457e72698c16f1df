"""What a registry says beside its answers, for people and for meters (rules ERR-10, RET-09)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import hdrs
from multidict import istr

from asupplemented.events import RateLimitTold
from asupplemented.transports.registry.error_response import parse_warning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from multidict import CIMultiDictProxy

    from asupplemented.transports.registry.request import Caller

__all__ = ("Allowance", "Notices", "parse_allowance")

MAX_WARNINGS: Final = 64
"""Distinct warnings that are passed on; the rest is dropped (rule ERR-10)."""

_LIMIT: Final = istr("RateLimit-Limit")
_REMAINING: Final = istr("RateLimit-Remaining")
_ALLOWANCE: Final = re.compile(r"([0-9]{1,15})(?:;w=([0-9]{1,15}))?")


class Allowance(NamedTuple):
    """A number of requests, and the seconds that it is for; None if they are not said."""

    requests: int
    window: int | None


class Notices:
    """Passes on what is new, and decides nothing on it.

    Args:
        registry: Who says it, for messages and events.
    """

    __slots__ = ("_allowances", "_registry", "_warnings")

    def __init__(self, registry: str) -> None:
        self._registry = registry
        self._warnings: set[str] = set()
        self._allowances: tuple[Allowance | None, Allowance | None] = (None, None)

    def read(self, headers: CIMultiDictProxy[str], caller: Caller) -> None:
        """Take note of what the head of an answer says."""
        if hdrs.WARNING in headers:
            self._pass_on(headers.getall(hdrs.WARNING), caller)
        if _REMAINING in headers or _LIMIT in headers:
            self._meter(headers, caller)

    def _pass_on(self, values: Sequence[str], caller: Caller) -> None:
        """Pass a registry's warnings on, each text once (rule ERR-10)."""
        for value in values:
            text = parse_warning(value)
            if text is None or text in self._warnings or len(self._warnings) >= MAX_WARNINGS:
                continue
            self._warnings.add(text)
            caller.warn(f"{self._registry} warns: {text}")

    def _meter(self, headers: CIMultiDictProxy[str], caller: Caller) -> None:
        """Tell what is left of a rate limit, if it is not what was told last (rule RET-09)."""
        limit = parse_allowance(headers.getall(_LIMIT, ()))
        remaining = parse_allowance(headers.getall(_REMAINING, ()))
        if (limit, remaining) in {self._allowances, (None, None)}:
            return
        self._allowances = (limit, remaining)
        window = next((each.window for each in (remaining, limit) if each and each.window), None)
        caller.emit(
            RateLimitTold(
                caller.reference,
                self._registry,
                limit=limit and limit.requests,
                remaining=remaining and remaining.requests,
                window=window,
            )
        )


def parse_allowance(values: Sequence[str]) -> Allowance | None:
    """What one field says, ``76;w=21600``; None if there are none, several, or another form."""
    match = _ALLOWANCE.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    requests, window = match.groups()
    return Allowance(int(requests), None if window is None else int(window))
