"""Redirects: where an answer sends us, decided by our own rules (rules REDIR-02 to REDIR-05).

Nothing is re-quoted: a pre-signed location works as it was written, or not at all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urljoin

from yarl import URL

from asupplemented.errors import MalformedResponseError
from asupplemented.transports.registry.addresses import origin_of, redact

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ("REDIRECTS", "join_url", "next_url", "parse_url")

REDIRECTS: Final = frozenset((301, 302, 303, 307, 308))

_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F)))
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*+:", re.ASCII)


def next_url(visited: Sequence[URL], location: str | None, *, limit: int, insecure: bool) -> URL:
    """Where to go after a redirect.

    Args:
        visited: Every URL asked so far for this request, the redirecting one last.
        location: The ``Location`` header, None if there is none.
        limit: Redirects that are followed.
        insecure: Whether https may be left for http.

    Raises:
        MalformedResponseError: The redirect is not to be followed. Its message and URL have
            no query, since that may be a secret.
    """
    current = visited[-1]
    if not location:
        raise _refuse(current, "without a location")
    try:
        target = join_url(current, location)
    except ValueError as error:
        raise _refuse(current, f"to a location that {error}") from None
    if current.scheme == "https" and target.scheme == "http" and not insecure:
        raise _refuse(current, f"from https to plain http at {redact(target)}")
    if target in visited:
        raise _refuse(current, f"in a circle, to {redact(target)} again")
    if len(visited) > limit:
        raise _refuse(current, f"once more, and {limit} redirects are followed at most")
    return target


def parse_url(text: str) -> URL:
    """Read an absolute http or https URL as a server wrote it, without re-quoting it.

    Blanks and characters beyond ASCII are quoted, since no request could carry them.

    Raises:
        ValueError: It is none; the message completes "a URL that ..." and quotes nothing.
    """
    _check_characters(text)
    url = _read(quote(text, safe=_VISIBLE, errors="replace"))
    if url is None:
        message = "is no http or https URL"
        raise ValueError(message)
    if "@" in url.raw_authority:
        message = "holds a user or password"
        raise ValueError(message)
    return url


def join_url(current: URL, text: str) -> URL:
    """The same for a URL that may be relative to another one.

    Raises:
        ValueError: See `parse_url`.
    """
    _check_characters(text)  # some of them urljoin would take away
    # It leaves an absolute URL almost alone, and almost is not enough.
    return parse_url(text if _ABSOLUTE.match(text) else urljoin(str(current), text))


def _check_characters(text: str) -> None:
    if any(ord(character) < 0x20 or character in "\x7f\\" for character in text):  # noqa: PLR2004
        message = "holds control characters or backslashes"
        raise ValueError(message)


def _read(text: str) -> URL | None:
    try:
        url = URL(text, encoded=True).with_fragment(None)
        return url if url.scheme in {"http", "https"} and origin_of(url) else None
    except ValueError:
        return None


def _refuse(current: URL, how: str) -> MalformedResponseError:
    place = redact(current)
    return MalformedResponseError(f"{place} redirects {how}", url=place)
