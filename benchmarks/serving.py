"""`registry_app` before a registry: one manifest, and up to 64 clients of one blob.

The proxy is `benchmarks.proxy`. A manifest that it holds in memory is compared with a bare handler
of aiohttp. While the blob is cold the comparator is ``nginx`` with ``proxy_pass`` and no cache,
which fetches as often as it is asked; once it is cached, docker-registry with the same file in its
store, and ``nginx`` that sends the file. Proxies, clients and the upstream are processes of their
own, and CPU is that of the proxy.
"""

from __future__ import annotations

import contextlib
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.clients import ask, ask_again
from benchmarks.harness import SCRATCH, Sample
from benchmarks.programs import (
    find_program,
    run_docker_registry,
    run_nginx,
    run_nginx_files,
    run_program,
    run_serve,
)
from benchmarks.results import OURS
from benchmarks.server import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from benchmarks.clients import Outcome
    from benchmarks.harness import Bench
    from benchmarks.programs import Program
    from benchmarks.server import Offer

__all__ = ("CLIENTS", "KEPT", "NGINX", "NGINX_FILES", "REGISTRY", "name_cached", "name_cold", "run")

CLIENTS: Final = 64
SLOW_RATE: Final = 1024 * 1024
"""Bytes per second of a client that reads slowly."""
SLOW_FOR: Final = 4.0
"""Seconds after which slow clients hang up."""
MIB: Final = 1024 * 1024
NGINX: Final = "nginx proxy_pass"
NGINX_FILES: Final = "nginx, files"
REGISTRY: Final = "docker-registry"
KEPT: Final = f"{OURS}, caching"


def name_cold(clients: int) -> str:
    """The case of a blob that is not cached."""
    return f"{clients} client{'s' * (clients > 1)} of a cold blob"


def name_cached(clients: int) -> str:
    """The case of a blob that is cached."""
    return f"{clients} client{'s' * (clients > 1)} of a cached blob"


def find_or_note(bench: Bench, name: str) -> str | None:
    """A program to compare with; notes it if it is not there."""
    path = find_program(name)
    if path is None:
        bench.note(f"{name} skipped: not installed")
    return path


@contextlib.contextmanager
def run_proxy(offer: Offer, cache: Path | None = None) -> Generator[Program]:
    """Our proxy before an upstream. It knows the image of the blob."""
    options = [] if cache is None else [f"--cache={cache}"]
    target = f"/v2/bench/blobs/{offer.blob}"
    with run_program(target, "benchmarks.proxy", *options, offer.repository) as program:
        ask_again(program.url.removesuffix(target) + "/v2/bench/manifests/file", 1)
        yield program


def compare_servers(
    bench: Bench, case: str, servers: Mapping[str, Callable[[], Program]], clients: int, size: int
) -> None:
    """Have clients ask each server in turn; the first bytes are a case of their own.

    Args:
        bench: The run.
        case: What is measured.
        servers: Name to a call that prepares a server and returns it.
        clients: How many ask at the same moment.
        size: MiB of the blob.
    """
    first_bytes: dict[str, list[Sample]] = {name: [] for name in servers}

    def ask_once(name: str) -> Sample:
        program = servers[name]()
        before = program.cpu_seconds()
        outcome = ask(program.url, clients)
        first_bytes[name].append(Sample(outcome.first_byte(0.99)))
        return Sample(outcome.seconds, program.cpu_seconds() - before)

    contestants = {name: partial(ask_once, name) for name in servers}
    bench.compare(case, contestants, size=clients * size, unit="MiB", seconds=clients / 6)
    for row in bench.results.cases().get(case, []):
        samples = first_bytes[row.name][-len(row.wall) :]
        bench.record(f"{case}: first byte of 99 %", row.name, samples)


def measure_blobs(bench: Bench, offer: Offer, scratch: Path, blob: Path) -> None:
    """A blob that is fetched for all clients at once, and one that is cached."""
    size = (offer.blob_size or 0) // MIB
    kept = scratch / "cold" / Path("blobs", *(offer.blob or "").split(":"))
    with contextlib.ExitStack() as scope:
        shared = scope.enter_context(run_proxy(offer))
        keeping = scope.enter_context(run_proxy(offer, scratch / "cold"))

        def forget() -> Program:
            kept.unlink(missing_ok=True)
            return keeping

        cold: dict[str, Callable[[], Program]] = {OURS: lambda: shared, KEPT: forget}
        warm = scope.enter_context(run_proxy(offer, scratch / "warm"))
        cached: dict[str, Callable[[], Program]] = {OURS: lambda: warm}
        ask(warm.url, 1)
        if nginx := find_or_note(bench, "nginx"):
            proxy = scope.enter_context(run_nginx(nginx, scratch / "nginx", offer.blob_url))
            files = scope.enter_context(
                run_nginx_files(nginx, scratch / "files", blob, "/blob"),
            )
            cold[NGINX], cached[NGINX_FILES] = lambda: proxy, lambda: files
        if path := find_or_note(bench, "docker-registry"):
            registry = scope.enter_context(
                run_docker_registry(path, scratch / "registry", blob, offer.blob or "")
            )
            cached[REGISTRY] = lambda: registry
        for clients in bench.pick((CLIENTS, 16, 4, 1), full=(CLIENTS, 16, 4, 1), tiny=(2,)):
            compare_servers(bench, name_cold(clients), cold, clients, size)
            compare_servers(bench, name_cached(clients), cached, clients, size)


def measure_manifest(bench: Bench, offer: Offer) -> None:
    """A manifest that is in memory, asked for again and again."""
    target = "/v2/bench/manifests/single-0"
    times = bench.pick(2000, full=4000, tiny=4)

    def ask_for(program: Program) -> Sample:
        before = program.cpu_seconds()
        rate = ask_again(program.url, times)
        return Sample(times / rate, program.cpu_seconds() - before)

    with (
        run_program(target, "benchmarks.proxy", offer.repository) as ours,
        run_program(target, "benchmarks.proxy", "--bare", offer.repository) as bare,
    ):
        servers = {OURS: partial(ask_for, ours), "a bare aiohttp handler": partial(ask_for, bare)}
        case = "serve a manifest from memory"
        bench.compare(case, servers, size=times, unit="requests", seconds=5)


def measure_workers(bench: Bench, offer: Offer) -> None:
    """A manifest in memory: ``asupplemented serve`` with one worker and with two."""
    target = "/v2/bench/manifests/single-0"
    times = bench.pick(64, full=64, tiny=1)
    with contextlib.ExitStack() as scope:

        def contestant(workers: int) -> Callable[[], Sample]:
            program = scope.enter_context(run_serve(target, offer.repository, workers))
            total = times * CLIENTS
            return lambda: Sample(total / ask_again(program.url, times, CLIENTS))

        servers = {f"{OURS}, 2 workers": contestant(2), f"{OURS}, 1 worker": contestant(1)}
        case = f"serve a manifest to {CLIENTS} clients"
        bench.compare(case, servers, size=times * CLIENTS, unit="requests")


def measure_memory(bench: Bench, offer: Offer) -> None:
    """What each client costs: those that read fast, slowly, and not at all."""
    kinds: Mapping[str, Callable[[str], Outcome]] = {
        "fast": lambda url: ask(url, CLIENTS),
        "slow": lambda url: ask(url, CLIENTS, rate=SLOW_RATE, leave_after=SLOW_FOR),
        "stalled": lambda url: ask(url, CLIENTS, rate=0, leave_after=SLOW_FOR),
    }
    for kind, run_clients in kinds.items():
        if kind != "fast" and bench.scale != "full":  # they take seconds even if all is tiny
            continue
        growth: list[float] = []
        for _ in range(bench.pick(1, full=3, tiny=1)):
            with run_proxy(offer) as program:  # a new one, which owns no free memory yet
                before = program.reset_peak()
                run_clients(program.url)
                growth.append((program.peak_mib() - before) / CLIENTS)
        case = f"memory of the proxy for each of {CLIENTS} {kind} clients"
        bench.record(case, OURS, [], memory=growth)


def run(bench: Bench) -> None:
    """Measure all cases."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        scratch = Path(name)
        blob = scratch / "blob"
        with Path("/dev/urandom").open("rb") as noise:
            blob.write_bytes(noise.read(bench.pick(16, full=64, tiny=1) * MIB))
        with serve(instances=1, singles=1, file=blob) as offer:
            measure_blobs(bench, offer, scratch, blob)
            measure_manifest(bench, offer)
            measure_memory(bench, offer)
            if bench.full:
                measure_workers(bench, offer)
