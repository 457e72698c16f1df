"""What files and helpers have in common: JSON that holds secrets.

What is wrong with it is told without a word of it (rule CRED-07).
"""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

from asupplemented.errors import ConfigurationError, MalformedManifestError
from asupplemented.model import strict_json
from asupplemented.model.credential import Credential

__all__ = ("decode_secrets", "make_credential")

T = TypeVar("T", bound=msgspec.Struct)


def decode_secrets(
    raw: bytes, kind: type[T], what: str, *, field: str | None = None, trailing: bool = False
) -> T:
    """Decode one JSON object, strictly.

    Args:
        raw: The bytes of the document.
        kind: A struct whose fields all have defaults.
        what: What the document is, for the error.
        field: The field of `kind` that the document is the value of; None for the whole of it.
        trailing: Ignore what follows the object.

    Raises:
        ConfigurationError: It is no such object, or a key is there twice or almost a known one.
            Neither the error nor its context holds anything of the document.
    """
    try:
        tree = strict_json.load(raw, trailing=trailing)
        return strict_json.convert(tree if field is None else {field: tree}, kind)
    except MalformedManifestError as error:
        fault = _describe(error.__cause__)
    # Not while the other one is handled, for that quotes the document, and would be its context.
    message = f"{what} {fault}"
    raise ConfigurationError(message)


def make_credential(
    username: str, password: str, *, identity_token: str = "", registry_token: str = ""
) -> Credential | None:
    """The credential that fields say, of which those that are empty say nothing.

    Returns:
        None if nothing is said.

    Raises:
        ConfigurationError: A field cannot be sent; it is not shown.
    """
    if not (username or password or identity_token or registry_token):
        return None
    return Credential(
        username if username or password else None,
        password or None,
        registry_token or None,
        identity_token or None,
    )


def _describe(cause: BaseException | None) -> str:
    match cause:
        case json.JSONDecodeError(lineno=line, colno=column):
            return f"is not JSON: see line {line}, column {column}"
        case msgspec.ValidationError():
            return f"has a value of the wrong type: {cause}"
        case _:
            return "is no JSON object, is nested too deep, or has a key twice or in the wrong case"
