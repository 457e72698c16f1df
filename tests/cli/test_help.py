"""Help fits one screen, speaks the words of users, and has examples that parse."""

from __future__ import annotations

import re
import shlex

import pytest

from asupplemented.cli.help import EXAMPLES, GROUPS
from tests.cli.conftest import call, list_commands

COMMANDS = list_commands()
LINES = 46
"""Of a terminal on a laptop."""


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_help_fits_one_screen(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = ("cache", command) if command in COMMANDS["cache"].commands else (command,)
    short, whole = call(*path, "--help").out, call(*path, "--help-all").out
    assert len(short.splitlines()) <= LINES
    for text in (short, whole):
        assert max(map(len, text.splitlines())) <= 100
        assert re.findall(r"<(?:str|int|list|float|path)|\{|x>=|\(\d+\)", text) == []
        assert text.count("  asupplemented ") == 3
    assert ("Time limits" in short) is ("Read credentials from this auth.json" in whole)
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in short
            assert (parameter.help in " ".join(short.split())) or any(
                parameter.name in names for names in GROUPS.values()
            )


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_examples_parse(command: str) -> None:
    for example in EXAMPLES[command]:
        _, name, arguments = re.split(" [|<] ", example)[0].partition(f"{command} ")
        assert name == f"{command} "
        COMMANDS[command].make_context(command, shlex.split(arguments))


def test_every_command_that_reads_images_has_examples() -> None:
    assert set(COMMANDS) - set(EXAMPLES) <= {"serve", "mirrors", "cache"}
    assert call("--help").out.count("...") == 1  # of the line of usage: no summary is cut


@pytest.mark.parametrize(
    ("given", "meant"),
    [("--tls-verify=false", False), ("--tls-verify=True", True), ("--tls-verify=0", False)],
)
def test_tls_verify_takes_a_value_as_skopeo_writes_it(given: str, meant: bool) -> None:  # noqa: FBT001
    context = COMMANDS["tags"].make_context("tags", ["docker://a/b", given])
    assert context.params["tls_verify"] is meant
    assert call("tags", "--tls-verify=perhaps", "docker://a/b").code == 2


def test_a_command_that_is_mistyped_is_suggested() -> None:
    answer = call("inspekt", "oci:x")
    assert (answer.code, "inspect" in answer.err.replace("inspekt", "")) == (2, True)


def test_the_shell_completes_commands_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_ASUPPLEMENTED_COMPLETE", "complete_bash")
    for typed, found in (("asupplemented res", "resolve"), ("asupplemented copy --t", "--to")):
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
        assert found in call().out.split()
