"""`registry_app` before a registry: one manifest, and 64 clients of one blob.

The proxy is `benchmarks.proxy`. A manifest that it holds in memory is compared with a bare handler
of aiohttp. While the blob is cold the comparator is ``nginx`` with ``proxy_pass`` and no cache,
which fetches as often as it is asked; once it is kept, docker-registry with the same file in its
store, and ``nginx`` that sends the file. Proxies, clients and the upstream are processes of their
own. What is not installed is left out, and said.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.clients import ask, ask_again
from benchmarks.harness import interleave, report
from benchmarks.programs import (
    find_program,
    run_docker_registry,
    run_nginx,
    run_nginx_files,
    run_program,
    run_serve,
)
from benchmarks.server import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from benchmarks.clients import Outcome
    from benchmarks.programs import Program
    from benchmarks.server import Offer

CLIENTS = 64
SIZE = 64
"""MiB of the blob."""
ROUNDS = 7
MANIFESTS = 4000
"""Requests for a manifest, one after the other, in each round."""
MANIFEST_ROUNDS = 11
SLOW_RATE = 1024 * 1024
"""Bytes per second of a client that reads slowly."""
SLOW_FOR = 4.0
"""Seconds after which slow clients hang up."""
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - memory is the point
HAS_BOOKS = Path("/proc/self/clear_refs").exists()
"""Whether the kernel tells what other processes use."""
MIB = 1024 * 1024


@dataclass(frozen=True)
class Run:
    """One round of one server."""

    outcome: Outcome
    cpu: float
    """Seconds of the server; 0 if it is not known."""

    @property
    def rate(self) -> float:
        """MiB per second to all clients together."""
        return self.outcome.received / MIB / self.outcome.seconds

    @property
    def cpu_per_gib(self) -> float:
        """Seconds of the server for each GiB that clients got."""
        return self.cpu / (self.outcome.received / 1024**3)

    @property
    def unfairness(self) -> float:
        """How many times as long the last client waits for its first byte as half of them do."""
        return self.outcome.first_byte(1.0) / self.outcome.first_byte(0.5)


class Contest:
    """Rounds of several servers, interleaved, with everything that each round tells."""

    def __init__(self) -> None:
        self.runs: dict[str, list[Run]] = {}
        self._cases: dict[str, Callable[[], float]] = {}

    def add(self, name: str, program: Program, prepare: Callable[[], None] | None = None) -> None:
        """Take part.

        Args:
            name: Of the server.
            program: The server.
            prepare: Called before each round.
        """
        runs = self.runs[name] = []

        def run() -> float:
            if prepare is not None:
                prepare()
            before = program.cpu_seconds() if HAS_BOOKS else 0.0
            outcome = ask(program.url, CLIENTS)
            runs.append(Run(outcome, (program.cpu_seconds() if HAS_BOOKS else 0.0) - before))
            return runs[-1].rate

        self._cases[name] = run

    def hold(self) -> None:
        """Run all rounds; the first one only warms up."""
        interleave(self._cases, ROUNDS)
        for runs in self.runs.values():
            del runs[:1]


def report_contest(what: str, ours: Sequence[Run], theirs: Sequence[Run], goals: Goals) -> None:
    """Print what two servers did in the same rounds."""
    views: Mapping[str, tuple[str, Callable[[Run], float], str | None]] = {
        "throughput": ("MiB/s", lambda run: run.rate, goals.throughput),
        "first byte, half of the clients": (
            "ms",
            lambda run: run.outcome.first_byte(0.5) * 1000,
            None,
        ),
        "first byte, 99 % of the clients": (
            "ms",
            lambda run: run.outcome.first_byte(0.99) * 1000,
            goals.first_byte,
        ),
    }
    if HAS_BOOKS:
        views = {**views, "CPU of the server": ("s/GiB", lambda run: run.cpu_per_gib, goals.cpu)}
    for view, (unit, figure, goal) in views.items():
        report(
            f"{what}, {view}",
            unit,
            [figure(run) for run in ours],
            comparator=goals.comparator if theirs else None,
            baseline=[figure(run) for run in theirs] if theirs else None,
            goal=goal if theirs else None,
        )


@dataclass(frozen=True)
class Goals:
    """What the project promises against a comparator."""

    comparator: str
    throughput: str | None = None
    first_byte: str | None = None
    cpu: str | None = None


NGINX = Goals("nginx proxy_pass without a cache", "ratio >= 4", "ratio <= 0.5")
REGISTRY = Goals("docker-registry serving the same file", "ratio >= 1.6", cpu="ratio <= 0.3")
FILES = Goals("nginx serving the same file", "ratio >= 1.0")


@contextlib.contextmanager
def run_proxy(offer: Offer, cache: Path | None = None) -> Generator[Program]:
    """Our proxy before an upstream. It knows the image of the blob."""
    options = [] if cache is None else [f"--cache={cache}"]
    target = f"/v2/bench/blobs/{offer.blob}"
    with run_program(target, "benchmarks.proxy", *options, offer.repository) as program:
        ask_again(program.url.removesuffix(target) + "/v2/bench/manifests/file", 1)
        yield program


def kept_file(cache: Path, offer: Offer) -> Path:
    """Where a cache keeps the blob."""
    return cache.joinpath("blobs", *(offer.blob or "").split(":"))


def find_or_tell(name: str) -> str | None:
    """A program to compare with; says so if it is not there."""
    path = find_program(name)
    if path is None:
        sys.stderr.write(f"{name} is not installed: measured without it\n")
    return path


def measure_manifest(offer: Offer) -> None:
    """A manifest that is in memory, asked for again and again."""
    target = "/v2/bench/manifests/single-0"
    with (
        run_program(target, "benchmarks.proxy", offer.repository) as ours,
        run_program(target, "benchmarks.proxy", "--bare", offer.repository) as bare,
    ):

        def cost(program: Program) -> float:
            before = program.cpu_seconds()
            ask_again(program.url, MANIFESTS)
            return (program.cpu_seconds() - before) / MANIFESTS * 1e6

        figures = interleave(
            {"ours": lambda: cost(ours), "bare": lambda: cost(bare)}, MANIFEST_ROUNDS
        )
    report(
        "a manifest in memory, CPU of the server",
        "us",
        figures["ours"],
        comparator="a bare handler of aiohttp",
        baseline=figures["bare"],
        goal="ratio <= 1.5",
    )


def measure_workers(offer: Offer) -> None:
    """A manifest in memory: ``asupplemented serve`` with one worker and with two."""
    target = "/v2/bench/manifests/single-0"
    with (
        run_serve(target, offer.repository, 1) as one,
        run_serve(target, offer.repository, 2) as two,
    ):
        figures = interleave(
            {
                "two": lambda: ask_again(two.url, MANIFESTS // CLIENTS, CLIENTS),
                "one": lambda: ask_again(one.url, MANIFESTS // CLIENTS, CLIENTS),
            },
            ROUNDS,
        )
    report(
        f"{CLIENTS} clients of a manifest in memory, two workers",
        "requests/s",
        figures["two"],
        comparator="one worker",
        baseline=figures["one"],
        goal="ratio >= 1.5",
    )


def measure_cold(offer: Offer, scratch: Path) -> None:
    """The blob is not there: one fetch for all clients, spooled only, or cached."""
    contest = Contest()
    cache = scratch / "cold"
    with contextlib.ExitStack() as running:
        contest.add("shared", running.enter_context(run_proxy(offer)))
        file = kept_file(cache, offer)
        contest.add(
            "kept",
            running.enter_context(run_proxy(offer, cache)),
            lambda: file.unlink(missing_ok=True),
        )
        if nginx := find_or_tell("nginx"):
            server = run_nginx(nginx, scratch / "nginx", offer.blob_url)
            contest.add("nginx", running.enter_context(server))
        before = offer.count_sent()
        contest.hold()
        sent = offer.count_sent() - before
    runs = contest.runs
    theirs = runs.get("nginx", [])
    report_contest(f"{CLIENTS} clients of a cold blob", runs["shared"], theirs, NGINX)
    what = f"{CLIENTS} clients of a cold blob that is kept"
    report_contest(what, runs["kept"], theirs, NGINX)
    by_nginx = CLIENTS * (ROUNDS + 1) if theirs else 0
    fetches = (sent - by_nginx) / (ROUNDS + 1) / 2
    report(f"fetches for {CLIENTS} clients of a cold blob", "GET", [fetches], goal="median = 1")


def measure_kept(offer: Offer, scratch: Path, blob: Path) -> None:
    """The blob is on disk, and was verified when it was put there."""
    contest = Contest()
    with contextlib.ExitStack() as running:
        ours = running.enter_context(run_proxy(offer, scratch / "warm"))
        contest.add("ours", ours)
        if registry := find_or_tell("docker-registry"):
            server = run_docker_registry(registry, scratch / "registry", blob, offer.blob or "")
            contest.add("registry", running.enter_context(server))
        if nginx := find_or_tell("nginx"):
            server = run_nginx_files(nginx, scratch / "files", blob, "/blob")
            contest.add("files", running.enter_context(server))
        contest.hold()
    runs = contest.runs
    what = f"{CLIENTS} clients of a blob in the cache"
    report_contest(what, runs["ours"], runs.get("registry", []), REGISTRY)
    if "files" in runs:
        report_contest(what, runs["ours"], runs["files"], FILES)
    unfair = [run.unfairness for run in runs["ours"]]
    report(f"{what}, fairness", "ratio", unfair, goal="max <= 3")


def measure_memory(offer: Offer) -> None:
    """What each client costs: those that read fast, slowly, and not at all."""
    kinds: Mapping[str, Callable[[str], Outcome]] = {
        "fast": lambda url: ask(url, CLIENTS),
        "slow": lambda url: ask(url, CLIENTS, rate=SLOW_RATE, leave_after=SLOW_FOR),
        "stalled": lambda url: ask(url, CLIENTS, rate=0, leave_after=SLOW_FOR),
    }
    for kind, run in kinds.items():
        growth: list[float] = []
        for _ in range(3):
            with run_proxy(offer) as program:  # a new one, which owns no free memory yet
                before = program.reset_peak()
                run(program.url)
                growth.append((program.peak_mib() - before) / CLIENTS)
        report(
            f"{CLIENTS} {kind} clients of a cold blob, growth of memory for each",
            "MiB",
            growth,
            goal="median <= 1.5",
        )


def main() -> None:
    """Print the cases."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        scratch = Path(name)
        blob = scratch / "blob"
        with Path("/dev/urandom").open("rb") as noise:
            blob.write_bytes(noise.read(SIZE * MIB))
        with serve(instances=1, singles=1, file=blob) as offer:
            if HAS_BOOKS:
                measure_manifest(offer)
            measure_workers(offer)
            measure_cold(offer, scratch)
            measure_kept(offer, scratch, blob)
            if HAS_BOOKS:
                measure_memory(offer)


if __name__ == "__main__":
    main()
