"""What a registry's answer means: errors, warnings and media types (rules ERR, HTTP-04).

No I/O. The status decides first, the code in the body second (rule ERR-08). What the other
side writes is quoted, cut, and cleaned of our secrets before it gets into a message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, cast

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from multidict import CIMultiDictProxy

    from asupplemented.errors import NotFoundError
    from asupplemented.model.strict_json import Json

__all__ = (
    "Answer",
    "HostileDocumentError",
    "Inquiry",
    "decode_document",
    "describe",
    "parse_media_type",
    "parse_warning",
)

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
    """A document that was made to break its reader: too deep, or numbers too long."""


class Inquiry(NamedTuple):
    """What was asked for, so far as errors want to know."""

    what: str
    """For people: "manifest latest of library/busybox"."""
    missing: Callable[..., NotFoundError] | None = None
    """The error for what is not there; None where everything has to be there."""
    digest: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """An answer that is not the one hoped for, whole and in memory."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes | None
    """None if it is larger than an error may be."""
    url: str
    """Redacted."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What the body of an error says."""

    code: str = ""
    message: str = ""
    errors: tuple[tuple[str, str], ...] = ()
    hostile: str | None = None
    """Why it was not read to its end."""


def describe(
    answer: Answer, inquiry: Inquiry, *, now: float, secrets: Iterable[str] = ()
) -> RegistryError | NotFoundError:
    """The error that an answer is.

    Args:
        answer: The answer; for a status outside of 400 to 499 its body is not looked at
            (rule ERR-05).
        inquiry: What was asked for.
        now: Seconds since the epoch.
        secrets: What must not occur in the error, even if the other side repeats it.
    """
    reading = _censor(_read(answer), secrets)
    if inquiry.missing is not None and _is_absent(answer.status, reading):
        message = f"{answer.url} holds no {inquiry.what}{_quote(reading)}"
        return inquiry.missing(message, digest=inquiry.digest)
    kind, reading = _classify(answer, reading, secrets)
    error = kind(
        f"{answer.url} answered {answer.status} for {inquiry.what}{_quote(reading)}",
        status=answer.status,
        code=reading.code,
        errors=reading.errors,
        url=answer.url,
        digest=inquiry.digest,
        retry_after=parse_retry_after(answer.headers.getall("Retry-After", ()), now=now),
    )
    if reading.hostile is not None:
        error.add_note(f"the body of the answer was not read: {reading.hostile}")
    return error


def _classify(
    answer: Answer, reading: _Reading, secrets: Iterable[str]
) -> tuple[type[RegistryError], _Reading]:
    """The class of an error, and what is to be said of it (rules ERR-01, ERR-08)."""
    status = answer.status
    if status == 401:  # noqa: PLR2004
        challenges = parse_challenges(answer.headers.getall("WWW-Authenticate", ())).challenges
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.error in _BY_CHALLENGE:
                kind, code, usual = _BY_CHALLENGE[challenge.error]
                text = challenge.get("error_description") or usual
                return kind, _censor(_Reading(code, text, reading.errors), secrets)
        return _BY_CODE.get(reading.code, UnauthorizedError), reading
    if status >= 500:  # noqa: PLR2004
        return ServerError, reading
    if status in _BY_STATUS:
        return _BY_STATUS[status], reading
    if reading.hostile is not None:
        return MalformedResponseError, reading
    return _BY_CODE.get(reading.code, UnexpectedStatusError), reading


def _is_absent(status: int, reading: _Reading) -> bool:
    """Whether an answer says that the thing is not there (rule ERR-06)."""
    if status == 404:  # noqa: PLR2004
        return True
    return 400 <= status < 500 and status not in _BY_STATUS and reading.code in _ABSENT_CODES  # noqa: PLR2004


def _read(answer: Answer) -> _Reading:
    """Read the body of an error (rules ERR-02 to ERR-05, ERR-09)."""
    if not 400 <= answer.status < 500:  # noqa: PLR2004
        return _Reading()
    if answer.body is None:
        return _Reading(hostile="it is too large")
    try:
        document = decode_document(answer.body)
    except HostileDocumentError as error:
        return _Reading(hostile=str(error))
    except ValueError:
        return _unreadable(answer)
    legacy = document.get("details")
    if isinstance(legacy, str) and "errors" not in document:
        code = _LEGACY_CODES.get(answer.status, "UNKNOWN")
        return _Reading(code, legacy, ((code, legacy),))
    listed = document.get("errors")
    errors = tuple(_entries(listed)) if isinstance(listed, list) else ()
    return _Reading(*errors[0], errors) if errors else _unreadable(answer)


def _entries(listed: list[Json]) -> Iterable[tuple[str, str]]:
    for entry in listed[:_ERRORS]:
        if isinstance(entry, dict):
            code, message = entry.get("code"), entry.get("message")
            known = isinstance(code, str) and code in _KNOWN_CODES
            yield (
                cast("str", code) if known else "UNKNOWN",
                message if isinstance(message, str) else "",
            )


def _unreadable(answer: Answer) -> _Reading:
    """What remains of a body that is no error document (rule ERR-04)."""
    if answer.status == 401:  # noqa: PLR2004
        return _Reading("UNAUTHORIZED", "")
    return _Reading("", (answer.body or b"").decode("utf-8", "replace"))


def _quote(reading: _Reading) -> str:
    limit = _SHOWN if reading.code else _EXCERPT
    said = excerpt(reading.message, limit) if reading.message else ""
    words = " ".join(filter(None, (reading.code, said)))
    return f": {words}" if words else ""


def _censor(reading: _Reading, secrets: Iterable[str]) -> _Reading:
    """Take our own secrets out of what the other side says (rule CRED-07)."""
    known = sorted({secret for secret in secrets if secret}, key=len, reverse=True)

    def clean(text: str) -> str:
        for secret in known:
            text = text.replace(secret, "***")
        return text

    errors = tuple((code, clean(message)[:_SHOWN]) for code, message in reading.errors)
    return _Reading(reading.code, clean(reading.message), errors, reading.hostile)


def decode_document(body: bytes) -> dict[str, Json]:
    """Decode a small JSON object strictly: UTF-8 without a mark, one value (rule ERR-09).

    Raises:
        HostileDocumentError: It is nested too deep, or holds a number that is too long.
        ValueError: It is no JSON object.
    """
    try:
        document = cast("Json", msgspec.json.decode(body))
    except RecursionError:
        message = "it is nested too deep"
        raise HostileDocumentError(message) from None
    except msgspec.ValidationError:
        message = "it holds a number that is too long"
        raise HostileDocumentError(message) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        message = "it is not JSON"
        raise ValueError(message) from None
    if not isinstance(document, dict):
        message = "it is no JSON object"
        raise ValueError(message)  # noqa: TRY004 - of the wrong value, not of ours
    return document


def parse_media_type(value: str | None) -> str | None:
    """A ``Content-Type`` without its parameters; None if absent or not to be read (HTTP-04)."""
    if value in KNOWN_MANIFESTS:
        return value  # as nearly all are
    match = _MEDIA_TYPE.match(value) if value is not None else None
    return None if match is None else match[1]


def parse_warning(value: str) -> str | None:
    """The text of a ``Warning`` header of the one form that is meant for people (rule ERR-10)."""
    match = _WARNING.fullmatch(value)
    return None if match is None else _ESCAPE.sub(r"\1", match[1])
