"""What is secret stays secret: planted secrets are looked for wherever words come out."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.errors import SupplementedError
from asupplemented.model.credential import Credential
from asupplemented.model.digest import Digest
from asupplemented.testing import (
    Basic,
    Bearer,
    Body,
    Cut,
    FakeRegistry,
    Headers,
    Html,
    Raw,
    Redirect,
    Status,
    Unauthorized,
)
from tests.transports.registry.sessions import BLOB, fill, watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from asupplemented.testing import Request
    from tests.transports.registry.sessions import Watched

SENTINELS = ("sentinel-password", "sentinel-token", "sentinel-identity", "sentinel-query")
PASSWORD, TOKEN, IDENTITY, QUERY = SENTINELS
BASIC = base64.b64encode(f"bob:{PASSWORD}".encode()).decode()
BLOB_DIGEST = Digest.of(BLOB)


@pytest.fixture
async def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Everything that anybody logs, asyncio in debug mode and aiohttp included."""
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    return caplog


def words_of(error: BaseException) -> str:
    """All that an error can be made to say, its causes included."""
    fields = [repr(value) for value in vars(error).values()]
    text = "".join(traceback.format_exception(error))
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return " ".join([text, *fields, *(f"{link!s} {link!r}" for link in chain)])


def check(text: str) -> None:
    for sentinel in (*SENTINELS, BASIC):
        assert sentinel not in text


def echo(request: Request) -> bytes:
    """What a registry knows of us: all of it."""
    return f"{request.headers} {request.target} {request.body!r}".encode()


def repeat(answer: Any, request: Request) -> Any:
    """An error that repeats what we sent."""
    document = {"errors": [{"code": "DENIED", "message": echo(request).decode()}]}
    return Status(400, body=json.dumps(document).encode())(answer, request)


def repeat_plainly(answer: Any, request: Request) -> Any:
    return Status(400, body=echo(request))(answer, request)


FAULTS = [
    repeat,
    repeat_plainly,
    Status(401),
    Status(403),
    Status(404),
    Status(429, {"Retry-After": "999"}),
    Status(500),
    Status(418),
    Unauthorized(error="invalid_token"),
    Html(),
    Raw(b"garbage\r\n\r\n"),
    Raw(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    Cut(after=None),
    Cut(after=5),
    Headers({"Content-Encoding": "gzip"}),
    Redirect(f"ftp://bob:{PASSWORD}@x/?{QUERY}"),
    Redirect(f"http://bob:{PASSWORD}@127.0.0.1:1/?{QUERY}"),
    Redirect(f"http://127.0.0.1:1/?{QUERY}"),
    Redirect(f"http://nobody.invalid/?{QUERY}"),
    Redirect(f"http://169.254.169.254/?{QUERY}"),
    Redirect(f"http://{'a' * 80}/?{QUERY}"),
    Redirect(f"http://127.1/?{QUERY}"),
]


async def provoke(watched: Watched, reference: str) -> str:
    """Open and read; what is said of the failure, if it is one at this place."""
    try:
        async with await watched.open(reference) as source, source.open_blob(BLOB_DIGEST) as blob:
            await blob.read_all(1 << 20)
    except SupplementedError as error:
        return words_of(error)
    return ""


@pytest.mark.parametrize("place", ["/v2/", "/token", "latest", "*/blobs/*"])
@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda hostile: getattr(hostile, "__name__", repr(hostile))
)
async def test_CRED07_SEC14_no_secret_in_errors_events_or_logs(
    logged: pytest.LogCaptureFixture, place: str, fault: Any
) -> None:
    access = Bearer({"bob": PASSWORD})
    async with FakeRegistry(access=access) as registry:
        reference = fill(registry)
        registry.script("/token", Body(json.dumps({"token": TOKEN, "expires_in": 999}).encode()))
        access.answer = lambda request, url: (  # type: ignore[method-assign]
            None
            if request.header("Authorization") == f"Bearer {TOKEN}"
            else Bearer.answer(access, request, url)
        )
        registry._scripts.insert(0, registry.script(place, fault, forever=True))
        async with watch(credentials={registry.host: Credential("bob", PASSWORD)}) as watched:
            check(await provoke(watched, reference))
            check(repr(watched.events))
    check(logged.text)


@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda hostile: getattr(hostile, "__name__", repr(hostile))
)
async def test_SEC14_nor_of_an_identity_token(logged: pytest.LogCaptureFixture, fault: Any) -> None:
    async with FakeRegistry(access=Bearer(refresh_tokens={IDENTITY: "bob"})) as registry:
        reference = fill(registry)
        registry.script("/token", fault, forever=True)
        credential = Credential(identity_token=IDENTITY)
        async with watch(credentials={registry.host: credential}) as watched:
            check(await provoke(watched, reference))
    check(logged.text)


@pytest.mark.parametrize(
    "fault", FAULTS, ids=lambda hostile: getattr(hostile, "__name__", repr(hostile))
)
async def test_REDIR05_nor_of_a_signed_location(
    registry: FakeRegistry,
    other: FakeRegistry,
    watched: Watched,
    logged: pytest.LogCaptureFixture,
    fault: Any,
) -> None:
    reference = fill(registry)
    registry.script("*/blobs/*", Redirect(f"{other.url}/storage?{QUERY}"), forever=True)
    other.put_file("/storage", BLOB)
    other.script("/storage", fault, forever=True)
    words = await provoke(watched, reference)
    # A server that repeats the query in its body is told what it knows already.
    if fault not in (repeat, repeat_plainly):
        check(words)
    check(logged.text)


async def test_CRED07_nothing_shows_what_it_holds(basic_registry: FakeRegistry) -> None:
    credential = Credential("bob", PASSWORD)
    async with (
        watch(credentials={basic_registry.host: credential}) as watched,
        await watched.open(basic_registry.reference("team/app")) as source,
    ):
        [client] = watched.pool._clients.values()
        assert client._contact is not None
        contact, authenticator = client._contact, client._contact.authenticator
        holders: list[object] = [
            source,
            client,
            watched.pool,
            contact,
            authenticator,
            *authenticator._authorizations.values(),
            authenticator._server,
            watched.session,
            watched.connections,
        ]
        for holder in holders:
            check(f"{holder!r} {holder!s}")


@pytest.fixture
async def basic_registry() -> Any:
    async with FakeRegistry(access=Basic({"bob": PASSWORD})) as registry:
        fill(registry)
        yield registry


async def test_CRED02_a_refused_realm_is_named_without_its_query(registry: FakeRegistry) -> None:
    reference = fill(registry)
    challenge = f'Bearer realm="https://evil.example/token?{QUERY}"'
    registry.script("latest", Unauthorized(challenge=challenge))
    async with watch(credentials={registry.host: Credential("bob", PASSWORD)}) as watched:
        with pytest.raises(SupplementedError) as caught:
            await watched.open(reference)
    check(words_of(caught.value))
    assert "https://evil.example/token" in str(caught.value)


def spelled(request: Request) -> str:
    """The Authorization header of a request, fit for the path of a URL."""
    return "/".join((request.header("Authorization") or "none").split())


ECHOES: dict[str, Callable[[str], Any]] = {
    "location": lambda said: Redirect(f"ftp://x/{said}"),
    "location elsewhere": lambda said: Redirect(f"http://127.0.0.1:1/{said}"),
    "realm": lambda said: Status(
        401, {"WWW-Authenticate": f'Bearer realm="ftp://x/{said}",service="s"'}
    ),
    "description": lambda said: Status(
        401,
        {"WWW-Authenticate": f'Bearer realm="x",error="invalid_token",error_description="{said}"'},
    ),
    "warning": lambda said: Headers({"Warning": f'299 - "{said}"'}),
    "body": lambda _said: repeat,
    "text": lambda _said: repeat_plainly,
}
"""Faults that repeat a text."""


@pytest.mark.parametrize("echo_of", ECHOES)
@pytest.mark.parametrize("path", ["/token", "*/manifests/*"])
@pytest.mark.parametrize(
    "credential", [Credential("bob", PASSWORD), Credential(registry_token=TOKEN)], ids=repr
)
async def test_CRED07_what_a_server_repeats_of_a_credential_is_not_told(
    echo_of: str, path: str, credential: Credential
) -> None:
    basic = credential.password is not None and path != "/token"
    access = Basic({"bob": PASSWORD}) if basic else Bearer({"bob": PASSWORD}, public=False)

    def fault(answer: Any, request: Request) -> Any:
        return ECHOES[echo_of](spelled(request))(answer, request)

    async with FakeRegistry(access=access) as registry:
        reference = fill(registry)
        registry.script(path, fault, forever=True)
        async with watch(credentials={registry.host: credential}) as watched:
            said = ""
            try:
                await watched.try_open(reference)
            except SupplementedError as error:
                said = words_of(error)
            check(f"{said} {watched.events}")
