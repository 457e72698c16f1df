"""TLS with certificates of certs.d, from directory to handshake (rules TLS-01 to TLS-06)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest

from asupplemented.errors import ConfigurationError, MalformedResponseError, NetworkError
from asupplemented.events import Warned
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.testing import Authority, Basic, Bearer, FakeRegistry, Redirect
from tests.transports.registry.configuring import Configured, table
from tests.transports.registry.sessions import BLOB, OPTIONS_HERE, fill
from tests.transports.registry.test_mirrors import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def system(tmp_path: Path) -> Configured:
    return Configured.make(tmp_path)


@pytest.fixture
async def secure(authority: Authority) -> AsyncIterator[FakeRegistry]:
    """A registry over TLS whose authority nobody trusts, unless a file says so."""
    async with FakeRegistry(tls=authority.server_context()) as opened:
        fill(opened)
        yield opened


@pytest.fixture
async def demanding(authority: Authority) -> AsyncIterator[FakeRegistry]:
    """The same, for clients that have a certificate."""
    async with FakeRegistry(tls=authority.server_context(demand_client=True)) as opened:
        fill(opened)
        yield opened


def certs(system: Configured, registry: str) -> Path:
    """The system's directory of certificates for a registry."""
    return system.root / "etc/containers/certs.d" / registry


async def test_TLS01_an_own_authority_is_trusted(
    secure: FakeRegistry, authority: Authority, system: Configured
) -> None:
    authority.write(certs(system, secure.host))
    async with (
        system.watch() as watched,
        await watched.open(secure.reference("team/app")) as source,
    ):
        assert await read(source) == BLOB


async def test_TLS01_a_directory_that_is_named_counts_for_every_registry(
    secure: FakeRegistry, authority: Authority, system: Configured, tmp_path: Path
) -> None:
    named = authority.write(tmp_path / "named")
    options = replace(OPTIONS_HERE, configuration=ConfigurationPaths(certificates=named))
    async with system.watch(options) as watched:
        await watched.try_open(secure.reference("team/app"))


async def test_TLS02_only_the_directory_of_that_registry_counts(
    secure: FakeRegistry, authority: Authority, system: Configured
) -> None:
    authority.write(certs(system, "127.0.0.1"))
    authority.write(certs(system, f"{secure.host}0"))
    async with system.watch() as watched:
        with pytest.raises(NetworkError, match="certificate"):
            await watched.try_open(secure.reference("team/app"))
    assert secure.requests == []


async def test_TLS03_a_client_certificate_is_shown_to_who_demands_it(
    demanding: FakeRegistry, authority: Authority, system: Configured
) -> None:
    authority.write(certs(system, demanding.host), client=True)
    async with (
        system.watch() as watched,
        await watched.open(demanding.reference("team/app")) as source,
    ):
        assert await read(source) == BLOB


async def test_TLS03_without_one_there_is_no_way_in(
    demanding: FakeRegistry, authority: Authority, system: Configured
) -> None:
    authority.write(certs(system, demanding.host))
    async with system.watch() as watched:
        with pytest.raises(NetworkError):
            await watched.try_open(demanding.reference("team/app"))
    assert demanding.requests == []


async def test_TLS03_half_of_a_pair_is_refused_before_any_request(
    demanding: FakeRegistry, authority: Authority, system: Configured
) -> None:
    directory = authority.write(certs(system, demanding.host), client=True)
    (directory / "client.key").unlink()
    async with system.watch() as watched:
        with pytest.raises(ConfigurationError, match=r"client\.key"):
            await watched.try_open(demanding.reference("team/app"))
    assert demanding.connections == 0


async def test_TLS03_a_key_that_is_none_is_named(
    demanding: FakeRegistry, authority: Authority, system: Configured
) -> None:
    directory = authority.write(certs(system, demanding.host), client=True)
    (directory / "client.key").write_text("no key")
    async with system.watch() as watched:
        with pytest.raises(ConfigurationError, match=r"client\.key"):
            await watched.try_open(demanding.reference("team/app"))


async def test_TLS03_what_is_odd_is_told_once(
    secure: FakeRegistry, authority: Authority, system: Configured
) -> None:
    directory = authority.write(certs(system, secure.host))
    (directory / "other.crt").write_text("not PEM")
    async with system.watch() as watched:
        for _ in range(3):
            await watched.try_open(secure.reference("team/app"))
        [warning] = watched.told(Warned)
    assert "other.crt" in warning.message


async def test_TLS05_insecure_is_for_the_host_of_the_registry_only(
    secure: FakeRegistry, registry: FakeRegistry, system: Configured
) -> None:
    fill(registry)
    system.write_registries(table(registry.host))
    own = secure.put_file("/storage", BLOB)
    registry.script("*/blobs/*", Redirect(own.replace("127.0.0.1", "localhost")))
    async with (
        system.watch() as watched,
        await watched.open(registry.reference("team/app")) as source,
    ):
        with pytest.raises(NetworkError, match="certificate"):
            await read(source)
        assert secure.requests == []
        registry.script("*/blobs/*", Redirect(own))
        assert await read(source) == BLOB


@pytest.mark.parametrize("what", ["storage", "token server"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_TLS01_the_directory_of_another_server_is_read_for_it(
    secure: FakeRegistry, authority: Authority, system: Configured, host: str, what: str
) -> None:
    async def pull() -> bytes:
        async with (
            system.watch() as watched,
            await watched.open(registry.reference("team/app")) as source,
        ):
            return await read(source)

    there = secure.url.replace("127.0.0.1", host)
    async with FakeRegistry(tls=authority.server_context()) as registry:
        authority.write(certs(system, registry.host))
        if what == "storage":
            secure.put_file("/storage", BLOB)
            registry.script("*/blobs/*", Redirect(f"{there}/storage"), forever=True)
        else:
            access = secure.access = registry.access = Bearer(public=True)
            access.realm = f"{there}/token"
        fill(registry)
        for place in (host, f"{host}:1"):
            authority.write(certs(system, place))
        with pytest.raises(NetworkError, match="certificate") as caught:
            await pull()
        assert "tls_verify" not in str(caught.value) or host == "127.0.0.1"
        authority.write(certs(system, there.removeprefix("https://")))
        assert await pull() == BLOB


async def test_TLS05_what_a_registry_shows_and_trusts_is_for_its_origin_only(
    demanding: FakeRegistry, authority: Authority, system: Configured
) -> None:
    async with FakeRegistry(tls=authority.server_context()) as first:
        fill(first)
        authority.write(certs(system, first.host), client=True)
        demanding.put_file("/storage", BLOB)
        first.script("*/blobs/*", Redirect(f"{demanding.url}/storage"))
        async with (
            system.watch() as watched,
            await watched.open(first.reference("team/app")) as source,
        ):
            with pytest.raises(NetworkError):
                await read(source)
    assert demanding.requests == []


async def test_TLS05_an_insecure_registry_need_not_prove_who_it_is(
    secure: FakeRegistry, system: Configured
) -> None:
    system.write_registries(table(secure.host))
    async with system.watch() as watched:
        await watched.try_open(secure.reference("team/app"))


async def test_TLS05_and_still_gets_to_see_a_client_certificate(
    demanding: FakeRegistry, authority: Authority, system: Configured
) -> None:
    authority.write(certs(system, demanding.host), client=True)
    system.write_registries(table(demanding.host))
    async with system.watch() as watched:
        await watched.try_open(demanding.reference("team/app"))


async def test_TLS05_without_insecure_plain_http_is_no_way(
    registry: FakeRegistry, system: Configured
) -> None:
    async with system.watch() as watched:
        with pytest.raises((NetworkError, MalformedResponseError)):
            await watched.try_open(fill(registry))
    assert registry.requests == []


async def test_CONF19_each_candidate_has_its_own_certificates_and_security(
    secure: FakeRegistry, registry: FakeRegistry, authority: Authority, system: Configured
) -> None:
    fill(registry)
    authority.write(certs(system, secure.host))
    secure.access = Basic({"bob": "secret"})
    system.write_registries(
        f"""
        [[registry]]
        location = "{registry.host}"
        insecure = true
        [[registry.mirror]]
        location = "{secure.host}"
        """
    )
    reference = registry.reference("team/app")
    async with (
        system.watch(credentials={secure.host: ("bob", "secret")}) as watched,
        await watched.open(reference) as source,
    ):
        secure.script("*/blobs/*", Redirect("http://127.0.0.1:1/plain"))
        assert await read(source) == BLOB
    assert (secure.count("*/manifests/*"), registry.count("*/manifests/*")) == (2, 0)
    assert registry.count("*/blobs/*") == 1


async def test_TLS06_contexts_and_clients_are_told_apart_by_their_certificates(
    secure: FakeRegistry, demanding: FakeRegistry, authority: Authority, system: Configured
) -> None:
    authority.write(certs(system, secure.host))
    authority.write(certs(system, demanding.host), client=True)
    async with system.watch() as watched:
        for registry in (secure, demanding, secure):
            await watched.try_open(registry.reference("team/app"))
        assert len(watched.connections._tls._made) == 2
        assert repr(watched.pool).startswith("<RegistryPool: 2 clients,")


async def test_TLS06_equal_certificates_share_a_context(
    authority: Authority, system: Configured
) -> None:
    async with (
        FakeRegistry(tls=authority.server_context()) as one,
        FakeRegistry(tls=authority.server_context()) as two,
        system.watch() as watched,
    ):
        for registry in (one, two):
            authority.write(certs(system, registry.host))
            await watched.try_open(fill(registry))
        assert len(watched.connections._tls._made) == 1


async def test_TLS06_a_borrowed_client_is_given_what_is_configured(
    secure: FakeRegistry, authority: Authority, system: Configured
) -> None:
    async with aiohttp.ClientSession() as lent:
        async with system.watch(http=lent) as watched:
            with pytest.raises(NetworkError, match="certificate"):
                await watched.try_open(secure.reference("team/app"))
        authority.write(certs(system, secure.host))
        async with system.watch(http=lent) as watched:
            await watched.try_open(secure.reference("team/app"))
