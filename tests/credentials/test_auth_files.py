"""Credential files: where they are, what they say, and what is wrong with some of them."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.credentials import (
    AuthFile,
    AuthFileCredentials,
    AuthFiles,
    AuthVariable,
    default_auth_file,
)
from asupplemented.credentials.auth_json import HelperCall, LookupResult
from asupplemented.errors import ConfigurationError
from asupplemented.limits import MAX_AUTH_FILE
from asupplemented.model.credential import Credential
from tests.credentials.keepers import (
    SECRET_SENTINEL,
    encode,
    entry,
    secrets_in,
    words_of,
    write_json,
)
from tests.transports.places import failing_open

HOME = Path("/home/alice")
HUB = "https://index.docker.io/v1/"


def paths(files: AuthFiles) -> list[str]:
    return [f"{file.path}{' (legacy)' if file.legacy else ''}" for file in files.files]


def locate(environ: dict[str, str], **arguments: Any) -> list[str]:
    given: dict[str, Any] = {"home": HOME, "uid": 1000, "platform": "linux", **arguments}
    return paths(AuthFiles.default(environ, **given))


USUAL = [
    "/home/alice/.config/containers/auth.json",
    "/home/alice/.docker/config.json",
    "/home/alice/.dockercfg (legacy)",
]


# Where


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ["/run/containers/1000/auth.json", *USUAL]),
        (
            {"XDG_RUNTIME_DIR": "/run/user/1000"},
            ["/run/user/1000/containers/auth.json", *USUAL],
        ),
        ({"XDG_RUNTIME_DIR": ""}, ["/run/containers/1000/auth.json", *USUAL]),
        ({"XDG_RUNTIME_DIR": "relative"}, ["/run/containers/1000/auth.json", *USUAL]),
        (
            {"XDG_CONFIG_HOME": "/cfg"},
            ["/run/containers/1000/auth.json", "/cfg/containers/auth.json", *USUAL[1:]],
        ),
        ({"XDG_CONFIG_HOME": ""}, ["/run/containers/1000/auth.json", *USUAL]),
        (
            {"DOCKER_CONFIG": "/dc"},
            ["/run/containers/1000/auth.json", USUAL[0], "/dc/config.json", USUAL[2]],
        ),
        (
            {"DOCKER_CONFIG": "dc"},
            ["/run/containers/1000/auth.json", USUAL[0], "dc/config.json", USUAL[2]],
        ),
        ({"DOCKER_CONFIG": ""}, ["/run/containers/1000/auth.json", *USUAL]),
    ],
)
def test_FILE01_order_of_the_default_files(environ: dict[str, str], expected: list[str]) -> None:
    assert locate(environ) == expected


def test_FILE01_elsewhere_than_on_linux_nothing_is_lost_after_a_restart() -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/1000"}
    assert locate(environ, platform="darwin") == USUAL
    settled = {"XDG_CONFIG_HOME": "/cfg"}
    first, second, *_ = locate(settled, platform="darwin")
    assert (first, second) == (USUAL[0], "/cfg/containers/auth.json")


def test_FILE01_a_root_moves_run_and_not_the_home() -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/1000"}
    moved = locate(environ, root=Path("/sysroot"))
    assert moved == ["/sysroot/run/containers/1000/auth.json", *USUAL]


def test_FILE01_the_home_is_that_of_the_environment_or_else_of_the_user() -> None:
    told = AuthFiles.default({"HOME": "/home/bob"}, uid=0, platform="linux")
    assert "/home/bob/.docker/config.json" in paths(told)
    root = AuthFiles.default({}, uid=0, platform="linux")
    assert "/root/.docker/config.json" in paths(root)
    nobody_knows = AuthFiles.default({}, uid=4_000_000_000, platform="linux")
    assert paths(nobody_knows) == ["/run/containers/4000000000/auth.json"]


def test_FILE01_an_explicit_file_is_the_only_one() -> None:
    assert paths(AuthFiles.explicit("/a.json")) == ["/a.json"]
    assert paths(AuthFiles.explicit(docker_compat=Path("/c.json"))) == ["/c.json"]
    assert paths(AuthFiles.explicit(legacy="/l")) == ["/l (legacy)"]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"auth_file": "/a", "docker_compat": "/b"},
        {"auth_file": "/a", "legacy": "/b"},
        {"auth_file": "/a", "docker_compat": "/b", "legacy": "/c"},
    ],
)
def test_FILE02_two_explicit_files_contradict_each_other(given: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="exactly one"):
        AuthFiles.explicit(**given)


async def test_FILE03_a_runtime_directory_that_is_missing_is_told_and_skipped(
    tmp_path: Path,
) -> None:
    missing = tmp_path / "run"
    first = AuthFiles.default({"XDG_RUNTIME_DIR": str(missing)}, HOME).files[0]
    finding = await first.find("quay.io/a")
    assert finding[:2] == (None, None)
    assert finding.warning is not None
    assert str(missing) in finding.warning
    assert "XDG_RUNTIME_DIR" in finding.warning
    missing.mkdir()
    assert await first.find("quay.io/a") == LookupResult()
    write_json(missing / "containers/auth.json", {"auths": {"quay.io": entry()}})
    assert (await first.find("quay.io/a")).credential == Credential("user", "pass")


async def test_FILE03_a_runtime_directory_of_which_nothing_is_known_counts_as_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("")
    directory = tmp_path / "file" / "run"
    first = AuthFiles.default({"XDG_RUNTIME_DIR": str(directory)}, HOME).files[0]
    with pytest.raises(ConfigurationError, match="file/run"):
        await first.find("quay.io")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"REGISTRY_AUTH_FILE": "", "DOCKER_CONFIG": ""}, None),
        ({"REGISTRY_AUTH_FILE": "/a.json"}, Path("/a.json")),
        ({"DOCKER_CONFIG": "/dc"}, Path("/dc/config.json")),
        ({"REGISTRY_AUTH_FILE": "a.json", "DOCKER_CONFIG": "/dc"}, Path("a.json")),
        ({"XDG_RUNTIME_DIR": "/run/user/1000"}, None),
    ],
)
def test_FILE04_what_callers_make_of_an_environment(
    environ: dict[str, str], expected: Path | None
) -> None:
    assert default_auth_file(environ) == expected


def test_FILE04_the_environment_of_the_process_if_one_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/from/environment")
    assert default_auth_file() == Path("/from/environment")
    monkeypatch.delenv("REGISTRY_AUTH_FILE")
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    assert default_auth_file() is None


def test_FILE04_the_library_does_not_look_at_it() -> None:
    assert locate({"REGISTRY_AUTH_FILE": "/a.json"})[1:] == USUAL


# What


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.json"


async def find(
    path: Path, auths: Any, name: str = "quay.io/a/b/c", **options: Any
) -> Credential | None:
    """What an auth.json with these entries says."""
    write_json(path, {"auths": auths})
    return (await AuthFile(path).find(name, **options)).credential


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        (encode("user:pass"), Credential("user", "pass")),
        (encode("user:with:colons:"), Credential("user", "with:colons:")),
        (encode("user:\0\0pa\tss\0"), Credential("user", "pa\tss")),
        (encode("usér:pässword"), Credential("usér", "pässword")),
        (encode("_json_key:{\n}\n"), Credential("_json_key", "{\n}\n")),
        (encode("user:"), Credential("user", "")),
        (encode(":pass"), Credential("", "pass")),
        (f"{encode('user:pass')[:4]}\n{encode('user:pass')[4:]}\r\n", Credential("user", "pass")),
        (encode(":"), None),
        (encode(":\0"), None),
        (encode("no colon"), None),
        ("//8=", None),
        ("", None),
    ],
)
async def test_FILE07_auth(path: Path, auth: str, expected: Credential | None) -> None:
    assert await find(path, {"quay.io": {"auth": auth}}) == expected


@pytest.mark.parametrize(
    ("auth", "why"),
    [
        ("dXNlcjpwYXNz=", "not base64"),
        ("dXNlcjpwYXN", "not base64"),
        ("dXNl cjpwYXNz", "not base64"),
        ("dXNl\tcjpwYXNz", "not base64"),
        ("dXNlcjpwYXNz!", "not base64"),
        ("_-_-", "not base64"),
        ("dXNlcjpwYXNz\u00e9", "not base64"),
        ("=", "not base64"),
        ("/zov", "UTF-8"),
        (encode("us\nr:pass"), "username"),
        (encode("user:pa\0ss"), "password"),
    ],
)
async def test_FILE07_auth_that_cannot_be_read(path: Path, auth: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as caught:
        await find(path, {"quay.io": {"auth": auth}})
    assert str(path) in str(caught.value)
    assert "quay.io/a/b/c" in str(caught.value)


async def test_FILE07_what_nobody_asks_for_may_be_broken(path: Path) -> None:
    auths = {"ghcr.io": {"auth": "!"}, "quay.io": entry()}
    assert await find(path, auths) == Credential("user", "pass")


async def test_FILE07_an_entry_without_a_colon_is_told_and_an_empty_one_is_not(path: Path) -> None:
    write_json(path, {"auths": {"quay.io": entry("no colon"), "ghcr.io": {}, "x.io": None}})
    warning = (await AuthFile(path).find("quay.io/a")).warning
    assert warning is not None
    assert "colon" in warning
    assert str(path) in warning
    assert await AuthFile(path).find("ghcr.io/a") == LookupResult()
    assert await AuthFile(path).find("x.io/a") == LookupResult()


async def test_FILE07_TOK03_an_identity_token_goes_with_a_user(path: Path) -> None:
    token = {"identitytoken": "refresh"}
    named, alone = (Credential(user, None, None, "refresh") for user in ("user", None))
    assert await find(path, {"quay.io": entry("user:", **token)}) == named
    assert await find(path, {"quay.io": entry(":", **token)}) == alone
    assert await find(path, {"quay.io": token}) is None


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["quay.io/a/b/c", "quay.io/a/b", "quay.io/a", "quay.io"], "quay.io/a/b/c"),
        (["quay.io", "quay.io/a", "quay.io/a/b"], "quay.io/a/b"),
        (["quay.io", "quay.io/a", "quay.io/a/b/c/d"], "quay.io/a"),
        (["quay.io", "https://quay.io", "quay.io/x"], "quay.io"),
        (["https://quay.io/v1/", "http://quay.io"], "https://quay.io/v1/"),
        (["http://quay.io"], "http://quay.io"),
        (["https://quay.io/a/b/c"], "https://quay.io/a/b/c"),
        (["http://https://quay.io/"], "http://https://quay.io/"),
        (["quay.io/", "quay.io/a/", "quay.io/x", "Quay.io", "quay.io:443", "io"], None),
        (["HTTPS://quay.io", "ftp://quay.io", "https:/quay.io"], None),
    ],
)
async def test_FILE08_order_of_keys(path: Path, keys: list[str], expected: str | None) -> None:
    found = await find(path, {key: entry(f"{number}:x") for number, key in enumerate(keys)})
    assert found == (Credential(str(keys.index(expected)), "x") if expected else None)


@pytest.mark.parametrize("name", ["docker.io/library/busybox", "docker.io", "index.docker.io/a/b"])
@pytest.mark.parametrize(
    "key",
    [
        "docker.io",
        "index.docker.io",
        "registry-1.docker.io",
        "https://docker.io",
        HUB,
        "http://registry-1.docker.io/v2/",
    ],
)
async def test_FILE08_docker_hub_has_three_names(path: Path, name: str, key: str) -> None:
    assert await find(path, {key: entry()}, name) == Credential("user", "pass")


@pytest.mark.parametrize("key", ["docker.io/library", "docker.io/library/busybox"])
async def test_FILE08_namespaces_of_docker_hub(path: Path, key: str) -> None:
    auths = {HUB: entry("all:x"), key: entry()}
    assert await find(path, auths, "docker.io/library/busybox") == Credential("user", "pass")
    assert await find(path, auths, "docker.io/team/app") == Credential("all", "x")
    assert await find(path, {key: entry()}, "index.docker.io/library/busybox") is None


async def test_FILE08_an_empty_entry_that_equals_the_name_hides_the_shorter_ones(
    path: Path,
) -> None:
    assert await find(path, {"quay.io/a": {}, "quay.io": entry()}) is None


async def test_FILE09_ports_make_different_registries(path: Path) -> None:
    auths = {"example.com:5000": entry("with:x"), "example.com": entry("without:x")}
    assert await find(path, auths, "example.com:5000/a") == Credential("with", "x")
    assert await find(path, auths, "example.com/a") == Credential("without", "x")
    assert await find(path, auths, "example.com:443/a") is None


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("quay.io", True),
        ("https://quay.io/v1/", True),
        ("quay.io/v1/", True),
        ("quay.io/a/b/c", True),  # cut to its host, so for all of it
        ("quay.io/x", True),
        ("quay.io:443", False),
    ],
)
async def test_FILE09_legacy_files_know_hosts_only(path: Path, key: str, found: bool) -> None:  # noqa: FBT001 - a parameter of the test
    write_json(path, {key: {"auth": encode("user:pass"), "email": "a@b"}})
    credential = (await AuthFile(path, legacy=True).find("quay.io/a/b/c")).credential
    assert credential == (Credential("user", "pass") if found else None)


async def test_FILE09_in_a_legacy_file_the_host_itself_comes_first(path: Path) -> None:
    write_json(path, {"quay.io/a/b/c": entry("path:x"), "quay.io": entry("host:x")})
    assert (await AuthFile(path, legacy=True).find("quay.io/a/b/c")).credential == Credential(
        "host", "x"
    )


@pytest.mark.parametrize(
    "name", ["quay.io/a@sha256:00", "https://quay.io", "quay.io/a:tag", "", "-x"]
)
async def test_FILE10_what_cannot_be_looked_up(path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError):
        await AuthFile(path).find(name)


async def test_FILE11_a_helper_for_the_host_has_the_word(path: Path) -> None:
    helpers = {"quay.io": "pass", "quay.io/a": "never", "ghcr.io": "x"}
    write_json(path, {"auths": {"quay.io/a/b/c": entry()}, "credHelpers": helpers})
    assert await AuthFile(path).find("quay.io/a/b/c") == LookupResult(HelperCall("pass", "quay.io"))
    assert await AuthFile(path).find("quay.io") == LookupResult(HelperCall("pass", "quay.io"))


@pytest.mark.parametrize("key", ["Quay.io", "https://quay.io", "quay.io:443", "quay.io/a"])
async def test_FILE11_helpers_are_for_their_host_exactly(path: Path, key: str) -> None:
    write_json(path, {"auths": {}, "credHelpers": {key: "pass"}})
    assert await AuthFile(path).find("quay.io/a") == LookupResult()


async def test_FILE06_what_only_docker_knows_is_not_looked_at(path: Path) -> None:
    fields = {"username": "user", "password": "pass", "registrytoken": "t", "identitytoken": "i"}
    write_json(path, {"auths": {"quay.io": fields}, "credsStore": "desktop", "psFormat": 5})
    assert await AuthFile(path).find("quay.io/a") == LookupResult()
    write_json(path, {"auths": {"quay.io": entry(**fields)}, "credHelpers": {HUB: "hub"}})
    both = Credential("user", "pass", None, "i")
    assert await AuthFile(path).find("quay.io/a") == LookupResult(credential=both)
    assert await AuthFile(path).find("docker.io/a/b") == LookupResult()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"username": "user", "password": "pass"}, Credential("user", "pass")),
        ({"identitytoken": "i"}, Credential(None, None, None, "i")),
        ({"registrytoken": "r"}, Credential(None, None, "r")),
        (entry("user:pass", registrytoken="r"), Credential("user", "pass", "r")),
        ({**entry("user:pass"), "username": "other"}, Credential("user", "pass")),
        ({**entry("no colon"), "username": "user"}, Credential("user", "")),
        ({}, None),
        ({"username": "", "password": None}, None),
    ],
)
async def test_FILE06_as_docker_reads_an_entry(
    path: Path, fields: dict[str, str], expected: Credential | None
) -> None:
    assert await find(path, {"quay.io": fields}, docker=True) == expected


async def test_FILE06_the_store_of_docker_comes_after_its_helpers(path: Path) -> None:
    document = {
        "auths": {"ghcr.io": entry()},
        "credHelpers": {"quay.io": "pass", "index.docker.io": "hub"},
        "credsStore": "desktop",
    }
    write_json(path, document)

    async def ask(name: str) -> LookupResult:
        return await AuthFile(path).find(name, docker=True)

    assert await ask("quay.io/a") == LookupResult(HelperCall("pass", "quay.io"))
    assert await ask("docker.io/library/x") == LookupResult(HelperCall("hub", HUB))
    stored = HelperCall("desktop", "ghcr.io")
    assert await ask("ghcr.io/a") == LookupResult(stored, Credential("user", "pass"))
    del document["credHelpers"]
    write_json(path, document)
    assert await ask("docker.io/library/x") == LookupResult(HelperCall("desktop", HUB))


async def test_FILE06_docker_hub_by_the_name_in_references_is_asked_for_by_that(path: Path) -> None:
    write_json(path, {"credHelpers": {"docker.io": "pass", HUB: "never"}})
    for docker in (False, True):
        finding = await AuthFile(path).find("docker.io/a/b", docker=docker)
        assert finding == LookupResult(HelperCall("pass", "docker.io"))


# What is wrong


async def test_FILE05_a_file_that_is_missing_is_empty(path: Path) -> None:
    assert await AuthFile(path).find("quay.io") == LookupResult()
    path.symlink_to(path.parent / "nowhere")
    assert await AuthFile(path).find("quay.io") == LookupResult()


@pytest.mark.parametrize("text", ["null", "{}", '{"auths": null, "credHelpers": null}', " {}\n"])
async def test_FILE05_a_file_that_says_nothing(path: Path, text: str) -> None:
    path.write_text(text)
    assert await AuthFile(path).find("quay.io", docker=True) == LookupResult()
    assert await AuthFile(path, legacy=True).find("quay.io") == LookupResult()


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "is empty"),
        (b" \r\n\t", "is empty"),
        (b"{", "line 1, column 2"),
        (b'{"auths":\n{"quay.io": ', "line 2, column 13"),
        (b"{}{}", "not JSON"),
        (b"{'auths': {}}", "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ("{}".encode("utf-16"), "not JSON"),
        (b"\0" * 100, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"[" * 100_000, "nests too deep"),
        (b'{"auths": ' * 100_000, "nests too deep"),
        (b'{"a":' + b"1" * 5000 + b"}", "not a JSON object"),
        (b'{"a": NaN}', "not a JSON object"),
        (b'{"auths": []}', "wrong type"),
        (b'{"auths": {"quay.io": "dXNlcjpwYXNz"}}', "the entry for quay.io .* not an object"),
        (b'{"auths": {"quay.io": {"auth": 5}}}', "the entry for quay.io .* not an object of texts"),
        (b'{"credHelpers": {"quay.io": ["pass"]}}', "the entry for quay.io .* its helper is not"),
    ],
)
async def test_FILE05_SEC06_a_file_that_is_broken(path: Path, raw: bytes, why: str) -> None:
    path.write_bytes(raw)
    with pytest.raises(ConfigurationError, match=why) as caught:
        await AuthFile(path).find("quay.io")
    assert str(path) in str(caught.value)


async def test_FILE05_a_broken_legacy_file(path: Path) -> None:
    write_json(path, {"quay.io": "dXNlcjpwYXNz"})
    with pytest.raises(ConfigurationError, match=r"the entry for quay.io .* not an object"):
        await AuthFile(path, legacy=True).find("quay.io")


AUTH, OTHER = encode("user:pass"), encode("other:pass")
USER, STORE = Credential("user", "pass"), HelperCall("store", "quay.io")
FOUND, HELPED = LookupResult(credential=USER), LookupResult(STORE)
KEYS = [
    (f'{{"auths": {{"quay.io": {{"auth": "{AUTH}", "new": [1]}}}}, "psFormat": {{}}}}', FOUND),
    (f'{{"AUTHS": {{"quay.io": {{"Auth": "{AUTH}"}}}}}}', FOUND),
    (f'{{"auths": {{"quay.io": {{"auth": "{AUTH}"}}}}, "Auths": {{}}, "aUths": 5}}', FOUND),
    (f'{{"Auths": 5, "auths": {{"quay.io": {{"auth": "{AUTH}"}}}}}}', FOUND),
    (f'{{"auths": {{"quay.io": {{"Auth": "{OTHER}", "auth": "{AUTH}", "AUTH": 5}}}}}}', FOUND),
    (f'{{"auths": {{"quay.io": {{"auth": "{OTHER}", "auth": "{AUTH}"}}}}}}', FOUND),
    (f'{{"auths": 5, "auths": {{"quay.io": 5, "quay.io": {{"auth": "{AUTH}"}}}}}}', FOUND),
    (
        f'{{"auths": {{"quay.io": {{"auth": "{AUTH}"}}, "a": 5, "b": [], "c": {{"auth": 5}}}}}}',
        FOUND,
    ),
    (
        f'{{"auths": {{"quay.io": {{"auth": "{AUTH}"}}}}, "credHelpers": {{"a": 5, "b": []}}}}',
        FOUND,
    ),
    (
        f'{{"auths": {{"quay.io": {{"auth": "{AUTH}"}}}}, "credSstore": "x", "credsStore": ""}}',
        FOUND,
    ),
    (
        f'{{"auths": {{"quay.io": {{"auth": "{AUTH}"}}}}, "credsStore": "", "credSstore": "x"}}',
        FOUND,
    ),
    ('{"auths": {"quay.io": {"auth": "", "USERNAME": "user", "Password": "pass"}}}', FOUND),
    ('{"CredsStore": "store", "HttpHeaders": null}', HELPED),
    ('{"credsStore": "other", "credsStore": "store"}', HELPED),
    ('{"CREDHELPERS": {"quay.io": "store"}}', HELPED),
    ('{"credHelpers": {"quay.io": "store"}, "credhelpers": {"quay.io": "other"}}', HELPED),
    ('{"auths": {"quay.io": null}, "auths": null}', LookupResult()),
]


@pytest.mark.parametrize(("text", "expected"), KEYS)
async def test_FILE01_no_key_of_another_program_refuses_a_file(
    path: Path, text: str, expected: LookupResult
) -> None:
    path.write_text(text)
    assert await AuthFile(path).find("ghcr.io") == LookupResult()
    assert await AuthFile(path).find("quay.io/team/app", docker=True) == expected
    assert await AuthVariable("X", text).find("quay.io/team/app", docker=True) == expected


@given(st.text(max_size=20), st.sampled_from(["auths", "credHelpers", "credsStore", "auth"]))
async def test_FILE01_any_other_key_is_ignored(junk: str, near: str) -> None:
    known: dict[str, object] = {
        "auths": {"quay.io": {"auth": AUTH, junk: {near: 5}, near.upper(): 5}}
    }
    known |= {"credHelpers": {}, "credsStore": ""}
    text = json.dumps({junk: [5], f"{near}x": 5, near.swapcase(): [], **known})
    assert await AuthVariable("X", text).find("quay.io", docker=True) == FOUND


ENVIRONMENTS = [
    ({}, "runtime"),
    ({"DOCKER_AUTH_CONFIG": "inline"}, "inline"),
    ({"DOCKER_AUTH_CONFIG": " "}, "runtime"),
    ({"DOCKER_AUTH_CONFIG": "{}"}, "runtime"),
    ({"DOCKER_CONFIG": "docker"}, "docker"),
    ({"DOCKER_AUTH_CONFIG": "inline", "DOCKER_CONFIG": "docker"}, "inline"),
    ({"DOCKER_AUTH_CONFIG": "{}", "DOCKER_CONFIG": "docker"}, "docker"),
    ({"DOCKER_AUTH_CONFIG": "inline", "REGISTRY_AUTH_FILE": "named.json"}, "named"),
    ({"DOCKER_AUTH_CONFIG": "inline", "REGISTRY_AUTH_FILE": "empty.json"}, None),
]


@pytest.mark.parametrize(("variables", "expected"), ENVIRONMENTS)
async def test_FILE01_FILE04_what_an_environment_says(
    variables: dict[str, str], expected: str | None, tmp_path: Path
) -> None:
    def text(user: str) -> str:
        return json.dumps({"auths": {"quay.io": entry(f"{user}:pass")}})

    write_json(tmp_path / "empty.json", {})
    for name in ("runtime/containers/auth.json", "docker/config.json", "named.json"):
        write_json(tmp_path / name, {}).write_text(text(Path(name.partition("/")[0]).stem))
    environ = {name: str(tmp_path / value) for name, value in variables.items()}
    environ |= {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "runtime")}
    value = variables.get("DOCKER_AUTH_CONFIG")
    environ["DOCKER_AUTH_CONFIG"] = text("inline") if value == "inline" else value or ""
    found = await AuthFileCredentials(AuthFiles.of_environment(environ))("quay.io/a")
    assert found == (None if expected is None else Credential(expected, "pass"))


async def test_FILE05_CRED07_a_broken_variable_is_named_and_not_shown() -> None:
    files = AuthFiles.default({"DOCKER_AUTH_CONFIG": f'{{"auths": "{SECRET_SENTINEL}"'})
    with pytest.raises(
        ConfigurationError, match=r"the auth file \$DOCKER_AUTH_CONFIG is not JSON"
    ) as caught:
        await AuthFileCredentials(files)("quay.io")
    assert secrets_in(words_of(caught.value) + repr(files)) == []


async def test_FILE05_a_pipe_is_no_file_and_nobody_waits_for_it(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        await AuthFile(path).find("quay.io")


@pytest.mark.parametrize("special", ["/dev/zero", "/dev/null", "/"])
async def test_FILE05_nor_is_a_device_or_a_directory(special: str) -> None:
    with pytest.raises(ConfigurationError, match="not a regular file"):
        await AuthFile(Path(special)).find("quay.io")


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ELOOP, errno.EMFILE])
async def test_FILE05_a_file_that_cannot_be_read(path: Path, code: int) -> None:
    write_json(path, {"auths": {"quay.io": entry()}})
    with (
        failing_open(path, code),
        pytest.raises(ConfigurationError, match=os.strerror(code)) as caught,
    ):
        await AuthFile(path).find("quay.io")
    assert str(path) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


async def test_FILE05_a_file_has_a_largest_size(path: Path) -> None:
    document = b'{"auths": {"quay.io": {"auth": "dXNlcjpwYXNz"}}}'
    path.write_bytes(document.ljust(MAX_AUTH_FILE))
    assert (await AuthFile(path).find("quay.io")).credential == Credential("user", "pass")
    path.write_bytes(document.ljust(MAX_AUTH_FILE + 1))
    with pytest.raises(ConfigurationError, match=str(MAX_AUTH_FILE)):
        await AuthFile(path).find("quay.io")


@given(
    st.dictionaries(
        st.text("abq./:-", max_size=6) | st.sampled_from(["quay.io", "quay.io/a", HUB]),
        st.builds(entry, st.text(st.characters(codec="utf-8"), max_size=6)),
        max_size=5,
    ),
    st.sampled_from(["quay.io", "quay.io/a", "docker.io/library/a", "a:1/b", "b"]),
)
async def test_FILE08_any_file_has_one_answer(
    tmp_path_factory: pytest.TempPathFactory, auths: dict[str, Any], name: str
) -> None:
    path = write_json(tmp_path_factory.mktemp("any") / "auth.json", {"auths": auths})
    try:
        finding = await AuthFile(path).find(name)
    except ConfigurationError:
        return
    if finding.credential is not None:
        hosts = {key.removeprefix("https://").partition("/")[0] for key in auths}
        registry = name.partition("/")[0]
        assert hosts & {registry, "index.docker.io"}
