"""The right-behaving side of the registry, by the rules of serving."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from asupplemented.model.digest import Digest
from asupplemented.model.media_type import OCI_INDEX, OCI_MANIFEST
from asupplemented.testing import FakeRegistry, build_artifact, build_image, build_index

if TYPE_CHECKING:
    import aiohttp

AMD64 = build_image()
ARM = build_image("linux/arm/v7")
INDEX = build_index([AMD64, ARM])
LAYER = AMD64.layers[0]
UNKNOWN = "sha256:" + "0" * 64


@pytest.mark.parametrize("path", ["/v2/", "/v2"])
async def test_SRV01_ping(registry: FakeRegistry, http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(registry.url + path) as answer:
        assert answer.status == 200
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
        assert await answer.read() == b"{}"


@pytest.mark.parametrize("key", ["latest", INDEX.digest])
async def test_SRV02_a_manifest(
    registry: FakeRegistry, http: aiohttp.ClientSession, key: str
) -> None:
    assert registry.add("team/app", INDEX) == f"docker://{registry.host}/team/app:latest"
    async with http.get(f"{registry.url}/v2/team/app/manifests/{key}") as answer:
        assert answer.status == 200
        assert await answer.read() == INDEX.raw
        headers = answer.headers
    assert headers["Content-Type"] == OCI_INDEX
    assert headers["Content-Length"] == str(len(INDEX.raw))
    assert headers["Docker-Content-Digest"] == INDEX.digest
    assert headers["ETag"] == f'"{INDEX.digest}"'
    async with http.head(f"{registry.url}/v2/team/app/manifests/{key}") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
        assert answer.headers == headers


async def test_SRV02_a_digest_of_another_algorithm(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    image = build_image(algorithm="sha512")
    reference = registry.add("app", image, tag=None)
    assert reference == f"docker://{registry.host}/app@{image.digest}"
    async with http.get(f"{registry.url}/v2/app/manifests/{image.digest}") as answer:
        assert answer.headers["Docker-Content-Digest"] == image.digest


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/app/manifests/other", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/app/manifests/{UNKNOWN}", 404, "MANIFEST_UNKNOWN"),
        ("/v2/app/manifests/sha256:baddigeststring", 404, "MANIFEST_UNKNOWN"),
        ("/v2/other/manifests/latest", 404, "NAME_UNKNOWN"),
        (f"/v2/app/blobs/{UNKNOWN}", 404, "BLOB_UNKNOWN"),
        ("/v2/app/blobs/sha256:bad", 400, "DIGEST_INVALID"),
        ("/v2/app/referrers/sha256:bad", 400, "DIGEST_INVALID"),
        ("/v2/app/tags/other", 404, "NOT_FOUND"),
        ("/v2/other/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/app/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/app/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/_catalog", 404, "NOT_FOUND"),
        ("/else", 404, "NOT_FOUND"),
    ],
    ids=lambda value: f"SRV-04 {value}" if isinstance(value, str) else None,
)
async def test_SRV09_errors_are_json(
    registry: FakeRegistry, http: aiohttp.ClientSession, path: str, status: int, code: str
) -> None:
    registry.add("app", AMD64)
    async with http.get(registry.url + path) as answer:
        assert (answer.status, answer.content_type) == (status, "application/json")
        (error,) = (await answer.json())["errors"]
    assert error["code"] == code
    assert set(error) == {"code", "message", "detail"}
    async with http.head(registry.url + path) as answer:
        assert (answer.status, await answer.read()) == (status, b"")


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["manifests/latest", f"blobs/{LAYER}", "blobs/uploads/"])
async def test_SRV09_writes_are_refused(
    registry: FakeRegistry, http: aiohttp.ClientSession, method: str, path: str
) -> None:
    registry.add("app", AMD64)
    url = f"{registry.url}/v2/app/{path}"
    async with http.request(method, url, data=b"x") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
        assert (await answer.json())["errors"][0]["code"] == "UNSUPPORTED"


@pytest.mark.parametrize("condition", [f'"{AMD64.digest}"', AMD64.digest])
async def test_SRV03_a_manifest_that_the_client_has(
    registry: FakeRegistry, http: aiohttp.ClientSession, condition: str
) -> None:
    registry.add("app", AMD64)
    url = f"{registry.url}/v2/app/manifests/latest"
    async with http.get(url, headers={"If-None-Match": condition}) as answer:
        assert (answer.status, await answer.read()) == (304, b"")
    async with http.get(url, headers={"If-None-Match": '"other"'}) as answer:
        assert answer.status == 200


async def test_SRV05_a_blob(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    registry.add("app", AMD64)
    async with http.get(f"{registry.url}/v2/app/blobs/{LAYER}") as answer:
        assert (answer.status, await answer.read()) == (200, AMD64.blobs[LAYER])
        headers = answer.headers
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Content-Length"] == str(len(AMD64.blobs[LAYER]))
    assert headers["Docker-Content-Digest"] == LAYER
    assert headers["ETag"] == f'"{LAYER}"'
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["Cache-Control"] == "max-age=31536000"
    async with http.head(f"{registry.url}/v2/app/blobs/{LAYER}") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
        assert answer.headers == headers


async def test_SRV06_a_range_of_a_blob(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    digest = registry.put_blob("app", b"0123456789")
    url = f"{registry.url}/v2/app/blobs/{digest}"
    async with http.get(url, headers={"Range": "bytes=2-4"}) as answer:
        assert (answer.status, await answer.read()) == (206, b"234")
        assert answer.headers["Content-Range"] == "bytes 2-4/10"
    async with http.get(url, headers={"Range": "bytes=10-"}) as answer:
        assert (answer.status, await answer.read()) == (416, b"")
        assert answer.headers["Content-Range"] == "bytes */10"
    async with http.get(url, headers={"Range": "bytes=2-4", "If-Range": '"else"'}) as answer:
        assert (answer.status, await answer.read()) == (200, b"0123456789")


async def test_a_digest_may_lie(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    assert registry.put_manifest("app", b"{}", "text/x", tag="t", digest=UNKNOWN) == UNKNOWN
    assert registry.put_blob("app", b"lie", digest=UNKNOWN) == UNKNOWN
    async with http.get(f"{registry.url}/v2/app/manifests/t") as answer:
        assert (answer.headers["Docker-Content-Digest"], await answer.read()) == (UNKNOWN, b"{}")
        assert answer.headers["Content-Type"] == "text/x"
    async with http.get(f"{registry.url}/v2/app/blobs/{UNKNOWN}") as answer:
        assert await answer.read() == b"lie"


async def test_holes_are_holes(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    registry.add("app", INDEX, include=[ARM.digest], omit=[ARM.config])
    found: dict[str, int] = {}
    for kind, digest in [
        ("manifests", INDEX.digest),
        ("manifests", AMD64.digest),
        ("manifests", ARM.digest),
        ("blobs", ARM.config),
        ("blobs", ARM.layers[0]),
    ]:
        async with http.get(f"{registry.url}/v2/app/{kind}/{digest}") as answer:
            found[digest] = answer.status
    assert list(found.values()) == [200, 404, 200, 404, 200]


TAGS = ["1", "10", "2", "Z", "_", "a"]


@pytest.mark.parametrize(
    ("query", "tags", "link"),
    [
        ("", TAGS, None),
        ("?n=0", [], None),
        ("?n=6", TAGS, None),
        ("?n=2", ["1", "10"], '</v2/app/tags/list?last=10&n=2>; rel="next"'),
        ("?n=2&last=10", ["2", "Z"], '</v2/app/tags/list?last=Z&n=2>; rel="next"'),
        ("?n=2&last=Z", ["_", "a"], None),
        ("?last=11", ["2", "Z", "_", "a"], None),
        ("?last=z", [], None),
    ],
)
async def test_SRV07_tags(
    registry: FakeRegistry,
    http: aiohttp.ClientSession,
    query: str,
    tags: list[str],
    link: str | None,
) -> None:
    for tag in reversed(TAGS):
        registry.add("app", AMD64, tag=tag)
    async with http.get(f"{registry.url}/v2/app/tags/list{query}") as answer:
        assert await answer.json() == {"name": "app", "tags": tags}
        assert answer.headers.get("Link") == link


async def test_SRV07_the_registry_clamps_the_page(http: aiohttp.ClientSession) -> None:
    async with FakeRegistry(page_size=4) as registry:
        for tag in TAGS:
            registry.add("app", AMD64, tag=tag)
        url: str | None = "/v2/app/tags/list?n=100"
        seen: list[list[str]] = []
        while url is not None:
            async with http.get(registry.url + url) as answer:
                seen.append((await answer.json())["tags"])
                link = answer.headers.get("Link")
            url = None if link is None else link.partition(";")[0].strip("<>")
    assert seen == [TAGS[:4], TAGS[4:]]


async def test_SRV07_a_repository_without_tags(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    registry.add("app", AMD64, tag=None)
    async with http.get(f"{registry.url}/v2/app/tags/list") as answer:
        assert json.loads(await answer.read())["tags"] == []


SBOM = build_artifact("application/sbom", b"1", subject=AMD64, annotations={"k": "v"})
SIGNATURE = build_artifact("application/signature", b"2", subject=AMD64)
CHILD = build_image("linux/s390x", subject=AMD64)
PARENT = build_index([ARM], subject=AMD64)


async def test_SRV08_referrers(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    for built in (AMD64, SBOM, SIGNATURE, CHILD, PARENT, ARM):
        registry.add("app", built, tag=None)
    registry.put_manifest("app", b"[]", OCI_MANIFEST)
    registry.put_manifest("app", b"{", OCI_MANIFEST)
    async with http.get(f"{registry.url}/v2/app/referrers/{AMD64.digest}") as answer:
        assert (answer.status, answer.content_type) == (200, OCI_INDEX)
        assert "OCI-Filters-Applied" not in answer.headers
        entries = {
            entry["digest"]: entry for entry in (await answer.json(content_type=None))["manifests"]
        }
    assert list(entries) == sorted(b.digest for b in (SBOM, SIGNATURE, CHILD, PARENT))
    assert entries[SBOM.digest] == {
        "mediaType": OCI_MANIFEST,
        "digest": SBOM.digest,
        "size": len(SBOM.raw),
        "artifactType": "application/sbom",
        "annotations": {"k": "v"},
    }
    assert entries[CHILD.digest]["artifactType"] == "application/vnd.oci.image.config.v1+json"
    assert "artifactType" not in entries[PARENT.digest]


async def test_SRV08_referrers_by_type(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    for built in (AMD64, SBOM, SIGNATURE):
        registry.add("app", built, tag=None)
    url = f"{registry.url}/v2/app/referrers/{AMD64.digest}?artifactType=application/sbom"
    async with http.get(url) as answer:
        assert answer.headers["OCI-Filters-Applied"] == "artifactType"
        (entry,) = (await answer.json(content_type=None))["manifests"]
    assert entry["digest"] == SBOM.digest


async def test_SRV08_no_referrers_is_an_empty_index(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    registry.add("app", AMD64)
    async with http.get(f"{registry.url}/v2/app/referrers/{UNKNOWN}") as answer:
        assert answer.status == 200
        assert (await answer.json(content_type=None))["manifests"] == []


async def test_SRV08_referrers_come_in_pages(http: aiohttp.ClientSession) -> None:
    async with FakeRegistry(page_size=1) as registry:
        for built in (AMD64, SBOM, SIGNATURE):
            registry.add("app", built, tag=None)
        url: str | None = f"/v2/app/referrers/{AMD64.digest}"
        seen: list[str] = []
        while url is not None:
            async with http.get(registry.url + url) as answer:
                (entry,) = (await answer.json(content_type=None))["manifests"]
                seen.append(entry["digest"])
                link = answer.headers.get("Link")
            url = None if link is None else link.partition(";")[0].strip("<>")
    assert seen == sorted([SBOM.digest, SIGNATURE.digest])


async def test_REFR02_a_registry_without_the_referrers_api(http: aiohttp.ClientSession) -> None:
    async with FakeRegistry(referrers=False) as registry:
        registry.add("app", AMD64)
        async with http.get(f"{registry.url}/v2/app/referrers/{AMD64.digest}") as answer:
            assert answer.status == 404


async def test_files_beside_the_api(registry: FakeRegistry, http: aiohttp.ClientSession) -> None:
    url = registry.put_file("/storage/x y", b"0123456789", "text/plain")
    async with http.get(url, headers={"Range": "bytes=-2"}) as answer:
        assert (answer.status, await answer.read()) == (206, b"89")
        assert answer.content_type == "text/plain"


async def test_everything_in_a_repository_can_be_changed(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    registry.add("app", AMD64)
    registry.repository("app").tags["latest"] = registry.put_manifest("app", b"new", "text/x")
    async with http.get(f"{registry.url}/v2/app/manifests/latest") as answer:
        assert await answer.read() == b"new"
        assert Digest(answer.headers["Docker-Content-Digest"]).matches(b"new")


async def test_names_are_decoded_as_servers_do(
    registry: FakeRegistry, http: aiohttp.ClientSession
) -> None:
    from yarl import URL

    registry.add("app", AMD64)
    escaped = AMD64.digest.replace(":", "%3A")
    target = f"/v2/app/manifests/{escaped}"
    async with http.get(URL(registry.url + target, encoded=True)) as answer:
        assert answer.status == 200
    assert registry.requests[-1].target == target
    assert registry.requests[-1].path == f"/v2/app/manifests/{AMD64.digest}"
