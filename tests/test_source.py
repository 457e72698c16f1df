"""The source over all adapters: it verifies, maps, keeps one default manifest, and closes."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented import source as source_module
from asupplemented.abc import BlobFile, Opening, RawManifest, Timeouts
from asupplemented.blobs.blob_file import open_blob_file
from asupplemented.errors import (
    AmbiguousManifestError,
    BlobNotFoundError,
    ClosedError,
    DigestMismatchError,
    ImageNotFoundError,
    InvalidDigestError,
    LimitExceededError,
    MalformedManifestError,
    ManifestNotFoundError,
    NetworkError,
    PermissionDeniedError,
    ServerError,
    SizeMismatchError,
    SourceError,
    SourceTimeoutError,
    SupplementedError,
    TruncatedError,
    UnsupportedManifestError,
    UnsupportedOperationError,
    UsageError,
)
from asupplemented.events import Event, ManifestFetched
from asupplemented.limits import MAX_MANIFEST, OFFLOAD_BYTES
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.model.media_type import OCI_INDEX, OCI_MANIFEST
from asupplemented.model.signature import Signature
from asupplemented.session import Session
from asupplemented.source import VerifiedSource, open_verified, verify_manifest
from asupplemented.supplemented import supplement
from asupplemented.testing import build_image, build_index
from tests.candidates import Ledger, Wire
from tests.suspending import cancel_at_every_await, count_open_files, run_leaping

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from asupplemented.abc import Context, RawBlob, Source

LAYER = b"layer" * 50
IMAGE = build_image("linux/amd64", [LAYER])
OTHER = build_image("linux/arm64", [LAYER])
INDEX = build_index([IMAGE, OTHER])
ABSENT = Digest.of(b"absent")


def padded(size: int) -> bytes:
    """A manifest of so many bytes."""
    return IMAGE.raw.ljust(size)


@dataclass(frozen=True)
class Place:
    """A reference to an adapter, as lenient as can be."""

    adapter: Core
    name: str = "here"

    @property
    def transport(self) -> str:
        return "place"

    def open(self, context: Context) -> Opening[Source]:
        async def opener() -> Core:
            await asyncio.sleep(0)
            self.adapter.opened = True
            return self.adapter

        return open_verified(opener, self, context)

    def __str__(self) -> str:
        return f"place:{self.name}"


@dataclass(eq=False)
class Core:
    """The least that an adapter can be. It holds what it is given, lies included."""

    manifests: dict[Digest | None, RawManifest | Exception] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[Digest | None] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    pause: float = 0
    opened: bool = False
    closed: int = 0
    fails_to_close: Exception | None = None

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        self.asked.append(instance)
        await asyncio.sleep(self.pause)
        found = self.manifests.get(instance, ManifestNotFoundError("not here"))
        if isinstance(found, Exception):
            raise found
        return found

    async def aclose(self) -> None:
        self.closed += 1
        await asyncio.sleep(0)
        if self.fails_to_close is not None:
            raise self.fails_to_close


class Adapter(Core):
    """The same, and it streams blobs."""

    def open_blob(
        self,
        blob: Descriptor,
        start: int = 0,
        end: int | None = None,
        etag: str | None = None,
    ) -> RawBlob:
        data = self.blobs.get(blob.digest, BlobNotFoundError("not here"))
        if isinstance(data, Exception):
            return Wire(b"", self.ledger, refuses=data).open(start, end)
        return Wire(data, self.ledger).open(start, end)


class BatchedAdapter(Adapter):
    """Reads manifests in a thread."""

    def fetch_manifests(
        self, instances: Sequence[Digest]
    ) -> Sequence[RawManifest | SupplementedError]:
        self.thread = threading.current_thread().name
        self.batch = list(instances)
        outcomes: list[RawManifest | SupplementedError] = []
        for instance in instances:
            found = self.manifests.get(instance, ManifestNotFoundError("not here"))
            if isinstance(found, Exception) and not isinstance(found, SupplementedError):
                raise found
            outcomes.append(found)
        return outcomes


class NamedAdapter(Adapter):
    default_descriptor: Descriptor | None = None


def holding(*images: Any, default: bytes | Exception | None = None) -> Adapter:
    return fill(Adapter(), *images, default=default)


def fill(adapter: Adapter, *images: Any, default: bytes | Exception | None = None) -> Adapter:
    for image in images:
        adapter.manifests[image.digest] = RawManifest(image.raw, image.media_type)
    if isinstance(default, Exception):
        adapter.manifests[None] = default
    elif default is not None:
        adapter.manifests[None] = RawManifest(default, None)
    return adapter


def opened(adapter: Core, session: Session) -> VerifiedSource:
    return VerifiedSource(adapter, Place(adapter), session)


# The default manifest


async def test_SRC01_opening_reads_the_default_manifest_and_it_is_then_free(
    session: Session,
) -> None:
    adapter = holding(default=INDEX.raw)
    async with Place(adapter).open(session) as source:
        assert adapter.asked == [None]
        manifest = await source.get_manifest()
        assert (manifest.raw, manifest.digest) == (INDEX.raw, INDEX.digest)
        assert manifest.media_type == OCI_INDEX
    assert adapter.asked == [None]
    assert adapter.closed == 1


async def test_SRC01_a_missing_image_fails_at_open_and_closes_the_adapter(
    session: Session,
) -> None:
    adapter = holding(default=ImageNotFoundError("no image"))
    with pytest.raises(ImageNotFoundError) as caught:
        await Place(adapter).open(session)
    assert caught.value.reference == "place:here"
    assert adapter.closed == 1


async def test_a_failure_to_close_after_a_failure_to_open_is_noted(session: Session) -> None:
    adapter = holding(default=ImageNotFoundError("no image"))
    adapter.fails_to_close = OSError("stuck")
    with pytest.raises(ImageNotFoundError) as caught:
        await Place(adapter).open(session)
    assert "stuck" in caught.value.__notes__[0]


async def test_an_adapter_that_cannot_be_opened_says_where(session: Session) -> None:
    async def opener() -> Adapter:
        raise PermissionError(13, "no")

    with pytest.raises(PermissionDeniedError) as caught:
        await open_verified(opener, Place(Adapter()), session)
    assert caught.value.reference == "place:here"


def test_opening_has_a_time_limit() -> None:
    adapter = holding(default=INDEX.raw)
    adapter.pause = 100

    async def run() -> float:
        async with Session(timeouts=Timeouts(open=30)) as session:
            with pytest.raises(SourceTimeoutError, match="30 s") as caught:
                await Place(adapter).open(session)
            assert caught.value.reference == "place:here"
        return asyncio.get_running_loop().time()

    assert run_leaping(run) == pytest.approx(30, rel=1e-3)
    assert adapter.closed == 1


async def test_HTTP09_the_default_manifest_is_read_once(session: Session) -> None:
    adapter = holding(default=INDEX.raw)
    async with opened(adapter, session) as source:
        first, second, *_ = await asyncio.gather(*(source.get_manifest() for _ in range(5)))
        assert first is second is await source.get_manifest()
    assert adapter.asked == [None]


async def test_instances_are_read_each_time(session: Session) -> None:
    adapter = holding(IMAGE)
    async with opened(adapter, session) as source:
        await source.get_manifest(IMAGE.digest)
        await source.get_manifest(str(IMAGE.digest))
    assert adapter.asked == [IMAGE.digest, IMAGE.digest]


async def test_SEC16_a_leader_that_is_cancelled_hands_over_to_a_waiter(session: Session) -> None:
    adapter = holding(default=INDEX.raw)
    async with opened(adapter, session) as source:
        leader, *waiters = [asyncio.create_task(source.get_manifest()) for _ in range(4)]
        await asyncio.sleep(0)
        leader.cancel()
        for manifest in await asyncio.gather(*waiters):
            assert manifest.digest == INDEX.digest
        assert leader.cancelled()
    assert adapter.asked == [None, None]


async def test_a_waiter_that_is_cancelled_leaves_the_leader_alone(session: Session) -> None:
    adapter = holding(default=INDEX.raw)
    async with opened(adapter, session) as source:
        leader, waiter = [asyncio.create_task(source.get_manifest()) for _ in range(2)]
        await asyncio.sleep(0)
        waiter.cancel()
        assert (await leader).digest == INDEX.digest
    assert adapter.asked == [None]


async def test_a_failure_reaches_all_waiters_and_is_forgotten(session: Session) -> None:
    failure = ServerError("down", status=503)
    adapter = holding(default=failure)
    async with opened(adapter, session) as source:
        tasks = [source.get_manifest() for _ in range(3)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [repr(outcome) for outcome in outcomes] == [repr(failure)] * 3
        assert adapter.asked == [None]
        fill(adapter, default=INDEX.raw)
        assert (await source.get_manifest()).digest == INDEX.digest


async def test_a_bug_in_the_adapter_reaches_only_its_caller(session: Session) -> None:
    adapter = holding(default=ZeroDivisionError())
    async with opened(adapter, session) as source:
        tasks = [source.get_manifest() for _ in range(3)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError] * 3
    assert adapter.asked == [None] * 3


# What names the default manifest


def named(raw: bytes, digest: str, size: int | None = None) -> NamedAdapter:
    adapter = NamedAdapter()
    adapter.default_descriptor = Descriptor(digest=digest, size=size)
    fill(adapter, default=raw)
    return adapter


@pytest.mark.parametrize("size", [None, len(INDEX.raw)])
async def test_a_default_manifest_that_is_what_its_name_says(
    session: Session, size: int | None
) -> None:
    async with opened(named(INDEX.raw, INDEX.digest, size), session) as source:
        assert (await source.get_manifest()).digest == INDEX.digest


async def test_DG13_it_is_indexed_under_the_algorithm_that_named_it(session: Session) -> None:
    digest = Digest.of(INDEX.raw, "sha512")
    async with opened(named(INDEX.raw, digest), session) as source:
        assert (await source.get_manifest()).digest == digest


async def test_U02_a_default_manifest_that_is_not_what_its_name_says(session: Session) -> None:
    async with opened(named(INDEX.raw, IMAGE.digest), session) as source:
        with pytest.raises(DigestMismatchError) as caught:
            await source.get_manifest()
    assert (caught.value.digest, caught.value.reference) == (IMAGE.digest, "place:here")


async def test_a_default_manifest_of_another_size_than_promised(session: Session) -> None:
    async with opened(named(INDEX.raw, INDEX.digest, 5), session) as source:
        with pytest.raises(SizeMismatchError) as caught:
            await source.get_manifest()
    assert (caught.value.expected, caught.value.actual) == (5, len(INDEX.raw))
    assert caught.value.digest == INDEX.digest


async def test_a_default_manifest_with_a_broken_name_is_not_asked_for(session: Session) -> None:
    adapter = named(INDEX.raw, "sha256:../../etc/passwd")
    async with opened(adapter, session) as source:
        with pytest.raises(InvalidDigestError) as caught:
            await source.get_manifest()
    assert caught.value.reference == "place:here"
    assert adapter.asked == []


async def test_an_adapter_need_not_know_what_its_default_is(session: Session) -> None:
    adapter = fill(NamedAdapter(), default=INDEX.raw)
    async with opened(adapter, session) as source:
        assert (await source.get_manifest()).digest == INDEX.digest


# Instances


@pytest.mark.parametrize(
    "text", ["", "sha256:", "sha256:../../x", IMAGE.digest.upper(), f"{IMAGE.digest}\n", "md5:00"]
)
async def test_HTTP10_a_broken_digest_asks_for_nothing(session: Session, text: str) -> None:
    adapter = holding(IMAGE, default=INDEX.raw)
    async with opened(adapter, session) as source:
        for ask in (
            source.get_manifest,
            source.get_signatures,
            source.layers_for_copy,
        ):
            with pytest.raises(InvalidDigestError):
                await ask(text)
        with pytest.raises(InvalidDigestError):
            source.open_blob(text)
    assert adapter.asked == []
    assert adapter.ledger.asked == []


async def test_wrong_bytes_are_refused(session: Session) -> None:
    adapter = holding()
    adapter.manifests[IMAGE.digest] = RawManifest(OTHER.raw, OTHER.media_type)
    async with opened(adapter, session) as source:
        with pytest.raises(DigestMismatchError) as caught:
            await source.get_manifest(IMAGE.digest)
    assert caught.value.actual == OTHER.digest
    assert (caught.value.digest, caught.value.reference) == (IMAGE.digest, "place:here")


@pytest.mark.parametrize(
    ("raw", "claimed", "kind"),
    [
        (b"<html>", "text/html", MalformedManifestError),
        (b"{}", None, UnsupportedManifestError),
        (IMAGE.raw, OCI_INDEX, AmbiguousManifestError),
    ],
)
async def test_what_is_no_manifest_is_refused(
    session: Session, raw: bytes, claimed: str | None, kind: type[SupplementedError]
) -> None:
    adapter = Adapter(manifests={None: RawManifest(raw, claimed)})
    async with opened(adapter, session) as source:
        with pytest.raises(kind) as caught:
            await source.get_manifest()
    assert caught.value.reference == "place:here"


@pytest.mark.parametrize("claimed", [OCI_MANIFEST, None, "application/octet-stream"])
async def test_the_media_type_is_the_known_one_or_guessed(
    session: Session, claimed: str | None
) -> None:
    adapter = Adapter(manifests={None: RawManifest(IMAGE.raw, claimed)})
    async with opened(adapter, session) as source:
        assert (await source.get_manifest()).media_type == OCI_MANIFEST


@pytest.mark.parametrize("batched", [True, False])
async def test_L03_the_cap_of_manifests(session: Session, *, batched: bool) -> None:
    adapter = BatchedAdapter() if batched else Adapter()
    sizes = {size: padded(size) for size in (OFFLOAD_BYTES + 1, MAX_MANIFEST, MAX_MANIFEST + 1)}
    digests = {size: Digest.of(raw) for size, raw in sizes.items()}
    for size, raw in sizes.items():
        adapter.manifests[digests[size]] = RawManifest(raw, None)
    async with opened(adapter, session) as source:
        outcomes = await source.get_manifests(list(digests.values()))
        assert [type(outcome) for outcome in outcomes] == [
            Manifest,
            Manifest,
            LimitExceededError,
        ]
        over = outcomes[-1]
        assert isinstance(over, LimitExceededError)
        assert over.limit == MAX_MANIFEST
        with pytest.raises(LimitExceededError):
            await source.get_manifest(digests[MAX_MANIFEST + 1])


async def test_P06_large_manifests_are_verified_in_a_thread_and_parsed_by_nobody(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[tuple[int, str]] = []

    def verify(raw: RawManifest, expected: Digest | None, size: int | None) -> Manifest:
        threads.append((len(raw.raw), threading.current_thread().name))
        return verify_manifest(raw, expected, size)

    def parse(*_: object) -> object:
        raise AssertionError

    monkeypatch.setattr(source_module, "verify_manifest", verify)
    monkeypatch.setattr(Manifest, "parse_once", parse)
    small, large = padded(OFFLOAD_BYTES), padded(OFFLOAD_BYTES + 1)
    adapter = holding(default=large)
    adapter.manifests[Digest.of(small)] = RawManifest(small, None)
    async with opened(adapter, session) as source:
        await source.get_manifest(Digest.of(small))
        await source.get_manifest()
    assert {size: thread.startswith("asupplemented-file") for size, thread in threads} == {
        len(small): False,
        len(large): True,
    }


async def test_a_large_manifest_that_does_not_parse_fails_where_it_is_parsed(
    session: Session,
) -> None:
    broken = b'{"schemaVersion":2,"mediaType":"%s","layers":5}' % OCI_MANIFEST.encode()
    adapter = holding(default=broken.ljust(OFFLOAD_BYTES + 1))
    async with opened(adapter, session) as source:
        manifest = await source.get_manifest()
        with pytest.raises(MalformedManifestError):
            manifest.parse()


# Strays


@pytest.mark.parametrize(
    ("stray", "kind"),
    [
        (PermissionError(13, "x"), PermissionDeniedError),
        (ConnectionResetError(104, "x"), NetworkError),
        (TimeoutError("x"), SourceTimeoutError),
        (EOFError("x"), TruncatedError),
        (OSError(5, "x"), SourceError),
    ],
)
async def test_strays_of_adapters_become_our_errors(
    session: Session, stray: Exception, kind: type[SourceError]
) -> None:
    adapter = BatchedAdapter(manifests={IMAGE.digest: stray, None: stray})
    async with opened(adapter, session) as source:
        for call in (
            source.get_manifest(),
            source.get_manifest(IMAGE.digest),
            source.get_manifests([IMAGE.digest]),
        ):
            with pytest.raises(kind) as caught:
                await call
            assert type(caught.value) is kind
            assert caught.value.reference == "place:here"
            assert type(caught.value.__cause__) is type(stray)


async def test_what_was_said_closer_to_the_fault_stays(session: Session) -> None:
    failure = NetworkError("x", reference="docker://mirror", digest=ABSENT)
    async with opened(holding(default=failure), session) as source:
        with pytest.raises(NetworkError) as caught:
            await source.get_manifest()
    assert (caught.value.reference, caught.value.digest) == ("docker://mirror", ABSENT)


# Batches


async def test_a_batch_is_one_hop_and_one_outcome_each(session: Session) -> None:
    adapter = BatchedAdapter()
    fill(adapter, IMAGE, OTHER)
    adapter.manifests[INDEX.digest] = RawManifest(OTHER.raw, None)
    async with opened(adapter, session) as source:
        assert source.batched is True
        outcomes = await source.get_manifests([OTHER.digest, ABSENT, IMAGE.digest, INDEX.digest])
    assert adapter.thread.startswith("asupplemented-file")
    assert adapter.asked == []
    other, absent, image, wrong = outcomes
    assert isinstance(other, Manifest)
    assert isinstance(image, Manifest)
    assert (other.digest, image.digest) == (OTHER.digest, IMAGE.digest)
    assert isinstance(absent, ManifestNotFoundError)
    assert (absent.digest, absent.reference) == (ABSENT, "place:here")
    assert isinstance(wrong, DigestMismatchError)
    assert (wrong.digest, wrong.reference) == (INDEX.digest, "place:here")


async def test_a_batch_of_text_is_validated_first(session: Session) -> None:
    adapter = BatchedAdapter()
    async with opened(adapter, session) as source:
        texts: list[Any] = [str(IMAGE.digest), "sha256:nonsense"]
        with pytest.raises(InvalidDigestError):
            await source.get_manifests(texts)
    assert not hasattr(adapter, "batch")


async def test_without_the_ability_a_batch_is_read_one_by_one(session: Session) -> None:
    adapter = holding(IMAGE)
    async with opened(adapter, session) as source:
        assert source.batched is False
        image, absent = await source.get_manifests([IMAGE.digest, ABSENT])
    assert isinstance(image, Manifest)
    assert isinstance(absent, ManifestNotFoundError)
    assert adapter.asked == [IMAGE.digest, ABSENT]


# Blobs


async def test_a_blob_by_digest_text_or_descriptor(session: Session) -> None:
    digest = Digest.of(LAYER)
    adapter = Adapter(blobs={digest: LAYER})
    async with opened(adapter, session) as source:
        for name in (digest, str(digest), Descriptor(digest=digest, size=len(LAYER))):
            async with source.open_blob(name) as blob:
                assert await blob.read_all(1000) == LAYER
                assert blob.verified is True
        async with source.open_blob(digest, start=5, end=9) as blob:
            assert await blob.read_all(4) == LAYER[5:9]
    assert adapter.ledger.left_open == 0


async def test_one_source_is_one_candidate(session: Session) -> None:
    digest = Digest.of(LAYER)
    async with opened(Adapter(blobs={digest: LAYER}), session) as source:
        [candidate] = source.blob_candidates(Descriptor(digest=digest))
        assert (candidate.reference, candidate.member) == ("place:here", None)
        assert await candidate.open_file() is None
        with pytest.raises(InvalidDigestError):
            source.blob_candidates(Descriptor(digest="nonsense"))


async def test_a_blob_that_is_not_there(session: Session) -> None:
    async with opened(Adapter(), session) as source:
        with pytest.raises(BlobNotFoundError) as caught:
            await source.open_blob(ABSENT).__aenter__()
    assert (caught.value.digest, caught.value.reference) == (ABSENT, "place:here")


async def test_an_adapter_without_blobs_says_so_when_one_is_asked_for(session: Session) -> None:
    async with opened(Core(), session) as source:
        with pytest.raises(UnsupportedOperationError, match="StreamsBlobs, LocalFile or") as caught:
            source.open_blob(ABSENT)
    assert (caught.value.digest, caught.value.reference) == (ABSENT, "place:here")
    assert "Core serves manifests only" in str(caught.value)


async def test_in_a_group_another_member_serves_what_manifests_alone_do_not(
    session: Session,
) -> None:
    digest = Digest.of(LAYER)
    bare = Core({None: RawManifest(IMAGE.raw, None)})
    whole = Adapter({None: RawManifest(IMAGE.raw, None)}, {digest: LAYER})
    async with supplement(Place(whole), Place(bare, "bare")).open(session) as image:
        assert [each.member for each in image.resolution.candidates(digest)] == [1, 0]
        async with image.open_blob(digest) as blob:
            assert await blob.read_all(1000) == LAYER
            assert blob.member == 0
    async with supplement(Place(bare, "bare")).open(session) as image:
        with pytest.raises(UnsupportedOperationError, match="manifests only") as caught:
            image.open_blob(digest)
    assert (caught.value.member, caught.value.reference) == (0, "place:bare")


async def test_blobs_in_local_files_are_opened_in_a_thread(
    session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "blob"
    path.write_bytes(LAYER)
    threads: list[str] = []

    class WithFiles(Core):
        def open_file(self, blob: Descriptor) -> BlobFile:
            threads.append(threading.current_thread().name)
            return open_blob_file(path)

    before = count_open_files()
    adapter = WithFiles()
    digest = Digest.of(LAYER)
    async with opened(adapter, session) as source, source.open_blob(digest) as blob:
        assert await blob.read_all(1000) == LAYER
    assert adapter.ledger.asked == []
    assert threads[0].startswith("asupplemented-file")
    assert count_open_files() == before


async def test_what_the_adapter_says_of_concurrency_is_passed_on(session: Session) -> None:
    class Serial(Adapter):
        concurrent_blobs = False

    async with opened(Serial(), session) as source:
        assert source.concurrent_blobs is False
    async with opened(Adapter(), session) as source:
        assert source.concurrent_blobs is True


# Signatures and layers


async def test_signatures_of_an_adapter_that_has_some(session: Session) -> None:
    signature = Signature("simple-signing", b"\xa3signature")

    class Signed(Adapter):
        async def fetch_signatures(self, instance: Digest | None) -> Sequence[Signature]:
            if instance == ABSENT:
                raise OSError(5, "x")
            return [signature] if instance is None else []

    async with opened(Signed(), session) as source:
        assert await source.get_signatures() == (signature,)
        assert await source.get_signatures(str(IMAGE.digest)) == ()
        with pytest.raises(SourceError) as caught:
            await source.get_signatures(ABSENT)
        assert caught.value.digest == ABSENT
    async with opened(Adapter(), session) as source:
        assert await source.get_signatures(IMAGE.digest) == ()


async def test_SR06_layers_for_copy(session: Session) -> None:
    layer = Descriptor(digest=Digest.of(LAYER))

    class Rerouting(Adapter):
        async def layers_for_copy(self, instance: Digest | None) -> Sequence[Descriptor] | None:
            return None if instance is None else [layer]

    async with opened(Rerouting(), session) as source:
        assert await source.layers_for_copy() is None
        assert await source.layers_for_copy(IMAGE.digest) == (layer,)
    async with opened(Adapter(), session) as source:
        assert await source.layers_for_copy(IMAGE.digest) is None


# Ends


async def test_SR08_closing_twice_is_closing_once_and_nothing_works_after_it(
    session: Session,
) -> None:
    digest = Digest.of(LAYER)
    adapter = BatchedAdapter(blobs={digest: LAYER})
    fill(adapter, IMAGE, default=INDEX.raw)
    source = opened(adapter, session)
    await source.get_manifest()
    [candidate] = source.blob_candidates(Descriptor(digest=digest))
    stream = source.open_blob(digest)
    await source.aclose()
    await source.aclose()
    assert adapter.closed == 1
    for misuse in (
        source.get_manifest(),
        source.get_manifest(IMAGE.digest),
        source.get_manifests([IMAGE.digest]),
        source.get_signatures(),
        source.layers_for_copy(),
        stream.__aenter__(),
        candidate.open_file(),
    ):
        with pytest.raises(ClosedError):
            await misuse
    with pytest.raises(ClosedError):
        source.open_blob(digest)
    with pytest.raises(ClosedError):
        candidate.open()
    assert "closed" in repr(source)


async def test_closing_in_the_middle_of_a_fetch(session: Session) -> None:
    source = opened(holding(default=INDEX.raw), session)
    fetching = asyncio.create_task(source.get_manifest())
    await asyncio.sleep(0)
    await source.aclose()
    with pytest.raises(ClosedError):
        await fetching


async def test_a_failure_to_close_is_told_once(session: Session) -> None:
    source = opened(Adapter(fails_to_close=OSError("stuck")), session)
    with pytest.raises(OSError, match="stuck"):
        await source.aclose()
    await source.aclose()


async def test_a_source_left_open_warns(session: Session) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        opened(Adapter(), session)
        gc.collect()
    [message] = [str(w.message) for w in caught if w.category is ResourceWarning]
    assert "unclosed <VerifiedSource of place:here" in message


async def test_an_opening_is_used_once(session: Session) -> None:
    opening = Place(holding(default=INDEX.raw)).open(session)
    async with opening:
        with pytest.raises(UsageError):
            await opening


async def test_SEC16_cancelled_at_any_await_every_adapter_is_closed() -> None:
    adapters: list[Adapter] = []

    async def run() -> None:
        adapter = holding(default=padded(OFFLOAD_BYTES + 1))
        adapter.blobs[Digest.of(LAYER)] = LAYER
        adapters.append(adapter)
        async with (
            Session() as session,
            Place(adapter).open(session) as source,
            source.open_blob(Digest.of(LAYER)) as blob,
        ):
            await blob.read_all(1000)

    async def check() -> None:
        last = adapters[-1]
        assert last.closed == last.opened
        assert last.ledger.left_open == 0

    assert await cancel_at_every_await(run, check) >= 5


# Hooks


async def test_hooks_hear_of_manifests() -> None:
    told: list[Event] = []
    adapter = BatchedAdapter()
    fill(adapter, IMAGE, OTHER, default=INDEX.raw)
    async with Session(hooks=[told.append]) as session, opened(adapter, session) as source:
        await source.get_manifest()
        await source.get_manifest()
        await source.get_manifest(IMAGE.digest)
        with pytest.raises(ManifestNotFoundError):
            await source.get_manifest(ABSENT)
        await source.get_manifests([OTHER.digest, ABSENT])
    heard = [event for event in told if isinstance(event, ManifestFetched)]
    assert heard == told
    assert [(event.reference, event.digest, event.size) for event in heard] == [
        ("place:here", built.digest, len(built.raw)) for built in (INDEX, IMAGE, OTHER)
    ]
    assert all(event.seconds >= 0 for event in heard)
