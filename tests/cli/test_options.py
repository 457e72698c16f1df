"""The arguments that commands share."""

from __future__ import annotations

import click
import pytest

from asupplemented.abc import Timeouts
from asupplemented.cli.options import GroupOptions, with_group


@pytest.fixture
def parsed() -> tuple[click.Command, list[tuple[GroupOptions, int]]]:
    """A command on a group with an option of its own, and what it was called with."""
    seen: list[tuple[GroupOptions, int]] = []

    @with_group
    @click.option("--own", type=int, default=3)
    def command(options: GroupOptions, *, own: int) -> None:
        seen.append((options, own))

    return command, seen


def test_a_command_takes_the_options_of_a_group_and_its_own(
    parsed: tuple[click.Command, list[tuple[GroupOptions, int]]],
) -> None:
    command, seen = parsed
    command.main(["oci:y", "oci:z", "--own", "4", "--instance", "a"], standalone_mode=False)
    expected = GroupOptions(top="oci:y", supplements=("oci:z",), instances=("a",))
    assert seen == [(expected, 4)]
    assert command.params[-1].name == "own"


def test_what_is_not_given_has_the_defaults_of_the_library(
    parsed: tuple[click.Command, list[tuple[GroupOptions, int]]],
) -> None:
    command, seen = parsed
    command.main(["oci:y"], standalone_mode=False)
    assert seen == [(GroupOptions(top="oci:y"), 3)]
    assert seen[0][0].timeouts == Timeouts()
