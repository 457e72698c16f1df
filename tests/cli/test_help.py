"""Help fits one screen, speaks the words of users, and has examples that parse."""

from __future__ import annotations

import re
import shlex

import pytest

from asupplemented.cli.app import COMMANDS as APP_COMMANDS
from asupplemented.cli.help import EXAMPLES, GROUPS
from tests.cli.conftest import call, list_commands

COMMANDS = list_commands()
LINES = 40
"""Of a small terminal."""


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
    assert (short == whole) is ("--help-all" not in short)
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in short
            assert (" ".join(parameter.help.split()) in " ".join(short.split())) or any(
                parameter.name in names for names in GROUPS.values()
            )


@pytest.mark.parametrize("command", sorted(EXAMPLES))
def test_examples_parse(command: str) -> None:
    for example in EXAMPLES[command]:
        _, name, arguments = re.split(" [|<>] ", example)[0].partition(f"{command} ")
        assert name == f"{command} "
        COMMANDS[command].make_context(command, shlex.split(arguments))


def test_every_command_has_examples() -> None:
    assert set(COMMANDS) - set(EXAMPLES) == {"cache"}


def test_the_help_of_the_program_has_the_first_sentence_of_each_command() -> None:
    summaries = {name: summary for name, (_, summary) in APP_COMMANDS.items()}
    assert summaries == {name: COMMANDS[name].help.splitlines()[0] for name in summaries}
    for name, summary in summaries.items():
        assert re.search(rf"^  {name} +{re.escape(summary)}$", call("--help").out, re.MULTILINE)


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
    script = call("completion", "bash").out
    assert "_ASUPPLEMENTED_COMPLETE=bash_complete" in script
    monkeypatch.setenv("_ASUPPLEMENTED_COMPLETE", "bash_complete")
    for typed, found in (("asupplemented res", "resolve"), ("asupplemented copy --t", "--to")):
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
        assert f"plain,{found}" in call().out.split()
