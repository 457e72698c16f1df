"""Rules D-01 to D-05, SEC-03: what is a digest, and what never becomes one."""

from __future__ import annotations

import copy
import hashlib
import pickle
import re
import timeit
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import InvalidDigestError, UnsupportedDigestError
from asupplemented.model.digest import ALGORITHMS, Digest, check_digests

if TYPE_CHECKING:
    from collections.abc import Callable

HEX = {name: "0123456789abcdef" * (length // 16) for name, length in ALGORITHMS.items()}


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda name: f"D-02 {name}")
def test_D02_the_three_known_algorithms(algorithm: str) -> None:
    digest = Digest(f"{algorithm}:{HEX[algorithm]}")
    assert (digest.algorithm, digest.encoded) == (algorithm, HEX[algorithm])
    assert digest == f"{algorithm}:{HEX[algorithm]}"
    assert Digest.parse(digest) == digest
    assert hash(digest) == hash(str(digest))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("", "invalid digest format", id="D-01 empty"),
        pytest.param(":", "invalid digest format", id="D-01 colon"),
        pytest.param("sha256:", "invalid digest format", id="D-01 nothing encoded"),
        pytest.param(":" + HEX["sha256"], "invalid digest format", id="D-01 no algorithm"),
        pytest.param(HEX["sha256"], "invalid digest format", id="D-01 no colon"),
        pytest.param("sha256:" + "a" * 63, "length", id="D-02 short"),
        pytest.param("sha256:" + "a" * 65, "length", id="D-02 long"),
        pytest.param("sha512:" + "a" * 64, "length", id="D-02 length of another"),
        pytest.param("sha256:" + "A" * 64, "checksum digest format", id="D-02 uppercase"),
        pytest.param("sha256:" + "g" * 64, "checksum digest format", id="D-02 not hex"),
        pytest.param("sha256:" + "\u0660" * 64, "checksum digest format", id="D-02 foreign digits"),
        pytest.param(
            "sha256:a:" + "a" * 62, "checksum digest format", id="D-01 first colon splits"
        ),
        pytest.param("SHA256:" + "a" * 64, "invalid digest format", id="D-03 uppercase algorithm"),
        pytest.param("md 5:abc", "invalid digest format", id="D-03 space"),
        pytest.param("md5:ab/c", "invalid digest format", id="D-03 slash"),
        pytest.param("sha256:../../etc/passwd", "length", id="D-04 SEC-03 path"),
        pytest.param("sha256:" + "../" * 21 + "a", "checksum digest format", id="D-04 path of 64"),
        pytest.param("sha256:%2f" + "a" * 61, "checksum digest format", id="SEC-03 quoted slash"),
        pytest.param("sha256:" + "a" * 63 + "\0", "checksum digest format", id="SEC-03 NUL"),
        pytest.param("sha256:" + "a" * 64 + "\n", "length", id="D-05 newline at the end"),
        pytest.param(
            "sha256:" + "a" * 63 + "\n", "checksum digest format", id="D-05 newline within"
        ),
        pytest.param("\nsha256:" + "a" * 64, "invalid digest format", id="D-05 newline first"),
    ],
)
def test_what_is_no_digest_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidDigestError, match=words) as caught:
        Digest(text)
    assert not isinstance(caught.value, UnsupportedDigestError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("text", ["md5:abc", "sha1:" + "0" * 40, "b+l.a_k-e3:AZ=_-", "sha224:00"])
def test_D03_a_digest_of_an_unknown_algorithm_is_called_that(text: str) -> None:
    with pytest.raises(UnsupportedDigestError, match="unsupported digest algorithm"):
        Digest(text)


def test_an_error_does_not_repeat_a_hostile_text() -> None:
    with pytest.raises(InvalidDigestError) as caught:
        Digest("\x1b[31m\n" * 100_000)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 5000], ids=len)
def test_of_hasher_and_matches_agree_with_hashlib(algorithm: str, data: bytes) -> None:
    digest = Digest.of(data, algorithm)
    assert digest == f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    assert isinstance(digest, Digest)
    hasher = digest.hasher()
    hasher.update(data[:1])
    hasher.update(data[1:])
    assert hasher.hexdigest() == digest.encoded
    assert digest.matches(data)
    assert not digest.matches(data + b"!")


def test_DG01b_nothing_has_the_well_known_digest() -> None:
    assert Digest.of(b"").startswith("sha256:e3b0c442")
    assert Digest.of(b"").endswith("b855")


def test_of_refuses_an_unknown_algorithm() -> None:
    with pytest.raises(UnsupportedDigestError, match="md5"):
        Digest.of(b"", "md5")


def test_a_digest_survives_pickle_and_copy_and_shows_itself() -> None:
    digest = Digest.of(b"x")
    assert pickle.loads(pickle.dumps(digest)) == digest  # noqa: S301 - our own bytes
    assert type(copy.deepcopy(digest)) is Digest
    assert repr(digest) == f"Digest('{digest}')"
    assert f"{digest}" == str(digest)


@given(st.text(max_size=80) | st.from_regex(r"\A(sha(256|384|512):)?[0-9a-fA-F]{63,65}"))
def test_arbitrary_text_is_a_digest_exactly_if_the_grammar_says_so(text: str) -> None:
    known = any(re.fullmatch(f"{a}:[0-9a-f]{{{n}}}", text, re.ASCII) for a, n in ALGORITHMS.items())
    if known:
        assert Digest(text) == text
    else:
        with pytest.raises(InvalidDigestError):
            Digest(text)


def test_parsing_is_cheap() -> None:
    text = "sha256:" + HEX["sha256"]
    seconds = min(timeit.repeat(lambda: Digest(text), number=1000, repeat=20)) / 1000
    assert seconds < 10e-6


hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)
digests = st.builds("sha256:{}".format, hexadecimal) | st.builds(
    Digest.of, st.binary(max_size=3), st.sampled_from(sorted(ALGORITHMS))
)
broken = st.builds(
    lambda text, at, letter: text[: at % len(text)] + letter + text[at % len(text) + 1 :],
    digests,
    st.integers(0, 200),
    st.sampled_from(["g", "A", "s", "h", ":", "é", "\ud800", "\n", "", "0"]),
)


@given(st.lists(digests | broken, max_size=6))
def test_many_are_checked_as_each_is(texts: list[str]) -> None:
    def refusal(check: Callable[[], object]) -> str | None:
        try:
            check()
        except InvalidDigestError as error:
            return str(error)
        return None

    assert refusal(lambda: check_digests(texts)) == refusal(lambda: [Digest(t) for t in texts])
