"""Mirrors: one image in several places, each asked until one answers (rules CONF-13 to CONF-19).

Other programs settle for the first place that has the default manifest. Here none of them is
final: what one place cannot give, an instance, a blob, signatures, the next one is asked for.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from asupplemented.abc import RawManifest
from asupplemented.aio.threads import run_blocking
from asupplemented.errors import (
    ClosedError,
    NotFoundError,
    SourceTimeoutError,
    SupplementedError,
)
from asupplemented.limits import OFFLOAD_BYTES
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.manifest import Manifest
from asupplemented.transports.registry.places import PlacedBlob, PlacedParts, ask_in_turn
from asupplemented.transports.registry.request import Means
from asupplemented.transports.registry.standing import Standing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asupplemented.abc import Context
    from asupplemented.model.digest import Digest
    from asupplemented.model.name import ImageName
    from asupplemented.model.signature import Signature
    from asupplemented.transports.registry.places import Place

__all__ = ("MirroredAdapter",)


class MirroredAdapter:
    """One image in several places, raw.

    The places are asked in their order, and who has failed is asked last from then on; who was
    away, last by all images of the session for a while. A manifest that is not what its digest
    names, or is none at all, is a failure like any other.

    Args:
        name: The image as it was asked for.
        places: The mirrors, then the registry itself.
        context: The session.
    """

    __slots__ = ("_context", "_default", "_limit", "_name", "_open", "_places", "_standing")

    def __init__(self, name: ImageName, places: Iterable[Place], context: Context) -> None:
        self._name = name
        self._context = context
        self._places = tuple(places)
        self._standing = Standing.of(context)
        self._limit = Means.of(context).options.limits.mirror
        self._default: Manifest | None = None
        self._open = True

    @property
    def concurrent_blobs(self) -> bool:
        return True

    @property
    def default_descriptor(self) -> Descriptor | None:
        """The digest of the reference, None if it has only a tag."""
        digest = self._name.digest
        return None if digest is None else Descriptor(digest=digest)

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        """Read the default manifest (None), or that of a digest, from the first place that can.

        Raises:
            SupplementedError: No place can: the error of the registry itself, which tells of
                the others (rule CONF-15).
            ClosedError: The source was closed.
        """
        if instance is None:
            manifest = await self._read_default()
        else:
            manifest = await ask_in_turn(self._ranked(), lambda place: self._read(place, instance))
        return RawManifest(manifest.raw, manifest.media_type)

    def open_blob(
        self, blob: Descriptor, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> PlacedBlob:
        """Prepare to read ``[start, end)`` of a blob from the first place that has it.

        Raises:
            ClosedError: The source was closed.
        """
        return PlacedBlob(self.blob_places(), blob, start, end, etag)

    def blob_places(self) -> tuple[Place, ...]:
        """The places to read blobs from, best first.

        Raises:
            ClosedError: The source was closed.
        """
        return self._ranked()

    def open_parts(self, blob: Descriptor, ranges: Sequence[tuple[int, int | None]]) -> PlacedParts:
        """Prepare to read ranges of a blob from the first place that can.

        Raises:
            ClosedError: The source was closed.
        """
        return PlacedParts(self.blob_places(), blob, ranges)

    async def fetch_signatures(self, instance: Digest | None) -> tuple[Signature, ...]:
        """The signatures of the default manifest (None), or of an instance.

        They are those of the place that is asked, by the name that the image has there
        (rule CONF-18). That it has none is an answer.

        Raises:
            SupplementedError: See `Signatures.fetch`.
            ClosedError: The source was closed.
        """
        digest = instance or await self._find_default()

        async def fetch(place: Place) -> tuple[Signature, ...]:
            return await (await place.enter()).fetch_signatures(digest)

        return await ask_in_turn(self._ranked(), fetch)

    async def fetch_referrers(
        self, subject: Digest, artifact_type: str | None
    ) -> tuple[Descriptor, ...]:
        """What refers to a manifest, from the first place that knows of anything.

        Mirrors often keep no such lists, so one that is empty is believed of the last place
        only.

        Raises:
            SupplementedError: See `asupplemented.transports.registry.referrers`.
            ClosedError: The source was closed.
        """

        async def fetch(place: Place) -> tuple[Descriptor, ...]:
            adapter = await place.enter()
            found = await adapter.fetch_referrers(subject, artifact_type)
            if not found and place.caller.rivals:
                message = f"{place.reference} knows of nothing that refers to {subject}"
                raise NotFoundError(message, digest=subject)
            return found

        return await ask_in_turn(self._ranked(), fetch)

    async def aclose(self) -> None:
        """Give all clients back."""
        self._open = False
        for place in self._places:
            await place.aclose()

    async def _read(self, place: Place, instance: Digest | None) -> Manifest:
        """Read a manifest from a place, within the time that it has if it is not the last."""
        with self._standing.watching(place.candidate.name.registry):
            raw = await self._fetch_in_time(place, instance)
        verify, expected = Manifest.verified, instance or self._name.digest
        if len(raw.raw) > OFFLOAD_BYTES:
            return await run_blocking(self._context, verify, raw.raw, raw.media_type, expected)
        return verify(raw.raw, raw.media_type, expected)

    async def _read_default(self) -> Manifest:
        """Read the default manifest; whoever has it serves all else, as long as it can."""
        self._default = manifest = await ask_in_turn(
            self._ranked(blocked=True), lambda place: self._read(place, None), lenient=False
        )
        return manifest

    async def _fetch_in_time(self, place: Place, instance: Digest | None) -> RawManifest:
        limit = self._limit if place.caller.rivals else None
        try:
            async with asyncio.timeout(limit) as deadline:
                adapter = await place.enter()
                return await adapter.fetch_manifest(instance, lambda: deadline.reschedule(None))
        except SupplementedError:
            raise
        except TimeoutError as error:
            message = f"{place.reference} did not begin to answer within {limit} s"
            raise SourceTimeoutError(message) from error

    async def _find_default(self) -> Digest:
        """The digest of what was read, so that all agrees while a tag moves (HTTP-09, SIG-03)."""
        named = self._name.digest
        if named is not None and named.algorithm == "sha256":
            return named
        return (self._default or await self._read_default()).digest

    def _ranked(self, *, blocked: bool = False) -> tuple[Place, ...]:
        """The places in the order to ask them; those that are blocked only to say so (CONF-17)."""
        if not self._open:
            raise ClosedError("the source was closed; open the reference again")
        allowed = [place for place in self._places if place.candidate.blocked is None]
        places = self._places if blocked else allowed or self._places
        return tuple(sorted(places, key=self._is_doubtful))

    def _is_doubtful(self, place: Place) -> bool:
        """Whether it is better asked after the others."""
        away = place.caller.rivals and self._standing.is_away(place.candidate.name.registry)
        return place.failing or away
