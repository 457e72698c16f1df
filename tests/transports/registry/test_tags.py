"""Lists of tags, page by page, and digests without manifests."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.abc import RemoteReference
from asupplemented.errors import (
    DigestMismatchError,
    ForbiddenError,
    ImageNotFoundError,
    LimitExceededError,
    MalformedResponseError,
    ServerError,
    TooManyRequestsError,
    UnauthorizedError,
    UnexpectedStatusError,
)
from asupplemented.events import Warned
from asupplemented.limits import MAX_MANIFEST, MIB
from asupplemented.model.digest import Digest
from asupplemented.model.name import is_tag
from asupplemented.testing import (
    Bearer,
    Body,
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
from asupplemented.transports.registry.listing import TagList
from tests.suspending import cancel_at_every_await
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
    assert [request.target for request in registry.requests] == [LIST]


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


INVALID = [".hidden", "-x", "a b", "a/b", "t" * 129, "a\n", "é", "md5:abc", "sha256:abc"]


async def test_TAG01_an_invalid_tag_is_left_out(registry: FakeRegistry, watched: Watched) -> None:
    """One warning for the whole list, however many there are."""
    fill(registry)
    half = len(INVALID) // 2
    registry.script(
        LIST,
        page(["v1", *INVALID[:half], "v2"], LIST + "?last=v2"),
        page([*INVALID[half:], "v3"]),
    )
    assert await refer(registry).list_tags(watched.session) == ("v1", "v2", "v3")
    [warning] = watched.told(Warned)
    assert f"lists {len(INVALID)} tags of team/app that are invalid" in warning.message
    assert "'.hidden', '-x', 'a b'" in warning.message
    assert len(warning.message) < 300


@pytest.mark.parametrize("wrong", [1, True, [], {}, ["v1"], {"a": "b"}])
async def test_TAG01_what_is_no_text_is_no_list(
    registry: FakeRegistry, watched: Watched, wrong: Any
) -> None:
    fill(registry)
    registry.script(LIST, page(["v1", wrong]))
    with pytest.raises(MalformedResponseError, match="no list of tags") as caught:
        await refer(registry).list_tags(watched.session)
    assert caught.value.reference == str(refer(registry))


@pytest.mark.parametrize("spare", [0, 1])
async def test_TAG01_tags_are_counted(registry: FakeRegistry, spare: int) -> None:
    fill(registry)
    registry.script(LIST, page(["a", "", None], LIST + "?last=a"), page(["a", "b"]))
    async with watch(options=limited(tags=4 - spare)) as watched:
        if spare:
            with pytest.raises(LimitExceededError, match="more than 3 entries"):
                await refer(registry).list_tags(watched.session)
        else:
            assert await refer(registry).list_tags(watched.session) == ("a", "b")


def test_TAG01_a_list_of_something_else_costs_no_memory() -> None:
    """Nothing is built of what is no text, nor of fields that are not read."""
    item = b'{"a":[{},{}]},'
    for body in (b'{"tags":[%s1]}', b'{"manifest":[%s1],"tags":["v1"]}'):
        page = body % (item * (4 * MIB // len(item)))
        tracemalloc.start()
        try:
            with suppress(MalformedResponseError):
                TagList(10).add_page(page, "here")
            assert tracemalloc.get_traced_memory()[1] < 12 * MIB
        finally:
            tracemalloc.stop()


def test_TAG01_other_threads_run_while_a_long_list_is_parsed() -> None:
    body = json.dumps({"tags": [f"build-{n:08}" for n in range(200_000)]}).encode()
    tags = TagList(200_000)
    thread = threading.Thread(target=tags.add_page, args=(body, "here"))
    seen = set[int]()
    thread.start()
    while thread.is_alive():
        seen.add(len(tags.found))
        time.sleep(0)
    assert len(tags.found) == 200_000
    assert len(seen) > 5


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


@pytest.mark.parametrize(
    "origin",
    [
        "http://registry:5000",
        "https://registry",
        "//registry",
        "http://user:secret@registry.internal:abc",
        "ftp://x",
        "HTTP://[::1]:0",
        "",
    ],
)
async def test_TAG01_a_link_is_followed_on_our_own_origin(
    registry: FakeRegistry, watched: Watched, origin: str
) -> None:
    tag(registry, "v1")
    registry.script(LIST, page(["v1"], f"{origin}{LIST}?last=v1&n=1"), page(["v2"]))
    assert await refer(registry).list_tags(watched.session) == ("v1", "v2")
    assert registry.requests[-1].target == f"{LIST}?last=v1&n=1"


@pytest.mark.parametrize(
    "path", ["//evil.example/x", "http://a//evil.example/x", "/../../x", "?x=1"]
)
async def test_TAG01_SEC02_no_link_leaves_our_origin(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched, path: str
) -> None:
    tag(registry, "v1")
    registry.script(LIST, page(["v1"], path.replace("evil.example", other.host)))
    second = Status(200, body=b'{"tags": ["v2"]}')
    registry.script(LIST, second)
    registry.script("/x", second)
    assert await refer(registry).list_tags(watched.session) == ("v1", "v2")
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
    for _ in range(2):
        assert await refer(registry).list_tags(watched.session) == tuple(tags)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(404), ImageNotFoundError),
        (Status(401), UnauthorizedError),
        (Status(403), ForbiddenError),
        (Status(405), UnexpectedStatusError),
        (Status(429), TooManyRequestsError),
        (Status(500), ServerError),
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
    tags = TagList(50_000)
    tags.add_page(body, "here")
    assert len(tags.found) == 1
    assert time.process_time() - begin < 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda children: st.lists(children) | st.dictionaries(st.text(max_size=8), children),
    max_leaves=8,
)


@given(st.one_of(st.binary(), st.builds(lambda x: json.dumps({"tags": x}).encode(), JSON)))
def test_TAG01_whatever_is_listed_only_tags_come_out(body: bytes) -> None:
    tags = TagList(1000)
    with suppress(MalformedResponseError):
        tags.add_page(body, "here")
    assert all(map(is_tag, tags.found))


@given(st.lists(st.none() | st.text(max_size=20)), st.sampled_from([None, 1]))
def test_TAG01_every_valid_tag_comes_out(listed: list[str | None], indent: int | None) -> None:
    tags = TagList(1000)
    body = json.dumps({"tags": listed, "name": "a"}, indent=indent).encode()
    if any("\ud800" <= c <= "\udfff" for each in listed for c in each or ""):
        return
    tags.add_page(body, "here")
    valid = (each for each in listed if each is not None and is_tag(each))
    assert list(tags.found) == list(dict.fromkeys(valid))


# Digests


async def test_HTTP11_the_digest_of_a_tag_by_HEAD(registry: FakeRegistry, watched: Watched) -> None:
    fill(registry)
    digest = await refer(registry).get_digest(watched.session)
    assert digest == IMAGE.digest
    assert isinstance(digest, Digest)
    assert [request.method for request in registry.select_requests("*/manifests/*")] == ["HEAD"]


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


def double(answer: Answer, _request: Request) -> Answer:
    twice = (*answer.headers, ("docker-content-digest", Digest.of(b"another")))
    return replace(answer, headers=twice)


NO_VERDICT: dict[str, Any] = {
    **{
        f"the digest {value}": Headers({"Docker-Content-Digest": value})
        for value in (None, "", "sha256:abc", "md5:" + "0" * 32, "latest", "é")
    },
    "two digests": double,
    **{
        str(code): Status(code, {"Docker-Content-Digest": IMAGE.digest}, b"")
        for code in (203, 204, 206, 304, 400, 401, 403, 404, 405, 406, 410, 501)
    },
    "a redirect for GET only": Redirect("/storage"),
    "a redirect to nowhere": Redirect(""),
    "a redirect to http": Redirect("ftp://x/"),
}


@pytest.mark.parametrize("fault", NO_VERDICT.values(), ids=NO_VERDICT)
@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_HTTP11_a_HEAD_without_a_digest_has_the_manifest_read(
    registry: FakeRegistry, watched: Watched, fault: Any, by: str
) -> None:
    fill(registry)
    which = "latest" if by == "tag" else IMAGE.digest
    registry.script("/storage", Status(403), forever=True)
    registry.script(f"/v2/team/app/manifests/{which}", fault)
    registry.script(f"/v2/team/app/manifests/{which}", Headers({"Docker-Content-Digest": "x"}))
    assert await refer(registry, which).get_digest(watched.session) == IMAGE.digest
    assert registry.requests[-1].method == "GET"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Status(404), ImageNotFoundError),
        (Status(403), ForbiddenError),
        (Status(401), UnauthorizedError),
        (Status(405), UnexpectedStatusError),
        (Status(500), ServerError),
        (Html(), MalformedResponseError),
        (Body(b"x" * (MAX_MANIFEST + 1)), LimitExceededError),
        (Endless(), LimitExceededError),
    ],
)
async def test_HTTP11_only_the_manifest_gives_a_verdict(
    registry: FakeRegistry, watched: Watched, fault: Any, error: type[Exception]
) -> None:
    fill(registry)
    registry.script(MANIFEST, Status(404))
    registry.script(MANIFEST, fault, forever=True)
    with pytest.raises(error):
        await refer(registry).get_digest(watched.session)


async def test_HTTP11_another_digest_than_the_one_asked_for_is_no_verdict(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    registry.script(IMAGE.digest, Headers({"Docker-Content-Digest": Digest.of(b"another")}))
    assert await refer(registry, IMAGE.digest).get_digest(watched.session) == IMAGE.digest
    registry.script(IMAGE.digest, Status(405), Body(build_image().raw))
    with pytest.raises(DigestMismatchError):
        await refer(registry, IMAGE.digest).get_digest(watched.session)


async def test_HTTP11_a_registry_that_does_not_answer_is_not_asked_twice(watched: Watched) -> None:
    async with FakeRegistry() as registry:
        fill(registry)
        registry.script(MANIFEST, Status(503), forever=True)
        with pytest.raises(ServerError):
            await refer(registry).get_digest(watched.session)
        assert {request.method for request in registry.requests[1:]} == {"HEAD"}


async def test_HTTP12_a_length_without_a_body_is_not_waited_for(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    for fault, error in ((Status(404), ImageNotFoundError), (Status(403), ForbiddenError)):
        registry.script(MANIFEST, fault, fault)
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
