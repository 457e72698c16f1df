"""Clients that are shared, kept, and given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.model.credential import Credential
from asupplemented.transports.registry.endpoint import EndpointConfig
from tests.transports.registry.sessions import fill, limited, watch

if TYPE_CHECKING:
    from asupplemented.testing import FakeRegistry
    from asupplemented.transports.registry.pool import Lease, RegistryPool
    from tests.transports.registry.sessions import Watched


def lease(
    pool: RegistryPool,
    host: str,
    credential: Credential | None = None,
    principal: str | None = None,
) -> Lease:
    return pool.lease(EndpointConfig(host), credential, principal=principal)


async def test_SRC03_sources_of_one_registry_share_a_client(
    registry: FakeRegistry, watched: Watched
) -> None:
    one = await watched.open(fill(registry, "a"))
    two = await watched.open(fill(registry, "b"))
    assert repr(watched.pool) == "<RegistryPool: 1 clients, 2 leases>"
    await one.aclose()
    await one.aclose()
    assert repr(watched.pool).endswith(" 1 leases>")
    await two.get_manifest()
    async with await watched.open(fill(registry, "a")):
        pass
    await two.aclose()
    assert repr(watched.pool) == "<RegistryPool: 1 clients, 0 leases>"


async def test_SRC03_a_client_that_nobody_uses_is_kept_for_the_next(
    registry: FakeRegistry, watched: Watched
) -> None:
    for _ in range(3):
        await watched.try_open(fill(registry))
    assert registry.count() == 3
    assert registry.connections <= 2  # one of them was for TLS


async def test_SRC03_but_not_too_many(registry: FakeRegistry) -> None:
    async with watch(options=limited(idle_clients=2)) as watched:
        await watched.try_open(fill(registry))
        pool = watched.pool
        leases = [lease(pool, "host", Credential(str(number), "x")) for number in range(5)]
        assert repr(pool) == "<RegistryPool: 6 clients, 5 leases>"
        for each in leases:
            each.release()
            each.release()
        assert repr(pool) == "<RegistryPool: 2 clients, 0 leases>"
        again = lease(pool, "host", Credential("4", "x"))
        assert again.client is leases[4].client
        again.release()
        assert lease(pool, "host", Credential("0", "x")).client is not leases[0].client
        lease(pool, "host", Credential("0", "x")).release()
        pool._leases.clear()


async def test_SRC03_hosts_and_identities_are_told_apart(
    watched: Watched, registry: FakeRegistry
) -> None:
    await watched.try_open(fill(registry))
    pool = watched.pool
    leases = [
        lease(pool, "Quay.io"),
        lease(pool, "quay.io"),
        lease(pool, "quay.io", Credential("a", "b")),
        lease(pool, "quay.io", Credential("a", "c")),
        lease(pool, "quay.io:443"),
        lease(pool, "quay.io", principal="a"),
        lease(pool, "quay.io", Credential("a", "b"), "a"),
    ]
    assert len({id(each.client) for each in leases}) == 7
    same = lease(pool, "quay.io", Credential("a", "b"))
    assert same.client is leases[2].client
    for each in (*leases, same):
        each.release()
