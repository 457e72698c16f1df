"""The cases are what they say, and are written to disk as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.model.digest import Digest
from asupplemented.transports import parse_reference
from tests.oracle_data import OracleCase, case_files, load_case
from tests.transports.places import tree

if TYPE_CHECKING:
    from pathlib import Path

CASES = [load_case(path) for path in case_files()]


def case_named(name: str) -> OracleCase:
    [case] = [case for case in CASES if case.name == name]
    return case


def test_there_are_cases_and_each_has_a_name_of_its_own() -> None:
    assert len(CASES) > 100
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_case_speaks_of_what_it_has() -> None:
    for case in CASES:
        for thing in case.objects.values():
            assert Digest.of(thing.raw, thing.digest.algorithm) == thing.digest, case.name
        numbers = {source.number for source in case.sources}
        assert set(case.expected_sources().values()) <= numbers, case.name
        assert case.expected_blobs().keys() <= case.names.keys(), case.name
        assert len(case.expected_defaults()) == len(case.sources), case.name
        assert all(case.requested()) or not case.request.instances, case.name


@pytest.mark.parametrize("transport", ["dir", "oci"])
def test_a_case_is_written_whole(transport: str, tmp_path: Path) -> None:
    for case in CASES[::10]:
        root = tmp_path / case.name
        references = case.write_dir(root) if transport == "dir" else case.write_oci(root)
        assert len(references) == len(case.sources), case.name
        for source, reference in zip(case.sources, references, strict=True):
            assert parse_reference(reference).transport == transport
            if source.contents is None:
                continue
            files = list(tree(root / f"s{source.number}").values())
            stored = [manifest.raw for manifest in source.contents.manifests.values()]
            wanted = (*stored, *source.contents.blobs.values())
            assert all(raw in files for raw in wanted), case.name


def test_a_reference_given_again_is_the_same(tmp_path: Path) -> None:
    references = case_named("11-duplicate-references").write_oci(tmp_path)
    assert references == [references[n] for n in (0, 1, 1, 0, 1)]


def test_an_object_may_lie_under_the_digest_of_another(tmp_path: Path) -> None:
    case = case_named("48-wrong-bytes-under-digest")
    case.write_oci(tmp_path)
    [place] = [d for d, s in _manifests(case).items() if not d.matches(s)]
    file = tmp_path / "s0" / "blobs" / "sha256" / place.encoded
    assert file.read_bytes() == case.objects["Z"].raw


def test_schema_1_is_seen() -> None:
    found = {case.name for case in CASES if case.uses_schema1}
    assert {"43-schema1-unsigned-supplement", "45-schema1-as-top"} <= found
    assert "41-docker-v2-list" not in found


def _manifests(case: OracleCase) -> dict[Digest, bytes]:
    contents = case.sources[0].contents
    assert contents is not None
    return {digest: stored.raw for digest, stored in contents.manifests.items()}
