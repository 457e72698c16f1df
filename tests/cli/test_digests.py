"""Abbreviated digests, and questions about one thing that ask for one thing."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from asupplemented.model.digest import Digest
from asupplemented.testing import FakeRegistry, write_layout
from asupplemented.testing.images import build_index, describe
from tests.cli.conftest import AMD, ARM, RISCV, TOP, called
from tests.cli.test_program import PROGRAM
from tests.modules import ROOT
from tests.terminals import read_terminal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.cli.conftest import Cli, Places


def test_what_resolve_prints_is_taken_by_other_commands(cli: Cli, group: tuple[str, ...]) -> None:
    shown = re.findall(r"sha256:[0-9a-f]+", cli("resolve", *group).out)
    assert {len(text) for text in shown} == {len("sha256:") + 12}
    whole = re.findall(r"sha256:[0-9a-f]+", cli("resolve", *group, "--full").out)
    assert [text[:19] for text in whole] == shown
    for text, digest in zip(shown, whole, strict=True):
        explained = cli("explain", *group, "--digest", text)
        assert (explained.code, digest in explained.out) == (0, True), explained.err
        if digest in {TOP.digest, AMD.digest, ARM.digest}:
            printed = cli("manifest", *group, "--instance", text)
            assert Digest.of(printed.out.encode()) == digest
        if digest in ARM.blobs:
            out = cli("blob", *group, "--digest", text.removeprefix("sha256:"), "--output", "-")
            assert out.code == 0


def test_an_instance_of_one_reference_can_be_abbreviated(cli: Cli, tmp_path: Path) -> None:
    nested = build_index([ARM])
    place = write_layout(tmp_path / "x", build_index([AMD, nested]), name="x")
    for image in (AMD, ARM, nested):
        answer = cli("manifest", place, "--instance", image.digest[7:15])
        assert answer.out.encode() == image.raw, answer.err
    assert cli("inspect", place, "--instance", ARM.digest[:15]).json["Architecture"] == "arm64"


def test_an_abbreviation_that_is_ambiguous_or_unknown(cli: Cli, tmp_path: Path) -> None:
    alike = [f"sha256:abcd{number:060x}" for number in range(12)]
    entries = [{**describe(AMD), "digest": each} for each in alike]
    place = write_layout(tmp_path / "x", build_index(entries), name="x", include=set[str]())
    answer = cli("manifest", place, "--instance", "sha256:abcd")
    message = " ".join(answer.err.split())
    assert answer.code == 2
    assert f"abcd is ambiguous: it can mean {alike[0]}" in message
    assert message.count("sha256:abcd0") == 10
    assert "and 2 more" in message
    unknown = cli("manifest", place, "--instance", "sha256:dcba")
    assert (unknown.code, "no digest of this image begins with" in unknown.err) == (3, True)


@pytest.mark.parametrize("text", ["abc", "ABCDEF", "sha256:" + "0" * 65, "md5:abcdef", "latest"])
def test_what_is_no_abbreviation_is_wrong_usage(cli: Cli, text: str) -> None:
    for command, option in (("explain", "--digest"), ("manifest", "--instance")):
        answer = cli(command, "oci:/nowhere", option, text)
        assert (answer.code, option in answer.err) == (2, True)


SELECTING = {
    "resolve": ("--json",),
    "explain": ("--digest", ARM.config[:19]),
    "blob": ("--digest", ARM.config[:19]),
    "copy": ("--to", "oci:{path}/copy"),
    "prefetch": ("--cache", "{path}/cache"),
    "endpoints": (),
    "manifest": (),
    "inspect": (),
}


@pytest.mark.parametrize("command", SELECTING)
def test_instances_that_are_selected_can_be_abbreviated(
    command: str, cli: Cli, group: tuple[str, ...], tmp_path: Path
) -> None:
    options = [each.format(path=tmp_path) for each in SELECTING[command]]
    whole, short = (
        cli(command, *group, *options, "--instance", digest)
        for digest in (ARM.digest, ARM.digest[7:19])
    )
    assert (whole.code, short.out) == (0, whole.out)
    if command == "resolve":
        assert ARM.digest in short.json["sources"]
        assert AMD.digest not in short.json["sources"]
        unknown = cli(command, *group, "--instance", "00000000")
        assert (unknown.code, "no digest of this image begins with" in unknown.err) == (3, True)


def test_a_supplement_that_is_skipped_does_not_matter_to_abbreviations(
    cli: Cli, places: Places
) -> None:
    absent = f"oci:{places.directory / 'absent'}"
    for options, code in (((), 3), (("--unavailable", "skip"), 0)):
        given = (places.top, absent, "--instance", AMD.digest[:19], *options)
        assert cli("resolve", *given).code == code


# One thing is asked for


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        registry.add("team/app", build_index([AMD, ARM, RISCV]), tag="1")
        registry.add("team/app", AMD, tag="2")
        yield registry


ASKED = {
    "manifest": ("--platform", "linux/arm64"),
    "digest": ("--platform", "linux/arm64"),
    "inspect": ("--platform", "linux/arm64", "--no-tags"),
}


async def test_one_image_costs_its_index_and_itself(registry: FakeRegistry) -> None:
    reference = registry.reference("team/app", "1")
    asked: dict[str, list[str]] = {}
    printed: dict[str, str] = {}
    for command, options in ASKED.items():
        before = len(registry.requests)
        answer = await called(command, reference, *options, "--no-tls-verify")
        assert answer.code == 0, answer.err
        paths = [request.path for request in registry.requests[before:]]
        asked[command] = [path.rpartition("/")[2] for path in paths if path != "/v2/"]
        printed[command] = answer.out
    assert asked == {
        "manifest": ["1", ARM.digest],
        "digest": ["1"],
        "inspect": ["1", ARM.digest, ARM.config],
    }
    assert printed["manifest"].encode() == ARM.raw
    assert printed["digest"] == f"{ARM.digest}\n"


async def test_I01_inspect_names_the_repository_and_its_tags(registry: FakeRegistry) -> None:
    answer = await called("inspect", registry.reference("team/app", "2"), "--no-tls-verify")
    assert list(answer.json)[:3] == ["Name", "Digest", "RepoTags"]
    assert answer.json["Name"] == f"{registry.host}/team/app"
    assert answer.json["Digest"] == AMD.digest
    assert answer.json["RepoTags"] == ["1", "2"]


def test_the_platform_of_a_group_and_of_a_layout(
    cli: Cli, group: tuple[str, ...], tmp_path: Path
) -> None:
    assert cli("manifest", *group, "--platform", "linux/arm64").out.encode() == ARM.raw
    place = write_layout(tmp_path / "x", TOP, name="x")
    assert cli("digest", place, "--platform", "linux/arm64").out == f"{ARM.digest}\n"
    absent = cli("digest", place, "--platform", "linux/s390x")
    assert (absent.code, "there is linux/amd64" in absent.err) == (3, True)


# What a terminal is spared


def test_a_blob_that_is_no_text_is_not_written_to_a_terminal(group: tuple[str, ...]) -> None:
    def on_terminal(*arguments: str) -> tuple[int, bytes, bytes]:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*PROGRAM, "blob", *group, *arguments],
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm"},
            stdout=theirs,
            stderr=subprocess.PIPE,
        ) as program:
            os.close(theirs)
            drawn = b"".join(read_terminal(ours))
            _, err = program.communicate()
        return program.returncode, drawn, err

    code, drawn, err = on_terminal("--digest", ARM.layers[1])
    assert (code, drawn) == (2, b"")
    assert b"--output" in err
    assert on_terminal("--digest", ARM.config)[:2] == (0, ARM.blobs[ARM.config])
    code, drawn, _ = on_terminal("--digest", ARM.layers[1], "--output", "-")
    assert (code, drawn != b"") == (0, True)
