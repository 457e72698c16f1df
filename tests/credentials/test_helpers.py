"""Credential helpers: what they are asked, what they answer, and for how long that is good."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.credentials import CredentialHelpers, HelperLimits
from asupplemented.credentials.helper_process import Outcome
from asupplemented.credentials.helpers import parse_answer
from asupplemented.errors import (
    ConfigurationError,
    LimitExceededError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
)
from asupplemented.model.credential import Credential
from tests.credentials.keepers import (
    SECRET_SENTINEL,
    USER_SENTINEL,
    PatientClock,
    Shelf,
    is_running,
    secrets_in,
    words_of,
)
from tests.suspending import cancel_at_every_await, wait_until

if TYPE_CHECKING:
    from pathlib import Path

NOTHING = "credentials not found in native keychain"


def helpers(shelf: Shelf, clock: PatientClock | None = None, **limits: Any) -> CredentialHelpers:
    clock = clock or PatientClock()
    return CredentialHelpers(
        environ=shelf.environ, limits=HelperLimits(**limits), clock=clock.clock
    )


def read(answer: object, status: int = 0) -> Credential | None:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return parse_answer(Outcome(status, text.encode()), "docker-credential-x", "quay.io")


# What is asked


@pytest.mark.parametrize("server", ["quay.io", "localhost:5000", "[::1]:5000", "Quay.io"])
async def test_HELP01_the_question(shelf: Shelf, server: str) -> None:
    shelf.add_user("x")
    assert await helpers(shelf).get("x", server) == Credential("user", "pass")
    assert shelf.read("x.stdin") == server
    assert shelf.read("x.arguments") == "get|"


@pytest.mark.parametrize("suffix", ["pass", "ecr-login", "gcr_2.0", "a" * 128])
async def test_HELP03_names_of_helpers(shelf: Shelf, suffix: str) -> None:
    shelf.add_user(suffix)
    assert await helpers(shelf).get(suffix, "quay.io") == Credential("user", "pass")


@pytest.mark.parametrize(
    "suffix",
    [
        "",
        "x; rm",
        "../../bin/sh",
        "/bin/sh",
        "x\0",
        "x\n",
        "$(x)",
        "x y",
        "péss",
        "pas\u017f",
        "a" * 129,
        "a" * 1_000_000,
    ],
)
async def test_HELP03_SEC12_names_that_no_helper_has(shelf: Shelf, suffix: str) -> None:
    with pytest.raises(ConfigurationError, match="is not the name of a cred") as caught:
        await helpers(shelf).get(suffix, "quay.io")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("server", ["", "-x", "quay.io\n", "a\0b", "quäy", "a b", "x" * 513])
async def test_HELP01_SEC12_what_no_helper_is_asked_for(shelf: Shelf, server: str) -> None:
    shelf.add_user("x")
    with pytest.raises(ConfigurationError, match="it is not a host"):
        await helpers(shelf).get("x", server)
    assert shelf.runs("x") == 0


async def test_HELP01_a_helper_comes_from_PATH(shelf: Shelf, tmp_path: Path) -> None:
    first = Shelf(tmp_path / "first")
    first.add_user("x", "first")
    shelf.add_user("x", "second")
    path = f"{first.bin}{os.pathsep}{shelf.environ['PATH']}"
    environ = {**shelf.environ, "PATH": path, "SHELF": str(first.root)}
    assert await CredentialHelpers(environ=environ).get("x", "a") == Credential("first", "pass")


async def test_HELP01_PATH_is_that_of_the_process_if_nothing_else_is_said(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.add_user("x")
    for name, value in shelf.environ.items():
        monkeypatch.setenv(name, value)
    assert await CredentialHelpers().get("x", "quay.io") == Credential("user", "pass")


@pytest.mark.parametrize("path", ["", ".", "bin", f".{os.pathsep}bin{os.pathsep}"])
async def test_SEC12_not_from_wherever_we_are(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    shelf.add_user("x")
    monkeypatch.chdir(shelf.bin if path == "." else shelf.root)
    asked = CredentialHelpers(environ={**shelf.environ, "PATH": path})
    with pytest.raises(ConfigurationError, match="docker-credential-x on PATH"):
        await asked.get("x", "quay.io")


async def test_a_helper_that_is_missing_or_cannot_run(shelf: Shelf) -> None:
    with pytest.raises(ConfigurationError, match="install it"):
        await helpers(shelf).get("missing", "quay.io")
    shelf.add_user("plain").chmod(0o644)
    with pytest.raises(ConfigurationError, match="install it"):
        await helpers(shelf).get("plain", "quay.io")
    shelf.add_user("broken").write_text("#!/nowhere/sh\n")
    with pytest.raises(ConfigurationError, match=r"cannot run .*: No such file"):
        await helpers(shelf).get("broken", "quay.io")


# What is answered


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"ServerURL": "quay.io", "Username": "u", "Secret": "s"}, Credential("u", "s")),
        ({"Username": "u", "Secret": "s", "Extra": [1]}, Credential("u", "s")),
        ({"Username": "u", "Secret": "a:b\nc"}, Credential("u", "a:b\nc")),
        ('{"Username": "u", "Secret": "s"}\nand more', Credential("u", "s")),
        ({"Username": "u"}, Credential("u", "")),
        ({"username": "u", "SECRET": "s"}, Credential("u", "s")),
        (
            '{"Username": "a", "username": "b", "Username": "u", "Secret": "s"}',
            Credential("u", "s"),
        ),
        ({"Username": "", "Secret": "s"}, Credential("", "s")),
        ({"Username": "", "Secret": ""}, None),
        ({"Username": None, "Secret": None}, None),
        ({}, None),
    ],
)
def test_HELP01_answers(answer: object, expected: Credential | None) -> None:
    assert read(answer) == expected


def test_HELP02_TOK03_an_identity_token() -> None:
    assert read({"Username": "<token>", "Secret": "t"}) == Credential(None, None, None, "t")
    assert read({"Username": "<token>", "Secret": ""}) is None
    assert read({"Username": "<TOKEN>", "Secret": "t"}) == Credential("<TOKEN>", "t")


@pytest.mark.parametrize("text", [NOTHING, f"{NOTHING}\n", f"\t{NOTHING} \r\n"])
def test_HELP02_nothing_found(text: str) -> None:
    assert read(text, status=1) is None
    with pytest.raises(ConfigurationError):
        read(text, status=0)


@pytest.mark.parametrize(
    ("text", "status", "how"),
    [
        ("", 1, "exited with status 1"),
        (f"error: {NOTHING}", 1, "exited with status 1"),
        (f"{NOTHING}!", 255, "exited with status 255"),
        ('{"Username": "u", "Secret": "s"}', 3, "exited with status 3"),
        (NOTHING[:-1], -9, "signal 9"),
    ],
)
def test_HELP02_failures(text: str, status: int, how: str) -> None:
    with pytest.raises(SourceError, match=how) as caught:
        read(text, status)
    assert "docker-credential-x" in str(caught.value)
    assert "quay.io" in str(caught.value)
    assert "to see why, run docker-credential-x get" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        "[" * 100_000,
        '{"Username": 5}',
        '{"Username": "a:b", "Secret": "s"}',
        '{"Username": "u", "Secret": "s\\u0000"}',
        '{"Username": "<token>", "Secret": "s\\n"}',
    ],
)
def test_HELP01_answers_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"the answer of docker-credential-x for quay\.io"):
        read(text)


SECRETS = json.dumps({"Username": USER_SENTINEL, "Secret": SECRET_SENTINEL}).encode()
LEAKY = (
    f'{{"Username": {{"{SECRET_SENTINEL}": "{SECRET_SENTINEL}"}}}}',
    f'{{"Username": 1, "{SECRET_SENTINEL}": "{SECRET_SENTINEL}"}}',
    f'{{"Username": "{USER_SENTINEL}:", "Secret": "{SECRET_SENTINEL}"}}',
    f'{{"Username": "<token>", "Secret": "{SECRET_SENTINEL}\\n"}}',
    f'{{"Username": ["{SECRET_SENTINEL}"]}}',
    f'{{"a": "{SECRET_SENTINEL}", "b": {"[" * 200}',
)


def say(output: bytes, status: int) -> str:
    """What is said of an answer that is none, "" if it is one."""
    try:
        parse_answer(Outcome(status, output), "docker-credential-x", "quay.io")
    except SupplementedError as error:
        return words_of(error)
    return ""


@given(
    st.integers(0, len(SECRETS)).map(lambda end: SECRETS[:end])
    | st.integers(0, len(SECRETS)).map(lambda at: SECRETS[:at] + b"\xff" + SECRETS[at:])
    | st.binary(max_size=8).map(lambda junk: junk + SECRETS),
    st.sampled_from([0, 1, -15]),
)
def test_HELP03_CRED07_what_it_printed_is_not_shown(output: bytes, status: int) -> None:
    assert secrets_in(say(output, status)) == []


@pytest.mark.parametrize("output", LEAKY)
@pytest.mark.parametrize("status", [0, 1])
def test_HELP03_CRED07_nor_is_what_is_wrong_with_it(output: str, status: int) -> None:
    said = say(output.encode(), status)
    assert said
    assert secrets_in(said) == []


async def test_HELP02_nothing_found_by_a_program(shelf: Shelf) -> None:
    shelf.add_answer("x", f"{NOTHING}\n", status=1)
    assert await helpers(shelf).get("x", "quay.io") is None


# For how long


async def test_HELP03_an_answer_is_good_for_five_minutes(shelf: Shelf) -> None:
    shelf.add_user("x", "before")
    clock = PatientClock()
    asked = helpers(shelf, clock)
    assert await asked.get("x", "quay.io") == Credential("before", "pass")
    shelf.add_user("x", "after")
    clock.time += 299.9
    assert await asked.get("x", "quay.io") == Credential("before", "pass")
    assert await asked.get("x", "ghcr.io") == Credential("after", "pass")
    clock.time += 0.1
    assert await asked.get("x", "quay.io") == Credential("after", "pass")
    assert shelf.runs("x") == 3


async def test_HELP03_helpers_do_not_answer_for_each_other(shelf: Shelf) -> None:
    shelf.add_user("a", "from a")
    shelf.add_user("b", "from b")
    asked = helpers(shelf)
    for _ in range(2):
        assert await asked.get("a", "quay.io") == Credential("from a", "pass")
        assert await asked.get("b", "quay.io") == Credential("from b", "pass")
    assert (shelf.runs("a"), shelf.runs("b")) == (1, 1)


async def test_HELP03_that_there_is_nothing_is_an_answer_too(shelf: Shelf) -> None:
    shelf.add_answer("x", NOTHING, status=1)
    clock = PatientClock()
    asked = helpers(shelf, clock)
    assert [await asked.get("x", "quay.io") for _ in range(3)] == [None] * 3
    assert shelf.runs("x") == 1
    clock.time += 300
    await asked.get("x", "quay.io")
    assert shelf.runs("x") == 2


async def test_HELP03_a_failure_is_not_kept(shelf: Shelf) -> None:
    shelf.add_answer("x", "locked", status=1)
    asked = helpers(shelf)
    for _ in range(2):
        with pytest.raises(SourceError):
            await asked.get("x", "quay.io")
    shelf.add_user("x")
    assert await asked.get("x", "quay.io") == Credential("user", "pass")
    assert shelf.runs("x") == 3


async def test_HELP03_only_so_many_answers_are_kept(shelf: Shelf) -> None:
    shelf.add_user("x")
    asked = helpers(shelf, max_answers=2)
    for server in ("a", "b", "c"):
        await asked.get("x", server)
    assert repr(asked) == "<CredentialHelpers with 2 cached answers>"
    await asked.get("x", "c")
    await asked.get("x", "b")
    assert shelf.runs("x") == 3
    await asked.get("x", "a")
    assert shelf.runs("x") == 4


async def test_HELP03_old_answers_are_forgotten(shelf: Shelf) -> None:
    shelf.add_user("x")
    clock = PatientClock()
    asked = helpers(shelf, clock)
    await asked.get("x", "quay.io")
    clock.time += 300
    await asked.get("x", "ghcr.io")
    await asked.get("x", "quay.io")
    assert shelf.runs("x") == 3


async def test_HELP03_who_asks_at_the_same_time_shares_the_answer(shelf: Shelf) -> None:
    shelf.add_user("x")
    asked = helpers(shelf)
    found = await asyncio.gather(*(asked.get("x", "quay.io") for _ in range(10)))
    assert found == [Credential("user", "pass")] * 10
    assert shelf.runs("x") == 1


async def test_HELP03_and_the_failure(shelf: Shelf) -> None:
    shelf.add_answer("x", "locked", status=1)
    asked = helpers(shelf)
    found = await asyncio.gather(
        *(asked.get("x", "quay.io") for _ in range(5)), return_exceptions=True
    )
    assert [type(error) for error in found] == [SourceError] * 5
    assert len(set(map(id, found))) == 5
    assert shelf.runs("x") == 1


async def test_SEC16_who_leaves_does_not_take_the_answer_along(shelf: Shelf) -> None:
    body = 'echo $$ >> "$SHELF/pids"; while [ ! -e "$SHELF/go" ]; do sleep 0.01; done'
    shelf.add("x", f'{body}; echo \'{{"Username": "u", "Secret": "s"}}\'')
    asked = helpers(shelf)
    leader, follower = (asyncio.create_task(asked.get("x", "quay.io")) for _ in range(2))
    await wait_until(
        lambda: (shelf.root / "pids").exists() and len(shelf.pids("pids")) == 1, every=0.005
    )
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    (shelf.root / "go").touch()
    assert await follower == Credential("u", "s")
    assert len(shelf.pids("pids")) == 2
    assert not any(map(is_running, shelf.pids("pids")))


async def test_SEC16_cancelled_at_every_await_a_helper_can_be_asked_again(shelf: Shelf) -> None:
    shelf.add_user("x")

    async def check() -> None:
        await wait_until(shelf.is_quiet, every=0.005)

    asked = helpers(shelf, ttl=0)
    awaits = await cancel_at_every_await(lambda: asked.get("x", "quay.io"), check)
    assert awaits >= 4
    assert await asked.get("x", "quay.io") == Credential("user", "pass")


# What is too much


async def test_HELP03_too_slow(shelf: Shelf) -> None:
    shelf.add("x", 'echo $$ > "$SHELF/pids"; exec sleep 1000')
    clock = PatientClock(lambda: (shelf.root / "pids").exists() and bool(shelf.pids("pids")))
    with pytest.raises(SourceTimeoutError, match="docker-credential-x did not end") as caught:
        await helpers(shelf, clock).get("x", "quay.io")
    assert clock.slept == [30]
    assert "quay.io" in "".join(caught.value.__notes__)
    assert shelf.is_quiet()


async def test_HELP03_too_much(shelf: Shelf) -> None:
    shelf.add("x", "exec yes")
    with pytest.raises(LimitExceededError, match="docker-credential-x printed more"):
        await helpers(shelf).get("x", "quay.io")
    shelf.add("x", "echo '{}'")
    with pytest.raises(LimitExceededError, match="more than 2 bytes"):
        await helpers(shelf, max_output=2).get("x", "quay.io")
    assert await helpers(shelf, max_output=3).get("x", "quay.io") is None


async def test_HELP03_limits_unless_others_are_given() -> None:
    assert HelperLimits() == HelperLimits(30, 1024 * 1024, 300, 256)


async def test_CRED07_its_repr_shows_no_answers(shelf: Shelf) -> None:
    shelf.add_user("x", USER_SENTINEL, SECRET_SENTINEL)
    asked = helpers(shelf)
    await asked.get("x", "quay.io")
    assert secrets_in(f"{asked!r} {asked._answers!r} {asked._answers.values()!r}") == []
