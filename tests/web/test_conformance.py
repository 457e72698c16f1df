"""What the conformance suite of the distribution specification asks of a registry to pull from.

The suite is a Go program that pushes first, or is told of content that is there (rule CONFM-03).
Its checks of pulling, of discovery and of errors are made here in our own words, over HTTP, against
both applications before a registry with all kinds of content that the suite makes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from asupplemented import Catalog, Session
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import OCI_INDEX, OCI_MANIFEST
from asupplemented.testing import FakeRegistry, build_artifact, build_image, build_index
from asupplemented.testing.images import describe
from tests.web.clients import Client, Reply
from tests.web.servers import aiohttp_port, uvicorn_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from asupplemented.testing.images import Built
    from tests.web.clients import Headers

REPOSITORY: Final = "conformance/repo"
ROOT: Final = f"/v2/{REPOSITORY}"
ABSENT: Final = Digest.of(b"nothing has this digest")
ABSENT_512: Final = Digest.of(b"nothing has this digest", "sha512")
BLOB: Final = hashlib.shake_256(b"ranges").digest(2048)
ACCEPT: Final = (("Accept", OCI_INDEX), ("Accept", OCI_MANIFEST))
"""In two lines, as the suite sends them (rule SRV-21)."""


@dataclass
class Content:
    """A kind of content, as the suite generates it."""

    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict[str, tuple[bytes, str]])
    """Digest to bytes and media type."""
    blobs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    tags: dict[str, str] = field(default_factory=dict[str, str])
    referrers: dict[str, list[dict[str, Any]]] = field(
        default_factory=dict[str, list[dict[str, Any]]]
    )
    """Digest of the subject to the descriptors of what refers to it."""

    def add(self, top: Built, tag: str | None = None) -> Content:
        for built in top.walk():
            self.manifests[built.digest] = (built.raw, built.media_type)
            subject = json.loads(built.raw).get("subject")
            if subject is not None:
                self.referrers.setdefault(subject["digest"], []).append(refer(built))
        self.blobs |= top.blobs
        if tag is not None:
            self.tags[tag] = top.digest
        return self

    def add_raw(self, document: Mapping[str, Any], tag: str) -> Content:
        raw = json.dumps(document).encode()
        self.manifests[Digest.of(raw)] = (raw, document["mediaType"])
        self.tags[tag] = Digest.of(raw)
        return self


def refer(built: Built) -> dict[str, Any]:
    """The descriptor of a manifest in a list of referrers."""
    document = json.loads(built.raw)
    kind = built.artifact_type or document.get("config", {}).get("mediaType")
    entry = {"mediaType": built.media_type, "digest": built.digest, "size": len(built.raw)}
    if kind is not None:
        entry["artifactType"] = kind
    if built.annotations:
        entry["annotations"] = dict(built.annotations)
    return entry


AMD, ARM = build_image("linux/amd64"), build_image("linux/arm64")
INDEX = build_index([AMD, ARM])
NOTE = {"org.example.note": "as the suite has it"}


def with_fields(built: Built, **fields: Any) -> dict[str, Any]:
    """The document of a manifest with further fields."""
    return json.loads(built.raw) | fields


def with_data() -> Content:
    """Descriptors that hold their content."""
    document = json.loads(AMD.raw)
    for each in (document["config"], *document["layers"]):
        content = AMD.blobs[Digest(each["digest"])]
        each["data"] = base64.b64encode(content).decode()
    content = Content(blobs=dict(AMD.blobs))
    return content.add_raw(document, "data-field")


def with_foreign_layers() -> Content:
    """Layers that no registry may hold, and one that it holds."""
    foreign = {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": Digest.of(b"foreign"),
        "size": 123456,
        "urls": ["https://store.example.com/blobs/foreign"],
    }
    document = json.loads(AMD.raw)
    document["layers"].insert(0, foreign)
    return Content(blobs=dict(AMD.blobs)).add_raw(document, "foreign")


def sparse() -> Content:
    """An image without one of its layers, and an index without one of its images."""
    image = build_image(layers=[b"held", b"lost"])
    index = build_index([AMD, describe(build_image("linux/riscv64"))])
    content = Content().add(image, "sparse-image").add(index, "sparse-index")
    del content.blobs[Digest.of(b"lost")]
    return content


KINDS: Final = {
    "image": Content().add(AMD, "image"),
    "image-uncompressed": Content().add(build_image(layers=[b"plain"]), "image-uncompressed"),
    "large-manifest": Content(blobs=dict(AMD.blobs)).add_raw(
        with_fields(AMD, annotations={f"large-{number}": "A" * 10_000 for number in range(390)}),
        "large-manifest",
    ),
    "index": Content().add(INDEX, "index"),
    "nested-index": Content().add(build_index([INDEX, build_index([ARM])]), "nested-index"),
    "empty-index": Content().add(build_index([]), "empty-index"),
    "artifact": Content().add(build_artifact("a/one", b"payload"), "artifact"),
    "artifact-index": Content(blobs=dict(AMD.blobs) | dict(ARM.blobs))
    .add(AMD)
    .add(ARM)
    .add_raw(with_fields(INDEX, artifactType="a/one"), "artifact-index"),
    "artifact-without-layers": Content().add(build_artifact("a/one", b"{}"), "no-payload"),
    "artifacts-with-subject": Content()
    .add(AMD, "image")
    .add(build_image(layers=[b"refers"], subject=AMD))
    .add(build_artifact("a/one", b"1", subject=AMD, annotations=NOTE), "artifact1")
    .add(build_artifact("a/two", b"2", subject=AMD, annotations=NOTE), "artifact2"),
    "index-with-subject": Content()
    .add(INDEX, "index")
    .add(build_index([ARM], subject=INDEX, annotations=NOTE), "refers"),
    "missing-subject": Content().add(
        build_artifact("a/one", b"1", subject=build_image(layers=[b"never pushed"])), "refers"
    ),
    "data-field": with_data(),
    "non-distributable-layers": with_foreign_layers(),
    "custom-fields": Content(blobs=dict(AMD.blobs)).add_raw(
        with_fields(AMD, **{"org.example.field": {"of": ["any", "kind"]}}), "custom-fields"
    ),
    "no-layers": Content().add(build_image(layers=[]), "no-layers"),
    "empty-blob": Content().add(build_image(layers=[b""]), "empty-blob"),
    "sparse": sparse(),
    # Under a tag that says nothing of its digest it would have that of sha256.
    "sha512": Content().add(build_index([build_image(algorithm="sha512")], algorithm="sha512")),
}
"""What the suite pulls, by the names that it has for it."""


@pytest.fixture
async def upstream() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        opened.add(REPOSITORY, build_image(layers=[BLOB]), tag="ranges")
        yield opened


@pytest.fixture(params=[aiohttp_port, uvicorn_port], ids=["aiohttp", "uvicorn"])
async def client(request: pytest.FixtureRequest, upstream: FakeRegistry) -> AsyncIterator[Client]:
    """A client of one of the applications, over HTTP."""
    async with AsyncExitStack() as scope:
        session = await scope.enter_async_context(Session(tls_verify=False))
        names = {"conformance/*": f"docker://{upstream.host}/{{name}}"}
        catalog = await scope.enter_async_context(Catalog(names))
        port = await scope.enter_async_context(request.param(catalog, session))
        http = await scope.enter_async_context(aiohttp.ClientSession(auto_decompress=False))

        async def fetch(method: str, target: str, headers: Headers, body: bytes) -> Reply:
            url = URL(f"http://127.0.0.1:{port}{target}", encoded=True)
            async with http.request(method, url, headers=CIMultiDict(headers), data=body) as answer:
                return Reply(answer.status, CIMultiDict(answer.headers), await answer.read())

        yield Client(fetch)


def put(upstream: FakeRegistry, content: Content) -> None:
    for digest, (raw, media_type) in content.manifests.items():
        upstream.put_manifest(REPOSITORY, raw, media_type, digest=digest)
    for digest, data in content.blobs.items():
        upstream.put_blob(REPOSITORY, data, digest=digest)
    upstream.repository(REPOSITORY).tags |= content.tags


# Pull


@pytest.mark.parametrize("kind", KINDS)
async def test_CONFM04_all_kinds_of_content_are_pulled(
    client: Client, upstream: FakeRegistry, kind: str
) -> None:
    content = KINDS[kind]
    put(upstream, content)
    for reference, digest in (*content.tags.items(), *((each, each) for each in content.manifests)):
        raw, media_type = content.manifests[digest]
        target = f"{ROOT}/manifests/{reference}"
        head, get = await client.head(target, *ACCEPT), await client.get(target, *ACCEPT)
        assert (head.status, head.body, get.status) == (200, b"", 200), reference
        assert get.body == raw
        for reply in (head, get):
            assert reply.headers["Content-Type"] == media_type
            assert reply.headers["Content-Length"] == str(len(raw))
            assert reply.headers["Docker-Content-Digest"] == digest, "rule SRV-34"
    for digest, data in content.blobs.items():
        target = f"{ROOT}/blobs/{digest}"
        head, get = await client.head(target), await client.get(target)
        assert (head.status, head.body, get.status) == (200, b"", 200), digest
        assert get.body == data
        for reply in (head, get):
            assert reply.headers["Content-Length"] == str(len(data))
            assert reply.headers["Docker-Content-Digest"] == digest, "rule SRV-34"
    tags = await client.get(f"{ROOT}/tags/list")
    assert set(content.tags) <= set(tags.json()["tags"])
    for subject, expected in content.referrers.items():
        await check_referrers(client, subject, expected)


async def check_referrers(client: Client, subject: str, expected: list[dict[str, Any]]) -> None:
    reply = await list_referrers(client, subject)
    assert sort(reply.json()["manifests"]) == sort(expected)
    assert "OCI-Filters-Applied" not in reply.headers
    for kind in {each.get("artifactType", "") for each in expected} - {""}:
        reply = await list_referrers(client, subject, f"?artifactType={quote(kind, safe='')}")
        assert reply.headers["OCI-Filters-Applied"] == "artifactType"
        wanted = [each for each in expected if each.get("artifactType") == kind]
        assert sort(reply.json()["manifests"]) == sort(wanted)


async def list_referrers(client: Client, subject: str, query: str = "") -> Reply:
    reply = await client.get(f"{ROOT}/referrers/{subject}{query}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, OCI_INDEX)
    assert (reply.json()["schemaVersion"], reply.json()["mediaType"]) == (2, OCI_INDEX)
    return reply


def sort(descriptors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(descriptors, key=lambda each: each["digest"])


@pytest.mark.parametrize(
    ("wanted", "status", "start", "end"),
    [
        ("500-1499", 206, 500, 1500),
        ("500-", 206, 500, 2048),
        ("-500", 206, 1548, 2048),
        ("2000-5000", 206, 2000, 2048),
        ("5000-10000", 416, 0, 0),
        # The suite takes this or 416; RFC 9110 has an invalid range ignored (rule SRV-30).
        ("500-0", 200, 0, 2048),
    ],
)
async def test_CONFM04_SRV06_ranges_of_a_cold_blob(
    client: Client, wanted: str, status: int, start: int, end: int
) -> None:
    reply = await client.get(f"{ROOT}/blobs/{Digest.of(BLOB)}", ("Range", f"bytes={wanted}"))
    assert reply.status == status
    if status == 416:
        assert reply.headers["Content-Range"] == "bytes */2048"
        return
    assert reply.body == BLOB[start:end]
    assert reply.headers["Content-Length"] == str(end - start)
    if status == 206:
        assert reply.headers["Content-Range"] == f"bytes {start}-{end - 1}/2048"


# Discovery


async def test_CONFM04_SRV01_ping(client: Client) -> None:
    for target in ("/v2/", "/v2"):
        reply = await client.get(target)
        assert (reply.status, reply.json()) == (200, {})
        assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


async def test_CONFM04_SRV07_SRV35_tags_are_listed_in_parts(
    client: Client, upstream: FakeRegistry
) -> None:
    tags = ["1.0", "1.1", "Release", "edge", "latest", "old"]
    upstream.repository(REPOSITORY).tags = dict.fromkeys(tags, AMD.digest)
    whole = await client.get(f"{ROOT}/tags/list")
    assert whole.json() == {"name": REPOSITORY, "tags": tags}
    assert "Link" not in whole.headers
    for last, expected in (("Release", tags[3:]), ("nothing has this tag", tags[5:]), ("old", [])):
        part = await client.get(f"{ROOT}/tags/list?last={last.replace(' ', '%20')}")
        assert part.json()["tags"] == expected
    for limit in (0, 3, 6, 100):
        part = await client.get(f"{ROOT}/tags/list?n={limit}")
        assert part.json()["tags"] == tags[:limit]
        assert ("Link" in part.headers) == (limit == 3)
    found: list[str] = []
    target: str | None = f"{ROOT}/tags/list?n=4"
    while target is not None:
        page = await client.get(target)
        found += page.json()["tags"]
        link = page.headers.get("Link")
        target = None if link is None else link[1 : link.index(">")]
        assert link is None or link.endswith('>; rel="next"')
    assert found == tags


@pytest.mark.parametrize("subject", [ABSENT, ABSENT_512])
async def test_CONFM04_SRV08_what_has_no_referrers_has_an_empty_list(
    client: Client, subject: Digest
) -> None:
    for query in ("", "?artifactType=a%2Fone"):
        assert (await list_referrers(client, subject, query)).json()["manifests"] == []
    # The suite asks for them before it pushes anything, so the repository need not exist.
    none = await client.get(f"/v2/conformance/other/referrers/{subject}")
    assert (none.status, none.json()["manifests"]) == (200, [])


# Errors


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        (f"{ROOT}/manifests/{ABSENT}", 404, "MANIFEST_UNKNOWN"),
        (f"{ROOT}/manifests/{ABSENT_512}", 404, "MANIFEST_UNKNOWN"),
        (f"{ROOT}/manifests/.INVALID_MANIFEST_NAME", 404, "MANIFEST_UNKNOWN"),
        (f"{ROOT}/manifests/missing-tag", 404, "MANIFEST_UNKNOWN"),
        (f"{ROOT}/manifests/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        (f"{ROOT}/manifests/sha256:totallywrong", 400, "DIGEST_INVALID"),
        (f"{ROOT}/blobs/{ABSENT}", 404, "BLOB_UNKNOWN"),
        (f"{ROOT}/blobs/{ABSENT_512}", 404, "BLOB_UNKNOWN"),
        (f"{ROOT}/blobs/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        (f"{ROOT}/blobs/{ABSENT.upper()}", 400, "DIGEST_INVALID"),
        (f"{ROOT}/referrers/sha256:baddigeststring", 400, "DIGEST_INVALID"),
        (f"{ROOT}/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        (f"{ROOT}/tags/list?n=many", 400, "PAGINATION_NUMBER_INVALID"),
        ("/v2/conformance/other/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/elsewhere/repo/tags/list", 404, "NAME_UNKNOWN"),
        ("/v2/Conformance/repo/tags/list", 400, "NAME_INVALID"),
    ],
)
async def test_CONFM04_SRV02_SRV04_SRV09_errors(
    client: Client, target: str, status: int, code: str
) -> None:
    get, head = await client.get(target), await client.head(target)
    assert (get.status, get.code) == (status, code)
    assert (head.status, head.body) == (status, b"")
    assert head.headers["Content-Length"] == str(len(get.body)), "rule SRV-28"


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
async def test_CONFM03_SRV09_SEC17_nothing_can_be_pushed_or_deleted(
    client: Client, upstream: FakeRegistry, method: str
) -> None:
    for target in (
        f"manifests/{AMD.digest}",
        "manifests/ranges",
        "manifests/sha256:totallywrong",
        f"blobs/{Digest.of(BLOB)}",
        "blobs/uploads/",
        f"blobs/uploads/?mount={ABSENT}&from=conformance/other",
    ):
        reply = await client.send(method, f"{ROOT}/{target}")
        assert (reply.status, reply.code) == (405, "UNSUPPORTED")
        assert reply.headers["Allow"] == "GET, HEAD"
    assert upstream.requests == []
