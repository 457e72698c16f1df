"""What README.md promises: links lead somewhere, code compiles, CI runs the same commands."""

from __future__ import annotations

import re

from tests.modules import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_local_links_lead_to_files() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_example_compiles() -> None:
    [example] = blocks("python")
    compile(example, "README.md", "exec")


def test_the_commands_are_those_that_ci_runs() -> None:
    commands = [line.removeprefix("$ ") for line in "".join(blocks("console")).splitlines()]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    tests = [command for command in commands if command.endswith("nox -s tests")]
    assert len(tests) == 1
    assert tests[0] in script
