"""Clients that are shared, kept, and given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.model.credential import Credential
from tests.transports.registry.sessions import fill, limited, watch

if TYPE_CHECKING:
    from asupplemented.testing import FakeRegistry
    from tests.transports.registry.sessions import Watched


async def test_SRC03_sources_of_one_registry_share_a_client(
    registry: FakeRegistry, watched: Watched
) -> None:
    one = await watched.open(fill(registry, "a"))
    two = await watched.open(fill(registry, "b"))
    assert (len(watched.pool), watched.pool.leased) == (1, 2)
    await one.aclose()
    await one.aclose()
    assert watched.pool.leased == 1
    await two.get_manifest()
    async with await watched.open(fill(registry, "a")):
        pass
    await two.aclose()
    assert (len(watched.pool), watched.pool.leased) == (1, 0)


async def test_SRC03_a_client_that_nobody_uses_is_kept_for_the_next(
    registry: FakeRegistry, watched: Watched
) -> None:
    for _ in range(3):
        await watched.try_open(fill(registry))
    assert registry.count("/v2/") == 1
    assert registry.connections <= 2  # one of them was for TLS


async def test_SRC03_but_not_too_many(registry: FakeRegistry) -> None:
    async with watch(options=limited(idle_clients=2)) as watched:
        await watched.try_open(fill(registry))
        pool = watched.pool
        leases = [pool.lease("host", Credential(str(number), "x")) for number in range(5)]
        assert (len(pool), pool.leased) == (6, 5)
        for lease in leases:
            lease.release()
            lease.release()
        assert (len(pool), pool.leased) == (2, 0)
        again = pool.lease("host", Credential("4", "x"))
        assert again.client is leases[4].client
        again.release()
        assert pool.lease("host", Credential("0", "x")).client is not leases[0].client
        pool.lease("host", Credential("0", "x")).release()
        pool._leases.clear()


async def test_SRC03_hosts_and_identities_are_told_apart(
    watched: Watched, registry: FakeRegistry
) -> None:
    await watched.try_open(fill(registry))
    pool = watched.pool
    leases = [
        pool.lease("Quay.io", None),
        pool.lease("quay.io", None),
        pool.lease("quay.io", Credential("a", "b")),
        pool.lease("quay.io", Credential("a", "c")),
        pool.lease("quay.io:443", None),
    ]
    assert len({id(lease.client) for lease in leases}) == 5
    same = pool.lease("quay.io", Credential("a", "b"))
    assert same.client is leases[2].client
    for lease in (*leases, same):
        lease.release()
