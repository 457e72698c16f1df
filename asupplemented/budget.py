"""What registries said of their request limits: one ledger for each session.

A registry limits the requests of an *account*, which is a registry and an identity. Its answers
say how many requests are left (rule RET-09), and a 429 says that none is. The ledger keeps the
newest word on each account. It counts nothing itself, for other programs use the same account.

A window begins when the number of requests that are left rises, or when nothing was known before.
The registry does not say when it ends, so the end is at most one window later.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.abc import ResourceKey
from asupplemented.aio.lru import LRU
from asupplemented.aio.retry import CLOCK, Clock

if TYPE_CHECKING:
    from asupplemented.abc import Context
    from asupplemented.model.credential import Credential

__all__ = ("LEDGER", "RESERVE", "Account", "Balance", "Ledger", "ledger_of")

RESERVE: Final = 0.1
"""The part of the limit that is kept for what nothing else can serve."""

REFUSED: Final = 60.0
"""Seconds for which a registry counts as exhausted after a 429 that names no time."""

MAX_ACCOUNTS: Final = 1024
"""Accounts that are remembered; the one that was used longest ago is dropped."""

_HOST: Final = re.compile(r"docker://([^/]+)/")


class Account(NamedTuple):
    """What a registry counts requests by."""

    registry: str
    """``host[:port]``."""
    owner: str
    """Stands for a user name or a token, "" for anonymous access. It reveals neither."""

    @classmethod
    def of(cls, registry: str, credential: Credential | None) -> Account:
        """The account of a credential. Its password is no part of it."""
        name = None
        if credential is not None:
            name = credential.username or credential.registry_token or credential.identity_token
        if name is None:
            return cls(registry, "")
        hashed = hashlib.sha256(name.encode("utf-8", "surrogatepass"))
        return cls(registry, hashed.hexdigest()[:32])


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left of the requests of an account. Times are seconds since the epoch."""

    limit: int | None
    """Requests in a window, None if the registry did not say."""
    remaining: int
    resets: float
    """When there are new requests, at the latest."""
    told: float
    """When the registry said so."""

    def is_low(self, reserve: float = RESERVE) -> bool:
        """Whether only the part of the limit is left that is kept back."""
        return self.remaining <= (self.limit or 0) * reserve

    def __str__(self) -> str:
        until = datetime.fromtimestamp(self.resets, UTC).strftime("%H:%M")
        of = "" if self.limit is None else f" of {self.limit}"
        return f"{self.remaining}{of} requests left until {until} UTC"


class Ledger:
    """The balances of a session.

    Args:
        clock: Where time comes from.
    """

    __slots__ = ("_accounts", "_balances", "_clock")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._balances = LRU[Account, Balance](MAX_ACCOUNTS)
        self._accounts = LRU[tuple[str | None, str], Account](MAX_ACCOUNTS)
        """The account that a principal used last at a registry."""

    def use(self, principal: str | None, account: Account) -> None:
        """Note that a principal uses an account."""
        self._accounts.put((principal, account.registry), account)

    def record(
        self, account: Account, *, limit: int | None, remaining: int | None, window: int | None
    ) -> None:
        """Record what a registry said; what it did not say stays as it was."""
        if remaining is None:
            return
        now = self._clock.wall()
        before = self.find(account)
        same = before is not None and remaining <= before.remaining
        resets = before.resets if before is not None and same else now + (window or REFUSED)
        limit = limit if limit is not None or before is None else before.limit
        self._balances.put(account, Balance(limit, remaining, resets, now))

    def record_refusal(self, account: Account, retry_after: float | None) -> None:
        """Record a 429."""
        now = self._clock.wall()
        before = self.find(account)
        if before is None:
            before = Balance(None, 0, now + REFUSED, now)
        resets = before.resets if retry_after is None else now + retry_after
        self._balances.put(account, replace(before, remaining=0, resets=resets, told=now))

    def merge(self, account: Account, balance: Balance) -> None:
        """Take over what another process was told, if that is newer."""
        own = self.find(account)
        if own is None or own.told < balance.told:
            self._balances.put(account, balance)

    def find(self, account: Account) -> Balance | None:
        """The balance of an account, None if nothing is known of its present window."""
        balance = self._balances.get(account)
        if balance is None or balance.resets <= self._clock.wall():
            return None
        return balance

    def balances(self) -> list[tuple[Account, Balance]]:
        """The accounts that are known, with what is left of their present window."""
        now = self._clock.wall()
        return [(account, each) for account, each in self._balances.items() if each.resets > now]

    def find_for(self, principal: str | None, reference: str) -> Balance | None:
        """The balance that counts when a principal reads a reference."""
        host = _HOST.match(reference)
        account = None if host is None else self._accounts.get((principal, host[1]))
        return None if account is None else self.find(account)

    def is_low(self, principal: str | None, reference: str) -> bool:
        """Whether few requests are left for a reference."""
        balance = self.find_for(principal, reference)
        return balance is not None and balance.is_low()


LEDGER: Final = ResourceKey["Ledger"]("ledger of request limits")
"""The ledger of a session."""


def ledger_of(context: Context) -> Ledger:
    """The ledger of a session, made on first use."""
    return context.resource(LEDGER, lambda: Ledger(context.resource(CLOCK, Clock)))
