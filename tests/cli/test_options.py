"""The arguments that commands share."""

from __future__ import annotations

import inspect

from asupplemented.cli.options import GroupOptions, with_group

# Options


def test_a_command_takes_the_fields_of_the_group_before_its_own() -> None:
    @with_group
    def command(options: GroupOptions, *, own: int = 3) -> None:
        seen.append((options, own))

    seen: list[tuple[GroupOptions, int]] = []
    parameters = inspect.signature(command).parameters
    assert [*parameters][:2] == ["top", "supplements"]
    assert [*parameters][-1] == "own"
    command(**{name: p.default for name, p in parameters.items()} | {"top": "oci:y", "own": 4})
    assert seen == [(GroupOptions(top="oci:y"), 4)]
