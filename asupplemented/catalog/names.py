"""Which group of references a name stands for, and which names are allowed. No source is asked.

A key of the mapping is ``[REGISTRY/]PATH``, and ``*`` in it stands for any characters, slashes
included. A name that is a key itself comes before patterns, and of two patterns that fit the one
with more literal characters counts. ``{name}`` and ``{registry}`` in a reference are filled in from
the key that fitted: the registry is always the one that is written in the key, never one that a
client chose (rule SRV-15).

A member *follows* the client if it is a `RepositoryReference` with the tag "latest", which is also
what a reference without a tag has: it is read at the tag or digest that the client asks for. Every
other member is *fixed* and is read as it is.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

from asupplemented.abc import Reference, RepositoryReference
from asupplemented.aio.lru import LRU
from asupplemented.errors import (
    ConfigurationError,
    ImageNotFoundError,
    InvalidReferenceError,
    NameUnknownError,
    excerpt,
)
from asupplemented.model.index import SpecificImages
from asupplemented.model.name import DEFAULT_REGISTRY, DEFAULT_TAG, ImageName
from asupplemented.supplemented.reference import SupplementedReference, supplement

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from asupplemented.model.digest import Digest

__all__ = (
    "ON_DEMAND",
    "Allow",
    "Defaults",
    "Named",
    "Names",
    "at_digest",
    "follows",
    "normalize_name",
    "pin",
    "split_name",
    "tags_of",
)

Named: TypeAlias = "Reference | str | Iterable[Reference | str]"
"""What a name stands for: a reference, or a top and its supplements."""

Allow: TypeAlias = "Iterable[str] | Callable[[str, str | None], bool | Awaitable[bool]]"
"""Patterns of names, or a function of a path and a registry."""

MAX_FOUND: Final = 256
"""Names whose group is remembered, so that it is not made again for each request."""

ON_DEMAND: Final = SpecificImages(())
"""The selection of a repository without supplements: no other member can have what it lacks, so
what an index lists is read when a client asks for it. That saves one request for each image."""

_DOCKER_HUB: Final = frozenset(("index.docker.io", "registry-1.docker.io"))
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}|[{}]")
_REGISTRY: Final = re.compile(r"[^/*]*[.:][^/*]*|localhost")
"""A first part that is a registry by its look (rule REF-05)."""


class Defaults(NamedTuple):
    """The options of groups that are not given as a `SupplementedReference`."""

    missing: str
    unavailable: str
    unknown: str
    prefer: str = "supplements"
    """What a supplement holds is read from it, also where the top serves other images with it."""


@runtime_checkable
class _Tagged(Protocol):
    @property
    def tag(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the mapping."""

    text: str
    pattern: re.Pattern[str]
    registry: str | None
    """The registry that it names, None if it names none."""
    members: tuple[Reference | str, ...]
    options: SupplementedReference | None
    """The group that was given, None if its members were."""

    @property
    def weight(self) -> int:
        return len(self.text) - self.text.count("*")


class Names:
    """The names of a catalog.

    Args:
        names: A mapping, or an async function of a path and a registry. However a client names
            the registry, the function gets it in one form; None is no registry.
        allow: Patterns, or a function; None allows all names.
        defaults: The options of groups.
        registry: The registry of names that fit no key and name no registry; None for none.

    Raises:
        ConfigurationError: A key, a placeholder or a pattern is malformed.
        InvalidReferenceError: A text is no reference.
    """

    __slots__ = ("_allow", "_defaults", "_exact", "_found", "_function", "_patterns", "_registry")

    def __init__(
        self,
        names: object,
        allow: Allow | None,
        defaults: Defaults,
        registry: str | None = None,
    ) -> None:
        if registry is not None and not _REGISTRY.fullmatch(registry):
            message = f"default_registry={excerpt(registry)} is no registry, such as 'docker.io'"
            raise ConfigurationError(message)
        self._registry = registry
        self._defaults = defaults
        self._allow = _read_allow(allow)
        self._found = LRU[tuple[str, str | None], tuple[str, SupplementedReference]](MAX_FOUND)
        """Names that were found in the mapping lately: their full form, and their group."""
        self._function: Callable[[str, str | None], Awaitable[object]] | None = None
        keys: list[_Key] = []
        if isinstance(names, Mapping):
            given = cast("Mapping[object, object]", names)
            keys = [_read_key(text, value) for text, value in given.items()]
        elif callable(names):
            self._function = cast("Callable[[str, str | None], Awaitable[object]]", names)
        else:
            message = "names is a mapping from names to references, or an async function"
            raise ConfigurationError(message)
        self._exact = {key.text: key for key in keys if "*" not in key.text}
        patterns = (key for key in keys if "*" in key.text)
        self._patterns = sorted(patterns, key=lambda key: key.weight, reverse=True)
        for key in keys:
            self._fill(key, "name")  # what is wrong with a reference shows at once

    @property
    def described(self) -> Mapping[str, tuple[str, ...]]:
        """The keys of the mapping and the references of each, as text; none for a function."""
        keys = (*self._exact.values(), *self._patterns)
        return {key.text: tuple(map(str, key.members)) for key in keys}

    async def find(self, name: str, registry: str | None) -> SupplementedReference:
        """The group of a name, as it is written: no tag is filled in yet.

        Args:
            name: The path, which may begin with a registry.
            registry: The registry that the path is in, None if the client named none.

        Raises:
            InvalidReferenceError: The name breaks the grammar.
            NameUnknownError: The catalog has no such name, or it is not allowed.
        """
        known = self._found.get((name, registry))
        full = self._qualify(_check(name, registry)) if known is None else known[0]
        if not await self._is_allowed(full):
            raise _unknown(full)
        if known is not None:
            return known[1]
        if self._function is not None:
            given = await self._function(*split_name(full))
            if given is None:
                raise _unknown(full)
            return self._group(_members(given), given)
        key = self._find_key(full)
        if key is None:
            raise _unknown(full)
        group = self._fill(key, full)
        self._found.put((name, registry), (full, group))
        return group

    def _qualify(self, full: str) -> str:
        """A name in its default registry, if it has no registry and is not served without one."""
        if self._registry is None or split_name(full)[1] is not None or self._find_key(full):
            return full
        return _check(full, self._registry)

    def _find_key(self, full: str) -> _Key | None:
        return self._exact.get(full) or next(
            (key for key in self._patterns if key.pattern.fullmatch(full)), None
        )

    async def _is_allowed(self, full: str) -> bool:
        allow = self._allow
        if allow is None:
            return True
        if not callable(allow):
            return any(pattern.fullmatch(full) for pattern in allow)
        verdict = allow(*split_name(full))
        return await verdict if inspect.isawaitable(verdict) else bool(verdict)

    def _fill(self, key: _Key, full: str) -> SupplementedReference:
        name = full if key.registry is None else full.removeprefix(f"{key.registry}/")
        values = {"name": name, "registry": key.registry or ""}
        members = tuple(
            _PLACEHOLDER.sub(lambda match: values[match[1]], member)
            if isinstance(member, str)
            else member
            for member in key.members
        )
        return self._group(members, key.options)

    def _group(self, members: tuple[Reference | str, ...], given: object) -> SupplementedReference:
        if isinstance(given, SupplementedReference):
            return given
        group = supplement(*members, **self._defaults._asdict())
        if len(group.references) == 1 and follows(group.top):
            return replace(group, selection=ON_DEMAND)
        return group


def _read_key(text: object, value: object) -> _Key:
    if not isinstance(text, str) or not text:
        message = f"names are keyed by text such as 'team/app' or 'quay.io/*', not by {text!r}"
        raise ConfigurationError(message)
    text = normalize_name(text)
    first, slash, _ = text.partition("/")
    registry = first if slash and _REGISTRY.fullmatch(first) else None
    members = _members(value)
    for member in members:
        if isinstance(member, str):
            _check_placeholders(member, text, registry)
    options = value if isinstance(value, SupplementedReference) else None
    return _Key(text, _compile(text), registry, members, options)


def _members(value: object) -> tuple[Reference | str, ...]:
    if isinstance(value, SupplementedReference):
        return value.references
    if isinstance(value, str) or not isinstance(value, Iterable):
        return (cast("Reference | str", value),)
    return tuple(cast("Iterable[Reference | str]", value))


def _check_placeholders(text: str, key: str, registry: str | None) -> None:
    for match in _PLACEHOLDER.finditer(text):
        if match[1] not in {"name", "registry"}:
            message = f"{excerpt(text)} of {key} has {match[0]}: write {{name}} or {{registry}}"
            raise ConfigurationError(message)
        if match[1] == "registry" and registry is None:
            message = (
                f"{excerpt(text)} of {key} has {{registry}}, and the key names none; write one "
                f"key for each registry, such as 'quay.io/*'"
            )
            raise ConfigurationError(message)


def _read_allow(
    allow: Allow | None,
) -> tuple[re.Pattern[str], ...] | Callable[[str, str | None], bool | Awaitable[bool]] | None:
    if allow is None or callable(allow):
        return allow
    if isinstance(allow, str):
        message = f"allow is a list of patterns: write [{allow!r}]"
        raise ConfigurationError(message)
    return tuple(_compile(normalize_name(pattern)) for pattern in allow)


def _compile(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, re.split(r"\*+", text))))


def _check(name: str, registry: str | None) -> str:
    """The full form of a name.

    Raises:
        InvalidReferenceError: The name or the registry breaks the grammar.
    """
    if registry is not None and not _REGISTRY.fullmatch(registry):
        message = f"{excerpt(registry)} is no registry"
        raise InvalidReferenceError(message)
    full = normalize_name(name, registry)
    path, host = split_name(full)
    ImageName(host or "localhost", path)  # the grammar
    return full


def normalize_name(name: str, registry: str | None = None) -> str:
    """A name or a key in the form in which they are compared: with its registry, if it has one.

    The registry is in lowercase and without the default port, Docker Hub has one name, and its
    official images are in ``library/`` (rules SRV-15, SRV-16).
    """
    full = name if registry is None else f"{registry}/{name}"
    first, slash, path = full.partition("/")
    if not slash or not _REGISTRY.fullmatch(first):
        return full
    host = first.lower().removesuffix(":443")
    if host in _DOCKER_HUB:
        host = DEFAULT_REGISTRY
    if host == DEFAULT_REGISTRY and "/" not in path and "*" not in path:
        path = f"library/{path}"
    return f"{host}/{path}"


def split_name(full: str) -> tuple[str, str | None]:
    """The path and the registry of a name, None if it has no registry."""
    first, slash, path = full.partition("/")
    return (path, first) if slash and _REGISTRY.fullmatch(first) else (full, None)


def _unknown(full: str) -> NameUnknownError:
    return NameUnknownError(f"{excerpt(full)} is no name of this catalog", reference=full)


# Members at a tag or a digest


def follows(member: Reference) -> bool:
    """Whether a member is read at the tag or digest that the client asks for."""
    return isinstance(member, RepositoryReference) and member.tag == DEFAULT_TAG


def tags_of(top: Reference) -> tuple[str, ...]:
    """The tags of a top that is fixed: its own, and the default tag."""
    own = top.tag if isinstance(top, _Tagged) else None
    return tuple(dict.fromkeys((own or DEFAULT_TAG, DEFAULT_TAG)))


def pin(group: SupplementedReference, which: str) -> SupplementedReference:
    """The group with every member that follows at a tag or digest.

    Raises:
        ImageNotFoundError: The top is fixed and does not have the tag.
    """
    top = group.top
    if ":" not in which and not follows(top) and which not in tags_of(top):
        message = f"{top} is served with the tag {' or '.join(tags_of(top))} only"
        raise ImageNotFoundError(message, reference=top)
    return replace(group, references=tuple(_pinned(each, which) for each in group.references))


def at_digest(group: SupplementedReference, digest: Digest) -> tuple[SupplementedReference, ...]:
    """The groups that may hold a digest, in the order in which they are tried.

    The first one is the whole group. If its top does not hold the digest, or fails, the next one
    does without it: only supplements have the digest then. Supplements that follow and do not
    hold the digest are no failure, whatever the group says of those that are unavailable.
    """
    members = tuple(_pinned(each, digest) for each in group.references)
    return tuple(
        replace(group, references=members[start:], unavailable="skip")
        for start in range(len(members))
    )


def _pinned(member: Reference, which: str) -> Reference:
    if isinstance(member, RepositoryReference) and follows(member):
        return member.at(which)
    return member
