"""Lists of tags, page by page, and digests without manifests."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.abc import RemoteReference
from asupplemented.errors import (
    ForbiddenError,
    ImageNotFoundError,
    LimitExceededError,
    MalformedResponseError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from asupplemented.model.digest import Digest
from asupplemented.model.name import is_tag
from asupplemented.testing import (
    Bearer,
    Body,
    Encoding,
    Endless,
    FakeRegistry,
    Headers,
    Html,
    Redirect,
    Status,
    build_image,
)
from asupplemented.transports import parse_reference
from asupplemented.transports.registry import RegistryReference
from asupplemented.transports.registry.listing import parse_tags
from tests.suspending import cancel_at_every_await
from tests.transports.registry.raw_servers import serve_bytes
from tests.transports.registry.sessions import IMAGE, fill, limited, watch

if TYPE_CHECKING:
    from asupplemented.testing import Answer, Request
    from tests.transports.registry.sessions import Watched

LIST = "/v2/team/app/tags/list"
MANIFEST = "/v2/team/app/manifests/latest"


def refer(registry: FakeRegistry, tag: str = "latest") -> RegistryReference:
    reference = parse_reference(registry.reference("team/app", tag))
    assert isinstance(reference, RegistryReference)
    return reference


def tag(registry: FakeRegistry, *tags: str) -> None:
    fill(registry)
    known = registry.repository("team/app").tags
    known.clear()
    known.update(dict.fromkeys(tags, IMAGE.digest))


def page(tags: Any, link: str | None = None) -> list[Any]:
    faults: list[Any] = [Body(json.dumps({"name": "team/app", "tags": tags}).encode())]
    return faults if link is None else [*faults, Headers({"Link": f"<{link}>; rel=next"})]


# Tags


def test_a_reference_to_a_registry_is_remote(registry: FakeRegistry) -> None:
    assert isinstance(parse_reference("docker://busybox"), RemoteReference)
    assert not isinstance(parse_reference("dir:/x"), RemoteReference)


async def test_TAG01_all_tags_of_a_repository(registry: FakeRegistry, watched: Watched) -> None:
    tag(registry, "v1", "latest", "V2", "_x")
    assert await refer(registry).list_tags(watched.session) == ("V2", "_x", "latest", "v1")
    assert [request.target for request in registry.requests] == ["/v2/", LIST]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
async def test_TAG01_page_after_page(watched: Watched, size: int) -> None:
    tags = [f"t{n:02}" for n in range(10)]
    async with FakeRegistry(page_size=size) as registry:
        tag(registry, *tags)
        assert await refer(registry).list_tags(watched.session) == tuple(tags)
        assert registry.count(LIST) == -(-10 // size)


async def test_TAG01_what_the_reference_names_need_not_exist(
    registry: FakeRegistry, watched: Watched
) -> None:
    tag(registry, "v1")
    assert await refer(registry, "absent").list_tags(watched.session) == ("v1",)
    assert registry.count("*/manifests/*") == 0


@pytest.mark.parametrize("document", [{"tags": None}, {"tags": []}, {}, {"name": "team/app"}])
async def test_TAG01_a_repository_without_tags(
    registry: FakeRegistry, watched: Watched, document: dict[str, Any]
) -> None:
    fill(registry)
    registry.script(LIST, Body(json.dumps(document).encode()))
    assert await refer(registry).list_tags(watched.session) == ()


async def test_TAG01_what_is_empty_or_a_digest_is_passed_over(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    registry.script(LIST, page(["", None, "v1", IMAGE.digest, Digest.of(b"x", "sha512"), "v2"]))
    assert await refer(registry).list_tags(watched.session) == ("v1", "v2")


async def test_TAG01_a_tag_on_two_pages_is_there_once(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    registry.script(LIST, page(["b", "a", "b"], LIST + "?last=b"), page(["a", "c"]))
    assert await refer(registry).list_tags(watched.session) == ("b", "a", "c")


@pytest.mark.parametrize(
    "wrong",
    [
        ".hidden",
        "-x",
        "a b",
        "a/b",
        "t" * 129,
        "a\n",
        "é",
        "md5:abc",
        "sha256:abc",
        1,
        True,
        [],
        {},
    ],
)
async def test_TAG01_any_other_tag_is_an_error(
    registry: FakeRegistry, watched: Watched, wrong: Any
) -> None:
    fill(registry)
    registry.script(LIST, page(["v1", wrong]))
    with pytest.raises(MalformedResponseError, match="no tag") as caught:
        await refer(registry).list_tags(watched.session)
    assert caught.value.reference == str(refer(registry))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'{"tags": {}}', b'{"tags": "v1"}', b"{", b"\xff\xfe{", b"<html>"],
)
async def test_TAG01_what_is_no_list_is_an_error(
    registry: FakeRegistry, watched: Watched, body: bytes
) -> None:
    fill(registry)
    registry.script(LIST, Body(body))
    with pytest.raises(MalformedResponseError, match="no list of tags"):
        await refer(registry).list_tags(watched.session)


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"tags":' * 50_000, b'{"n": ' + b"9" * 5000])
async def test_SEC06_bombs_are_no_list(
    registry: FakeRegistry, watched: Watched, body: bytes
) -> None:
    fill(registry)
    registry.script(LIST, Body(body))
    with pytest.raises(MalformedResponseError):
        await refer(registry).list_tags(watched.session)


async def test_TAG01_a_link_elsewhere_is_refused(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    tag(registry, "v1")
    registry.script(LIST, page(["v1"], f"{other.url}{LIST}?last=v1"))
    with pytest.raises(MalformedResponseError, match="same origin"):
        await refer(registry).list_tags(watched.session)
    assert other.connections == 0


async def test_TAG01_a_link_in_a_circle_is_found(registry: FakeRegistry, watched: Watched) -> None:
    fill(registry)
    there, back = LIST + "?last=a", LIST + "?last=b"
    registry.script(LIST, page(["a"], there), page(["b"], back), page(["c"], there), forever=True)
    with pytest.raises(MalformedResponseError, match="circle"):
        await refer(registry).list_tags(watched.session)
    assert registry.count(LIST) == 3


async def test_TAG01_a_link_to_itself_is_a_circle(registry: FakeRegistry, watched: Watched) -> None:
    fill(registry)
    registry.script(LIST, page(["a"], LIST), forever=True)
    with pytest.raises(MalformedResponseError, match="circle"):
        await refer(registry).list_tags(watched.session)
    assert registry.count(LIST) == 1


def go_on(answer: Answer, request: Request) -> Answer:
    """Each page leads to another one, for ever."""
    number = int(request.argument("last") or 0) + 1
    return answer.with_headers({"Link": f"<{LIST}?last={number}>; rel=next"})


@pytest.mark.parametrize("pages", [1, 5])
async def test_TAG01_pages_are_counted(registry: FakeRegistry, pages: int) -> None:
    fill(registry)
    registry.script(LIST, go_on, forever=True)
    async with watch(options=limited(pages=pages)) as watched:
        with pytest.raises(LimitExceededError, match=f"more than {pages} pages") as caught:
            await refer(registry).list_tags(watched.session)
    assert caught.value.limit == pages
    assert registry.count(LIST) == pages


async def test_TAG01_as_many_pages_as_the_limit_pass(registry: FakeRegistry) -> None:
    fill(registry)
    registry.script(LIST, *[go_on] * 4, None)
    async with watch(options=limited(pages=5)) as watched:
        assert await refer(registry).list_tags(watched.session) == ("latest",)


@pytest.mark.parametrize("spare", [0, 1])
async def test_SEC07_all_pages_together_have_a_limit(registry: FakeRegistry, spare: int) -> None:
    fill(registry)
    first, last = page(["a" * 100], LIST + "?last=x"), page(["b" * 100])
    registry.script(LIST, first, last)
    link = f"http://{registry.host}{LIST}?last=x"
    total = len(first[0].data) + len(link) + len(last[0].data)
    async with watch(options=limited(listing=total - spare)) as watched:
        if spare:
            with pytest.raises(LimitExceededError):
                await refer(registry).list_tags(watched.session)
        else:
            assert len(await refer(registry).list_tags(watched.session)) == 2


async def test_SEC07_an_endless_list(registry: FakeRegistry) -> None:
    fill(registry)
    registry.script(LIST, Endless())
    async with watch(options=limited(listing=1 << 20)) as watched:
        with pytest.raises(LimitExceededError):
            await refer(registry).list_tags(watched.session)


async def test_TAG01_a_long_list_is_read_in_a_thread(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    tags = [f"build-{n:08}" for n in range(30_000)]
    registry.script(LIST, page(tags), page([*tags, "-"]))
    assert await refer(registry).list_tags(watched.session) == tuple(tags)
    with pytest.raises(MalformedResponseError):
        await refer(registry).list_tags(watched.session)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(404), ImageNotFoundError),
        (Status(401), UnauthorizedError),
        (Status(403), ForbiddenError),
        (Status(405), UnexpectedStatusError),
        (Status(429), TooManyRequestsError),
        (Status(500), ServerError),
        (Encoding(), MalformedResponseError),
        (Html(), MalformedResponseError),
    ],
)
async def test_TAG01_what_fails_raises(
    registry: FakeRegistry, watched: Watched, fault: Any, error: type[Exception]
) -> None:
    fill(registry)
    registry.script(LIST, fault, forever=True)
    with pytest.raises(error):
        await refer(registry).list_tags(watched.session)


async def test_TAG01_a_page_is_retried(watched: Watched) -> None:
    async with FakeRegistry(page_size=1) as registry:
        tag(registry, "a", "b", "c")
        registry.script(LIST, None, Status(503), Status(429, {"Retry-After": "1"}))
        assert await refer(registry).list_tags(watched.session) == ("a", "b", "c")


async def test_TAG01_one_token_for_all_pages() -> None:
    async with FakeRegistry(access=Bearer({"bob": "secret"}), page_size=1) as registry:
        tag(registry, "a", "b", "c")
        async with watch(credentials={registry.host: ("bob", "secret")}) as watched:
            assert await refer(registry).list_tags(watched.session) == ("a", "b", "c")
        assert registry.count("/token") == 1
        assert registry.requests[-1].argument("last") == "b"


async def test_SEC16_cancelled_between_pages(watched: Watched) -> None:
    async with FakeRegistry(page_size=1) as registry:
        tag(registry, "a", "b", "c")

        async def run() -> None:
            await refer(registry).list_tags(watched.session)

        async def check() -> None:
            if registry.requests:
                watched.check_quiet()

        assert await cancel_at_every_await(run, check) >= 3


def test_SEC08_a_long_list_takes_little_time() -> None:
    body = json.dumps({"tags": ["t" * 128] * 50_000}).encode()
    begin = time.process_time()
    assert len(parse_tags(body, "here")) == 50_000
    assert time.process_time() - begin < 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda children: st.lists(children) | st.dictionaries(st.text(max_size=8), children),
    max_leaves=8,
)


@given(st.one_of(st.binary(), st.builds(lambda x: json.dumps({"tags": x}).encode(), JSON)))
def test_TAG01_whatever_is_listed_only_tags_come_out(body: bytes) -> None:
    try:
        found = parse_tags(body, "here")
    except MalformedResponseError:
        return
    assert all(map(is_tag, found))


# Digests


async def test_HTTP11_the_digest_of_a_tag_by_HEAD(registry: FakeRegistry, watched: Watched) -> None:
    fill(registry)
    digest = await refer(registry).get_digest(watched.session)
    assert digest == IMAGE.digest
    assert isinstance(digest, Digest)
    assert [request.method for request in registry.select_requests("*/manifests/*")] == ["HEAD"]
    accepted = [value for name, value in registry.requests[-1].headers if name == "Accept"]
    assert len(accepted) == 6


async def test_HTTP11_whether_a_digest_is_there(registry: FakeRegistry, watched: Watched) -> None:
    fill(registry)
    assert await refer(registry, IMAGE.digest).get_digest(watched.session) == IMAGE.digest
    absent = Digest.of(b"absent")
    with pytest.raises(ImageNotFoundError) as caught:
        await refer(registry, absent).get_digest(watched.session)
    assert caught.value.digest == absent


async def test_HTTP11_a_digest_of_another_algorithm_is_still_the_one_asked_for(
    registry: FakeRegistry, watched: Watched
) -> None:
    long = build_image(algorithm="sha512")
    registry.add("team/app", long)
    registry.script(long.digest, Headers({"Docker-Content-Digest": Digest.of(long.raw)}))
    assert await refer(registry, long.digest).get_digest(watched.session) == long.digest


@pytest.mark.parametrize("value", [None, "", "sha256:abc", "md5:" + "0" * 32, "latest", "é"])
async def test_HTTP11_without_a_digest_it_is_an_error(
    registry: FakeRegistry, watched: Watched, value: str | None
) -> None:
    fill(registry)
    registry.script(MANIFEST, Headers({"Docker-Content-Digest": value}))
    with pytest.raises(MalformedResponseError, match="does not say") as caught:
        await refer(registry).get_digest(watched.session)
    assert caught.value.reference == str(refer(registry))


async def test_HTTP11_two_digests_are_none(registry: FakeRegistry, watched: Watched) -> None:
    fill(registry)

    def double(answer: Answer, _request: Request) -> Answer:
        twice = (*answer.headers, ("docker-content-digest", Digest.of(b"another")))
        return type(answer)(headers=twice, body=answer.body)

    registry.script(MANIFEST, double)
    with pytest.raises(MalformedResponseError):
        await refer(registry).get_digest(watched.session)


async def test_HTTP11_another_digest_than_the_one_asked_for_is_an_error(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    registry.script(IMAGE.digest, Headers({"Docker-Content-Digest": Digest.of(b"another")}))
    with pytest.raises(MalformedResponseError, match="says that manifest"):
        await refer(registry, IMAGE.digest).get_digest(watched.session)


@pytest.mark.parametrize("code", [203, 204, 206])
async def test_HTTP11_only_200_counts(registry: FakeRegistry, watched: Watched, code: int) -> None:
    fill(registry)
    registry.script(MANIFEST, Status(code, {"Docker-Content-Digest": IMAGE.digest}, b""))
    with pytest.raises(UnexpectedStatusError):
        await refer(registry).get_digest(watched.session)


async def test_HTTP12_the_body_of_an_answer_to_HEAD_is_not_read(watched: Watched) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"sentinel"}]}'
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % len(body)
    # To the ping, too, where it is fine. The body comes late: with the head it would be a
    # second answer, and no valid one.
    async with serve_bytes(head + body, size=len(head), every=0.02) as host:
        reference = parse_reference(f"docker://{host}/team/app")
        assert isinstance(reference, RegistryReference)
        with pytest.raises(UnauthorizedError) as caught:
            await reference.get_digest(watched.session)
    assert (caught.value.code, caught.value.errors) == ("UNAUTHORIZED", ())
    assert "sentinel" not in str(caught.value)


async def test_HTTP12_a_length_without_a_body_is_not_waited_for(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    for fault, error in ((Status(404), ImageNotFoundError), (Status(403), ForbiddenError)):
        registry.script(MANIFEST, fault)
        with pytest.raises(error):
            await refer(registry).get_digest(watched.session)
    assert len({request.connection for request in registry.requests[1:]}) == 1


async def test_REDIR04_HEAD_stays_HEAD(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    fill(other)
    registry.script(MANIFEST, Redirect(other.url + MANIFEST, 303))
    assert await refer(registry).get_digest(watched.session) == IMAGE.digest
    assert [request.method for request in other.requests] == ["HEAD"]


async def test_HTTP11_a_busy_registry_is_asked_again(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    registry.script(MANIFEST, Status(503), Status(429))
    assert await refer(registry).get_digest(watched.session) == IMAGE.digest
    assert registry.count(MANIFEST, method="HEAD") == 3
