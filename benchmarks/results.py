"""What a run has measured, as lines of JSON."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ("OURS", "Results", "Row")

OURS: Final = "asupplemented"
"""The name of the library among the contestants."""


@dataclass(frozen=True)
class Row:
    """One contestant of a case.

    Attributes:
        group: The module that measured it.
        case: What was done.
        name: The contestant.
        size: How much work one round is, in `unit`.
        unit: Of the work: "MiB", "manifests".
        wall: Seconds of each round.
        cpu: Seconds of CPU of each round, child processes included; empty where it is not known.
        memory: MiB of each round; empty where it was not measured.
    """

    group: str
    case: str
    name: str
    size: float
    unit: str
    wall: tuple[float, ...] = ()
    cpu: tuple[float, ...] = ()
    memory: tuple[float, ...] = ()

    def time_of(self, other: Row) -> float:
        """How many times as long as another contestant this one takes."""
        return _ratio(self.wall, other.wall)

    def cpu_of(self, other: Row) -> float:
        """How many times as much CPU as another contestant this one takes."""
        return _ratio(self.cpu, other.cpu)

    def to_json(self) -> str:
        """One line."""
        value = asdict(self)
        for name in ("wall", "cpu", "memory"):
            value[name] = [round(figure, 7) for figure in value[name]]
        return json.dumps({key: each for key, each in value.items() if each not in ([], ())})


def _ratio(ours: tuple[float, ...], theirs: tuple[float, ...]) -> float:
    """The median of the ratios of each round; NaN if there are none."""
    ratios = [one / other for one, other in zip(ours, theirs, strict=False) if other]
    return median(ratios) if ratios else math.nan


@dataclass
class Results:
    """A run.

    Attributes:
        about: Machine, date and versions of programs; name to value, in the order to show.
        rows: What was measured, in order.
        notes: What was skipped or cut, and why.
    """

    about: dict[str, str] = field(default_factory=dict[str, str])
    rows: list[Row] = field(default_factory=list[Row])
    notes: list[str] = field(default_factory=list[str])

    def find(self, case: str, name: str = OURS) -> Row | None:
        """A contestant of a case; None if it was not measured."""
        return next((row for row in self.rows if row.case == case and row.name == name), None)

    def find_ours(self, case: str) -> Row | None:
        """The library in a case: as by default, or else the first way that was measured."""
        rows = (row for row in self.rows if row.case == case and row.name.startswith(f"{OURS},"))
        return self.find(case) or next(rows, None)

    def cases(self) -> Mapping[str, list[Row]]:
        """Rows by case, in order."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.case, []).append(row)
        return found

    def write(self, path: Path) -> None:
        """Write lines: what it was measured on, the rows, the notes."""
        path.write_text("".join(f"{line}\n" for line in self._lines()), encoding="utf-8")

    def _lines(self) -> Iterator[str]:
        yield json.dumps({"about": self.about})
        yield from (row.to_json() for row in self.rows)
        yield from (json.dumps({"note": note}) for note in self.notes)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `write` has written."""
        results = cls()
        for line in path.read_text("utf-8").splitlines():
            value = json.loads(line)
            if "about" in value:
                results.about = value["about"]
            elif "note" in value:
                results.notes.append(value["note"])
            else:
                for name in ("wall", "cpu", "memory"):
                    value[name] = tuple(value.get(name, ()))
                results.rows.append(Row(**value))
        return results
