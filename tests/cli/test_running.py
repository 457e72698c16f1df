"""Who the command line is to registries: the files that people log in with."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

from asupplemented.testing import Basic, FakeRegistry, build_image
from tests.cli.conftest import call

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

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
    assert answer.code == 1
    assert "battery staple" not in answer.err
    assert registry.host in answer.err


async def test_FILE05_a_broken_file_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "auth.json"
    broken.write_text("{")
    async with FakeRegistry() as registry:
        answer = await resolve(registry, "--authfile", str(broken))
    assert answer.code == 1
    assert str(broken) in answer.err
