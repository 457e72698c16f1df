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
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar, cast

import msgspec

from asupplemented.errors import MalformedManifestError
from asupplemented.limits import MAX_JSON_DEPTH
from asupplemented.model.shape import Json, quick_decoder, shape_of
from asupplemented.model.text import excerpt

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("Json", "convert", "decode", "decode_quickly", "load")

T = TypeVar("T", bound=msgspec.Struct)

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
        what: What the document is, for error messages.
        trailing: Ignore what follows the object (rule J-08: ``index.json`` of a layout).

    Raises:
        MalformedManifestError: It is not a JSON object in UTF-8, it is nested deeper than
            ``MAX_JSON_DEPTH``, a key is there twice or almost a known one, or a field has the
            wrong type (rules J-03, J-05, J-06, J-08).
    """
    value = decode_quickly(raw, kind)
    if value is not None:
        return value
    return convert(load(raw, what=what, trailing=trailing), kind, what=what)


def decode_quickly(raw: bytes, kind: type[T]) -> T | None:
    """Decode a document that is plainly in order.

    Returns:
        None if the exact way, which is `load` and `convert`, has to decide.
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


def load(raw: bytes, *, what: str = "document", trailing: bool = False) -> dict[str, Json]:
    """Read a JSON object whole, as a tree.

    Returns:
        The object with every key of the document; ``null`` gives an empty one (rule J-09).

    Raises:
        MalformedManifestError: See `decode`; what the fields hold is not looked at.
    """
    try:
        tree = _parse(raw.decode("utf-8", "replace"), trailing=trailing)
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
    """Turn a tree of `load` into a typed value.

    Args:
        tree: The object; it is not changed.
        kind: As for `decode`.
        what: As for `decode`.

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


def _parse(text: str, *, trailing: bool) -> Json:
    if _ESCAPED_SURROGATE.search(text):
        text = _ESCAPE.sub(_without_lone_surrogate, text)
    decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
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
