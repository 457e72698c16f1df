"""Redaction: our own secrets are removed from what a server makes us say (rule CRED-07).

Theory of operation
-------------------

A server that was sent a password or a token can put it anywhere into its responses: an error, a
``Warning``, a location, a link, a manifest. So text is searched for secrets wherever it comes from,
when an error or an event with it leaves this transport.

A secret is looked for as it is and as a server may write it: in base64 at each of its three
alignments, percent-encoded, and in hexadecimal. Both sides are compared without case and without
anything but letters and digits, so that a secret is found in pieces, too; and every
`WINDOW` letters of one count, so that the beginning or the end of a secret is found.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import quote

from asupplemented.aio.lru import LRU
from asupplemented.errors import SupplementedError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("Secrets",)

KEPT: Final = 8
"""Tokens that are kept, those that were sent last."""
WINDOW: Final = 8
"""Letters of a secret that are enough to be removed."""
SHORT: Final = 6
"""Letters of a secret that is looked for in our own sentences, where words occur."""
LONGEST: Final = 4096
"""Letters of a text that are searched, and of a secret. Messages are much shorter."""
_LONG: Final = 16
"""Letters of a secret that does not occur in a document by chance."""
_CAUSES: Final = 16
_HIDDEN: Final = "***"
_OURS: Final = frozenset(("reference", "digest"))
"""Fields of errors that no server writes."""


class Secrets:
    """What one identity has sent to one registry, and must not be repeated.

    Args:
        known: Secrets that are never forgotten, such as passwords; None and empty text are none.
    """

    __slots__ = ("_any", "_encodings", "_given", "_sent")

    def __init__(self, known: Iterable[str | None] = ()) -> None:
        self._given = tuple(secret for secret in known if secret)
        self._sent = LRU[str, str](KEPT)
        self._any = bool(self._given)
        self._encodings: tuple[str, ...] | None = None
        """All of them as they may be written; made when it is needed."""

    def __repr__(self) -> str:
        return "<Secrets>"

    def __bool__(self) -> bool:
        """Whether anything was sent that must not be repeated."""
        return self._any

    def add(self, secret: str | None) -> None:
        """Remember a token; None and empty text are none."""
        if secret and secret not in self._sent:
            self._encodings = None
            self._any = True
            self._sent.put(secret, secret)

    @property
    def _known(self) -> list[str]:
        return [*self._given, *self._sent.values()]

    def censor(self, text: str) -> str:
        """A text of a server without secrets, however short they are."""
        return self._hide(self._replace(text, shortest=1)) if self else text

    def censor_own(self, text: str) -> str:
        """A sentence of ours that may quote a server. Short secrets may be words of ours."""
        return self._hide(self._replace(text, shortest=SHORT)) if self else text

    def occur_in(self, document: bytes) -> bool:
        """Whether a long secret is in a document, so that this document is meant to show it."""
        if not self:
            return False
        return any(secret.encode() in document for secret in self._known if len(secret) >= _LONG)

    def scrub(self, error: BaseException) -> None:
        """Remove secrets from an error, from its notes, and from its causes."""
        seen: set[int] = set()
        current: BaseException | None = error
        while current is not None and id(current) not in seen and len(seen) < _CAUSES:
            seen.add(id(current))
            if isinstance(current, SupplementedError):
                for name, value in list(vars(current).items()):
                    if name not in _OURS:
                        setattr(current, name, self._clean(value))
            current.args = tuple(map(self._clean, current.args))
            current = current.__cause__ or current.__context__

    def scrubbing(self) -> _Scrubbing:
        """Scrub the errors that pass through."""
        return _Scrubbing(self)

    def _clean(self, value: object) -> object:
        if isinstance(value, str):
            return self.censor_own(value)
        if type(value) in {tuple, list}:
            clean = map(self._clean, cast("Iterable[object]", value))
            return list(clean) if isinstance(value, list) else tuple(clean)
        return value

    def _replace(self, text: str, *, shortest: int) -> str:
        for secret in sorted(self._known, key=len, reverse=True):
            if len(secret) >= shortest:
                text = text.replace(secret, _HIDDEN)
        return text

    def _hide(self, text: str) -> str:
        """Remove what looks like a part of a secret once encodings and separators are gone."""
        text = text[:LONGEST]
        places = [place for place, letter in enumerate(text) if letter.isalnum()]
        letters = "".join(text[place] for place in places).lower()
        if self._encodings is None:
            self._encodings = tuple({*_encode_all(self._known)})
        hidden = [False] * len(letters)
        windows = "\0".join(each for each in self._encodings if len(each) >= WINDOW)
        for start in range(len(letters) - WINDOW + 1 if windows else 0):
            if letters[start : start + WINDOW] in windows:
                hidden[start : start + WINDOW] = [True] * WINDOW
        for whole in self._encodings:
            start = letters.find(whole) if SHORT <= len(whole) < WINDOW else -1
            while start >= 0:
                hidden[start : start + len(whole)] = [True] * len(whole)
                start = letters.find(whole, start + 1)
        return _cover(text, [place for place, hide in zip(places, hidden, strict=True) if hide])


class _Scrubbing:
    """Scrubs the errors that pass through: a class and no generator, for each blob enters it."""

    __slots__ = ("_secrets",)

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def __enter__(self) -> None:
        """There is nothing to prepare."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if isinstance(error, SupplementedError):
            self._secrets.scrub(error)


def _cover(text: str, places: list[int]) -> str:
    """Replace the characters at some places, and the separators between them."""
    parts: list[str] = []
    after = 0
    for place in places:
        gap = text[after:place]
        if any(map(str.isalnum, gap)) or not parts:
            parts += (gap, _HIDDEN)
        after = place + 1
    return "".join((*parts, text[after:]))


def _encode_all(secrets: Iterable[str]) -> Iterable[str]:
    """Letters and digits of the ways in which secrets may be written, in lowercase."""
    for secret in secrets:
        raw = secret.encode()[:LONGEST]
        ways = [secret[:LONGEST], quote(secret[:LONGEST], safe=""), raw.hex()]
        for shift in range(3):
            # The first letters, and the last ones, depend on what stands beside the secret.
            encoded = base64.b64encode(b"\0" * shift + raw).decode()
            ways.append(encoded[(0, 2, 3)[shift] :].rstrip("=")[: -1 if raw else None])
        for way in ways:
            yield "".join(filter(str.isalnum, way)).lower()
