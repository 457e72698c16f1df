"""What a request asks for, or why it is refused before anything is looked up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.model.digest import Digest
from asupplemented.web.request import (
    BlobTarget,
    ManifestTarget,
    Page,
    Ping,
    ReferrersTarget,
    Refusal,
    Repository,
    Request,
    TagsTarget,
    plan,
    strip_mount,
)

DIGEST = Digest.of(b"")
APP = Repository("team/app", None, "team/app", None)


def ask(path: str | None, query: str = "", method: str = "GET") -> object:
    return plan(Request(method, path, query))


def refused(path: str | None, query: str = "", method: str = "GET") -> tuple[int, str]:
    found = ask(path, query, method)
    assert isinstance(found, Refusal), found
    return found.status, found.code


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("", "", Ping()),
        ("/", "", Ping()),
        ("/team/app/manifests/1.4", "", ManifestTarget(APP, "1.4", None)),
        (f"/team/app/manifests/{DIGEST}", "", ManifestTarget(APP, DIGEST, DIGEST)),
        (f"/team/app/blobs/{DIGEST}", "", BlobTarget(APP, DIGEST)),
        ("/team/app/tags/list", "", TagsTarget(APP, Page(None, None))),
        ("/team/app/tags/list", "n=3&last=a%20b", TagsTarget(APP, Page(3, "a b"))),
        (
            f"/team/app/referrers/{DIGEST}",
            "artifactType=a/b&n=1",
            ReferrersTarget(APP, DIGEST, "a/b", Page(1, None)),
        ),
        ("/manifests/manifests/manifests", "", ManifestTarget(
            Repository("manifests", None, "manifests", None), "manifests", None)),
    ],
)  # fmt: skip
def test_what_is_asked_for(method: str, path: str, query: str, expected: object) -> None:
    assert ask(path, query, method) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sha256:baddigeststring", (400, "DIGEST_INVALID")),
        ("sha256:" + "A" * 64, (400, "DIGEST_INVALID")),
        ("sha256:" + "a" * 63, (400, "DIGEST_INVALID")),
        ("md5:" + "a" * 32, (400, "DIGEST_INVALID")),
        (f"{DIGEST}%0a", (400, "DIGEST_INVALID")),
        (f"{DIGEST}%3A", (400, "DIGEST_INVALID")),
    ],
)
@pytest.mark.parametrize("kind", ["manifests", "blobs", "referrers"])
def test_SRV04_a_wrong_digest_is_refused(kind: str, text: str, expected: tuple[int, str]) -> None:
    assert refused(f"/team/app/{kind}/{text}") == expected


@pytest.mark.parametrize("tag", ["-a", ".a", "a" * 129, "a+b", "é"])
def test_SRV04_a_wrong_tag_names_no_manifest(tag: str) -> None:
    assert refused(f"/team/app/manifests/{tag}") == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize("n", ["-1", "x", "", "1.0", "+1", "\uff11", "1&n=1"])
def test_SRV07_a_wrong_number_is_refused(n: str) -> None:
    assert refused("/team/app/tags/list", f"n={n}") == (400, "PAGINATION_NUMBER_INVALID")


def test_SRV07_a_number_of_any_length_is_read() -> None:
    found = ask("/team/app/tags/list", "n=" + "9" * 5000)
    assert found == TagsTarget(APP, Page(10**9, None))


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "get"])
def test_SRV09_writes_are_refused(method: str) -> None:
    assert refused("/team/app/blobs/uploads/", method=method) == (405, "UNSUPPORTED")


@pytest.mark.parametrize(
    ("path", "ns", "expected"),
    [
        ("team/app", "ghcr.io", ("team/app", "ghcr.io")),
        ("team/app", "GHCR.io:443", ("team/app", "ghcr.io")),
        ("team/app", "index.docker.io", ("team/app", "docker.io")),
        ("busybox", "registry-1.docker.io", ("library/busybox", "docker.io")),
        ("busybox", "ghcr.io", ("busybox", "ghcr.io")),
        ("team/app", "localhost:5000", ("team/app", "localhost:5000")),
    ],
)
def test_SRV14_SRV15_ns_chooses_the_registry(path: str, ns: str, expected: tuple[str, str]) -> None:
    found = ask(f"/{path}/manifests/1", f"ns={ns}")
    assert isinstance(found, ManifestTarget)
    assert found.repository == Repository(*expected, path, ns)


@pytest.mark.parametrize(
    "ns",
    [
        *("", "https://ghcr.io", "ghcr.io/team", "user@ghcr.io", "ghcr.io%0d%0a", "ghcr.io%00"),
        *("a.io&ns=b.io", "a b", "..", "[::1", "ghcr.io:port", "-a.io"),
    ],
)
def test_SRV15_ns_is_a_registry_and_nothing_else(ns: str) -> None:
    assert refused("/team/app/manifests/1", f"ns={ns}") == (400, "NAME_INVALID")


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("quay.io/o/x", "", ("quay.io/o/x", None)),
        ("docker.io/busybox", "", ("docker.io/library/busybox", None)),
        ("localhost:5000/x", "", ("localhost:5000/x", None)),
        ("reg.test/library/demo", "ns=reg.test", ("library/demo", "reg.test")),
        ("index.docker.io/demo", "ns=docker.io", ("library/demo", "docker.io")),
    ],
)
def test_SRV16_the_path_may_name_the_registry(
    path: str, query: str, expected: tuple[str, str | None]
) -> None:
    found = ask(f"/{path}/manifests/1", query)
    assert isinstance(found, ManifestTarget)
    assert found.repository[:2] == expected


def test_SRV16_two_registries_are_refused() -> None:
    assert refused("/quay.io/o/x/manifests/1", "ns=ghcr.io") == (400, "NAME_INVALID")


@pytest.mark.parametrize(
    "path",
    [
        *("/../etc/passwd/manifests/1", "/team/../app/manifests/1", "/team/./app/blobs/x"),
        *("/team%2Fapp/manifests/1", "/team/app%2f..%2f../manifests/1", "/%2e%2e/a/manifests/1"),
        *(
            "//team/manifests/1",
            "/team//app/manifests/1",
            "/team/app/manifests/",
            "/team%00/tags/list",
        ),
        *(
            "/TEAM/app/manifests/1",
            "/team/app_/manifests/1",
            "/a___b/manifests/1",
            "/é/manifests/1",
        ),
        *(f"/{'a' * 256}/manifests/1", "/manifests/1", "/%2Fmanifests%2F1", "/a:b/c/manifests/1"),
        *("/team\\app/manifests/1", "/team app/manifests/1", "/host:123456/a/manifests/1"),
    ],
)
def test_SRV17_the_path_is_read_as_it_was_written(path: str) -> None:
    assert refused(path) == (400, "NAME_INVALID")


@pytest.mark.parametrize("colon", ["%3A", "%3a"])
def test_SRV17_the_colon_of_a_digest_may_be_encoded(colon: str) -> None:
    path = f"/team/app/blobs/{DIGEST.replace(':', colon)}"
    assert ask(path) == BlobTarget(APP, DIGEST)


@pytest.mark.parametrize("path", [None, "/_catalog", "/team/app", "/team/app/tags/other", "/x"])
def test_SRV35_other_paths_are_no_endpoints(path: str | None) -> None:
    assert refused(path) == (404, "UNSUPPORTED")


@pytest.mark.parametrize("query", ["a=" + "b" * 9000, "&".join(["n=1"] * 33)])
def test_a_query_is_bounded(query: str) -> None:
    assert refused("/team/app/tags/list", query) == (400, "UNSUPPORTED")


@pytest.mark.parametrize(
    ("target", "mount", "expected"),
    [
        ("/v2/a/tags/list?n=1", "", ("/a/tags/list", "/v2")),
        ("/v2", "", ("", "/v2")),
        ("/v2", "/v2", ("", "/v2")),
        ("/v2/", "/v2/", ("/", "/v2")),
        ("/v2x/", "", (None, "/v2")),
        ("/", "", (None, "/v2")),
        ("/prefix/v2/a", "/prefix/v2", ("/a", "/prefix/v2")),
        ("/prefix/v2/a", "/prefix", ("/a", "/prefix/v2")),
        ("http://evil.example/v2/a", "", ("/a", "/v2")),
        ("HTTP://evil.example", "", (None, "/v2")),
    ],
)
def test_SRV42_SRV17_the_root_of_the_endpoint(
    target: str, mount: str, expected: tuple[str | None, str]
) -> None:
    assert strip_mount(target, mount) == expected


PARTS = st.sampled_from(
    [
        *("", ".", "..", "team", "app", "%2F", "%2e%2e", "manifests", "blobs", "tags", "list"),
        *("referrers", "latest", DIGEST, "sha256:bad", "a:1", "A", "\x00", "\udcff", "a" * 300),
    ]
)


@given(
    st.sampled_from(["GET", "HEAD", "PUT"]),
    st.lists(PARTS, max_size=7),
    st.text(alphabet="nslastartifactType=&%0123456789-.:/\x00\udcff", max_size=60),
)
def test_SRV17_nothing_but_valid_names_reaches_a_lookup(
    method: str, parts: list[str], query: str
) -> None:
    found = plan(Request(method, "/" + "/".join(parts), query))
    if isinstance(found, Refusal):
        assert found.status in {400, 404, 405}
    elif not isinstance(found, Ping):
        name = found.repository.name
        assert name == "/".join(part for part in name.split("/") if part not in {"", ".", ".."})
        assert name.isascii()
        assert "%" not in name
