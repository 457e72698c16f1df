"""The program: its commands, each loaded when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
import typer.main
from typer.core import TyperGroup

from asupplemented._version import __version__
from asupplemented.cli.help import Command
from asupplemented.cli.output import write_text

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("Program", "app", "main")

MODULES: Final[Mapping[str, str]] = {
    "resolve": "resolving",
    "explain": "resolving",
    "inspect": "inspecting",
    "manifest": "inspecting",
    "digest": "inspecting",
    "tags": "inspecting",
    "referrers": "inspecting",
    "endpoints": "endpoints",
    "blob": "copying",
    "copy": "copying",
    "prefetch": "caching",
    "cache": "cache",
    "login": "login",
    "logout": "login",
    "serve": "serving",
    "mirrors": "serving",
}
"""Commands and groups of them, in the order of the help, and the modules that define them."""


class Program(TyperGroup):
    """The group of all commands. A command is imported when it is asked for."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """The names of all commands."""
        del ctx
        return list(MODULES)

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override] # noqa: ANN401 - click's or typer's own
        """Make a command; None if there is no such command."""
        del ctx
        # For an unknown name all are made, among which typer looks for a similar one.
        for name in (cmd_name,) if cmd_name in MODULES else MODULES:
            if name not in self.commands:
                module = import_module(f"asupplemented.cli.{MODULES[name]}")
                self.commands[name] = _make(name, getattr(module, name))
        return self.commands.get(cmd_name)


def _make(name: str, found: Any) -> Any:  # noqa: ANN401 - as above
    if isinstance(found, typer.Typer):
        group = typer.main.get_command(found)
        group.name = name
        return group
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, cls=Command)(found)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - the callback of an option
    if wanted:
        write_text(f"asupplemented {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Group container images into one verified source, and inspect or copy it.

    Data goes to stdout, messages go to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage,
    3 not found, 4 content that does not match its digest or is malformed, 5 not logged in.
    """
