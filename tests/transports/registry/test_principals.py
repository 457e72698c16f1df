"""Identities side by side in one session: nothing that one was granted reaches another (SEC-13)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented import copy, supplement
from asupplemented.errors import ForbiddenError, ImageNotFoundError, UnauthorizedError
from asupplemented.model.credential import Credential
from asupplemented.testing import Bearer, FakeRegistry, Hold, Status
from asupplemented.transports import parse_reference
from tests.transports.registry.sessions import IMAGE, fill, token_requests, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.abc import Context
    from tests.transports.registry.sessions import Watched

ALICE = Credential("alice", "hunter2")
BOB = Credential("bob", "hunter3")


def may(user: str | None, action: str) -> bool:
    return user == "alice" or action.startswith("repository:public/")


@pytest.fixture
async def private() -> AsyncIterator[FakeRegistry]:
    """A registry where alice may read everything, and all others what is public."""
    users = {"alice": "hunter2", "bob": "hunter3"}
    async with FakeRegistry(access=Bearer(users, may=may)) as registry:
        fill(registry, "team/app")
        fill(registry, "public/app")
        yield registry


def view(
    watched: Watched, registry: FakeRegistry, credential: Any = None, *, principal: str = ""
) -> Context:
    credentials = None if credential is None else {registry.host: credential}
    user = getattr(credential, "username", None)
    return watched.session.scoped(principal or user or "nobody", credentials=credentials)


async def try_open(context: Context, reference: str) -> None:
    async with parse_reference(reference).open(context) as image:
        await image.get_manifest()


async def test_SEC13_what_one_principal_may_read_another_may_not(
    private: FakeRegistry, watched: Watched
) -> None:
    reference = private.reference("team/app")
    await try_open(view(watched, private, ALICE), reference)
    for credential in (BOB, None):
        with pytest.raises(ForbiddenError):
            await try_open(view(watched, private, credential), reference)
    with pytest.raises(ForbiddenError):
        await watched.try_open(reference)
    await try_open(view(watched, private, ALICE), reference)
    assert repr(watched.pool).startswith("<RegistryPool: 4 clients,")


async def test_SEC13_a_refusal_is_not_remembered_for_others(
    private: FakeRegistry, watched: Watched
) -> None:
    reference = private.reference("team/app")
    for credential in (None, BOB):
        with pytest.raises(ForbiddenError):
            await try_open(view(watched, private, credential), reference)
    await try_open(view(watched, private, ALICE), reference)


async def test_SEC13_nor_is_an_absence(registry: FakeRegistry, watched: Watched) -> None:
    reference = fill(registry)
    registry.script("latest", Status(404))
    with pytest.raises(ImageNotFoundError):
        await try_open(view(watched, registry, principal="bob"), reference)
    await try_open(view(watched, registry, principal="alice"), reference)


async def test_SEC13_a_token_goes_with_the_principal_that_got_it(
    private: FakeRegistry, watched: Watched
) -> None:
    access = private.access
    assert isinstance(access, Bearer)
    for credential in (ALICE, BOB, None):
        await try_open(view(watched, private, credential), private.reference("public/app"))
    assert [token.user for token in access.tokens] == ["alice", "bob", None]
    sent = [request.header("Authorization") for request in private.select_requests("latest")]
    assert [header for header in sent if header] == [f"Bearer {t.text}" for t in access.tokens]


async def test_SEC13_the_same_principal_with_the_same_credentials_shares(
    private: FakeRegistry, watched: Watched
) -> None:
    for _ in range(3):
        await try_open(view(watched, private, ALICE), private.reference("team/app"))
    assert (private.count("latest"), len(token_requests(private))) == (4, 1)
    assert repr(watched.pool).startswith("<RegistryPool: 1 clients,")


async def test_SEC13_the_name_alone_proves_nothing(private: FakeRegistry, watched: Watched) -> None:
    reference = private.reference("team/app")
    await try_open(view(watched, private, ALICE), reference)
    wrong = view(watched, private, Credential("alice", "guessed"))
    with pytest.raises(UnauthorizedError):
        await try_open(wrong, reference)
    with pytest.raises(ForbiddenError):
        await try_open(view(watched, private, principal="alice"), reference)


async def test_SEC13_nor_do_the_credentials_of_another_principal_lend_a_token(
    private: FakeRegistry, watched: Watched
) -> None:
    for principal in ("tenant one", "tenant two"):
        context = view(watched, private, ALICE, principal=principal)
        await try_open(context, private.reference("team/app"))
    assert len(token_requests(private)) == 2


async def test_SEC13_side_by_side_nobody_joins_the_request_of_another(
    private: FakeRegistry, watched: Watched
) -> None:
    release = asyncio.Event()
    private.script("/token", Hold(release), forever=True)
    reference = private.reference("team/app")
    contexts = [view(watched, private, credential) for credential in (ALICE, BOB, None)]
    opens = [asyncio.create_task(try_open(context, reference)) for context in contexts]
    async with asyncio.timeout(5):
        await private.wait_until(lambda: len(token_requests(private)) == 3)
    release.set()
    outcomes = await asyncio.gather(*opens, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), ForbiddenError, ForbiddenError]
    assert len(token_requests(private)) == 3


async def test_SEC13_without_credentials_those_of_the_session_are_not_lent(
    private: FakeRegistry,
) -> None:
    reference = private.reference("team/app")
    async with watch(credentials={private.host: ALICE}) as watched:
        await watched.try_open(reference)
        with pytest.raises(ForbiddenError):
            await try_open(watched.session.scoped("mallory"), reference)
        await watched.try_open(reference)
    assert [request.header("Authorization") is None for request in token_requests(private)] == [
        False,
        True,
    ]


async def test_a_group_is_opened_and_copied_as_its_principal(
    private: FakeRegistry, watched: Watched, tmp_path: Path
) -> None:
    group = supplement(private.reference("public/app"), private.reference("team/app"))
    with pytest.raises(ForbiddenError):
        async with group.open(view(watched, private, BOB)):
            pass
    as_alice = view(watched, private, ALICE)
    async with group.open(as_alice) as image:
        await copy(image, f"oci:{tmp_path}/out:1", as_alice)
    async with parse_reference(f"oci:{tmp_path}/out:1").open(as_alice) as image:
        assert (await image.get_manifest()).digest == IMAGE.digest


async def test_SEC14_a_principal_is_named_to_nobody(
    private: FakeRegistry, watched: Watched
) -> None:
    context = view(watched, private, BOB, principal="keyed-hash")
    with pytest.raises(ForbiddenError) as caught:
        await try_open(context, private.reference("team/app"))
    shown = [str(caught.value), repr(caught.value), *map(repr, watched.events)]
    shown += [repr(request) for request in private.requests]
    assert not any("keyed-hash" in text for text in shown)
