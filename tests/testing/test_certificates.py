from __future__ import annotations

import ssl
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aiohttp
import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.testing import Authority, FakeRegistry

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def ping(registry: FakeRegistry, context: ssl.SSLContext) -> int:
    async with (
        aiohttp.ClientSession() as http,
        http.get(registry.url + "/v2/", ssl=context) as answer,
    ):
        return answer.status


async def test_a_client_that_trusts_the_authority(authority: Authority) -> None:
    async with FakeRegistry(tls=authority.server_context()) as registry:
        assert registry.url.startswith("https://127.0.0.1:")
        assert await ping(registry, authority.client_context()) == 200


async def test_a_client_that_does_not(authority: Authority) -> None:
    async with FakeRegistry(tls=authority.server_context()) as registry:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ping(registry, ssl.create_default_context())
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ping(registry, Authority().client_context())
        assert registry.requests == []


async def test_a_wrong_host_name(authority: Authority) -> None:
    context = authority.server_context("other.example")
    async with FakeRegistry(tls=context) as registry:
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match="IP address mismatch"):
            await ping(registry, authority.client_context())


async def test_an_expired_certificate(authority: Authority) -> None:
    context = authority.server_context(not_after=datetime(2020, 1, 1, tzinfo=UTC))
    async with FakeRegistry(tls=context) as registry:
        with pytest.raises(aiohttp.ClientConnectorCertificateError, match="expired"):
            await ping(registry, authority.client_context())


async def test_a_registry_that_demands_a_certificate(authority: Authority) -> None:
    context = authority.server_context(demand_client=True)
    async with FakeRegistry(tls=context) as registry:
        with pytest.raises(aiohttp.ClientError):
            await ping(registry, authority.client_context())
        assert await ping(registry, authority.client_context(certificate=True)) == 200


async def test_TLS03_a_directory_of_certificates(authority: Authority, tmp_path: Path) -> None:
    assert authority.write(tmp_path / "plain") == tmp_path / "plain"
    assert {file.name for file in (tmp_path / "plain").iterdir()} == {"ca.crt"}
    directory = authority.write(tmp_path / "pair", client=True)
    context = ssl.create_default_context(cafile=directory / "ca.crt")
    context.load_cert_chain(directory / "client.cert", directory / "client.key")
    async with FakeRegistry(tls=authority.server_context(demand_client=True)) as registry:
        assert await ping(registry, context) == 200


def test_without_trustme_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    with pytest.raises(ConfigurationError, match="pip install trustme"):
        Authority()
