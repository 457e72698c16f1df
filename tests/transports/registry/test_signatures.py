"""Signatures: from the extension, of which digest, and attached in the registry."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import (
    BlobNotFoundError,
    ClosedError,
    DigestMismatchError,
    ForbiddenError,
    LimitExceededError,
    MalformedManifestError,
    MalformedResponseError,
    NotFoundError,
    ServerError,
    SizeMismatchError,
    UnexpectedStatusError,
    UnsupportedManifestError,
)
from asupplemented.limits import MAX_SIGNATURE
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import DOCKER_SCHEMA1_SIGNED, OCI_INDEX
from asupplemented.model.name import ImageName
from asupplemented.model.signature import Signature
from asupplemented.testing import (
    Body,
    Corrupt,
    Delay,
    Encoding,
    Endless,
    FakeRegistry,
    Html,
    Resize,
    Status,
    build_image,
    build_index,
)
from asupplemented.transports.registry.reference import open_adapter
from asupplemented.transports.registry.signatures import attachment_tag, parse_extension
from tests.model.documents import schema1, sign, to_json
from tests.suspending import cancel_at_every_await
from tests.transports.registry.sessions import IMAGE, LIMITS, fill, watch
from tests.transports.registry.signing import (
    ATTACHED,
    BYTES,
    EXTENSION,
    SIGNATURES,
    SIMPLE_SIGNING,
    get,
    listed,
    looking,
    serve,
    speak,
    store,
    watch_at,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.transports.registry.sessions import Watched

# Nowhere


async def test_SIG02_nothing_is_asked_where_nothing_is_configured(
    registry: FakeRegistry, watched: Watched
) -> None:
    assert await get(watched, fill(registry)) == ()
    assert await get(watched, fill(registry), IMAGE.digest) == ()
    assert {request.path for request in registry.requests} == {
        "/v2/",
        "/v2/team/app/manifests/latest",
    }


async def test_a_closed_source_has_no_signatures(registry: FakeRegistry, watched: Watched) -> None:
    source = await watched.open(fill(registry))
    await source.aclose()
    with pytest.raises(ClosedError):
        await source.get_signatures()


# The extension


async def test_SIG01_the_signatures_of_the_extension(
    registry: FakeRegistry, watched: Watched
) -> None:
    assert await get(watched, speak(registry, listed(*BYTES))) == SIGNATURES
    assert registry.requests[-1].target == EXTENSION


async def test_SIG01_only_what_is_known_is_kept(registry: FakeRegistry, watched: Watched) -> None:
    others = [
        *listed(b"\x90", schemaVersion=1)["signatures"],
        *listed(b"\x90", schemaVersion="2")["signatures"],
        *listed(b"\x90", type="other")["signatures"],
        {"schemaVersion": 3, "content": 5},
        {},
    ]
    document = {"signatures": [*others, *listed(BYTES[0])["signatures"], *others]}
    assert await get(watched, speak(registry, document)) == SIGNATURES[:1]


@pytest.mark.parametrize("document", [{"signatures": []}, {"signatures": None}, {}])
async def test_SIG01_there_may_be_none(
    registry: FakeRegistry, watched: Watched, document: Any
) -> None:
    assert await get(watched, speak(registry, document)) == ()


@pytest.mark.parametrize("value", [None, "0", "2", "true", " 1 1", ""])
async def test_PING07_any_other_value_is_no_extension(
    registry: FakeRegistry, watched: Watched, value: str | None
) -> None:
    assert await get(watched, speak(registry, listed(*BYTES), value)) == ()
    assert registry.count(EXTENSION) == 0


async def test_SIG01_with_the_extension_nothing_beside_is_looked_at(
    registry: FakeRegistry, other: FakeRegistry
) -> None:
    reference = speak(registry, listed(BYTES[0]))
    async with watch_at(other.url) as watched:
        assert await get(watched, reference) == SIGNATURES[:1]
    assert other.connections == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(404), UnexpectedStatusError),
        (Status(403), ForbiddenError),
        (Status(500), ServerError),
        (Html(), MalformedResponseError),
        (Encoding(), MalformedResponseError),
        (Endless(), LimitExceededError),
    ],
)
async def test_SIG01_failure_is_an_error(
    registry: FakeRegistry, watched: Watched, fault: Any, error: type[Exception]
) -> None:
    reference = speak(registry, listed(*BYTES))
    registry.script(EXTENSION, fault, forever=True)
    with pytest.raises(error) as caught:
        await get(watched, reference)
    assert not isinstance(caught.value, NotFoundError)
    assert getattr(caught.value, "reference", None) == reference


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"signatures": {}},
        {"signatures": [1]},
        listed(b"", content=None),
        listed(b"", content=5),
        listed(b"", content="!"),
        listed(b"", content="YQ"),
        listed(b"", content="é"),
    ],
)
async def test_SIG01_what_is_no_list_is_an_error(
    registry: FakeRegistry, watched: Watched, document: Any
) -> None:
    with pytest.raises(MalformedResponseError, match="no list of signatures"):
        await get(watched, speak(registry, document))


@pytest.mark.parametrize("spare", [0, 1])
async def test_SIG01_the_list_has_a_limit(
    registry: FakeRegistry, watched: Watched, spare: int
) -> None:
    reference = speak(registry)
    registry.put_file(EXTENSION, b'{"signatures":[]}'.ljust(MAX_SIGNATURE + spare))
    if spare:
        with pytest.raises(LimitExceededError):
            await get(watched, reference)
    else:
        assert await get(watched, reference) == ()


async def test_SIG01_an_adapter_that_was_not_used_yet_asks_first(
    registry: FakeRegistry, watched: Watched
) -> None:
    speak(registry, listed(*BYTES))
    name = ImageName.parse(f"{registry.host}/team/app")
    adapter = await open_adapter(name, "x", watched.session)
    assert await adapter.fetch_signatures(IMAGE.digest) == SIGNATURES
    await adapter.aclose()


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["schemaVersion", "type", "content", "name"]),
            st.sampled_from([2, 1, "atomic", "YQ==", "!", None, [], {}]),
        )
    ).map(lambda entries: json.dumps({"signatures": entries}).encode())
    | st.binary()
)
def test_SIG01_whatever_is_listed_there_are_signatures_or_an_error(body: bytes) -> None:
    try:
        found = parse_extension(body, "here")
    except MalformedResponseError:
        return
    assert all(isinstance(each, Signature) for each in found)


# Which digest


async def test_SIG03_the_digest_is_that_of_the_instance(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    store(tmp_path)
    reference = registry.add("team/app", build_index([IMAGE]))
    async with watch_at(tmp_path.as_uri()) as watched:
        assert await get(watched, reference) == ()
        assert await get(watched, reference, IMAGE.digest) == SIGNATURES


async def test_SIG03_a_tag_is_read_once_and_signatures_agree_with_it(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    store(tmp_path)
    async with (
        watch_at(tmp_path.as_uri()) as watched,
        await watched.open(fill(registry)) as source,
    ):
        registry.add("team/app", build_image("linux/arm64"))
        assert await source.get_signatures() == SIGNATURES
    assert registry.count("*/manifests/*") == 1


async def test_SIG03_another_algorithm_is_computed_anew(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    long = build_image(algorithm="sha512")
    registry.add("team/app", long)
    store(tmp_path, Digest.of(long.raw), BYTES[:1])
    store(tmp_path, long.digest, BYTES[1:2])
    reference = registry.reference("team/app", long.digest)
    async with watch_at(tmp_path.as_uri()) as watched:
        assert await get(watched, reference) == SIGNATURES[:1]
        assert await get(watched, reference, long.digest) == SIGNATURES[1:2]


async def test_SIG03_signed_manifests_go_by_what_was_signed(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    payload = to_json(schema1())
    raw, digest = sign(payload), Digest.of(payload)
    registry.put_manifest("team/app", raw, DOCKER_SCHEMA1_SIGNED, tag="old")
    store(tmp_path, digest)
    async with watch_at(tmp_path.as_uri()) as watched:
        assert await get(watched, registry.reference("team/app", "old")) == SIGNATURES


async def test_SIG03_an_adapter_that_has_read_nothing_reads_the_manifest(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    fill(registry)
    store(tmp_path)
    async with watch_at(tmp_path.as_uri()) as watched:
        name = ImageName.parse(f"{registry.host}/team/app")
        adapter = await open_adapter(name, "x", watched.session)
        assert await adapter.fetch_signatures(None) == SIGNATURES
        await adapter.aclose()


# Attached in the registry

DOCKER = build_image(docker=True)
PAYLOADS = [b'{"critical":%d}' % n for n in range(3)]
NOTES = [{"dev.cosignproject.cosign/signature": f"<&{n}>"} for n in range(3)]


def attach(
    registry: FakeRegistry,
    payloads: Sequence[bytes] = PAYLOADS,
    notes: Sequence[dict[str, str]] = NOTES,
    **changes: Any,
) -> str:
    """Attach signatures to the image as other programs do."""
    layers = [
        {
            "mediaType": SIMPLE_SIGNING,
            "digest": registry.put_blob("team/app", payload),
            "size": len(payload),
            "annotations": note,
        }
        | changes
        for payload, note in zip(payloads, notes, strict=True)
    ]
    document = json.loads(build_image().raw) | {"layers": layers}
    registry.put_manifest(
        "team/app", json.dumps(document).encode(), document["mediaType"], tag=ATTACHED
    )
    return fill(registry)


@pytest.fixture
async def attached() -> AsyncIterator[Watched]:
    """A session that looks for signatures in registries."""
    async with watch(options=looking(attachments=True)) as opened:
        yield opened


async def test_SIG06_attached_signatures_in_their_order(
    registry: FakeRegistry, attached: Watched
) -> None:
    found = await get(attached, attach(registry))
    assert [each.format for each in found] == ["sigstore-json"] * 3
    assert [each.media_type for each in found] == [SIMPLE_SIGNING] * 3
    assert [each.annotations for each in found] == NOTES
    assert [json.loads(each.data) for each in found] == [
        {
            "mimeType": SIMPLE_SIGNING,
            "payload": base64.b64encode(payload).decode(),
            "annotations": note,
        }
        for payload, note in zip(PAYLOADS, NOTES, strict=True)
    ]
    assert [Signature.from_blob(each.to_blob()).data for each in found] == [
        each.data for each in found
    ]


async def test_SIG06_they_are_not_looked_for_unless_that_is_configured(
    registry: FakeRegistry, watched: Watched
) -> None:
    assert await get(watched, attach(registry)) == ()
    async with watch_at("file:///nowhere") as looking_elsewhere:
        assert await get(looking_elsewhere, attach(registry)) == ()
    assert registry.count("*.sig") == 0


async def test_SIG06_they_come_after_the_others(registry: FakeRegistry, tmp_path: Path) -> None:
    store(tmp_path)
    attach(registry)
    async with watch(options=looking(tmp_path.as_uri(), attachments=True)) as watched:
        found = await get(watched, fill(registry))
        assert found[:3] == SIGNATURES
        assert len(found) == 6
    speak(registry, listed(BYTES[0]))
    async with watch(options=looking(tmp_path.as_uri(), attachments=True)) as watched:
        found = await get(watched, fill(registry))
        assert found[:1] == SIGNATURES[:1]
        assert len(found) == 4


async def test_SIG06_the_same_payload_is_read_once(
    registry: FakeRegistry, attached: Watched
) -> None:
    reference = attach(registry, [PAYLOADS[0]] * 3)
    found = await get(attached, reference)
    assert [each.annotations for each in found] == NOTES
    assert registry.count("*/blobs/*") == 1


@pytest.mark.parametrize(
    "answer",
    [
        Status(404),
        Status(404, body=b"not json"),
        Status(404, body=b'{"errors":[{"code":"UNKNOWN","message":"artifact: Not Found"}]}'),
        Status(404, body=b'{"errors":[{"code":"NAME_UNKNOWN"}]}'),
    ],
)
async def test_SIG06_ERR06_absent_means_none(
    registry: FakeRegistry, attached: Watched, answer: Status
) -> None:
    reference = attach(registry)
    registry.script(ATTACHED, answer)
    assert await get(attached, reference) == ()


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(403), ForbiddenError),
        (Status(500), ServerError),
        (Encoding(), MalformedResponseError),
        (Endless(), LimitExceededError),
        (Body(b"{"), MalformedManifestError),
        (Body(build_index([]).raw, OCI_INDEX), UnsupportedManifestError),
        (Body(DOCKER.raw, DOCKER.media_type), UnsupportedManifestError),
    ],
)
async def test_SIG06_other_failures_are_errors(
    registry: FakeRegistry, attached: Watched, fault: Any, error: type[Exception]
) -> None:
    reference = attach(registry)
    registry.script(ATTACHED, fault, forever=True)
    with pytest.raises(error) as caught:
        await get(attached, reference)
    assert not isinstance(caught.value, NotFoundError)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Corrupt(3), DigestMismatchError),
        (Resize(-1), SizeMismatchError),
        (Resize(1000), LimitExceededError),
        (Status(404), BlobNotFoundError),
        (Status(403), ForbiddenError),
    ],
)
async def test_SIG06_each_is_verified(
    registry: FakeRegistry, attached: Watched, fault: Any, error: type[Exception]
) -> None:
    reference = attach(registry)
    digest = Digest.of(PAYLOADS[1])
    registry.script(digest, fault, forever=True)
    with pytest.raises(error) as caught:
        await get(attached, reference)
    assert getattr(caught.value, "digest", None) in {digest, None}


@pytest.mark.parametrize("digest", ["sha256:../../x", "", "sha256:abc"])
async def test_SIG06_SEC03_digests_are_validated(
    registry: FakeRegistry, attached: Watched, digest: str
) -> None:
    with pytest.raises(ValueError, match="digest"):
        await get(attached, attach(registry, digest=digest))
    assert registry.count("*/blobs/*") == 0


@pytest.mark.parametrize("spare", [0, 1])
async def test_SIG06_each_has_a_limit(
    registry: FakeRegistry, attached: Watched, spare: int
) -> None:
    payload = b"x" * (MAX_SIGNATURE + spare)
    reference = attach(registry, [payload], NOTES[:1])
    if spare:
        with pytest.raises(LimitExceededError):
            await get(attached, reference)
        assert registry.count("*/blobs/*") == 0
    else:
        assert len(await get(attached, reference)) == 1


TOTAL = sum(map(len, PAYLOADS))


@pytest.mark.parametrize("limits", [{"attachments": 3}, {"attached": TOTAL}])
async def test_SEC06_all_together_have_limits(
    registry: FakeRegistry, limits: dict[str, int]
) -> None:
    reference = attach(registry)
    options = looking(attachments=True, limits=replace(LIMITS, **limits))
    async with watch(options=options) as watched:
        assert len(await get(watched, reference)) == 3


@pytest.mark.parametrize("limits", [{"attachments": 2}, {"attached": TOTAL - 1}])
async def test_SEC06_one_more_than_the_limits_is_refused(
    registry: FakeRegistry, limits: dict[str, int]
) -> None:
    reference = attach(registry)
    options = looking(attachments=True, limits=replace(LIMITS, **limits))
    async with watch(options=options) as watched:
        with pytest.raises(LimitExceededError):
            await get(watched, reference)
    assert registry.count("*/blobs/*") == 0


async def test_RET07_no_more_of_them_at_once_than_bodies() -> None:
    payloads = [b"%d" % n for n in range(20)]
    options = looking(attachments=True)
    options = replace(options, limits=replace(options.limits, bodies=6))
    async with FakeRegistry(latency=0.005) as registry, watch(options=options) as attached:
        reference = attach(registry, payloads, [{}] * 20)
        registry.script("*/blobs/*", Delay(0.005), forever=True)
        found = await get(attached, reference)
        assert [json.loads(each.data)["payload"] for each in found] == [
            base64.b64encode(payload).decode() for payload in payloads
        ]
        assert 1 < registry.max_in_flight <= 6


def test_SIG06_a_long_digest_has_no_tag() -> None:
    assert attachment_tag(Digest.of(b"")) == f"sha256-{Digest.of(b'').encoded}.sig"
    assert attachment_tag(Digest.of(b"", "sha384")) is not None
    assert attachment_tag(Digest.of(b"", "sha512")) is None


async def test_SIG06_what_has_no_tag_is_not_asked_for(
    registry: FakeRegistry, attached: Watched
) -> None:
    long = build_image(algorithm="sha512")
    reference = registry.add("team/app", long)
    assert await get(attached, reference, long.digest) == ()
    assert registry.count("*.sig") == 0


@pytest.mark.parametrize("kind", ["extension", "file", "http", "attached"])
async def test_SEC16_cancelled_anywhere(
    registry: FakeRegistry, other: FakeRegistry, tmp_path: Path, kind: str
) -> None:
    reference = speak(registry, listed(*BYTES)) if kind == "extension" else attach(registry)
    store(tmp_path)
    serve(other)
    bases = {"file": tmp_path.as_uri(), "http": f"{other.url}/sigs"}
    options = looking(bases.get(kind), attachments=kind == "attached")
    async with watch(options=options) as watched, await watched.open(reference) as source:

        async def run() -> None:
            await source.get_signatures()

        async def check() -> None:
            assert repr(watched.connections) == "<Connections: 0 requests wait for an answer>"
            [client] = watched.pool._clients.values()
            assert client.limiter.bodies.in_use == 0

        assert await cancel_at_every_await(run, check) >= 1
        assert len(await source.get_signatures()) == 3
