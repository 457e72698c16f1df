"""What the project wants to reach, and whether a run has reached it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from benchmarks import manifests, starting
from benchmarks.blobs import OPENSSL, SHELL
from benchmarks.copying import LARGE, SKOPEO, SMALL
from benchmarks.copying import SHELL as PARALLEL_SHELL
from benchmarks.opening import FAR, name_case
from benchmarks.peers.golang import GO
from benchmarks.peers.python import BARE, PEERS, OursAlone
from benchmarks.results import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.results import Results, Row

__all__ = ("TARGETS", "Target")

ALONE: Final = OursAlone.name
WIDE: Final = ", 256 at once"


@dataclass(frozen=True)
class Target:
    """One figure.

    Attributes:
        case: What is measured.
        measure: Gives the figure; NaN if the run did not measure it.
        unit: What follows the figure.
        least: What it is to be at least.
        most: What it is to be at most.
    """

    case: str
    measure: Callable[[Results], float]
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def goal(self) -> str:
        """The target in words."""
        if self.least is not None:
            return f"at least {self.least:g} {self.unit}"
        return f"at most {self.most:g} {self.unit}"

    def is_met(self, figure: float) -> bool:
        """Whether a figure reaches the target."""
        if self.least is not None:
            return figure >= self.least
        return self.most is not None and figure <= self.most


def _pair(
    case: str, other: str, ours: str, ratio: Callable[[Row, Row], float]
) -> Callable[[Results], float]:
    """A measure of two contestants of a case."""

    def measure(results: Results) -> float:
        first, second = results.find(case, ours), results.find(case, other)
        return math.nan if first is None or second is None else ratio(first, second)

    return measure


def faster(case: str, other: str, ours: str = OURS) -> Callable[[Results], float]:
    """How many times as long the other contestant takes."""
    return _pair(case, other, ours, lambda first, second: second.time_of(first))


def slower(case: str, other: str, ours: str = OURS) -> Callable[[Results], float]:
    """How many times as long as the other contestant the library takes."""
    return _pair(case, other, ours, lambda first, second: first.time_of(second))


def cpu(case: str, other: str, ours: str = OURS) -> Callable[[Results], float]:
    """How many times as much CPU as the other contestant the library takes."""
    return _pair(case, other, ours, lambda first, second: first.cpu_of(second))


def seconds(case: str, per: float = 1.0) -> Callable[[Results], float]:
    """How long the library takes, in units of so many seconds."""

    def measure(results: Results) -> float:
        row = results.find(case)
        return median(row.wall) / per if row is not None and row.wall else math.nan

    return measure


def cpu_each(case: str) -> Callable[[Results], float]:
    """Microseconds of CPU for each piece of work."""

    def measure(results: Results) -> float:
        row = results.find(case)
        return median(row.cpu) / row.size * 1e6 if row is not None and row.cpu else math.nan

    return measure


def start_share(command: str) -> Callable[[Results], float]:
    """CPU of a command above bare Python, as a share of that of importing aiohttp."""

    def measure(results: Results) -> float:
        rows = [
            results.find(starting.CASE, name)
            for name in (starting.PYTHON, starting.AIOHTTP, f"{OURS} {command}")
        ]
        figures = [row.cpu for row in rows if row is not None]
        if len(figures) < len(rows):
            return math.nan
        bare, aiohttp, ours = figures
        rounds = zip(bare, aiohttp, ours, strict=False)
        return median((third - first) / (second - first) for first, second, third in rounds)

    return measure


def least_ahead(results: Results) -> float:
    """Of all cases, how many times as long as the library the fastest Python peer takes."""
    peers = {peer.name for peer in PEERS}
    ratios = [
        row.time_of(ours)
        for case, rows in results.cases().items()
        if (ours := results.find(case)) is not None and ours.wall
        for row in rows
        if row.name in peers and row.wall
    ]
    return min(ratios, default=math.nan)


FAR_256: Final = name_case(256, FAR)
NEAR_256: Final = name_case(256, 0.0)
OPEN_ONE: Final = "open one image, 20 ms"
SINGLES: Final = "open 16 supplements of one image, 20 ms"
LAYOUT: Final = "open a layout of 1024"
FIRST: Final = "the first image of a session"

TIMES: Final = "x"

TARGETS: Final[Sequence[Target]] = (
    Target(f"{FAR_256}: speed of the Go package", faster(FAR_256, GO), TIMES, least=38),
    Target(f"{FAR_256}, lookahead 256", faster(FAR_256, GO, OURS + WIDE), TIMES, least=36),
    Target(f"{FAR_256}: time of bare aiohttp", slower(FAR_256, BARE), TIMES, most=1.1),
    Target(
        f"{FAR_256}, lookahead 256: time of bare aiohttp, 256 at once",
        slower(FAR_256, BARE + WIDE, OURS + WIDE),
        TIMES,
        most=1.1,
    ),
    Target(f"{OPEN_ONE}: time of a bare GET", slower(OPEN_ONE, BARE), TIMES, most=1.12),
    Target(SINGLES, seconds(SINGLES, FAR), "round trips", most=1.7),
    Target(f"{SINGLES}: speed of the Go package", faster(SINGLES, GO), TIMES, least=20),
    Target(f"{NEAR_256}: speed of the Go package", faster(NEAR_256, GO), TIMES, least=1.3),
    Target(f"{LAYOUT}: speed of the Go package", faster(LAYOUT, GO), TIMES, least=1.3),
    Target(f"{LAYOUT}: CPU for each manifest", cpu_each(LAYOUT), "us", most=27),
    Target(f"{FIRST}, http: CPU of bare aiohttp", cpu(f"{FIRST}, http", BARE), TIMES, most=2.6),
    Target(
        f"{FIRST}, verified TLS: CPU of bare aiohttp",
        cpu(f"{FIRST}, verified TLS", BARE),
        TIMES,
        most=1.5,
    ),
    Target(
        "`--version`: CPU above Python, of `import aiohttp`",
        start_share("--version"),
        TIMES,
        most=0.1,
    ),
    Target("`--help`: the same", start_share("--help"), TIMES, most=0.5),
    Target("`digest oci:`: the same", start_share("digest oci:"), TIMES, most=1.1),
    Target(
        "a manifest over http, verified and decoded: CPU of bare aiohttp",
        cpu(manifests.CASE, BARE),
        TIMES,
        most=1.25,
    ),
    Target(
        f"1 GiB over http, `shared=False`: speed of `{SHELL}`",
        faster("1 GiB over http", SHELL, ALONE),
        TIMES,
        least=1.25,
    ),
    Target("the same, as by default", faster("1 GiB over http", SHELL), TIMES, least=1.0),
    Target(
        "64 MiB over http, as by default: time of `shared=False`",
        slower("64 MiB over http", ALONE),
        TIMES,
        most=1.05,
    ),
    Target(
        f"1 GiB over TLS, `shared=False`: speed of `{SHELL}`",
        faster("1 GiB over TLS", SHELL, ALONE),
        TIMES,
        least=1.05,
    ),
    Target("the same: CPU", cpu("1 GiB over TLS", SHELL, ALONE), TIMES, most=1.0),
    Target(
        "a range, not hashed: CPU of bare aiohttp, `iter_chunked(1 MiB)`",
        cpu("a range of 512 MiB, not hashed", BARE),
        TIMES,
        most=1.05,
    ),
    Target(
        f"1 GiB from disk: speed of `{OPENSSL}`",
        faster("1 GiB from disk", OPENSSL),
        TIMES,
        least=0.95,
    ),
    Target(SMALL, seconds(SMALL), "s", most=0.25),
    Target(f"{SMALL}: speed of skopeo", faster(SMALL, SKOPEO), TIMES, least=18),
    Target(f"{LARGE}: time of `{PARALLEL_SHELL}`", slower(LARGE, PARALLEL_SHELL), TIMES, most=0.8),
    Target("the fastest of the Python peers in any case: speed of it", least_ahead, TIMES, least=1),
)
