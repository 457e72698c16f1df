"""A parser of ``WWW-Authenticate`` (RFC 9110, rules CHAL-01 to CHAL-04), without I/O.

It never raises: a line is read up to its first fault, and the challenges before that count. Time
is linear in the length of a line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ("Challenge", "ParsedChallenges", "parse_challenges")

MAX_CHALLENGES: Final = 16
MAX_PARAMETERS: Final = 32
MAX_LINE: Final = 8 * 1024
"""Characters of one header line."""

_GAP: Final = re.compile(r"[ \t\r\n]*+")
_SEPARATOR: Final = re.compile(r"[ \t\r\n,]*+")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]++")
_EQUALS: Final = re.compile(r"[ \t\r\n]*+=[ \t\r\n]*+")
_QUOTED: Final = re.compile(r'"((?:[^"\\\x00-\x1f\x7f]|[\t\r\n]|\\[^\x00-\x1f\x7f])*+)"')
_ESCAPE: Final = re.compile(r"\\(.)")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]++=*+(?=[ \t\r\n]*+(?:,|\Z))")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge. Its scheme and the names of its parameters are in lowercase.

    Attributes:
        scheme: "basic", "bearer", ...
        parameters: Name and value, in the order of the header.
    """

    scheme: str
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """The value of a parameter, None if it is absent."""
        for known, value in self.parameters:
            if known == name:
                return value
        return None

    @property
    def realm(self) -> str | None:
        return self.get("realm")

    @property
    def service(self) -> str:
        """The service that a token is for, "" if absent."""
        return self.get("service") or ""

    @property
    def error(self) -> str | None:
        """Why the last request was refused: "invalid_token", "insufficient_scope", or None."""
        return self.get("error")

    @property
    def scopes(self) -> tuple[str, ...]:
        """The scopes that a token needs, empty if absent."""
        return tuple((self.get("scope") or "").split())


class ParsedChallenges(NamedTuple):
    """The challenges of a response in their order, and the faults of its lines."""

    challenges: tuple[Challenge, ...]
    faults: tuple[str, ...]
    """The first fault of each malformed line."""


def parse_challenges(lines: Iterable[str]) -> ParsedChallenges:
    """Read the values of all ``WWW-Authenticate`` headers of a response.

    A line may hold several challenges (rule CHAL-02), and there may be several lines
    (rule CHAL-01). At most 16 challenges are read, with at most 32 parameters each.
    """
    challenges: list[Challenge] = []
    faults: list[str] = []
    for line in lines:
        if len(challenges) == MAX_CHALLENGES:
            faults.append(f"more than {MAX_CHALLENGES} challenges")
            break
        reader = _Reader(line, MAX_CHALLENGES - len(challenges))
        fault = reader.read()
        challenges.extend(reader.challenges())
        if fault is not None:
            faults.append(fault)
    return ParsedChallenges(tuple(challenges), tuple(faults))


class _Reader:
    """Reads one line from left to right."""

    def __init__(self, line: str, limit: int) -> None:
        self._line = line
        self._limit = limit
        self._position = 0
        self._found: list[tuple[str, dict[str, str]]] = []

    def challenges(self) -> Iterable[Challenge]:
        return (Challenge(scheme, tuple(known.items())) for scheme, known in self._found)

    def read(self) -> str | None:
        """Read to the end, or to the first fault, which is returned."""
        if len(self._line) > MAX_LINE:
            return f"a challenge of more than {MAX_LINE} characters"
        while (self._skip(_SEPARATOR)) < len(self._line):
            fault = self._read_element()
            if fault is not None:
                return f"{fault} at character {self._position}"
        return None

    def _read_element(self) -> str | None:
        """Read a parameter of the last challenge, or the scheme of the next one."""
        name = self._take(_TOKEN)
        if name is None:
            return "a character that begins nothing"
        if _EQUALS.match(self._line, self._position) is not None:
            return self._read_parameter(name.lower())
        if len(self._found) == self._limit:
            return f"more than {MAX_CHALLENGES} challenges"
        self._found.append((name.lower(), {}))
        self._skip(_GAP)
        self._take(_TOKEN68)
        return None

    def _read_parameter(self, name: str) -> str | None:
        if not self._found:
            return "a parameter without a scheme"
        known = self._found[-1][1]
        if name in known:
            return "a parameter given twice"
        if len(known) == MAX_PARAMETERS:
            return f"more than {MAX_PARAMETERS} parameters"
        self._take(_EQUALS)
        value = self._take_value()
        if not value:
            return "a parameter without a value"
        known[name] = value
        following = self._line[self._skip(_GAP) : self._position + 1]
        return None if following in {"", ","} else "no comma after a parameter"

    def _take_value(self) -> str | None:
        quoted = _QUOTED.match(self._line, self._position)
        if quoted is None:
            return self._take(_TOKEN)
        self._position = quoted.end()
        return _ESCAPE.sub(r"\1", quoted[1])

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._line, self._position)
        if match is None:
            return None
        self._position = match.end()
        return match[0]

    def _skip(self, pattern: re.Pattern[str]) -> int:
        """Skip a match, and return the new position."""
        match = pattern.match(self._line, self._position)
        self._position = match.end() if match is not None else self._position
        return self._position
