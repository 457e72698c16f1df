"""Rules REF-01 to REF-19, SEC-08: names of images in registries."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import InvalidDigestError, InvalidReferenceError
from asupplemented.model.digest import Digest
from asupplemented.model.name import ImageName

HEX = "0123456789abcdef" * 4
DIGEST = Digest(f"sha256:{HEX}")


@pytest.mark.parametrize(
    ("text", "full"),
    [
        pytest.param("busybox", "docker.io/library/busybox:latest", id="REF-07 REF-10 short"),
        pytest.param("docker.io/busybox", "docker.io/library/busybox:latest", id="REF-07"),
        pytest.param("index.docker.io/busybox", "docker.io/library/busybox:latest", id="REF-06"),
        pytest.param("index.docker.io/a/b:1", "docker.io/a/b:1", id="REF-06 path"),
        pytest.param("registry-1.docker.io/a/b:1", "registry-1.docker.io/a/b:1", id="REF-06 stays"),
        pytest.param("docker.io/a/b", "docker.io/a/b:latest", id="REF-07 two components"),
        pytest.param("a/b", "docker.io/a/b:latest", id="REF-05 no domain"),
        pytest.param("a.b/c", "a.b/c:latest", id="REF-05 dot"),
        pytest.param("localhost/foo", "localhost/foo:latest", id="REF-08 localhost"),
        pytest.param("test:5000/repo", "test:5000/repo:latest", id="REF-08 port"),
        pytest.param("test.com:5000", "docker.io/library/test.com:5000", id="REF-08 a tag"),
        pytest.param("Quay.io/x", "Quay.io/x:latest", id="REF-09 domains keep their case"),
        pytest.param("x:LATEST", "docker.io/library/x:LATEST", id="REF-09 tags keep their case"),
        pytest.param(f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}", id="REF-10 digest only"),
        pytest.param(f"x:1@{DIGEST}", f"docker.io/library/x:1@{DIGEST}", id="REF-11 both"),
        pytest.param("a---b", "docker.io/library/a---b:latest", id="REF-14 dashes"),
        pytest.param("a__b/c.d_e", "docker.io/a__b/c.d_e:latest", id="REF-14 separators"),
        pytest.param("x:" + "a" * 128, "docker.io/library/x:" + "a" * 128, id="REF-14 tag 128"),
        pytest.param("x:_1.a-", "docker.io/library/x:_1.a-", id="REF-14 odd tag"),
        pytest.param("a" * 63, f"docker.io/library/{'a' * 63}:latest", id="REF-04 63 digits"),
        pytest.param("a" * 65, f"docker.io/library/{'a' * 65}:latest", id="REF-04 65 digits"),
        pytest.param(HEX + ":1", f"docker.io/library/{HEX}:1", id="REF-04 not bare"),
        pytest.param("docker.io/library", "docker.io/library/library:latest", id="REF-07 library"),
    ],
)
def test_a_name_is_completed(text: str, full: str) -> None:
    name = ImageName.parse(text)
    assert str(name) == full
    assert ImageName.parse(str(name)) == name
    assert ImageName.parse(name.familiar) == name


@pytest.mark.parametrize(
    "text",
    [
        *("", ":tag", f"@{DIGEST}", "a//b", "a/", "/a", "-a", "a-", "a..b", "a___b"),
        *("repo:", "aa/a$$^/aa", "repo:.x", "repo:-x", "repo:" + "a" * 129, "a:b:c", "a.b/"),
        *("a b", "a/b c:1", "a.b:port/x", "a_b.c/x", "-a.b/x", "x@", "x@sha256", "x@y@z"),
    ],
)
def test_REF14_what_breaks_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError, match="invalid reference format"):
        ImageName.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(HEX, "image ID", id="REF-04"),
        pytest.param("LOCALHOST/foo", "must be lowercase", id="REF-08"),
        pytest.param("a.b/Foo", "must be lowercase", id="REF-09 path"),
        pytest.param("Foo", "must be lowercase", id="REF-09 short"),
        pytest.param("busybox@@unknown-digest@@", "unknown digest", id="REF-19"),
        pytest.param("x:1@@unknown-digest@@", "unknown digest", id="REF-19 with a tag"),
        pytest.param("x:latest\n", "invalid reference format", id="REF-02 newline"),
        pytest.param("x\n", "invalid reference format", id="REF-02 newline in the path"),
        pytest.param("x:é", "invalid reference format", id="REF-02 letters beyond ASCII"),
        pytest.param("é", "invalid reference format", id="REF-02 path beyond ASCII"),
        pytest.param("é.b/x", "invalid reference format", id="REF-02 domain beyond ASCII"),
        pytest.param("a.b:٣/x", "invalid reference format", id="REF-02 digits beyond ASCII"),
        pytest.param("x@sha256:" + "a" * 34, "invalid checksum digest length", id="REF-15 length"),
        pytest.param("x@sha256:" + "A" * 64, "invalid checksum digest format", id="REF-15 case"),
        pytest.param("x@sha256:" + "a" * 31, "invalid reference format", id="REF-15 too short"),
        pytest.param("x@md5:" + "a" * 32, "unsupported digest algorithm", id="REF-15 algorithm"),
        pytest.param("x@sha256:../../" + "a" * 64, "invalid reference format", id="SEC-03 path"),
        pytest.param("[::1]:5000/x", "IPv6", id="REF-12 parity"),
    ],
)
def test_the_message_names_the_fault(text: str, words: str) -> None:
    with pytest.raises(InvalidReferenceError, match=words) as caught:
        ImageName.parse(text)
    assert caught.value.reference is not None


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_REF16_digests_of_every_known_algorithm_are_kept(algorithm: str) -> None:
    digest = Digest.of(b"x", algorithm)
    assert ImageName.parse(f"a.b/c@{digest}").digest == digest


def test_REF12_ipv6_registries_are_an_extension() -> None:
    name = ImageName.parse("[::1]:5000/x", allow_ipv6=True)
    assert (name.registry, name.path, name.tag) == ("[::1]:5000", "x", "latest")
    assert ImageName.parse(str(name), allow_ipv6=True) == name
    assert name.namespaces() == ("[::1]:5000/x", "[::1]:5000")
    for text in ("[::g]/x", "[::1/x", "[]:1/x", "[::1%eth0]/x", "[1::2::3]/x", "[::1]a/x"):
        with pytest.raises(InvalidReferenceError):
            ImageName.parse(text, allow_ipv6=True)


def test_REF13_the_name_has_255_characters_at_most() -> None:
    longest = "a.b/" + "c" * 251
    assert ImageName.parse(f"{longest}:{'t' * 128}@{DIGEST}").repository == longest
    with pytest.raises(InvalidReferenceError, match="not be more than 255 characters"):
        ImageName.parse(longest + "c")
    completed = "c" * (255 - len("docker.io/library/"))
    assert ImageName.parse(completed).path == f"library/{completed}"
    with pytest.raises(InvalidReferenceError, match="not be more than 255 characters"):
        ImageName.parse(completed + "c")


@pytest.mark.parametrize(
    ("text", "familiar"),
    [
        ("docker.io/library/busybox:1", "busybox:1"),
        ("docker.io/a/b", "a/b:latest"),
        ("docker.io/library/a/b", "library/a/b:latest"),
        ("a.b/library/c", "a.b/library/c:latest"),
        ("docker.io/library/library", "library:latest"),
        ("docker.io/a.b/c", "docker.io/a.b/c:latest"),
        ("docker.io/localhost/c", "docker.io/localhost/c:latest"),
    ],
)
def test_REF17_the_familiar_form(text: str, familiar: str) -> None:
    assert ImageName.parse(text).familiar == familiar
    assert ImageName.parse(familiar) == ImageName.parse(text)


component = st.from_regex(r"[a-z0-9]{1,3}([._-][a-z0-9]{1,3})?", fullmatch=True)
paths = st.lists(component, min_size=1, max_size=3).map("/".join)
registries = st.sampled_from(
    ["docker.io", "index.docker.io", "localhost", "a.b", "h:5000", "A.B:1"]
)
tags = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,5}", fullmatch=True)


@given(registries, paths, tags, st.sampled_from([None, DIGEST]))
def test_REF17_every_name_survives_both_its_forms(
    registry: str, path: str, tag: str | None, digest: Digest | None
) -> None:
    text = f"{registry}/{path}" + (f":{tag}" if tag else "") + (f"@{digest}" if digest else "")
    name = ImageName.parse(text)
    assert ImageName.parse(name.familiar) == name
    assert ImageName.parse(str(name)) == name


def test_REF18_namespaces_from_the_narrowest_on() -> None:
    assert ImageName.parse("h.example.com:8443/a/b:t").namespaces() == (
        "h.example.com:8443/a/b",
        "h.example.com:8443/a",
        "h.example.com:8443",
        "*.example.com",
        "*.com",
    )
    assert ImageName.parse("localhost/x").namespaces() == ("localhost/x", "localhost")


def test_copies_with_another_tag_or_digest() -> None:
    name = ImageName.parse("a.b/c:1")
    assert str(name.with_tag("2")) == "a.b/c:2"
    assert str(name.with_digest(str(DIGEST))) == f"a.b/c:1@{DIGEST}"
    assert str(name.with_tag(None).with_digest(DIGEST)) == f"a.b/c@{DIGEST}"
    assert name.with_digest(DIGEST).with_digest(None) == name
    with pytest.raises(InvalidReferenceError):
        name.with_tag("no tag")
    with pytest.raises(InvalidDigestError):
        name.with_digest("sha256:../x")


@pytest.mark.parametrize(
    ("registry", "path", "tag"),
    [("a b", "c", None), ("a.b", "C", None), ("a.b", "c/../d", None), ("a.b", "c", "x\n")],
)
def test_SEC09_no_part_escapes_the_grammar(registry: str, path: str, tag: str | None) -> None:
    with pytest.raises(InvalidReferenceError):
        ImageName(registry, path, tag)


MIB = 1024 * 1024
HOSTILE = {
    "REF-01 letters": "a" * 5000 + "!",
    "REF-01 dashes": "a" + "-a" * 5000 + "!",
    "SEC-08 letters": "a" * MIB + "!",
    "SEC-08 dashes": "a-" * MIB,
    "SEC-08 dots": "a.b" + ".a" * MIB + "!/x",
    "SEC-08 underscores": "a/" + "a_" * MIB,
    "SEC-08 slashes": "a/" * MIB,
    "SEC-08 tag": "a:" + "t" * MIB,
    "SEC-08 digest": "a@" + "a.a" * MIB + ":" + "0" * MIB,
    "SEC-08 brackets": "[" + ":" * MIB + "]/x",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_SEC08_hostile_text_is_refused_at_once_and_not_repeated(text: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidReferenceError) as caught:
        ImageName.parse(text, allow_ipv6=True)
    assert time.process_time() - began < 0.1
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("registry", "path"),
    [
        ("a-" * MIB, "x"),
        ("a" * MIB + "!", "x"),
        ("a.b", "a" + "-a" * MIB + "!"),
        ("a.b", "a" + "_" * MIB + "!"),
        ("a.b", "a__" * MIB),
    ],
    ids=["REF-01 dashes", "REF-01 letters", "REF-01 path", "REF-01 underscores", "REF-01 pairs"],
)
def test_REF01_the_grammar_is_linear(registry: str, path: str) -> None:
    began = time.process_time()
    with pytest.raises(InvalidReferenceError):
        ImageName(registry, path)
    assert time.process_time() - began < 1
