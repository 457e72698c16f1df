"""Which prefix fits a name, where its image may be, and the one error of many candidates."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import (
    ConfigurationError,
    ManifestNotFoundError,
    NetworkError,
    TooManyRequestsError,
)
from asupplemented.hostconfig.registries import (
    Candidate,
    join_failures,
    list_candidates,
    match_prefix,
)
from asupplemented.hostconfig.registries_conf import Mirror, Pulls, Registry
from asupplemented.model.name import ImageName

DIGEST = f"sha256:{'ab' * 32}"
FILE = Path("/etc/containers/registries.conf")


def name(text: str) -> ImageName:
    return ImageName.parse(text)


def places(text: str, registry: Registry) -> list[str]:
    return [str(candidate.name) for candidate in list_candidates(name(text), registry)]


@pytest.mark.parametrize(
    ("text", "prefix", "matched"),
    [
        ("a.com/x", "a.com/x", "a.com/x"),
        ("a.com/x/y", "a.com/x", "a.com/x"),
        ("a.com/x", "a.com", "a.com"),
        ("a.com:5000/x", "a.com", "a.com"),
        ("a.com:5000/x", "a.com:5000", "a.com:5000"),
        ("a.com:5000/x", "a.com:50", None),
        ("a.com/xy", "a.com/x", None),
        ("a.community/x", "a.com", None),
        ("a.com/x", "a.com/x/y", None),
        ("sub.a.com/x", "a.com", None),
        ("A.com/x", "a.com", None),
    ],
)
def test_CONF09_a_prefix_ends_where_a_part_of_the_name_ends(
    text: str, prefix: str, matched: str | None
) -> None:
    assert match_prefix(text, prefix) == (None if matched is None else len(matched))


@pytest.mark.parametrize(
    ("text", "prefix", "matched"),
    [
        ("b.a.com/x", "*.a.com", "b.a.com"),
        ("c.b.a.com/x", "*.a.com", "c.b.a.com"),
        ("b.a.com:5000/x", "*.a.com", "b.a.com"),
        ("a.com/x", "*.com", "a.com"),
        ("a.com/x", "*.a.com", None),
        ("ba.com/x", "*.a.com", None),
        ("b.a.com.org/x", "*.a.com", None),
        ("b.org/x.a.com", "*.a.com", None),
        ("b.org/x.a.com/y", "*.a.com", None),
        ("x.a.com.a.com/x", "*.a.com", None),
        ("b.a.com/x", "b.*.com", None),
        ("b.a.com/x", "*a.com", None),
    ],
)
def test_CONF08_a_wildcard_stands_for_any_host_below_one(
    text: str, prefix: str, matched: str | None
) -> None:
    assert match_prefix(text, prefix) == (None if matched is None else len(matched))


@pytest.mark.parametrize(
    ("text", "prefix", "location", "physical"),
    [
        ("a.com/x:t", "a.com", "b.com", "b.com/x:t"),
        ("a.com/x:t", "a.com", "b.com/c/d", "b.com/c/d/x:t"),
        ("a.com/x/y:t", "a.com/x", "b.com/z", "b.com/z/y:t"),
        ("a.com/x/y:t", "a.com/x/y", "b.com/z", "b.com/z:t"),
        ("a.com/x", "a.com", "b.com:5000", "b.com:5000/x:latest"),
        ("a.com:5000/x:t", "a.com", "b.com", "b.com:5000/x:t"),
        ("a.com:5000/x:t", "a.com:5000", "b.com", "b.com/x:t"),
        (f"a.com/x@{DIGEST}", "a.com/x", "b.com/y", f"b.com/y@{DIGEST}"),
        (f"a.com/x:t@{DIGEST}", "a.com/x", "b.com/y", f"b.com/y:t@{DIGEST}"),
        ("b.a.com/x:t", "*.a.com", "c.com/d", "c.com/d/x:t"),
        ("busybox", "docker.io", "b.com", "b.com/library/busybox:latest"),
        ("busybox", "docker.io/library", "b.com", "b.com/busybox:latest"),
        ("a.com/a.com/x", "a.com", "b.com", "b.com/a.com/x:latest"),
        ("a.com/x:t", "a.com", "[::1]:5000", "[::1]:5000/x:t"),
    ],
)
def test_CONF12_a_location_takes_the_place_of_the_prefix(
    text: str, prefix: str, location: str, physical: str
) -> None:
    assert places(text, Registry(prefix, location)) == [physical]


def test_CONF12_without_a_location_the_name_stays_as_it_is() -> None:
    registry = Registry("*.a.com", None, mirrors=(Mirror("m.com"),))
    assert places("b.a.com/x:t", registry) == ["m.com/x:t", "b.a.com/x:t"]


@pytest.mark.parametrize(
    ("text", "prefix", "location", "remedy"),
    [
        ("a.com/x:t", "a.com/x", "docker.io/y", "docker.io/library/y"),
        ("a.com/x/y:t", "a.com", "mirror", "docker.io/mirror/x/y"),
        ("a.com/x:t", "a.com/x", "index.docker.io/b/c", "docker.io/b/c"),
        ("a.com/x:t", "a.com/x", "b.com", "docker.io/library/b.com"),
        ("a.com/x:t", "a.com", "b.com/UP", "lowercase"),
        ("a.com/x:t", "a.com/x", "b.com/y:t", "format"),
        ("a.com/x:t", "a.com/x", f"b.com/y@{DIGEST}", "digest"),
        ("a.com/x:t", "a.com", "b.com/../c", "format"),
        ("a.com/x:t", "a.com", "user:hunter2@b.com", "user"),
        ("a.com/x:t", "a.com", "b" * 254 + ".com", "255"),
    ],
)
def test_CONF12_a_location_that_makes_no_full_name_is_refused(
    text: str, prefix: str, location: str, remedy: str
) -> None:
    registry = Registry(prefix, location, origin=FILE)
    with pytest.raises(ConfigurationError, match="does not fit") as caught:
        places(text, registry)
    assert str(FILE) in caught.value.message
    assert remedy in caught.value.message
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"


def test_CONF12_one_bad_mirror_spoils_the_pull_before_any_request() -> None:
    mirrors = (Mirror("good.com"), Mirror("bad.com/UP"))
    with pytest.raises(ConfigurationError, match="lowercase"):
        places("a.com/x", Registry("a.com", "a.com", mirrors=mirrors))


def test_CONF12_a_bad_mirror_that_is_not_asked_spoils_nothing() -> None:
    mirrors = (Mirror("bad.com/UP", pulls="digest-only"),)
    registry = Registry("a.com", "a.com", mirrors=mirrors)
    assert places("a.com/x", registry) == ["a.com/x:latest"]


@pytest.mark.parametrize(
    ("pulls", "by_tag", "by_digest"),
    [("all", True, True), ("tag-only", True, False), ("digest-only", False, True)],
)
def test_CONF13_mirrors_serve_the_pulls_that_they_are_for(
    pulls: Pulls, *, by_tag: bool, by_digest: bool
) -> None:
    registry = Registry("a.com", "a.com", mirrors=(Mirror("m.com", pulls=pulls),))
    for text, served in (
        ("a.com/x:t", by_tag),
        (f"a.com/x@{DIGEST}", by_digest),
        (f"a.com/x:t@{DIGEST}", by_digest),
    ):
        found = list(list_candidates(name(text), registry))
        assert [candidate.is_mirror for candidate in found] == [True, False][not served :]


def test_CONF13_mirrors_come_in_the_order_of_the_file_and_the_registry_last() -> None:
    mirrors = (Mirror("z.com"), Mirror("a.com"), Mirror("m.com"))
    registry = Registry("r.com", "s.com", mirrors=mirrors)
    assert places("r.com/x:t", registry) == ["z.com/x:t", "a.com/x:t", "m.com/x:t", "s.com/x:t"]


def test_CONF18_CONF19_what_holds_for_a_candidate_is_its_own() -> None:
    mirrors = (
        Mirror("plain.lan", insecure=True, proxy="http://one:1"),
        Mirror("safe.com", tells_registry=True),
    )
    registry = Registry("r.com", "s.com", mirrors=mirrors, proxy="http://two:2")
    plain, safe, own = list_candidates(name("r.com/x:t"), registry)
    assert (plain.insecure, safe.insecure, own.insecure) == (True, False, False)
    assert (plain.proxy, safe.proxy, own.proxy) == ("http://one:1", None, "http://two:2")
    assert [each.name.registry for each in (plain, safe, own)] == ["plain.lan", "safe.com", "s.com"]


def test_TLS05_an_insecure_registry_has_secure_mirrors() -> None:
    registry = Registry("r.com", "r.com", insecure=True, mirrors=(Mirror("m.com"),))
    assert [each.insecure for each in list_candidates(name("r.com/x"), registry)] == [False, True]


def test_CONF20_only_a_mirror_that_wants_it_is_told_the_registry() -> None:
    mirrors = (Mirror("m.com"), Mirror("n.com", tells_registry=True))
    registry = Registry("docker.io", "docker.io", mirrors=mirrors)
    told = [each.told_registry for each in list_candidates(name("busybox"), registry)]
    assert told == [None, "docker.io", None]


def test_CONF17_a_blocked_candidate_is_refused_by_name_and_file() -> None:
    Candidate(name("a.com/x")).check_allowed()
    blocked = Candidate(name("a.com/x"), blocked=Registry("a.com", "a.com", origin=FILE))
    with pytest.raises(ConfigurationError, match=r"a\.com/x is blocked") as caught:
        blocked.check_allowed()
    assert str(FILE) in caught.value.message


def test_CONF15_the_error_of_the_only_candidate_is_as_it_is() -> None:
    error = ManifestNotFoundError("no such tag")
    assert join_failures([(Candidate(name("a.com/x:t")), error)]) is error
    assert str(error) == "no such tag"


def test_CONF15_the_error_of_several_is_that_of_the_registry_and_tells_of_the_mirrors() -> None:
    own = TooManyRequestsError("slow down", status=429, retry_after=7.0)
    joined = join_failures(
        [
            (Candidate(name("m.com/x:t"), is_mirror=True), NetworkError("no route")),
            (Candidate(name("n.com/x:t"), is_mirror=True), ManifestNotFoundError("no such tag")),
            (Candidate(name("a.com/x:t")), own),
        ]
    )
    assert str(joined) == (
        "(Mirrors also failed: [m.com/x:t: no route]\n[n.com/x:t: no such tag]): "
        "a.com/x:t: slow down"
    )
    assert isinstance(joined, TooManyRequestsError)
    assert (joined.status, joined.retry_after) == (429, 7.0)
    assert joined.__cause__ is own
    assert str(own) == "slow down"


HOSTS = st.sampled_from(["a.com", "b.a.com", "c.b.a.com", "a.com:5000", "docker.io", "localhost"])
PATHS = st.sampled_from(["x", "x/y", "a.com", "x/a.com/y"])


@given(HOSTS, PATHS, st.integers(0, 3), HOSTS)
def test_CONF12_what_follows_the_prefix_is_kept_and_what_precedes_it_replaced(
    host: str, path: str, depth: int, location: str
) -> None:
    logical = ImageName(host, path, "t")
    prefix = "/".join(logical.repository.split("/")[: depth + 1])
    text = f"{location}/z/w"
    [candidate] = list_candidates(logical, Registry(prefix, text))
    assert candidate.name.repository == text + logical.repository.removeprefix(prefix)
    assert candidate.name.tag == "t"
