"""Short names: what people type, and the images that they may mean (rule SHORT-01).

The transport itself never resolves one: to it, ``busybox`` is ``docker.io/library/busybox``. Who
takes input from people asks here first.
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
    """Whether a name does not say which registry it is from. It may have a tag or digest."""
    return not has_registry(text.partition("@")[0])


def resolve_short_name(
    text: str, registries: Registries, recorded: Aliases | None = None
) -> tuple[ImageName, ...]:
    """The images that a name may mean, in the order in which to try them. Pure.

    A recorded alias comes before one that is configured; one recorded without a value hides
    the latter. An alias settles the matter. Without one, each registry that is configured for
    the search gives a candidate. If there are several, the mode decides: "permissive" and
    "disabled" return them all (nobody is there to be asked), "enforcing" refuses.

    Args:
        text: ``name[:tag][@digest]``, with a registry or without.
        registries: What is configured.
        recorded: See `load_aliases`; None for none.

    Returns:
        At least one image; just one, if the name says its registry.

    Raises:
        InvalidReferenceError: It is no name of an image.
        ConfigurationError: No alias and no registry to search; or several, and the mode is
            "enforcing".
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
            f"({files}); write the registry, or set unqualified-search-registries"
        )
        raise ConfigurationError(message, reference=text)
    if count > 1 and registries.short_name_mode == "enforcing":
        choice = ", ".join(f"{registry}/{text}" for registry in registries.search)
        message = (
            f"the short name {excerpt(text)} could be any of {choice}, and short-name-mode is "
            f"enforcing; write the registry, or add an alias"
        )
        raise ConfigurationError(message, reference=text)
