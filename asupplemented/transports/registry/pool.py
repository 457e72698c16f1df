"""The clients of a session, shared by its sources (rule SRC-03)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.abc import ResourceKey
from asupplemented.aio.lru import LRU
from asupplemented.transports.registry.client import RegistryClient

if TYPE_CHECKING:
    from asupplemented.model.credential import Credential
    from asupplemented.transports.registry.endpoint import Route
    from asupplemented.transports.registry.request import Means

__all__ = ("REGISTRIES", "Lease", "RegistryPool")


class _Key(NamedTuple):
    route: Route
    principal: str | None
    credential: Credential | None


class Lease:
    """A client in use. Give it back when the source is closed."""

    __slots__ = ("_give_back", "client")

    def __init__(self, pool: RegistryPool, key: _Key, client: RegistryClient) -> None:
        self.client = client
        self._give_back: tuple[RegistryPool, _Key] | None = (pool, key)

    def release(self) -> None:
        """Give the client back. May be called again, and does nothing then."""
        given, self._give_back = self._give_back, None
        if given is not None:
            pool, key = given
            pool.release(key)


class RegistryPool:
    """One client for each registry, way to it, and identity, made when it is first needed.

    An identity is a principal with a credential: neither reaches what the other one was granted
    without the same partner (rule SEC-13).

    A client that nobody uses is kept for the next source, with its tokens; when there are too
    many of them, the one that was left longest ago goes.

    Args:
        means: What the clients work with.
    """

    def __init__(self, means: Means) -> None:
        self._means = means
        self._clients: dict[_Key, RegistryClient] = {}
        self._leases: dict[_Key, int] = {}
        self._idle = LRU[_Key, None](means.options.limits.idle_clients)

    def lease(self, route: Route, credential: Credential | None, *, principal: str | None) -> Lease:
        """The client of a registry for an identity.

        Args:
            route: The registry, and how it is reached.
            credential: None for anonymous.
            principal: None for the session itself.
        """
        key = _Key(route, principal, credential)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = RegistryClient(route, credential, self._means)
        self._leases[key] = self._leases.get(key, 0) + 1
        self._idle.pop(key)
        return Lease(self, key, client)

    def release(self, key: _Key) -> None:
        """Count a lease as given back."""
        self._leases[key] -= 1
        if self._leases[key]:
            return
        del self._leases[key]
        for oldest in self._idle.put(key, None):
            del self._clients[oldest]

    def __repr__(self) -> str:
        return f"<RegistryPool: {len(self._clients)} clients, {sum(self._leases.values())} leases>"


REGISTRIES: Final = ResourceKey["RegistryPool"]("registries")
"""The clients of a session."""
