"""The one place where the exceptions of aiohttp become ours.

Some of them hold the URL with its query, or the headers of the request, and show them: those
do not become the cause of ours, since a traceback prints causes (rules REDIR-05, CRED-07).
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Final

import aiohttp

from asupplemented.errors import (
    MalformedResponseError,
    NetworkError,
    SourceTimeoutError,
    TruncatedError,
)
from asupplemented.transports.registry.addresses import origin_of, redact

if TYPE_CHECKING:
    from yarl import URL

    from asupplemented.errors import SourceError, SupplementedError

__all__ = (
    "FOREIGN",
    "FOREIGN_IN_BODY",
    "ForbiddenAddressError",
    "is_passing",
    "is_unreached",
    "translate",
)

FOREIGN: Final = (aiohttp.ClientError, OSError, UnicodeError)
"""What a request, or reading its answer, may raise that is not ours."""

FOREIGN_IN_BODY: Final = (*FOREIGN, RuntimeError)
"""The same for reading a body: one whose connection was closed here raises a RuntimeError."""

_TALKATIVE: Final = (
    aiohttp.ClientResponseError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)
_UNTRUSTED: Final = (aiohttp.ClientConnectorCertificateError, aiohttp.ClientSSLError)
_WHO: Final = 407
_OVERLOADED: Final = 500
_UNKNOWN_NAME: Final = frozenset(
    code
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_FAIL", "EAI_ADDRFAMILY")
    if isinstance(code := getattr(socket, name, None), int)
)


class ForbiddenAddressError(OSError):
    """A name that leads to an address where this request must not go (rule SEC-01)."""


def translate(error: Exception, url: URL, *, received: int | None = None) -> SourceError:
    """Our error for a foreign one, its cause set if that keeps our secrets.

    Args:
        error: One of `FOREIGN`, or of `FOREIGN_IN_BODY`.
        url: What was asked for.
        received: Bytes of the body that had arrived, None if the head had not.
    """
    ours = _translate(error, url, received)
    if not isinstance(error, _TALKATIVE):
        ours.__cause__ = error
    return ours


def _translate(error: Exception, url: URL, received: int | None) -> SourceError:
    place = redact(url)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return _UnreachedTimeoutError(f"no connection to {origin_of(url)} in time")
    if isinstance(error, TimeoutError):
        return SourceTimeoutError(f"{place} did not answer in time", received=received)
    if isinstance(error, aiohttp.ClientPayloadError):
        return TruncatedError(f"the answer of {place} broke off", received=received)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return _ProxyRefusalError.of(error.status, url)
    fault = _find_fault(error, url)
    if fault is not None:
        return MalformedResponseError(fault, url=place, received=received)
    return NetworkError(_complain(error, url), received=received)


def _find_fault(error: Exception, url: URL) -> str | None:
    """What is wrong with an answer, or with where one sent us; None if the network is at fault."""
    if isinstance(error, aiohttp.InvalidURL):
        return f"{redact(url)} is nothing that can be asked"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{redact(url)} did not answer in valid HTTP"
    cause = error.__cause__
    if isinstance(error, aiohttp.ClientConnectorDNSError) and isinstance(
        cause, ForbiddenAddressError
    ):
        return f"refused to connect to {origin_of(url)}: {cause}"
    return None


class _UnreachedTimeoutError(SourceTimeoutError):
    """Not even a connection; its cause cannot say so, because it shows the URL."""


class _ProxyRefusalError(NetworkError):
    """A proxy that does not lead to where it should; its cause would show what it was told."""

    status: int | None = None

    @classmethod
    def of(cls, status: int, url: URL) -> _ProxyRefusalError:
        why = "it wants to know who we are" if status == _WHO else f"it answered {status}"
        error = cls(f"the proxy does not lead to {origin_of(url)}: {why}")
        error.status = status
        return error


def _complain(error: Exception, url: URL) -> str:
    origin = _other_side(error, url)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        why = getattr(error.certificate_error, "verify_message", "") or "it is not trusted"
        return (
            f"the certificate of {origin} was refused: {why}; "
            "install its authority, or set tls_verify=False for a registry that you trust anyway"
        )
    if isinstance(error, aiohttp.ClientSSLError):
        return f"no TLS with {origin}: {_words(error)}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the host of {origin} was not found: {_words(error)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection to {origin}: {_words(error)}"
    if isinstance(error, UnicodeError):
        return f"the host of {origin} is no valid name"
    return f"the connection to {origin} broke: {_words(error)}"


def _other_side(error: Exception, url: URL) -> str:
    """Whom we could not talk to: the origin, or the proxy that leads there."""
    origin = origin_of(url)
    if not isinstance(error, aiohttp.ClientConnectorError):
        return str(origin)
    direct = (error.host, error.port) == (url.raw_host, url.port)
    return str(origin) if direct else f"the proxy that leads to {origin}"


def _words(error: Exception) -> str:
    """What the operating system says, without the wrappings."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, ssl.SSLError):
        return inner.reason or "the handshake failed"
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return "it was closed"


def is_passing(error: SupplementedError) -> bool:
    """Whether a transport error may be gone the next time (rules RET-02, RET-06)."""
    if not isinstance(error, (NetworkError, SourceTimeoutError)):
        return False
    if isinstance(error, _ProxyRefusalError):
        return error.status is not None and error.status >= _OVERLOADED
    cause = error.__cause__
    if isinstance(cause, aiohttp.ClientConnectorDNSError):
        return cause.os_error.errno not in _UNKNOWN_NAME
    return not isinstance(cause, (*_UNTRUSTED, UnicodeError))


def is_unreached(error: SupplementedError) -> bool:
    """Whether there was no connection at all."""
    return isinstance(error, _UnreachedTimeoutError) or isinstance(
        error.__cause__, (aiohttp.ClientConnectorError, UnicodeError)
    )
