"""How a command runs: exit codes, errors in words, and the credentials that it uses."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import pytest
from click.exceptions import Exit

from asupplemented import errors
from asupplemented.cli.options import GroupOptions
from asupplemented.cli.running import exit_code, running
from asupplemented.errors import LayoutError, NetworkError
from asupplemented.testing import Basic, FakeRegistry, build_image
from tests.cli.conftest import call

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Answer


IMAGE = build_image()
PASSWORD = "correct horse"  # noqa: S105 - of a registry in this process


def log_in(path: Path, registry: str, password: str = PASSWORD) -> Path:
    """Write what ``podman login`` writes."""
    auth = base64.b64encode(f"ada:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    return path


async def resolve(registry: FakeRegistry, *options: str) -> Answer:
    reference = registry.add("team/app", IMAGE)
    return await asyncio.to_thread(
        call, "resolve", reference, "--no-tls-verify", "--json", *options
    )


async def test_an_authfile_is_read(tmp_path: Path) -> None:
    async with FakeRegistry(access=Basic({"ada": PASSWORD})) as registry:
        file = log_in(tmp_path / "auth.json", registry.host)
        answer = await resolve(registry, "--authfile", str(file))
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["top"]["digest"] == IMAGE.digest


async def test_FILE04_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeRegistry(access=Basic({"ada": PASSWORD})) as registry:
        file = log_in(tmp_path / "auth.json", registry.host)
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(file))
        answer = await resolve(registry)
    assert answer.code == 0, answer.err


async def test_CRED07_a_wrong_password_is_told_and_not_shown(tmp_path: Path) -> None:
    async with FakeRegistry(access=Basic({"ada": PASSWORD})) as registry:
        file = log_in(tmp_path / "auth.json", registry.host, "battery staple")
        answer = await resolve(registry, "--authfile", str(file))
    assert answer.code == 5
    assert "battery staple" not in answer.err
    assert registry.host in answer.err


async def test_FILE05_a_broken_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "auth.json"
    broken.write_text("{")
    async with FakeRegistry() as registry:
        answer = await resolve(registry, "--authfile", str(broken))
    assert answer.code == 1
    assert str(broken) in answer.err


NOT_FOUND = {
    *("NotFoundError", "ManifestNotFoundError", "ImageNotFoundError", "InstanceNotFoundError"),
    *("BlobNotFoundError", "PlatformNotFoundError", "NameUnknownError"),
}
WRONG_CONTENT = {
    *("VerificationError", "DigestMismatchError", "SizeMismatchError", "MalformedManifestError"),
    *("AmbiguousManifestError", "InvalidDigestError", "UnsupportedDigestError"),
}
USAGE = {"InvalidReferenceError", "UnknownTransportError"}


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_has_a_code(name: str) -> None:
    expected = 3 if name in NOT_FOUND else 4 if name in WRONG_CONTENT else 2 if name in USAGE else 1
    expected = 5 if name == "UnauthorizedError" else expected
    assert exit_code(getattr(errors, name)("words")) == expected


OPTIONS = GroupOptions(top="oci:x")


def test_an_error_and_its_notes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    error = NetworkError("no\x1b[31m route", reference="docker://host/app", member=1)
    error.add_note("the first try\nand the second")
    with pytest.raises(Exit) as caught, running(OPTIONS):
        raise error
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: no\ufffd[31m route (reference docker://host/app, member 1)",
        "  the first try; and the second",
        "  go on without supplements that cannot be opened with --unavailable skip",
    ]


def test_several_errors_are_told_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("closing", [LayoutError("one"), ExceptionGroup("", [OSError("two")])])
    with pytest.raises(Exit) as caught, running(OPTIONS):
        raise group
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == "error: one\nerror: two\n"


def test_a_bug_is_shown_as_one() -> None:
    with pytest.raises(TypeError), running(OPTIONS):
        raise TypeError
    with pytest.raises(ExceptionGroup), running(OPTIONS):
        raise ExceptionGroup("closing", [LayoutError("one"), TypeError("two")])
