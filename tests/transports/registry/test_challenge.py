"""Reading WWW-Authenticate."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.transports.registry.challenge import Challenge, parse_challenges

BEARER = Challenge(
    "bearer",
    (
        ("realm", "https://auth.docker.io/token"),
        ("service", "registry.docker.io"),
        ("scope", "repository:library/busybox:pull"),
    ),
)


def parse(*lines: str) -> tuple[Challenge, ...]:
    return parse_challenges(lines).challenges


def schemes(*lines: str) -> list[str]:
    return [challenge.scheme for challenge in parse(*lines)]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            [
                (
                    'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
                    'scope="repository:library/busybox:pull"'
                )
            ],
            [BEARER],
            id="CHAL-01 the usual one",
        ),
        pytest.param(
            [
                (
                    'BEARER Realm = "https://auth.docker.io/token" , SERVICE=registry.docker.io,'
                    ' scope="repository:library/busybox:pull"'
                )
            ],
            [BEARER],
            id="CHAL-01 case and blanks",
        ),
        pytest.param(
            ['Basic realm="a"', 'Bearer realm="b"'],
            [Challenge("basic", (("realm", "a"),)), Challenge("bearer", (("realm", "b"),))],
            id="CHAL-01 several lines",
        ),
        pytest.param(
            ['Basic realm="a", Bearer realm="b",service="c"'],
            [
                Challenge("basic", (("realm", "a"),)),
                Challenge("bearer", (("realm", "b"), ("service", "c"))),
            ],
            id="CHAL-02 several in one line",
        ),
        pytest.param(
            ["Negotiate, NTLM abc==, Basic realm=x"],
            [Challenge("negotiate"), Challenge("ntlm"), Challenge("basic", (("realm", "x"),))],
            id="CHAL-02 bare schemes and token68",
        ),
        pytest.param(
            ['Bearer realm="https://a",scope="repository:a:pull,push"'],
            [Challenge("bearer", (("realm", "https://a"), ("scope", "repository:a:pull,push")))],
            id="CHAL-03 a comma within quotes",
        ),
        pytest.param(
            ['Bearer realm="https://a",\r\n\tservice="b"'],
            [Challenge("bearer", (("realm", "https://a"), ("service", "b")))],
            id="CHAL-03 a folded line",
        ),
        pytest.param(
            [r'Basic realm="say \"hi\" \\ bye"'],
            [Challenge("basic", (("realm", r'say "hi" \ bye'),))],
            id="CHAL-01 escapes",
        ),
        pytest.param([",, ,Basic realm=a,,"], [Challenge("basic", (("realm", "a"),))], id="commas"),
        pytest.param([], [], id="nothing"),
        pytest.param(["", "  "], [], id="empty lines"),
    ],
)
def test_CHAL_well_formed(lines: list[str], expected: list[Challenge]) -> None:
    parsed = parse_challenges(lines)
    assert list(parsed.challenges) == expected
    assert parsed.faults == ()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param(
            'Bearer realm="a",service=,scope="b"',
            [Challenge("bearer", (("realm", "a"),))],
            id="CHAL-01 an empty value stops it",
        ),
        pytest.param(
            'Bearer realm="a",service=""',
            [Challenge("bearer", (("realm", "a"),))],
            id="CHAL-01 an empty quoted value too",
        ),
        pytest.param(
            'Basic realm="a", Bearer realm="b',
            [Challenge("basic", (("realm", "a"),)), Challenge("bearer")],
            id="CHAL-02 an open quote",
        ),
        pytest.param(
            "Bearer realm=https://auth/token",
            [Challenge("bearer", (("realm", "https"),))],
            id="CHAL-01 an unquoted URL",
        ),
        pytest.param('realm="a"', [], id="a parameter without a scheme"),
        pytest.param('"Bearer" realm="a"', [], id="a quoted scheme"),
        pytest.param(
            "Bearer realm=a realm=b", [Challenge("bearer", (("realm", "a"),))], id="no comma"
        ),
        pytest.param(
            "Bearer realm=a, realm=b", [Challenge("bearer", (("realm", "a"),))], id="given twice"
        ),
        pytest.param('Bearer realm="a\0b"', [Challenge("bearer")], id="a control character"),
        pytest.param(
            "Bearer réalm=a", [Challenge("bearer"), Challenge("r")], id="a letter beyond ASCII"
        ),
    ],
)
def test_CHAL02_what_comes_before_a_fault_counts(line: str, expected: list[Challenge]) -> None:
    parsed = parse_challenges([line])
    assert list(parsed.challenges) == expected
    assert len(parsed.faults) == 1


def test_CHAL02_a_faulty_line_does_not_spoil_the_next() -> None:
    assert schemes("=", "Basic realm=a") == ["basic"]


def test_CHAL02_sixteen_challenges_and_no_more() -> None:
    assert len(parse(", ".join("A" * 16))) == 16
    parsed = parse_challenges([", ".join("A" * 17)])
    assert len(parsed.challenges) == 16
    assert "16" in parsed.faults[0]
    assert len(parse(*["A"] * 20)) == 16


def test_CHAL02_thirty_two_parameters_and_no_more() -> None:
    line = "A " + ", ".join(f"p{n}=v" for n in range(33))
    [challenge] = parse(line)
    assert len(challenge.parameters) == 32


def test_CHAL02_eight_kibibytes_and_no_more() -> None:
    fits = 'Basic realm="' + "a" * (8192 - 14) + '"'
    assert len(fits) == 8192
    assert len(parse(fits)[0].realm or "") == 8192 - 14
    assert parse(fits + " ") == ()


def test_what_a_challenge_says() -> None:
    [challenge] = parse('Bearer error="insufficient_scope",scope="a:b:c d:e:f"')
    assert challenge.realm is None
    assert challenge.service == ""
    assert challenge.error == "insufficient_scope"
    assert challenge.scopes == ("a:b:c", "d:e:f")
    assert challenge.get("nothing") is None


HOSTILE = st.text(alphabet=' \t\r\n,="\\AaB:/-é\0', max_size=60)


@given(st.lists(HOSTILE | st.text(max_size=40), max_size=20))
def test_CHAL02_it_never_raises_and_keeps_to_its_limits(lines: list[str]) -> None:
    parsed = parse_challenges(lines)
    assert len(parsed.challenges) <= 16
    for challenge in parsed.challenges:
        assert challenge.scheme == challenge.scheme.lower()
        assert len(challenge.parameters) <= 32
        assert all(value for _, value in challenge.parameters)


NAME = st.text(alphabet="abcdefghijklmnopqrstuvwxyz-_.", min_size=1, max_size=8)
VALUE = st.text(
    alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12
)


def write(challenge: Challenge) -> str:
    quoted = (
        (name, value.replace("\\", "\\\\").replace('"', '\\"'))
        for name, value in challenge.parameters
    )
    return f"{challenge.scheme} " + ", ".join(f'{name}="{value}"' for name, value in quoted)


CHALLENGES = st.lists(
    st.builds(
        lambda scheme, known: Challenge(scheme, tuple(known.items())),
        NAME,
        st.dictionaries(NAME, VALUE, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


@given(CHALLENGES, st.booleans())
def test_CHAL02_what_is_written_is_read(challenges: list[Challenge], joined: bool) -> None:  # noqa: FBT001 - drawn
    written = [write(challenge) for challenge in challenges]
    parsed = parse_challenges([", ".join(written)] if joined else written)
    assert list(parsed.challenges) == challenges
    assert parsed.faults == ()


@pytest.mark.parametrize(
    "line",
    [
        'Bearer realm="' + "\\" * 1_000_000,
        "a" * 1_000_000,
        "a=" * 500_000,
        "," * 1_000_000,
        'Basic realm="' + 'a\\"' * 2700,
        "A " + "=" * 8000,
        ("a" * 80 + " ") * 100,
    ],
)
def test_SEC08_a_hostile_line_takes_no_time(line: str) -> None:
    start = time.process_time()
    parse(line)
    assert time.process_time() - start < 0.1
