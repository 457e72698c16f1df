"""Configs of images, and what `inspect` tells of an image (rules I)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from asupplemented.errors import MalformedManifestError
from asupplemented.model import strict_json
from asupplemented.model.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.image_manifest import ImageManifest

__all__ = (
    "HistoryEntry",
    "ImageConfig",
    "Inspection",
    "LayerData",
    "RunConfig",
)

_WHAT = "image config"


class RunConfig(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    rename="pascal",
):
    """How a container of the image starts.

    A missing or null field is None. An empty list is ().
    """

    user: str | None = None
    env: tuple[str, ...] | None = None
    """``NAME=value``, in order."""
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    exposed_ports: dict[str, dict[str, object]] | None = None
    """Ports like ``80/tcp``; the values are empty."""
    volumes: dict[str, dict[str, object]] | None = None
    """Paths; the values are empty."""


class HistoryEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one layer was made; values as written, None if missing."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class _RootFs(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str | None = None
    diff_ids: tuple[str, ...] = ()


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """The config of an image, OCI or Docker; unknown fields are ignored (rule I-02).

    Attributes:
        os: "" if missing.
        architecture: "" if missing.
        variant: Or None.
        os_version: Or None.
        os_features: In the order written.
        created: RFC 3339, as written; or None.
        author: Or None.
        docker_version: Or None; only Docker writes it.
        config: How a container starts, or None if there is no such object.
        rootfs: Or None. Use `diff_ids` instead.
        history: Base layer first; entries of empty layers included.
    """

    os: str = ""
    architecture: str = ""
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    created: str | None = None
    author: str | None = None
    docker_version: str | None = None
    config: RunConfig | None = None
    rootfs: _RootFs | None = None
    history: tuple[HistoryEntry, ...] = ()

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        """Read a config blob; its bytes must have been verified (rule I-03).

        A config decides nothing, so none is refused for its keys: see
        `strict_json.decode_leniently` (rule J-03).

        Raises:
            MalformedManifestError: It is not a JSON object, or a field has the wrong type.
            LimitExceededError: It holds more than ``MAX_JSON_VALUES`` values.
        """
        return strict_json.decode_leniently(raw, cls, what=_WHAT)

    @classmethod
    def from_schema1(cls, image: ImageManifest) -> ImageConfig:
        """The config that a schema 1 manifest brings along, that of its newest layer (rule I-02).

        Raises:
            MalformedManifestError: It is broken, or `image` is of another kind.
        """
        if image.schema1 is None:
            message = f"a manifest of type {image.media_type} contains no config"
            raise MalformedManifestError(message)
        return cls.parse(image.schema1.history[-1].encode())

    @property
    def platform(self) -> Platform:
        """The platform of the image."""
        return Platform(self.os, self.architecture, self.variant, self.os_version, self.os_features)

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """Digests of the uncompressed layers as written, base layer first."""
        return self.rootfs.diff_ids if self.rootfs is not None else ()

    @property
    def env(self) -> tuple[str, ...] | None:
        """``NAME=value`` in order; None if the config does not say."""
        return self.config.env if self.config is not None else None

    @property
    def labels(self) -> Mapping[str, str] | None:
        """Labels by name; None if the config does not say."""
        return self.config.labels if self.config is not None else None

    @property
    def entrypoint(self) -> tuple[str, ...] | None:
        """The program and its fixed arguments; None if the config does not say."""
        return self.config.entrypoint if self.config is not None else None

    @property
    def cmd(self) -> tuple[str, ...] | None:
        """Default arguments, or the command; None if the config does not say."""
        return self.config.cmd if self.config is not None else None


class LayerData(NamedTuple):
    """One layer, as `Inspection` shows it."""

    media_type: str | None
    digest: str
    size: int | None
    annotations: Mapping[str, str]

    @classmethod
    def of(cls, layer: Descriptor) -> LayerData:
        """The data of a layer of a manifest."""
        return cls(layer.media_type, layer.digest, layer.size, layer.annotations)

    def to_dict(self) -> dict[str, object]:
        """A JSON object with the names and zero values of other tools; an unknown size is -1."""
        return {
            "MIMEType": self.media_type or "",
            "Digest": self.digest,
            "Size": -1 if self.size is None else self.size,
            "Annotations": dict(self.annotations) or None,
        }


class Inspection(NamedTuple):
    """A summary of an image (rule I-01).

    Attributes:
        tag: As a schema 1 manifest names it; None for all other kinds.
        created: RFC 3339, as the config writes it; or None.
        docker_version: Or None.
        labels: None if the config does not say.
        architecture: "" if the config does not say.
        variant: Or None.
        os: "" if the config does not say.
        layers: Digests, base layer first.
        layers_data: The same layers with more about each.
        env: ``NAME=value`` in order; None if the config does not say.
        author: Or None.
    """

    tag: str | None
    created: str | None
    docker_version: str | None
    labels: Mapping[str, str] | None
    architecture: str
    variant: str | None
    os: str
    layers: tuple[str, ...]
    layers_data: tuple[LayerData, ...]
    env: tuple[str, ...] | None
    author: str | None

    @classmethod
    def of(cls, image: ImageManifest, config: ImageConfig) -> Inspection:
        """Summarise a manifest and its config (rule I-02).

        Args:
            image: The manifest.
            config: Its config; for schema 1 `ImageConfig.from_schema1`.

        Raises:
            NonImageArtifactError: It is an artifact (rule AR-02).
        """
        if image.is_artifact:
            raise image.artifact_error()
        return cls(
            tag=None if image.schema1 is None else image.schema1.tag,
            created=config.created,
            docker_version=config.docker_version,
            labels=config.labels,
            architecture=config.architecture,
            variant=config.variant,
            os=config.os,
            layers=tuple(layer.digest for layer in image.layers),
            layers_data=tuple(map(LayerData.of, image.layers)),
            env=config.env,
            author=config.author,
        )

    def to_dict(self) -> dict[str, object]:
        """A JSON object with the names and zero values of other tools."""
        return {
            "Tag": self.tag or "",
            "Created": self.created,
            "DockerVersion": self.docker_version or "",
            "Labels": None if self.labels is None else dict(self.labels),
            "Architecture": self.architecture,
            "Variant": self.variant or "",
            "Os": self.os,
            "Layers": list(self.layers),
            "LayersData": [layer.to_dict() for layer in self.layers_data],
            "Env": None if self.env is None else list(self.env),
            "Author": self.author or "",
        }
