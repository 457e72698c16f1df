"""What registries and other places are asked, without reading an image."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import pytest

from asupplemented.testing import Basic, FakeRegistry, build_artifact, write_layout
from tests.cli.conftest import AMD, ARM, TOP, call

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.cli.conftest import Answer, Cli

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
        assert (await ask("tags", reference)).code == 1
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
