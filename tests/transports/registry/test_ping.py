"""Is it there, over https or http, and what happens if not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from asupplemented.abc import Timeouts
from asupplemented.errors import (
    ForbiddenError,
    ImageNotFoundError,
    MalformedManifestError,
    MalformedResponseError,
    NetworkError,
    ServerError,
    SourceTimeoutError,
    UnexpectedStatusError,
)
from asupplemented.events import Warned
from asupplemented.testing import (
    Authority,
    Basic,
    FakeRegistry,
    Headers,
    Hold,
    Redirect,
    Status,
    Unauthorized,
)
from asupplemented.transports.registry.ping import contact_of
from asupplemented.transports.registry.request import RequestContext
from tests.clocks import let_pass
from tests.transports.registry.raw_servers import free_port, serve_bytes
from tests.transports.registry.sessions import IMAGE, fill, limited, watch
from tests.trusting import trust_authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from asupplemented.model.credential import Credential
    from tests.transports.registry.sessions import Watched


MANIFEST = "/v2/team/app/manifests/latest"
HEAD_START = 0.01


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that this process trusts."""
    authority = Authority()
    path = tmp_path / "authority.pem"
    path.write_bytes(authority.pem)
    trust_authority(monkeypatch, path)
    return authority


@pytest.fixture
async def secure(authority: Authority) -> AsyncIterator[FakeRegistry]:
    """A registry over TLS; whoever allows plain http pings it."""
    async with FakeRegistry(tls=authority.server_context()) as opened:
        yield opened


def paths(registry: FakeRegistry) -> list[str]:
    return [request.path for request in registry.requests]


@pytest.mark.parametrize("status", [200, 401])
async def test_PING01_200_and_401_are_alive(
    secure: FakeRegistry, watched: Watched, status: int
) -> None:
    reference = fill(secure)
    secure.script("/v2/", Status(status, body=b""))
    await watched.try_open(reference)
    ping = secure.requests[0]
    assert (ping.method, ping.target) == ("GET", "/v2/")
    assert ping.header("Authorization") is None


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, UnexpectedStatusError), (403, ForbiddenError), (204, UnexpectedStatusError)],
)
async def test_PING01_everything_else_is_an_error_and_no_miss(
    registry: FakeRegistry, watched: Watched, status: int, kind: type[Exception]
) -> None:
    """A manifest is missing only where a registry says so."""
    reference = fill(registry)
    registry.script("*", Status(status), forever=True)
    with pytest.raises(kind) as caught:
        await watched.open(reference)
    assert not isinstance(caught.value, LookupError)
    assert paths(registry) == [MANIFEST, "/v2/"]


async def test_PING01_a_miss_is_believed_once_the_registry_was_pinged(
    registry: FakeRegistry, watched: Watched
) -> None:
    fill(registry)
    for _ in range(2):
        with pytest.raises(ImageNotFoundError):
            await watched.open(registry.reference("team/app", "none"))
    missing = MANIFEST.replace("latest", "none")
    assert paths(registry) == [missing, "/v2/", missing]


async def test_PING01_what_is_hidden_from_strangers_is_asked_for_again(
    registry: FakeRegistry,
) -> None:
    """Some registries deny that there is anything, and challenge the ping only."""
    registry.access = Basic({"bob": "secret"})
    registry.script("latest", Status(404), forever=False)
    async with watch(credentials={registry.host: ("bob", "secret")}) as watched:
        await watched.try_open(fill(registry))
    assert paths(registry) == [MANIFEST, "/v2/", MANIFEST]
    assert [r.header("Authorization") is None for r in registry.requests] == [True, True, False]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_PING01_a_busy_registry_is_not_pinged_as_well(
    registry: FakeRegistry, watched: Watched, status: int
) -> None:
    registry.script("latest", Status(status))
    await watched.try_open(fill(registry))
    assert paths(registry) == [MANIFEST, MANIFEST]


async def test_PING01_no_ping_where_the_first_response_says_it_all(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    for _ in range(3):
        await watched.try_open(reference)
    assert paths(registry) == [MANIFEST] * 3


async def test_PING02_https_is_tried_first(secure: FakeRegistry, watched: Watched) -> None:
    await watched.try_open(fill(secure))
    assert secure.connections == 1
    assert paths(secure) == ["/v2/", MANIFEST]


async def test_PING02_without_verification_any_certificate_will_do() -> None:
    stranger = Authority().server_context("somebody.else")
    async with FakeRegistry(tls=stranger) as registry, watch() as watched:
        await watched.try_open(fill(registry))


async def test_PING02_plain_http_is_used_where_https_is_not_spoken(
    registry: FakeRegistry, watched: Watched
) -> None:
    await watched.try_open(fill(registry))
    assert paths(registry) == [MANIFEST]
    assert registry.connections == 2  # one of them was for TLS


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x01\x00\x02\x02F"]
)
async def test_PING02_however_a_plain_server_answers_to_TLS(answer: bytes) -> None:
    then = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with serve_bytes(answer, then=then) as host, watch() as watched:
        with pytest.raises(MalformedManifestError):  # it is empty
            await watched.open(f"docker://{host}/a")


async def test_PING02_never_without_permission(registry: FakeRegistry) -> None:
    async with watch(tls_verify=True, timeouts=Timeouts(connect=0.2)) as watched:
        with pytest.raises((NetworkError, SourceTimeoutError)):
            await watched.open(fill(registry))
    assert registry.requests == []


async def test_PING02_a_status_over_https_is_an_answer(
    secure: FakeRegistry, watched: Watched
) -> None:
    secure.script("/v2/", Status(404), forever=True)
    with pytest.raises(UnexpectedStatusError):
        await watched.open(fill(secure))
    assert paths(secure) == ["/v2/"]


async def test_PING02_both_failures_are_told(watched: Watched) -> None:
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(NetworkError) as caught:
        await watched.open(f"docker://{host}/a")
    assert f"http://{host}" in str(caught.value)
    assert f"https://{host}" in str(caught.value)


async def test_PING02_cancelling_is_no_reason_for_plain_http(registry: FakeRegistry) -> None:
    async with watch() as watched:
        task = asyncio.create_task(watched.open(fill(registry)))
        async with asyncio.timeout(5):
            await registry.wait_until(lambda: registry.connections == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert registry.requests == []


async def test_PING02_https_is_tried_anew_as_long_as_http_has_shown_no_registry(
    watched: Watched,
) -> None:
    """A registry that restarts is refused over both, and is not taken for a plain one."""
    host = f"127.0.0.1:{free_port()}"
    with pytest.raises(NetworkError):
        await watched.open(f"docker://{host}/team/app")
    port = int(host.rpartition(":")[2])
    registry = FakeRegistry(tls=Authority().server_context())
    await registry.start(port)
    async with contextlib.aclosing(registry):
        await watched.try_open(fill(registry))


async def test_PING02_a_refusal_over_plain_http_tells_of_https_too(
    registry: FakeRegistry, watched: Watched
) -> None:
    registry.script("*", Status(404), forever=True)
    with pytest.raises(UnexpectedStatusError, match="and over https before that"):
        await watched.open(fill(registry))


async def test_CRED05_a_plain_ping_that_leads_elsewhere_is_no_registry(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    registry.script("*", Redirect(lambda request: other.url + request.target), forever=True)
    with pytest.raises(MalformedResponseError, match="only redirects"):
        await watched.open(fill(registry))
    assert paths(registry) == [MANIFEST, "/v2/"]
    assert paths(other) == ["/v2/"]


async def test_CRED05_a_manifest_may_lead_elsewhere_from_a_plain_registry(
    registry: FakeRegistry, other: FakeRegistry, watched: Watched
) -> None:
    fill(other)
    registry.script("latest", Redirect(lambda request: other.url + request.target), forever=True)
    await watched.try_open(fill(registry))
    assert paths(registry) == [MANIFEST, "/v2/"]
    assert paths(other) == [MANIFEST]


async def test_PING03_https_has_a_head_start_and_wins_if_it_answers(secure: FakeRegistry) -> None:
    async with watch(options=limited(head_start=HEAD_START)) as watched:
        go = asyncio.Event()
        secure.script("/v2/", Hold(go))
        opening = asyncio.create_task(watched.try_open(fill(secure)))
        async with asyncio.timeout(5):
            await secure.wait_until(lambda: secure.in_flight == 1)
        await let_pass(3 * HEAD_START)  # http is asked by now, and not understood
        go.set()
        await opening


async def test_PING03_a_plain_server_that_leaves_TLS_hanging_is_not_waited_for() -> None:
    empty = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    options = limited(head_start=HEAD_START)
    async with serve_bytes(empty, deaf_to=b"\x16") as host, watch(options=options) as watched:
        async with asyncio.timeout(5):
            with pytest.raises(MalformedManifestError):  # it is empty
                await watched.open(f"docker://{host}/a")
        [client] = watched.pool._clients.values()
        assert f"http://{host}/" in repr(client)


async def test_PING03_both_are_given_up_if_neither_is_alive() -> None:
    missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    settings = {"timeouts": Timeouts(connect=1), "options": limited(head_start=HEAD_START)}
    async with serve_bytes(missing, deaf_to=b"\x16") as host, watch(**settings) as watched:
        with pytest.raises(UnexpectedStatusError, match="and over https before that"):
            await watched.open(f"docker://{host}/a")
        assert watched.clock.slept == []


async def test_PING04_the_ping_is_shared(secure: FakeRegistry, watched: Watched) -> None:
    references = [fill(secure, f"team/app{number}") for number in range(16)]
    await asyncio.gather(*(watched.try_open(reference) for reference in references))
    assert secure.count("/v2/") == 1


async def test_PING04_a_failure_is_shared_but_not_remembered(
    secure: FakeRegistry, watched: Watched
) -> None:
    references = [fill(secure, f"team/app{number}") for number in range(8)]
    secure.script("/v2/", Status(404))
    outcomes = await asyncio.gather(
        *(watched.try_open(reference) for reference in references), return_exceptions=True
    )
    assert secure.count("/v2/") == 1
    for reference, outcome in zip(references, outcomes, strict=True):
        assert isinstance(outcome, UnexpectedStatusError)
        assert outcome.reference == reference
    await watched.try_open(references[0])
    assert secure.count("/v2/") == 2


async def test_PING04_a_cancelled_leader_poisons_nobody(
    secure: FakeRegistry, watched: Watched
) -> None:
    first, second = fill(secure, "a"), fill(secure, "b")
    secure.script("/v2/", Hold(asyncio.Event()))
    leader = asyncio.create_task(watched.open(first))
    async with asyncio.timeout(5):
        await secure.wait_until(lambda: secure.in_flight == 1)
        follower = asyncio.create_task(watched.try_open(second))
        await asyncio.sleep(0)
        leader.cancel()
        await follower
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert secure.count("/v2/") == 2


def test_PING05_docker_hub_is_contacted_elsewhere() -> None:
    assert contact_of("docker.io") == "registry-1.docker.io"
    assert contact_of("quay.io:443") == "quay.io:443"


async def test_PING05_credentials_are_looked_up_by_the_name_in_the_reference() -> None:
    asked: list[str] = []

    async def provider(name: str) -> Credential | None:
        asked.append(name)
        raise ZeroDivisionError

    async with watch(credentials=provider) as watched:
        with pytest.raises(ZeroDivisionError):
            await watched.open("docker://busybox")
        assert asked == ["docker.io/library/busybox"]


@pytest.mark.parametrize(
    ("headers", "supported"),
    [({"X-Registry-Supports-Signatures": "1"}, True), ({}, False),
     ({"X-Registry-Supports-Signatures": "true"}, False)],
)  # fmt: skip
async def test_PING07_the_signature_extension(
    registry: FakeRegistry,
    watched: Watched,
    headers: dict[str, str | None],
    supported: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    registry.script("/v2/", Headers(headers), forever=True)
    async with await watched.open(fill(registry)) as source:
        assert paths(registry) == [MANIFEST]
        [client] = watched.pool._clients.values()
        for _ in range(2):
            context = RequestContext(str(source.reference), watched.events.append)
            assert await client.has_signatures(context) is supported
    assert paths(registry) == [MANIFEST, "/v2/"]


async def test_CHAL02_a_malformed_challenge_is_told(
    registry: FakeRegistry, watched: Watched
) -> None:
    reference = fill(registry)
    malformed = Unauthorized(challenge='Basic realm="x", Bearer realm="open')
    registry.script("*", malformed, forever=True)
    with pytest.raises(MalformedResponseError, match="no realm"):
        await watched.open(reference)
    for event in watched.told(Warned):  # of the manifest, and of the ping
        assert "malformed" in event.message
        assert event.reference == reference
    assert len(watched.told(Warned)) == 2


async def test_RET06_a_busy_ping_is_tried_again(secure: FakeRegistry, watched: Watched) -> None:
    secure.script("/v2/", Status(503), Status(429, {"Retry-After": "7"}))
    await watched.try_open(fill(secure))
    assert watched.clock.slept == [2.0, 7.0]


@pytest.mark.parametrize("asked_first", ["/v2/", "latest"])
async def test_RET06_a_busy_ping_is_not_tried_for_ever(
    registry: FakeRegistry, secure: FakeRegistry, watched: Watched, asked_first: str
) -> None:
    busy = secure if asked_first == "/v2/" else registry
    busy.script(asked_first, Status(503), forever=True)
    with pytest.raises(ServerError):
        await watched.open(fill(busy))
    assert busy.count() == busy.count(asked_first) == 5


async def test_what_speaks_no_http_is_malformed(watched: Watched) -> None:
    async with serve_bytes(b"SSH-2.0-OpenSSH_9.2\r\n") as host:
        with pytest.raises((MalformedResponseError, NetworkError)) as caught:
            await watched.open(f"docker://{host}/a")
    assert host in str(caught.value)


async def test_a_registry_that_never_answers_is_given_up(registry: FakeRegistry) -> None:
    options = limited()
    async with watch(timeouts=Timeouts(first_byte=0.5, connect=5), options=options) as watched:
        registry.script("latest", Hold(asyncio.Event()), forever=True)
        with pytest.raises(SourceTimeoutError):
            await watched.open(fill(registry))


async def test_a_registry_that_trickles_its_head_is_given_up() -> None:
    slow = b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000
    async with (
        serve_bytes(slow, every=0.01, size=6) as host,
        watch(timeouts=Timeouts(first_byte=0.1, connect=1)) as watched,
    ):
        with pytest.raises(SourceTimeoutError):
            await watched.open(f"docker://{host}/a")


async def test_an_unknown_host_is_told_and_not_tried_again(watched: Watched) -> None:
    with pytest.raises(NetworkError, match=r"nobody\.invalid"):
        await watched.open("docker://nobody.invalid/a")
    assert watched.clock.slept == []


async def test_a_host_that_cannot_be_a_name_is_told(watched: Watched) -> None:
    with pytest.raises(NetworkError):
        await watched.open(f"docker://{'a' * 80}.example/b")
    assert watched.clock.slept == []


@pytest.mark.parametrize(
    ("names", "why"), [(("127.0.0.1",), "self-signed|unable|local issuer"), (("a.b",), "")]
)
async def test_TLS05_a_certificate_that_is_not_trusted_is_refused_and_not_tried_again(
    names: tuple[str, ...], why: str
) -> None:
    tls = Authority().server_context(*names)
    async with FakeRegistry(tls=tls) as registry, watch(tls_verify=True) as watched:
        with pytest.raises(NetworkError, match=f"certificate.*({why})") as caught:
            await watched.open(fill(registry))
        assert watched.clock.slept == []
    assert "tls_verify" in str(caught.value)
    assert registry.requests == []


async def test_TLS05_the_name_of_the_host_is_checked(authority: Authority) -> None:
    tls = authority.server_context("somebody.else")
    async with FakeRegistry(tls=tls) as registry, watch(tls_verify=True) as watched:
        with pytest.raises(NetworkError, match="certificate"):
            await watched.open(fill(registry))


async def test_TLS06_a_trusted_certificate_is_trusted(authority: Authority) -> None:
    tls = authority.server_context()
    async with FakeRegistry(tls=tls) as registry, watch(tls_verify=True) as watched:
        async with await watched.open(fill(registry)) as source:
            assert (await source.get_manifest()).digest == IMAGE.digest
        assert not watched.connections._tls._made  # aiohttp has one, which is made once
    assert paths(registry) == [MANIFEST]


async def test_CRED05_credentials_over_plain_http_are_told_once(registry: FakeRegistry) -> None:
    registry.access = Basic({"bob": "secret"})
    async with watch(credentials={registry.host: ("bob", "secret")}) as watched:
        for _ in range(2):
            await watched.try_open(fill(registry))
        [event] = watched.told(Warned)
        assert "plain http" in event.message
        assert "secret" not in event.message
