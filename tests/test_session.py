"""The session: what it owns, what it refuses, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from asupplemented.abc import AsyncResource, ResourceKey, Timeouts
from asupplemented.aio.retry import CLOCK, Clock
from asupplemented.errors import ClosedError, ConfigurationError, UsageError, WrongLoopError
from asupplemented.events import Event, Warned
from asupplemented.model.credential import Credential
from asupplemented.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

EVENT = Warned("oci:/srv/app", "something")


class Pool(AsyncResource):
    """Tells when it is closed."""

    def __init__(self, name: str, closed: list[str], failure: Exception | None = None) -> None:
        self.name = name
        self.closed = closed
        self.failure = failure

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self.closed.append(self.name)
        if self.failure is not None:
            raise self.failure


def key(name: str) -> ResourceKey[Any]:
    return ResourceKey(name)


# Resources


async def test_a_resource_is_made_once_and_told_apart_by_identity() -> None:
    async with Session() as session:
        one, other = key("pool"), key("pool")
        made = session.resource(one, object)
        assert session.resource(one, object) is made
        assert session.resource(other, object) is not made


async def test_resources_are_closed_in_reverse_order_of_making() -> None:
    closed: list[str] = []
    async with Session() as session:
        for name in "abc":
            session.resource(key(name), lambda name=name: Pool(name, closed))
        session.resource(key("a value that needs no closing"), object)
    assert closed == ["c", "b", "a"]


async def test_what_a_factory_takes_from_the_session_is_closed_after_it() -> None:
    closed: list[str] = []
    inner = key("inner")
    async with Session() as session:

        def make() -> Pool:
            session.resource(inner, lambda: Pool("inner", closed))
            return Pool("outer", closed)

        session.resource(key("outer"), make)
    assert closed == ["outer", "inner"]


async def test_a_resource_can_still_use_those_made_before_it_while_it_closes() -> None:
    closed: list[str] = []
    inner = key("inner")
    session = Session()
    found: list[object] = []

    class Outer(AsyncResource):
        async def aclose(self) -> None:
            found.append(session.resource(inner, object))
            with pytest.raises(ClosedError):
                session.resource(key("something new"), object)

    kept = session.resource(inner, lambda: Pool("inner", closed))
    session.resource(key("outer"), Outer)
    await session.aclose()
    assert found == [kept]


async def test_a_factory_that_fails_leaves_nothing() -> None:
    async with Session() as session:
        pool = key("pool")
        with pytest.raises(ZeroDivisionError):
            session.resource(pool, lambda: 1 // 0)
        assert session.resource(pool, lambda: "made") == "made"


async def test_a_setting_is_found_under_its_key() -> None:
    clock = Clock()
    async with Session(settings=[clock]) as session:
        assert session.resource(CLOCK, Clock) is clock


async def test_what_no_setting_gives_is_made_on_first_use() -> None:
    other = Clock()
    async with Session(settings=()) as session:
        assert session.resource(CLOCK, lambda: other) is other


# Closing


async def test_all_failures_of_closing_leave_as_one_group() -> None:
    closed: list[str] = []
    session = Session()
    failures = [OSError("a"), None, ValueError("c")]
    for name, failure in zip("abc", failures, strict=True):
        session.resource(key(name), lambda n=name, f=failure: Pool(n, closed, f))
    with pytest.raises(ExceptionGroup) as caught:
        await session.aclose()
    assert closed == ["c", "b", "a"]
    assert list(caught.value.exceptions) == [failures[2], failures[0]]
    await session.aclose()


async def test_closing_twice_is_closing_once() -> None:
    closed: list[str] = []
    session = Session()
    session.resource(key("pool"), lambda: Pool("pool", closed))
    await session.aclose()
    await session.aclose()
    assert closed == ["pool"]
    assert session.closed


async def test_closing_from_two_tasks_waits_for_the_same_end() -> None:
    closed: list[str] = []
    session = Session()
    for name in "ab":
        session.resource(key(name), lambda name=name: Pool(name, closed))

    async def close() -> list[str]:
        await session.aclose()
        return list(closed)

    assert await asyncio.gather(close(), close()) == [["b", "a"], ["b", "a"]]


async def test_cancelled_while_closing_everything_is_closed_all_the_same() -> None:
    closed: list[str] = []
    session = Session()
    for name in "ab":
        session.resource(key(name), lambda name=name: Pool(name, closed))
    task = asyncio.create_task(session.aclose())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "a" in closed
    assert session.closed


async def test_a_closed_session_says_so() -> None:
    async with Session() as session:
        pass
    with pytest.raises(ClosedError, match="closed"):
        session.resource(key("pool"), object)


async def test_a_session_is_an_async_context_manager_of_itself() -> None:
    session = Session()
    async with session as entered:
        assert entered is session
        assert not session.closed
    assert "closed" in repr(session)


# The event loop


def test_a_session_belongs_to_the_loop_that_used_it_first() -> None:
    session = Session()
    pool = key("pool")

    async def use() -> None:
        session.resource(pool, object)

    async def close() -> None:
        await session.aclose()

    first = asyncio.new_event_loop()
    try:
        first.run_until_complete(use())
        for misuse in (use, close):
            with pytest.raises(WrongLoopError, match="another event loop"):
                asyncio.run(misuse())
        first.run_until_complete(close())
    finally:
        first.close()


def test_outside_of_a_loop_a_session_says_how_it_is_used() -> None:
    with pytest.raises(WrongLoopError, match="event loop"):
        Session().resource(key("pool"), object)


def test_entering_binds_a_session_to_its_loop() -> None:
    session = Session()
    asyncio.run(session.__aenter__())
    with pytest.raises(WrongLoopError):
        asyncio.run(session.aclose())


# Left behind


def collect(make: Callable[[], Session]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
        gc.collect()
    return [str(warning.message) for warning in caught if warning.category is ResourceWarning]


async def test_a_session_left_open_with_resources_warns() -> None:
    def make() -> Session:
        session = Session()
        session.resource(key("pool"), lambda: Pool("pool", []))
        return session

    [message] = collect(make)
    assert "unclosed <Session" in message


async def test_a_session_that_holds_nothing_may_be_dropped() -> None:
    assert collect(Session) == []


async def test_refused_arguments_leave_no_noise() -> None:
    def make() -> Session:
        with pytest.raises(ConfigurationError):
            Session(lookahead=-1)
        return Session()

    assert collect(make) == []


# Arguments


@pytest.mark.parametrize("lookahead", [0, 1, 64, 10_000])
def test_lookahead(lookahead: int) -> None:
    assert Session(lookahead=lookahead).lookahead == lookahead


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"lookahead": -1}, "lookahead"),
        ({"lookahead": True}, "lookahead"),
        ({"lookahead": 1.5}, "lookahead"),
        ({"lookahead": None}, "lookahead"),
        ({"tls_verify": "/etc/ssl/ca.pem"}, "tls_verify"),
        ({"tls_verify": 1}, "tls_verify"),
        ({"http": object()}, "http"),
        ({"timeouts": 30}, "timeouts"),
        ({"timeouts": Timeouts(connect=0)}, "timeouts.connect"),
        ({"timeouts": Timeouts(first_byte=-1)}, "timeouts.first_byte"),
        ({"timeouts": Timeouts(stall=float("nan"))}, "timeouts.stall"),
        ({"timeouts": Timeouts(open=float("inf"))}, "timeouts.open"),
        ({"timeouts": Timeouts(open=True)}, "timeouts.open"),
        ({"timeouts": Timeouts(min_rate=-1)}, "timeouts.min_rate"),
        ({"hooks": ["print"]}, "hook"),
        ({"settings": Clock()}, "a list of them, not a Clock"),
        ({"settings": [None]}, "RegistryOptions.*NoneType is none"),
        ({"settings": [Clock]}, "RegistryOptions.*Clock is none"),
        ({"settings": [Clock(), Clock()]}, "two settings are clock"),
        ({"credentials": "secret"}, "credentials"),
        ({"credentials": {"https://registry.example": "secret"}}, "https://registry.example"),
        ({"credentials": {"https://user:secret@registry.example": "x"}}, "'host:5000'"),
        ({"credentials": {"registry.example/app:latest": "x"}}, "'host:5000'"),
        ({"credentials": {"": "secret"}}, "'host:5000'"),
        ({"credentials": {5000: "secret"}}, "by registry"),
        ({"credentials": {"registry.example": ("user",)}}, "credential"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        Session(**arguments)
    assert "secret" not in str(caught.value)


def test_timeouts_may_be_off() -> None:
    timeouts = Timeouts(connect=None, first_byte=None, stall=None, min_rate=0, open=2)
    assert Session(timeouts=timeouts).timeouts is timeouts


async def test_a_borrowed_client_is_not_closed() -> None:
    async with aiohttp.ClientSession() as client:
        async with Session(http=client) as session:
            assert session.http is client
        assert not client.closed
    with pytest.raises(ConfigurationError, match="closed already"):
        Session(http=client)


def test_defaults() -> None:
    session = Session()
    assert (session.lookahead, session.tls_verify, session.http) == (64, None, None)
    assert session.timeouts == Timeouts()
    assert session.observed is False


# Credentials


async def test_credentials_by_registry() -> None:
    stored = Credential(identity_token="refresh")  # noqa: S106 - an example
    given = {"registry.example:5000": ("user", "pass"), "ghcr.io": "token", "quay.io": stored}
    credentials = Session(credentials=given).credentials
    given.clear()
    assert await credentials("registry.example:5000/app") == Credential("user", "pass")
    assert await credentials("registry.example:5000") == Credential("user", "pass")
    assert await credentials("ghcr.io/team/app") == Credential.of("token")
    assert await credentials("quay.io/app") is stored
    assert await credentials("registry.example/app") is None


async def test_FILE08_the_most_specific_key_counts() -> None:
    given = {"quay.io": "host", "quay.io/a/b": "team", "quay.io/a/b/c": "app"}
    credentials = Session(credentials=given).credentials
    for name, token in (
        ("quay.io/a/b/c", "app"),
        ("quay.io/a/b/c/d", "app"),
        ("quay.io/a/b/x", "team"),
        ("quay.io/a/b", "team"),
        ("quay.io/a/bc", "host"),
        ("quay.io/a", "host"),
        ("quay.io", "host"),
    ):
        assert await credentials(name) == Credential.of(token)
    assert await credentials("quay.io.evil.example/a/b/c") is None
    assert await credentials("evil.example/quay.io/a") is None


async def test_REF09_registries_that_differ_in_case_are_two() -> None:
    credentials = Session(credentials={"Quay.io": "upper", "quay.io": "lower"}).credentials
    assert await credentials("Quay.io/app") == Credential.of("upper")
    assert await credentials("quay.io/app") == Credential.of("lower")
    assert await credentials("QUAY.io/app") is None


async def test_no_credentials_is_anonymous() -> None:
    assert await Session().credentials("ghcr.io") is None


async def test_credentials_from_a_function() -> None:
    asked: list[str] = []

    async def look_up(name: str) -> Any:
        asked.append(name)
        return ("user", "pass") if name.startswith("ghcr.io/") else None

    credentials = Session(credentials=look_up).credentials
    assert await credentials("ghcr.io/team/app") == Credential("user", "pass")
    assert await credentials("quay.io/team/app") is None
    assert asked == ["ghcr.io/team/app", "quay.io/team/app"]


def test_SEC14_no_secret_is_shown() -> None:
    session = Session(credentials={"ghcr.io": ("user", "hunter2"), "quay.io": "hunter3"})
    shown = f"{session!r} {session.credentials!r}"
    assert "hunter" not in shown
    assert "ghcr.io" in shown


# Views for others


async def test_a_scoped_view_shares_what_its_session_owns() -> None:
    told: list[Event] = []
    closed: list[str] = []
    timeouts = Timeouts(open=2)
    async with aiohttp.ClientSession() as client:
        settings: dict[str, Any] = {"http": client, "timeouts": timeouts, "tls_verify": False}
        async with Session(lookahead=3, hooks=[told.append], **settings) as session:
            view = session.scoped("alice")
            pool = key("pool")
            assert view.resource(pool, lambda: Pool("pool", closed)) is session.resource(pool, Any)
            assert (view.lookahead, view.tls_verify, view.observed) == (3, False, True)
            assert view.http is client
            assert view.timeouts is timeouts
            view.emit(EVENT)
            assert (told, closed) == ([EVENT], [])
    assert closed == ["pool"]


async def test_a_scoped_view_has_an_identity_of_its_own() -> None:
    session = Session(credentials={"ghcr.io": "of the session"})
    view = session.scoped("alice", credentials={"quay.io": "of alice"})
    assert (session.principal, view.principal) == (None, "alice")
    assert await view.credentials("quay.io/app") == Credential.of("of alice")
    assert await view.credentials("ghcr.io/app") is None
    assert await session.credentials("quay.io/app") is None


async def test_without_credentials_a_scoped_view_is_anonymous() -> None:
    session = Session(credentials={"ghcr.io": "of the session"})
    assert await session.scoped("alice").credentials("ghcr.io/app") is None


async def test_a_view_of_a_view_replaces_it() -> None:
    session = Session()
    view = session.scoped("alice", credentials={"quay.io": "of alice"}).scoped("bob")
    assert view.principal == "bob"
    assert await view.credentials("quay.io/app") is None


async def test_closing_a_scoped_session_is_harmless() -> None:
    closed: list[str] = []
    pool = key("pool")
    async with Session() as session:
        async with session.scoped("alice") as view:
            made = view.resource(pool, lambda: Pool("pool", closed))
        await view.aclose()
        assert not session.closed
        assert view.resource(pool, object) is session.resource(pool, object) is made
        assert closed == []
    assert closed == ["pool"]


async def test_a_scoped_session_keeps_its_session_and_does_not_warn_itself() -> None:
    views: list[Session] = []

    def drop_session() -> Session:
        session = Session()
        views.append(session.scoped("alice"))
        session.resource(key("pool"), lambda: Pool("pool", []))
        return session

    def drop_view() -> Session:
        return views.pop()

    assert collect(drop_session) == []
    [message] = collect(drop_view)
    assert "unclosed <Session lookahead" in message


def test_a_scoped_session_is_of_the_class_of_its_session() -> None:
    class Special(Session):
        """A program's own kind of session."""

    assert type(Special().scoped("alice")) is Special


async def test_a_scoped_view_ends_with_its_session() -> None:
    async with Session() as session:
        view = session.scoped("alice")
        view.resource(key("pool"), object)
        assert not view.closed
    assert view.closed
    for misuse in (
        lambda: view.resource(key("pool"), object),
        lambda: view.scoped("bob"),
        lambda: session.scoped("alice"),
    ):
        with pytest.raises(ClosedError, match="closed"):
            misuse()


@pytest.mark.parametrize("principal", ["", None, 7, b"alice", ("alice", "hunter2")])
def test_a_principal_is_a_name_and_is_not_shown(principal: Any) -> None:
    with pytest.raises(ConfigurationError, match="principal") as caught:
        Session().scoped(principal)
    assert "alice" not in str(caught.value)


@pytest.mark.parametrize("credentials", ["hunter2", {"https://ghcr.io": "hunter2"}])
def test_the_credentials_of_a_view_are_checked_as_those_of_a_session(credentials: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Session().scoped("alice", credentials=credentials)
    assert "hunter2" not in str(caught.value)


def test_SEC14_a_scoped_view_shows_neither_principal_nor_secret() -> None:
    view = Session().scoped("keyed-hash", credentials={"ghcr.io": ("user", "hunter2")})
    shown = f"{view!r} {view.credentials!r}"
    assert "<Session scoped lookahead" in shown
    assert "keyed-hash" not in shown
    assert "hunter" not in shown


# Hooks


async def test_hooks_are_told_in_order() -> None:
    told: list[tuple[str, Event]] = []
    hooks = [lambda e: told.append(("a", e)), lambda e: told.append(("b", e))]
    async with Session(hooks=iter(hooks)) as session:
        assert session.observed is True
        session.emit(EVENT)
    assert told == [("a", EVENT), ("b", EVENT)]


async def test_a_hook_that_raises_disturbs_nobody_and_is_reported() -> None:
    told: list[Event] = []
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
    fault = RuntimeError("hook")

    def fail(event: Event) -> None:
        raise fault

    async with Session(hooks=[fail, told.append]) as session:
        session.emit(EVENT)
    assert told == [EVENT]
    assert [report["exception"] for report in reports] == [fault]


async def test_an_interrupt_in_a_hook_is_no_mistake_of_the_hook() -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    async with Session(hooks=[interrupt]) as session:
        with pytest.raises(KeyboardInterrupt):
            session.emit(EVENT)


def test_usage_errors_are_one_kind() -> None:
    assert issubclass(ClosedError, UsageError)
    assert issubclass(WrongLoopError, UsageError)


def test_a_session_does_not_import_aiohttp() -> None:
    program = (
        "import asyncio, sys\n"
        "from asupplemented.session import Session\n"
        "async def main():\n"
        "    async with Session(credentials={'ghcr.io': 'token'}): pass\n"
        "asyncio.run(main())\n"
        "assert 'aiohttp' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_a_session_with_other_timeouts_shares_everything_else(session: Session) -> None:
    key = ResourceKey[object]("something")
    view = session.scoped("ann").with_timeouts(Timeouts(stall=2.5))
    assert (view.timeouts.stall, session.timeouts.stall) == (2.5, 60.0)
    assert view.principal == "ann"
    assert view.resource(key, object) is session.resource(key, object)
    await view.aclose()
    assert not session.closed
    with pytest.raises(ConfigurationError):
        session.with_timeouts(Timeouts(stall=0))
    await session.aclose()
    with pytest.raises(ClosedError):
        session.with_timeouts(Timeouts())
