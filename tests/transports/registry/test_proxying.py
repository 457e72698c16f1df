"""Proxies: which requests take which one, and what it is told of us (rule TLS-07)."""

from __future__ import annotations

import traceback
from base64 import b64encode
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from yarl import URL

from asupplemented.errors import (
    ConfigurationError,
    MalformedResponseError,
    NetworkError,
    SupplementedError,
)
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.hostconfig.proxies import Proxies
from asupplemented.testing import Authority, Basic, FakeRegistry, Redirect
from asupplemented.transports.registry.endpoint import Proxy as Seen
from asupplemented.transports.registry.endpoint import find_proxy
from tests.transports.registry.configuring import Configured, table
from tests.transports.registry.proxy import Proxy, run_proxy
from tests.transports.registry.sessions import BLOB, IMAGE, OPTIONS_HERE, fill, watch
from tests.transports.registry.test_mirrors import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.transports.registry.sessions import Watched

SECRET = "hunter2"  # noqa: S105 - of a proxy in this process
USER = f"prox:{SECRET}@"
BASIC = f"Basic {b64encode(USER[:-1].encode()).decode()}"
NAME = "registry.example"
REFERENCE = f"docker://{NAME}/team/app:latest"


@pytest.fixture
async def proxy(registry: FakeRegistry) -> AsyncIterator[Proxy]:
    """A proxy to which `NAME` is the registry, over http."""
    async with run_proxy({NAME: registry.host, f"{NAME}:443": registry.host}) as opened:
        yield opened


@pytest.fixture
async def secure(authority: Authority) -> AsyncIterator[FakeRegistry]:
    """A registry over TLS that goes by `NAME`, and whose authority nobody trusts."""
    async with FakeRegistry(tls=authority.server_context(NAME)) as opened:
        fill(opened)
        yield opened


def through(
    proxy: Proxy,
    user: str = "",
    exempt: str = "",
    trusted: Path | None = None,
    **settings: Any,
) -> AbstractAsyncContextManager[Watched]:
    """A session that sends all through a proxy, and trusts the authorities of a directory."""
    url = proxy.url(user)
    environ = {"HTTP_PROXY": url, "HTTPS_PROXY": url, "NO_PROXY": exempt}
    proxies = Proxies.from_environment(environ)
    paths = None if trusted is None else ConfigurationPaths(certificates=trusted)
    options = replace(OPTIONS_HERE, proxies=proxies, configuration=paths)
    return watch(options=options, **settings)


def tell(error: BaseException) -> str:
    """All that an error could tell to a log."""
    parts = [*traceback.format_exception(error)]
    seen: BaseException | None = error
    while seen is not None:
        parts += [repr(seen), repr(seen.args), repr(vars(seen))]
        seen = seen.__cause__ or seen.__context__
    return "\n".join(parts)


async def test_TLS07_https_goes_through_a_tunnel(
    secure: FakeRegistry, authority: Authority, tmp_path: Path
) -> None:
    async with run_proxy({f"{NAME}:443": secure.host}) as proxy:
        secure.access = Basic({"bob": "secret"})
        settings = {"credentials": {NAME: ("bob", "secret")}, "tls_verify": None}
        async with (
            through(proxy, USER, trusted=authority.write(tmp_path), **settings) as watched,
            await watched.open(REFERENCE) as source,
        ):
            assert await read(source) == BLOB
    assert {(each.method, each.target) for each in proxy.asked} == {("CONNECT", f"{NAME}:443")}
    assert {each.headers["proxy-authorization"] for each in proxy.asked} == {BASIC}
    assert not any("authorization" in each.headers for each in proxy.asked)
    assert secure.count("/v2/*") >= 3
    for request in secure.requests:
        assert request.header("Proxy-Authorization") is None
        assert request.header("Host") == NAME


async def test_TLS07_plain_http_is_handed_to_the_proxy(
    proxy: Proxy, registry: FakeRegistry
) -> None:
    fill(registry)
    async with through(proxy, USER) as watched, await watched.open(REFERENCE) as source:
        assert await read(source) == BLOB
    plain = [each for each in proxy.asked if each.method == "GET"]
    assert plain[0].target == f"http://{NAME}/v2/team/app/manifests/latest"
    assert {each.headers["proxy-authorization"] for each in plain} == {BASIC}
    assert registry.count("*/blobs/*") == 1


async def test_TLS07_a_proxy_that_wants_no_password_is_told_none(
    proxy: Proxy, registry: FakeRegistry
) -> None:
    fill(registry)
    async with through(proxy) as watched:
        await watched.try_open(REFERENCE)
    assert not any("proxy-authorization" in each.headers for each in proxy.asked)


async def test_TLS07_hosts_that_are_exempt_and_this_machine_are_reached_directly(
    proxy: Proxy, registry: FakeRegistry
) -> None:
    async with through(proxy) as watched:
        await watched.try_open(fill(registry))
    async with through(proxy, exempt=NAME) as watched:
        with pytest.raises(NetworkError):
            await watched.try_open(REFERENCE)
    assert proxy.asked == []


async def test_TLS07_without_proxies_the_environment_does_not_matter(
    proxy: Proxy, registry: FakeRegistry, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url())
    await watched.try_open(fill(registry))
    assert proxy.asked == []


async def test_TLS07_a_redirect_takes_the_proxy_of_where_it_leads(
    proxy: Proxy, registry: FakeRegistry
) -> None:
    fill(registry)
    registry.put_file("/storage", BLOB)
    proxy.hosts["storage.example"] = registry.host
    registry.script("*/blobs/*", Redirect("http://storage.example/storage?sig=secret"))
    async with through(proxy) as watched, await watched.open(REFERENCE) as source:
        assert await read(source) == BLOB
    assert proxy.asked[-1].target == "http://storage.example/storage?sig=secret"


@pytest.mark.parametrize(
    "place",
    [
        "http://10.0.0.7/x",
        "http://169.254.169.254/latest",
        "http://2852039166/latest",
        "http://127.1/x",
        "http://0x7f000001/x",
        "http://0/x",
        "http://169.254.43518/x",
        "http://localhost./x",
        "http://[::ffff:127.0.0.1]/x",
    ],
)
async def test_SEC01_a_proxy_is_no_way_to_private_addresses(
    proxy: Proxy, registry: FakeRegistry, place: str
) -> None:
    fill(registry)
    registry.script("*/blobs/*", Redirect(place))
    async with through(proxy) as watched, await watched.open(REFERENCE) as source:
        with pytest.raises(MalformedResponseError, match="more private"):
            await read(source)
    assert not any(place in each.target for each in proxy.asked)


async def test_SEC01_nor_is_what_is_exempt_reached_by_a_redirect(
    proxy: Proxy, registry: FakeRegistry, other: FakeRegistry
) -> None:
    fill(registry)
    port = other.host.rpartition(":")[2]
    registry.script("*/blobs/*", Redirect(f"http://localhost:{port}/inside"))
    async with through(proxy) as watched, await watched.open(REFERENCE) as source:
        with pytest.raises(SupplementedError):
            await read(source)
    assert other.requests == []


async def test_TLS07_a_table_may_name_its_own_proxy(
    proxy: Proxy, registry: FakeRegistry, other: FakeRegistry, tmp_path: Path
) -> None:
    system = Configured.make(tmp_path)
    fill(other, "copies/app")
    mirror = f'{other.host}/copies\nproxy = "{proxy.url(USER)}"'
    system.write_registries(table(f"{registry.host}/team", mirror))
    async with system.watch() as watched:
        await watched.try_open(fill(registry))
    assert {each.headers["proxy-authorization"] for each in proxy.asked} == {BASIC}
    assert other.count("/v2/*/*") == 1  # this machine, too, is reached through it
    assert registry.requests == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 407 Proxy\r\nContent-Length: 0\r\n\r\n", "it requires authentication"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "it answered 403"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", "it answered 503"),
    ],
)
async def test_CRED07_a_proxy_that_refuses_is_told_from_the_registry_and_shows_nothing(
    proxy: Proxy, answer: bytes, words: str
) -> None:
    proxy.answer = answer
    async with through(proxy, USER, tls_verify=True) as watched:
        with pytest.raises(NetworkError, match="the proxy does not connect to") as caught:
            await watched.try_open(REFERENCE)
        assert bool(watched.clock.slept) == (b"503" in answer)  # only that may pass
    text = tell(caught.value)
    assert words in text
    assert SECRET not in text
    assert BASIC.split()[1] not in text


async def test_CRED07_a_proxy_that_is_away_shows_nothing() -> None:
    async with run_proxy() as gone:
        pass
    async with through(gone, USER, tls_verify=True) as watched:
        with pytest.raises(NetworkError, match="no connection to the proxy for") as caught:
            await watched.try_open(REFERENCE)
    text = tell(caught.value)
    assert SECRET not in text
    assert BASIC.split()[1] not in text


async def test_CRED07_a_certificate_behind_a_proxy_that_is_not_trusted_shows_nothing(
    secure: FakeRegistry,
) -> None:
    async with run_proxy({f"{NAME}:443": secure.host}) as proxy:  # noqa: SIM117
        async with through(proxy, USER, tls_verify=True) as watched:
            with pytest.raises(NetworkError, match="certificate") as caught:
                await watched.try_open(REFERENCE)
    text = tell(caught.value)
    assert SECRET not in text
    assert BASIC.split()[1] not in text


def test_CRED07_a_proxy_shows_no_password() -> None:
    proxies = Proxies.only(f"http://{USER}proxy.example:3128/")
    seen = find_proxy(URL("https://registry.example"), proxies)
    assert seen is not None
    assert (str(seen.url), seen.authorization) == ("http://proxy.example:3128", BASIC)
    assert SECRET not in repr(seen)
    assert "Basic" not in repr(seen)


@pytest.mark.parametrize(
    ("user", "secret"),
    [("", None), ("bob@", b"bob:"), (":x@", b":x"), ("b%40b:p%2Fw@", b"b@b:p/w")],
)
def test_TLS07_user_and_password_are_taken_from_the_url(user: str, secret: bytes | None) -> None:
    expected = None if secret is None else f"Basic {b64encode(secret).decode()}"
    assert Seen.at(f"http://{user}p.example").authorization == expected


async def test_TLS05_a_proxy_is_not_what_is_insecure(secure: FakeRegistry) -> None:
    proxies = Proxies.only(f"https://{USER}127.0.0.1:1")
    async with watch(options=replace(OPTIONS_HERE, proxies=proxies)) as watched:
        with pytest.raises(ConfigurationError, match="speak http to the proxy") as caught:
            await watched.try_open(secure.reference("team/app"))
    assert SECRET not in tell(caught.value)


async def test_TLS07_a_proxy_may_be_spoken_to_in_tls(
    secure: FakeRegistry, authority: Authority, tmp_path: Path
) -> None:
    context = authority.server_context()
    async with run_proxy({f"{NAME}:443": secure.host}, tls=context) as proxy:
        paths = ConfigurationPaths(certificates=authority.write(tmp_path))
        proxies = Proxies.only(f"https://{USER}{proxy.host}")
        options = replace(OPTIONS_HERE, proxies=proxies, configuration=paths)
        async with watch(options=options, tls_verify=None) as watched:
            await watched.try_open(REFERENCE)
    assert {each.headers["proxy-authorization"] for each in proxy.asked} == {BASIC}


async def test_TLS07_a_borrowed_client_takes_the_proxy_too(
    proxy: Proxy, registry: FakeRegistry
) -> None:
    fill(registry)
    async with (
        aiohttp.ClientSession() as lent,
        through(proxy, http=lent) as watched,
        await watched.open(REFERENCE) as source,
    ):
        assert (await source.get_manifest()).digest == IMAGE.digest
    assert proxy.asked
