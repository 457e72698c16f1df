"""The arguments of a session, checked: untyped code passes them, too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias, cast

from asupplemented.abc import BlobCache, CredentialProvider, ResourceKey, Timeouts
from asupplemented.errors import ConfigurationError
from asupplemented.model.credential import Credential, check_lookup, lookup_order

if TYPE_CHECKING:
    from asupplemented.abc import Hook, Share

__all__ = (
    "CredentialLike",
    "GivenCredentials",
    "check_cache",
    "check_hooks",
    "check_lookahead",
    "check_principal",
    "check_settings",
    "check_share",
    "check_timeouts",
    "check_tls_verify",
)

CredentialLike: TypeAlias = Credential | tuple[str, str] | str
"""A credential as users write it: user name and password, a registry token, or the value."""


class GivenCredentials:
    """A provider over whatever the caller gave for credentials. It shows nothing of it."""

    __slots__ = ("_known", "_provider")

    def __init__(self, given: Mapping[str, CredentialLike] | CredentialProvider | None) -> None:
        self._known: dict[str, Credential | None] = {}
        self._provider: CredentialProvider | None = None
        if isinstance(given, Mapping):
            self._known = {_check_key(name): Credential.of(v) for name, v in given.items()}
        elif given is None or callable(given):
            self._provider = given
        else:
            message = (
                "credentials is a mapping by registry or namespace, an async function, or None"
            )
            raise ConfigurationError(message)

    async def __call__(self, name: str, /) -> Credential | None:
        if self._provider is not None:
            return Credential.of(await self._provider(name))
        for key in lookup_order(name):
            if key in self._known:
                return self._known[key]
        return None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, GivenCredentials):
            return NotImplemented
        return self._known == other._known and self._provider == other._provider

    def __hash__(self) -> int:
        return hash(frozenset(self._known.items()))  # a provider need not be hashable

    def __repr__(self) -> str:
        if self._provider is not None:
            return "<credentials from a function>"
        return f"<credentials for {', '.join(self._known) or 'no registry'}>"


def _check_key(value: object) -> str:
    if not isinstance(value, str):
        message = f"credentials are keyed by registry or namespace, not by {type(value).__name__}"
        raise ConfigurationError(message)
    return check_lookup(value)


def check_lookahead(value: object) -> int:
    """A number of fetches, or `ConfigurationError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        message = f"lookahead is a number of fetches, 0 or more, not {value!r}"
        raise ConfigurationError(message)
    return value


def check_tls_verify(value: object) -> bool | None:
    """True, False or None, or `ConfigurationError`: a path of certificates is none of them."""
    if value is not None and not isinstance(value, bool):
        message = f"tls_verify is True, False or None, not {value!r}"
        raise ConfigurationError(message)
    return value


def check_principal(value: object) -> str:
    """A name that is not empty, or `ConfigurationError`, which does not show it."""
    if not isinstance(value, str) or not value:
        shown = "an empty one" if isinstance(value, str) else f"a {type(value).__name__}"
        message = (
            f"a principal is the name of a caller of the program, not {shown}; see Session.scoped"
        )
        raise ConfigurationError(message)
    return value


def check_cache(value: object) -> BlobCache | None:
    """A cache, or `ConfigurationError`."""
    if value is None or isinstance(value, BlobCache):
        return value
    message = f"cache is a BlobCache such as LayoutCache(path), or None, not {value!r}"
    raise ConfigurationError(message)


def check_share(value: Share | None) -> Share | None:
    """A function that decides, or `ConfigurationError`."""
    if value is None or callable(value):
        return value
    message = f"share is a function of principal, descriptor and members, or None, not {value!r}"
    raise ConfigurationError(message)


def check_timeouts(value: object) -> Timeouts:
    """Timeouts that end some time, or `ConfigurationError`."""
    if not isinstance(value, Timeouts):
        message = f"timeouts is a Timeouts, not a {type(value).__name__}"
        raise ConfigurationError(message)
    for name in ("connect", "first_byte", "stall", "open"):
        seconds: object = getattr(value, name)
        if seconds is not None and not _is_duration(seconds):
            message = f"timeouts.{name} is a number of seconds above 0, or None, not {seconds!r}"
            raise ConfigurationError(message)
    _check_rate(value.min_rate)
    return value


def _check_rate(value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        message = f"timeouts.min_rate is a number of bytes per second, 0 or more, not {value!r}"
        raise ConfigurationError(message)


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0


def check_hooks(value: Iterable[Hook]) -> tuple[Hook, ...]:
    """What can be told of events, or `ConfigurationError`."""
    hooks = tuple(value)
    for hook in hooks:
        if not callable(hook):
            message = f"a hook is called with one event, and {hook!r} cannot be called"
            raise ConfigurationError(message)
    return hooks


def check_settings(value: object) -> dict[object, object]:
    """Settings by their keys, one of each kind, or `ConfigurationError`."""
    if not isinstance(value, Iterable):
        message = f"settings is a list of them, not a {type(value).__name__}"
        raise ConfigurationError(message)
    settings: dict[object, object] = {}
    for setting in cast("Iterable[object]", value):
        key: object = getattr(setting, "key", None)
        # A class has what its instances have, and is none of them.
        if isinstance(setting, type) or not isinstance(key, ResourceKey):
            shown = setting if isinstance(setting, type) else type(setting)
            message = (
                f"settings are values such as RegistryOptions(...), and {shown.__name__} is none"
            )
            raise ConfigurationError(message)
        if key in settings:
            message = f"two settings are {key.name}; give the session one of each kind"
            raise ConfigurationError(message)
        settings[key] = setting
    return settings
