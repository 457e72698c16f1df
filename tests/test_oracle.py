"""The answers of the real Go package, over every kind of source, at any concurrency."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from asupplemented import (
    AllImages,
    Digest,
    Platform,
    Session,
    SpecificImages,
    SupplementedError,
    SystemImage,
    supplement,
)
from asupplemented.testing import FakeRegistry
from asupplemented.transports.memory import MemoryReference
from tests.members import Member, MemberLog
from tests.oracle_data import OracleCase, OracleSource, case_files, load_case

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented import Resolution
    from asupplemented.abc import Reference
    from asupplemented.model.index import Selection

CASES = [load_case(path) for path in case_files()]
LAYOUTS = [case for case in CASES if not case.uses_schema1]
"""Layouts refuse schema 1, as upstream does."""
every_case = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
READ = [case for case in CASES if case.expected.ok and not case.outcome_only]
"""Cases whose serial reads are known."""
every_lookahead = pytest.mark.parametrize("lookahead", [0, 64])


def selection_of(case: OracleCase) -> Selection:
    request = case.request
    match request.multiple:
        case "all":
            return AllImages()
        case "specific":
            return SpecificImages(case.requested())
        case _:
            return SystemImage(Platform(request.os, request.architecture, request.variant))


def compare(case: OracleCase, found: Resolution) -> None:
    """What the Go package mapped; insertion order is the property tests' business."""
    if case.outcome_only:
        return
    assert dict(found.sources) == case.expected_sources()
    assert dict(found.blobs) == case.expected_blobs()
    assert list(found.defaults) == case.expected_defaults()


async def check(case: OracleCase, references: list[str | Reference], lookahead: int) -> None:
    group = supplement(*references, selection=selection_of(case))
    async with Session(lookahead=lookahead, tls_verify=False) as session:
        if not case.expected.ok:
            with pytest.raises(SupplementedError):
                await group.resolve(session)
            return
        async with group.open(session) as image:
            compare(case, image.resolution)
            for digest in image.resolution.sources:
                manifest = await image.get_manifest(digest)
                assert manifest.digest == digest


@every_case
@every_lookahead
async def test_directories(case: OracleCase, lookahead: int, tmp_path: Path) -> None:
    await check(case, [*case.write_dir(tmp_path)], lookahead)


@pytest.mark.parametrize("case", LAYOUTS, ids=[case.name for case in LAYOUTS])
@every_lookahead
async def test_layouts(case: OracleCase, lookahead: int, tmp_path: Path) -> None:
    await check(case, [*case.write_oci(tmp_path)], lookahead)


def serve(case: OracleCase, registry: FakeRegistry) -> list[str | Reference]:
    """Each source of a case in a repository of its own; a place with nothing in it has none."""
    references: list[str | Reference] = []
    for source in case.sources:
        repository = f"s{source.number}"
        contents = source.contents
        if contents is not None:
            for digest, (raw, media_type) in contents.manifests.items():
                tag = "latest" if digest == contents.default else None
                registry.put_manifest(repository, raw, media_type, tag=tag, digest=digest)
            for digest, data in contents.blobs.items():
                registry.put_blob(repository, data, digest=digest)
        number = source.number if source.same_as is None else source.same_as
        references.append(registry.reference(f"s{number}"))
    return references


@every_case
@every_lookahead
async def test_registries(case: OracleCase, lookahead: int) -> None:
    async with FakeRegistry() as registry:
        await check(case, serve(case, registry), lookahead)
        await registry.wait_until(lambda: registry.open_connections == 0)


def stored(name: str, source: OracleSource) -> MemoryReference:
    contents = source.contents
    if contents is None:
        return MemoryReference(name)
    default = None if contents.default is None else contents.manifests[contents.default]
    return MemoryReference(name, default, contents.manifests, contents.blobs)


def members_of(case: OracleCase, log: MemberLog, rng: random.Random) -> list[str | Reference]:
    """The sources of a case as members that answer in any order."""
    delays: dict[tuple[str, str | None], int] = {}

    def turns(name: str, digest: str | None) -> int:
        return delays.setdefault((name, digest), rng.randrange(12))

    members: list[str | Reference] = []
    for source in case.sources:
        if source.same_as is not None:
            members.append(members[source.same_as])
        else:
            name = f"s{source.number}"
            members.append(Member(name, log, stored(name, source), turns=turns))
    return members


@every_case
@pytest.mark.parametrize("lookahead", [0, 1, 3, 64])
async def test_random_delays(case: OracleCase, lookahead: int) -> None:
    for seed in range(5):
        log = MemberLog()
        members = members_of(case, log, random.Random(f"{case.name} {seed}"))
        await check(case, members, lookahead)
        assert log.left_open == 0
        assert log.peak <= 1 + lookahead


@pytest.mark.parametrize("case", READ, ids=[case.name for case in READ])
async def test_serial_reads(case: OracleCase) -> None:
    """At lookahead 0 the reads are those of the Go package, in its order."""
    log = MemberLog()
    await check(case, members_of(case, log, random.Random(0)), 0)
    reads = [
        f"{name} {'default' if digest is None else case.names[Digest(digest)]}"
        for name, digest in log.reads
    ]
    assert tuple(reads) == case.expected.reads
