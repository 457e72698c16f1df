"""Peak memory of resolving images that are made to take much of it (rule X-17).

A registry in this process serves 60 manifests of up to 4 MiB, the first one late. A child process
resolves them and says how far its peak is above what it took when idle.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import string
import sys
from typing import TYPE_CHECKING, Final

from asupplemented.limits import MAX_LAYERS, MAX_MANIFEST
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from asupplemented.testing import FakeRegistry
from benchmarks.harness import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asupplemented.testing import Request

MANIFESTS: Final = 60
GOAL_MIB: Final = 512
LATE: Final = 5.0
"""Seconds before the first manifest is served; meanwhile all others could arrive."""

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


def main() -> None:
    """Print the cases."""
    for name, (make, lies) in CASES.items():
        peak, how = asyncio.run(measure(make, lies=lies))
        report(
            f"peak memory of resolving {MANIFESTS} manifests: {name}; {how}",
            "MiB",
            [peak],
            goal=f"below {GOAL_MIB} MiB above idle",
        )


if __name__ == "__main__":
    main()
