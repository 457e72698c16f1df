from __future__ import annotations

import importlib
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import InvalidReferenceError, UnknownTransportError
from asupplemented.transports import MAX_REFERENCE, TRANSPORTS, parse_reference
from asupplemented.transports.directory import DirectoryReference
from asupplemented.transports.memory import MemoryReference
from asupplemented.transports.oci import LayoutReference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oci:/srv/app", LayoutReference("/srv/app")),
        ("oci:/srv/app:1.4", LayoutReference("/srv/app", "1.4")),
        ("oci:/srv/app:@2", LayoutReference("/srv/app", index=2)),
        ("oci:relative", LayoutReference("relative")),
        ("dir:/srv/app", DirectoryReference("/srv/app")),
        ("dir:a:b", DirectoryReference("a:b")),
    ],
)
def test_text_becomes_a_reference_and_back(text: str, expected: object) -> None:
    reference = parse_reference(text)
    assert reference == expected
    assert hash(reference) == hash(expected)
    assert str(reference) == text


def test_REF03_the_registry_gets_its_slashes() -> None:
    reference = parse_reference("docker://registry.example/team/app:1.4")
    assert reference.transport == "docker"
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(("scheme", "path"), TRANSPORTS.items())
def test_every_transport_of_the_table_exists_and_knows_its_scheme(scheme: str, path: str) -> None:
    module, _, name = path.partition(":")
    kind = getattr(importlib.import_module(module), name)
    rest = "//localhost/x" if scheme == "docker" else "/x"
    assert kind.parse(rest).transport == scheme


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSPORTS["mine"] = "elsewhere:Reference"  # type: ignore[index]


def test_a_module_is_loaded_by_the_first_reference_that_needs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "asupplemented.transports.directory")
    parse_reference("oci:/x")
    assert "asupplemented.transports.directory" not in sys.modules
    parse_reference("dir:/x")
    assert "asupplemented.transports.directory" in sys.modules


@pytest.mark.parametrize(
    "scheme",
    ["containers-storage", "docker-archive", "docker-daemon", "oci-archive", "sif", "tarball"],
)
def test_a_transport_of_other_tools_is_known_by_name(scheme: str) -> None:
    with pytest.raises(UnknownTransportError, match=f"{scheme}: is not supported yet.*dir:.*oci:"):
        parse_reference(f"{scheme}:/x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ftp:x", "unknown transport 'ftp'.*known are dir:, docker:, oci:"),
        ("OCI:/x", "unknown transport 'OCI'"),
        ("https://quay.io/a/b", r"did you mean docker://quay\.io/a/b\?"),
        ("busybox:1.36", r"docker://busybox:1\.36"),
        ("localhost:5000/x", "docker://localhost:5000/x"),
        ("memory:app", "unknown transport 'memory'"),
    ],
)
def test_an_unknown_transport_names_the_known_ones(text: str, words: str) -> None:
    with pytest.raises(UnknownTransportError, match=words):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty reference"),
        ("busybox", r"did you mean docker://busybox\?"),
        ("quay.io/a/b:1", r"did you mean docker://quay\.io/a/b:1\?"),
        ("/srv/app", r"did you mean oci:/srv/app or dir:/srv/app\?"),
        ("./app:1", r"oci:\./app:1"),
        (":x", "without a transport"),
        ("busybox@sha256:" + "0" * 64, r"docker://busybox@sha256:0{64}\?"),
    ],
)
def test_text_without_a_transport_gets_a_remedy(text: str, words: str) -> None:
    with pytest.raises(InvalidReferenceError, match=words) as caught:
        parse_reference(text)
    assert not isinstance(caught.value, UnknownTransportError)


@pytest.mark.parametrize(
    "text",
    [
        "https://user:s3cret@host/x",
        "user:s3cret@host/x",
        "user:s3cret@host/x@sha256:" + "0" * 64,
        "https://user:s3/cret@host/x",
        "u:" + "p" * 500 + "s3cret@host/x",
    ],
)
def test_a_password_does_not_get_into_the_message(text: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference(text)
    assert "cret" not in str(caught.value)
    assert "host/x" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("oci:/x:a b", "oci:/x:a b"),
        ("oci:/x:@y", "oci:/x:@y"),
        ("dir:", "dir:"),
        ("docker://Host/X", "docker://Host/X"),
        ("docker://u:s3cret@host/X", "docker://host/X"),
    ],
)
def test_a_malformed_reference_is_named(text: str, shown: str) -> None:
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference(text)
    assert caught.value.reference is not None
    assert shown.partition("//")[2] in caught.value.reference
    assert "cret" not in str(caught.value)


def test_text_of_any_length_is_refused_at_once_past_the_cap() -> None:
    longest = "dir:" + "x" * (MAX_REFERENCE - 4)
    assert str(parse_reference(longest)) == longest
    with pytest.raises(InvalidReferenceError, match=f"at most {MAX_REFERENCE}") as caught:
        parse_reference(longest + "x")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text", ["dir:a\0b", "oci:a\0b", "dir:\ud800", "oci:\ud800", "dir:", "oci:"]
)
def test_what_can_be_no_path_is_no_reference(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        parse_reference(text)


@given(st.text(max_size=300))
def test_any_text_is_a_reference_that_round_trips_or_a_short_error(text: str) -> None:
    try:
        reference = parse_reference(text)
    except InvalidReferenceError as error:
        failure = str(error)
    else:
        failure = ""
        assert parse_reference(str(reference)) == reference
    assert len(failure) < 1000
    assert failure.isprintable()


@given(
    st.sampled_from(["oci:", "dir:"]),
    st.text(st.sampled_from("ab/.:@+-_01A "), min_size=1, max_size=30),
)
def test_paths_and_images_round_trip(scheme: str, rest: str) -> None:
    try:
        reference = parse_reference(scheme + rest)
    except InvalidReferenceError:
        return
    assert parse_reference(str(reference)) == reference


def test_memory_references_are_equal_only_to_themselves() -> None:
    one, other = MemoryReference("app"), MemoryReference("app")
    assert one == one  # noqa: PLR0124 - that is the question
    assert one != other
    assert len({one, other, one}) == 2
    assert str(one) == "memory:app"
