"""Prefetching: which manifests it reads, and what it goes on without."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented import LayoutCache
from asupplemented.errors import LimitExceededError
from asupplemented.limits import MAX_NESTING
from asupplemented.model.digest import Digest
from asupplemented.model.index import SpecificImages
from asupplemented.session import Session
from asupplemented.source import VerifiedSource
from asupplemented.supplemented import supplement
from asupplemented.testing.images import build_image, build_index
from asupplemented.transfer import plan
from asupplemented.transfer import prefetch as prefetching
from tests.members import hold
from tests.transfer.test_plan import InBatches, nested

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.events import PrefetchReport

IMAGES = [build_image(f"linux/{name}", [{"n": name}]) for name in ("amd64", "arm64", "riscv64")]
TOP = build_index(IMAGES)


@pytest.fixture
async def session(tmp_path: Path) -> AsyncIterator[Session]:
    async with Session(cache=LayoutCache(tmp_path, 1 << 30)) as opened:
        yield opened


async def fetch(reference: Any, session: Session, **options: Any) -> PrefetchReport:
    async with reference.open(session) as source:
        report: PrefetchReport = await source.prefetch(**options)
        return report


async def test_a_manifest_that_is_not_found_is_reported_and_the_others_are_read(
    session: Session,
) -> None:
    report = await fetch(hold("top", TOP, without=[IMAGES[1]]), session)
    assert (report.digest, report.manifests, report.blobs) == (TOP.digest, 3, 4)
    assert report.missing == (IMAGES[1].digest,)


async def test_the_same_holds_where_manifests_are_read_in_batches(session: Session) -> None:
    reference = hold("top", TOP, without=[IMAGES[1]])
    adapter = InBatches(reference)
    async with VerifiedSource(adapter, reference, session) as source:
        report = await source.prefetch()
    assert (report.manifests, report.missing) == (3, (IMAGES[1].digest,))
    assert adapter.asked == [3]


async def test_instances_that_a_group_was_resolved_without_are_reported(session: Session) -> None:
    group = supplement(hold("top", TOP, without=[IMAGES[1]]), missing="skip")
    report = await fetch(group, session)
    assert (report.manifests, report.missing) == (3, (IMAGES[1].digest,))


async def test_a_requested_instance_that_no_list_names_is_left_out(session: Session) -> None:
    wanted = SpecificImages([IMAGES[0].digest, Digest.of(b"named by no list")])
    report = await fetch(hold("top", TOP), session, selection=wanted)
    assert (report.manifests, report.blobs, report.missing) == (2, 2, ())


async def test_schema_1_is_read_although_it_is_never_written(session: Session) -> None:
    layer = b"a layer"
    raw = (
        b'{"schemaVersion":1,"name":"a","tag":"b","architecture":"amd64",'
        b'"fsLayers":[{"blobSum":"%s"}],"history":[{"v1Compatibility":"{\\"id\\":\\"%s\\"}"}]}'
        % (Digest.of(layer).encode(), b"0" * 64)
    )
    kind = "application/vnd.docker.distribution.manifest.v1+json"
    image = replace(
        IMAGES[0],
        raw=raw,
        media_type=kind,
        digest=Digest.of(raw),
        blobs={Digest.of(layer): layer},
    )
    report = await fetch(hold("top", image), session)
    assert (report.manifests, report.blobs, report.bytes) == (1, 1, len(layer))


async def test_X15_limits_hold(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await fetch(hold("top", nested(MAX_NESTING)), session)).manifests == MAX_NESTING + 1
    with pytest.raises(LimitExceededError, match="nested more than 8"):
        await fetch(hold("top", nested(MAX_NESTING + 1)), session)
    monkeypatch.setattr(plan, "MAX_INSTANCES", 3)
    with pytest.raises(LimitExceededError) as caught:
        await fetch(hold("top", TOP), session)
    assert caught.value.limit == 3


async def test_what_grows_with_the_manifests_is_listed_in_a_thread(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[threading.Thread] = []
    for name in ("_list_blobs", "_divide"):
        real = getattr(prefetching, name)

        def note(*arguments: Any, real: Any = real) -> Any:
            threads.append(threading.current_thread())
            return real(*arguments)

        monkeypatch.setattr(prefetching, name, note)
    report = await fetch(hold("top", TOP), session)
    assert len(report.kept) == report.manifests + report.blobs
    assert len(threads) == 2
    assert threading.current_thread() not in threads
