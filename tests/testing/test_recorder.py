"""Scripts: which requests they match, and which turn they use."""

from __future__ import annotations

import pytest

from asupplemented.errors import UsageError
from asupplemented.testing import Answer, FakeRegistry, Headers, Request, Status
from asupplemented.testing.recorder import fits

PATH = "/v2/team/app/blobs/sha256:aa"


@pytest.mark.parametrize(
    ("match", "fitting"),
    [
        (PATH, True),
        ("/v2/team/app/blobs/*", True),
        ("/v2/*/blobs/sha256:*", True),
        ("*", True),
        ("sha256:aa", True),
        ("*:aa", True),
        ("/v2/team/app/blobs/", False),
        ("/v2/team/app/blobs/sha256.aa", False),
        ("256:aa", False),
        ("aa", False),
        ("/v2/", False),
    ],
)
def test_what_a_pattern_fits(*, match: str, fitting: bool) -> None:
    assert fits(match, None, Request("GET", PATH + "?q=1", ())) is fitting


def test_a_function_and_a_method_can_match() -> None:
    request = Request("GET", PATH, (("Range", "bytes=1-"),))
    assert fits(lambda r: r.header("Range") is not None, "GET", request)
    assert not fits(lambda r: r.header("If-Range") is not None, "GET", request)
    assert not fits("*", "HEAD", request)


async def statuses(registry: FakeRegistry, *targets: str) -> list[int]:
    return [(await registry.respond(Request("GET", target, ()))).status for target in targets]


async def test_turns_are_used_in_order_then_all_is_right() -> None:
    registry = FakeRegistry()
    script = registry.script("/v2/", None, Status(503), (), Status(429))
    assert (script.hits, script.remaining) == (0, 4)
    assert await statuses(registry, *["/v2/"] * 6) == [200, 503, 200, 429, 200, 200]
    assert (script.hits, script.remaining) == (4, 0)
    assert repr(script) == "<Script for /v2/, 4 hits, 0 turns left>"


async def test_the_last_turn_can_go_on_for_ever() -> None:
    registry = FakeRegistry()
    registry.script("/v2/", Status(429), Status(503), forever=True)
    assert await statuses(registry, *["/v2/"] * 4) == [429, 503, 503, 503]
    registry.clear_scripts()
    assert await statuses(registry, "/v2/") == [200]


async def test_requests_that_do_not_match_use_no_turn() -> None:
    registry = FakeRegistry()
    registry.script("/v2/", Status(503))
    assert await statuses(registry, "/else", "/v2/") == [404, 503]


async def test_of_two_scripts_the_first_with_a_turn_is_used() -> None:
    registry = FakeRegistry()
    registry.script("/v2/", Status(503))
    registry.script("*", Status(429), None, forever=True)
    assert await statuses(registry, "/v2/", "/v2/", "/v2/") == [503, 429, 200]


async def test_faults_of_one_turn_are_applied_in_order() -> None:
    registry = FakeRegistry()

    def shout(answer: Answer, request: Request) -> Answer:
        return answer.with_headers({"X-Shout": (answer.header("X-Said") or "").upper()})

    registry.script("/v2/", [Headers({"X-Said": "hi"}), shout])
    answer = await registry.respond(Request("GET", "/v2/", ()))
    assert answer.header("x-shout") == "HI"


def test_a_script_without_turns_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="at least one turn"):
        FakeRegistry().script("/v2/")
