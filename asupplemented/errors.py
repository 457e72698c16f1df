"""Every error of the library, one base, one tree, and what quotes untrusted text in them.

Catch by class and read the fields; never parse the text. Each class also derives from the
standard exception that is nearest in meaning, so ``except LookupError`` and ``except OSError``
do what a caller expects.

::

    SupplementedError
     +-- InvalidReferenceError           (ValueError)    text that is no reference
     |    +-- UnknownTransportError                      a scheme that no transport has
     +-- InvalidDigestError              (ValueError)    text that is no digest
     |    +-- UnsupportedDigestError                     a well-formed digest, unknown algorithm
     +-- InvalidPlatformError            (ValueError)    text that is no os/arch[/variant]
     +-- ConfigurationError              (ValueError)    settings that contradict each other
     +-- ManifestError                   (ValueError)    bytes that cannot serve as a manifest
     |    +-- MalformedManifestError                     not JSON, wrong types, broken rules
     |    +-- AmbiguousManifestError                     reads as two kinds of document
     |    +-- UnsupportedManifestError                   a media type that is not read
     |    +-- NonImageArtifactError                      an artifact where an image is needed
     +-- VerificationError               (ValueError)    content that is not what was named
     |    +-- DigestMismatchError
     |    +-- SizeMismatchError
     +-- LimitExceededError              (ValueError)    past a cap of limits.py
     +-- RangeError                      (ValueError)    a range outside the blob
     +-- NotFoundError                   (LookupError)
     |    +-- ManifestNotFoundError                      a source does not hold this manifest
     |    |    +-- ImageNotFoundError                    nor anything under this reference
     |    +-- InstanceNotFoundError                      a group knows no such instance
     |    +-- BlobNotFoundError                          no known instance or source has it
     |    +-- PlatformNotFoundError                      no instance matches the platform
     |    +-- NameUnknownError                           a catalog does not serve this name
     +-- SourceError                     (OSError)       a source that could not be used
     |    +-- PermissionDeniedError      (PermissionError)   the operating system said no
     |    +-- NetworkError               (ConnectionError)   no connection, or it broke
     |    +-- SourceTimeoutError         (TimeoutError)
     |    |    +-- SlotTimeoutError                      too much is open in this session
     |    +-- TruncatedError             (EOFError)      a body that ended too soon
     |    +-- FailoverError                              no source served it; .attempts
     |    +-- LayoutError                                a directory that is no valid store
     |    +-- RegistryError                              an answer of a registry
     |         +-- UnauthorizedError                     401
     |         +-- ForbiddenError                        403, or the code DENIED
     |         +-- TooManyRequestsError                  429; .retry_after
     |         +-- ServerError                           5xx
     |         +-- UnexpectedStatusError                 any other status
     |         +-- MalformedResponseError                an answer that breaks the protocol
     +-- UnsupportedOperationError       (NotImplementedError)   by design not possible here
     +-- UsageError                      (RuntimeError)  the library was called wrongly
          +-- ClosedError                                a resource used after its end
          +-- WrongLoopError                             a session used from another event loop
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = (
    "AmbiguousManifestError",
    "BlobNotFoundError",
    "ClosedError",
    "ConfigurationError",
    "DigestMismatchError",
    "FailoverError",
    "ForbiddenError",
    "ImageNotFoundError",
    "InstanceNotFoundError",
    "InvalidDigestError",
    "InvalidPlatformError",
    "InvalidReferenceError",
    "LayoutError",
    "LimitExceededError",
    "MalformedManifestError",
    "MalformedResponseError",
    "ManifestError",
    "ManifestNotFoundError",
    "NameUnknownError",
    "NetworkError",
    "NonImageArtifactError",
    "NotFoundError",
    "PermissionDeniedError",
    "PlatformNotFoundError",
    "RangeError",
    "RegistryError",
    "ServerError",
    "SizeMismatchError",
    "SlotTimeoutError",
    "SourceError",
    "SourceTimeoutError",
    "SupplementedError",
    "TooManyRequestsError",
    "TruncatedError",
    "UnauthorizedError",
    "UnexpectedStatusError",
    "UnknownTransportError",
    "UnsupportedDigestError",
    "UnsupportedManifestError",
    "UnsupportedOperationError",
    "UsageError",
    "VerificationError",
    "WrongLoopError",
    "excerpt",
)


class SupplementedError(Exception):
    """Base of every error that the library raises on purpose.

    Attributes:
        message: What happened, in one sentence, without the context below.
        reference: The reference at hand as text, or None where there is none.
        digest: The digest of the manifest or blob at hand, or None.
        member: The member number at hand (0 is the top), or None outside of a group.
    """

    def __init__(
        self,
        message: str = "",
        *,
        reference: object | None = None,
        digest: str | None = None,
        member: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reference: str | None = None if reference is None else str(reference)
        self.digest: str | None = digest
        self.member: int | None = member

    def locate(
        self,
        *,
        reference: object | None = None,
        digest: str | None = None,
        member: int | None = None,
    ) -> Self:
        """Fill in the context that is still unknown; what was said closer to the fault stays.

        Args:
            reference: The reference at hand.
            digest: The digest at hand.
            member: The member at hand.

        Returns:
            The error itself, so that it can be raised in the same breath.
        """
        if self.reference is None and reference is not None:
            self.reference = str(reference)
        if self.digest is None:
            self.digest = digest
        if self.member is None:
            self.member = member
        return self

    def twin(self) -> Self:
        """A copy to raise elsewhere, since each place that raises an error adds its own context."""
        twin = copy.copy(self)
        twin.__cause__ = self.__cause__
        if notes := getattr(self, "__notes__", None):
            twin.__notes__ = list(notes)
        return twin

    @property
    def http_status(self) -> int:
        """The HTTP status that a registry answers with on this error (rule SRV-11)."""
        return _http_answer(self).status

    def oci_error(self) -> dict[str, list[dict[str, str | None]]]:
        """The JSON body of that answer, in the form of the distribution specification.

        Code and message depend on the class only, so that no URL, reference or credential of an
        upstream registry reaches a client.
        """
        answer = _http_answer(self)
        return {"errors": [{"code": answer.code, "message": answer.message, "detail": None}]}

    def __str__(self) -> str:
        named = (("reference", self.reference), ("digest", self.digest))
        known = [
            f"{name} {value}"
            for name, value in named
            if value is not None and value not in self.message
        ]
        if self.member is not None and f"member {self.member}" not in self.message:
            known.append(f"member {self.member}")
        return f"{self.message} ({', '.join(known)})" if known else self.message


class InvalidReferenceError(SupplementedError, ValueError):
    """Text that is not a reference; the message names the fault and the remedy."""


class UnknownTransportError(InvalidReferenceError):
    """A reference whose scheme no transport of this library speaks."""


class InvalidDigestError(SupplementedError, ValueError):
    """Text that is not a digest (rules D-01, D-02)."""


class UnsupportedDigestError(InvalidDigestError):
    """A well-formed digest of an algorithm that is not known (rule D-03)."""


class InvalidPlatformError(SupplementedError, ValueError):
    """Text that is not ``os/architecture[/variant]``."""


class ConfigurationError(SupplementedError, ValueError):
    """Settings, or a configuration file, that cannot be followed."""


class ManifestError(SupplementedError, ValueError):
    """Bytes that cannot serve as the manifest they were asked for."""


class MalformedManifestError(ManifestError):
    """Not JSON, fields of the wrong type, or the rules of its kind broken (rules J, P, DG)."""


class AmbiguousManifestError(ManifestError):
    """Bytes that could be read as two kinds of manifest (rules A; CVE-2021-41190)."""


class UnsupportedManifestError(ManifestError):
    """A manifest of a kind that cannot be read here (rules P-01, P-02)."""


class NonImageArtifactError(ManifestError):
    """An artifact where an image is needed (rule AR-02).

    Attributes:
        artifact_type: The ``artifactType``, else the media type of the config.
    """

    def __init__(self, message: str = "", *, artifact_type: str = "", **context: Any) -> None:
        super().__init__(message, **context)
        self.artifact_type = artifact_type


class VerificationError(SupplementedError, ValueError):
    """Content that is not what its digest or its descriptor promised."""


class DigestMismatchError(VerificationError):
    """The bytes do not have the digest that named them.

    Attributes:
        actual: The digest that the bytes do have, or None where it was not computed.
        suspects: Member numbers that supplied bytes; none is condemned until it fails alone.
    """

    def __init__(
        self,
        message: str = "",
        *,
        actual: str | None = None,
        suspects: Sequence[int] = (),
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.actual = actual
        self.suspects = tuple(suspects)


class SizeMismatchError(VerificationError):
    """More or fewer bytes than the descriptor promised.

    Attributes:
        expected: Bytes promised.
        actual: Bytes found or announced; a lower bound where reading stopped at the surplus.
    """

    def __init__(
        self,
        message: str = "",
        *,
        expected: int | None = None,
        actual: int | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.expected = expected
        self.actual = actual


class LimitExceededError(SupplementedError, ValueError):
    """Past a cap of `asupplemented.limits`.

    Attributes:
        limit: The cap, in the unit that the message names.
    """

    def __init__(self, message: str = "", *, limit: int | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.limit = limit


class RangeError(SupplementedError, ValueError):
    """A byte range that lies outside of the blob, or ends before it starts."""


class NotFoundError(SupplementedError, LookupError):
    """What was asked for is not there. The only kind of error that counts as a miss."""


class ManifestNotFoundError(NotFoundError):
    """A source does not hold this manifest."""


class ImageNotFoundError(ManifestNotFoundError):
    """A reference points at nothing: no such layout, image, repository or tag."""


class InstanceNotFoundError(NotFoundError):
    """No member of a group supplied this instance (seed: ``ErrDigestNotFound``).

    Attributes:
        digests: Every digest that was asked for and not found.
    """

    def __init__(self, message: str = "", *, digests: Sequence[str] = (), **context: Any) -> None:
        super().__init__(message, **context)
        self.digests = tuple(digests)


class BlobNotFoundError(NotFoundError):
    """No known instance names this blob, or no source holds it (seed: ``ErrBlobNotFound``)."""


class PlatformNotFoundError(NotFoundError):
    """No instance of a list matches the wanted platform (rule CI-07).

    Attributes:
        available: The platforms that the list does offer, as text.
    """

    def __init__(self, message: str = "", *, available: Sequence[str] = (), **context: Any) -> None:
        super().__init__(message, **context)
        self.available = tuple(available)


class NameUnknownError(NotFoundError):
    """A catalog does not serve this name, or does not allow it. No source was asked."""


class SourceError(SupplementedError, OSError):
    """A source that could not be reached, read or understood.

    Attributes:
        received: Bytes of the body that had arrived, or None where no body had begun.
    """

    def __init__(self, message: str = "", *, received: int | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.received = received


class PermissionDeniedError(SourceError, PermissionError):
    """The operating system refused access to a file or directory."""


class NetworkError(SourceError, ConnectionError):
    """No connection could be made, or it broke."""


class SourceTimeoutError(SourceError, TimeoutError):
    """A source was too slow: connecting, answering, or in the middle of a body."""


class SlotTimeoutError(SourceTimeoutError):
    """No slot became free: too much is open at this session. It says nothing of the source."""


class TruncatedError(SourceError, EOFError):
    """A body that ended before its announced size."""


class FailoverError(SourceError):
    """Several sources were asked for one blob, and none served it to its end.

    Attributes:
        attempts: What each attempt ended with, in order; each says whose it was, and how far the
            blob had come. Its cause is the first one that was more than a miss.
    """

    def __init__(
        self, message: str = "", *, attempts: Sequence[SupplementedError] = (), **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.attempts = tuple(attempts)


class LayoutError(SourceError):
    """A directory or file that is not a valid image store of its kind."""


class RegistryError(SourceError):
    """An answer of a registry that is not the one hoped for (rules ERR).

    Attributes:
        status: The HTTP status, or None where no status line was read.
        code: The registry's error code ("DENIED", ...), "" where none was given.
        errors: All ``(code, message)`` pairs of the body.
        url: The URL without its query, user and password.
        retry_after: Seconds that the registry asked us to wait, or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str = "",
        errors: Sequence[tuple[str, str]] = (),
        url: str | None = None,
        retry_after: float | None = None,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.status = status
        self.code = code
        self.errors = tuple(errors)
        self.url = url
        self.retry_after = retry_after


class UnauthorizedError(RegistryError):
    """401: credentials are missing or were not accepted."""


class ForbiddenError(RegistryError):
    """403, or 401 with ``insufficient_scope``: not allowed with these credentials."""


class TooManyRequestsError(RegistryError):
    """429: the registry limits our rate; ``retry_after`` says for how long."""


class ServerError(RegistryError):
    """5xx: the registry failed."""


class UnexpectedStatusError(RegistryError):
    """A status that the protocol does not foresee here."""


class MalformedResponseError(RegistryError):
    """An answer that breaks the protocol: HTML, an encoded body, a broken header."""


class UnsupportedOperationError(SupplementedError, NotImplementedError):
    """An operation that this kind of source refuses by design."""


class UsageError(SupplementedError, RuntimeError):
    """The library was called in a way that cannot work; the message says how to do it."""


class ClosedError(UsageError):
    """A session, source or stream was used after it had been closed."""


class WrongLoopError(UsageError):
    """A session was used from an event loop other than its own."""


class _HttpAnswer(NamedTuple):
    status: int
    code: str
    message: str


_UNREADABLE: Final = _HttpAnswer(502, "UNAVAILABLE", "upstream could not be read")
_INVALID_CONTENT: Final = _HttpAnswer(502, "UNAVAILABLE", "upstream sent wrong content")
_REFUSED: Final = _HttpAnswer(502, "UNAVAILABLE", "upstream refused access")
_BUSY: Final = _HttpAnswer(503, "UNAVAILABLE", "the registry is busy; try again later")
_TOO_SLOW: Final = _HttpAnswer(504, "UNAVAILABLE", "upstream did not answer in time")
_TOO_MANY: Final = _HttpAnswer(429, "TOOMANYREQUESTS", "upstream limits the rate of requests")
_NO_DIGEST: Final = _HttpAnswer(400, "DIGEST_INVALID", "this is no digest")
_NO_MANIFEST: Final = _HttpAnswer(404, "MANIFEST_UNKNOWN", "there is no such manifest")
_BROKEN: Final = _HttpAnswer(500, "UNKNOWN", "the registry cannot answer this request")

_HTTP_ANSWERS: Final[dict[type[SupplementedError], _HttpAnswer]] = {
    SupplementedError: _BROKEN,
    InvalidReferenceError: _HttpAnswer(400, "NAME_INVALID", "this is no name of a repository"),
    UnknownTransportError: _BROKEN,
    InvalidDigestError: _NO_DIGEST,
    UnsupportedDigestError: _NO_DIGEST,
    InvalidPlatformError: _BROKEN,
    ConfigurationError: _BROKEN,
    ManifestError: _INVALID_CONTENT,
    MalformedManifestError: _INVALID_CONTENT,
    AmbiguousManifestError: _INVALID_CONTENT,
    UnsupportedManifestError: _INVALID_CONTENT,
    NonImageArtifactError: _INVALID_CONTENT,
    VerificationError: _INVALID_CONTENT,
    DigestMismatchError: _INVALID_CONTENT,
    SizeMismatchError: _INVALID_CONTENT,
    LimitExceededError: _INVALID_CONTENT,
    RangeError: _HttpAnswer(416, "RANGE_INVALID", "the range is outside of the content"),
    NotFoundError: _NO_MANIFEST,
    ManifestNotFoundError: _NO_MANIFEST,
    ImageNotFoundError: _NO_MANIFEST,
    InstanceNotFoundError: _NO_MANIFEST,
    BlobNotFoundError: _HttpAnswer(404, "BLOB_UNKNOWN", "there is no such blob"),
    PlatformNotFoundError: _NO_MANIFEST,
    NameUnknownError: _HttpAnswer(404, "NAME_UNKNOWN", "there is no such repository"),
    SourceError: _UNREADABLE,
    PermissionDeniedError: _UNREADABLE,
    NetworkError: _UNREADABLE,
    SourceTimeoutError: _TOO_SLOW,
    SlotTimeoutError: _BUSY,  # the limit is ours, so upstream is not to blame
    TruncatedError: _UNREADABLE,
    FailoverError: _UNREADABLE,
    LayoutError: _UNREADABLE,
    RegistryError: _UNREADABLE,
    UnauthorizedError: _REFUSED,
    ForbiddenError: _REFUSED,
    TooManyRequestsError: _TOO_MANY,
    ServerError: _UNREADABLE,
    UnexpectedStatusError: _UNREADABLE,
    MalformedResponseError: _UNREADABLE,
    UnsupportedOperationError: _HttpAnswer(501, "UNSUPPORTED", "upstream cannot do this"),
    UsageError: _BROKEN,
    ClosedError: _HttpAnswer(503, "UNAVAILABLE", "the registry is shutting down"),
    WrongLoopError: _BROKEN,
}
"""How a registry answers on each class (rule SRV-11); other classes answer as their base."""


def _http_answer(error: SupplementedError) -> _HttpAnswer:
    if isinstance(error, FailoverError):
        # All attempts failed alike: say so, for a client treats 429, 503 and 504 unlike 502.
        found = {_http_answer(attempt) for attempt in error.attempts}
        if found in ({_TOO_MANY}, {_TOO_SLOW}, {_BUSY}):
            return found.pop()
    return next(_HTTP_ANSWERS[base] for base in type(error).__mro__ if base in _HTTP_ANSWERS)


def excerpt(value: str | bytes, limit: int = 100) -> str:
    """Quote what a stranger sent, so that it can neither flood nor break a message.

    Args:
        value: Text, or bytes that should be text; invalid UTF-8 is shown as U+FFFD.
        limit: The most characters of `value` to show.

    Returns:
        The `repr` of the beginning, followed by ``...`` if more was cut off.
    """
    head = value[:limit]
    shown = head if isinstance(head, str) else bytes(head).decode("utf-8", "replace")
    return f"{shown!r}..." if len(value) > limit else repr(shown)
