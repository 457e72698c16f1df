"""Candidates: the places where an image may be, physically, in the order to ask them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from asupplemented.errors import ConfigurationError, InvalidReferenceError
from asupplemented.hostconfig.documents import quote_place
from asupplemented.hostconfig.tables import WILDCARD, Registry
from asupplemented.model.name import ImageName

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asupplemented.errors import SupplementedError

__all__ = ("Candidate", "join_failures", "list_candidates", "match_prefix")

_ENDS_OF_PREFIX = (":", "/", "@")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place to read an image from.

    Attributes:
        name: The image there. Credentials, certificates and lookaside signatures are looked up
            by this name, and not by the one that was asked for (rules CONF-18, CONF-19).
        insecure: Plain http and unverified TLS are allowed there.
        is_mirror: False for the registry itself, the last candidate. What was given for the
            registry itself, as a credential, is not for its mirrors (rule CRED-04).
        told_registry: The registry to name in the parameter ``ns`` of each request; None for no
            such parameter (rule CONF-20).
        proxy: The URL of the proxy that leads there, None for that of the environment.
        blocked: The table that forbids to read from there, None if none does.
    """

    name: ImageName
    insecure: bool = False
    is_mirror: bool = False
    told_registry: str | None = None
    proxy: str | None = field(default=None, repr=False)
    blocked: Registry | None = None

    def check_allowed(self) -> None:
        """Refuse a place that is blocked (rule CONF-17).

        Raises:
            ConfigurationError: It is; the message names table and file.
        """
        if self.blocked is not None:
            message = (
                f"{self.name.repository} is blocked: {self.blocked.origin} says blocked = true "
                f"of {quote_place(self.blocked.prefix)}"
            )
            raise ConfigurationError(message, reference=self.name)


def match_prefix(text: str, prefix: str) -> int | None:
    """How much of a name a prefix stands for (rules CONF-08, CONF-09).

    Args:
        text: ``registry/path``.
        prefix: Of a table. ``*.host`` stands for any host below that one, once ``.host`` occurs.

    Returns:
        Characters, None if the name does not begin with the prefix.
    """
    if prefix.startswith(WILDCARD):
        tail = prefix[1:]
        start = text.find(tail)
        if start < 0 or "/" in text[:start]:
            return None
        end = start + len(tail)
    elif text.startswith(prefix):
        end = len(prefix)
    else:
        return None
    return end if text[end : end + 1] in {"", *_ENDS_OF_PREFIX} else None


def list_candidates(name: ImageName, registry: Registry) -> Iterator[Candidate]:
    """The mirrors that serve such a pull, then always the registry itself (rule CONF-13).

    Whether they are blocked is not looked up here.

    Args:
        name: An image that the table is about. With a digest it is pulled by that alone.
        registry: The table.

    Raises:
        ConfigurationError: A location makes no name of an image (rule CONF-12).
    """
    for mirror in registry.mirrors:
        if mirror.serves(by_digest=name.digest is not None):
            yield Candidate(
                _rewrite(name, registry, mirror.location),
                mirror.insecure,
                is_mirror=True,
                told_registry=name.registry if mirror.tells_registry else None,
                proxy=mirror.proxy,
            )
    physical = name if registry.location is None else _rewrite(name, registry, registry.location)
    yield Candidate(physical, registry.insecure, proxy=registry.proxy)


def join_failures(failures: Sequence[tuple[Candidate, SupplementedError]]) -> SupplementedError:
    """The one error for several candidates that all failed (rule CONF-15).

    Args:
        failures: At least one, in the order in which they were asked; the last one is that of
            the registry itself.

    Returns:
        The only error as it is; else an error like the last one, which is its cause, that also
        tells of the others.
    """
    *mirrors, (candidate, last) = failures
    if not mirrors:
        return last
    others = "\n".join(f"[{mirror.name}: {error}]" for mirror, error in mirrors)
    joined = copy.copy(last)
    joined.message = f"(Mirrors also failed: {others}): {candidate.name}: {last.message}"
    joined.args = (joined.message,)
    joined.__cause__ = last
    return joined


def _rewrite(name: ImageName, registry: Registry, location: str) -> ImageName:
    """Put a location in place of the prefix (rule CONF-12)."""
    kept = name.repository[match_prefix(name.repository, registry.prefix) or 0 :]
    repository = f"{location}{kept}"
    if "@" in repository:  # not parsed, for what was parsed is in the error
        fault = "a location has neither user nor digest"
        raise _unusable(name, registry, location, fault)
    try:
        parsed = ImageName.parse(f"{repository}:tag", allow_ipv6=True)
    except InvalidReferenceError as error:
        raise _unusable(name, registry, location, error.message) from error
    if parsed.repository != repository:
        fault = f"{repository} is short for {parsed.repository}, write that"
        raise _unusable(name, registry, location, fault)
    return ImageName(parsed.registry, parsed.path, name.tag, name.digest)


def _unusable(name: ImageName, registry: Registry, location: str, fault: str) -> ConfigurationError:
    message = (
        f"{registry.origin or 'registries.conf'}: location {quote_place(location)} of prefix "
        f"{quote_place(registry.prefix)} does not fit {name.repository}: {fault}"
    )
    return ConfigurationError(message, reference=name)
