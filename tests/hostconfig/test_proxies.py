"""Proxies of an environment, and the hosts that need none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import ConfigurationError
from asupplemented.hostconfig.proxies import Proxies

PROXY = "http://proxy.lan:3128"
SECRET = "hunter2"  # noqa: S105 - that is what it stands for


def exempting(entries: str) -> Proxies:
    return Proxies.from_environment({"https_proxy": PROXY, "no_proxy": entries})


def test_TLS07_each_scheme_has_its_proxy() -> None:
    proxies = Proxies.from_environment(
        {"HTTP_PROXY": "http://one:1", "HTTPS_PROXY": "https://two:2"}
    )
    assert proxies.find("http", "quay.io") == "http://one:1"
    assert proxies.find("https", "quay.io") == "https://two:2"
    assert proxies.find("ftp", "quay.io") is None


def test_TLS07_without_variables_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", PROXY)
    assert Proxies.from_environment({}) == Proxies()
    assert Proxies().find("https", "quay.io") is None


def test_TLS07_lower_case_counts_first_even_if_empty() -> None:
    both = {"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}
    assert Proxies.from_environment(both).https == PROXY
    assert Proxies.from_environment({**both, "https_proxy": ""}).https is None


def test_TLS07_a_header_of_a_stranger_is_no_setting() -> None:
    cgi = {"REQUEST_METHOD": "GET", "HTTP_PROXY": "http://evil.example:1"}
    assert Proxies.from_environment(cgi).http is None
    assert Proxies.from_environment({**cgi, "http_proxy": PROXY}).http == PROXY
    assert Proxies.from_environment({**cgi, "HTTPS_PROXY": PROXY}).https == PROXY


def test_TLS07_a_proxy_without_a_scheme_speaks_http() -> None:
    assert Proxies.from_environment({"https_proxy": "proxy.lan:3128"}).https == PROXY


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST", "localhost.", "app.localhost", "127.0.0.1", "127.9.8.7"),
        *("::1", "[::1]", "::ffff:127.0.0.1"),
    ],
)
def test_TLS07_this_machine_is_never_reached_through_a_proxy(host: str) -> None:
    assert exempting("").find("https", host, 5000) is None


@pytest.mark.parametrize("host", ["notlocalhost", "128.0.0.1", "::2", "localhost.example.com"])
def test_TLS07_other_machines_are(host: str) -> None:
    assert exempting("").find("https", host) == PROXY


@pytest.mark.parametrize(
    ("entries", "host", "port"),
    [
        ("*", "quay.io", None),
        ("quay.io", "quay.io", None),
        ("quay.io", "QUAY.io.", 5000),
        ("quay.io", "cdn.quay.io", None),
        (".quay.io", "cdn.quay.io", None),
        (".quay.io", "quay.io", None),
        ("*.quay.io", "cdn.quay.io", None),
        ("QUAY.IO", "quay.io", None),
        ("a.com, quay.io ,b.com", "quay.io", None),
        ("quay.io:443", "quay.io", None),
        ("quay.io:5000", "quay.io", 5000),
        ("10.0.0.1", "10.0.0.1", None),
        ("10.0.0.1:5000", "10.0.0.1", 5000),
        ("10.0.0.0/8", "10.1.2.3", 5000),
        ("10.0.0.1/8", "10.1.2.3", None),
        ("fd00::/8", "fd00::1", None),
        ("fd00::1", "[fd00:0::1]", None),
        ("[fd00::1]", "fd00::1", None),
        ("[fd00::1]:5000", "fd00::1", 5000),
        ("mirror", "mirror", None),
    ],
)
def test_TLS07_exempt_hosts_are_reached_directly(entries: str, host: str, port: int | None) -> None:
    assert exempting(entries).find("https", host, port) is None


@pytest.mark.parametrize(
    ("entries", "host", "port"),
    [
        ("", "quay.io", None),
        (",,", "quay.io", None),
        (".", "quay.io", None),
        ("quay.io", "notquay.io", None),
        ("cdn.quay.io", "quay.io", None),
        ("quay.io", "quay.io.evil.com", None),
        ("quay.io:5000", "quay.io", None),
        ("quay.io:99999999", "quay.io", None),
        ("10.0.0.1", "10.0.0.11", None),
        ("10.0.0.0/8", "11.0.0.1", None),
        ("10.0.0.0/8", "quay.io", None),
        ("fd00::1", "fd00::2", None),
        ("[fd00::1]:5000", "fd00::1", None),
    ],
)
def test_TLS07_others_are_not(entries: str, host: str, port: int | None) -> None:
    assert exempting(entries).find("https", host, port) == PROXY


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        (f"socks5://u:{SECRET}@proxy:1080", "http or https"),
        (f"http://u:{SECRET}@", "http://host:port"),
        (f"u:{SECRET}@proxy:port", "http://host:port"),
        (f"http://[u:{SECRET}@proxy", "http://host:port"),
        (f"http://u:{SECRET}@proxy:0", "http://host:port"),
        (f"http://u:{SECRET}@pro xy:1", "http://host:port"),
    ],
)
def test_TLS07_what_is_no_proxy_is_refused_and_not_shown(url: str, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy) as caught:
        Proxies.from_environment({"https_proxy": url})
    assert caught.value.message.startswith("HTTPS_PROXY")
    shown = repr(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert SECRET not in shown


def test_TLS07_a_password_is_not_shown() -> None:
    url = f"http://u:{SECRET}@proxy:3128"
    proxies = Proxies.from_environment({"https_proxy": url, "http_proxy": url})
    assert proxies.find("https", "quay.io") == url
    assert SECRET not in repr(proxies)


@given(st.text(max_size=60), st.text(max_size=30), st.none() | st.integers(1, 65535))
def test_TLS07_nothing_in_no_proxy_or_a_host_makes_it_fail(
    entries: str, host: str, port: int | None
) -> None:
    assert exempting(entries).find("https", host, port) in {PROXY, None}
