"""Deadlines: what belongs to one operation shares its time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.abc import Timeouts
from asupplemented.errors import SourceTimeoutError
from asupplemented.testing import Bearer, FakeRegistry, Redirect, Slow, Status
from asupplemented.transports import parse_reference
from asupplemented.transports.registry import RegistryReference
from tests.suspending import run_leaping
from tests.transports.registry.sessions import BLOB_DIGEST, IMAGE, fill, watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asupplemented.testing import Answer, Request

STEP = 4.0
"""Seconds that each answer takes: less than any time limit of one request."""
TIMEOUTS = Timeouts(connect=10.0, first_byte=10.0, stall=10.0, open=30.0)
LIST = "/v2/team/app/tags/list"


def test_RET10_opening_has_a_limit_by_default() -> None:
    assert Timeouts().open is not None


def lead_on(answer: Answer, request: Request) -> Answer:
    """One redirect after the other, never the same."""
    number = int(request.argument("n") or 0) + 1
    return Redirect(f"{request.path}?n={number}")(answer, request)


def page_on(answer: Answer, request: Request) -> Answer:
    number = int(request.argument("last") or 0) + 1
    return answer.with_headers({"Link": f"<{request.path}?last={number}>; rel=next"})


async def _measure(ask: Callable[[Any, Any], Awaitable[object]], **scripts: Any) -> float:
    """Seconds until an operation is given up, on a server where everything takes its time."""
    loop = asyncio.get_running_loop()
    async with FakeRegistry(access=Bearer()) as registry, watch(timeouts=TIMEOUTS) as watched:
        reference = parse_reference(fill(registry))
        assert isinstance(reference, RegistryReference)
        async with reference.open(watched.session) as source:
            registry.latency = STEP
            for path, fault in scripts.values():
                registry.script(path, fault, forever=True)
            began = loop.time()
            with pytest.raises(SourceTimeoutError):
                await ask(reference, (watched.session, source))
            return loop.time() - began


async def read_blob(_: Any, have: Any) -> None:
    async with have[1].open_blob(BLOB_DIGEST):
        pass


GRACE = 0.02
"""Seconds of real time for sockets and threads, before time leaps."""

OPERATIONS: dict[str, tuple[Any, tuple[str, Any]]] = {
    "pages of tags": (lambda r, have: r.list_tags(have[0]), (LIST, page_on)),
    "pages of referrers": (
        lambda _, have: have[1].get_referrers(IMAGE.digest),
        ("*/referrers/*", page_on),
    ),
    "redirects of a manifest": (
        lambda _, have: have[1].get_manifest(IMAGE.digest),
        ("*/manifests/*", lead_on),
    ),
    "redirects of a digest": (lambda r, have: r.get_digest(have[0]), ("*/manifests/*", lead_on)),
    "redirects of a blob": (read_blob, ("*/blobs/*", lead_on)),
    "redirects of a page": (lambda r, have: r.list_tags(have[0]), (LIST, lead_on)),
    "a slow manifest": (
        lambda _, have: have[1].get_manifest(IMAGE.digest),
        ("*/manifests/*", Slow(seconds=STEP)),
    ),
}


@pytest.mark.parametrize(("ask", "script"), OPERATIONS.values(), ids=OPERATIONS)
def test_RET10_what_belongs_to_one_operation_shares_its_time(
    ask: Any, script: tuple[str, Any]
) -> None:
    # Without retries there would be no more than one round; with them the limit still holds.
    taken = run_leaping(partial(_measure, ask, script=script), GRACE)
    assert STEP < taken <= 30.0 + STEP


async def _open_slowly() -> float:
    loop = asyncio.get_running_loop()
    async with FakeRegistry() as registry, watch(timeouts=TIMEOUTS) as watched:
        reference = fill(registry)
        registry.latency = STEP
        registry.script("*", Status(503), forever=True)
        began = loop.time()
        with pytest.raises(OSError, match=r"503|longer than"):
            await watched.open(reference)
        return loop.time() - began


def test_RET10_no_open_lasts_longer_than_its_limit() -> None:
    assert run_leaping(_open_slowly, GRACE) <= 30.0 + STEP
