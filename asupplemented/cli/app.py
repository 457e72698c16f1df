"""The program: its commands, each loaded when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

import click

from asupplemented._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("COMMANDS", "Program", "app")

COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "resolve": ("resolving", "Show which member serves each manifest and blob."),
    "explain": ("resolving", "Explain which member serves a manifest or blob."),
    "inspect": ("inspecting", "Print the configuration of an image as JSON."),
    "manifest": ("inspecting", "Print a manifest byte for byte."),
    "digest": ("inspecting", "Print the digest of an image, or of its image for a platform."),
    "tags": ("inspecting", "List the tags of a repository."),
    "referrers": (
        "inspecting",
        "List what refers to an image: signatures, SBOMs, attestations.",
    ),
    "endpoints": ("endpoints", "List the servers that a pull reaches."),
    "blob": ("copying", "Print a blob, or write it to a file."),
    "copy": ("copying", "Copy an image with all its blobs."),
    "prefetch": ("caching", "Fetch an image into the cache on disk (--cache)."),
    "cache": ("cache", "Look at a cache directory, check it and tidy it."),
    "login": ("login", "Store a user name and a password for a registry."),
    "logout": ("login", "Remove the user name and the password for a registry."),
    "serve": ("serving", "Serve images as a read-only registry."),
    "mirrors": ("serving", "Print how podman, containerd or docker pull through a proxy."),
    "completion": ("completion", "Print the script that completes commands in a shell."),
}
"""Commands and groups of them, in the order of the help: the modules that define them, and the
first sentences of their help, which are here so that the help of the program imports nothing."""


class Program(click.Group):
    """The group of all commands. A command is imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; None if there is none."""
        del ctx
        # For an unknown name all are imported, among which click looks for a similar one.
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                module = import_module(f"asupplemented.cli.{COMMANDS[name][0]}")
                self.commands[name] = getattr(module, name)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the names and first sentences of all commands."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
def app() -> None:
    """Group container images into one verified source, and inspect or copy it.

    Data goes to stdout, messages go to stderr. Exit codes: 0 success, 1 failure, 2 wrong usage,
    3 not found, 4 content that does not match its digest or is malformed, 5 not logged in,
    130 interrupted, 143 terminated.
    """
