"""docker:// references. The grammar of names is tested with the model."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import InvalidReferenceError
from asupplemented.model.name import ImageName
from asupplemented.transports import parse_reference
from asupplemented.transports.registry import RegistryReference
from tests.transports.registry.sessions import IMAGE, OPTIONS_HERE, fill, watch

if TYPE_CHECKING:
    from asupplemented.testing import FakeRegistry
    from tests.transports.registry.sessions import Watched

SHA512 = f"sha512:{'0' * 128}"


@pytest.mark.parametrize(
    ("rest", "text"),
    [
        ("//busybox", "docker://docker.io/library/busybox:latest"),
        ("//index.docker.io/a/b:1", "docker://docker.io/a/b:1"),
        ("//registry-1.docker.io/a", "docker://registry-1.docker.io/a:latest"),
        ("//localhost/foo", "docker://localhost/foo:latest"),
        ("//test:5000/repo", "docker://test:5000/repo:latest"),
        ("//Quay.io/x:T", "docker://Quay.io/x:T"),
        (f"//quay.io/x@{SHA512}", f"docker://quay.io/x@{SHA512}"),
        (f"//quay.io/x:t@{SHA512}", f"docker://quay.io/x:t@{SHA512}"),
    ],
)
def test_REF05_to_REF11_a_reference_is_completed_and_parses_back(rest: str, text: str) -> None:
    reference = RegistryReference.parse(rest)
    assert str(reference) == text
    assert reference.transport == "docker"
    assert parse_reference(text) == reference
    assert hash(parse_reference(text)) == hash(reference)


def test_equality_is_lexical() -> None:
    parse = RegistryReference.parse
    assert parse("//busybox") == parse("//docker.io/library/busybox:latest")
    assert parse("//quay.io/x") != parse("//Quay.io/x")
    assert parse("//quay.io/x") != parse("//quay.io:443/x")


@pytest.mark.parametrize("rest", ["busybox", "/busybox", "", ":", "docker.io/busybox"])
def test_REF03_two_slashes_come_first(rest: str) -> None:
    with pytest.raises(InvalidReferenceError, match="docker://"):
        RegistryReference.parse(rest)


@pytest.mark.parametrize(
    "rest",
    [
        "//",
        "///a",
        "//" + "a" * 64,
        "//Upper/case",
        "//a/b@sha256:00",
        "//a/b@@unknown-digest@@",
        "//a:b:c",
        "//a\n",
        "//é",
        "//user:password@host/a",
        "//a/../b",
        "//a/b?x=y",
        "//[::1]:5000/a",
    ],
)
def test_REF01_to_REF19_what_is_no_name_is_refused(rest: str) -> None:
    with pytest.raises(InvalidReferenceError):
        RegistryReference.parse(rest)


def test_REF12_an_IPv6_registry_has_to_be_allowed() -> None:
    reference = RegistryReference.parse("//[::1]:5000/a", allow_ipv6=True)
    assert str(reference) == "docker://[::1]:5000/a:latest"


@pytest.mark.parametrize("port", ["0", "65536", "99999", "9" * 200])
def test_a_port_that_does_not_exist_is_refused(port: str) -> None:
    with pytest.raises(InvalidReferenceError, match="port"):
        RegistryReference.parse(f"//host:{port}/a")
    with pytest.raises(InvalidReferenceError, match="port"):
        RegistryReference(ImageName(f"host:{port}", "a", "latest"))


@pytest.mark.parametrize("port", ["1", "65535", "00080"])
def test_a_port_that_exists_is_not(port: str) -> None:
    assert RegistryReference.parse(f"//host:{port}/a").name.registry == f"host:{port}"


async def test_REF11_the_digest_wins_over_the_tag(registry: FakeRegistry, watched: Watched) -> None:
    fill(registry)
    registry.repository("team/app").tags["latest"] = "sha256:" + "0" * 64
    reference = f"{registry.reference('team/app')}@{IMAGE.digest}"
    async with await watched.open(reference) as source:
        assert (await source.get_manifest()).digest == IMAGE.digest
        assert str(source.reference) == reference
    assert registry.count("latest") == 0


async def test_REF11_both_may_be_refused(registry: FakeRegistry) -> None:
    options = replace(OPTIONS_HERE, tag_and_digest="refuse")
    async with watch(options=options) as watched:
        reference = f"{registry.reference('team/app')}@{IMAGE.digest}"
        with pytest.raises(InvalidReferenceError, match="both a tag and a digest") as caught:
            await watched.open(reference)
        assert caught.value.reference == reference
    assert registry.requests == []


async def test_REF16_a_digest_is_verified_by_its_own_algorithm(
    registry: FakeRegistry, watched: Watched
) -> None:
    from asupplemented.errors import DigestMismatchError
    from asupplemented.model.digest import Digest

    fill(registry)
    right = Digest.of(IMAGE.raw, "sha512")
    registry.put_manifest("team/app", IMAGE.raw, IMAGE.media_type, digest=right)
    registry.put_manifest("team/app", IMAGE.raw, IMAGE.media_type, digest=SHA512)
    async with await watched.open(registry.reference("team/app", right)) as source:
        assert (await source.get_manifest()).digest == right
    with pytest.raises(DigestMismatchError):
        await watched.open(registry.reference("team/app", SHA512))


@given(st.text(max_size=80))
def test_SEC03_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = RegistryReference.parse(text)
    except InvalidReferenceError:
        return
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text", ["a" * 1_000_000, "a-" * 500_000, "a/" * 500_000, "a:" * 500_000, "@" * 1_000_000]
)
def test_SEC08_a_mebibyte_of_hostile_text_takes_no_time(text: str) -> None:
    start = time.process_time()
    with pytest.raises(InvalidReferenceError):
        RegistryReference.parse(f"//{text}")
    assert time.process_time() - start < 0.1
