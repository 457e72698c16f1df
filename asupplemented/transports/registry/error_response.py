"""Error responses turned into our errors; warnings and media types (rules ERR, HTTP-04).

No I/O. The status decides first, the code in the body second (rule ERR-08). Text of the server is
cut, quoted, and cleaned of our secrets before it gets into a message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, cast

import msgspec

from asupplemented.aio.retry import parse_retry_after
from asupplemented.errors import (
    ForbiddenError,
    MalformedResponseError,
    RegistryError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    UnexpectedStatusError,
    excerpt,
)
from asupplemented.model.media_type import KNOWN_MANIFESTS
from asupplemented.transports.registry.challenge import parse_challenges
from asupplemented.transports.registry.redaction import Secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from multidict import CIMultiDictProxy

    from asupplemented.errors import NotFoundError
    from asupplemented.model.strict_json import Json

__all__ = (
    "ErrorResponse",
    "HostileDocumentError",
    "Target",
    "decode_document",
    "decode_typed",
    "describe",
    "parse_media_type",
    "parse_warning",
)

T = TypeVar("T")

_SHOWN: Final = 200
_EXCERPT: Final = 50
_ERRORS: Final = 16

_KNOWN_CODES: Final = frozenset(
    (
        "BLOB_UNKNOWN",
        "DENIED",
        "DIGEST_INVALID",
        "MANIFEST_BLOB_UNKNOWN",
        "MANIFEST_INVALID",
        "MANIFEST_UNKNOWN",
        "MANIFEST_UNVERIFIED",
        "NAME_INVALID",
        "NAME_UNKNOWN",
        "PAGINATION_NUMBER_INVALID",
        "RANGE_INVALID",
        "SIZE_INVALID",
        "TAG_INVALID",
        "TOOMANYREQUESTS",
        "UNAUTHORIZED",
        "UNAVAILABLE",
        "UNKNOWN",
        "UNSUPPORTED",
    )
)
_ABSENT_CODES: Final = frozenset(("MANIFEST_UNKNOWN", "BLOB_UNKNOWN"))
_BY_CODE: Final[Mapping[str, type[RegistryError]]] = {
    "DENIED": ForbiddenError,
    "TOOMANYREQUESTS": TooManyRequestsError,
    "UNAUTHORIZED": UnauthorizedError,
}
_BY_STATUS: Final[Mapping[int, type[RegistryError]]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    429: TooManyRequestsError,
}
_BY_CHALLENGE: Final[Mapping[str | None, tuple[type[RegistryError], str, str]]] = {
    "invalid_token": (UnauthorizedError, "UNAUTHORIZED", "authentication required"),
    "insufficient_scope": (ForbiddenError, "DENIED", "requested access is denied"),
}
_LEGACY_CODES: Final = {401: "UNAUTHORIZED", 429: "TOOMANYREQUESTS"}

_MEDIA_TYPE: Final = re.compile(
    r"[ \t]*+([!#$%&'*+.^_`|~0-9A-Za-z-]{1,127}/[!#$%&'*+.^_`|~0-9A-Za-z-]{1,127})[ \t]*+(?:;|\Z)"
)
_WARNING: Final = re.compile(r'299 - "((?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*+)"')
_ESCAPE: Final = re.compile(r"\\(.)")


class HostileDocumentError(ValueError):
    """A document made to exhaust its reader: nested too deep, or with numbers too long."""


class Target(NamedTuple):
    """What a request is for, for errors."""

    description: str
    """For people: "manifest latest of library/busybox"."""
    not_found: Callable[..., NotFoundError] | None = None
    """Makes the error if it does not exist; None if it cannot be missing."""
    digest: str | None = None
    advice: str = ""
    """The end of the message if it does not exist."""


@dataclass(frozen=True, slots=True, repr=False)
class ErrorResponse:
    """A response with an unexpected status, its body in memory."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes | None
    """None if it is larger than an error may be."""
    url: str
    """Redacted."""


@dataclass(frozen=True, slots=True)
class _ErrorBody:
    """The parsed body of an error response."""

    code: str = ""
    message: str = ""
    errors: tuple[tuple[str, str], ...] = ()
    hostile: str | None = None
    """Why it was not parsed, None if it was."""


def describe(
    response: ErrorResponse, target: Target, *, now: float, secrets: Secrets | None = None
) -> RegistryError | NotFoundError:
    """The error for a response.

    Args:
        response: Its body counts for a status from 400 to 499 (rule ERR-05).
        target: What was asked for.
        now: Seconds since the epoch.
        secrets: What must not occur in the error, even if the server repeats it.
    """
    secrets = secrets or Secrets()
    body = _censor(_parse_body(response), secrets)
    if target.not_found is not None and _is_absent(response.status, body):
        message = f"{response.url} holds no {target.description}{_quote(body)}{target.advice}"
        return target.not_found(message, digest=target.digest)
    kind, body = _classify(response, body, secrets)
    error = kind(
        f"{response.url} answered {response.status} for {target.description}{_quote(body)}",
        status=response.status,
        code=body.code,
        errors=body.errors,
        url=response.url,
        digest=target.digest,
        retry_after=parse_retry_after(response.headers.getall("Retry-After", ()), now=now),
    )
    if body.hostile is not None:
        error.add_note(f"the body of the response was not read: {body.hostile}")
    return error


def _classify(
    response: ErrorResponse, body: _ErrorBody, secrets: Secrets
) -> tuple[type[RegistryError], _ErrorBody]:
    """The class of an error, and the code and text for it (rules ERR-01, ERR-08)."""
    status = response.status
    if status == 401:  # noqa: PLR2004
        challenges = parse_challenges(response.headers.getall("WWW-Authenticate", ())).challenges
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.error in _BY_CHALLENGE:
                kind, code, usual = _BY_CHALLENGE[challenge.error]
                text = challenge.get("error_description") or usual
                return kind, _censor(_ErrorBody(code, text, body.errors), secrets)
        return _BY_CODE.get(body.code, UnauthorizedError), body
    if status >= 500:  # noqa: PLR2004
        return ServerError, body
    if status in _BY_STATUS:
        return _BY_STATUS[status], body
    if body.hostile is not None:
        return MalformedResponseError, body
    return _BY_CODE.get(body.code, UnexpectedStatusError), body


def _is_absent(status: int, body: _ErrorBody) -> bool:
    """Whether a response says that the target does not exist (rule ERR-06)."""
    if status == 404:  # noqa: PLR2004
        return True
    return 400 <= status < 500 and status not in _BY_STATUS and body.code in _ABSENT_CODES  # noqa: PLR2004


def _parse_body(response: ErrorResponse) -> _ErrorBody:
    """Read the body of an error (rules ERR-02 to ERR-05, ERR-09)."""
    if not 400 <= response.status < 500:  # noqa: PLR2004
        return _ErrorBody()
    if response.body is None:
        return _ErrorBody(hostile="it is too large")
    try:
        document = decode_document(response.body)
    except HostileDocumentError as error:
        return _ErrorBody(hostile=str(error))
    except ValueError:
        return _unreadable(response)
    legacy = document.get("details")
    if isinstance(legacy, str) and "errors" not in document:
        code = _LEGACY_CODES.get(response.status, "UNKNOWN")
        return _ErrorBody(code, legacy, ((code, legacy),))
    listed = document.get("errors")
    errors = tuple(_entries(listed)) if isinstance(listed, list) else ()
    return _ErrorBody(*errors[0], errors) if errors else _unreadable(response)


def _entries(listed: list[Json]) -> Iterable[tuple[str, str]]:
    for entry in listed[:_ERRORS]:
        if isinstance(entry, dict):
            code, message = entry.get("code"), entry.get("message")
            known = isinstance(code, str) and code in _KNOWN_CODES
            yield (
                cast("str", code) if known else "UNKNOWN",
                message if isinstance(message, str) else "",
            )


def _unreadable(response: ErrorResponse) -> _ErrorBody:
    """The parts to use of a body that is no error document (rule ERR-04)."""
    if response.status == 401:  # noqa: PLR2004
        return _ErrorBody("UNAUTHORIZED", "")
    return _ErrorBody("", (response.body or b"").decode("utf-8", "replace"))


def _quote(body: _ErrorBody) -> str:
    limit = _SHOWN if body.code else _EXCERPT
    said = excerpt(body.message, limit) if body.message else ""
    words = " ".join(filter(None, (body.code, said)))
    return f": {words}" if words else ""


def _censor(body: _ErrorBody, secrets: Secrets) -> _ErrorBody:
    """Remove our secrets from the text of a server (rule CRED-07)."""
    if not body.message and not body.errors:
        return body
    errors = tuple((code, secrets.censor(message)[:_SHOWN]) for code, message in body.errors)
    return _ErrorBody(body.code, secrets.censor(body.message), errors, body.hostile)


def decode_document(body: bytes) -> dict[str, Json]:
    """Decode a small JSON object strictly: UTF-8 without a byte order mark (rule ERR-09).

    Raises:
        HostileDocumentError: It is nested too deep, or holds a number that is too long.
        ValueError: It is no JSON object.
    """
    document = decode_typed(body, object)
    if not isinstance(document, dict):
        message = "it is no JSON object"
        raise ValueError(message)  # noqa: TRY004 - of the wrong value, not of ours
    return cast("dict[str, Json]", document)


def decode_typed(body: bytes, kind: type[T]) -> T:
    """Decode a document as strictly as `decode_document`, building only what `kind` names.

    Raises:
        HostileDocumentError: It is nested too deep, or holds a number that is too long.
        ValueError: It is not JSON, or no such document.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        message = "it is nested too deep"
        raise HostileDocumentError(message) from None
    except msgspec.ValidationError as error:
        if kind is not object:
            raise ValueError(str(error)) from None
        message = "it holds a number that is too long"
        raise HostileDocumentError(message) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = "it is not JSON"
        raise ValueError(message) from None


def parse_media_type(value: str | None) -> str | None:
    """A ``Content-Type`` without its parameters; None if absent or malformed (HTTP-04)."""
    if value in KNOWN_MANIFESTS:
        return value  # the common case, without the regular expression
    match = _MEDIA_TYPE.match(value) if value is not None else None
    return None if match is None else match[1]


def parse_warning(value: str) -> str | None:
    """The text of a ``Warning`` header of code 299, None for any other form (rule ERR-10)."""
    match = _WARNING.fullmatch(value)
    return None if match is None else _ESCAPE.sub(r"\1", match[1])
