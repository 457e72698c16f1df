"""The registry clients of a session, shared by its sources (rule SRC-03)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from asupplemented.abc import ResourceKey
from asupplemented.aio.lru import LRU
from asupplemented.transports.registry.client import RegistryClient

if TYPE_CHECKING:
    from asupplemented.model.credential import Credential
    from asupplemented.transports.registry.endpoint import EndpointConfig
    from asupplemented.transports.registry.request import ClientDeps

__all__ = ("REGISTRIES", "ClientLease", "RegistryPool")


class _Key(NamedTuple):
    config: EndpointConfig
    principal: str | None
    credential: Credential | None


class ClientLease:
    """A client in use. Release it when the source is closed."""

    __slots__ = ("_held", "client")

    def __init__(self, pool: RegistryPool, key: _Key, client: RegistryClient) -> None:
        self.client = client
        self._held: tuple[RegistryPool, _Key] | None = (pool, key)

    def release(self) -> None:
        """Give the client back to the pool. Does nothing the second time."""
        held, self._held = self._held, None
        if held is not None:
            pool, key = held
            pool.release(key)


class RegistryPool:
    """One client for each endpoint configuration, principal and credential.

    Neither principals nor credentials share clients, so no identity gets what another one was
    granted (rule SEC-13).

    A client that no source uses is kept for the next source, with its tokens. If there are more
    than ``RegistryLimits.idle_clients`` of them, the one that is idle longest is dropped.

    Args:
        deps: What the clients work with.
    """

    def __init__(self, deps: ClientDeps) -> None:
        self._deps = deps
        self._clients: dict[_Key, RegistryClient] = {}
        self._leases: dict[_Key, int] = {}
        self._idle = LRU[_Key, None](deps.options.limits.idle_clients)

    def __repr__(self) -> str:
        return f"<RegistryPool: {len(self._clients)} clients, {sum(self._leases.values())} leases>"

    def lease(
        self, config: EndpointConfig, credential: Credential | None, *, principal: str | None
    ) -> ClientLease:
        """Take the client of a registry for an identity; it is made when it is first needed.

        Args:
            config: The registry, and how it is reached.
            credential: None for anonymous.
            principal: None for the session itself.
        """
        key = _Key(config, principal, credential)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = RegistryClient(
                config, credential, self._deps, principal=principal
            )
        self._leases[key] = self._leases.get(key, 0) + 1
        self._idle.pop(key)
        return ClientLease(self, key, client)

    def release(self, key: _Key) -> None:
        """Count a lease as released."""
        self._leases[key] -= 1
        if self._leases[key]:
            return
        del self._leases[key]
        for oldest in self._idle.put(key, None):
            del self._clients[oldest]


REGISTRIES: Final = ResourceKey["RegistryPool"]("registries")
"""The clients of a session."""
