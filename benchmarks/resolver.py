"""The resolver alone: CPU per manifest, and whether ten times the manifests cost ten times as much.

One index names N images, each with a config and three layers of its own. Outcomes are fed as a
batched member gives them, 64 wants at a time, or one by one with a look at all wants after
each, as a registry gives them. Manifests were verified and parsed before, or are within.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

from asupplemented.model.digest import Digest
from asupplemented.model.index import AllImages
from asupplemented.model.manifest import Manifest
from asupplemented.model.media_type import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from asupplemented.supplemented.resolver import Resolver, Want
from benchmarks.harness import timed
from benchmarks.results import OURS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.harness import Bench

__all__ = ("run",)

FEW, MANY = 1_000, 10_000
LOOKAHEAD = 64
LAYERS = 3

READING = "only verify and parse"


class Corpus:
    """An index over as many images, as bytes and as manifests that were parsed."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.raw = {Digest.of(raw): raw for raw in map(image_bytes, range(count))}
        self.top = index_bytes(self.raw)
        self.parsed_top = parse(self.top, OCI_INDEX, None)
        self.parsed = {digest: parse(raw, OCI_MANIFEST, digest) for digest, raw in self.raw.items()}

    def read(self) -> None:
        """Verify and parse everything anew."""
        parse(self.top, OCI_INDEX, None)
        for digest, raw in self.raw.items():
            parse(raw, OCI_MANIFEST, digest)

    def resolve_batches(self) -> None:
        """Feed all wants, then ask again."""
        resolver = self.opened(self.parsed_top)
        while not resolver.done:
            for want in resolver.wants(LOOKAHEAD):
                if want.digest is not None:
                    resolver.feed(want, self.parsed[want.digest])
        self.check(resolver)

    def resolve_singly(self) -> None:
        """Feed the head, then ask for all wants again."""
        resolver = self.opened(self.parsed_top)
        while not resolver.done:
            want = resolver.wants(LOOKAHEAD)[0]
            if want.digest is not None:
                resolver.feed(want, self.parsed[want.digest])
        self.check(resolver)

    def resolve_backwards(self) -> None:
        """Feed all wants, the head last, then ask again."""
        resolver = self.opened(self.parsed_top)
        while not resolver.done:
            for want in reversed(resolver.wants(LOOKAHEAD)):
                if want.digest is not None:
                    resolver.feed(want, self.parsed[want.digest])
        self.check(resolver)

    def read_and_resolve(self) -> None:
        """Verify and parse each manifest as it is fed."""
        resolver = self.opened(parse(self.top, OCI_INDEX, None))
        while not resolver.done:
            for want in resolver.wants(LOOKAHEAD):
                if want.digest is not None:
                    raw = self.raw[want.digest]
                    resolver.feed(want, Manifest.verified(raw, OCI_MANIFEST, want.digest))
        self.check(resolver)

    def opened(self, top: Manifest) -> Resolver:
        """A resolver that has the index."""
        resolver = Resolver([0], AllImages())
        resolver.feed(Want(0, None), top)
        return resolver

    def check(self, resolver: Resolver) -> None:
        """Refuse to measure a resolver that did not do its work."""
        if resolver.failure is not None or len(resolver.sources) != self.count + 1:
            raise AssertionError(resolver.failure)


def parse(raw: bytes, media_type: str, digest: Digest | None) -> Manifest:
    """A verified manifest that has been parsed."""
    manifest = Manifest.verified(raw, media_type, digest)
    manifest.parse()
    return manifest


def image_bytes(number: int) -> bytes:
    """The manifest of an image whose blobs no other image has."""
    blobs = [Digest.of(f"{number} {layer}".encode()) for layer in range(LAYERS + 1)]
    return encode(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": blobs[0], "size": 1234},
            "layers": [
                {"mediaType": OCI_LAYER_GZIP, "digest": blob, "size": 31_337_000}
                for blob in blobs[1:]
            ],
        }
    )


def index_bytes(images: Mapping[Digest, bytes]) -> bytes:
    """An index over images."""
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": digest, "size": len(raw)}
        for digest, raw in images.items()
    ]
    return encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def encode(document: Mapping[str, object]) -> bytes:
    """Compact JSON."""
    return json.dumps(document, separators=(",", ":")).encode()


WORK: dict[str, Callable[[Corpus], None]] = {
    f"{OURS}, batches of 65": Corpus.resolve_batches,
    f"{OURS}, batches of 65, the head last": Corpus.resolve_backwards,
    f"{OURS}, one at a time": Corpus.resolve_singly,
    f"{OURS}, batches of 65, verified and parsed within": Corpus.read_and_resolve,
    READING: Corpus.read,
}


def run(bench: Bench) -> None:
    """Measure each way to feed, with few and with many manifests."""
    for count in bench.pick((FEW,), full=(FEW, MANY), tiny=(2,)):
        corpus = Corpus(count)
        bench.compare(
            f"resolve {count:,} manifests",
            {name: partial(timed, partial(work, corpus)) for name, work in WORK.items()},
            size=count,
            unit="manifests",
            seconds=4,
        )
