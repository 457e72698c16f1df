"""What goes over the wire for an image, and what counts as an answer."""

from __future__ import annotations

import asyncio
import gzip
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from yarl import URL

from asupplemented.abc import Timeouts
from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    ImageNotFoundError,
    InvalidDigestError,
    LimitExceededError,
    MalformedResponseError,
    ManifestNotFoundError,
    NetworkError,
    SourceTimeoutError,
    TruncatedError,
    UnexpectedStatusError,
    VerificationError,
    excerpt,
)
from asupplemented.events import Warned
from asupplemented.limits import MAX_MANIFEST, MIB
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import ACCEPT, OCI_INDEX
from asupplemented.testing import (
    Bearer,
    Body,
    Chunked,
    CloseDelimited,
    ContentLength,
    Cut,
    Endless,
    FakeRegistry,
    Headers,
    Html,
    Stall,
    Status,
    build_image,
)
from asupplemented.transports import parse_reference
from asupplemented.transports.registry import RegistryReference
from asupplemented.transports.registry.bodies import read_whole
from asupplemented.transports.registry.options import RegistryOptions
from tests.suspending import run_leaping
from tests.transports.registry.sessions import (
    BLOB,
    BLOB_DIGEST,
    IMAGE,
    OPTIONS_HERE,
    fill,
    limited,
    read_blob,
    watch,
)

if TYPE_CHECKING:
    from tests.transports.registry.sessions import Watched

ABSENT = Digest.of(b"absent")


async def test_SRC01_opening_reads_the_default_manifest_once(
    registry: FakeRegistry, watched: Watched
) -> None:
    async with await watched.open(fill(registry)) as source:
        assert (await source.get_manifest()).raw == IMAGE.raw
    assert [r.path for r in registry.requests] == ["/v2/team/app/manifests/latest"]


async def test_SRC01_a_missing_image_fails_at_open(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    for missing in ("team/app:none", "nobody/here:latest", f"team/app@{ABSENT}"):
        reference = f"docker://{registry.host}/{missing}"
        with pytest.raises(ImageNotFoundError) as caught:
            await watched.open(reference)
        assert caught.value.reference == reference


async def test_SRC02_what_a_source_says_of_itself(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry).removesuffix(":latest")
    async with await watched.open(reference) as source:
        assert source.concurrent_blobs
        assert await source.layers_for_copy() is None
        assert str(source.reference) == f"{reference}:latest"
        async with source.open_parts(BLOB_DIGEST, [(5, 10)]) as parts:
            assert [[chunk async for chunk in part] async for part in parts] == [[BLOB[5:10]]]


async def test_SRC02_closing_twice_is_closing_once(
    registry: FakeRegistry, watched: Watched
) -> None:
    one, other = [await watched.open(fill(registry)) for _ in range(2)]
    for _ in range(3):
        await one.aclose()
    assert repr(watched.pool).endswith(" 1 leases>")
    await other.get_manifest()
    await other.aclose()


async def test_SRC02_an_open_that_failed_leaves_nothing_to_close(
    registry: FakeRegistry, watched: Watched
) -> None:
    for reference in (registry.reference("nobody/here"), "docker://127.0.0.1:1/a"):
        with pytest.raises((ImageNotFoundError, NetworkError)):
            await watched.open(reference)
        assert repr(watched.pool).endswith(" 0 leases>")


async def test_HTTP01_HTTP02_the_headers_of_a_manifest_request(
    registry: FakeRegistry, watched: Watched
) -> None:
    await watched.try_open(fill(registry))
    request = registry.select_requests("latest")[0]
    accepted = [value for name, value in request.headers if name == "Accept"]
    assert accepted == [", ".join(ACCEPT)]
    assert request.header("Docker-Distribution-API-Version") == "registry/2.0"
    assert (request.header("User-Agent") or "").startswith("asupplemented")
    assert request.header("Accept-Encoding") == "identity"
    for unwanted in ("Authorization", "Cookie", "Range"):
        assert request.header(unwanted) is None


async def test_HTTP01_every_request_carries_the_version_and_the_chosen_agent(
    registry: FakeRegistry,
) -> None:
    async with watch(options=replace(OPTIONS_HERE, user_agent="proxy/1")) as watched:
        await read_blob(watched, fill(registry))
    for request in registry.requests:
        assert request.header("User-Agent") == "proxy/1"
        assert request.header("Docker-Distribution-API-Version") == "registry/2.0"


async def test_BLOB03_the_request_for_a_blob(registry: FakeRegistry, watched: Watched) -> None:
    assert await read_blob(watched, fill(registry)) == BLOB
    request = registry.requests[-1]
    assert request.target == f"/v2/team/app/blobs/{BLOB_DIGEST}"
    assert request.header("Accept") == "*/*"
    assert request.header("Range") is None


async def test_SEC09_the_request_target_is_what_was_built(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry, "a-b/c__d/e.f")
    await watched.try_open(f"docker://{registry.host}/a-b/c__d/e.f:latest")
    assert registry.requests[-1].target == "/v2/a-b/c__d/e.f/manifests/latest"


@pytest.mark.parametrize("status", [201, 203, 204, 206, 300, 304, 410, 451])
async def test_HTTP03_only_200_is_success(
    registry: FakeRegistry, watched: Watched, status: int
) -> None:
    reference = fill(registry)
    registry.script("latest", Status(status, body=IMAGE.raw))
    with pytest.raises(UnexpectedStatusError) as caught:
        await watched.open(reference)
    assert caught.value.status == status
    assert caught.value.reference == reference
    assert caught.value.url == f"{registry.url}/v2/team/app/manifests/latest"


@pytest.mark.parametrize("status", [201, 203, 204, 206])
async def test_HTTP03_for_blobs_too(registry: FakeRegistry, watched: Watched, status: int) -> None:
    reference = fill(registry)
    registry.script("*/blobs/*", Status(status, body=BLOB))
    with pytest.raises(UnexpectedStatusError):
        await read_blob(watched, reference)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (IMAGE.media_type, IMAGE.media_type),
        (f"{IMAGE.media_type}; charset=utf-8", IMAGE.media_type),
        (None, None),
        ("rubbish", None),
    ],
)
async def test_HTTP04_the_media_type_is_the_header_without_parameters(
    registry: FakeRegistry, watched: Watched, header: str | None, expected: str | None
) -> None:
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.reference import open_adapter

    fill(registry)
    registry.script("latest", Headers({"Content-Type": header}))
    name = ImageName.parse(f"{registry.host}/team/app")
    adapter = await open_adapter(name, "x", watched.session)
    raw = await adapter.fetch_manifest(None)
    assert (raw.raw, raw.media_type) == (IMAGE.raw, expected)
    await adapter.aclose()
    await adapter.aclose()
    with pytest.raises(ClosedError):
        await adapter.fetch_manifest(None)
    with pytest.raises(ClosedError):
        adapter.open_blob(IMAGE.layers[0])


FULL = build_image("linux/amd64").raw.ljust(MAX_MANIFEST)


@pytest.mark.parametrize(
    "faults",
    [(), (Chunked(),), (CloseDelimited(),)],
    ids=["announced", "chunked", "until the end"],
)
async def test_HTTP05_the_cap_holds_whatever_is_announced(
    registry: FakeRegistry, watched: Watched, faults: tuple[Chunked, ...]
) -> None:
    digest = registry.put_manifest("a", FULL, IMAGE.media_type, tag="latest")
    registry.script("latest", faults, (Body(FULL + b" "), *faults))
    async with await watched.open(registry.reference("a")) as source:
        assert (await source.get_manifest()).digest == digest
    with pytest.raises(LimitExceededError) as caught:
        await watched.open(registry.reference("a"))
    assert caught.value.limit == MAX_MANIFEST


async def test_SEC07_an_endless_manifest_is_cut_off(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    registry.script("latest", Endless())
    with pytest.raises(LimitExceededError):
        await watched.open(reference)


async def test_HTTP06_docker_content_digest_is_not_believed(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    lies = [Headers({"Docker-Content-Digest": claim}) for claim in (ABSENT, "x")]
    registry.script("latest", *lies)
    for _ in range(2):
        async with await watched.open(reference) as source:
            assert (await source.get_manifest()).digest == IMAGE.digest


OTHER = build_image("linux/arm64")
WRONG = {
    "another manifest": OTHER.raw,
    "one byte less": IMAGE.raw[:-1],
    "one byte more": IMAGE.raw + b" ",
    "nothing": b"",
}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
async def test_HTTP07_SEC04_what_a_digest_names_is_verified(
    registry: FakeRegistry, watched: Watched, body: bytes, algorithm: str
) -> None:
    fill(registry)
    digest = Digest.of(IMAGE.raw, algorithm)
    registry.put_manifest("team/app", IMAGE.raw, IMAGE.media_type, digest=digest)
    claim = Headers({"Docker-Content-Digest": digest, "Content-Type": IMAGE.media_type})
    registry.script(digest, (Body(body), claim))
    with pytest.raises(VerificationError):
        await watched.open(registry.reference("team/app", digest))
    async with await watched.open(registry.reference("team/app")) as source:
        registry.script(digest, (Body(body), claim))
        with pytest.raises(VerificationError):
            await source.get_manifest(digest)
        assert (await source.get_manifest(digest)).raw == IMAGE.raw


@pytest.mark.parametrize("claim", [ABSENT, "x", "sha256:../../x", None])
async def test_HTTP08_by_tag_a_header_that_claims_another_digest_is_ignored(
    registry: FakeRegistry, watched: Watched, claim: str | None
) -> None:
    registry.script("latest", Headers({"Docker-Content-Digest": claim}))
    async with await watched.open(fill(registry)) as source:
        assert (await source.get_manifest()).digest == IMAGE.digest
    assert watched.told(Warned) == []


async def test_HTTP09_the_default_manifest_stays_while_the_tag_moves(
    registry: FakeRegistry, watched: Watched
) -> None:
    async with await watched.open(fill(registry)) as source:
        registry.add("team/app", build_image("linux/arm64"))
        assert (await source.get_manifest()).digest == IMAGE.digest


@pytest.mark.parametrize(
    "digest", ["sha256:../../x", "", "sha256:", "sha256:" + "A" * 64, ":x", "sha256:%2f", "a\nb"]
)
async def test_HTTP10_SEC03_a_bad_digest_makes_no_request(
    registry: FakeRegistry, watched: Watched, digest: str
) -> None:
    async with await watched.open(fill(registry)) as source:
        before = len(registry.requests)
        with pytest.raises(InvalidDigestError):
            await source.get_manifest(digest)
        with pytest.raises(InvalidDigestError):
            source.open_blob(digest)
        assert len(registry.requests) == before


async def test_ERR06_missing_instances_and_blobs_are_misses(
    registry: FakeRegistry, watched: Watched
) -> None:
    async with await watched.open(fill(registry)) as source:
        with pytest.raises(ManifestNotFoundError) as manifest:
            await source.get_manifest(ABSENT)
        assert not isinstance(manifest.value, ImageNotFoundError)
        assert manifest.value.digest == ABSENT
        with pytest.raises(BlobNotFoundError) as blob:
            async with source.open_blob(ABSENT):
                pass
        assert blob.value.digest == ABSENT


LABELS = ["gzip", "x-gzip", "GZIP", "zstd", "br", "aws-chunked", "binary", "utf-8", "gzip, br", "é"]


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("ask", ["tag", "digest", "blob", "range", "parts", "tags", "token"])
async def test_BLOB07_a_label_that_is_wrong_does_no_harm(label: str, ask: str) -> None:
    """What came is right: it has its digest, or it is the JSON that was asked for."""
    async with FakeRegistry(access=Bearer()) as registry, watch() as watched:
        reference = parse_reference(fill(registry))
        assert isinstance(reference, RegistryReference)
        registry.script("*", Headers({"Content-Encoding": label}), forever=True)
        async with reference.open(watched.session) as source:
            match ask:
                case "digest":
                    assert (await source.get_manifest(IMAGE.digest)).raw == IMAGE.raw
                case "blob":
                    async with source.open_blob(BLOB_DIGEST) as blob:
                        assert await blob.read_all(MIB) == BLOB
                case "range":
                    async with source.open_blob(BLOB_DIGEST, start=3, end=9) as blob:
                        assert await blob.read_all(MIB) == BLOB[3:9]
                case "parts":
                    blob_of = Descriptor(digest=BLOB_DIGEST, size=len(BLOB))
                    async with source.open_parts(blob_of, [(1, 3)]) as parts:
                        assert [[c async for c in part] async for part in parts] == [[BLOB[1:3]]]
                case "tags":
                    assert await reference.list_tags(watched.session) == ("latest",)
                case _:
                    assert (await source.get_manifest()).raw == IMAGE.raw


@pytest.mark.parametrize("label", LABELS[:-1])
async def test_BLOB07_an_encoded_answer_is_refused_and_named(
    registry: FakeRegistry, watched: Watched, label: str
) -> None:
    reference = fill(registry)
    encoded = Headers({"Content-Encoding": label})
    named = re.escape(excerpt(label))
    registry.script("latest", (Body(gzip.compress(IMAGE.raw)), encoded))
    with pytest.raises(MalformedResponseError, match=f"Content-Encoding {named}"):
        await watched.open(reference)
    registry.script(IMAGE.digest, (Body(gzip.compress(IMAGE.raw)), encoded))
    async with await watched.open(reference) as source:
        with pytest.raises(MalformedResponseError, match=f"Content-Encoding {named}"):
            await source.get_manifest(IMAGE.digest)
        for size in (None, len(BLOB)):  # the wrong digest, and the wrong size
            registry.script("*/blobs/*", (Body(gzip.compress(BLOB)), encoded), forever=True)
            with pytest.raises(VerificationError, match=f"Content-Encoding {named}"):
                async with source.open_blob(Descriptor(digest=BLOB_DIGEST, size=size)) as blob:
                    await blob.read_all(MIB)


async def test_BLOB07_a_manifest_called_html_is_one_if_its_digest_says_so(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    page = Headers({"Content-Type": "text/html; charset=utf-8"})
    registry.script(IMAGE.digest, page, page, Html(), forever=True)
    reference = registry.reference("team/app", IMAGE.digest)
    async with await watched.open(reference) as source:
        assert (await source.get_manifest()).media_type == IMAGE.media_type
        assert (await source.get_manifest(IMAGE.digest)).raw == IMAGE.raw
        with pytest.raises(MalformedResponseError, match="HTML page"):
            await source.get_manifest(IMAGE.digest)


async def test_HTTP02_each_request_says_what_it_accepts_in_one_line() -> None:
    """Manifest types on manifest requests and nowhere else; the ping takes anything."""
    async with FakeRegistry(access=Bearer()) as registry, watch() as watched:
        reference = parse_reference(fill(registry))
        assert isinstance(reference, RegistryReference)
        async with reference.open(watched.session) as source:
            await source.get_manifest(IMAGE.digest)
            await source.get_referrers(IMAGE.digest)
            await source.get_signatures()
            async with source.open_blob(BLOB_DIGEST) as blob:
                await blob.read_all(MIB)
            async with source.open_parts(BLOB_DIGEST, [(1, 3)]) as parts:
                assert [part async for part in parts]
        await reference.list_tags(watched.session)
        await reference.get_digest(watched.session)
    expected = {
        "/v2/": "application/json, */*",
        "/token": "application/json",
        "/v2/team/app/tags/list": "application/json",
        f"/v2/team/app/referrers/{IMAGE.digest}": OCI_INDEX,
        f"/v2/team/app/blobs/{BLOB_DIGEST}": "*/*",
        "/v2/team/app/manifests/latest": ", ".join(ACCEPT),
        f"/v2/team/app/manifests/{IMAGE.digest}": ", ".join(ACCEPT),
    }
    assert {request.path for request in registry.requests} == set(expected)
    for request in registry.requests:
        accepted = [value for name, value in request.headers if name.lower() == "accept"]
        assert accepted == [expected[request.path]]


async def test_BLOB07_identity_is_no_encoding(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry)
    registry.script("latest", Headers({"Content-Encoding": "Identity"}))
    await watched.try_open(reference)


async def test_a_page_for_people_is_no_manifest(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry)
    registry.script("latest", Html())
    with pytest.raises(MalformedResponseError, match="HTML page") as caught:
        await watched.open(reference)
    assert caught.value.reference == reference
    registry.script("latest", Html(404))
    with pytest.raises(ImageNotFoundError):
        await watched.open(reference)


@pytest.mark.parametrize("how", ["fin", "rst"])
@pytest.mark.parametrize("framing", [(), (Chunked(10),)], ids=["length", "chunked"])
async def test_a_manifest_that_breaks_off_is_truncated_and_not_tried_again(
    registry: FakeRegistry, watched: Watched, how: str, framing: tuple[Chunked, ...]
) -> None:
    reference = fill(registry)
    registry.script("latest", (*framing, Cut(after=40, how=how)))  # type: ignore[arg-type]
    with pytest.raises(TruncatedError) as caught:
        await watched.open(reference)
    assert caught.value.received == 40
    assert registry.count("latest") == 1


async def test_a_length_that_lies_is_truncated(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry)
    registry.script("latest", ContentLength(len(IMAGE.raw) + 1))
    with pytest.raises(TruncatedError):
        await watched.open(reference)


@pytest.mark.parametrize("min_rate", [0, 1024])
async def test_SEC07_a_manifest_that_stalls_is_given_up(
    registry: FakeRegistry, min_rate: int
) -> None:
    reference = fill(registry)
    registry.script("latest", Stall(after=40))
    async with watch(timeouts=Timeouts(stall=0.5, min_rate=min_rate)) as watched:
        with pytest.raises(SourceTimeoutError) as caught:
            await watched.open(reference)
    assert caught.value.received == 40


class Trickle:
    """An answer of which one byte comes each second."""

    url = URL("https://registry.example/v2/app/manifests/latest")
    content_length = None

    def __init__(self) -> None:
        self.content = self
        self.closed = False

    def is_eof(self) -> bool:
        return False

    async def read(self, _: int) -> bytes:
        await asyncio.sleep(1)
        return b"x"

    def close(self) -> None:
        self.closed = True


def test_SEC07_a_manifest_that_trickles_is_given_up() -> None:
    async def main() -> None:
        answer: Any = Trickle()
        timeouts = Timeouts(stall=5.25, min_rate=10)
        with pytest.raises(SourceTimeoutError, match="too slow") as caught:
            await read_whole(answer, 1000, timeouts)
        assert caught.value.received == 5  # they allow 5.75 seconds, and the sixth comes later
        assert answer.closed

    run_leaping(main)


async def test_ERR10_each_warning_is_told_once(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry)
    registry.script("latest", Headers({"Warning": '299 - "going away"'}), forever=True)
    for _ in range(3):
        await watched.try_open(reference)
    assert [event.message for event in watched.told(Warned)] == [
        f"{registry.host} warns: going away"
    ]


async def test_ERR10_a_flood_of_warnings_ends(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry)
    turns = [Headers({"Warning": f'299 - "{number}"'}) for number in range(80)]
    registry.script("latest", *turns)
    for _ in turns:
        await watched.try_open(reference)
    assert len(watched.told(Warned)) == 64


async def test_TLS08_long_headers_are_accepted(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry)
    registry.script("latest", Headers({"X-Long": "x" * 30_000}), Headers({"X-Long": "x" * 40_000}))
    await watched.try_open(reference)
    with pytest.raises(MalformedResponseError, match="valid HTTP"):
        await watched.open(reference)


async def test_SEC07_too_many_headers_are_refused(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry)
    registry.script("latest", Headers({f"X-{number}": "x" for number in range(2000)}))
    with pytest.raises(MalformedResponseError):
        await watched.open(reference)


async def test_limits_are_options(registry: FakeRegistry) -> None:
    reference = fill(registry)
    async with watch(options=limited(manifest=len(IMAGE.raw))) as watched:
        await watched.try_open(reference)
    async with watch(options=limited(manifest=len(IMAGE.raw) - 1)) as watched:
        with pytest.raises(LimitExceededError):
            await watched.open(reference)


def test_options_have_a_value() -> None:
    assert RegistryOptions() == RegistryOptions()
    assert hash(RegistryOptions(token_servers={"a": ("https://b",)}))
