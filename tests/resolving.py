"""A small driver of the resolver, for tests: fetches from a world, in any order of arrival."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import asdict

from asupplemented import limits
from asupplemented.errors import InstanceNotFoundError, SupplementedError
from asupplemented.supplemented.resolver import Bounds, Resolver, Want
from tests.serial_model import Answer, Request, SerialLoop, World, resolve_serially

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from asupplemented.model.digest import Digest
    from asupplemented.supplemented.resolver import Outcome


@dataclass
class Run:
    """A resolver, and what was fetched for it."""

    resolver: Resolver
    fed: list[Want] = field(default_factory=list[Want])
    """In the order of arrival."""
    started: list[Want] = field(default_factory=list[Want])


def resolver_for(world: World, request: Request, *, read_ahead: int | None = None) -> Resolver:
    ahead = limits.MAX_READ_AHEAD if read_ahead is None else read_ahead
    bounds = Bounds(
        request.max_instances, request.max_entries, request.max_nesting, request.max_bytes, ahead
    )
    return Resolver(
        list(world.defaults),
        request.selection,
        missing=request.missing,
        unavailable=request.unavailable,
        unknown=request.unknown,
        bounds=bounds,
    )


def drive(
    world: World,
    request: Request,
    lookahead: int = 0,
    *,
    order: random.Random | None = None,
    read_ahead: int | None = None,
    check: Callable[[Run, list[Want]], None] | None = None,
) -> Run:
    """Resolve a world with the head and up to `lookahead` other fetches in flight.

    Args:
        world: What is there.
        request: What is asked of it.
        lookahead: How many fetches beside the head.
        order: Chooses which fetch arrives next; None: the oldest.
        read_ahead: Cap of bytes that wait.
        check: Called with every answer of ``wants``, before anything is started.
    """
    run = Run(resolver_for(world, request, read_ahead=read_ahead))
    flying: list[Want] = []
    while not run.resolver.done:
        wanted = run.resolver.wants(lookahead)
        if check is not None:
            check(run, wanted)
        head, *others = wanted
        for want in (head, *others):
            room = len(flying) - (head in flying) < lookahead
            if want not in flying and (want == head or room):
                flying.append(want)
                run.started.append(want)
        assert head in flying
        assert len(flying) <= 1 + lookahead
        want = flying.pop(order.randrange(len(flying)) if order else 0)
        run.fed.append(want)
        run.resolver.feed(want, world.read(*want))
    return run


def resolve(world: World, asked: Request | None = None) -> Resolver:
    """The resolver after a serial run, which must agree with the serial loop too."""
    asked = asked or Request()
    run = drive(world, asked)
    answer = resolve_serially(world, asked)
    assert run.fed == answer.reads
    assert_same(run.resolver, answer, world)
    return run.resolver


def assert_same(resolver: Resolver, answer: Answer, world: World) -> None:
    """The whole answer, orders included; of failures that a world holds, the very object."""
    assert resolver.done
    assert resolver.wants(3) == []
    if answer.failure is not None:
        assert_same_failure(resolver.failure, answer, world)
        return
    assert resolver.failure is None
    assert list(resolver.sources.items()) == list(answer.sources.items())
    assert list(resolver.blobs.items()) == list(answer.blobs.items())
    assert list(resolver.defaults.items()) == list(answer.defaults.items())
    assert resolver.commits == answer.commits
    assert resolver.missing == answer.missing
    assert list(resolver.unavailable) == list(answer.unavailable)
    for member, error in answer.unavailable.items():
        assert resolver.unavailable[member] is error
    assert {digest: resolver.alternates(digest) for digest in resolver.sources} == answer.alternates
    assert set(resolver.committed) == set(answer.contributions)
    for digest, expected in answer.contributions.items():
        found = asdict(resolver.committed[digest])
        assert vars(expected).items() <= found.items()


def assert_same_failure(failure: SupplementedError | None, answer: Answer, world: World) -> None:
    """The very object if a member raised it, else one that says the same."""
    expected = answer.failure
    assert failure is not None
    for member, digest in answer.reads:
        if world.read(member, digest) is expected:
            assert failure is expected
            assert (failure.member, failure.digest) == (member, digest)
            return
    # Raised at a commit, or in the end.
    assert type(failure) is type(expected)
    assert vars(failure).get("limit") == vars(expected).get("limit")
    assert vars(failure).get("digests") == vars(expected).get("digests")
    if not isinstance(failure, InstanceNotFoundError):
        assert failure.member == answer.reads[-1][0]


class UnreadError(Exception):
    """The serial loop came to a read whose outcome is not known yet."""


class Known(World):
    """As much of a world as was fed."""

    def __init__(self, world: World, fed: list[Want]) -> None:
        super().__init__(world.defaults, world.instances)
        self.fed = fed

    def read(self, member: int, digest: Digest | None) -> Outcome:
        if (member, digest) not in self.fed:
            raise UnreadError
        return super().read(member, digest)


@dataclass
class Frontier:
    """What the serial loop would read next, as far as is known."""

    wants: list[Want]
    """Every open want in serial order, for each digest the first one only."""
    barred: bool
    """Whether they end at a failure that would be raised."""
    missed: bool
    """Whether a miss was tolerated so far."""


def frontier(world: World, asked: Request, fed: list[Want]) -> Frontier:
    """Run the serial loop over what is known, and look at its queue where it stops."""
    loop = SerialLoop(Known(world, fed), asked)
    with pytest.raises(UnreadError):
        loop.run()
    head = Want(*loop.answer.reads[-1])
    if head.digest is None:
        line = [Want(member, None) for member in world.defaults if member >= head.member]
    else:
        line = [head, *(Want(x.member, x.instance) for x in loop.manifests_to_read)]
    found = Frontier([], barred=False, missed=bool(loop.dropped))
    digests = set(loop.answer.sources)
    for want in line:
        if want.digest in digests or want in loop.dropped:
            continue
        outcome = world.read(*want) if want in fed else None
        if isinstance(outcome, SupplementedError):
            may_go_on = loop.may_leave_out if want.digest is None else loop.may_drop
            if not may_go_on(want.member, outcome):
                found.barred = True
                break
            found.missed = True
            continue
        if want.digest is not None:
            digests.add(want.digest)
        if outcome is None and want not in found.wants:
            found.wants.append(want)
    return found
