"""The command that has a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from asupplemented.cli.help import Command
from asupplemented.cli.output import write_text
from asupplemented.cli.parameters import documented_argument

__all__ = ("completion",)


@click.command(cls=Command)
@documented_argument(
    "shell", "SHELL", "bash, zsh or fish.", type=click.Choice(["bash", "zsh", "fish"])
)
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands in a shell.

    Write it to the file that the shell reads for a command of this name.
    """
    kind = get_completion_class(shell)
    if kind is None:
        message = f"click does not know {shell}"
        raise click.BadParameter(message, param_hint="SHELL")
    program = context.find_root()
    name = program.info_name or ""
    variable = f"_{name.replace('-', '_').upper()}_COMPLETE"
    write_text(kind(program.command, {}, name, variable).source())
