"""What clients are answered, by both applications."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import (
    DigestMismatchError,
    ForbiddenError,
    NetworkError,
    ServerError,
    SlotTimeoutError,
    SourceTimeoutError,
    TooManyRequestsError,
    UnauthorizedError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import OCI_INDEX, OCI_MANIFEST
from asupplemented.testing import build_image, build_index, hold_in_memory
from asupplemented.web import Challenge, Denied, Identity, Limits, basic, bearer
from tests.clocks import let_pass
from tests.web.clients import until
from tests.web.conftest import LARGE, SMALL

if TYPE_CHECKING:
    from asupplemented import Session
    from asupplemented.testing import BuiltImage, SourceControl
    from asupplemented.web import AccessRequest
    from tests.web.catalogs import FakeCatalog
    from tests.web.clients import Client
    from tests.web.conftest import Serve

ROOT = "/v2/team/app"
SMALL_DIGEST = Digest.of(SMALL)
LARGE_DIGEST = Digest.of(LARGE)
OTHER = Digest.of(b"not there")
VOLATILE = {"Date", "Server"}


def basic_header(user: str, password: str) -> tuple[str, str]:
    return ("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())


# Content


async def test_SRV01_SRV21_ping(client: Client, catalog: FakeCatalog) -> None:
    for target in ("/v2/", "/v2"):
        reply = await client.get(target)
        assert (reply.status, reply.json()) == (200, {})
        assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert (await client.head(target)).body == b""
    assert catalog.asked == []


@pytest.mark.parametrize("by_digest", [False, True])
async def test_SRV02_SRV34_manifests(client: Client, image: BuiltImage, *, by_digest: bool) -> None:
    target = f"{ROOT}/manifests/{image.digest if by_digest else 'latest'}"
    reply = await client.get(target)
    assert (reply.status, reply.body) == (200, image.raw)
    assert reply.headers["Content-Type"] == OCI_MANIFEST
    assert reply.headers["Content-Length"] == str(len(image.raw))
    assert reply.headers["Docker-Content-Digest"] == image.digest
    assert reply.headers["ETag"] == f'"{image.digest}"'
    cached = "max-age=31536000, immutable" if by_digest else "no-cache"
    assert reply.headers["Cache-Control"] == cached


async def test_SRV02_the_digest_has_the_algorithm_that_was_asked_for(
    serve: Serve, catalog: FakeCatalog, session: Session
) -> None:
    other = build_image(algorithm="sha512")
    index = build_index([other], algorithm="sha512")
    catalog.names["team/app"] = hold_in_memory("app", index)
    async with serve(catalog, session) as client:
        reply = await client.get(f"{ROOT}/manifests/{other.digest}")
    assert reply.headers["Docker-Content-Digest"] == other.digest
    assert other.digest.startswith("sha512:")


async def test_SRV02_what_is_absent(client: Client) -> None:
    for target, code in (
        (f"{ROOT}/manifests/{OTHER}", "MANIFEST_UNKNOWN"),
        ("/v2/other/manifests/latest", "NAME_UNKNOWN"),
        ("/v2/other/tags/list", "NAME_UNKNOWN"),
        (f"/v2/other/referrers/{OTHER}", "NAME_UNKNOWN"),
    ):
        reply = await client.get(target)
        assert (reply.status, reply.code) == (404, code)


async def test_SRV23_a_blob_that_is_absent_says_exactly_that(client: Client) -> None:
    reply = await client.get(f"{ROOT}/blobs/{OTHER}")
    assert (reply.status, reply.code) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize(
    "accept",
    [
        (),
        (("Accept", "application/vnd.docker.distribution.manifest.v2+json"),),
        (("Accept", "text/plain"), ("Accept", OCI_MANIFEST), ("Accept", OCI_INDEX)),
    ],
)
async def test_SRV03_SRV21_nothing_is_converted(
    client: Client, image: BuiltImage, accept: tuple[tuple[str, str], ...]
) -> None:
    reply = await client.get(f"{ROOT}/manifests/latest", *accept)
    assert (reply.body, reply.headers["Content-Type"]) == (image.raw, OCI_MANIFEST)


@pytest.mark.parametrize("form", ['"{}"', "{}", 'W/"{}"', '"other", "{}"', "*"])
async def test_SRV03_SRV29_if_none_match(client: Client, image: BuiltImage, form: str) -> None:
    condition = ("If-None-Match", form.format(image.digest))
    for send in (client.get, client.head):
        reply = await send(f"{ROOT}/manifests/latest", condition)
        assert (reply.status, reply.body) == (304, b"")
        assert reply.headers["ETag"] == f'"{image.digest}"'
        assert reply.headers["Cache-Control"] == "no-cache"


async def test_SRV29_conditions_have_an_order(client: Client) -> None:
    mine, other = f'"{SMALL_DIGEST}"', f'"{OTHER}"'
    target = f"{ROOT}/blobs/{SMALL_DIGEST}"
    for headers, status in (
        ((("If-Match", other), ("If-None-Match", mine)), 412),
        ((("If-Match", f"W/{mine}"),), 412),
        ((("If-Match", mine), ("If-None-Match", mine), ("Range", "bytes=0-1")), 304),
        ((("If-None-Match", other), ("Range", "bytes=0-1")), 206),
        ((("If-Match", "*"),), 200),
    ):
        reply = await client.get(target, *headers)
        assert reply.status == status, headers
        if status == 412:
            assert reply.code == "PRECONDITION_FAILED"


@pytest.mark.parametrize("content", [SMALL, LARGE], ids=["small", "large"])
async def test_SRV05_SRV47_blobs(client: Client, content: bytes) -> None:
    digest = Digest.of(content)
    reply = await client.get(f"{ROOT}/blobs/{digest}")
    assert (reply.status, reply.body) == (200, content)
    assert reply.headers["Content-Length"] == str(len(content))
    assert reply.headers["Docker-Content-Digest"] == digest
    assert reply.headers["ETag"] == f'"{digest}"'
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert reply.headers["Cache-Control"] == "max-age=31536000, immutable"
    assert reply.headers["X-Accel-Buffering"] == "no", "rule SRV-47"


@pytest.mark.parametrize(
    ("header", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=2-5", 206, 2, 6),
        ("bytes=5-", 206, 5, 13),
        ("bytes=-4", 206, 9, 13),
        ("bytes=10-99", 206, 10, 13),
        pytest.param("bytes=0-", 206, 0, 13, id="SRV-26 all of it"),
        ("bytes=13-", 416, 0, 0),
        pytest.param("bytes=-0", 416, 0, 0, id="SRV-30"),
        pytest.param("bytes=9-3", 200, 0, 13, id="SRV-30 backwards"),
        ("items=0-1", 200, 0, 13),
        ("bytes=x", 200, 0, 13),
    ],
)
async def test_SRV06_ranges(client: Client, header: str, status: int, start: int, end: int) -> None:
    reply = await client.get(f"{ROOT}/blobs/{SMALL_DIGEST}", ("Range", header))
    assert reply.status == status
    if status == 416:
        assert (reply.code, reply.headers["Content-Range"]) == ("RANGE_INVALID", "bytes */13")
        return
    assert reply.body == SMALL[start:end]
    assert reply.headers["Content-Length"] == str(end - start)
    expected = f"bytes {start}-{end - 1}/13" if status == 206 else None
    assert reply.headers.get("Content-Range") == expected


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        (f'"{SMALL_DIGEST}"', 206),
        (f'W/"{SMALL_DIGEST}"', 200),
        (f'"{OTHER}"', 200),
        ("Sat, 29 Oct 1994 19:43:31 GMT", 200),
    ],
)
async def test_SRV06_SRV29_if_range(client: Client, condition: str, status: int) -> None:
    headers = (("Range", "bytes=0-1"), ("If-Range", condition))
    reply = await client.get(f"{ROOT}/blobs/{SMALL_DIGEST}", *headers)
    assert reply.status == status


async def test_SRV06_an_empty_blob_has_no_ranges(
    serve: Serve, catalog: FakeCatalog, session: Session
) -> None:
    catalog.names["team/app"] = hold_in_memory("app", build_image(layers=[b""]))
    async with serve(catalog, session) as client:
        for headers in ((), (("Range", "bytes=0-"),)):
            reply = await client.get(f"{ROOT}/blobs/{Digest.of(b'')}", *headers)
            assert (reply.status, reply.body) == (200, b"")
            assert reply.headers["Content-Length"] == "0"


async def test_SRV27_SRV30_many_ranges_are_parts_in_order(client: Client) -> None:
    specs = ",".join(f"{start}-{start + 2}" for start in range(0, 4096, 4))
    reply = await client.get(f"{ROOT}/blobs/{LARGE_DIGEST}", ("Range", f"bytes={specs}"))
    assert reply.status == 206
    assert "Content-Range" not in reply.headers
    kind, _, boundary = reply.headers["Content-Type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    first, *parts, last = reply.body.split(f"\r\n--{boundary}".encode())
    assert (first, last, len(parts)) == (b"", b"--\r\n", 1024)
    for number, part in enumerate(parts):
        head, _, content = part.partition(b"\r\n\r\n")
        start = 4 * number
        assert f"Content-Range: bytes {start}-{start + 2}/{len(LARGE)}".encode() in head
        assert content == LARGE[start : start + 3]
    assert reply.headers["Content-Length"] == str(len(reply.body))


async def test_SRV27_too_many_ranges_are_refused(client: Client) -> None:
    specs = ",".join(f"{2 * n}-{2 * n}" for n in range(1025))
    for header in (specs, "5-6,0-1", "0-5,3-9"):
        reply = await client.get(f"{ROOT}/blobs/{LARGE_DIGEST}", ("Range", f"bytes={header}"))
        assert (reply.status, reply.code) == (400, "RANGE_INVALID")


@pytest.mark.parametrize(
    "target",
    [
        *("/", "/team/app/manifests/latest", f"/team/app/blobs/{LARGE_DIGEST}"),
        *("/team/app/tags/list", f"/team/app/referrers/{OTHER}", "/other/manifests/latest"),
        *(f"/team/app/blobs/{OTHER}", "/team/app/manifests/sha256:bad"),
    ],
)
async def test_SRV28_HEAD_has_the_headers_of_GET(client: Client, target: str) -> None:
    get, head = await client.get(f"/v2{target}"), await client.head(f"/v2{target}")
    assert (head.status, head.body) == (get.status, b"")
    kept = [(name, value) for name, value in get.headers.items() if name.title() not in VOLATILE]
    assert [pair for pair in head.headers.items() if pair[0].title() not in VOLATILE] == kept
    assert head.headers["Content-Length"] == str(len(get.body))


async def test_SRV28_HEAD_reads_no_blob(
    client: Client, catalog: FakeCatalog, control: SourceControl
) -> None:
    reply = await client.head(
        f"{ROOT}/blobs/{LARGE_DIGEST}",
    )
    assert (reply.status, reply.headers["Content-Length"]) == (200, str(len(LARGE)))
    ranged = await client.head(f"{ROOT}/blobs/{LARGE_DIGEST}", ("Range", "bytes=0-1"))
    assert (ranged.status, ranged.headers["Content-Length"]) == (200, str(len(LARGE)))
    assert catalog.opened_blobs == []
    assert control.count("/blobs/*") == 0


@pytest.mark.parametrize("content", [SMALL, LARGE, b""], ids=["small", "large", "empty"])
async def test_SRV28_a_size_that_no_manifest_tells_is_asked_for(
    serve: Serve, catalog: FakeCatalog, session: Session, content: bytes
) -> None:
    catalog.names["team/app"] = hold_in_memory("app", build_image(layers=[content]))
    catalog.tells_sizes = False
    digest = Digest.of(content)
    async with serve(catalog, session) as client:
        head = await client.head(f"{ROOT}/blobs/{digest}")
        assert head.headers["Content-Length"] == str(len(content))
        assert catalog.opened_blobs == [(digest, 0, 1)]
        assert (await client.get(f"{ROOT}/blobs/{digest}")).body == content


# Lists


async def test_SRV07_tags_are_listed_in_pages(
    serve: Serve, catalog: FakeCatalog, session: Session
) -> None:
    catalog.tags = ("b", "a", "B", "1", "a")
    async with serve(catalog, session) as client:
        reply = await client.get(f"{ROOT}/tags/list")
        assert reply.json() == {"name": "team/app", "tags": ["1", "B", "a", "b"]}
        assert "Link" not in reply.headers
        first = await client.get(f"{ROOT}/tags/list?n=2&ns=reg.test")
        assert first.json()["tags"] == ["1", "B"]
        link = '</v2/team/app/tags/list?last=B&n=2&ns=reg.test>; rel="next"'
        assert first.headers["Link"] == link, "rule SRV-35"
        second = await client.get(link[1 : link.index(">")])
        assert second.json()["tags"] == ["a", "b"]
        assert "Link" not in second.headers
        between = await client.get(f"{ROOT}/tags/list?last=C")
        assert between.json()["tags"] == ["a", "b"]
        none = await client.get(f"{ROOT}/tags/list?n=0")
        assert (none.json()["tags"], "Link" in none.headers) == ([], False)
        wrong = await client.get(f"{ROOT}/tags/list?n=-1")
        assert (wrong.status, wrong.code) == (400, "PAGINATION_NUMBER_INVALID")


async def test_SRV07_SRV34_a_page_is_bounded(
    serve: Serve, catalog: FakeCatalog, session: Session
) -> None:
    catalog.tags = tuple(f"{number:0128}" for number in range(10_001))
    async with serve(catalog, session) as client:
        for query in ("", "?n=999999999999"):
            reply = await client.get(f"{ROOT}/tags/list{query}")
            assert len(reply.json()["tags"]) == 10_000
            assert len(reply.body) < 4 << 20
            assert f"last={9_999:0128}&n=10000" in reply.headers["Link"]


async def test_SRV07_no_tags_are_an_empty_list(
    serve: Serve, catalog: FakeCatalog, session: Session
) -> None:
    catalog.tags = ()
    async with serve(catalog, session) as client:
        assert json.loads((await client.get(f"{ROOT}/tags/list")).body)["tags"] == []


def describe(number: int, kind: str | None = "a/sbom", **annotations: str) -> Descriptor:
    return Descriptor(
        media_type=OCI_MANIFEST,
        digest=Digest.of(str(number).encode()),
        size=number,
        artifact_type=kind,
        annotations=annotations,
    )


async def test_SRV08_SRV34_referrers_are_an_index(
    serve: Serve, catalog: FakeCatalog, session: Session
) -> None:
    found = [describe(1, by="a"), describe(2, None), describe(3, "a/signature"), describe(1)]
    catalog.referrers = found
    async with serve(catalog, session) as client:
        reply = await client.get(f"{ROOT}/referrers/{OTHER}")
        assert (reply.status, reply.headers["Content-Type"]) == (200, OCI_INDEX)
        value = reply.json()
        assert (value["schemaVersion"], value["mediaType"]) == (2, OCI_INDEX)
        assert sorted(each["digest"] for each in value["manifests"]) == sorted(
            {each.digest for each in found}
        )
        (untyped,) = (each for each in value["manifests"] if each["digest"] == found[1].digest)
        assert "artifactType" not in untyped
        assert "OCI-Filters-Applied" not in reply.headers
        filtered = await client.get(f"{ROOT}/referrers/{OTHER}?artifactType=a/signature")
        assert [each["digest"] for each in filtered.json()["manifests"]] == [found[2].digest]
        assert filtered.headers["OCI-Filters-Applied"] == "artifactType"
        catalog.referrers = ()
        none = await client.get(f"{ROOT}/referrers/{OTHER}")
        assert (none.status, none.json()["manifests"]) == (200, [])
        wrong = await client.get(f"{ROOT}/referrers/sha256:bad")
        assert (wrong.status, wrong.code) == (400, "DIGEST_INVALID")


@pytest.mark.parametrize("query", ["n=2&artifactType=a/sbom&ns=reg.test", "artifactType=a/sbom"])
async def test_SRV08_SRV35_referrers_are_paged(
    serve: Serve, catalog: FakeCatalog, session: Session, query: str
) -> None:
    size = 10 if "n=2" in query else 1_500_000
    catalog.referrers = [describe(number, text="x" * size) for number in range(5)]
    target: str | None = f"{ROOT}/referrers/{OTHER}?{query}"
    seen: list[str] = []
    async with serve(catalog, session) as client:
        while target is not None:
            reply = await client.get(target)
            assert len(reply.body) <= 4 << 20
            seen += [each["digest"] for each in reply.json()["manifests"]]
            link = reply.headers.get("Link")
            target = None if link is None else link[1 : link.index(">")]
            if target is not None:
                assert "artifactType=a%2Fsbom" in target
                assert ("ns=reg.test" in target) == ("ns=" in query)
    assert seen == sorted(each.digest for each in catalog.referrers)


# Registries and freshness


async def test_SRV14_SRV35_the_answer_says_for_which_registry_it_is(
    client: Client, catalog: FakeCatalog
) -> None:
    for target in ("manifests/latest", f"blobs/{SMALL_DIGEST}", "tags/list", f"blobs/{OTHER}"):
        reply = await client.get(f"{ROOT}/{target}?ns=Reg.test")
        assert reply.headers["OCI-Namespace"] == "Reg.test"
        assert catalog.asked[-1][2] == "reg.test"
    assert "OCI-Namespace" not in (await client.get(f"{ROOT}/tags/list")).headers


async def test_SRV15_a_wrong_registry_asks_nothing(client: Client, catalog: FakeCatalog) -> None:
    for ns in ("", "http://reg.test", "a&ns=b"):
        reply = await client.get(f"{ROOT}/manifests/latest?ns={ns}")
        assert (reply.status, reply.code) == (400, "NAME_INVALID")
    assert catalog.asked == []


async def test_SRV33_what_is_stale_says_so(client: Client, catalog: FakeCatalog) -> None:
    catalog.stale, catalog.age = True, 61.5
    reply = await client.get(f"{ROOT}/manifests/latest")
    assert reply.headers["Warning"] == '299 - "stale"'
    assert reply.headers["Cache-Status"] == "asupplemented; fwd=stale"
    assert reply.headers["Age"] == "61"
    assert sum(len(name) + len(value) for name, value in reply.headers.items()) < 4096
    catalog.stale, catalog.age = False, 0.0
    reply = await client.get(f"{ROOT}/manifests/latest")
    assert "Warning" not in reply.headers
    assert reply.headers["Cache-Status"] == "asupplemented; fwd=uri-miss; stored"
    assert reply.headers["Age"] == "0"


# Errors


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("override", [(), (("X-HTTP-Method-Override", "GET"),)])
async def test_SRV09_SRV32_SEC17_nothing_is_written(
    client: Client, catalog: FakeCatalog, method: str, override: tuple[tuple[str, str], ...]
) -> None:
    for target in ("/v2/team/app/blobs/uploads/", f"{ROOT}/manifests/latest", "/v2/"):
        reply = await client.send(method, target, *override)
        assert (reply.status, reply.code) == (405, "UNSUPPORTED")
        assert reply.headers["Allow"] == "GET, HEAD"
    assert catalog.asked == []


async def test_a_header_does_not_change_the_method(client: Client, image: BuiltImage) -> None:
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"):
        reply = await client.get(f"{ROOT}/manifests/latest", (name, "DELETE"))
        assert (reply.status, reply.body) == (200, image.raw)


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (NetworkError("https://secret.example refused"), 502, "UNAVAILABLE"),
        (SourceTimeoutError("https://secret.example"), 504, "UNAVAILABLE"),
        (ServerError("secret", status=503, url="https://secret.example/v2"), 502, "UNAVAILABLE"),
        (UnauthorizedError("secret", status=401), 502, "UNAVAILABLE"),
        (ForbiddenError("secret", status=403), 502, "UNAVAILABLE"),
        (DigestMismatchError("secret"), 502, "UNAVAILABLE"),
        (TooManyRequestsError("secret", retry_after=7.2), 429, "TOOMANYREQUESTS"),
        (SlotTimeoutError("secret"), 503, "UNAVAILABLE"),
    ],
)
async def test_SRV11_SRV10_failures_of_upstream(
    client: Client, catalog: FakeCatalog, failure: Exception, status: int, code: str
) -> None:
    catalog.failure = failure
    for target in ("manifests/latest", f"blobs/{SMALL_DIGEST}", "tags/list", f"referrers/{OTHER}"):
        reply = await client.get(f"{ROOT}/{target}")
        assert (reply.status, reply.code) == (status, code)
        assert b"secret" not in reply.body
        assert "WWW-Authenticate" not in reply.headers
        assert reply.headers.get("Retry-After") == {429: "8", 503: "5"}.get(status)


async def test_SRV22_what_is_unreachable_is_not_absent(
    client: Client, catalog: FakeCatalog
) -> None:
    catalog.failure = NetworkError("refused")
    reply = await client.get(f"{ROOT}/manifests/latest")
    assert reply.status == 502


async def test_SRV11_what_is_refused_may_be_hidden(
    serve: Serve, catalog: FakeCatalog, session: Session
) -> None:
    async with serve(catalog, session, hide_refused=True) as client:
        for failure in (UnauthorizedError("x", status=401), ForbiddenError("x", status=403)):
            catalog.failure = failure
            reply = await client.get(f"{ROOT}/manifests/latest")
            assert (reply.status, reply.code) == (404, "NAME_UNKNOWN")


async def test_a_fault_of_the_catalog_is_reported_and_answered(
    client: Client, catalog: FakeCatalog
) -> None:
    told: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    catalog.failure = KeyError("https://secret.example")
    reply = await client.get(f"{ROOT}/manifests/latest")
    assert (reply.status, reply.code) == (500, "UNKNOWN")
    assert told == [catalog.failure]
    assert b"secret" not in reply.body


async def test_SRV25_the_head_comes_in_time(client: Client, catalog: FakeCatalog) -> None:
    catalog.gate = asyncio.Event()
    waiting = asyncio.ensure_future(client.get(f"{ROOT}/manifests/latest"))
    await until(lambda: catalog.asked)
    await let_pass(10)
    reply = await waiting
    assert (reply.status, reply.code) == (504, "UNAVAILABLE")


async def test_what_is_used_is_freed(
    client: Client, catalog: FakeCatalog, control: SourceControl
) -> None:
    for target in ("manifests/latest", f"blobs/{LARGE_DIGEST}", f"blobs/{OTHER}"):
        await client.get(f"{ROOT}/{target}")
        await client.head(f"{ROOT}/{target}")
    assert (catalog.open_images, control.left_open) == (0, 0)


async def test_a_body_of_a_request_is_ignored(client: Client, image: BuiltImage) -> None:
    reply = await client.get(f"{ROOT}/manifests/latest", body=b"x" * 100_000)
    assert (reply.status, reply.body) == (200, image.raw)


# Authentication


async def check_password(
    user: str, password: str, access: AccessRequest
) -> Identity | Denied | None:
    if password != "right":  # noqa: S105
        return None
    if access.name == "reg.test/team/app":
        return Denied()
    return Identity(user, {"reg.test": (user, password)})


async def test_SRV10_SRV32_basic(serve: Serve, catalog: FakeCatalog, session: Session) -> None:
    options = {"authenticate": basic(check_password, realm='my "registry"')}
    async with serve(catalog, session, **options) as client:
        for target in ("/v2/", f"{ROOT}/manifests/latest", f"{ROOT}/blobs/{SMALL_DIGEST}"):
            for headers in (
                (),
                (basic_header("ann", "wrong"),),
                (("Authorization", "Basic !"),),
                (("Authorization", "Basic YQ=="),),
                (("Authorization", "Bearer x"),),
                (basic_header("ann", "right"), basic_header("bob", "right")),
            ):
                reply = await client.get(target, *headers)
                assert (reply.status, reply.code) == (401, "UNAUTHORIZED")
                challenge = reply.headers["WWW-Authenticate"]
                assert challenge == 'Basic realm="my \\"registry\\""', "rule SRV-34"
        assert catalog.asked == [], "authorization is checked before anything is looked up (SRV-12)"
        ok = await client.get(f"{ROOT}/manifests/latest", basic_header("ann", "right"))
        assert ok.status == 200
        assert ok.headers["Cache-Control"] == "private, no-cache", "rule SRV-33"
        denied = await client.get(f"{ROOT}/tags/list?ns=reg.test", basic_header("ann", "right"))
        assert (denied.status, denied.code) == (403, "DENIED")
        await client.get(f"{ROOT}/manifests/latest", basic_header("bob", "right"))
    assert catalog.principals == ["ann", "bob"]


async def test_SRV10_SRV35_bearer(serve: Serve, catalog: FakeCatalog, session: Session) -> None:
    def check(token: str, access: AccessRequest) -> Identity | None:
        return Identity("ann") if token == "right" else None  # noqa: S105

    options = {
        "authenticate": bearer(check, realm="https://auth.example/token", service="reg.example")
    }
    async with serve(catalog, session, **options) as client:
        evil = (("Host", "evil.example"), ("X-Forwarded-Host", "evil.example"))
        ping = await client.get("/v2/", *evil)
        realm = 'Bearer realm="https://auth.example/token",service="reg.example"'
        assert (ping.status, ping.headers["WWW-Authenticate"]) == (401, realm)
        wrong = await client.get(f"{ROOT}/tags/list", ("Authorization", "Bearer wrong"))
        scope = ',scope="repository:team/app:pull"'
        assert (wrong.status, wrong.headers["WWW-Authenticate"]) == (401, realm + scope)
        right = await client.get(f"{ROOT}/tags/list", ("Authorization", "bearer right"))
        assert right.status == 200


async def test_SRV20_the_authorization_of_a_client_is_not_sent_on(
    serve: Serve, catalog: FakeCatalog, session: Session, image: BuiltImage
) -> None:
    async with serve(catalog, session) as client:
        reply = await client.get(f"{ROOT}/manifests/latest", basic_header("ann", "secret"))
    assert reply.body == image.raw
    assert catalog.principals == [None]


async def test_a_client_may_share_what_is_fetched_with_all_others(
    serve: Serve, catalog: FakeCatalog, session: Session
) -> None:
    authenticate = basic(lambda user, _password, _access: Identity(user, shared=True))
    async with serve(catalog, session, authenticate=authenticate) as client:
        for user in ("ann", "bob"):
            reply = await client.get(f"{ROOT}/manifests/latest", basic_header(user, "any"))
            assert (reply.status, reply.headers["Cache-Control"]) == (200, "private, no-cache")
    assert catalog.principals == [None, None]


def test_a_challenge_is_printable() -> None:
    with pytest.raises(ValueError, match="printable"):
        Challenge("Basic", {"realm": "a\r\nb"})


def test_an_identity_does_not_show_its_credentials() -> None:
    assert "secret" not in repr(Identity("ann", {"reg.test": ("ann", "secret")}))


@pytest.mark.parametrize("limits", [{"head": 0}, {"stall": -1.0}, {"write": float("nan")}])
def test_limits_are_above_0(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Limits(**limits)
