"""JSON, read strictly: one document, one meaning (rules J-01 to J-09, SEC-05, SEC-06).

Two readers of one document must not see two different things in it. So an exact duplicate key
is refused everywhere, and so is a key that a case-insensitive reader takes for a known field:
``LAYERS`` for ``layers``, or one that spells ``fsLayers`` with U+017F. What a map of strings
(annotations, labels) holds is free.

Theory of operation:

- The *quick* way decodes with msgspec into a type that refuses unknown keys, encodes the result
  again, and compares the number of colons, if it does not come out the same anyway. A duplicate
  key loses at least its own colon, and nothing makes up for it, because the result holds no colon
  that the document does not hold. Only an escape could spell one; a text with such an escape does
  not take this way.
- The *exact* way, several times slower, decides about everything else. It sees every key of the
  document, fits the tree to the type, and lets msgspec convert it.

What the quick way accepts, the exact way accepts too, with the same result.

A third, *lenient* way reads what decides nothing: the configs of images. It never refuses a
document for its keys.

The exact way fits a tree to a *shape*, which does what Go's decoder does and msgspec does not
(rules J-03, J-04): it drops fields that are null, gives null elements their zero value, drops
unknown keys, and refuses keys that a case-insensitive reader takes for known ones.
"""

from __future__ import annotations

import functools
import json
import re
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    NamedTuple,
    NoReturn,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
)

import msgspec
from msgspec import inspect

from asupplemented.errors import LimitExceededError, MalformedManifestError, excerpt
from asupplemented.limits import MAX_JSON_DEPTH, MAX_JSON_VALUES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = (
    "Json",
    "Shape",
    "check_values",
    "convert",
    "decode",
    "decode_leniently",
    "decode_quickly",
    "fold",
    "load",
    "quick_decoder",
    "shape_of",
)

T = TypeVar("T", bound=msgspec.Struct)

_TEXT: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_BRACKET: Final = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)

_ENCODER: Final = msgspec.json.Encoder()

_COLON_ESCAPES: Final = (b"\\u003a", b"\\u003A")

_ESCAPED_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r"|\\."
)
"""A pair of surrogates, (1) a lone surrogate, or any other escape."""


def decode(raw: bytes, kind: type[T], *, what: str = "document", trailing: bool = False) -> T:
    """Decode one JSON object.

    A ``null`` counts as a field that is not there (rules J-04, J-09), and unknown keys are ignored.
    Invalid UTF-8 and lone surrogates become U+FFFD (rule J-07): never hash what was decoded.

    Args:
        raw: The bytes of the document.
        kind: A struct whose fields all have defaults. The quick way is open to those that omit
            defaults and refuse unknown fields, and so do all structs within.
        what: A name of the document, for error messages.
        trailing: Ignore bytes after the object (rule J-08: ``index.json`` of a layout).

    Raises:
        MalformedManifestError: It is not a JSON object in UTF-8, it is nested deeper than
            ``MAX_JSON_DEPTH``, a key is there twice or almost a known one, or a field has the
            wrong type (rules J-03, J-05, J-06, J-08).
    """
    check_values(raw, what)
    value = decode_quickly(raw, kind)
    if value is not None:
        return value
    return convert(load(raw, what=what, trailing=trailing), kind, what=what)


def decode_leniently(raw: bytes, kind: type[T], *, what: str = "document") -> T:
    """Decode one JSON object that decides nothing: no key of it is refused (rule J-03).

    An exact key wins over one that differs in case, and of equal keys the last one wins. A key
    that differs in case counts if its value has the right type. Values that are nested deeper than
    ``MAX_JSON_DEPTH`` are dropped.

    Args:
        raw: The bytes of the document.
        kind: A struct whose fields all have defaults.
        what: A name of the document, for error messages.

    Raises:
        MalformedManifestError: It is not a JSON object in UTF-8, or a field has the wrong type.
        LimitExceededError: It holds more than ``MAX_JSON_VALUES`` values.
    """
    check_values(raw, what)
    text = _prune(raw.decode("utf-8", "replace"))
    tree = _load(text, raw, what, lambda text: _parse(text, trailing=False, unique=dict))
    shape = shape_of(kind)
    try:
        return convert(_settle(tree, shape, folded=True), kind, what=what)
    except MalformedManifestError:
        return convert(_settle(tree, shape, folded=False), kind, what=what)


def check_values(raw: bytes, what: str = "document") -> None:
    """Refuse a document that takes many times its size in memory (rule L-04).

    Raises:
        LimitExceededError: It holds more than ``MAX_JSON_VALUES`` values.
    """
    # Each value takes a byte at least. Characters within strings count at first, because that is
    # quicker and nearly always enough.
    if (
        len(raw) > MAX_JSON_VALUES
        and _count_values(raw) > MAX_JSON_VALUES
        and _count_values(_TEXT.sub(b"", raw)) > MAX_JSON_VALUES
    ):
        message = f"{what} holds more than {MAX_JSON_VALUES} values"
        raise LimitExceededError(message, limit=MAX_JSON_VALUES)


def _count_values(raw: bytes) -> int:
    return raw.count(b",") + raw.count(b"{") + raw.count(b"[")


def decode_quickly(raw: bytes, kind: type[T]) -> T | None:
    """Decode a document in the quick way.

    Returns:
        None if the exact way (`load` and `convert`) must decide.
    """
    decoder = quick_decoder(kind)
    if decoder is None or (b"\\" in raw and any(escape in raw for escape in _COLON_ESCAPES)):
        return None
    try:
        value = decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    encoded = _ENCODER.encode(value)
    if encoded != raw and encoded.count(b":") != raw.count(b":"):
        return None
    return value if isinstance(value, kind) else None


def load(
    raw: bytes, *, what: str = "document", trailing: bool = False, duplicates: bool = False
) -> dict[str, Json]:
    """Parse a whole JSON object as a tree.

    Args:
        raw: See `decode`.
        what: See `decode`.
        trailing: See `decode`.
        duplicates: Accept a key that is there twice; the last value counts.

    Returns:
        The object with every key of the document; ``null`` gives an empty one (rule J-09).

    Raises:
        MalformedManifestError: See `decode`; the values of fields are not checked.
    """
    check_values(raw, what)
    pairs = dict if duplicates else _unique
    text = raw.decode("utf-8", "replace")
    return _load(text, raw, what, lambda text: _parse(text, trailing=trailing, unique=pairs))


def _load(text: str, raw: bytes, what: str, parse: Callable[[str], Json]) -> dict[str, Json]:
    try:
        tree = parse(text)
    except MalformedManifestError as error:
        raise MalformedManifestError(f"{what}: {error.message}") from None
    except RecursionError as error:
        raise _too_deep(what) from error
    except ValueError as error:
        message = f"{what} is not JSON: {_words(error)}, it begins with {excerpt(raw, 50)}"
        raise MalformedManifestError(message) from error
    _check_depth(tree, what)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        message = f"{what} is not a JSON object, it begins with {excerpt(raw, 50)}"
        raise MalformedManifestError(message)
    return tree


def convert(tree: dict[str, Json], kind: type[T], *, what: str = "document") -> T:
    """Convert a tree of `load` to a typed value.

    Args:
        tree: The object; it is not changed.
        kind: See `decode`.
        what: See `decode`.

    Raises:
        MalformedManifestError: A field has the wrong type, or a key is almost a known one.
    """
    try:
        return msgspec.convert(shape_of(kind).fit(tree), kind)
    except msgspec.ValidationError as error:
        message = f"{what}: {excerpt(str(error), 200)}"
        raise MalformedManifestError(message) from error
    except MalformedManifestError as error:
        raise MalformedManifestError(f"{what}: {error.message}") from None


def _parse(
    text: str, *, trailing: bool, unique: Callable[[list[tuple[str, Json]]], dict[str, Json]]
) -> Json:
    if _ESCAPED_SURROGATE.search(text):
        text = _ESCAPE.sub(_without_lone_surrogate, text)
    decoder = json.JSONDecoder(object_pairs_hook=unique, parse_constant=_refuse)
    if not trailing:
        return cast("Json", decoder.decode(text))
    start = len(text) - len(text.lstrip(" \t\r\n"))
    return cast("Json", decoder.raw_decode(text, start)[0])


def _without_lone_surrogate(match: re.Match[str]) -> str:
    return match[0] if match[1] is None else "\\ufffd"


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise MalformedManifestError(f"duplicate key {excerpt(key)}")
            seen.add(key)
    return unique


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _words(error: ValueError) -> str:
    # The text of a JSONDecodeError is short, but it carries the whole document.
    return f"{error.msg} at {error.pos}" if isinstance(error, json.JSONDecodeError) else str(error)


def _prune(text: str) -> str:
    """The text with ``null`` for every object or list that is nested too deep."""
    depth, start = 0, 0
    kept: list[str] = []
    for match in _BRACKET.finditer(text):
        mark = match[0]
        if mark in "[{":
            depth += 1
            if depth == MAX_JSON_DEPTH + 1:
                kept.append(text[start : match.start()])
        elif mark in "]}":
            if depth == MAX_JSON_DEPTH + 1:
                kept.append("null")
                start = match.end()
            depth -= 1
    # Brackets that are never closed stay, for the parser to refuse.
    return "".join((*kept, text[start:])) if kept else text


def _settle(node: Json, shape: Shape, *, folded: bool) -> Any:  # noqa: ANN401 - a part of a tree
    """A tree with known keys only, each by its exact name."""
    if isinstance(shape, _Fields) and isinstance(node, dict):
        settled: dict[str, Json] = {}
        for key, value in node.items():
            name = key if key in shape.known else shape.folded.get(fold(key)) if folded else None
            if name is not None and (name == key or name not in node):
                settled[name] = _settle(value, shape.known[name], folded=folded)
        return settled
    if isinstance(shape, _Items) and isinstance(node, list):
        return [_settle(value, shape.item, folded=folded) for value in node]
    if isinstance(shape, _Entries) and isinstance(node, dict):
        return {key: _settle(value, shape.item, folded=folded) for key, value in node.items()}
    return node


def _check_depth(tree: Json, what: str) -> None:
    level = [tree]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for node in level for child in _containers(node)]
        if not level:
            return
    raise _too_deep(what)


def _containers(node: Json) -> Iterable[Json]:
    children = node.values() if isinstance(node, dict) else node
    if isinstance(children, (str, int, float)) or children is None:
        return ()
    return [child for child in children if isinstance(child, (dict, list))]


def _too_deep(what: str) -> MalformedManifestError:
    return MalformedManifestError(f"{what} is nested deeper than {MAX_JSON_DEPTH} levels")


Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
"""A decoded document."""


class Shape(Protocol):
    """What one kind of value must look like."""

    def fit(self, node: Json, /) -> Json:
        """The node as msgspec expects it; what has the wrong type stays as it is.

        Raises:
            MalformedManifestError: A key is almost a known one.
        """
        ...

    @property
    def zero(self) -> Json:
        """What a null stands for within a list or a map."""
        ...


def fold(key: str) -> str:
    """The key as a case-insensitive reader compares it (rule J-01).

    This is Unicode's simple folding, as far as it leads to ASCII: U+017F is an s, U+212A a k.
    """
    return key.lower().replace("\u017f", "s")


@functools.cache
def shape_of(kind: type[msgspec.Struct]) -> Shape:
    """The shape of a struct type. Computed once for each type."""
    return _shape(inspect.type_info(kind))


@functools.cache
def quick_decoder(kind: type[msgspec.Struct]) -> msgspec.json.Decoder[msgspec.Struct] | None:
    """A decoder whose result, encoded again, has no colons that the document does not have.

    Returns:
        None if `kind` does not guarantee that: a struct within accepts unknown fields, writes
        defaults, or has untyped fields.
    """
    return msgspec.json.Decoder(kind) if _is_tight(inspect.type_info(kind)) else None


def _is_tight(info: inspect.Type) -> bool:
    match info:
        case inspect.StructType(cls=cls, fields=fields, forbid_unknown_fields=True):
            return msgspec.json.encode(cls()) == b"{}" and all(_is_tight(f.type) for f in fields)
        case inspect.UnionType(types=types):
            return all(map(_is_tight, types))
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return _is_tight(item)
        case inspect.DictType(key_type=inspect.StrType(), value_type=value):
            return _is_tight(value)
        case _:
            return isinstance(info, _SCALARS)


_SCALARS: Final = (
    inspect.StrType,
    inspect.IntType,
    inspect.FloatType,
    inspect.BoolType,
    inspect.NoneType,
)


class _Fields(NamedTuple):
    known: Mapping[str, Shape]
    folded: Mapping[str, str]
    zero: Json

    def fit(self, node: Json, /) -> Json:
        if not isinstance(node, dict):
            return node
        fitted: dict[str, Json] = {}
        for key, value in node.items():
            shape = self.known.get(key)
            if shape is None:
                self._check_unknown(key)
            elif value is not None:
                fitted[key] = shape.fit(value)
        return fitted

    def _check_unknown(self, key: str) -> None:
        known = self.folded.get(fold(key))
        if known is not None:
            message = f"key {excerpt(key)} is not {known!r}, but some readers take it for that"
            raise MalformedManifestError(message)


class _Items(NamedTuple):
    item: Shape
    zero: Json

    def fit(self, node: Json, /) -> Json:
        if not isinstance(node, list):
            return node
        return [self.item.zero if value is None else self.item.fit(value) for value in node]


class _Entries(NamedTuple):
    item: Shape
    zero: Json

    def fit(self, node: Json, /) -> Json:
        if not isinstance(node, dict):
            return node
        return {
            key: self.item.zero if value is None else self.item.fit(value)
            for key, value in node.items()
        }


class _Natural(NamedTuple):
    """A number from 0; a negative one counts as null (rule C-08)."""

    zero: Json

    def fit(self, node: Json, /) -> Json:
        return None if isinstance(node, int | float) and node < 0 and node % 1 == 0 else node


class _Scalar(NamedTuple):
    zero: Json

    def fit(self, node: Json, /) -> Json:
        return node


def _shape(info: inspect.Type) -> Shape:
    match info:
        case inspect.StructType(fields=fields):
            known = {field.encode_name: _shape(field.type) for field in fields}
            return _Fields(known, {fold(name): name for name in known}, {})
        case inspect.UnionType(types=types):
            return _optional(types)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            return _Items(_shape(item), [])
        case inspect.DictType(value_type=value):
            return _Entries(_shape(value), {})
        case inspect.IntType(ge=0):
            return _Natural(0)
        case _:
            return _Scalar(_ZEROS.get(type(info)))


_ZEROS: Final[Mapping[type[inspect.Type], Json]] = {
    inspect.StrType: "",
    inspect.IntType: 0,
    inspect.FloatType: 0.0,
    inspect.BoolType: False,
}


def _optional(types: tuple[inspect.Type, ...]) -> Shape:
    """The shape of ``X | None``; msgspec handles any other union."""
    others = [info for info in types if not isinstance(info, inspect.NoneType)]
    return _shape(others[0]) if len(others) == 1 else _Scalar(None)
