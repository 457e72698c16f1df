"""Who is let in: TLS, passwords, tokens, redirects, as real servers do them."""

from __future__ import annotations

import base64
import ssl
import traceback
from typing import TYPE_CHECKING

import aiohttp
import pytest

import asupplemented as asup
from asupplemented.aio.retry import RetryPolicy
from asupplemented.events import Warned
from tests.interop.places import at_digest
from tests.interop.reading import read_reference
from tests.interop.servers import Account, run_content, run_front, run_registry
from tests.interop.tokens import PUBLIC, run_tokens
from tests.trusting import trust_authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asupplemented.events import Event
    from tests.interop.busybox import Family
    from tests.interop.programs import Skopeo
    from tests.interop.servers import Certificates, Registry
    from tests.interop.tokens import TokenServer

NAME = "guarded/app:1"
PUBLIC_NAME = f"{PUBLIC}app:1"


@pytest.fixture(scope="module")
def store(family: Family, registry: Registry, skopeo: Skopeo) -> Path:
    """The store of a registry with a guarded image and a public one."""
    for name in (NAME, PUBLIC_NAME):
        skopeo.copy(family.reference(), registry.reference(name), "--all")
    return registry.store


@pytest.fixture(scope="module")
def guarded(
    workshop: Path, store: Path, certificates: Certificates, account: Account
) -> Iterator[Registry]:
    """A registry over TLS that wants a password."""
    directory = workshop / "guarded"
    with run_registry(directory, store=store, certificates=certificates, account=account) as opened:
        yield opened


@pytest.fixture
def trust(monkeypatch: pytest.MonkeyPatch, certificates: Certificates) -> None:
    """Have this machine trust the authority."""
    trust_authority(monkeypatch, certificates.authority)


def login(registry: Registry, account: Account, *settings: asup.RegistryOptions) -> asup.Session:
    credentials = {registry.address: (account.user, account.password)}
    return asup.Session(credentials=credentials, settings=settings)


def tell(error: BaseException) -> str:
    """All that an error could tell to a log."""
    fields = [f"{name}={value!r}" for name, value in vars(error).items()]
    return "\n".join([*traceback.format_exception(error), repr(error), *fields])


def assert_silent(text: str, account: Account) -> None:
    for secret in (account.password, base64.b64encode(account.text.encode()).decode()):
        assert secret not in text


@pytest.mark.usefixtures("trust")
async def test_CHAL04_a_password_lets_in_over_tls(
    family: Family, guarded: Registry, account: Account
) -> None:
    async with login(guarded, account) as session:
        assert await read_reference(guarded.reference(NAME), session) == family.contents()


@pytest.mark.usefixtures("trust")
async def test_SEC13_a_password_lets_in_one_principal_and_no_other(
    family: Family, guarded: Registry, account: Account
) -> None:
    reference = guarded.reference(NAME)
    credentials = {guarded.address: (account.user, account.password)}
    async with asup.Session() as session:
        clara = session.scoped("clara", credentials=credentials)
        assert await read_reference(reference, clara) == family.contents()
        wrong = {guarded.address: (account.user, "guessed")}
        for other in (
            session.scoped("mallory"),
            session.scoped("clara"),
            session.scoped("clara", credentials=wrong),
            session,
        ):
            with pytest.raises(asup.UnauthorizedError):
                await asup.parse_reference(reference).open(other)
        assert await read_reference(reference, clara) == family.contents()


async def test_a_borrowed_client_brings_its_own_trust(
    family: Family, guarded: Registry, account: Account, certificates: Certificates
) -> None:
    context = ssl.create_default_context(cafile=certificates.authority)
    connector = aiohttp.TCPConnector(ssl=context)
    credentials = {guarded.address: (account.user, account.password)}
    async with (
        aiohttp.ClientSession(connector=connector) as client,
        asup.Session(http=client, credentials=credentials) as session,
    ):
        assert await read_reference(guarded.reference(NAME), session) == family.contents()
        assert not client.closed


async def test_TLS05_trust_may_be_waived(
    family: Family, guarded: Registry, account: Account
) -> None:
    credentials = {guarded.address: (account.user, account.password)}
    async with asup.Session(tls_verify=False, credentials=credentials) as session:
        assert await read_reference(guarded.reference(NAME), session) == family.contents()


async def test_TLS06_an_unknown_authority_is_refused_and_told_nothing(
    guarded: Registry, account: Account
) -> None:
    async with login(guarded, account) as session:
        with pytest.raises(asup.NetworkError, match="certificate") as refusal:
            await asup.parse_reference(guarded.reference(NAME)).open(session)
    assert "tls_verify=False" in str(refusal.value)  # the remedy
    assert_silent(tell(refusal.value), account)


@pytest.mark.usefixtures("trust")
@pytest.mark.parametrize("user", ["clara", "nobody"])
async def test_CRED07_a_wrong_password_is_refused_and_not_told(
    guarded: Registry, user: str
) -> None:
    wrong = Account(user, "hunter2 is no password")
    async with login(guarded, wrong) as session:
        with pytest.raises(asup.UnauthorizedError) as refusal:
            await asup.parse_reference(guarded.reference(NAME)).open(session)
        assert_silent(repr(session), wrong)
    error = refusal.value
    assert (error.status, error.code) == (401, "UNAUTHORIZED")
    assert error.reference == guarded.reference(NAME)
    assert_silent(tell(error), wrong)


@pytest.mark.usefixtures("trust")
async def test_CHAL05_nobody_is_not_let_in(guarded: Registry) -> None:
    async with asup.Session() as session:
        with pytest.raises(asup.UnauthorizedError) as refusal:
            await asup.parse_reference(guarded.reference(NAME)).open(session)
    assert refusal.value.status == 401


@pytest.mark.usefixtures("trust")
async def test_CRED03_a_password_is_for_its_own_registry(
    registry: Registry, guarded: Registry, store: Path, account: Account
) -> None:
    credentials = {registry.address: (account.user, account.password)}
    async with asup.Session(credentials=credentials) as session:
        with pytest.raises(asup.UnauthorizedError):
            await asup.parse_reference(guarded.reference(NAME)).open(session)


async def test_CRED05_a_password_over_plain_http_comes_with_a_warning(
    family: Family, tmp_path: Path, store: Path, account: Account
) -> None:
    events: list[Event] = []
    with run_registry(tmp_path / "plain", store=store, account=account) as plain:
        credentials = {plain.address: (account.user, account.password)}
        async with asup.Session(
            tls_verify=False, credentials=credentials, hooks=[events.append]
        ) as session:
            assert await read_reference(plain.reference(NAME), session) == family.contents()
    [warning] = [event for event in events if isinstance(event, Warned)]
    assert_silent(repr(events), account)
    assert "http" in warning.message


async def test_PING02_plain_http_is_refused_where_tls_is_due(
    tmp_path: Path, store: Path, account: Account
) -> None:
    with run_registry(tmp_path / "plain", store=store, account=account) as plain:
        async with login(plain, account) as session:
            with pytest.raises(asup.NetworkError) as refusal:
                await asup.parse_reference(plain.reference(NAME)).open(session)
    assert_silent(tell(refusal.value), account)


# Redirects


@pytest.mark.usefixtures("trust")
async def test_REDIR02_blobs_come_from_elsewhere_and_credentials_do_not_go_there(
    family: Family, tmp_path: Path, store: Path, certificates: Certificates, account: Account
) -> None:
    with (
        run_content(tmp_path / "content", store, certificates) as content,
        run_registry(
            tmp_path / "registry",
            store=store,
            certificates=certificates,
            account=account,
            content=content,
        ) as redirecting,
    ):
        async with login(redirecting, account) as session:
            place = redirecting.reference(NAME)
            assert await read_reference(place, session) == family.contents()


@pytest.mark.usefixtures("trust")
async def test_a_server_for_content_that_is_gone_is_named(
    family: Family, tmp_path: Path, store: Path, certificates: Certificates, account: Account
) -> None:
    with run_content(tmp_path / "content", store, certificates) as content:
        pass
    blob = next(iter(family.contents().blobs))
    with run_registry(
        tmp_path / "registry",
        store=store,
        certificates=certificates,
        account=account,
        content=content,
    ) as redirecting:
        place = redirecting.reference(NAME)
        hasty = asup.RegistryOptions(retry=RetryPolicy(attempts=1))
        async with login(redirecting, account, hasty) as session:
            image = await asup.parse_reference(place).open(session)
            with pytest.raises(asup.NetworkError, match=content) as failure:
                async with image, image.open_blob(blob):
                    pass
        assert (failure.value.digest, failure.value.reference) == (blob, place)
        assert_silent(tell(failure.value), account)


# Tokens


@pytest.fixture
def tokens(account: Account) -> Iterator[TokenServer]:
    with run_tokens(account) as server:
        yield server


@pytest.fixture
def front(
    tmp_path: Path, store: Path, certificates: Certificates, tokens: TokenServer
) -> Iterator[Registry]:
    """A registry that wants tokens, and their server, behind one nginx."""
    with (
        run_registry(tmp_path / "registry", store=store, tokens=tokens) as registry,
        run_front(tmp_path / "front", registry, tokens, certificates) as opened,
    ):
        yield opened


@pytest.mark.usefixtures("trust")
async def test_TOK10_everybody_gets_one_token_for_a_public_repository(
    family: Family, front: Registry, tokens: TokenServer
) -> None:
    async with asup.Session() as session:
        assert await read_reference(front.reference(PUBLIC_NAME), session) == family.contents()
    assert tokens.asked == [(None, (f"repository:{PUBLIC}app:pull",))]


@pytest.mark.usefixtures("trust")
async def test_TOK07_a_password_buys_one_token_for_a_repository(
    family: Family, front: Registry, tokens: TokenServer, account: Account
) -> None:
    async with login(front, account) as session:
        place = front.reference(NAME)
        assert await read_reference(place, session) == family.contents()
        image = family.images["linux/arm64"]
        by_digest = await read_reference(at_digest(place, image.digest), session)
        assert by_digest == family.contents("linux/arm64")
    assert tokens.asked == [(account.user, ("repository:guarded/app:pull",))]


@pytest.mark.usefixtures("trust")
async def test_TOK08_a_token_without_the_right_is_not_asked_for_again(
    front: Registry, tokens: TokenServer
) -> None:
    async with asup.Session() as session:
        with pytest.raises(asup.SourceError) as refusal:
            await asup.parse_reference(front.reference(NAME)).open(session)
    assert isinstance(refusal.value, asup.ForbiddenError), repr(refusal.value)
    assert tokens.asked == [(None, ("repository:guarded/app:pull",))]


@pytest.mark.usefixtures("trust")
async def test_CRED07_a_wrong_password_for_tokens_is_refused_and_not_told(
    front: Registry, tokens: TokenServer, account: Account
) -> None:
    wrong = Account(account.user, "hunter2 is no password")
    async with login(front, wrong) as session:
        with pytest.raises(asup.UnauthorizedError) as refusal:
            await asup.parse_reference(front.reference(NAME)).open(session)
    assert tokens.asked == []
    assert_silent(tell(refusal.value), wrong)
