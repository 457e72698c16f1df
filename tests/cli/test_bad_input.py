"""Each kind of bad input: one clear line, the right exit code, nothing left behind."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.limits import MAX_INSTANCES, MAX_MANIFEST
from asupplemented.model.digest import Digest
from asupplemented.testing import FakeRegistry, Html, write_directory, write_layout
from asupplemented.testing.images import build_index
from tests.cli.conftest import AMD, ARM, TOP, blob_file, called, write_raw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Answer, Cli, Places

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
UNPRIVILEGED = 65534


def failed(answer: Answer, code: int, *words: str) -> None:
    """One error, in words, on stderr only."""
    assert answer.code == code, answer.err
    assert answer.out == ""
    errors = [line for line in answer.err.splitlines() if line.lower().startswith("error: ")]
    assert len(errors) == 1, answer.err
    assert "Traceback" not in answer.err
    for word in words:
        assert word in errors[0]


# Wrong usage: 2


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        pytest.param(["resolve", "ftp://host/app"], "unknown transport 'ftp'", id="transport"),
        pytest.param(["resolve", "docker-daemon:app"], "not supported yet", id="known elsewhere"),
        pytest.param(["resolve", "app:1.4"], "docker://app:1.4", id="no transport"),
        pytest.param(["resolve", "./app"], "oci:./app", id="path without transport"),
        pytest.param(["resolve", ""], "empty reference", id="empty"),
        pytest.param(["resolve", "docker://host/UPPER:1"], "TOP", id="REF upper case"),
        pytest.param(["resolve", "oci:app", "oci:"], "SUPPLEMENT", id="OC-02 no path"),
        pytest.param(["resolve", "oci:app:@-1"], "source index", id="OC-02 negative index"),
        pytest.param(["resolve", "oci:app", "--instance", "sha256:12"], "length", id="D-02 length"),
        pytest.param(
            ["resolve", "oci:app", "--instance", "sha256:../../etc/passwd"],
            "--instance",
            id="D-04 path",
        ),
        pytest.param(["explain", "oci:app", "--digest", "md5:" + "0" * 32], "md5", id="D-03"),
        pytest.param(["blob", "oci:app", "--digest", "nonsense"], "--digest", id="D-01"),
        pytest.param(["resolve", "oci:app", "--platform", "linux"], "linux/arm/v7", id="platform"),
        pytest.param(["resolve", "oci:app", "--select", "some"], "some", id="--select"),
        pytest.param(["resolve", "oci:app", "--missing", "maybe"], "maybe", id="--missing"),
        pytest.param(["resolve", "oci:app", "--unavailable", "no"], "no", id="--unavailable"),
        pytest.param(["resolve", "oci:app", "--prefer", "top"], "top", id="--prefer"),
        pytest.param(
            ["resolve", "oci:app", "--lookahead", "-1"], "'--lookahead'", id="--lookahead"
        ),
        pytest.param(
            ["resolve", "oci:app", "--select", "all", "--instance", AMD.digest],
            "--select specific",
            id="--instance with all",
        ),
        pytest.param(
            ["resolve", "oci:app", "--select", "all", "--platform", "linux/amd64"],
            "--select system",
            id="--platform with all",
        ),
        pytest.param(
            ["manifest", "oci:app", "--instance", AMD.digest, "--instance", ARM.digest],
            "given once",
            id="two manifests",
        ),
        pytest.param(
            ["blob", "oci:app", "--digest", AMD.digest, "--json"], "--output", id="blob as JSON"
        ),
        pytest.param(["blob", "oci:app"], "--digest", id="no --digest"),
        pytest.param(["copy", "oci:app"], "--to", id="no --to"),
        pytest.param(
            ["copy", "docker://a/b", "oci:out"],
            "asupplemented copy docker://a/b --to oci:out",
            id="a destination as skopeo takes it",
        ),
        pytest.param(
            ["tags", "docker://ada:secret@host/app"],
            "docker://host/app, and log in with asupplemented login host, or give --creds",
            id="a user and a password in a reference",
        ),
        pytest.param(["tags", "docker://https://host/app"], "docker://host/app", id="a URL"),
        pytest.param(
            ["tags", "docker://host/app", "--authfile", "/nowhere/auth.json"],
            "there is no file /nowhere/auth.json",
            id="no auth file",
        ),
        pytest.param(["tags", "docker://host/app", "--creds", "ada"], "USER:PASSWORD", id="creds"),
        pytest.param(["resolve", "oci:app", "--creds", "a:b"], "one registry", id="creds of oci"),
        pytest.param(["copy", "oci:app", "--to", "docker://host/app"], "only to oci:", id="to"),
        pytest.param(["copy", "oci:app", "--to", "nowhere"], "--to", id="to no transport"),
        pytest.param(
            ["copy", "oci:app", "--to", "dir:x", "--extras", "--select", "system"],
            "--extras",
            id="extras of a system",
        ),
        pytest.param(["resolve"], "TOP", id="no top"),
        pytest.param(["fetch", "oci:app"], "fetch", id="no such command"),
    ],
)
def test_wrong_usage(cli: Cli, arguments: list[str], word: str) -> None:
    failed(cli(*arguments), 2, word)


def test_a_layout_with_several_images_needs_a_choice(cli: Cli, tmp_path: Path) -> None:
    write_layout(tmp_path, AMD, name="one")
    write_layout(tmp_path, ARM, name="two")
    failed(cli("resolve", f"oci:{tmp_path}"), 2, "more than one image", "'one'", "'two'")


# Not found: 3


def test_what_is_not_there(cli: Cli, places: Places) -> None:
    nowhere = places.directory / "nowhere"
    failed(cli("resolve", f"oci:{nowhere}"), 3, str(nowhere), "member 0")
    failed(cli("resolve", f"dir:{nowhere}"), 3, str(nowhere))
    failed(cli("resolve", places.top, f"oci:{nowhere}"), 3, str(nowhere), "member 1")
    failed(cli("resolve", f"{places.top}-2"), 3, "app-2")
    failed(cli("resolve", places.top), 3, ARM.digest, places.top, "member 0")
    complete = (places.top, places.supplement)
    unknown = Digest.of(b"unknown")
    failed(cli("manifest", *complete, "--instance", unknown), 3, unknown)
    failed(cli("explain", *complete, "--digest", unknown), 3, unknown)
    failed(cli("blob", *complete, "--digest", unknown), 3, unknown)
    failed(cli("resolve", *complete, "--instance", unknown), 3, unknown)
    answer = cli("resolve", *complete, "--platform", "linux/s390x")
    failed(answer, 3, "s390x", "member 0")
    assert "with --platform; there is linux/amd64, linux/arm64/v8" in answer.err


def test_a_blob_that_is_missing(cli: Cli, group: tuple[str, ...], places: Places) -> None:
    blob_file(places.directory / "other", ARM.layers[1]).unlink()
    out = places.directory / "out"
    failed(cli("blob", *group, "--digest", ARM.layers[1], "-o", str(out)), 3, ARM.layers[1])
    assert not out.exists()
    failed(cli("copy", *group, "--to", f"oci:{out}:app"), 3, ARM.layers[1])
    assert not (out / "index.json").exists()


# Content that is not what was named: 4


def test_a_wrong_blob(cli: Cli, group: tuple[str, ...], places: Places) -> None:
    file = blob_file(places.directory / "other", ARM.layers[1])
    file.write_bytes(bytes(file.stat().st_size))
    out = places.directory / "out"
    out.write_text("what was here before")
    failed(cli("blob", *group, "--digest", ARM.layers[1], "-o", str(out)), 4, ARM.layers[1])
    assert out.read_text() == "what was here before"
    answer = cli("copy", *group, "--to", f"dir:{places.directory / 'copy'}")
    failed(answer, 4, ARM.layers[1], "member 1")
    assert "while copying, the source failed" in answer.err
    assert not (places.directory / "copy" / "manifest.json").exists()
    assert not [path for path in places.directory.iterdir() if path.name.startswith(".")]


def test_a_truncated_blob(cli: Cli, group: tuple[str, ...], places: Places) -> None:
    file = blob_file(places.directory / "other", ARM.layers[1])
    file.write_bytes(file.read_bytes()[:-1])
    failed(cli("blob", *group, "--digest", ARM.layers[1]), 4, ARM.layers[1])


def test_a_wrong_manifest(cli: Cli, group: tuple[str, ...], places: Places) -> None:
    blob_file(places.directory / "other", ARM.digest).write_bytes(AMD.raw)
    failed(cli("resolve", *group), 4, ARM.digest, places.supplement, "member 1")


def test_an_index_that_names_itself(cli: Cli, tmp_path: Path) -> None:
    own = "sha256:" + "1" * 64
    raw = build_index([{"mediaType": INDEX, "digest": own, "size": 100}]).raw
    failed(cli("resolve", write_raw(tmp_path / "x", raw, INDEX, own)), 4, own, "member 0")


def test_keys_that_are_given_twice_or_contradict_each_other(cli: Cli, tmp_path: Path) -> None:
    twice = b'{"schemaVersion":2,"manifests":[],"manifests":[]}'
    failed(cli("resolve", write_raw(tmp_path / "a", twice, INDEX)), 4, "manifests")
    folded = b'{"schemaVersion":2,"manifests":[],"MANIFESTS":[]}'
    failed(cli("resolve", write_raw(tmp_path / "b", folded, INDEX)), 4, "MANIFESTS")
    both = b'{"schemaVersion":2,"mediaType":"%s","manifests":[],"layers":[]}' % INDEX.encode()
    failed(cli("resolve", write_raw(tmp_path / "c", both, INDEX)), 4, "ambiguous")


def test_D04_a_digest_with_a_path_in_a_document(cli: Cli, tmp_path: Path) -> None:
    raw = build_index([{"mediaType": MANIFEST, "digest": "sha256:../../etc/passwd", "size": 1}]).raw
    failed(cli("resolve", write_raw(tmp_path / "x", raw, INDEX)), 4, "../../etc/passwd")


# All else that fails: 1


def test_more_instances_than_the_cap(cli: Cli, tmp_path: Path) -> None:
    entries = [{"digest": Digest.of(b"%d" % n), "size": 1} for n in range(MAX_INSTANCES + 1)]
    raw = build_index(entries).raw
    assert len(raw) < MAX_MANIFEST
    failed(cli("resolve", write_raw(tmp_path / "x", raw, INDEX)), 1, str(MAX_INSTANCES))


def test_an_index_and_a_manifest_over_the_size_cap(cli: Cli, tmp_path: Path) -> None:
    raw = TOP.raw[:-1] + b" " * 5 * 1024 * 1024 + b"}"
    for kind in (INDEX, MANIFEST):
        failed(cli("resolve", write_raw(tmp_path / kind[-20:], raw, kind)), 1, str(MAX_MANIFEST))
    reference = write_layout(tmp_path / "x", AMD)
    index: dict[str, Any] = json.loads((tmp_path / "x" / "index.json").read_text())
    (tmp_path / "x" / "index.json").write_text(json.dumps(index) + " " * MAX_MANIFEST)
    failed(cli("resolve", reference), 1, "index.json", str(MAX_MANIFEST))


@pytest.fixture
def without_privileges(cli: Cli, places: Places) -> Iterator[None]:
    """Drop the privileges of root, which no permission stops, while the test runs."""
    cli("resolve", places.top, places.supplement)  # what is imported late is imported now
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(UNPRIVILEGED)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.usefixtures("without_privileges")
def test_a_directory_without_permission(cli: Cli, places: Places) -> None:
    if os.geteuid() != UNPRIVILEGED:
        (places.directory / "top").chmod(0)
    failed(cli("resolve", places.top), 1, str(places.directory), "permission")


def test_a_destination_that_is_no_directory(
    cli: Cli, group: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("important")
    answer = cli("copy", *group, "--to", f"oci:{tmp_path / 'file'}")
    failed(answer, 1, str(tmp_path / "file"))
    assert "while copying, the destination failed" in answer.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis").write_text("important")
    failed(cli("copy", *group, "--to", f"dir:{tmp_path / 'full'}"), 1, str(tmp_path / "full"))
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis"]


def test_a_file_that_cannot_be_written(cli: Cli, group: tuple[str, ...], tmp_path: Path) -> None:
    target = str(tmp_path / "nowhere" / "blob")
    failed(cli("blob", *group, "--digest", ARM.config, "-o", target), 1, str(tmp_path / "nowhere"))


def test_an_artifact_cannot_be_inspected(cli: Cli, tmp_path: Path) -> None:
    from asupplemented.testing.images import build_artifact

    reference = write_layout(tmp_path / "x", build_artifact("application/spdx+json", b"{}"))
    failed(cli("inspect", reference), 1, "application/spdx+json")


def test_a_broken_version_file(cli: Cli, tmp_path: Path) -> None:
    reference = write_directory(tmp_path / "x", AMD)
    (tmp_path / "x" / "version").write_text("Directory Transport Version: 9.9\n")
    failed(cli("resolve", reference), 1, "9.9", str(tmp_path / "x"))


# Registries


async def test_a_registry_that_answers_html() -> None:
    async with FakeRegistry() as registry:
        reference = registry.add("team/app", AMD)
        registry.script("latest", Html(), forever=True)
        answer = await called("resolve", reference, "--no-tls-verify")
    failed(answer, 1, reference, "member 0")


async def test_a_tag_that_is_not_there() -> None:
    async with FakeRegistry() as registry:
        registry.add("team/app", AMD)
        answer = await called("resolve", f"docker://{registry.host}/team/app:2", "--no-tls-verify")
    failed(answer, 3, "team/app:2")


async def test_a_registry_that_is_not_there() -> None:
    async with FakeRegistry() as registry:
        reference = registry.add("team/app", AMD)
    answer = await called("resolve", reference, "--no-tls-verify")
    failed(answer, 1, reference.removeprefix("docker://").partition("/")[0])


async def test_no_tls_verify_allows_plain_http(tmp_path: Path) -> None:
    async with FakeRegistry() as registry:
        reference = registry.add("team/app", TOP)
        to = f"oci:{tmp_path / 'out'}:app"
        answer = await called("copy", reference, "--no-tls-verify", "--to", to)
    assert (answer.code, answer.out) == (0, f"{TOP.digest}\n")
