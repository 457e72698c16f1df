"""Image manifests: config and layers of one image or artifact."""

from __future__ import annotations

import binascii
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from asupplemented.errors import MalformedManifestError, NonImageArtifactError, excerpt
from asupplemented.model import document, schema1
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    DOCKER_TYPES,
    OCI_CONFIG,
    OCI_MANIFEST,
)
from asupplemented.model.schema1 import Schema1

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asupplemented.model.document import Document, Reading

__all__ = ("ImageManifest", "LayerInfo", "check_data", "parse_image", "parse_schema1")

_KEYS: Final = frozenset(("config", "layers"))


class LayerInfo(NamedTuple):
    """A layer, and whether its manifest marks it as empty (rules C-05, C-07)."""

    descriptor: Descriptor
    empty: bool


class ImageManifest(msgspec.Struct, frozen=True):
    """The content of a manifest of one image or artifact.

    Attributes:
        media_type: What it was read as.
        config: As written; None for schema 1, which has none (rule C-01), and if it is not there.
        layers: Base layer first; what is there twice is there twice (rules C-04, C-07).
        annotations: Empty if there are none.
        artifact_type: Or None.
        subject: What it is about, or None; it is never followed (rule AR-05).
        schema1: What only schema 1 says; None for all other kinds.
    """

    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = {}
    artifact_type: str | None = None
    subject: Descriptor | None = None
    schema1: Schema1 | None = None

    def __hash__(self) -> int:
        # Annotations cannot be hashed; equal manifests have equal layers anyway.
        return hash((self.media_type, self.config, self.layers))

    @property
    def layer_infos(self) -> tuple[LayerInfo, ...]:
        """The layers, each with whether it is called empty; only schema 1 can say so."""
        empty = (False,) * len(self.layers) if self.schema1 is None else self.schema1.empty
        return tuple(map(LayerInfo, self.layers, empty))

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob that the manifest names: the config, then the layers, base first.

        A config without a digest is left out (rule C-03).
        """
        if self.config is None or not self.config.digest:
            return self.layers
        return (self.config, *self.layers)

    @property
    def is_artifact(self) -> bool:
        """Whether it is an OCI manifest of something that is no image (rules AR-01, AR-04)."""
        return self.media_type == OCI_MANIFEST and self._config_type != OCI_CONFIG

    @property
    def image_id(self) -> str | None:
        """The hex digits of the config's digest (rule C-09).

        None for schema 1, where it takes the uncompressed layers to know.

        Raises:
            NonImageArtifactError: It is no image.
            InvalidDigestError: The config's digest is none.
        """
        if self.is_artifact:
            raise self.artifact_error()
        if self.schema1 is not None:
            return None
        return Digest(self.config.digest if self.config is not None else "").encoded

    def artifact_error(self) -> NonImageArtifactError:
        """The error to raise if an image is needed and this is an artifact (rule AR-02)."""
        kind = self.artifact_type or self._config_type or ""
        if kind == DOCKER_CONFIG:
            message = "invalid mixed OCI image with Docker v2s2 config"
        else:
            message = f"an artifact of type {excerpt(kind)} is not an image"
        return NonImageArtifactError(message, artifact_type=kind)

    @property
    def _config_type(self) -> str | None:
        return None if self.config is None else self.config.media_type


def parse_image(reading: Reading, media_type: str) -> ImageManifest:
    """Read a manifest of schema 2 or OCI.

    Raises:
        MalformedManifestError: A rule of its kind is broken (rules P-06, P-08, P-09).
        AmbiguousManifestError: It has keys of another kind (rule A-02).
        LimitExceededError: It names more than ``MAX_LAYERS`` layers (rule L-04).
    """
    typed = document.convert_as(reading, media_type, _KEYS)
    document.check_layers(len(typed.layers or ()))
    if media_type == DOCKER_MANIFEST:
        _check_docker_types(typed)
    else:
        check_data((typed.config, typed.subject, *(typed.layers or ())))
    return ImageManifest(
        media_type=media_type,
        config=typed.config,
        layers=typed.layers or (),
        annotations=typed.annotations,
        artifact_type=typed.artifact_type,
        subject=typed.subject,
    )


def parse_schema1(payload: bytes, media_type: str) -> ImageManifest:
    """Read an unsigned schema 1 manifest, or the payload of a signed one.

    Raises:
        MalformedManifestError: A rule of its kind is broken (rules P-03 to P-05).
        AmbiguousManifestError: It has keys of another kind (rule A-02).
        LimitExceededError: It names more than ``MAX_LAYERS`` layers (rule L-04).
    """
    parsed = schema1.parse(payload, media_type)
    document.check_layers(len(parsed.layers))
    return ImageManifest(media_type, None, parsed.layers, schema1=parsed)


def check_data(descriptors: Iterable[Descriptor | None]) -> None:
    """Make sure that embedded content is base64 (rule P-09).

    Raises:
        MalformedManifestError: One of them is not.
    """
    for descriptor in descriptors:
        if descriptor is not None and descriptor.data is not None:
            _check_base64(descriptor.data)


def _check_base64(data: str) -> None:
    compact = data.replace("\r", "").replace("\n", "")
    try:
        binascii.a2b_base64(compact, strict_mode=True)
    except ValueError as error:  # binascii.Error is one, and text that is not ASCII gives another
        message = f"embedded data is not base64: {excerpt(data, 50)}"
        raise MalformedManifestError(message) from error


def _check_docker_types(typed: Document) -> None:
    """Schema 2 knows ten media types and has one on itself and on each layer (rules P-06, P-07)."""
    for media_type in (typed.media_type, *(layer.media_type for layer in typed.layers or ())):
        if media_type not in DOCKER_TYPES:
            shown = "none" if media_type is None else excerpt(media_type)
            message = f"unsupported media type in a Docker schema 2 manifest: {shown}"
            raise MalformedManifestError(message)
