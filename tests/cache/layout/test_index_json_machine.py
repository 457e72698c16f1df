"""The list of tops as a machine: it never promises what is not there, and forgets no top."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asupplemented.aio.atomic import StagedFile
from asupplemented.cache.layout.paths import CachePaths, ManifestOrigin
from asupplemented.cache.layout.store import CacheStore
from asupplemented.model.digest import Digest
from asupplemented.testing import build_image, build_index
from tests.cache.driving import held, listed, weigh

DICE = random.Random(23)
BASE = DICE.randbytes(300)
IMAGES = [build_image(f"linux/{name}", [BASE, DICE.randbytes(200)]) for name in ("a", "b", "c")]
INDEX = build_index(IMAGES[:2])
NESTED = build_index([INDEX, IMAGES[2]])
TOPS = [*IMAGES, INDEX, NESTED]
MANIFESTS = {built.digest: built for built in TOPS}
BLOBS = {digest: data for image in IMAGES for digest, data in image.blobs.items()}
NOISE = [DICE.randbytes(size) for size in (500, 1500, 3000)]
NEEDS = {top.digest: {*(one.digest for one in top.walk()), *top.blobs} for top in TOPS}
LIMIT = sum(map(len, BLOBS.values())) + sum(len(built.raw) for built in TOPS) + 600


class TopsMachine(RuleBasedStateMachine):
    """Two processes that bring in parts of images in any order, and evict some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.stores = [CacheStore(CachePaths(self.root, durable=False), LIMIT) for _ in range(2)]
        self.wall = 1_700_000_000.0
        self.opened: set[Digest] = set()
        """Tops that were opened, as long as their manifests stay."""
        self.ever_opened: set[Digest] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @initialize()
    def prepare(self) -> None:
        for store in self.stores:
            store.prepare(self.wall)

    def put(self, which: int, data: bytes, kind: str | None = None, *, top: bool = False) -> None:
        self.wall += 1
        store = self.stores[which]
        file = StagedFile.create(store.paths.ingest)
        try:
            file.write(0, data)
            digest = Digest.of(data)
            origin = None if kind is None else ManifestOrigin(None, kind)
            assert store.add(file, digest, len(data), None, self.wall, manifest=origin, top=top)
        finally:
            file.close()
        self.opened &= held(self.root)

    @rule(digest=st.sampled_from(sorted(MANIFESTS)), which=st.integers(0, 1), top=st.booleans())
    def put_manifest(self, digest: Digest, which: int, *, top: bool) -> None:
        built = MANIFESTS[digest]
        self.put(which, built.raw, built.media_type, top=top)
        if top:
            self.opened.add(digest)
            self.ever_opened.add(digest)

    @rule(digest=st.sampled_from(sorted(BLOBS)), which=st.integers(0, 1))
    def put_blob(self, digest: Digest, which: int) -> None:
        self.put(which, BLOBS[digest])

    @rule(digest=st.sampled_from(sorted(NEEDS)), which=st.integers(0, 1))
    def put_all(self, digest: Digest, which: int) -> None:
        for part in sorted(NEEDS[digest]):
            if part in BLOBS:
                self.put_blob(part, which)
            else:
                self.put_manifest(part, which, top=part == digest)

    @rule(number=st.integers(0, len(NOISE) - 1), which=st.integers(0, 1))
    def put_noise(self, number: int, which: int) -> None:
        self.put(which, NOISE[number])

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.stores[which] = CacheStore(CachePaths(self.root, durable=False), LIMIT)
        self.stores[which].prepare(self.wall)

    @invariant()
    def what_is_listed_is_whole_and_what_is_whole_is_listed(self) -> None:
        if not (self.root / "index.json").exists():
            return
        here = held(self.root)
        names = listed(self.root)
        assert len(names) == len(set(names))
        # One that went and came back as a part of another top may be remembered, or not.
        assert set(names) >= {top for top in self.opened if here >= NEEDS[top]}
        assert set(names) <= {top for top in self.ever_opened if here >= NEEDS[top]}
        assert weigh(self.root) <= LIMIT


TestTops = TopsMachine.TestCase
TestTops.settings = settings(deadline=None, stateful_step_count=30)
