"""What the commands print, and where."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import pytest

from asupplemented._version import __version__
from asupplemented.testing import Basic, FakeRegistry, Redirect, build_artifact, write_layout
from asupplemented.testing.images import build_image, build_index
from tests.cli.conftest import AMD, ARM, BASE, RISCV, TOP, blob_file, call, whole

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.cli.conftest import Answer, Cli, Places


# resolve


def test_resolve_json_is_the_resolution(cli: Cli, group: tuple[str, ...]) -> None:
    answer = cli("resolve", *group, "--json")
    assert (answer.code, answer.err) == (0, "")
    found = answer.json
    assert list(found) == [
        *("members", "prefer", "top", "sources", "blobs", "defaults", "alternates", "missing"),
        *("unavailable", "opaque", "manifests", "descriptors"),
    ]
    assert found["members"] == list(group)
    assert found["prefer"] == "manifest"
    assert found["top"] == {"digest": TOP.digest, "media_type": TOP.media_type}
    assert found["sources"][ARM.digest] == 1
    assert found["sources"][AMD.digest] == 0
    assert found["blobs"][ARM.config] == ARM.digest
    assert (found["missing"], found["unavailable"]) == ([], [])
    assert found["manifests"][ARM.digest] == {
        "media_type": ARM.media_type,
        "size": len(ARM.raw),
        "platform": "linux/arm64/v8",
    }
    assert found["manifests"][TOP.digest]["platform"] is None
    assert list(found["descriptors"]) == list(found["blobs"])
    assert found["descriptors"][ARM.config] == {
        "media_type": "application/vnd.oci.image.config.v1+json",
        "size": len(ARM.blobs[ARM.config]),
    }


def test_resolve_draws_members_instances_and_blobs(cli: Cli, group: tuple[str, ...]) -> None:
    answer = cli("resolve", *group)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == f"{TOP.digest[:19]}  5 manifests, 7 blobs, {size_of(7)}"
    assert f"├── 0 top  {group[0]}" in lines
    assert f"└── 1 supplement  {group[1]}" in lines
    [index] = [line for line in lines if "the top manifest" in line]
    assert f"index  {TOP.digest[:19]}" in index
    [arm] = [line for line in lines if ARM.digest[:19] in line]
    assert "image linux/arm64/v8" in arm
    assert "also in 0" in arm
    assert any(ARM.config[:19] in line and "oci.image.config" in line for line in lines)
    assert not any(line != line.rstrip() for line in lines)


def size_of(blobs: int) -> str:
    """What all blobs of the two places weigh, as it is shown."""
    sizes = {d: len(b) for image in (AMD, ARM, RISCV) for d, b in image.blobs.items()}
    assert len(sizes) == blobs
    return f"{sum(sizes.values()) / 1024:.1f} KiB"


def test_resolve_marks_what_is_missing_unavailable_and_given_twice(
    cli: Cli, places: Places
) -> None:
    nowhere = f"oci:{places.directory / 'nowhere'}"
    tolerant = ("--missing", "skip", "--unavailable", "skip")
    answer = cli("resolve", places.top, places.top, nowhere, *tolerant)
    assert answer.code == 0
    assert f"1 supplement  {places.top}  the same as member 0" in answer.out
    assert f"2 supplement  {nowhere}  unavailable: ImageNotFoundError" in answer.out
    assert f"missing  {ARM.digest[:19]}" in answer.out
    found = cli("resolve", places.top, places.top, nowhere, *tolerant, "--json").json
    assert found["missing"] == [{"member": 0, "digest": ARM.digest}]
    assert [entry["member"] for entry in found["unavailable"]] == [2]
    assert found["defaults"] == [TOP.digest, None, None]


def test_the_selection_follows_from_what_is_given(cli: Cli, places: Places) -> None:
    system = cli("resolve", places.top, "--platform", "linux/amd64", "--json").json
    assert set(system["sources"]) == {TOP.digest, AMD.digest}
    specific = cli("resolve", places.top, "--instance", AMD.digest, "--json").json
    assert specific == system
    nothing = cli("resolve", places.top, "--select", "specific", "--json").json
    assert set(nothing["sources"]) == {TOP.digest}
    whole_image = ("--select", "all", "--missing", "skip", "--lookahead", "0", "--json")
    assert cli("resolve", places.top, *whole_image).json["missing"] != []


def test_verbose_tells_on_stderr_and_leaves_stdout_alone(cli: Cli, group: tuple[str, ...]) -> None:
    quiet, verbose = cli("resolve", *group, "--json"), cli("resolve", *group, "--json", "-v")
    assert quiet.out == verbose.out
    assert f"manifest {TOP.digest[:19]}" in verbose.err
    assert "has 5 manifests" in verbose.err


# explain


def test_explain_tells_who_serves_and_why(cli: Cli, group: tuple[str, ...]) -> None:
    answer = cli("explain", *group, "--digest", ARM.digest)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"image {ARM.digest} is served by member 1: ")
    assert f"1. member 1 ({group[1]})" in answer.out


def test_explain_json(cli: Cli, group: tuple[str, ...]) -> None:
    found = cli("explain", *group, "--digest", ARM.config, "--json").json
    assert (found["digest"], found["kind"], found["member"]) == (ARM.config, "blob", 1)
    assert found["candidates"][0]["reference"] == group[1]
    assert set(found) == {"digest", "kind", "member", "manifest", "rule", "candidates"}


def test_explain_follows_the_preference_that_was_given(cli: Cli, places: Places) -> None:
    layer = AMD.layers[1]
    named_by_both = build_image("linux/riscv64", [BASE, {"a": "1"}])
    top = write_layout(places.directory / "t", build_index([named_by_both, AMD]), name="app")
    other = write_layout(places.directory / "o", build_index([AMD]), name="app")
    arguments = ("explain", top, other, "--digest", layer, "--json")
    assert cli(*arguments).json["member"] == 0
    found = cli(*arguments, "--prefer", "supplements").json
    assert [each["member"] for each in found["candidates"]] == [1, 0]
    assert "preferred over the top" in found["rule"]


# inspect


def test_I01_inspect_has_the_names_of_other_tools(cli: Cli, group: tuple[str, ...]) -> None:
    answer = cli("inspect", *group, "--platform", "linux/amd64")
    assert (answer.code, answer.err) == (0, "")
    assert list(answer.json) == [
        *(
            "Digest",
            "Tag",
            "Created",
            "DockerVersion",
            "Labels",
            "Architecture",
            "Variant",
            "Os",
            "Layers",
        ),
        *("LayersData", "Env", "Author"),
    ]
    assert answer.json["Digest"] == TOP.digest
    assert answer.json["Labels"] == {"of": "amd64"}
    assert answer.json["Layers"] == list(AMD.layers)


def test_inspect_looks_at_the_instance_or_platform_that_is_named(
    cli: Cli, group: tuple[str, ...]
) -> None:
    by_digest = cli("inspect", *group, "--instance", ARM.digest).json
    assert by_digest["Labels"] == {"of": "arm64"}
    of_all = cli("inspect", *group, "--select", "all", "--platform", "linux/arm64/v8").json
    assert (of_all.pop("Digest"), by_digest.pop("Digest")) == (TOP.digest, ARM.digest)
    assert of_all == by_digest


# manifest


def test_manifest_is_printed_byte_for_byte(cli: Cli, group: tuple[str, ...]) -> None:
    assert cli("manifest", *group).out.encode() == TOP.raw
    assert cli("manifest", *group, "--instance", ARM.digest).out.encode() == ARM.raw


# blob


def test_blob_goes_to_stdout(cli: Cli, group: tuple[str, ...]) -> None:
    for arguments in ((), ("-o", "-")):
        answer = cli("blob", *group, "--digest", ARM.config, *arguments)
        assert (answer.code, answer.out.encode(), answer.err) == (0, ARM.blobs[ARM.config], "")


def test_blob_goes_to_a_file_when_it_is_whole(
    cli: Cli, group: tuple[str, ...], tmp_path: Path
) -> None:
    target = tmp_path / "layer"
    target.write_text("what was here before")
    answer = cli("blob", *group, "--digest", ARM.layers[1], "-o", str(target), "--json")
    assert target.read_bytes() == ARM.blobs[ARM.layers[1]]
    assert answer.json == {
        "digest": ARM.layers[1],
        "size": len(ARM.blobs[ARM.layers[1]]),
        "member": 1,
    }


# copy


def test_copy_prints_the_digest_and_tells_how_it_went(
    cli: Cli, group: tuple[str, ...], tmp_path: Path
) -> None:
    answer = cli("copy", *group, "--to", f"oci:{tmp_path / 'out'}:app")
    assert (answer.code, answer.out) == (0, f"{TOP.digest}\n")
    assert answer.err.startswith("copied 3 manifests and 5 blobs (")
    assert {f"sha256:{path.name}" for path in tmp_path.glob("out/blobs/sha256/*")} == whole(TOP)
    for digest, data in TOP.blobs.items():
        assert blob_file(tmp_path / "out", digest).read_bytes() == data
    assert cli("manifest", f"oci:{tmp_path / 'out'}:app").out.encode() == TOP.raw


def test_copy_again_fetches_nothing(cli: Cli, group: tuple[str, ...], tmp_path: Path) -> None:
    arguments = ("copy", *group, "--to", f"oci:{tmp_path / 'out'}:app", "--json")
    first, second = cli(*arguments).json, cli(*arguments).json
    assert (first["blobs"], first["reused_blobs"]) == (5, 0)
    assert (second["blobs"], second["bytes"], second["reused_blobs"]) == (0, 0, 5)
    assert second["reused_bytes"] == first["bytes"]
    assert first["digest"] == TOP.digest
    assert first["destination"] == f"oci:{tmp_path / 'out'}:app"


def test_copy_to_a_directory(cli: Cli, group: tuple[str, ...], tmp_path: Path) -> None:
    assert cli("copy", *group, "--to", f"dir:{tmp_path / 'out'}").code == 0
    assert (tmp_path / "out" / "manifest.json").read_bytes() == TOP.raw
    assert cli("resolve", f"dir:{tmp_path / 'out'}", "--json").json["missing"] == []


def test_copy_of_a_system_makes_the_instance_the_top(
    cli: Cli, group: tuple[str, ...], tmp_path: Path
) -> None:
    to = f"oci:{tmp_path / 'out'}:app"
    answer = cli("copy", group[0], "--platform", "linux/amd64", "--to", to)
    assert answer.out == f"{AMD.digest}\n"
    [entry] = json.loads((tmp_path / "out" / "index.json").read_text())["manifests"]
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}


def test_copy_of_specific_instances_warns_that_the_list_is_sparse(
    cli: Cli, group: tuple[str, ...], tmp_path: Path
) -> None:
    to = f"oci:{tmp_path / 'out'}:app"
    answer = cli("copy", *group, "--instance", ARM.digest, "--to", to)
    assert answer.code == 0
    assert f"warning: the list {TOP.digest} is sparse" in answer.err
    assert (
        cli("manifest", to, "--instance", ARM.digest, "--missing", "skip").out.encode() == ARM.raw
    )


def test_copy_with_extras_lists_them(cli: Cli, group: tuple[str, ...], tmp_path: Path) -> None:
    to = f"oci:{tmp_path / 'out'}:app"
    assert cli("copy", *group, "--extras", "--to", to).code == 0
    assert cli("manifest", f"oci:{tmp_path / 'out'}:@1").out.encode() == RISCV.raw
    unnamed = cli("copy", *group, "--extras", "--to", f"oci:{tmp_path / 'sole'}")
    assert "warning: 1 extra image can be read by digest only" in unnamed.err
    assert cli("manifest", f"oci:{tmp_path / 'sole'}").out.encode() == TOP.raw


# What belongs to no command


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").out == f"asupplemented {__version__}\n"
    answer = cli("resolve", "--help-all")
    assert answer.code == 0
    for option in (
        *("--select", "--instance", "--platform", "--missing", "--unavailable", "--prefer"),
    ):
        assert option in answer.out
    assert "--tls-verify / --no-tls-verify" in answer.out


def test_text_of_strangers_cannot_steer_the_terminal(cli: Cli, tmp_path: Path) -> None:
    from asupplemented.testing.images import describe

    image = build_image("linux/amd64")
    entry = describe(image) | {"platform": {"os": "linux", "architecture": "\x1b[2Jamd\u202e64"}}
    reference = write_layout(tmp_path / "x", build_index([entry]))
    write_layout(tmp_path / "x", image, name="here")
    answer = cli("resolve", f"{reference}:@0")
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert "\u202e" not in answer.out
    assert "amd" in answer.out


SBOM = build_artifact("application/spdx+json", b"sbom", subject=TOP, annotations={"by": "us"})
PROOF = build_artifact("application/\x1b[31mred", b"proof", subject=TOP)
OF_AMD = build_artifact("application/spdx+json", b"of amd64", subject=AMD)
ABSENT = "sha256:" + "0" * 64


async def ask(*arguments: str) -> Answer:
    """A call in a thread, while the registry is served by this one."""
    return await asyncio.to_thread(call, *arguments, "--no-tls-verify")


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry(page_size=2) as opened:
        for tag in ("2", "latest", "1"):
            opened.add("team/app", TOP, tag=tag)
        for artifact in (SBOM, PROOF, OF_AMD):
            opened.add("team/app", artifact, tag=None)
        yield opened


# tags


async def test_tags_are_listed_one_on_a_line(registry: FakeRegistry) -> None:
    answer = await ask("tags", registry.reference("team/app", "whatever"))
    assert answer == (0, "1\n2\nlatest\n", "")
    assert registry.count("*/manifests/*") == 0


async def test_tags_as_json(registry: FakeRegistry) -> None:
    answer = await ask("tags", registry.reference("team/app"), "--json")
    assert (answer.code, answer.json) == (0, {"tags": ["1", "2", "latest"]})


async def test_tags_of_what_is_not_there(registry: FakeRegistry) -> None:
    answer = await ask("tags", registry.reference("team/absent"))
    assert (answer.code, answer.out) == (3, "")
    assert "team/absent" in answer.err


def test_tags_of_what_has_none(cli: Cli) -> None:
    answer = cli("tags", "dir:/x")
    assert (answer.code, answer.out) == (2, "")
    assert "only registries" in answer.err


async def test_who_is_logged_in_may_ask(tmp_path: Path) -> None:
    async with FakeRegistry(access=Basic({"ada": "secret"})) as registry:
        reference = registry.add("team/app", TOP)
        auths = {registry.host: {"auth": base64.b64encode(b"ada:secret").decode()}}
        file = tmp_path / "auth.json"
        file.write_text(json.dumps({"auths": auths}))
        assert (await ask("tags", reference)).code == 5
        assert (await ask("tags", reference, "--authfile", str(file))).out == "latest\n"


# digest


async def test_HTTP11_the_digest_of_a_tag_is_asked_for(registry: FakeRegistry) -> None:
    reference = registry.reference("team/app", "1")
    assert await ask("digest", reference) == (0, f"{TOP.digest}\n", "")
    assert (await ask("digest", reference, "--json")).json == {"digest": TOP.digest}
    methods = [request.method for request in registry.select_requests("*/manifests/*")]
    assert methods == ["HEAD", "HEAD"]


async def test_the_digest_of_what_is_not_there(registry: FakeRegistry) -> None:
    for tag in ("absent", ABSENT):
        answer = await ask("digest", registry.reference("team/app", tag))
        assert (answer.code, answer.out) == (3, "")
        assert tag in answer.err


def test_the_digest_of_a_layout_is_read(cli: Cli, tmp_path: Path) -> None:
    reference = write_layout(tmp_path / "layout", ARM)
    assert cli("digest", reference) == (0, f"{ARM.digest}\n", "")


# referrers


async def test_SIG07_what_refers_to_an_image(registry: FakeRegistry) -> None:
    answer = await ask("referrers", registry.reference("team/app"))
    assert (answer.code, answer.err) == (0, "")
    lines = dict(line.split("  ", 1) for line in answer.out.splitlines())
    assert set(lines) == {SBOM.digest, PROOF.digest}
    assert lines[SBOM.digest] == f"application/spdx+json  {len(SBOM.raw)} B"
    assert "\x1b" not in answer.out


async def test_SIG07_as_json(registry: FakeRegistry) -> None:
    kind = "application/spdx+json"
    found = (
        await ask("referrers", registry.reference("team/app"), "--artifact-type", kind, "--json")
    ).json
    assert found["subject"] == TOP.digest
    assert found["referrers"] == [
        {
            "mediaType": SBOM.media_type,
            "digest": SBOM.digest,
            "size": len(SBOM.raw),
            "annotations": {"by": "us"},
            "artifactType": kind,
        }
    ]


async def test_SIG07_of_another_manifest(registry: FakeRegistry) -> None:
    reference = registry.reference("team/app")
    answer = await ask("referrers", reference, "--digest", AMD.digest)
    assert answer.out.startswith(OF_AMD.digest)
    assert await ask("referrers", reference, "--digest", ABSENT) == (0, "", "")
    answer = await ask("referrers", reference, "--digest", "latest")
    assert (answer.code, answer.out) == (2, "")
    assert "--digest" in answer.err


def test_SIG07_where_nobody_knows(cli: Cli, tmp_path: Path) -> None:
    reference = write_layout(tmp_path / "layout", ARM)
    answer = cli("referrers", reference)
    assert (answer.code, answer.out) == (1, "")
    assert reference in answer.err


@pytest.mark.parametrize("command", ["tags", "digest", "referrers"])
def test_a_reference_that_is_none_is_wrong_usage(cli: Cli, command: str) -> None:
    for reference in ("docker:x", "nowhere", "docker://UPPER/case"):
        answer = cli(command, reference)
        assert (answer.code, answer.out) == (2, "")
        assert "REFERENCE" in answer.err


# endpoints


async def test_endpoints_are_the_servers_that_a_pull_reaches(tmp_path: Path) -> None:
    async with FakeRegistry() as storage, FakeRegistry() as registry:
        reference = registry.add("team/app", TOP)
        for digest, data in TOP.blobs.items():
            url = storage.put_file(f"/{digest}", data)
            registry.script(f"*/blobs/{digest}", Redirect(url), forever=True)
        local = write_layout(tmp_path / "local", AMD)
        answer = await ask("endpoints", reference, local)
        assert answer.code == 0, answer.err
        assert answer.out.split() == sorted([registry.url, storage.url])
        found = (await ask("endpoints", reference, "--json")).json["endpoints"]
        assert found == {url: [registry.host] for url in (registry.url, storage.url)}
        fetched = [request.header("Range") for request in storage.requests]
    assert set(fetched) == {"bytes=0-0"}
