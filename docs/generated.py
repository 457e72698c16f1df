"""Parts of pages that are made from the code: ``<!-- generated: NAME -->`` stands for one."""

from __future__ import annotations

import inspect
import re
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from asupplemented import errors
from asupplemented.cli.app import Program
from asupplemented.cli.help import EXAMPLES, GROUPS
from asupplemented.cli.running import exit_code

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence

__all__ = ("PARTS", "fill")

PLACE: Final = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
SHOW_ALL: Final = "asupplemented.help.all"
"""The key by which a command is told to describe all of its options."""


def fill(text: str) -> str:
    """Put the parts that are made from the code into a page."""
    return PLACE.sub(lambda found: PARTS[found[1]](), text)


# Errors


def draw_errors() -> str:
    """The table of all errors, as a tree, with what each becomes for clients and for a shell."""
    rows = ["| Error | Exit | HTTP |", "| --- | --- | --- |"]
    return "\n".join([*rows, *map(_draw_error, _walk(errors.SupplementedError))])


def draw_error_entries() -> str:
    """The entries of all errors, in the order of the table."""
    entries = [f".. autoexception:: {cls.__name__}" for cls in _walk(errors.SupplementedError)]
    return "\n".join(["```{eval-rst}", ".. currentmodule:: asupplemented", "", *entries, "```"])


def _walk(cls: type[errors.SupplementedError]) -> Iterator[type[errors.SupplementedError]]:
    yield cls
    for each in cls.__subclasses__():
        if each.__module__ == errors.__name__:
            yield from _walk(each)


def _draw_error(cls: type[errors.SupplementedError]) -> str:
    example = cls.__new__(cls)
    if isinstance(example, errors.FailoverError):
        example.attempts = ()
    depth = sum(base.__module__ == errors.__name__ for base in cls.__mro__) - 1
    name = f"{'&nbsp;&nbsp;' * depth}{{py:exc}}`~asupplemented.{cls.__name__}`"
    code = example.oci_error()["errors"][0]["code"]
    return f"| {name} | {exit_code(example)} | {example.http_status} `{code}` |"


# The command line


class _Recorder:
    """Stands for click's formatter, and keeps the rows that a command describes itself by."""

    width = 10_000

    def __init__(self) -> None:
        self.sections: dict[str, list[tuple[str, str]]] = {}
        self._name = ""

    @contextmanager
    def section(self, name: str) -> Generator[None]:
        self._name = name
        yield

    def write_dl(self, rows: Sequence[tuple[str, str]], *_: object, **__: object) -> None:
        self.sections.setdefault(self._name, []).extend(rows)

    def write(self, string: str) -> None:
        """Examples are taken from where they are written."""


def draw_commands() -> str:
    """All commands with their arguments and options, and then the options that they share."""
    program = Program(name="asupplemented")
    shared: dict[str, dict[str, str]] = {group: {} for group in GROUPS}
    commands = "\n".join(_draw_group(program, "asupplemented", "##", shared))
    options = "\n\n".join(
        f"### {group}\n\n{_draw_rows(rows.items())}" for group, rows in shared.items()
    )
    return f"{commands}\n## Shared options\n\n{options}"


def _draw_group(
    group: click.Group,
    path: str,
    level: str,
    shared: dict[str, dict[str, str]],
) -> Iterator[str]:
    context = group.context_class(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        yield f"{level} {path} {name}\n"
        if isinstance(command, click.Group):
            yield f"{_draw_help(command.help)}\n"
            yield from _draw_group(command, f"{path} {name}", f"{level}#", shared)
        else:
            yield from _draw_command(command, f"{path} {name}", shared)


def _draw_command(
    command: Any,  # noqa: ANN401 - of click, whose types know of no other formatter
    path: str,
    shared: dict[str, dict[str, str]],
) -> Iterator[str]:
    context = command.context_class(command, info_name=path)
    context.meta[SHOW_ALL] = True
    recorder = _Recorder()
    command.format_options(context, recorder)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{path} {usage}\n```\n\n{_draw_help(command.help)}\n"
    if examples := EXAMPLES.get(command.name):
        lines = "\n".join(f"$ asupplemented {example}" for example in examples)
        yield f"```console\n{lines}\n```\n"
    own = [(name, rows) for name, rows in recorder.sections.items() if name not in shared]
    for name, rows in own:
        yield f"**{name}**\n\n{_draw_rows(rows)}\n"
    if others := [(name, rows) for name, rows in recorder.sections.items() if name in shared]:
        yield "**Shared options**\n"
        for name, rows in others:
            flags = ", ".join(f"`{_flag_of(names)}`" for names, _ in rows)
            yield f"- [{name}](#{name.lower().replace(' ', '-')}): {flags}"
            yield from (
                f"  - `{row[0]}`: {_escape(row[1])}" for row in rows if _differs(shared[name], row)
            )
        yield ""


def _differs(known: dict[str, str], row: tuple[str, str]) -> bool:
    """Whether an option means something else here than in the command that had it first."""
    return known.setdefault(*row) != row[1]


def _flag_of(names: str) -> str:
    return next(each.strip(",") for each in names.split() if each.startswith("--"))


def _draw_rows(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(
        f"- `{names}`: {_escape(meaning)}" for names, meaning in rows if names != "--help"
    )


def _draw_help(text: str | None) -> str:
    """The help of a command as Markdown: what is indented is code."""
    paragraphs = inspect.cleandoc(text or "").replace("\b\n", "").split("\n\n")
    return "\n\n".join(
        f"```text\n{textwrap.dedent(each)}\n```" if each.startswith("  ") else _escape(each)
        for each in paragraphs
    )


def _escape(text: str) -> str:
    """Text of the command line as Markdown, with options as code."""
    text = re.sub(r"([\\*<>\[\]|{}])", r"\\\1", text)
    return re.sub(r"(?<![\w`-])(--?[a-z][\w.-]*\w)", r"`\1`", text)


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "errors": draw_errors,
    "error_entries": draw_error_entries,
    "commands": draw_commands,
}
"""What a page may ask for, by name."""
