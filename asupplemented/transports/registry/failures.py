"""Exceptions of aiohttp mapped to errors of this package, and which failures are retried.

Some of them show the URL with its query, or the headers of the request. Those do not become the
cause of our errors, since a traceback prints causes (rules REDIR-05, CRED-07).
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Final

import aiohttp

from asupplemented.aio.retry import Retry
from asupplemented.errors import (
    MalformedResponseError,
    NetworkError,
    RegistryError,
    SourceTimeoutError,
    TruncatedError,
)
from asupplemented.remedies import TLS_VERIFY, advise
from asupplemented.transports.registry.addresses import origin_of, redact

if TYPE_CHECKING:
    from yarl import URL

    from asupplemented.errors import SourceError, SupplementedError
    from asupplemented.remedies import Remedy

__all__ = (
    "FOREIGN",
    "FOREIGN_IN_BODY",
    "ForbiddenAddressError",
    "is_busy",
    "is_transient",
    "never_retry",
    "should_retry",
    "should_retry_in_haste",
    "translate",
)

FOREIGN: Final = (aiohttp.ClientError, OSError, UnicodeError)
"""Foreign exceptions that a request may raise."""

FOREIGN_IN_BODY: Final = (*FOREIGN, RuntimeError)
"""The same for reading a body: aiohttp raises RuntimeError if we closed its connection."""

_SHOWING_SECRETS: Final = (
    aiohttp.ClientResponseError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)
_CUT_HANDSHAKE: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""A handshake that the other side ended: an overloaded server or a balancer, and no distrust."""
_UNTRUSTED: Final = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)
_PROXY_AUTHENTICATION: Final = 407
_SERVER_ERROR: Final = 500
_EDGE: Final = frozenset((*range(520, 525), 529))
"""Statuses of content delivery networks whose origin does not answer, or of overload."""
_BUSY: Final = frozenset((429, 502, 503, 504, *_EDGE))
_MOVES_ON: Final = frozenset((429, 503, *_EDGE))
"""Statuses after which another source is asked at once, if there is one."""
_ONCE: Final = frozenset((408, 500))
"""Statuses that are retried once."""
_UNKNOWN_NAME: Final = frozenset(
    code
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_FAIL", "EAI_ADDRFAMILY")
    if isinstance(code := getattr(socket, name, None), int)
)


class ForbiddenAddressError(OSError):
    """An address is too private to be connected to (rule SEC-01).

    Args:
        message: What is refused, and why.
        remedy: The setting that allows it, None if only its operator should.
    """

    def __init__(self, message: str, remedy: Remedy | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy


def translate(
    error: Exception, url: URL, *, received: int | None = None, own: bool = False
) -> SourceError:
    """The error for a foreign exception, which becomes its cause unless it shows secrets.

    Args:
        error: One of `FOREIGN`, or of `FOREIGN_IN_BODY`.
        url: The URL of the request.
        received: Bytes of the body that had arrived, None if the head had not.
        own: Whether the setting ``tls_verify`` applies to the server.
    """
    ours = _translate(error, url, received, own=own)
    if not isinstance(error, _SHOWING_SECRETS):
        ours.__cause__ = error
    return ours


def _translate(error: Exception, url: URL, received: int | None, *, own: bool) -> SourceError:
    place = redact(url)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return SourceTimeoutError(f"no connection to {origin_of(url)} in time")
    if isinstance(error, TimeoutError):
        return SourceTimeoutError(f"{place} did not answer in time", received=received)
    if isinstance(error, aiohttp.ClientPayloadError):
        return TruncatedError(f"the response of {place} broke off", received=received)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _ProxyRefusalError.of(error.status, url)
    fault = _find_fault(error, url)
    if fault is not None:
        return MalformedResponseError(fault, url=place, received=received)
    return NetworkError(_complain(error, url, own=own), received=received)


def _find_fault(error: Exception, url: URL) -> str | None:
    """What is wrong with a response or a redirect; None if the network failed."""
    if isinstance(error, aiohttp.InvalidURL):
        return f"{redact(url)} is not a valid URL for a request"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{redact(url)} did not answer in valid HTTP"
    if isinstance(error, aiohttp.ClientConnectorError):
        for cause in (error.os_error, error.__cause__):
            if isinstance(cause, ForbiddenAddressError):
                advice = cause.remedy and advise("if that is right, allow it with {}", cause.remedy)
                return f"refused to connect to {origin_of(url)}: {cause}{advice or ''}"
    return None


class _ProxyRefusalError(NetworkError):
    """A proxy refused to connect. Its cause shows our headers, so it is not kept."""

    status: int | None = None

    @classmethod
    def of(cls, status: int, url: URL) -> _ProxyRefusalError:
        why = f"it answered {status}"
        if status == _PROXY_AUTHENTICATION:
            why = "it requires authentication; put user and password into the URL of the proxy"
        error = cls(f"the proxy does not connect to {origin_of(url)}: {why}")
        error.status = status
        return error


def _complain(error: Exception, url: URL, *, own: bool) -> str:
    origin = _other_side(error, url)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or "it is not trusted"
        message = f"the certificate of {origin} was refused: {why}; install its authority"
        if own and origin == str(origin_of(url)):
            text = "or, for a registry that you trust anyway, give {}"
            message += advise(text, TLS_VERIFY)
        return message
    if isinstance(error, aiohttp.ClientSSLError):
        message = f"no TLS with {origin}: {_words(error)}"
        if own and origin == str(origin_of(url)) and "WRONG_VERSION_NUMBER" in str(error):
            text = "if it is a registry that speaks plain http, give {}"
            message += advise(text, TLS_VERIFY)
        return message
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host of {origin} was not found: {_words(error)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {origin}: {_words(error)}"
    if isinstance(error, UnicodeError):
        return f"the host of {origin} is no valid name"
    return f"the connection to {origin} broke: {_words(error)}"


def _other_side(error: Exception, url: URL) -> str:
    """The server that failed, for messages: the origin, or the proxy before it."""
    origin = origin_of(url)
    if not isinstance(error, aiohttp.ClientConnectorError):
        return str(origin)
    direct = (error.host, error.port) == (url.raw_host, url.port)
    return str(origin) if direct else f"the proxy for {origin}"


def _words(error: Exception) -> str:
    """The message of the operating system, without aiohttp's wrapping."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, ssl.SSLError):
        return getattr(inner, "reason", None) or "the handshake failed"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return "it was closed"


def is_transient(error: SupplementedError) -> bool:
    """Whether the same request may succeed the next time (rules RET-02, RET-06)."""
    if not isinstance(error, (NetworkError, SourceTimeoutError)):
        return False
    if isinstance(error, _ProxyRefusalError):
        return error.status is not None and error.status >= _SERVER_ERROR
    cause = error.__cause__
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return cause.os_error.errno not in _UNKNOWN_NAME
    if isinstance(cause, aiohttp.ClientConnectorError) and isinstance(
        cause.os_error, _CUT_HANDSHAKE
    ):
        return True
    return not isinstance(cause, (*_UNTRUSTED, UnicodeError))


def is_busy(error: SupplementedError) -> bool:
    """Whether a server says that it cannot serve any client at the moment."""
    return isinstance(error, RegistryError) and error.status in _MOVES_ON


def should_retry(error: SupplementedError) -> Retry | None:
    """How a request is retried after a failure, None if it is not (rule RET-06).

    Statuses 429, 502, 503, 504, 520 to 524 and 529 are retried, 408 and 500 once, no other
    status. Transport errors before the head of a response are retried unless they are permanent,
    like a certificate that is not trusted or a name that does not exist. The first contact with a
    registry is no exception.
    """
    if isinstance(error, RegistryError) and error.status is not None:
        if error.status in _BUSY:
            return Retry(after=error.retry_after)
        return Retry(after=error.retry_after, attempts=2) if error.status in _ONCE else None
    return Retry() if is_transient(error) and not _began(error) else None


def should_retry_in_haste(error: SupplementedError) -> Retry | None:
    """The same while another source can serve: it is asked at once if this one is busy."""
    return None if is_busy(error) else should_retry(error)


def never_retry(_error: SupplementedError) -> Retry | None:
    """For a mirror: one that fails costs one attempt, and the next one is asked (rule CONF-14)."""
    return None


def _began(error: SupplementedError) -> bool:
    """Whether the body of a response had begun; then only its stream can resume it."""
    return getattr(error, "received", None) is not None
