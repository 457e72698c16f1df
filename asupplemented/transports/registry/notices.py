"""Warning and RateLimit headers of registries: events, and the ledger (rules ERR-10, RET-09)."""

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

    from asupplemented.budget import Account, Ledger
    from asupplemented.transports.registry.redaction import Secrets
    from asupplemented.transports.registry.request import RequestContext

__all__ = ("Allowance", "HeaderNotices", "parse_allowance")

MAX_WARNINGS: Final = 64
"""Distinct warnings that are emitted; further ones are dropped (rule ERR-10)."""

_LIMIT: Final = istr("RateLimit-Limit")
_REMAINING: Final = istr("RateLimit-Remaining")
_ALLOWANCE: Final = re.compile(r"([0-9]{1,15})(?:;w=([0-9]{1,15}))?")


class Allowance(NamedTuple):
    """A number of requests, and the seconds that it applies to; None if unknown."""

    requests: int
    window: int | None


class HeaderNotices:
    """Emits each warning and each change of the rate limit once, and records the limit.

    Args:
        account: Whose limit it is.
        ledger: Where it is recorded.
        secrets: What must not be repeated in events.
    """

    __slots__ = ("_account", "_allowances", "_ledger", "_registry", "_secrets", "_warnings")

    def __init__(self, account: Account, ledger: Ledger, secrets: Secrets) -> None:
        self._account = account
        self._ledger = ledger
        self._registry = account.registry
        self._secrets = secrets
        self._warnings: set[str] = set()
        self._allowances: tuple[Allowance | None, Allowance | None] = (None, None)

    def read(self, headers: CIMultiDictProxy[str], request_context: RequestContext) -> None:
        """Emit events for the headers of a response."""
        if hdrs.WARNING in headers:
            self._emit_warnings(headers.getall(hdrs.WARNING), request_context)
        if _REMAINING in headers or _LIMIT in headers:
            self._emit_rate_limit(headers, request_context)

    def _emit_warnings(self, values: Sequence[str], request_context: RequestContext) -> None:
        """Emit the warnings of a registry, each text once (rule ERR-10)."""
        for value in values:
            text = parse_warning(value)
            if text is None or text in self._warnings or len(self._warnings) >= MAX_WARNINGS:
                continue
            self._warnings.add(text)
            request_context.warn(f"{self._registry} warns: {self._secrets.censor(text)}")

    def _emit_rate_limit(
        self, headers: CIMultiDictProxy[str], request_context: RequestContext
    ) -> None:
        """Emit the rate limit, if it has changed (rule RET-09)."""
        limit = parse_allowance(headers.getall(_LIMIT, ()))
        remaining = parse_allowance(headers.getall(_REMAINING, ()))
        window = next((each.window for each in (remaining, limit) if each and each.window), None)
        self._ledger.record(
            self._account,
            limit=limit and limit.requests,
            remaining=remaining and remaining.requests,
            window=window,
        )
        if (limit, remaining) in {self._allowances, (None, None)}:
            return
        self._allowances = (limit, remaining)
        request_context.emit(
            RateLimitTold(
                request_context.reference,
                self._registry,
                limit=limit and limit.requests,
                remaining=remaining and remaining.requests,
                window=window,
            )
        )


def parse_allowance(values: Sequence[str]) -> Allowance | None:
    """Parse a header, ``76;w=21600``; None if it is absent, repeated, or malformed."""
    match = _ALLOWANCE.fullmatch(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    requests, window = match.groups()
    return Allowance(int(requests), None if window is None else int(window))
