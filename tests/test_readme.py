"""What README.md promises: links lead somewhere, code compiles, CI runs the same commands."""

from __future__ import annotations

import hmac
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from starlette.applications import Starlette

import asupplemented
from asupplemented.serve.clients import pull_command
from asupplemented.serve.config import Address, ServeConfig, mirror_names
from tests.cli.conftest import call
from tests.modules import ROOT, code_blocks

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_local_links_lead_to_files(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_examples_compile() -> None:
    examples = code_blocks(README, "python")
    assert len(examples) == 3
    for example in examples:
        compile(example, "README.md", "exec")


def test_the_example_of_credentials_per_request_makes_a_view() -> None:
    [example] = [each for each in code_blocks(README, "python") if "scoped" in each]
    names: dict[str, Any] = {"asup": asupplemented, "hmac": hmac, "SECRET": b"key"}
    exec(example, names)  # noqa: S102 - our own readme
    make: Any = names["as_user"]
    views = [make(asupplemented.Session(), "alice", word) for word in ("one", "one", "two")]
    assert views[0].principal == views[1].principal != views[2].principal


def commands_with(text: str) -> list[str]:
    lines = "".join(code_blocks(README, "console")).splitlines()
    return [line.removeprefix("$ ") for line in lines if text in line]


def test_the_registry_is_served_and_pulled_from_as_shown(tmp_path: Path) -> None:
    [serve] = commands_with("asupplemented serve ")
    [pull] = commands_with("podman pull ")
    _, *arguments = shlex.split(serve.replace("/srv", str(tmp_path)))
    assert call(*arguments, "--check") == (0, "", "the configuration is right\n")
    served = ServeConfig(names=mirror_names(re.findall(r"--mirror (\S+)", serve)))
    assert pull_command(served, Address("127.0.0.1", 5000)) == pull


def test_a_registry_is_mounted_as_shown() -> None:
    [example] = [each for each in code_blocks(README, "python") if "registry_app" in each]
    apps = {"aiohttp_app": web.Application(), "fastapi_app": Starlette()}
    given = {"catalog": asupplemented.Catalog({}), "session": asupplemented.Session()}
    exec(example, {"asup": asupplemented, **apps, **given})  # noqa: S102 - our own readme
    assert len(apps["aiohttp_app"].router.resources()) == 1
    assert len(apps["fastapi_app"].routes) == 1


def test_the_commands_are_those_that_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    [tests] = commands_with("nox -s tests")
    assert tests in script
