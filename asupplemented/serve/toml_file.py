"""TOML files as structs, with the line of each mistake and what to write instead.

Theory of operation. Each key is checked and converted by itself, so all mistakes of a file are
found at once. A struct says with `msgspec.Meta` what it expects: bounds, an example that messages
show, and under ``extra={"parse": ...}`` a function for values that are written as text.

Parsers of TOML do not tell where a key is. A file that was parsed is therefore cut into statements:
lines are gathered until they parse by themselves, since only an open array or string goes on in the
next line. It can end only where a line has the closing mark, so long ones are not parsed at each
line. All of that is done only if there is a mistake.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeGuard,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
)

import msgspec

from asupplemented.errors import ConfigurationError, SupplementedError, excerpt
from asupplemented.hostconfig.documents import parse_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from msgspec.structs import FieldInfo

__all__ = (
    "Key",
    "Mistake",
    "choices",
    "convert_table",
    "find_lines",
    "meta_of",
    "read_struct",
    "tables",
)

S = TypeVar("S", bound=msgspec.Struct)

Key: TypeAlias = tuple[str, ...]
"""The keys that lead to a value, from the top of the file."""

_BARE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
"""What keys without quotes are made of."""

_ENDS: Final = ("]", '"""', "'''")
"""What ends a value that has several lines."""

_SHOWN: Final = 200
"""The most characters of a key or a value that a message shows."""

_TYPES: Final = re.compile("`([a-z |]+)`")
_NAMES: Final = {
    "array": "an array",
    "bool": "true or false",
    "float": "a number",
    "int": "an integer",
    "object": "a table",
    "str": "a string",
}
"""What TOML calls the types that msgspec names."""


class Mistake(NamedTuple):
    """What is wrong with one value."""

    key: Key
    message: str
    """What is wrong, and what to write instead."""


def read_struct(text: str, path: Path, kind: type[S], check: Callable[[S], Iterable[Mistake]]) -> S:
    """Read the text of a file. Pure.

    Args:
        text: TOML.
        path: The file, for messages.
        kind: What it describes.
        check: Finds what is wrong with values that have the right types.

    Raises:
        ConfigurationError: The text is not TOML or has mistakes. The message is about the first
            one, and each further one is a note.
    """
    values, mistakes = convert_table(parse_toml(text, path), kind)
    if not mistakes:
        made = kind(**values)
        mistakes = list(check(made))
        if not mistakes:
            return made
    raise _make_error(mistakes, path, find_lines(text))


def _make_error(
    mistakes: Sequence[Mistake], path: Path, lines: Mapping[Key, int]
) -> ConfigurationError:
    found: list[tuple[int, str]] = []
    for key, message in mistakes:
        line = next((lines[key[:n]] for n in range(len(key), 0, -1) if key[:n] in lines), 0)
        where = f"{path}:{line}" if line else f"{path}"
        found.append((line, f"{where}: {message}"))
    (_, first), *others = sorted(found, key=lambda each: each[0])
    error = ConfigurationError(first)
    for _, message in others:
        error.add_note(message)
    return error


def find_lines(text: str) -> dict[Key, int]:
    """The lines of all keys and tables of a text that is TOML, the first line being 1."""
    lines: dict[Key, int] = {}
    table: Key = ()
    statement: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        statement.append(line)
        if len(statement) > 1 and not any(mark in line for mark in _ENDS):
            continue
        try:
            parsed = tomllib.loads("\n".join(statement))
        except tomllib.TOMLDecodeError:
            continue  # an array or a string that goes on
        first = number - len(statement) + 1
        is_header = statement[0].lstrip().startswith("[")
        statement.clear()
        keys = list(_keys(parsed))
        if is_header:
            table = keys[-1]
        for key in keys:
            lines.setdefault(key if is_header else (*table, *key), first)
    return lines


def _keys(tree: object, at: Key = ()) -> Iterator[Key]:
    if isinstance(tree, list):  # the header of an array of tables
        for each in cast("list[object]", tree):
            yield from _keys(each, at)
    elif isinstance(tree, dict):
        for key, value in cast("dict[str, object]", tree).items():
            yield (*at, key)
            yield from _keys(value, (*at, key))


# One table


def convert_table(
    table: Mapping[str, object],
    kind: type[msgspec.Struct],
    at: Key = (),
    root: type[msgspec.Struct] | None = None,
) -> tuple[dict[str, object], list[Mistake]]:
    """Convert a table to the values of a struct.

    Args:
        table: What was parsed.
        kind: The struct.
        at: The keys of the table itself.
        root: The struct of the whole file, None for `kind`.

    Returns:
        The values by the names of their fields, and all mistakes.
    """
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    root = root or kind
    values: dict[str, object] = {}
    mistakes: list[Mistake] = []
    for name, value in table.items():
        key = (*at, name)
        if name in fields:
            field = fields[name]
            values[field.name], found = _convert_field(value, field, key, root)
            mistakes += found
        else:
            mistakes.append(Mistake(key, _explain_unknown(key, list(fields), root)))
    for name, field in fields.items():
        if field.required and name not in table:
            key = (*at, name)
            mistakes.append(Mistake(key, f"{_dotted(key)} is missing{_advise(field, key)}"))
    return values, mistakes


def _convert_field(
    value: object, field: FieldInfo, key: Key, root: type[msgspec.Struct]
) -> tuple[object, list[Mistake]]:
    if not isinstance(value, dict):
        converted = _convert(value, field.type, field, key)
        return (None, [converted]) if isinstance(converted, Mistake) else (converted, [])
    table = cast("dict[str, object]", value)
    for kind in _variants(field.type):
        if _is_struct(kind):
            values, mistakes = convert_table(table, kind, key, root)
            return (None if mistakes else kind(**values)), mistakes
        if get_origin(kind) is Mapping:
            of = get_args(kind)[1]
            found = {name: _convert(each, of, field, (*key, name)) for name, each in table.items()}
            return found, [each for each in found.values() if isinstance(each, Mistake)]
    message = f"{_dotted(key)} is one value, not a table{_advise(field, key)}"
    return None, [Mistake(key, message)]


def _convert(value: object, kind: object, field: FieldInfo, key: Key) -> object:
    """A value of the type, or the mistake in it. A single value may stand for a list of one."""
    parse = (meta_of(field).extra or {}).get("parse")
    lists_only = all(get_origin(each) is tuple for each in _variants(kind))
    given: object = (value,) if lists_only and not _is_list(value) else value
    try:
        if parse is not None and isinstance(given, str):
            given = parse(given)
        return cast("object", msgspec.convert(given, cast("Any", kind), dec_hook=_decode))
    except (msgspec.ValidationError, ConfigurationError) as error:
        reason = str(error)
    if reason.startswith("Invalid enum value"):
        reason = f"expected {' or '.join(choices(field))}"
    reason = f"{reason[0].lower()}{reason[1:]}".replace(" | null", "").split(" - at `$")[0]
    reason = _TYPES.sub(lambda match: _name_types(match[1]), reason)
    advice = "" if "; write " in reason else _advise(field, key)
    return Mistake(key, f"{_dotted(key)} = {_cut(_show(value))}: {reason}{advice}")


def _is_list(value: object) -> bool:
    return isinstance(value, list)


def _decode(kind: type[object], value: object) -> object:
    """Make a value of a type that TOML does not have, from its text."""
    if not isinstance(value, str):
        message = f"Expected `str`, got `{type(value).__name__}`"
        raise ValueError(message)  # noqa: TRY004 - what msgspec expects of this function
    if kind is Path:
        return Path(value)
    try:
        return cast("Any", kind).parse(value)
    except SupplementedError as error:
        raise ValueError(error.message) from error


def _is_struct(kind: object) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def meta_of(field: FieldInfo) -> msgspec.Meta:
    """What the annotation of a field says besides its type."""
    if get_origin(field.type) is Annotated:
        return next(each for each in get_args(field.type) if isinstance(each, msgspec.Meta))
    return msgspec.Meta()


def choices(field: FieldInfo) -> tuple[str, ...]:
    """The words that a field takes, if it is one of a few words."""
    literals = (each for each in _variants(field.type) if get_origin(each) is Literal)
    return tuple(word for each in literals for word in get_args(each))


def _variants(kind: object) -> Iterator[object]:
    """The types that a type allows, besides None."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    kinds = get_args(kind) if get_origin(kind) in {Union, UnionType} else (kind,)
    return (each for each in kinds if each is not type(None))


# Words


def _explain_unknown(key: Key, known: list[str], root: type[msgspec.Struct]) -> str:
    *above, name = key
    where = f"in [{_dotted(above)}]" if above else "at the top of the file"
    unknown = f"unknown key {excerpt(name)} {where}"
    spelled = name.replace("-", "_").lower()
    if spelled not in known:
        for table, kind in tables(root):
            if spelled in {field.encode_name for field in msgspec.structs.fields(kind)}:
                there = f"below [{table}]" if table else "above the first [table]"
                return f"{unknown}; write {spelled} {there}"
    near = difflib.get_close_matches(spelled, known, 1)
    return f"{unknown}; " + (f"write {near[0]}" if near else f"known are {', '.join(known)}")


def tables(root: type[msgspec.Struct]) -> Iterator[tuple[str, type[msgspec.Struct]]]:
    """The structs that a file consists of: its top, named "", and its tables."""
    yield "", root
    for field in msgspec.structs.fields(root):
        for kind in _variants(field.type):
            if _is_struct(kind):
                yield field.encode_name, kind


def _advise(field: FieldInfo, key: Key) -> str:
    examples = meta_of(field).examples
    if not examples:
        return ""
    return f"; write {_dotted(key)} = {_show(_example_for(key, examples[0]))}"


def _example_for(key: Key, example: object) -> object:
    """The example of a field, or a value of it if that is a table and the key is in it."""
    if len(key) > 1 and isinstance(example, dict):
        return next(iter(cast("dict[str, object]", example).values()))
    return example


def _name_types(names: str) -> str:
    return " or ".join(_NAMES.get(name, name) for name in names.split(" | "))


def _dotted(key: Sequence[str]) -> str:
    quoted = (part if part and _BARE.issuperset(part) else json.dumps(part) for part in key)
    return ".".join(map(_cut, quoted))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _show(value: object) -> str:
    """A value as it is written in TOML."""
    if isinstance(value, dict):
        entries = cast("dict[str, object]", value).items()
        return f"{{ {', '.join(f'{_dotted((key,))} = {_show(each)}' for key, each in entries)} }}"
    if isinstance(value, str | bool | int | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
