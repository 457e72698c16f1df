"""How a catalog spends the requests that a registry allows (rule RET-09).

The ledger of the session (`asupplemented.budget`) says what is left. A request that something else
can answer, above all the confirmation of a tag whose image is open, is not sent if only the reserve
is left, and no request is sent if nothing is left.

A fleet shares two kinds of values: the balance of each account, and the digest that a tag had when
one of its members asked. So one member asks for each tag within its time, however many there are.
What is shared about a tag is used by sessions without a principal only: it says what the account of
the fleet may read, and nothing of the caller of a program (rule SEC-13).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from asupplemented.abc import RepositoryReference
from asupplemented.aio.lru import LRU
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.budget import RESERVE, Account, Balance, ledger_of
from asupplemented.errors import ConfigurationError, InvalidDigestError, TooManyRequestsError
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from asupplemented.abc import Context, Reference

__all__ = ("Confirmed", "LocalValues", "RequestBudget", "SharedValues", "Spending")

MAX_VALUES = 65_536
"""Values that `LocalValues` keeps; the one that was used longest ago is dropped."""


class SharedValues(Protocol):
    """Small values that several catalogs share for a while. A server that fails is no error."""

    async def get(self, session: Context, key: str, /) -> str | None:
        """The value of a key, None if there is none or the server cannot be asked."""
        ...

    async def put(self, session: Context, key: str, value: str, seconds: float, /) -> None:
        """Set the value of a key for some seconds."""
        ...


class LocalValues:
    """Values that the catalogs of one process share."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values = LRU[str, tuple[str, float]](MAX_VALUES)

    async def get(self, session: Context, key: str) -> str | None:
        """The value of a key, None if there is none."""
        value, ends = self._values.get(key) or ("", 0.0)
        return value if session.resource(CLOCK, Clock).wall() < ends else None

    async def put(self, session: Context, key: str, value: str, seconds: float) -> None:
        """Set the value of a key for some seconds."""
        self._values.put(key, (value, session.resource(CLOCK, Clock).wall() + seconds))


@dataclass(frozen=True, slots=True)
class RequestBudget:
    """How a `Catalog` spends the requests that registries allow.

    Raises:
        ConfigurationError: `reserve` is not between 0 and 1.
    """

    reserve: float = RESERVE
    """The part of the limit that is spent only on what nothing else can answer."""
    shared: SharedValues | None = None
    """Shares with a fleet what was learned, for example `RedisValues`; it is not closed here."""

    def __post_init__(self) -> None:
        if not 0 <= self.reserve <= 1:
            message = f"reserve={self.reserve} is a part of the limit, from 0 to 1"
            raise ConfigurationError(message)


class Confirmed(NamedTuple):
    """What a tag was, when a member of the fleet asked."""

    digest: Digest
    age: float
    """Seconds since then."""


class Spending:
    """The budget of a catalog, for one session.

    Args:
        budget: How requests are spent.
        session: Its account is what requests are counted by.
    """

    __slots__ = ("_budget", "_clock", "_ledger", "_session")

    def __init__(self, budget: RequestBudget, session: Context) -> None:
        self._budget = budget
        self._session = session
        self._ledger = ledger_of(session)
        self._clock = session.resource(CLOCK, Clock)

    async def check(self, reference: Reference, *, dispensable: bool) -> None:
        """Refuse a request that the budget does not allow.

        Args:
            reference: What is asked for.
            dispensable: Whether something else can be served.

        Raises:
            TooManyRequestsError: The registry allows no request at present, or only those that
                are kept back.
        """
        account = await self._account(reference)
        if account is None:
            return
        if self._budget.shared is not None:
            await self._read(self._budget.shared, account)
        balance = self._ledger.find(account)
        if balance is None or not (
            balance.remaining == 0 or (dispensable and balance.is_low(self._budget.reserve))
        ):
            return
        message = f"{account.registry} is not asked, to keep within its limit: {balance}"
        pause = max(balance.resets - self._clock.wall(), 1.0)
        raise TooManyRequestsError(message, status=429, retry_after=pause, reference=reference)

    def is_low(self, reference: Reference) -> bool:
        """Whether few requests are left for a reference, as far as this process knows."""
        return self._ledger.is_low(self._session.principal, str(reference))

    async def publish(self, reference: Reference) -> None:
        """Share what the registry said last."""
        shared, account = self._budget.shared, await self._account(reference)
        balance = None if account is None else self._ledger.find(account)
        if shared is None or account is None or balance is None:
            return
        limit = "-" if balance.limit is None else balance.limit
        text = f"{limit} {balance.remaining} {balance.resets} {balance.told}"
        pause = balance.resets - self._clock.wall()
        await shared.put(self._session, _name("balance", account), text, pause)

    async def _read(self, shared: SharedValues, account: Account) -> None:
        text = await shared.get(self._session, _name("balance", account))
        try:
            limit, remaining, resets, told = (text or "").split()
            balance = Balance(
                None if limit == "-" else int(limit), int(remaining), float(resets), float(told)
            )
        except ValueError:
            return  # there is none
        self._ledger.merge(account, balance)

    async def find_digest(self, reference: Reference) -> Confirmed | None:
        """What a tag was when a member of the fleet asked, None if that is not known."""
        shared, account = self._budget.shared, await self._account(reference)
        if shared is None or account is None or self._session.principal is not None:
            return None
        text = await shared.get(self._session, _name("tag", account, str(reference)))
        try:
            digest, told = (text or "").split()
            return Confirmed(Digest(digest), max(self._clock.wall() - float(told), 0.0))
        except (ValueError, InvalidDigestError):
            return None

    async def publish_digest(self, reference: Reference, digest: Digest, seconds: float) -> None:
        """Share what a tag is."""
        shared, account = self._budget.shared, await self._account(reference)
        if shared is None or account is None or self._session.principal is not None:
            return
        name = _name("tag", account, str(reference))
        await shared.put(self._session, name, f"{digest} {self._clock.wall()}", seconds)

    async def _account(self, reference: Reference) -> Account | None:
        """The account that a reference is counted by, None if none is."""
        if not isinstance(reference, RepositoryReference):
            return None
        credential = await self._session.credentials(reference.repository)
        return Account.of(reference.repository.partition("/")[0], credential)


def _name(kind: str, account: Account, *rest: str) -> str:
    return " ".join((kind, account.registry, account.owner or "-", *rest))
