"""How options and arguments are declared: as fields of a dataclass that commands share.

A field made by `option` or `argument` holds the parameter of click that sets it. `with_options`
gives a command all of them, and calls it with one value of the dataclass; a parameter that only one
command has is a `click.option` of that command.
"""

from __future__ import annotations

import functools
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import click

from asupplemented.cli.help import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = (
    "PATH",
    "Argument",
    "Function",
    "Option",
    "argument",
    "documented_argument",
    "option",
    "shared_option",
    "with_options",
)

Function: TypeAlias = "Callable[..., None]"

PATH: Final = click.Path(path_type=Path)
_DECLARE: Final = "declare"
"""The entry in the metadata of a field that makes a decorator of its name."""


class Option(click.Option):
    """An option whose help shows its default, and does not show the range of a number."""

    def get_help_extra(self, ctx: click.Context) -> Any:  # noqa: ANN401 - a type of click's own
        """What help adds in brackets."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        if "default" in extra and isinstance(self.default, float):
            extra["default"] = f"{self.default:g}"
        return extra


class Argument(click.Argument):
    """An argument with a help text, which click has itself since 8.5."""

    def __init__(self, names: Sequence[str], *, help: str, **settings: Any) -> None:  # noqa: A002, ANN401 - as click
        super().__init__(names, **settings)
        self.help = help

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """The row of the help."""
        return self.make_metavar(ctx), self.help or ""


def option(*flags: str, **settings: Any) -> Any:  # noqa: ANN401 - the type is that of the field
    """A field that an option sets.

    Args:
        flags: The names of the option.
        settings: The default of the field, and arguments of `click.option`.
    """
    default = settings.setdefault("default", () if settings.get("multiple") else None)
    settings.setdefault("show_default", default not in {None, False, ()})

    def declare(name: str) -> Callable[[Function], Function]:
        return click.option(name, *flags, cls=Option, **settings)

    return field(default=default, metadata={_DECLARE: declare})


def argument(metavar: str, help: str, *, many: bool = False) -> Any:  # noqa: A002, ANN401 - as above
    """A field that an argument sets; with `many` it takes any number of them, or none."""

    def declare(name: str) -> Callable[[Function], Function]:
        return documented_argument(name, metavar, help, many=many)

    return field(default=() if many else MISSING, metadata={_DECLARE: declare})


def documented_argument(
    name: str,
    metavar: str,
    help: str,  # noqa: A002 - as click calls it
    *,
    many: bool = False,
    **settings: Any,  # noqa: ANN401 - arguments of click.argument
) -> Callable[[Function], Function]:
    """A decorator that gives a command an argument with a help text."""
    settings |= {"nargs": -1 if many else 1, "required": not many}
    return click.argument(name, cls=Argument, metavar=metavar, help=help, **settings)


def with_options(kind: type[Any]) -> Callable[[Function], Command]:
    """Make a command of a function whose first argument is a dataclass of options.

    The other arguments of the function are declared by `click.option`.
    """

    def decorate(function: Function) -> Command:
        @functools.wraps(function)
        def run(**given: Any) -> None:  # noqa: ANN401 - as click parsed them
            options = kind(**{each.name: given.pop(each.name) for each in fields(kind)})
            function(options, **given)

        for each in reversed(fields(kind)):
            run = each.metadata[_DECLARE](each.name)(run)
        return click.command(cls=Command)(run)

    return decorate


def shared_option(kind: type[Any], name: str) -> Callable[[Function], Function]:
    """A decorator that gives a command one of the options of a dataclass."""
    (found,) = (each for each in fields(kind) if each.name == name)
    declared: Callable[[Function], Function] = found.metadata[_DECLARE](name)
    return declared
