"""Opening an image in a registry: where it is by configuration, and what reads it from there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.errors import InvalidReferenceError
from asupplemented.transports.registry.adapter import RegistryAdapter, enter
from asupplemented.transports.registry.host_config import System
from asupplemented.transports.registry.means import Means
from asupplemented.transports.registry.mirrors import MirroredAdapter, MirrorEndpoint
from asupplemented.transports.registry.request import Caller

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asupplemented.abc import Context
    from asupplemented.hostconfig.candidates import Candidate
    from asupplemented.model.name import ImageName

__all__ = ("open_adapter", "open_registry")


async def open_adapter(
    name: ImageName, reference: str, context: Context
) -> RegistryAdapter | MirroredAdapter:
    """Find out where an image is. Nothing is asked of a registry yet.

    Args:
        name: The image.
        reference: The same as users write it, for events.
        context: The session.

    Raises:
        InvalidReferenceError: It has a tag and a digest, and the options refuse that (REF-11).
        ConfigurationError: The session borrowed a client that cannot be used, or what is
            configured cannot be read or followed.
    """
    caller = Caller(reference, context.emit)
    candidates = await _list_candidates(name, caller, context)
    if len(candidates) == 1 and candidates[0].name == name:
        return await enter(candidates[0], caller, context)
    return MirroredAdapter(name, _endpoints(candidates, context), context)


async def open_registry(name: ImageName, reference: str, context: Context) -> RegistryAdapter:
    """Take a client for an image in the registry itself, for what mirrors are not asked.

    The registry is where it is configured to be, and is reached as is configured (HTTP-11).

    Args:
        name: The image.
        reference: The same as users write it, for events.
        context: The session.

    Raises:
        InvalidReferenceError: See `open_adapter`.
        ConfigurationError: See `open_adapter`; or the registry is blocked.
    """
    caller = Caller(reference, context.emit)
    *_, candidate = await _list_candidates(name, caller, context)
    return await enter(candidate, caller, context)


async def _list_candidates(
    name: ImageName, caller: Caller, context: Context
) -> tuple[Candidate, ...]:
    if Means.of(context).options.tag_and_digest == "refuse" and None not in {name.tag, name.digest}:
        message = "a reference with both a tag and a digest is not supported; drop one of them"
        raise InvalidReferenceError(message, reference=caller.reference)
    return await System.of(context).list_candidates(name, caller.warn)


def _endpoints(candidates: tuple[Candidate, ...], context: Context) -> Iterator[MirrorEndpoint]:
    """Each candidate as an endpoint; all but the last one that may be read have rivals."""
    allowed = [candidate for candidate in candidates if candidate.blocked is None]
    for candidate in candidates:
        caller = Caller(
            f"docker://{candidate.name}",
            context.emit,
            candidate.told_registry,
            rivals=candidate in allowed[:-1],
        )
        yield MirrorEndpoint(candidate, caller, context)
