"""Groups as references: values that hold the members and the options of resolving."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from asupplemented.abc import Opening, Reference
from asupplemented.aio.closing import closing_on_error
from asupplemented.errors import (
    ConfigurationError,
    InvalidReferenceError,
    UnsupportedOperationError,
)
from asupplemented.image import open_image
from asupplemented.model.index import AllImages, SpecificImages, SystemImage
from asupplemented.supplemented.driver import Members, open_members, resolve
from asupplemented.supplemented.source import SupplementedSource
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc import Context
    from asupplemented.image import Image
    from asupplemented.model.index import Selection
    from asupplemented.model.platform import Platform
    from asupplemented.supplemented.resolution import Preference, Resolution
    from asupplemented.supplemented.resolver import (
        MissingPolicy,
        UnavailablePolicy,
        UnknownPolicy,
    )

__all__ = ("SupplementedReference", "supplement")


def supplement(
    top: Reference | str,
    *supplements: Reference | str,
    selection: Selection | None = None,
    missing: MissingPolicy = "raise",
    unavailable: UnavailablePolicy = "raise",
    unknown: UnknownPolicy = "raise",
    prefer: Preference = "manifest",
) -> SupplementedReference:
    """Group one top reference with supplements (``Reference()`` in the Go package).

    The top's default manifest is the group's; what its list names may come from any member, and
    any member other than the top is preferred. Nothing is opened here.

    Args:
        top: Member 0, as text or as a reference.
        supplements: Members 1, 2, ...; a reference given again keeps its first number.
        selection: What is taken from each list: `AllImages` (the default), `SystemImage` or
            `SpecificImages`.
        missing: What happens to an instance that its member does not hold. ``"raise"``: opening
            fails. ``"fallback"``: another member's list may serve it, and opening fails if none
            does. ``"skip"``: it is recorded in ``resolution.missing``.
        unavailable: What happens to a supplement that cannot be opened. ``"raise"``: opening
            fails. ``"skip"``: it is left out and recorded in ``resolution.unavailable``. The top
            is never left out.
        unknown: What happens to an entry of a list that has an unknown media type or digest
            algorithm. ``"raise"``: opening fails, as in the Go package. ``"opaque"``: it is
            verified and served as bytes, and ``resolution.opaque`` lists it; one whose digest
            cannot be checked is recorded in ``resolution.missing``.
        prefer: Which member is asked first for a blob. ``"manifest"``: the member from which the
            last manifest that names the blob was read, the top included. ``"supplements"``: any
            member that has the blob, except the top. Either way the others are asked if that one
            fails.

    Returns:
        The group, which is a reference itself.

    Raises:
        InvalidReferenceError: A text is no reference.
        ConfigurationError: An option has an unknown value.
    """
    return SupplementedReference(
        tuple(_referenced(reference) for reference in (top, *supplements)),
        AllImages() if selection is None else selection,
        missing,
        unavailable,
        unknown=unknown,
        prefer=prefer,
    )


def _referenced(reference: Reference | str) -> Reference:
    return parse_reference(reference) if isinstance(reference, str) else reference


def _check_option(name: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        choices = ", ".join(repr(choice) for choice in allowed)
        message = f"{name}={value!r} does not exist; choose one of {choices}"
        raise ConfigurationError(message)


@dataclass(frozen=True, slots=True)
class SupplementedReference:
    """A group of references, itself a reference. Made by `supplement`.

    A frozen value: two groups are equal if their members and options are. The options are those
    of `supplement`. ``str()`` is for people;
    it cannot be parsed.
    """

    references: tuple[Reference, ...]
    selection: Selection
    missing: MissingPolicy
    unavailable: UnavailablePolicy
    prefer: Preference = "manifest"
    unknown: UnknownPolicy = "raise"

    def __post_init__(self) -> None:
        if not self.references:
            message = "a group needs at least one reference, its top"
            raise InvalidReferenceError(message)
        _check_option("missing", self.missing, ("raise", "fallback", "skip"))
        _check_option("unavailable", self.unavailable, ("raise", "skip"))
        _check_option("unknown", self.unknown, ("raise", "opaque"))
        _check_option("prefer", self.prefer, ("manifest", "supplements"))
        known = AllImages | SystemImage | SpecificImages
        if not isinstance(self.selection, known):
            message = (
                f"selection={self.selection!r} does not exist; choose AllImages(), "
                "SystemImage(platform) or SpecificImages([digest, ...])"
            )
            raise ConfigurationError(message)

    @property
    def transport(self) -> str:
        """Always ``"supplemented"``."""
        return "supplemented"

    @property
    def top(self) -> Reference:
        """Member 0."""
        return self.references[0]

    def open(
        self, session: Context, *, resolution: Resolution | None = None
    ) -> Opening[SupplementedSource]:
        """Open and resolve the group; the source closes every member.

        Args:
            session: Gives connections, credentials, limits and caches.
            resolution: An earlier result for these references. Members are opened but nothing is
                resolved; their default manifests must still be those of the resolution. Its own
                preference counts; the options of this group do not.

        Raises:
            SupplementedError: The first failure that serial order meets; all members are closed.
            ConfigurationError: `resolution` was made for other references.
            VerificationError: A default manifest is no longer the one of `resolution`.
        """
        if resolution is None:
            return Opening(lambda: self._open(session), self)
        return Opening(lambda: self._reopen(session, resolution), self)

    async def _open(self, session: Context) -> SupplementedSource:
        resolved = await resolve(
            Members.of(self.references),
            self.selection,
            session,
            missing=self.missing,
            unavailable=self.unavailable,
            unknown=self.unknown,
            prefer=self.prefer,
        )
        return SupplementedSource(
            self, resolved.resolution, resolved.sources, resolved.manifests, session
        )

    async def _reopen(self, session: Context, resolution: Resolution) -> SupplementedSource:
        members = Members.of(self.references)
        if resolution.members != tuple(str(reference) for reference in self.references):
            message = "the resolution was made for other references; resolve this group again"
            raise ConfigurationError(message, reference=self)
        planned = [n for n in members.distinct if resolution.defaults[n] is not None]
        sources = await open_members(members, planned, self.selection, session)
        source = SupplementedSource(self, resolution, sources, {}, session)
        async with closing_on_error(lambda: (source,), "the members"):
            await source.check_defaults()
        return source

    def open_image(
        self,
        session: Context,
        *,
        platform: Platform | str | None = None,
        prefer_gzip: bool | None = None,
    ) -> Opening[Image]:
        """Open the group and choose one image of it (``NewImage`` in the Go package).

        Args:
            session: Gives connections, credentials, limits and caches.
            platform: The platform to choose from lists; None is that of a `SystemImage`
                selection, or the host's.
            prefer_gzip: Whether gzip comes before zstd among images that fit equally well; None
                is what a `SystemImage` selection says, or False.
        """
        if isinstance(self.selection, SystemImage):
            platform = self.selection.platform if platform is None else platform
            prefer_gzip = self.selection.prefer_gzip if prefer_gzip is None else prefer_gzip
        return open_image(self, session, platform=platform, prefer_gzip=bool(prefer_gzip))

    async def resolve(self, session: Context) -> Resolution:
        """The resolution alone: the group is opened, resolved and closed."""
        async with self.open(session) as source:
            return source.resolution

    def with_options(
        self,
        *,
        selection: Selection | None = None,
        missing: MissingPolicy | None = None,
        unavailable: UnavailablePolicy | None = None,
        unknown: UnknownPolicy | None = None,
        prefer: Preference | None = None,
    ) -> SupplementedReference:
        """The same members with other options; None keeps an option. For each, see `supplement`."""
        return replace(
            self,
            selection=selection or self.selection,
            missing=missing or self.missing,
            unavailable=unavailable or self.unavailable,
            unknown=unknown or self.unknown,
            prefer=prefer or self.prefer,
        )

    async def delete(self) -> None:
        """Refuse: a group cannot be deleted (``DeleteImage`` in the Go package).

        Raises:
            UnsupportedOperationError: Always.
        """
        message = "a group of references cannot be deleted; delete its members one by one"
        raise UnsupportedOperationError(message, reference=self)

    def __str__(self) -> str:
        top, *others = (str(reference) for reference in self.references)
        return f"{top} supplemented by {', '.join(others)}" if others else top
