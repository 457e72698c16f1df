"""Configurations: mistakes are told with line and remedy, and the rest is opened as it says."""

from __future__ import annotations

import os
import pickle
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization

from asupplemented import LayoutCache, TieredCache, remedies
from asupplemented.errors import ConfigurationError, NameUnknownError, NetworkError
from asupplemented.events import Warned
from asupplemented.limits import GIB
from asupplemented.serve.config import (
    Address,
    CacheConfig,
    ServeConfig,
    TlsFiles,
    in_settings,
    load_config,
    mirror_names,
    open_config,
)
from asupplemented.serve.toml_file import convert_table, find_lines, meta_of, tables
from asupplemented.testing import FakeRegistry, build_image
from asupplemented.testing.certificates import Authority
from asupplemented.transports.registry import ConfigurationPaths

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from asupplemented.events import Event

IMAGE = build_image(layers=[b"a layer"])
NAMES = '[names]\napp = "oci:/srv/app"\n'


@pytest.fixture(autouse=True)
def isolate_from_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the credentials, mirrors and proxies of the user that runs the tests."""
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "absent.json"))
    monkeypatch.setattr(ConfigurationPaths, "default", lambda *_: ConfigurationPaths())
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.setenv(name, "")


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        opened.add("library/app", IMAGE)
        yield opened


def load(directory: Path, text: str, *, files: bool = True) -> ServeConfig:
    path = directory / "serve.toml"
    path.write_text(text)
    return load_config(path, files=files)


def mistakes(directory: Path, text: str) -> list[str]:
    """What is wrong, without the name of the file: ``LINE: MESSAGE``."""
    with pytest.raises(ConfigurationError) as caught:
        load(directory, text)
    told = [caught.value.message, *getattr(caught.value, "__notes__", ())]
    start = f"{directory / 'serve.toml'}"
    assert all(each.startswith(start) for each in told)
    return [each.removeprefix(start).lstrip(":") for each in told]


# Mistakes


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("worker = 2", "unknown key 'worker' at the top of the file; write workers"),
        ("stale-if-error = 1", "unknown key 'stale-if-error' at the top of the file; write stale_"),
        ('key = "x"', "unknown key 'key' at the top of the file; write key below [tls]"),
        ("zebra = 1", "unknown key 'zebra' at the top of the file; known are names, "),
        ("cache.zebra = 1", "unknown key 'zebra' in [cache]; known are path, size, "),
        ('workers = "2"', 'workers = "2": expected an integer, got a string; write workers = 2'),
        ("workers = true", "workers = true: expected an integer, got true or false; write "),
        ("workers = 0", "workers = 0: expected an integer >= 1; write workers = 2"),
        ("ttl = -1", "ttl = -1: expected a number >= 0.0; write ttl = 60"),
        ("ttl = nan", "ttl = nan: expected a number >= 0.0; write ttl = 60"),
        ("redis = [1,\n 2]", "redis = [1, 2]: expected a string, got an array; write redis = "),
        ("admin = 5001", 'admin = 5001: expected a string, got an integer; write admin = "127'),
        ('listen = "5000"', "listen = \"5000\": '5000' is no address; write HOST:PORT, "),
        ('listen = ["a:1", "b:99999"]', "'b:99999' is no address; write HOST:PORT"),
        ("listen = []", "expected an array of length >= 1; write listen = "),
        ('listen = "http://a:1"', "'http://a:1' is no address"),
        ('access_log = "xml"', "expected json or text or off; write access_log = "),
        ("missing = 1", "missing = 1: expected a string, got an integer; write missing = "),
        ("allow = 3", "allow = 3: expected a string, got an integer; write allow = ["),
        ('tls = "x"', 'tls = "x": expected a table, got a string; write tls = { cert = '),
        ("tls = {}", 'tls.cert is missing; write tls.cert = "/etc/'),
        ('cache = {path = "/tmp", size = "x"}', "'x' is not a size; write 10GiB, 500MB"),
        ('cache = {path = "/tmp", size = 0}', "cache.size = 0: expected an integer >= 1"),
        ("token_servers = { a = 1 }", "token_servers.a = 1: expected a string, got an integer"),
        ("ttl = { a = 1 }", "ttl is one value, not a table; write ttl = 60"),
        ('default_registry = "hub"', "default_registry='hub' is no registry, such as 'docker.io'"),
        ('admin = "127.0.0.1:5000"', "127.0.0.1:5000 is in listen, too; choose another address"),
        ('redis = "secret.lan"', "redis is the URL of a server; write redis://HOST:PORT or "),
        ('token_servers = { "a.b" = "auth.b/x" }', "a token server "),
        ('cache.path = "/no/where"', "there is no directory /no for the cache; make it: mkdir"),
        ('cache.path = "/dev/null"', "/dev/null is not a directory; name one"),
        ('htpasswd = "/no/where"', "there is no file /no/where"),
        ('tls = {cert = "/no/cert", key = "/no/key"}', "cannot read /no/cert: No such file"),
    ],
)
def test_a_mistake_has_a_line_and_a_remedy(tmp_path: Path, line: str, told: str) -> None:
    first = mistakes(tmp_path, f"# a comment\n\n{line}\n{NAMES}")[0]
    assert first.startswith("3: ")
    assert told in first


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('"a" = 5', "names.a = 5: expected a string or an array, got an integer; write names.a ="),
        ('"quay.io/*" = [1]', 'names."quay.io/*" = [1]: expected a string, got an integer'),
        ("b = []", "b stands for no image; write a reference"),
        ('"docker.io/*" = "docker.io/{name}"', "did you mean docker://docker.io/"),
        ('a = "docker://h.x/{tag}"', "has {tag}: write {name} or {registry}"),
        ('"" = "oci:/x"', "not by ''"),
        ("workers = 2", "names.workers = 2: expected a string or an array"),
    ],
)
def test_a_mistake_in_a_name(tmp_path: Path, line: str, told: str) -> None:
    assert told in mistakes(tmp_path, f"ttl = 5\n{NAMES}{line}\n")[0].removeprefix("4: ")


def test_all_mistakes_are_told_in_the_order_of_their_lines(tmp_path: Path) -> None:
    text = (
        'ttl = "x"\n[names]\na = 1\n[cache]\nworkers = 2\nsize = 1\n[tls]\nkey = "k"\ncrt = "c"\n'
    )
    assert [each.partition(": ")[0] for each in mistakes(tmp_path, text)] == [
        *("1", "3", "4", "5", "7", "9"),
    ]
    assert "write workers above the first [table]" in mistakes(tmp_path, text)[3]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"workers = \n", "is not TOML: Invalid value (at line 1, column 11)"),
        (b"ttl = 1\nttl = 2\n", "is not TOML: Cannot overwrite a value (at line 2"),
        (b"a = '\xff'", "is not UTF-8 at byte 5; save it as UTF-8"),
        (b"", ": names is missing; write names = { "),
        (b"[names]\n", ":1: there is nothing to serve; write a name below [names]"),
        (b"#" * (1 << 20) + b"#", "exceeded maximum allowed size"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "serve.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigurationError) as caught:
        load_config(path)
    assert told in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ConfigurationError, match=str(path)):
            load_config(path)


def test_every_remedy_is_right() -> None:
    for _, kind in tables(ServeConfig):
        for field in msgspec.structs.fields(kind):
            [example] = meta_of(field).examples or ()
            _, wrong = convert_table({field.encode_name: example}, kind)
            assert not [each for each in wrong if "is missing" not in each.message], field.name


@pytest.mark.parametrize(
    "remedy",
    [each for each in vars(remedies).values() if isinstance(each, remedies.Remedy)],
    ids=str,
)
def test_every_setting_that_errors_advise_exists(remedy: remedies.Remedy) -> None:
    with in_settings():
        advice = remedies.advise("{}", remedy, registry="a.b:5", origin="https://c.d")
    values, wrong = convert_table(tomllib.loads(advice.removeprefix("; ")), ServeConfig)
    assert not [each for each in wrong if each.key != ("names",)]
    assert len(values) == bool(advice)


def test_lines_of_keys() -> None:
    text = '''a = 1
b.c = [ # not ]
  "[x]",
]

[t] # comment
d = """
[u]
e = 1
"""
f = {g = 1, h = {i = 2}}
[t."x.y"]
d = 1
[[v]]
w = 1
[[v]]
w = 2
'''
    expected = {
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 2,
        ("t",): 6,
        ("t", "d"): 7,
        ("t", "f"): 11,
        ("t", "f", "g"): 11,
        ("t", "f", "h"): 11,
        ("t", "f", "h", "i"): 11,
        ("t", "x.y"): 12,
        ("t", "x.y", "d"): 13,
        ("v",): 14,
        ("v", "w"): 15,
    }
    assert find_lines(text) == expected
    assert find_lines(text.replace("\n", "\r\n")) == expected


def test_lines_after_a_long_list() -> None:
    entries = '  "registry.example/team/*",  # a comment\n' * 20_000
    assert find_lines(f"allow = [\n{entries}]\nttl = 1\n") == {("allow",): 1, ("ttl",): 20_003}


# Values


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("127.0.0.1:5000", "127.0.0.1", 5000, None),
        ("registry-1.lan:0", "registry-1.lan", 0, None),
        ("[::1]:5000", "::1", 5000, None),
        ("unix:/run/a.sock", "", 0, Path("/run/a.sock")),
        ("unix:a.sock", "", 0, Path("a.sock")),
    ],
)
def test_addresses(text: str, host: str, port: int, path: Path | None) -> None:
    address = Address.parse(text)
    assert (address.host, address.port, address.path) == (host, port, path)
    assert str(address) == text
    assert address == Address(host, port, path=path) == pickle.loads(pickle.dumps(address))  # noqa: S301
    assert len({address, Address.parse(text), Address("127.0.0.1", 1)}) == 2


@pytest.mark.parametrize("text", ["", "5000", ":5000", "::1:5000", "[a]:1", "a:1x", "unix:", "a:१"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write HOST:PORT"):
        Address.parse(text)


def test_a_value_stands_for_a_list_of_one(tmp_path: Path) -> None:
    config = load(tmp_path, f'listen = "[::]:1"\nallow = "a"\n{NAMES}')
    assert (config.listen, config.allow) == ((Address("::", 1),), ("a",))
    assert load(tmp_path, NAMES).listen == (Address("127.0.0.1", 5000),)


def test_a_configuration_shows_no_secret(tmp_path: Path) -> None:
    config = load(tmp_path, f'redis = "redis://:secret@redis.lan"\n{NAMES}')
    assert "secret" not in repr(config)
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301 - as workers get it


def test_SRV_15_mirrored_registries_become_names() -> None:
    assert mirror_names(["index.docker.io", "QUAY.io:443", "localhost:5000"]) == {
        "docker.io/*": "docker://docker.io/{name}",
        "quay.io/*": "docker://quay.io/{name}",
        "localhost:5000/*": "docker://localhost:5000/{name}",
    }
    for wrong in ("quay", "https://quay.io", "quay.io/org", "quay.io/", "*.io", "a b.io", ""):
        with pytest.raises(ConfigurationError, match="is no registry; write HOST"):
            mirror_names([wrong])


def test_a_certificate_and_its_key(tmp_path: Path) -> None:
    one, two = (Authority().write(tmp_path / name, client=True) for name in ("one", "two"))
    right = TlsFiles(cert=one / "client.cert", key=one / "client.key")
    assert right.load().cert_store_stats()
    (tmp_path / "locked.key").write_bytes(
        serialization.load_pem_private_key((one / "client.key").read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for cert, key, told in (
        (right.cert, two / "client.key", "key values mismatch"),
        (right.key, right.key, "is no certificate with its key"),
        (right.cert, tmp_path / "locked.key", "has a password; store it without"),
        (right.cert, tmp_path, f"cannot read {tmp_path}: Is a directory"),
        (tmp_path / "none", right.key, f"cannot read {tmp_path / 'none'}: No such file"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            TlsFiles(cert=cert, key=key).load()


# Opening


async def test_what_a_configuration_serves(tmp_path: Path, registry: FakeRegistry) -> None:
    config = ServeConfig(
        names=mirror_names([registry.host]),
        default_registry=registry.host,
        allow=(f"{registry.host}/library/*",),
        cache=CacheConfig(path=tmp_path / "cache", max_bytes=GIB),
        tls_verify=False,
    )
    async with open_config(config) as opened:
        for name in (f"{registry.host}/library/app", "library/app"):
            async with opened.catalog.open(opened.session, name, "latest") as image:
                assert (await image.get_manifest()).raw == IMAGE.raw
                async with image.open_blob(IMAGE.layers[0]) as blob:
                    assert await blob.read_all(limit=100) == IMAGE.blobs[IMAGE.layers[0]]
        with pytest.raises(NameUnknownError):
            await opened.catalog.open(opened.session, "team/app", "latest")
        assert opened.authenticate is None
        assert opened.cache is not None
        assert opened.cache.path == tmp_path / "cache"
    assert registry.count("/v2/library/app/blobs/*") == 1
    assert opened.session.closed


async def test_an_error_advises_a_setting() -> None:
    async with FakeRegistry(tls=Authority().server_context()) as registry:
        config = ServeConfig(names=mirror_names([registry.host]))
        async with open_config(config) as opened:
            with in_settings(), pytest.raises(NetworkError, match="give tls_verify = false"):
                await opened.catalog.open(opened.session, f"{registry.host}/library/app")


async def test_a_cache_that_cannot_be_written_is_warned_of(
    tmp_path: Path, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    config = ServeConfig(
        names=mirror_names([registry.host]),
        cache=CacheConfig(path=tmp_path / "cache"),
        tls_verify=False,
    )
    full = os.statvfs_result((4096, 4096, 1000, 0, 0, 10, 10, 10, 0, 255))
    for name, answer, told in (
        ("access", False, "is read-only, or belongs to another user"),
        ("statvfs", full, "is on a disk that is full"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *_, answer=answer, **__: answer)
            async with (
                open_config(config, hooks=[events.append]) as opened,
                opened.catalog.open(opened.session, f"{registry.host}/library/app") as image,
            ):
                assert (await image.get_manifest()).raw == IMAGE.raw
        assert told in next(each.message for each in events if isinstance(each, Warned))
        events.clear()


async def test_a_fleet_shares_storage_and_redis_and_does_without_them(
    tmp_path: Path, registry: FakeRegistry, unused_tcp_port: int
) -> None:
    pytest.importorskip("obstore")
    pytest.importorskip("redis")
    config = ServeConfig(
        names=mirror_names([registry.host]),
        cache=CacheConfig(path=tmp_path / "cache", storage="memory:///"),
        redis=f"redis://127.0.0.1:{unused_tcp_port}",
        tls_verify=False,
    )
    async with (
        open_config(config) as opened,
        opened.catalog.open(opened.session, f"{registry.host}/library/app") as image,
        image.open_blob(IMAGE.layers[0]) as blob,
    ):
        assert await blob.read_all(limit=100) == IMAGE.blobs[IMAGE.layers[0]]
        assert isinstance(opened.session.cache, TieredCache)
        assert isinstance(opened.cache, LayoutCache)
