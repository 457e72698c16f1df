"""Shapes: what a decoded JSON tree must look like before msgspec may convert it.

A shape does what the decoder of Go does and msgspec does not (rules J-03, J-04): it drops fields
that are null, gives null elements their zero value, drops unknown keys, and refuses keys that a
case-insensitive reader takes for known ones.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

import msgspec
from msgspec import inspect

from asupplemented.errors import MalformedManifestError
from asupplemented.model.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ("Json", "Shape", "fold", "quick_decoder", "shape_of")

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
    """A decoder whose result, encoded again, has no colon that the document has not.

    Returns:
        None if `kind` gives no such promise: some struct within takes unknown fields, writes
        defaults, or holds what is not typed.
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
        case _:
            return _Scalar(_ZEROS.get(type(info)))


_ZEROS: Final[Mapping[type[inspect.Type], Json]] = {
    inspect.StrType: "",
    inspect.IntType: 0,
    inspect.FloatType: 0.0,
    inspect.BoolType: False,
}


def _optional(types: tuple[inspect.Type, ...]) -> Shape:
    """The shape of ``X | None``; any other union is left to msgspec."""
    others = [info for info in types if not isinstance(info, inspect.NoneType)]
    return _shape(others[0]) if len(others) == 1 else _Scalar(None)
