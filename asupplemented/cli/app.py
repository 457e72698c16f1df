"""The program: its commands, by topic."""

from __future__ import annotations

from typing import Annotated

import typer

from asupplemented.cli.cache import cache
from asupplemented.cli.caching import prefetch
from asupplemented.cli.copying import blob, copy
from asupplemented.cli.help import Command
from asupplemented.cli.inspecting import digest, inspect, manifest, referrers, tags
from asupplemented.cli.login import login, logout
from asupplemented.cli.output import write_text
from asupplemented.cli.resolving import explain, resolve
from asupplemented.cli.serving import mirrors, serve
from asupplemented.version import VERSION

__all__ = ("app", "main")

app = typer.Typer(
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - the callback of an option
    if wanted:
        write_text(f"asupplemented {VERSION}")
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


for _command in (
    *(resolve, explain, inspect, manifest, digest, tags, referrers),
    *(blob, copy, prefetch, login, logout, serve, mirrors),
):
    app.command(cls=Command)(_command)
app.add_typer(cache, name="cache")
