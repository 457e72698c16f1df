"""Blobs from the URLs in their descriptors: only when asked to, only from where one may go."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from yarl import URL

from asupplemented.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    ForbiddenError,
    MalformedResponseError,
    NetworkError,
    ServerError,
    SizeMismatchError,
    SupplementedError,
    TruncatedError,
    UnauthorizedError,
    UnexpectedStatusError,
    VerificationError,
)
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import (
    DOCKER_FOREIGN_LAYER,
    DOCKER_FOREIGN_LAYER_GZIP,
    DOCKER_LAYER_GZIP,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_NONDISTRIBUTABLE_LAYER,
    OCI_NONDISTRIBUTABLE_LAYER_GZIP,
    OCI_NONDISTRIBUTABLE_LAYER_ZSTD,
)
from asupplemented.supplemented import supplement
from asupplemented.testing import (
    Authority,
    Basic,
    Corrupt,
    Cut,
    Encoding,
    FakeRegistry,
    Redirect,
    Resize,
    Status,
    Unauthorized,
    build_image,
)
from asupplemented.transports.registry.addresses import AddressScope
from asupplemented.transports.registry.blobs import ExternalBlob, HttpBlob, find_urls
from asupplemented.transports.registry.options import RegistryLimits
from tests.suspending import cancel_at_every_await
from tests.transports.registry.raw_servers import free_port
from tests.transports.registry.sessions import LIMITS, OPTIONS_HERE, fill, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.transports.registry.sessions import Watched

LAYER = b"a layer that must not be distributed"
DIGEST = Digest.of(LAYER)
BLOBS = f"/v2/team/app/blobs/{DIGEST}"
FOREIGN = (
    DOCKER_FOREIGN_LAYER,
    DOCKER_FOREIGN_LAYER_GZIP,
    OCI_NONDISTRIBUTABLE_LAYER,
    OCI_NONDISTRIBUTABLE_LAYER_GZIP,
    OCI_NONDISTRIBUTABLE_LAYER_ZSTD,
)
ALLOWED = replace(OPTIONS_HERE, allow_external_urls=True)


@pytest.fixture
async def allowed() -> AsyncIterator[Watched]:
    """A session that may go elsewhere."""
    async with watch(options=ALLOWED) as opened:
        yield opened


def layer(*urls: str, media_type: str = OCI_NONDISTRIBUTABLE_LAYER, **more: Any) -> Descriptor:
    settings = {"size": len(LAYER), **more}
    return Descriptor(digest=DIGEST, media_type=media_type, urls=urls, **settings)


async def read(watched: Watched, registry: FakeRegistry, blob: Descriptor) -> bytes:
    async with (
        await watched.open(fill(registry)) as source,
        source.open_blob(blob, shared=False) as stream,
    ):
        return await stream.read_all(1 << 20)


# Whether


async def test_BLOB02_by_default_nobody_goes_elsewhere(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    url = other.put_file("/layer", LAYER)
    with pytest.raises(BlobNotFoundError):
        await read(watched, registry, layer(url))
    assert other.connections == 0


@pytest.mark.parametrize("media_type", FOREIGN)
async def test_BLOB02_where_it_is_allowed_the_registry_comes_first(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched, media_type: str
) -> None:
    url = other.put_file("/layer", LAYER)
    blob = layer(url, media_type=media_type)
    assert await read(allowed, registry, blob) == LAYER
    assert registry.count(BLOBS) == 1
    registry.put_blob("team/app", LAYER)
    assert await read(allowed, registry, blob) == LAYER
    assert len(other.requests) == 1


@pytest.mark.parametrize("media_type", [OCI_LAYER, DOCKER_LAYER_GZIP, OCI_CONFIG, "x/y", None])
async def test_BLOB02_only_what_must_not_be_distributed_is_elsewhere(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched, media_type: Any
) -> None:
    with pytest.raises(BlobNotFoundError):
        await read(allowed, registry, layer(other.url, media_type=media_type))
    assert other.connections == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(401), UnauthorizedError),
        (Status(403), ForbiddenError),
        (Status(500), ServerError),
        (Status(418), UnexpectedStatusError),
    ],
)
async def test_BLOB02_only_a_miss_is_a_reason_to_go(
    registry: FakeRegistry,
    other: FakeRegistry,
    allowed: Watched,
    fault: Any,
    error: type[Exception],
) -> None:
    registry.script(BLOBS, fault, forever=True)
    with pytest.raises(error):
        await read(allowed, registry, layer(other.put_file("/layer", LAYER)))
    assert other.connections == 0


async def test_BLOB02_through_a_group(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched
) -> None:
    document = json.loads(build_image("linux/amd64", [LAYER]).raw)
    document["layers"][0] |= {
        "mediaType": OCI_NONDISTRIBUTABLE_LAYER,
        "urls": [other.put_file("/layer", LAYER)],
    }
    raw = json.dumps(document).encode()
    registry.put_manifest("team/app", raw, document["mediaType"], tag="foreign")
    group = supplement(registry.reference("team/app", "foreign"))
    async with group.open(allowed.session) as image, image.open_blob(DIGEST) as stream:
        assert await stream.read_all(1000) == LAYER


def test_BLOB01_only_http_and_https_are_usable() -> None:
    texts = (
        "ftp://host/x",
        "file:///etc/passwd",
        "https://user:secret@host/x",
        "//host/x",
        "/x",
        "",
        "https://",
        "http://host:99999/",
        "https://host/\r\nX: y",
        "https://host/a%2Fb?sig=%7e#part",
        "HTTP://host/",
    )
    usable = (URL("https://host/a%2Fb?sig=%7e", encoded=True), URL("http://host/"))
    assert find_urls(layer(*texts), ALLOWED) == usable
    assert find_urls(layer(*texts), OPTIONS_HERE) == ()
    few = replace(ALLOWED, limits=RegistryLimits(external_urls=1))
    assert find_urls(layer(*texts), few) == usable[:1]


async def test_BLOB01_without_a_usable_url_there_is_only_the_registry(
    registry: FakeRegistry, allowed: Watched
) -> None:
    async with await allowed.open(fill(registry)) as source:
        candidates = source.blob_candidates(layer("ftp://host/x"))
        assert type(candidates[0].open()) is HttpBlob
        candidates = source.blob_candidates(layer("https://host/x"))
        assert type(candidates[0].open()) is ExternalBlob


# In which order


async def test_BLOB01_urls_are_tried_in_order(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched
) -> None:
    other.put_file("/good", LAYER)
    other.script("/broken", Status(500), forever=True)
    other.script("/locked", Unauthorized())
    nowhere = f"http://127.0.0.1:{free_port()}/x"
    urls = ["/absent", "/broken", "/locked", "/good", "/never"]
    blob = layer("ftp://x/y", nowhere, *(other.url + path for path in urls))
    assert await read(allowed, registry, blob) == LAYER
    asked = list(dict.fromkeys(request.path for request in other.requests))
    assert asked == urls[:-1]


@pytest.mark.parametrize("code", [203, 204, 206, 304, 400, 404, 410])
async def test_BLOB01_only_200_counts(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched, code: int
) -> None:
    other.script("/first", Status(code, body=LAYER))
    second = other.put_file("/second", LAYER)
    assert await read(allowed, registry, layer(f"{other.url}/first", second)) == LAYER


async def test_BLOB01_if_all_lack_it_it_is_missing(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched
) -> None:
    with pytest.raises(BlobNotFoundError) as caught:
        await read(allowed, registry, layer(f"{other.url}/a", f"{other.url}/b"))
    notes = getattr(caught.value, "__notes__", [])
    assert caught.value.message.startswith(registry.url)
    assert [note for note in notes if f"{other.url}/b" in note]


async def test_BLOB01_what_fails_elsewhere_is_no_miss(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched
) -> None:
    other.script("/b", Status(403, {}, b"sentinel"))
    with pytest.raises(ForbiddenError) as caught:
        await read(allowed, registry, layer(f"{other.url}/a", f"{other.url}/b?sig=sentinel"))
    assert caught.value.digest == DIGEST
    assert [note for note in caught.value.__notes__ if registry.url in note]
    assert "sig=" not in f"{caught.value}{caught.value.__notes__}"


async def test_RET06_a_busy_place_is_asked_again(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched
) -> None:
    url = other.put_file("/layer", LAYER)
    other.script("/layer", Status(503), Status(429))
    assert await read(allowed, registry, layer(url)) == LAYER
    assert len(other.requests) == 3


async def test_BLOB01_no_more_urls_than_the_limit(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    options = replace(ALLOWED, limits=replace(LIMITS, external_urls=3))
    async with watch(options=options) as watched:
        with pytest.raises(BlobNotFoundError):
            await read(watched, registry, layer(*(f"{other.url}/{n}" for n in range(9))))
    assert len(other.requests) == 3


# What is told, and what is believed


async def test_CRED03_no_credentials_leave(other: FakeRegistry) -> None:
    async with FakeRegistry(access=Basic({"bob": "secret"})) as registry:
        fill(registry)
        url = other.put_file("/layer", LAYER)
        own = registry.put_file("/layer", LAYER)
        credentials = {registry.host: ("bob", "secret"), other.host: ("eve", "sentinel")}
        async with watch(options=ALLOWED, credentials=credentials) as watched:
            assert await read(watched, registry, layer(url)) == LAYER
            # Not even to the registry's own origin, where it is no part of the registry.
            assert await read(watched, registry, layer(own)) == LAYER
        [request] = other.requests
        for name in ("Authorization", "Cookie", "Proxy-Authorization", "Referer"):
            assert request.header(name) is None
        assert registry.requests[-1].path == "/layer"
        assert registry.requests[-1].header("Authorization") is None


async def test_SEC02_a_challenge_from_elsewhere_is_not_answered(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    challenge = f'Bearer realm="{other.url}/token",service="x"'
    other.script("/layer", Unauthorized(challenge=challenge), Unauthorized(challenge="Basic x"))
    settings = {"credentials": {registry.host: ("bob", "secret")}, "options": ALLOWED}
    async with watch(**settings) as watched:
        for _ in range(2):
            with pytest.raises(UnauthorizedError):
                await read(watched, registry, layer(f"{other.url}/layer"))
    assert [request.path for request in other.requests] == ["/layer"] * 2


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Corrupt(), DigestMismatchError),
        (Resize(-1), SizeMismatchError),
        (Resize(1000), SizeMismatchError),
        (Encoding(), VerificationError),
    ],
)
async def test_BLOB02_what_comes_is_verified(
    registry: FakeRegistry,
    other: FakeRegistry,
    allowed: Watched,
    fault: Any,
    error: type[SupplementedError],
) -> None:
    url = other.put_file("/layer", LAYER)
    other.script("/layer", fault)
    with pytest.raises(error):
        await read(allowed, registry, layer(url))


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/latest/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://0.0.0.0:1/",
        "http://224.0.0.1/",
    ],
)
async def test_SEC01_nobody_goes_where_nobody_may(
    registry: FakeRegistry, allowed: Watched, url: str
) -> None:
    with pytest.raises(MalformedResponseError, match="more private than its own"):
        await read(allowed, registry, layer(url))


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost", "127.1", "0x7f000001"]
)
async def test_SEC01_from_a_public_registry_nobody_goes_to_loopback(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched, name: str
) -> None:
    reference = fill(registry).replace("127.0.0.1", "localhost")
    url = other.put_file("/layer", LAYER).replace("127.0.0.1", name)
    async with await allowed.open(reference) as source:
        # Nobody in a test is public, so the registry is declared to be.
        [client] = allowed.pool._clients.values()
        assert client._contact is not None
        client._contact.redirect_client._scope = AddressScope.PUBLIC
        with pytest.raises(MalformedResponseError):
            async with source.open_blob(layer(url)):
                pass
    assert other.connections == 0


async def test_SEC01_a_place_may_redirect_but_not_to_what_is_more_private(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched
) -> None:
    moved = other.put_file("/moved", LAYER)
    other.script("/layer", Redirect(moved), Redirect("http://169.254.169.254/x"))
    blob = layer(f"{other.url}/layer")
    assert await read(allowed, registry, blob) == LAYER
    with pytest.raises(MalformedResponseError, match="more private"):
        await read(allowed, registry, blob)


async def test_TLS05_elsewhere_is_verified_although_the_registry_is_not(
    registry: FakeRegistry, allowed: Watched
) -> None:
    async with FakeRegistry(tls=Authority().server_context()) as place:
        url = place.put_file("/layer", LAYER)
        with pytest.raises(NetworkError, match="certificate"):
            await read(allowed, registry, layer(url))
        assert place.requests == []


# In the middle


async def test_RES08_a_body_from_elsewhere_is_not_resumed(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched
) -> None:
    big = bytes(5 << 20)
    url = other.put_file("/layer", big)
    other.script("/layer", Cut(after=1 << 20))
    blob = Descriptor(
        digest=Digest.of(big), size=len(big), media_type=OCI_NONDISTRIBUTABLE_LAYER, urls=(url,)
    )
    async with await allowed.open(fill(registry)) as source:
        raw = source.blob_candidates(blob)[0].open()
        async with raw:
            assert raw.etag is None
            with pytest.raises(TruncatedError):
                async for _ in raw:
                    pass
    assert len(other.requests) == 1


async def test_RES08_a_range_is_asked_of_the_registry_only(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched
) -> None:
    url = other.put_file("/layer", LAYER)
    async with await allowed.open(fill(registry)) as source:
        for start, end in ((1, None), (0, 5), (3, 5)):
            with pytest.raises(BlobNotFoundError):
                async with source.open_blob(layer(url), start=start, end=end):
                    pass
    assert other.connections == 0


async def test_RES06_a_body_from_the_registry_keeps_its_validator(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched
) -> None:
    registry.put_blob("team/app", LAYER)
    async with await allowed.open(fill(registry)) as source:
        raw = source.blob_candidates(layer(other.url))[0].open()
        async with raw:
            assert raw.etag == f'"{DIGEST}"'


async def test_SEC16_cancelled_anywhere(
    registry: FakeRegistry, other: FakeRegistry, allowed: Watched
) -> None:
    url = other.put_file("/layer", LAYER)

    async def run() -> None:
        other.clear_scripts()
        other.script("/layer", Status(503), Redirect(other.put_file("/moved", LAYER)))
        assert await read(allowed, registry, layer(f"{other.url}/absent", url)) == LAYER

    async def check() -> None:
        await asyncio.sleep(0)
        if registry.requests:
            allowed.check_quiet()

    assert await cancel_at_every_await(run, check) >= 5


async def test_BLOB02_external_urls_are_advised_until_they_are_allowed(
    allowed: Watched, watched: Watched
) -> None:
    async def miss(session: Watched, blob: Descriptor) -> str:
        async with FakeRegistry() as registry:
            with pytest.raises((BlobNotFoundError, NetworkError)) as caught:
                await read(session, registry, blob)
        return str(caught.value)

    url = f"http://127.0.0.1:{free_port()}/layer"
    advice = "RegistryOptions(allow_external_urls=True)"
    assert advice in await miss(watched, layer(url))
    assert advice not in await miss(allowed, layer(url))
    assert advice not in await miss(watched, layer())
    assert advice not in await miss(watched, layer(url, media_type=OCI_LAYER))
