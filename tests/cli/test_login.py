"""Logging in and out: what is stored, where, and that the registry is asked first."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from asupplemented.cli.app import app
from asupplemented.testing import Basic, Bearer, FakeRegistry, build_image
from tests.cli.conftest import Answer, call, called

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = build_image()
HELPER = """#!/bin/sh
case "$1" in
  store) cat > "$0.kept";;
  get) cat > /dev/null
       test -f "$0.kept" && exec cat "$0.kept"
       echo "credentials not found in native keychain"; exit 1;;
  erase) cat > /dev/null; rm "$0.kept";;
esac
"""


async def log_in(registry: str, password: str, *options: str) -> Answer:
    arguments = ["login", registry, "-u", "ada", "--password-stdin", *options]
    run = partial(CliRunner().invoke, app, arguments, f"{password}\n", catch_exceptions=False)
    done = await asyncio.to_thread(run)
    return Answer(done.exit_code, done.stdout, done.stderr)


@pytest.mark.parametrize("access", [Basic({"ada": "s:e"}), Bearer({"ada": "s:e"}, public=False)])
async def test_a_login_is_checked_stored_used_and_removed(access: Any, tmp_path: Path) -> None:
    file = tmp_path / "own" / "auth.json"
    options = ("--authfile", str(file))
    async with FakeRegistry(access=access) as registry:
        reference = registry.add("team/app", IMAGE)
        refused = await log_in(registry.host, "wrong", *options, "--tls-verify=false")
        assert (refused.code, file.exists()) == (5, False)
        assert "check the user and the password" in refused.err
        stored = await log_in(registry.host, "s:e", *options, "--tls-verify=false")
        assert (stored.code, str(file) in stored.out) == (0, True), stored.err
        assert "s:e" not in stored.out + stored.err
        assert file.stat().st_mode & 0o777 == 0o600
        used = await called("digest", reference, *options, "--no-tls-verify")
        assert used.out.strip() == IMAGE.digest
    removed = await called("logout", registry.host, *options)
    assert (removed.code, json.loads(file.read_text())) == (0, {"auths": {}})
    assert (await called("logout", registry.host, *options)).code == 3


async def test_a_file_keeps_what_else_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.json"
    file.write_text(
        '{"auths":{"https://quay.io/v1/":{},"other":{"auth":"eDp5"}},"proxies":{"x":1}}'
    )
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
    tree: dict[str, Any] = {}
    for registry, key in (("quay.io", "quay.io"), ("docker.io", "https://index.docker.io/v1/")):
        assert (await log_in(registry, "secret", "--no-check")).code == 0
        tree = json.loads(file.read_text())
        assert base64.b64decode(tree["auths"][key]["auth"]) == b"ada:secret"
    assert set(tree["auths"]) == {"other", "quay.io", "https://index.docker.io/v1/"}
    assert tree["proxies"] == {"x": 1}
    assert (await called("logout", "docker.io")).code == 0
    assert set(json.loads(file.read_text())["auths"]) == {"other", "quay.io"}
    file.write_text("{")
    broken = await log_in("quay.io", "secret", "--no-check")
    assert (broken.code, file.read_text()) == (1, "{")


@pytest.mark.parametrize("where", [{"credsStore": "fake"}, {"credHelpers": {"quay.io": "fake"}}])
async def test_a_helper_stores_what_the_file_says_it_stores(
    where: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "docker-credential-fake"
    program.write_text(HELPER)
    program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    file = tmp_path / "config.json"
    file.write_text(json.dumps(where))
    options = ("--authfile", str(file))
    stored = await log_in("quay.io", "secret", "--no-check", *options)
    assert (stored.code, "docker-credential-fake" in stored.out) == (0, True), stored.err
    kept = json.loads((tmp_path / "docker-credential-fake.kept").read_text())
    assert kept == {"ServerURL": "quay.io", "Username": "ada", "Secret": "secret"}
    assert json.loads(file.read_text()) == where
    assert (await called("logout", "quay.io", *options)).code == 0
    assert (await called("logout", "quay.io", *options)).code == 3


@pytest.mark.parametrize("text", ["quay.io/team", "ada:secret@quay.io", "quay", "", "-x.y"])
def test_what_is_no_registry_is_wrong_usage(text: str) -> None:
    answer = call("login", "-u", "ada", "--password-stdin", "--no-check", "--", text)
    assert (answer.code, "secret" in answer.err) == (2, False)


def test_a_password_needs_a_terminal_or_an_option() -> None:
    answer = call("login", "quay.io", "-u", "ada")
    assert (answer.code, "--password-stdin" in answer.err) == (2, True)
    answer = call("login", "quay.io", "--password-stdin")
    assert (answer.code, "--username" in answer.err) == (2, True)
