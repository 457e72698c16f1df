"""What README.md promises: links lead somewhere, code compiles, CI runs the same commands."""

from __future__ import annotations

import hmac
import re
from typing import Any

import asupplemented
from tests.modules import ROOT, code_blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_local_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_examples_compile() -> None:
    examples = code_blocks(README, "python")
    assert len(examples) == 2
    for example in examples:
        compile(example, "README.md", "exec")


def test_the_example_of_credentials_per_request_makes_a_view() -> None:
    [example] = [each for each in code_blocks(README, "python") if "scoped" in each]
    names: dict[str, Any] = {"asup": asupplemented, "hmac": hmac, "SECRET": b"key"}
    exec(example, names)  # noqa: S102 - our own readme
    make: Any = names["as_user"]
    views = [make(asupplemented.Session(), "alice", word) for word in ("one", "one", "two")]
    assert views[0].principal == views[1].principal != views[2].principal


def test_the_commands_are_those_that_ci_runs() -> None:
    commands = [
        line.removeprefix("$ ") for line in "".join(code_blocks(README, "console")).splitlines()
    ]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    tests = [command for command in commands if command.endswith("nox -s tests")]
    assert len(tests) == 1
    assert tests[0] in script
