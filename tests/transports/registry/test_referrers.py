"""What refers to a manifest: by the interface of the registry, or by a tag."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.errors import (
    AmbiguousManifestError,
    ClosedError,
    ForbiddenError,
    InvalidDigestError,
    LimitExceededError,
    MalformedManifestError,
    MalformedResponseError,
    ServerError,
    SourceError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import ACCEPT, DOCKER_LIST, OCI_INDEX, OCI_MANIFEST
from asupplemented.model.name import is_tag
from asupplemented.testing import (
    Bearer,
    Body,
    Encoding,
    Endless,
    FakeRegistry,
    Headers,
    Html,
    Status,
    build_artifact,
    build_image,
    build_index,
)
from asupplemented.transports.registry.referrers import fallback_tag
from tests.suspending import cancel_at_every_await
from tests.transports.registry.sessions import IMAGE, fill, limited, watch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.testing import Answer, Request
    from asupplemented.testing.images import BuiltImage
    from tests.transports.registry.sessions import Watched

SBOM, PROOF = "application/spdx+json", "application/vnd.example.proof"
SBOMS = [build_artifact(SBOM, b"%d" % n, subject=IMAGE) for n in range(3)]
PROOFS = [
    build_artifact(PROOF, b"proof %d" % n, subject=IMAGE, annotations={"n": str(n)})
    for n in range(2)
]
ALL = [*SBOMS, *PROOFS]
API = f"/v2/team/app/referrers/{IMAGE.digest}"
TAG = IMAGE.digest.replace(":", "-")
LIST = f"/v2/team/app/manifests/{TAG}"
JSON = "application/json"


def put(registry: FakeRegistry, artifacts: Sequence[BuiltImage] = ALL) -> str:
    for artifact in artifacts:
        registry.add("team/app", artifact, tag=None)
    return fill(registry)


def put_list(registry: FakeRegistry, artifacts: Sequence[BuiltImage]) -> None:
    """Keep the list as clients do where the registry does not."""
    registry.add("team/app", build_index(artifacts), tag=TAG)


async def ask(
    watched: Watched, reference: str, artifact_type: str | None = None, subject: str = IMAGE.digest
) -> list[str]:
    async with await watched.open(reference) as source:
        return [each.digest for each in await source.get_referrers(subject, artifact_type)]


def digests(artifacts: Sequence[BuiltImage]) -> list[str]:
    return sorted(artifact.digest for artifact in artifacts)


def index(*entries: Any, **more: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries), **more}
    return json.dumps(document).encode()


# The interface


async def test_SIG07_REFR01_what_refers_to_an_image(
    registry: FakeRegistry, watched: Watched
) -> None:
    async with await watched.open(put(registry)) as source:
        found = await source.get_referrers(IMAGE.digest)
        assert [each.digest for each in found] == digests(ALL)
        by_digest = {each.digest: each for each in found}
        proof = by_digest[PROOFS[1].digest]
        assert (proof.media_type, proof.artifact_type) == (OCI_MANIFEST, PROOF)
        assert (proof.size, proof.annotations) == (len(PROOFS[1].raw), {"n": "1"})
        assert (await source.get_manifest(proof.digest)).raw == PROOFS[1].raw
    [request] = registry.select_requests("*/referrers/*")
    assert request.target == API
    assert request.header("Accept") == OCI_INDEX


@pytest.mark.parametrize("artifact_type", [SBOM, PROOF, "application/absent"])
async def test_REFR01_by_type(registry: FakeRegistry, watched: Watched, artifact_type: str) -> None:
    wanted = [each for each in ALL if each.artifact_type == artifact_type]
    assert await ask(watched, put(registry), artifact_type) == digests(wanted)
    [request] = registry.select_requests("*/referrers/*")
    assert request.argument("artifactType") == artifact_type


async def test_SEC09_the_type_is_quoted(registry: FakeRegistry, watched: Watched) -> None:
    wild = "a/b+c?x=1&artifactType=y#z\r\nX: %2e é"
    assert await ask(watched, put(registry), wild) == []
    [request] = registry.select_requests("*/referrers/*")
    assert request.argument("artifactType") == wild
    assert re.fullmatch(r"[!-~]+", request.target)


@pytest.mark.parametrize("applied", [None, "artifactType", "other"])
async def test_REFR04_what_comes_is_filtered_here_too(
    registry: FakeRegistry, watched: Watched, applied: str | None
) -> None:
    def unfiltered(answer: Answer, request: Request) -> Answer:
        plain = registry.content.answer(type(request)("GET", API, ()))
        return plain.with_headers({"OCI-Filters-Applied": applied})

    reference = put(registry)
    registry.script(API, unfiltered)
    assert await ask(watched, reference, SBOM) == digests(SBOMS)


@pytest.mark.parametrize("size", [1, 2, 4])
async def test_REFR01_page_after_page(watched: Watched, size: int) -> None:
    async with FakeRegistry(page_size=size) as registry:
        assert await ask(watched, put(registry)) == digests(ALL)
        assert registry.count(API) == -(-5 // size)


async def test_REFR01_the_next_page_is_asked_for_on_our_own_origin(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    put(other)
    reference = put(registry)
    registry.script(API, Headers({"Link": f"<{other.url}{API}?last=1>; rel=next"}))
    assert sorted(await ask(watched, reference)) == sorted(digests(ALL))
    assert registry.count(API) == 2
    assert other.connections == 0


async def test_REFR01_what_is_on_two_pages_is_there_once(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = put(registry)
    registry.script(API, Headers({"Link": f"<{API}?page=2>; rel=next"}))
    assert await ask(watched, reference) == digests(ALL)
    assert registry.count(API) == 2


@pytest.mark.parametrize(
    "fault", [Status(404), Status(400), (Body(index()), Headers({"Content-Type": JSON}))]
)
async def test_REFR02_a_later_page_that_fails_is_no_reason_to_forget_the_first(
    watched: Watched, fault: Any
) -> None:
    async with FakeRegistry(page_size=2) as registry:
        reference = put(registry)
        put_list(registry, SBOMS)
        registry.script(API, None, fault)
        with pytest.raises(SourceError):
            await ask(watched, reference)
        assert registry.count(LIST) == 0


async def test_REFR01_nothing_refers_to_what_is_not_there(
    registry: FakeRegistry, watched: Watched
) -> None:
    assert await ask(watched, put(registry), subject=Digest.of(b"absent")) == []
    assert registry.count("*/manifests/sha256-*") == 0


async def test_REFR01_one_token_reads_it() -> None:
    async with FakeRegistry(access=Bearer({"bob": "secret"})) as registry:
        reference = put(registry)
        async with watch(credentials={registry.host: ("bob", "secret")}) as watched:
            assert await ask(watched, reference) == digests(ALL)
        assert registry.count("/token") == 1


async def test_REFR01_a_parameter_of_the_media_type_does_not_matter(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = put(registry)
    registry.script(API, Headers({"Content-Type": f"{OCI_INDEX}; charset=utf-8"}))
    assert await ask(watched, reference) == digests(ALL)


# The tag


@pytest.mark.parametrize(
    "fault",
    [
        Status(404),
        Status(404, body=b"404 page not found"),
        Status(400),
        Status(400, body=b'{"errors":[{"code":"UNSUPPORTED","message":""}]}'),
        Status(405),
        Status(405, body=b'{"errors":[{"code":"DENIED","message":""}]}'),
        Status(406),
        Status(406, body=b'{"errors":[{"code":"UNAUTHORIZED","message":""}]}'),
        Status(410),
        Status(410, body=b'{"errors":[{"code":"DIGEST_INVALID","message":""}]}'),
        Status(501),
        Html(),
        Headers({"Content-Type": JSON}),
        Headers({"Content-Type": None}),
        Headers({"Content-Type": DOCKER_LIST}),
    ],
)
async def test_REFR02_without_the_interface_the_tag_is_read(
    registry: FakeRegistry, watched: Watched, fault: Any
) -> None:
    reference = put(registry)
    put_list(registry, SBOMS)
    registry.script(API, fault, forever=True)
    assert sorted(await ask(watched, reference)) == digests(SBOMS)
    [request] = registry.select_requests(LIST)
    assert request.header("Accept") == ", ".join(ACCEPT)


@pytest.mark.parametrize("fault", [Status(404), Status(405), Status(501)])
async def test_REFR02_the_subject_itself_is_no_list(
    registry: FakeRegistry, watched: Watched, fault: Any
) -> None:
    """Some registries take the tag for the digest of the subject."""
    subject = build_index([IMAGE])
    reference = registry.add("team/app", subject)
    registry.repository("team/app").tags[fallback_tag(subject.digest)] = subject.digest
    registry.script("*/referrers/*", fault, forever=True)
    async with await watched.open(reference) as source:
        assert await source.get_referrers(subject.digest) == ()


async def test_REFR02_REFR04_what_is_under_the_tag_is_filtered(watched: Watched) -> None:
    async with FakeRegistry(referrers=False) as registry:
        reference = put(registry)
        put_list(registry, ALL)
        assert sorted(await ask(watched, reference, PROOF)) == digests(PROOFS)


@pytest.mark.parametrize(
    "answer",
    [
        Status(404),
        Status(404, body=b"<html>nothing here"),
        Status(404, body=b'{"errors":[{"code":"UNKNOWN","message":"Not Found"}]}'),
        Status(404, body=b'{"errors":[{"code":"NAME_UNKNOWN"}]}'),
        Status(404, body=b'{"errors":[{"code":"NOT_FOUND","message":"artifact x not found"}]}'),
        Status(400, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'),
    ],
)
async def test_REFR02_ERR06_without_a_tag_nothing_refers_to_it(
    watched: Watched, answer: Status
) -> None:
    async with FakeRegistry(referrers=False) as registry:
        reference = put(registry)
        registry.script(LIST, answer)
        assert await ask(watched, reference) == []
        assert registry.count(LIST) == 1


async def test_REFR02_what_is_under_the_tag_and_no_index_counts_as_none(watched: Watched) -> None:
    async with FakeRegistry(referrers=False) as registry:
        reference = put(registry)
        registry.add("team/app", build_image(), tag=TAG)
        assert await ask(watched, reference) == []


@pytest.mark.parametrize("place", [API, LIST])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(401), UnauthorizedError),
        (Status(403), ForbiddenError),
        (Status(400, body=b'{"errors":[{"code":"DIGEST_INVALID"}]}'), UnexpectedStatusError),
        (Status(418), UnexpectedStatusError),
        (Status(500), ServerError),
        (Status(503), ServerError),
        (Encoding(), MalformedResponseError),
        (Endless(), LimitExceededError),
        (Body(b"{"), MalformedManifestError),
        (Body(index(layers=[])), AmbiguousManifestError),
        (Body(index().replace(b"image.index", b"image.manifest")), AmbiguousManifestError),
        (Body(index({"digest": "sha256:../../x"})), InvalidDigestError),
        (Body(index({"digest": ""})), InvalidDigestError),
        (Body(index(1)), MalformedManifestError),
    ],
)
async def test_REFR02_what_fails_is_never_taken_for_nothing(
    registry: FakeRegistry, watched: Watched, place: str, fault: Any, error: type[Exception]
) -> None:
    reference = put(registry)
    put_list(registry, SBOMS)
    registry.content.referrers = place == API
    registry.script(place, fault, forever=True)
    with pytest.raises(error) as caught:
        await ask(watched, reference)
    assert getattr(caught.value, "reference", None) == reference


async def test_REFR02_a_page_for_people_is_no_proof_of_anything(watched: Watched) -> None:
    async with FakeRegistry() as registry:
        reference = put(registry)
        registry.script(API, Html(), forever=True)
        registry.script(LIST, Html(), forever=True)
        with pytest.raises(MalformedResponseError, match="HTML page"):
            await ask(watched, reference)


@pytest.mark.parametrize(("algorithm", "length"), [("sha256", 64), ("sha384", 64), ("sha512", 64)])
def test_REFR03_the_tag_is_cut(algorithm: str, length: int) -> None:
    digest = Digest.of(b"x", algorithm)
    tag = fallback_tag(digest)
    assert tag == f"{algorithm}-{digest.encoded[:length]}"
    assert is_tag(tag)


async def test_REFR03_a_long_digest_is_found_under_its_tag(watched: Watched) -> None:
    long = build_image(algorithm="sha512")
    about = build_artifact(SBOM, subject=long)
    async with FakeRegistry(referrers=False) as registry:
        registry.add("team/app", about, tag=None)
        reference = registry.add("team/app", long)
        registry.add("team/app", build_index([about]), tag=f"sha512-{long.digest.encoded[:64]}")
        assert await ask(watched, reference, subject=long.digest) == [about.digest]


# Bounds


@pytest.mark.parametrize("spare", [0, 1])
async def test_SEC06_entries_are_counted(
    registry: FakeRegistry, watched: Watched, spare: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asupplemented.transports.registry.referrers.MAX_INSTANCES", 5 - spare)
    reference = put(registry)
    if spare:
        with pytest.raises(LimitExceededError):
            await ask(watched, reference)
    else:
        assert len(await ask(watched, reference)) == 5


async def test_SEC06_entries_that_only_differ_a_little_take_no_time(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = put(registry)
    entry = {"mediaType": OCI_MANIFEST, "digest": IMAGE.digest, "size": 1}
    many = [entry | {"annotations": {"n": str(n)}} for n in range(15_000)]
    registry.script(API, Body(index(*many)))
    assert await ask(watched, reference) == [IMAGE.digest]


async def test_SEC07_pages_have_a_limit(registry: FakeRegistry) -> None:
    reference = put(registry)
    registry.script(API, Headers({"Link": f"<{API}?a>; rel=next"}), forever=True)
    async with watch(options=limited(pages=1)) as watched:
        with pytest.raises(LimitExceededError):
            await ask(watched, reference)


# Whom one asks


async def test_SEC03_what_is_no_digest_is_not_asked_for(
    registry: FakeRegistry, watched: Watched
) -> None:
    async with await watched.open(put(registry)) as source:
        before = len(registry.requests)
        for text in ("", "latest", "sha256:abc", "sha256:../../x", f"{IMAGE.digest}/../x"):
            with pytest.raises(InvalidDigestError):
                await source.get_referrers(text)
        assert len(registry.requests) == before


async def test_a_closed_source_knows_nothing(registry: FakeRegistry, watched: Watched) -> None:
    source = await watched.open(put(registry))
    await source.aclose()
    with pytest.raises(ClosedError):
        await source.get_referrers(IMAGE.digest)


async def test_SEC16_cancelled_anywhere(watched: Watched) -> None:
    async with (
        FakeRegistry(page_size=2) as registry,
        await watched.open(put(registry)) as source,
    ):

        async def run() -> None:
            await source.get_referrers(IMAGE.digest)

        async def check() -> None:
            assert repr(watched.connections) == "<Connections: 0 requests wait for an answer>"

        assert await cancel_at_every_await(run, check) >= 3
