"""One image of a source: its config, layers and platform (``NewImage`` in the Go package)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.abc import AsyncResource, ChoosingReference, Opening
from asupplemented.aio.closing import closing_on_error
from asupplemented.aio.threads import run_by_size
from asupplemented.errors import (
    LimitExceededError,
    ManifestError,
    SupplementedError,
    UnsupportedManifestError,
)
from asupplemented.limits import MAX_CONFIG, MAX_NESTING
from asupplemented.model.config import ImageConfig, Inspection
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.manifest import ImageManifest
from asupplemented.model.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asupplemented.abc import BlobStream, Context, Reference, Source
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest

__all__ = ("Image", "get_image", "open_image")


def open_image(
    reference: Reference,
    session: Context,
    *,
    platform: Platform | str | None = None,
    prefer_gzip: bool = False,
) -> Opening[Image]:
    """Open a reference and choose one image of it (rule U-05).

    Args:
        reference: A single reference or a group.
        session: Gives connections, credentials, limits and caches.
        platform: The platform to choose from a list, nested lists included, and among the images
            of one name in a layout; None is the host's.
        prefer_gzip: Whether gzip comes before zstd among images that fit equally well (rule CI-05).

    Returns:
        The image. Closing it closes the source; a failure closes the source, too (rule U-06).

    Raises:
        InvalidPlatformError: The text is no platform.
        PlatformNotFoundError: A list has no instance for the platform.
    """
    wanted = Platform.parse(platform) if isinstance(platform, str) else platform

    async def opener() -> Image:
        chosen = reference
        if isinstance(reference, ChoosingReference):
            chosen = reference.for_platform(wanted)
        source = await chosen.open(session)
        async with closing_on_error(lambda: (source,), "the source"):
            return await get_image(
                source, session, platform=wanted, prefer_gzip=prefer_gzip, owned=True
            )

    return Opening(opener, reference)


async def get_image(
    source: Source,
    session: Context,
    instance: Descriptor | Digest | str | None = None,
    *,
    platform: Platform | None = None,
    prefer_gzip: bool = False,
    owned: bool = False,
) -> Image:
    """Read the manifest and config of one image of an open source.

    Args:
        source: The source to read from.
        session: Its threads parse what is large.
        instance: Digest of a manifest, or the list entry that names it; None starts from the
            default one.
        platform: The platform to choose from a list, nested lists included; None is the host's.
        prefer_gzip: Whether gzip comes before zstd among images that fit equally well.
        owned: Whether closing the image closes the source.

    Raises:
        InstanceNotFoundError: The source has no such manifest.
        PlatformNotFoundError: A list has no instance for the platform.
        LimitExceededError: Lists are nested too deep.
    """
    if isinstance(instance, Descriptor):
        manifest = await source.get_named(instance)
    else:
        manifest = await source.get_manifest(instance)
    for _ in range(MAX_NESTING + 1):
        parsed = await run_by_size(session, manifest.size, manifest.parse)
        if isinstance(parsed, ImageManifest):
            config = None
            if not parsed.is_artifact:
                config = await _read_config(source, parsed, session)
            return Image(source, manifest, parsed, config, owned=owned)
        chosen = parsed.choose(platform, prefer_gzip=prefer_gzip)
        manifest = await source.get_named(chosen)
    message = f"lists are nested more than {MAX_NESTING} deep"
    raise LimitExceededError(message, limit=MAX_NESTING, reference=source.reference)


async def _read_config(
    source: Source, image: ImageManifest, session: Context
) -> ImageConfig | SupplementedError:
    """The config, or why it cannot be parsed: the layers can be read all the same (rule J-03)."""
    raw = b""
    if image.config is not None:
        async with source.open_blob(image.config) as blob:
            raw = await blob.read_all(MAX_CONFIG)

    def parse() -> ImageConfig:
        return ImageConfig.from_schema1(image) if image.config is None else ImageConfig.parse(raw)

    try:
        return await run_by_size(session, len(raw), parse)
    except (ManifestError, LimitExceededError) as error:
        return error


class Image(AsyncResource):
    """A single image: its manifest and config are read and verified, its layers can be opened.

    Made by `open_image` and `SupplementedReference.open_image`.

    Attributes:
        source: The source of its blobs.
        manifest: Its manifest: bytes, media type and digest.
        parsed: Its manifest, parsed.
    """

    __slots__ = ("_config", "_owned", "manifest", "parsed", "source")

    def __init__(
        self,
        source: Source,
        manifest: Manifest,
        parsed: ImageManifest,
        config: ImageConfig | SupplementedError | None,
        *,
        owned: bool,
    ) -> None:
        self.source = source
        self.manifest = manifest
        self.parsed = parsed
        self._config = config
        self._owned = owned

    @property
    def digest(self) -> Digest:
        """Digest of the manifest."""
        return self.manifest.digest

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """The layers, base first. Duplicates are kept, as in the manifest (rules C-04, C-07)."""
        return self.parsed.layers

    @property
    def config(self) -> ImageConfig:
        """The config.

        Raises:
            NonImageArtifactError: The manifest describes an artifact (rules AR-02, AR-03).
            MalformedManifestError: The config blob is no config.
            LimitExceededError: The config has too many values (rule L-04).
        """
        if self._config is None:
            raise self.parsed.artifact_error().locate(
                reference=self.source.reference, digest=self.digest
            )
        if isinstance(self._config, SupplementedError):
            raise self._config.twin().locate(
                reference=self.source.reference, digest=self.digest
            ) from self._config
        return self._config

    @property
    def platform(self) -> Platform:
        """The platform that the config names.

        Raises:
            NonImageArtifactError: The manifest describes an artifact.
        """
        return self.config.platform

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of the config, empty if there are none.

        Raises:
            NonImageArtifactError: The manifest describes an artifact.
        """
        return self.config.labels or {}

    async def read_config(self) -> bytes:
        """The bytes of the config blob, verified; artifacts have one, too (rule AR-03).

        Raises:
            UnsupportedManifestError: Schema 1 has no config blob (rule C-01).
            LimitExceededError: It is larger than `MAX_CONFIG`.
        """
        if self.parsed.config is None:
            message = "a schema 1 manifest has no config blob"
            raise UnsupportedManifestError(
                message, reference=self.source.reference, digest=self.digest
            )
        async with self.source.open_blob(self.parsed.config) as blob:
            return await blob.read_all(MAX_CONFIG)

    def open_layer(self, number: int) -> BlobStream:
        """A stream over layer `number`, not yet opened; layer 0 is the base.

        Raises:
            IndexError: There is no such layer.
        """
        return self.source.open_blob(self.layers[number])

    def inspect(self) -> Inspection:
        """A summary with the fields of the Go package (rules I-01, I-02).

        Raises:
            NonImageArtifactError: The manifest describes an artifact (rule AR-02).
        """
        return Inspection.of(self.parsed, self.config)

    async def aclose(self) -> None:
        """Close the source, if it was opened for this image."""
        if self._owned:
            await self.source.aclose()

    def __repr__(self) -> str:
        return f"<Image {self.digest} of {self.source.reference}>"
