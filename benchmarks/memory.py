"""Peak memory: of each contestant, and of resolving images that are made to take much (rule X-17).

Each contestant does its work once in a new process; what that has at most counts, the interpreter
and all imports included. For hostile images, a registry in this process serves 60 manifests of up
to 4 MiB, the first one late. A child process resolves them and says how far its peak is above what
it took when idle.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import string
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asupplemented.limits import MAX_LAYERS, MAX_MANIFEST
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from asupplemented.testing import FakeRegistry
from benchmarks.blobs import write_file
from benchmarks.harness import SCRATCH
from benchmarks.peers.golang import GO, find_go_package
from benchmarks.peers.python import Bare, Ours, OursAlone, Peer, find_peers
from benchmarks.programs import find_program
from benchmarks.results import OURS
from benchmarks.server import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from asupplemented.testing import Request
    from benchmarks.harness import Bench
    from benchmarks.server import Offer

__all__ = ("MEMORY_OF_BLOB", "run")

MEMORY_OF_BLOB: Final = "memory of reading a large blob"
MANIFESTS: Final = 60
LATE: Final = 5.0
"""Seconds before the first manifest is served; meanwhile all others could arrive."""

LAUNCHER: Final = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""

CHILD: Final = """
import asyncio, sys
import asupplemented as asup

def peak():
    # Not ru_maxrss: a child inherits that of its parent.
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

async def main():
    async with asup.Session(tls_verify=False) as session:
        await asup.supplement(sys.argv[2]).resolve(session)  # loads what is loaded when needed
        idle = peak()
        try:
            await asup.supplement(sys.argv[1]).resolve(session)
            how = "resolved"
        except asup.SupplementedError as error:
            how = type(error).__name__
        print(peak() - idle, how)

asyncio.run(main())
"""


def _document(number: int, layers: bytes, annotations: bytes = b"") -> bytes:
    head = b'{"schemaVersion":2,"mediaType":"%s","config":' % OCI_MANIFEST.encode()
    config = {"mediaType": OCI_CONFIG, "digest": Digest.of(b"config"), "size": number}
    tail = b',"layers":[%s],"annotations":{%s}}' % (layers, annotations)
    return head + json.dumps(config).encode() + tail


def empty_layers(number: int) -> bytes:
    """As many layers as fit into a manifest, none of which says anything."""
    return _document(number, b",".join([b"{}"] * (MAX_MANIFEST // 3 - 200)))


def real_layers(number: int) -> bytes:
    """As many layers as a manifest may have."""
    layer = '{"mediaType":"%s","digest":"sha256:%064x","size":123456789}'
    first = number * MAX_LAYERS
    layers = (layer % (OCI_LAYER_GZIP, first + each) for each in range(MAX_LAYERS))
    return _document(number, ",".join(layers).encode())


def _keys() -> Iterator[str]:
    return (
        "".join(letters)
        for length in itertools.count(1)
        for letters in itertools.product(string.ascii_letters, repeat=length)
    )


def many_annotations(number: int) -> bytes:
    """As many annotations as fit into a manifest."""
    pairs = (f'"{key}":""' for key in itertools.islice(_keys(), MAX_MANIFEST // 11))
    return _document(number, b"", ",".join(pairs).encode())


def annotated_layers(number: int) -> bytes:
    """Layers with as many annotations as fit into a manifest."""
    layer = '{"digest":"sha256:%064x","annotations":{%s}}'
    pairs = ",".join(f'"{key}":""' for key in itertools.islice(_keys(), 5000))
    count = (MAX_MANIFEST - 1000) // (len(pairs) + 100)
    layers = (layer % (number * count + each, pairs) for each in range(count))
    return _document(number, ",".join(layers).encode())


CASES: Final[dict[str, tuple[Callable[[int], bytes], bool]]] = {
    "4 MiB of empty layers": (empty_layers, False),
    "4 MiB of annotations": (many_annotations, False),
    "layers with many annotations": (annotated_layers, False),
    "10,000 layers": (real_layers, False),
    "10,000 layers, of wrong sizes in the list": (real_layers, True),
}
"""What a manifest is, and whether the list says that it has one byte."""


async def measure(make: Callable[[int], bytes], *, lies: bool) -> tuple[float, str]:
    """Peak MiB of a child above idle, and how its resolving ended."""
    first = Digest.of(make(0))

    def latency(request: Request) -> float:
        return LATE if str(first) in request.path else 0.0

    async with FakeRegistry(latency=latency) as registry:
        entries: list[dict[str, object]] = []
        for number in range(MANIFESTS):
            raw = make(number)
            digest = registry.put_manifest("hostile", raw, OCI_MANIFEST)
            size = 1 if lies else len(raw)
            entries.append({"mediaType": OCI_MANIFEST, "digest": digest, "size": size})
        for name, listed in (("hostile", entries), ("idle", [])):
            top = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
            registry.put_manifest(name, json.dumps(top).encode(), OCI_INDEX, tag="latest")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CHILD),
            *(str(registry.reference("hostile")), str(registry.reference("idle"))),
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await child.communicate()
    peak, how = printed.decode().split()
    return float(peak), how


def measure_hostile(bench: Bench) -> None:
    """Manifests that are made to take much memory."""
    for name, (make, lies) in CASES.items():
        peak, how = asyncio.run(measure(make, lies=lies))
        bench.record(f"memory of resolving {name}; {how}", OURS, [], memory=[peak])


def peak_of(command: Sequence[str]) -> float:
    """The most memory that a command had, in MiB.

    The kernel counts what a child had before it ran its program, which is what its parent has. So
    a small interpreter starts it, and less than what that one has cannot be told.
    """
    launcher = [sys.executable, "-S", "-E", "-c", LAUNCHER, *command]
    done = subprocess.run(launcher, check=True, capture_output=True)
    return float(done.stdout.split()[-1]) / 1024


def compare_peaks(bench: Bench, case: str, commands: Mapping[str, Sequence[str]]) -> None:
    """Measure each command in processes of its own."""
    for name, command in commands.items():
        if bench.left <= 0:
            bench.note(f"cut, no time was left: {case}, from {name} on")
            break
        try:
            peaks = [peak_of(command) for _ in range(bench.pick(1, full=3, tiny=1))]
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
            bench.note(f"{name} left out of “{case}”: {' '.join(said)[:200]}")
            bench.failed |= name.startswith(OURS)
        else:
            bench.record(case, name, [], memory=peaks)


def run(bench: Bench) -> None:
    """Measure the memory of each contestant."""
    go, peers = find_go_package(bench), find_peers(bench)
    instances = bench.pick(256, full=1024, tiny=2)

    def client(peer: type[Peer], what: str, offer: Offer) -> list[str]:
        said = json.dumps(asdict(offer))
        return [sys.executable, "-m", "benchmarks.peers.python", peer.name, what, said]

    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch:
        blob = Path(scratch, "blob")
        write_file(blob, bench.pick(256, full=1024, tiny=1))
        with serve(instances=instances, singles=1, file=blob) as offer:
            openers: list[type[Peer]] = [Ours, Bare, *peers]
            opening = {peer.name: client(peer, "open", offer) for peer in openers}
            readers: list[type[Peer]] = [OursAlone, Ours, Bare, *find_peers(bench, blobs=True)]
            reading = {peer.name: client(peer, "read", offer) for peer in readers}
            if find_program("curl") is not None:
                reading["curl"] = ["curl", "-s", "-o", os.devnull, offer.blob_url]
            if go is not None:
                program = str(go.path)
                opening[GO] = [program, "open", "1", offer.reference()]
                reading[GO] = [program, "blob", "1", offer.reference("file"), str(offer.blob)]
            compare_peaks(bench, f"memory of opening an index of {instances}", opening)
            compare_peaks(bench, MEMORY_OF_BLOB, reading)
    if bench.scale == "full":
        measure_hostile(bench)
