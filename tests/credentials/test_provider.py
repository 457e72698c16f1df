"""Files and helpers together, as a session asks them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.credentials import (
    AUTH_FILES,
    AuthFile,
    AuthFileCredentials,
    AuthFiles,
)
from asupplemented.errors import (
    ConfigurationError,
    SupplementedError,
    UnauthorizedError,
)
from asupplemented.events import Warned
from asupplemented.model.credential import Credential
from asupplemented.session import Session
from asupplemented.testing import Basic, Bearer, FakeRegistry
from tests.credentials.keepers import (
    SECRET_SENTINEL,
    USER_SENTINEL,
    PatientClock,
    Shelf,
    encode,
    entry,
    secrets_in,
    words_of,
    write_json,
)
from tests.suspending import cancel_at_every_await, wait_until
from tests.transports.places import failing_open
from tests.transports.registry.sessions import fill, watch

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = "credentials not found in native keychain"
NAME = "quay.io/team/app"


def credential(user: str) -> Credential:
    return Credential(user, "pass")


def trouble_of(found: Credential | None) -> str:
    assert found is not None
    return found.trouble or ""


class Stored:
    """Auth files and helpers of one test, and the providers that read them.

    Attributes:
        warnings: The warnings for the operator.
    """

    def __init__(self, shelf: Shelf, root: Path) -> None:
        self.shelf = shelf
        self.clock = PatientClock()
        self.warnings: list[str] = []
        self.paths = [root / f"{number}.json" for number in range(3)]

    def write(self, *documents: Any) -> None:
        """Write files: text as it is, None for none, anything else as JSON."""
        for path, document in zip(self.paths, documents, strict=False):
            if isinstance(document, str):
                path.write_text(document)
            elif document is not None:
                write_json(path, document)

    def provider(self, **options: Any) -> AuthFileCredentials:
        files = AuthFiles(tuple(map(AuthFile, self.paths)))
        given: dict[str, Any] = {
            "environ": self.shelf.environ,
            "warn": self.warnings.append,
            "clock": self.clock.clock,
            **options,
        }
        return AuthFileCredentials(files, **given)


@pytest.fixture
def stored(shelf: Shelf, tmp_path: Path) -> Stored:
    return Stored(shelf, tmp_path)


# Files in order


async def test_FILE01_the_first_file_that_knows_has_the_word(stored: Stored) -> None:
    stored.write(
        {"auths": {"ghcr.io": entry("zero:pass"), "quay.io": {}}},
        {"auths": {"quay.io": entry("one:pass")}},
        {"auths": {"quay.io/team/app": entry("two:pass"), "x.io": entry("x:pass")}},
    )
    ask = stored.provider()
    assert await ask(NAME) == credential("one")
    assert await ask("x.io/a") == credential("x")
    assert await ask("y.io/a") is None


async def test_FILE01_a_path_is_the_only_file(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_json(tmp_path / ".docker/config.json", {"auths": {"quay.io": entry("home:pass")}})
    stored.write({"auths": {"ghcr.io": entry()}})
    only = AuthFileCredentials(stored.paths[0])
    assert only.files == AuthFiles.explicit(stored.paths[0])
    assert await only("ghcr.io/a") == credential("user")
    assert await only(NAME) is None
    assert await AuthFileCredentials(str(stored.paths[1]))(NAME) is None


async def test_FILE01_the_default_files_if_none_are_named(
    stored: Stored, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_json(tmp_path / ".docker/config.json", {"auths": {"quay.io": entry("home:pass")}})
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    assert await AuthFileCredentials(environ=environ)(NAME) == credential("home")
    for name in ("XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert await AuthFileCredentials()(NAME) == credential("home")


async def test_a_file_is_read_each_time(stored: Stored) -> None:
    ask = stored.provider()
    assert await ask(NAME) is None
    stored.write({"auths": {"quay.io": entry("after:pass")}})
    assert await ask(NAME) == credential("after")


@pytest.mark.parametrize(
    "broken", ["", " \n", "{", '{"auths": {"quay.io": {"auth": "!"}}}', '{"auths": 5}']
)
async def test_FILE05_a_broken_file_ends_the_search_in_files(stored: Stored, broken: str) -> None:
    stored.write(None, broken, {"auths": {"quay.io": entry()}})
    with pytest.raises(ConfigurationError, match=str(stored.paths[1])):
        await stored.provider()(NAME)
    stored.write({"auths": {"quay.io": entry("before:pass")}})
    assert await stored.provider()(NAME) == credential("before")


async def test_FILE05_but_not_that_in_helpers(stored: Stored) -> None:
    stored.write("{")
    stored.shelf.add_user("x")
    assert await stored.provider(helpers=[AUTH_FILES, "x"])(NAME) == credential("user")


async def test_FILE05_errors_go_before_nothing_found(stored: Stored) -> None:
    stored.write("{")
    stored.shelf.add_answer("empty", NOTHING, status=1)
    stored.shelf.add_answer("locked", "", status=1)
    with pytest.raises(ConfigurationError, match="not JSON") as caught:
        await stored.provider(helpers=["empty", AUTH_FILES, "empty", "locked"])(NAME)
    [note] = caught.value.__notes__
    assert "docker-credential-locked exited with status 1" in note


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
async def test_FILE05_no_file_at_all(stored: Stored, make: Callable[[Path], None]) -> None:
    make(stored.paths[0])
    with pytest.raises(ConfigurationError, match="not a regular file"):
        await stored.provider()(NAME)


async def test_FILE05_a_file_without_permission(stored: Stored) -> None:
    stored.write({"auths": {"quay.io": entry()}})
    with (
        failing_open(stored.paths[0], errno.EACCES),
        pytest.raises(ConfigurationError, match="permissions"),
    ):
        await stored.provider()(NAME)


@pytest.mark.parametrize("name", ["https://quay.io", "quay.io/a:b", "quay.io/a@b", ""])
async def test_FILE10_what_cannot_be_looked_up(stored: Stored, name: str) -> None:
    stored.shelf.add_user("x")
    with pytest.raises(ConfigurationError, match="'host:5000'"):
        await stored.provider(helpers=["x"])(name)
    assert stored.shelf.runs("x") == 0


# Helpers within files


async def test_FILE11_HELP01_a_helper_is_asked_for_the_host(stored: Stored) -> None:
    stored.write({"auths": {NAME: entry("file:pass")}, "credHelpers": {"quay.io": "x"}})
    stored.shelf.add_user("x", "helper")
    assert await stored.provider()(NAME) == credential("helper")
    assert stored.shelf.read("x.stdin") == "quay.io"


async def test_FILE11_if_it_knows_nothing_the_next_file_is_read_and_not_this_one(
    stored: Stored,
) -> None:
    document = {"auths": {"quay.io": entry("file:pass")}, "credHelpers": {"quay.io": "x"}}
    stored.write(document, {"auths": {"quay.io": entry("next:pass")}})
    stored.shelf.add_answer("x", NOTHING, status=1)
    assert await stored.provider()(NAME) == credential("next")


async def test_FILE11_FILE01_if_it_fails_the_next_file_is_read(stored: Stored) -> None:
    stored.write({"credHelpers": {"quay.io": "x"}}, {"auths": {"quay.io": entry()}})
    stored.shelf.add_answer("x", "locked", status=1)
    found = await stored.provider()(NAME)
    assert found == credential("user")
    assert "docker-credential-x exited" in trouble_of(found)
    assert str(stored.paths[0]) in trouble_of(found)


@pytest.mark.parametrize("suffix", ["x; rm", "../../bin/sh", "", "x\0"])
async def test_FILE11_SEC12_a_helper_that_is_none(stored: Stored, suffix: str) -> None:
    stored.write({"credHelpers": {"quay.io": suffix}})
    trouble = trouble_of(await stored.provider()(NAME))
    assert "is not the name of a cred" in trouble
    assert str(stored.paths[0]) in trouble


async def test_FILE06_the_store_of_docker_is_asked_before_its_file(stored: Stored) -> None:
    stored.write({"auths": {"quay.io": entry("file:pass")}, "credsStore": "store"})
    stored.shelf.add_user("store", "store")
    assert await stored.provider()(NAME) == credential("file")
    assert await stored.provider(docker=True)(NAME) == credential("store")
    stored.shelf.add_answer("store", NOTHING, status=1)
    assert await stored.provider(docker=True)(NAME) == credential("file")
    stored.shelf.add_answer("store", "locked", status=1)
    found = await stored.provider(docker=True)(NAME)
    assert found == credential("file")
    assert "docker-credential-store exited" in trouble_of(found)


async def test_FILE06_docker_asks_for_its_hub_in_its_own_way(stored: Stored) -> None:
    stored.write({"credsStore": "store"})
    stored.shelf.add_user("store")
    assert await stored.provider(docker=True)("docker.io/library/busybox") == credential("user")
    assert stored.shelf.read("store.stdin") == "https://index.docker.io/v1/"


# Helpers beside files


@pytest.mark.parametrize(
    ("helpers", "expected"),
    [
        ([AUTH_FILES], "file"),
        (["a", AUTH_FILES], "a"),
        ([AUTH_FILES, "a"], "file"),
        (["empty", "b", "a"], "b"),
        (["locked", "a"], "a"),
        ([], None),
        (["empty"], None),
    ],
)
async def test_FILE12_helpers_in_order(
    stored: Stored, helpers: list[str], expected: str | None
) -> None:
    stored.write({"auths": {NAME: entry("file:pass")}})
    stored.shelf.add_user("a", "a")
    stored.shelf.add_user("b", "b")
    stored.shelf.add_answer("empty", NOTHING, status=1)
    stored.shelf.add_answer("locked", "", status=1)
    found = await stored.provider(helpers=helpers)(NAME)
    assert found == (None if expected is None else credential(expected))


async def test_FILE12_the_files_are_the_list_unless_another_is_given(stored: Stored) -> None:
    stored.write({"auths": {"quay.io": entry("file:pass")}})
    assert AUTH_FILES == "containers-auth.json"
    assert await AuthFileCredentials(stored.paths[0])(NAME) == credential("file")


@pytest.mark.parametrize("helper", ["", "x; rm", "containers-auth.json/x"])
def test_FILE12_SEC12_a_list_with_a_helper_that_is_none(helper: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the name of a cred"):
        AuthFileCredentials(helpers=[helper])


async def test_HELP03_files_and_list_share_what_a_helper_said(stored: Stored) -> None:
    stored.write({"credHelpers": {"quay.io": "x"}})
    stored.shelf.add_user("x", "helper")
    ask = stored.provider(helpers=["x", AUTH_FILES])
    found = await asyncio.gather(*(ask(f"quay.io/team/{number}") for number in range(8)))
    assert found == [credential("helper")] * 8
    assert stored.shelf.runs("x") == 1


async def test_HELP03_too_slow_or_too_much(stored: Stored) -> None:
    stored.shelf.add("slow", 'touch "$SHELF/slow"; exec sleep 1000')
    stored.shelf.add("loud", "exec yes")
    clock = PatientClock((stored.shelf.root / "slow").exists)
    slow = await stored.provider(helpers=["slow"], clock=clock.clock)(NAME)
    loud = await stored.provider(helpers=["loud"])(NAME)
    assert slow == loud == Credential()
    assert "docker-credential-slow" in trouble_of(slow)
    assert "docker-credential-loud" in trouble_of(loud)


# Being told


async def test_FILE03_FILE07_what_the_operator_should_know_is_told_once(
    stored: Stored, tmp_path: Path
) -> None:
    stored.write({"auths": {"quay.io": entry("no colon")}})
    missing = tmp_path / "missing"
    files = AuthFiles((AuthFile(missing / "x", within=missing), AuthFile(stored.paths[0])))
    ask = AuthFileCredentials(files, warn=stored.warnings.append)
    for _ in range(3):
        assert await ask(NAME) is None
    runtime, colon = stored.warnings
    assert "XDG_RUNTIME_DIR" in runtime
    assert "colon" in colon
    assert await AuthFileCredentials(files)(NAME) is None


async def test_only_so_many_warnings_are_told(stored: Stored) -> None:
    stored.write({"auths": {f"host{number}": entry("no colon") for number in range(100)}})
    ask = stored.provider()
    for number in range(100):
        await ask(f"host{number}")
    assert len(stored.warnings) == 64


# Secrets


async def test_CRED07_SEC14_nothing_secret_is_said(
    stored: Stored, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(0)
    asyncio.get_running_loop().set_debug(True)
    pair = f"{USER_SENTINEL}:{SECRET_SENTINEL}"
    auth = encode(pair)
    documents: list[Any] = [
        f'{{"auths": {{"quay.io": {{"auth": "{auth}"}}',
        f'{{"auths": {{"quay.io": {{"auth": "{auth}!"}}}}}}',
        f'{{"auths": {{"quay.io": {{"auth": ["{auth}"]}}}}}}',
        f'{{"auths": {{"quay.io": {{"auth": "{auth}", "auth": ""}}}}}}',
        f'{{"auths": {{"https://{pair}@quay.io": 5}}}}',
        f'{{"auths": {{"https://{pair}@quay.io": {{}}, "https://{pair}@quay.io": {{}}}}}}',
        f'"{auth}"',
        f"{auth}\n",
        {"auths": {"quay.io": {"auth": encode(f"{pair}\0x")}}},
        {"auths": {"quay.io": {"auth": encode(f"{USER_SENTINEL}\n:{SECRET_SENTINEL}")}}},
        {"auths": {"quay.io": {"auth": encode(SECRET_SENTINEL)}}},
        {"auths": {"quay.io": {**entry(pair), "identitytoken": f"{SECRET_SENTINEL}\n"}}},
        {"credHelpers": {"quay.io": "echo"}},
        {"credHelpers": {"quay.io": "fail"}},
        {"auths": {"quay.io": entry(pair)}},
    ]
    answer = json.dumps({"Username": USER_SENTINEL, "Secret": SECRET_SENTINEL})
    stored.shelf.add_answer("echo", answer[:-1])
    stored.shelf.add_answer("fail", answer, status=1)
    said: list[str] = []
    for document in documents:
        stored.write(document)
        ask = stored.provider()
        try:
            found = await ask(NAME)
            said += [repr(found), "" if found is None else trouble_of(found)]
        except SupplementedError as error:
            said.append(words_of(error))
        said += [repr(ask), repr(ask.files), repr(Session(credentials=ask).credentials)]
        said += map(repr, vars(ask).values())
    assert sum("Error" in text for text in said) == 8
    assert secrets_in("\n".join([*said, *stored.warnings, caplog.text, *capfd.readouterr()])) == []
    assert any("colon" in warning for warning in stored.warnings)


def test_its_repr_tells_where_it_looks(stored: Stored) -> None:
    assert str(stored.paths[2]) in repr(stored.provider())
    assert repr(AuthFileCredentials(AuthFiles())) == "<AuthFileCredentials from no file>"


# Cancellation


async def test_SEC16_cancelled_at_every_await_it_can_be_asked_again(stored: Stored) -> None:
    stored.write({"credHelpers": {"quay.io": "empty"}}, {"auths": {"quay.io": entry()}})
    stored.shelf.add_answer("empty", NOTHING, status=1)

    async def check() -> None:
        await wait_until(stored.shelf.is_quiet, every=0.005)

    awaits = await cancel_at_every_await(lambda: stored.provider()(NAME), check)
    assert awaits >= 5
    assert await stored.provider()(NAME) == credential("user")


# In a session


TROUBLES = ["missing", "fails", "garbage", "number", "refused", "locked"]


@pytest.mark.parametrize("suffix", [*TROUBLES, "../x", ""])
@pytest.mark.parametrize("place", ["credHelpers", "credsStore", "registries.conf"])
async def test_FILE01_a_helper_that_fails_ends_no_public_pull(
    stored: Stored, suffix: str, place: str
) -> None:
    for known, answer, status in (
        ("fails", "", 1),
        ("garbage", "not json", 0),
        ("number", {"Username": 5}, 0),
        ("refused", {"Username": "a:b", "Secret": "s"}, 0),
    ):
        stored.shelf.add_answer(known, answer, status=status)
    stored.shelf.add("locked", "kill -9 $$")
    helpers = [AUTH_FILES]
    async with FakeRegistry(access=Bearer()) as public, FakeRegistry(access=Basic({})) as closed:
        if place == "registries.conf":
            if suffix not in TROUBLES:
                return  # Refused when the provider is made.
            helpers.append(suffix)
        elif place == "credsStore":
            if not suffix:
                return  # No helper.
            stored.write({place: suffix})
        else:
            stored.write({place: {public.host: suffix, closed.host: suffix}})
        ask = stored.provider(docker=True, helpers=helpers)
        async with watch(credentials=ask) as watched:
            await watched.try_open(fill(public))
            warned = [event for event in watched.events if isinstance(event, Warned)]
            assert (
                len([each for each in warned if "a credential helper failed" in each.message]) == 1
            )
            with pytest.raises(UnauthorizedError) as caught:
                await watched.try_open(fill(closed))
    origin = place if place == "registries.conf" else str(stored.paths[0])
    named = f"docker-credential-{suffix}" if suffix in TROUBLES else "name of a credential helper"
    assert named in str(caught.value)
    assert origin in str(caught.value)


@pytest.mark.parametrize("pair", [("user", ""), ("", "pass")])
@pytest.mark.parametrize("source", ["file", "fields", "helper", "caller", "variable"])
@pytest.mark.parametrize("scheme", ["basic", "bearer"])
async def test_FILE01_half_a_login_is_sent(
    stored: Stored, pair: tuple[str, str], source: str, scheme: str
) -> None:
    username, password = pair
    access = (
        Basic({username: password})
        if scheme == "basic"
        else Bearer({username: password}, public=False)
    )
    async with FakeRegistry(access=access) as registry:
        fields = entry(":".join(pair))
        if source == "fields":
            fields = {"username": username, "password": password}
        document = {"auths": {registry.host: fields}}
        if source == "helper":
            stored.shelf.add_user("x", username, password)
            document = {"credHelpers": {registry.host: "x"}}
        stored.write(document)
        credentials: Any = stored.provider(docker=True)
        if source == "caller":
            credentials = {registry.host: pair}
        elif source == "variable":
            environ = {"DOCKER_AUTH_CONFIG": json.dumps(document)}
            credentials = AuthFileCredentials(environ=environ)
        async with watch(credentials=credentials) as watched:
            with suppress(UnauthorizedError):  # The registry of the test knows no empty user.
                await watched.try_open(fill(registry))
    sent = [request.header("Authorization") for request in registry.requests]
    assert f"Basic {encode(':'.join(pair))}" in sent


async def test_FILE08_a_session_asks_for_the_repository(stored: Stored) -> None:
    async with FakeRegistry(access=Basic({"team": "x", "app": "x", "host": "x"})) as registry:
        wanted = {"team/app": "app", "team/other": "team", "elsewhere": "host"}
        keys = {"team/app": "app", "team": "team"}
        auths = {f"{registry.host}/{key}": entry(f"{user}:x") for key, user in keys.items()}
        stored.write({"auths": {**auths, registry.host: entry("host:x")}})
        async with watch(credentials=stored.provider()) as watched:
            for repository in wanted:
                await watched.try_open(fill(registry, repository))
        for repository, user in wanted.items():
            *_, request = registry.select_requests(f"/v2/{repository}/manifests/latest")
            assert request.header("Authorization") == f"Basic {encode(f'{user}:x')}"


async def test_TOK03_HELP02_an_identity_token_of_a_helper_opens_a_registry(stored: Stored) -> None:
    access = Bearer(refresh_tokens={"refresh": "bob"}, public=False)
    async with FakeRegistry(access=access) as registry:
        stored.shelf.add_user("x", "<token>", "refresh")
        async with watch(credentials=stored.provider(helpers=["x"])) as watched:
            await watched.try_open(fill(registry))
        [asked] = registry.select_requests("/token")
    assert (asked.method, [token.user for token in access.tokens]) == ("POST", ["bob"])
    assert stored.shelf.read("x.stdin") == registry.host


async def test_TOK03_FILE07_and_one_of_a_file(stored: Stored) -> None:
    access = Bearer(refresh_tokens={"refresh": "bob"}, public=False)
    async with FakeRegistry(access=access) as registry:
        fields = entry("bob:", identitytoken="refresh")
        stored.write({"auths": {registry.host: fields}})
        async with watch(credentials=stored.provider()) as watched:
            await watched.try_open(fill(registry))
    assert [token.user for token in access.tokens] == ["bob"]


async def test_SRC04_sixteen_references_ask_a_helper_once(stored: Stored) -> None:
    async with FakeRegistry(access=Basic({"user": "pass"})) as registry:
        stored.shelf.add_user("x")
        async with watch(credentials=stored.provider(helpers=["x"])) as watched:
            references = [fill(registry, f"team/app{number}") for number in range(16)]
            await asyncio.gather(*map(watched.try_open, references))
            assert repr(watched.pool).startswith("<RegistryPool: 1 clients,")
    assert stored.shelf.runs("x") == 1


async def test_CRED07_a_wrong_password_of_a_file_is_not_told(stored: Stored) -> None:
    async with FakeRegistry(access=Basic({})) as registry:
        stored.write({"auths": {registry.host: entry(f"{USER_SENTINEL}:{SECRET_SENTINEL}")}})
        async with watch(credentials=stored.provider()) as watched:
            with pytest.raises(UnauthorizedError) as caught:
                await watched.try_open(fill(registry))
    assert secrets_in(words_of(caught.value)) == []


async def test_a_broken_file_is_not_a_registry_that_is_away(stored: Stored) -> None:
    stored.write("{")
    async with FakeRegistry() as registry, watch(credentials=stored.provider()) as watched:
        with pytest.raises(ConfigurationError) as caught:
            await watched.try_open(fill(registry))
        assert registry.requests == []
    assert str(stored.paths[0]) in str(caught.value)
