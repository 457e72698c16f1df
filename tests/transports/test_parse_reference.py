from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented import transports
from asupplemented.errors import ConfigurationError, InvalidReferenceError, UnknownTransportError
from asupplemented.session import Session
from asupplemented.supplemented import supplement
from asupplemented.testing import build_image
from asupplemented.testing.sources import hold_in_memory
from asupplemented.transports import (
    MAX_REFERENCE,
    TRANSPORTS,
    is_transport,
    parse_reference,
    register_transport,
)
from asupplemented.transports.directory import DirectoryReference
from asupplemented.transports.memory import MemoryReference
from asupplemented.transports.oci import LayoutReference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asupplemented.abc import Context, Opening, Source


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


# Transports of others


@dataclass(frozen=True)
class Note:
    """A reference of a transport that the library does not know."""

    rest: str

    transport = "note"

    @classmethod
    def parse(cls, rest: str) -> Note:
        if not rest:
            message = "a note without a name"
            raise InvalidReferenceError(message)
        return cls(rest)

    def open(self, session: Context, /) -> Opening[Source]:
        return hold_in_memory(self.rest, build_image("linux/amd64", [self.rest.encode()])).open(
            session
        )

    def __str__(self) -> str:
        return f"note:{self.rest}"


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers ends with it."""
    monkeypatch.setattr(transports, "_registered", {})


@pytest.mark.usefixtures("registered")
async def test_a_registered_transport_is_read_like_any_other() -> None:
    register_transport("note", Note.parse)
    register_transport("note", Note.parse)
    assert parse_reference("note:a:b") == Note("a:b")
    with pytest.raises(InvalidReferenceError, match="without a name") as caught:
        parse_reference("note:")
    assert caught.value.reference == "note:"
    async with Session() as session, supplement("note:a", "note:b").open(session) as image:
        assert image.resolution.members == ("note:a", "note:b")
    with pytest.raises(UnknownTransportError, match="known are dir:, docker:, oci:, note:"):
        parse_reference("ftp:x")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        ("oci", "oci: is built in"),
        ("docker", "docker: is built in"),
        ("", "'' is no scheme"),
        ("a:b", "'a:b' is no scheme"),
        ("1st", "'1st' is no scheme"),
    ],
)
def test_a_scheme_that_cannot_be_registered(scheme: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        register_transport(scheme, Note.parse)


@pytest.mark.usefixtures("registered")
def test_a_registered_scheme_stays_what_it_is() -> None:
    register_transport("note", Note.parse)
    with pytest.raises(ConfigurationError, match="another factory's already"):
        register_transport("note", Note)
    assert parse_reference("note:a") == Note("a")


@pytest.mark.usefixtures("registered")
def test_a_transport_of_other_tools_can_be_registered() -> None:
    assert is_transport("tarball")
    register_transport("tarball", Note.parse)
    assert parse_reference("tarball:a") == Note("a")


class Distributions:
    """Installs distributions of one module each, with their metadata, in a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def install(self, name: str, module: str, *entries: str) -> None:
        (self.path / f"{name}_transport.py").write_text(module)
        info = self.path / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        lines = ["[asupplemented.transports]", *entries]
        (info / "entry_points.txt").write_text("\n".join(lines))
        importlib.invalidate_caches()


@pytest.fixture
def installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registered: None
) -> Iterator[Distributions]:
    """A directory of distributions that ends with the test."""
    monkeypatch.syspath_prepend(tmp_path)
    yield Distributions(tmp_path)
    for module in tmp_path.glob("*.py"):
        sys.modules.pop(module.stem, None)


MODULE = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Letter:
    rest: str
    transport = "letter"
"""


def test_a_transport_of_an_installed_package_is_found(installed: Distributions) -> None:
    assert not is_transport("letter")
    installed.install("post", MODULE, "letter = post_transport:Letter")
    assert is_transport("letter")
    assert "post_transport" not in sys.modules, "knowing a scheme loads nothing"
    reference = parse_reference("letter:a")
    assert (reference.transport, reference.rest) == ("letter", "a")  # type: ignore[attr-defined]
    assert parse_reference("letter:a") == reference


def test_built_in_and_registered_transports_precede_installed_ones(
    installed: Distributions,
) -> None:
    entries = ("oci = post_transport:Letter", "note = post_transport:Letter")
    installed.install("post", MODULE, *entries)
    register_transport("note", Note.parse)
    assert parse_reference("oci:/x") == LayoutReference("/x")
    assert parse_reference("note:x") == Note("x")
    assert "post_transport" not in sys.modules


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("import not_installed_either", "No module named 'not_installed_either'"),
        ("1 / 0", "ZeroDivisionError"),
        ("", "has no attribute 'Letter'"),
        ("Letter = 'a text'", "is no function that makes a reference, but a str"),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named(
    module: str, words: str, installed: Distributions
) -> None:
    installed.install("post", module, "letter = post_transport:Letter")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=words) as caught:
            parse_reference("letter:a")
        assert "letter: of post 1.2 (post_transport:Letter)" in str(caught.value)


def test_two_packages_with_one_scheme_are_named(installed: Distributions) -> None:
    for name in ("post", "mail"):
        installed.install(name, MODULE, f"letter = {name}_transport:Letter")
    with pytest.raises(ConfigurationError, match="several packages offer") as caught:
        parse_reference("letter:a")
    assert "post 1.2" in str(caught.value)
    assert "mail 1.2" in str(caught.value)
    register_transport("letter", Note.parse)
    assert parse_reference("letter:a") == Note("a")


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
