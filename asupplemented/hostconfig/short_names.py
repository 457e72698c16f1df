"""Short names: names without a registry, and the images that they may mean (rule SHORT-01).

The transport never resolves a short name: for it, ``busybox`` is ``docker.io/library/busybox``.
Programs that accept names from users resolve them here first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.errors import ConfigurationError, excerpt
from asupplemented.hostconfig.registries_conf import has_registry
from asupplemented.model.name import ImageName

if TYPE_CHECKING:
    from asupplemented.hostconfig.registries import Registries
    from asupplemented.hostconfig.registries_conf import Aliases

__all__ = ("is_short_name", "resolve_short_name")


def is_short_name(text: str) -> bool:
    """Whether a name has no registry. It may have a tag or a digest."""
    return not has_registry(text.partition("@")[0])


def resolve_short_name(
    text: str, registries: Registries, recorded: Aliases | None = None
) -> tuple[ImageName, ...]:
    """Resolve a name to the images that it may mean, in the order to try them. Pure.

    An alias gives one image. A recorded alias overrides a configured one, and a recorded alias
    without a value hides it. Without an alias, each search registry gives an image. If there are
    several, the mode decides: "permissive" and "disabled" return all of them, as there is no
    prompt to choose one, and "enforcing" refuses.

    Args:
        text: ``name[:tag][@digest]``, with or without a registry.
        registries: The settings of registries.conf.
        recorded: See `load_aliases`; None for none.

    Returns:
        At least one image; exactly one if the name has a registry.

    Raises:
        InvalidReferenceError: The text is not the name of an image.
        ConfigurationError: The short name has no alias, and there is no search registry, or
            there are several and the mode is "enforcing".
    """
    meant = ImageName.parse(text, allow_ipv6=True)
    if not is_short_name(text):
        return (meant,)
    short = text.partition("@")[0].partition(":")[0]
    alias = _find_alias(short, registries, recorded or {})
    if alias is not None:
        return (ImageName(alias.registry, alias.path, meant.tag, meant.digest),)
    _check_search(text, registries)
    return tuple(
        ImageName.parse(f"{registry}/{text}", allow_ipv6=True) for registry in registries.search
    )


def _find_alias(short: str, registries: Registries, recorded: Aliases) -> ImageName | None:
    return recorded[short] if short in recorded else registries.aliases.get(short)


def _check_search(text: str, registries: Registries) -> None:
    count = len(registries.search)
    if not count:
        files = ", ".join(map(str, registries.files)) or "there is no registries.conf"
        message = (
            f"the short name {excerpt(text)} has no alias, and there is no registry to search "
            f"({files}); add the registry to the name, or set unqualified-search-registries"
        )
        raise ConfigurationError(message, reference=text)
    if count > 1 and registries.short_name_mode == "enforcing":
        choice = ", ".join(f"{registry}/{text}" for registry in registries.search)
        message = (
            f"the short name {excerpt(text)} could be any of {choice}, and short-name-mode is "
            f"enforcing; add the registry to the name, or add an alias"
        )
        raise ConfigurationError(message, reference=text)
