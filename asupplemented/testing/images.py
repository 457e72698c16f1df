"""Builders of small real images, with the same bytes on every machine.

`asupplemented.testing.FakeRegistry.add` serves them, and `write_layout` and `write_directory`
write them to disk. Any tool can unpack them: layers are tar archives, plain or in a gzip frame, and
configs have correct ``diff_ids``.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, TypeAlias

from asupplemented.model import media_type as kinds
from asupplemented.model.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = (
    "Built",
    "BuiltImage",
    "BuiltIndex",
    "Json",
    "Layer",
    "build_artifact",
    "build_image",
    "build_index",
    "describe",
    "pack_files",
    "wrap_gzip",
)

_GZIP_HEAD: Final = b"\x1f\x8b\x08" + bytes(6) + b"\xff"  # deflate, no flags, no time, any system
_STORED_MAX: Final = 0xFFFF


def pack_files(files: Mapping[str, bytes | str]) -> bytes:
    """Pack files into a tar archive, in the form of a layer.

    Args:
        files: Path to content, text as UTF-8. A path that ends in ``/`` is an empty directory.
            Parent directories are added. The order is irrelevant.

    Returns:
        The archive, with sorted names, owner 0, time 0, and modes 0644 and 0755.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(_with_parents(files).items()):
            archive.addfile(_member(name, content), io.BytesIO(content or b""))
    return buffer.getvalue()


def wrap_gzip(data: bytes) -> bytes:
    """Wrap data in a gzip frame of stored (not compressed) blocks.

    Compressed bytes differ between versions of zlib, and digests must not. Every gzip reader
    accepts stored blocks.
    """
    blocks = [_stored(data, at) for at in range(0, len(data), _STORED_MAX)] or [_stored(b"", 0)]
    tail = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return b"".join((_GZIP_HEAD, *blocks, tail))


def _stored(data: bytes, at: int) -> bytes:
    block = data[at : at + _STORED_MAX]
    last = at + _STORED_MAX >= len(data)
    return struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block


def _with_parents(files: Mapping[str, bytes | str]) -> dict[str, bytes | None]:
    """Normalised names to content, None for a directory."""
    members: dict[str, bytes | None] = {}
    for path, content in files.items():
        name = PurePosixPath(path.lstrip("/"))
        for parent in list(name.parents)[:-1]:
            members[str(parent)] = None
        data = content.encode() if isinstance(content, str) else content
        members[str(name)] = None if path.endswith("/") else data
    return members


def _member(name: str, content: bytes | None) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    if content is None:
        member.type = tarfile.DIRTYPE
        member.mode = 0o755
    else:
        member.size = len(content)
        member.mode = 0o644
    return member


Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | bool | None"
Layer: TypeAlias = "bytes | Mapping[str, bytes | str]"

EPOCH: Final = "1970-01-01T00:00:00Z"
SEARCH_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EMPTY_CONFIG: Final = b"{}"


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """One manifest with its config and layers."""

    raw: bytes
    """The bytes of the manifest."""
    media_type: str
    """Its media type."""
    digest: Digest
    """The digest of `raw`."""
    blobs: Mapping[Digest, bytes]
    """Digest to content: the config first, then the layers, base layer first."""
    platform: str | None
    """``os/architecture[/variant]``, None for an artifact."""
    artifact_type: str | None = None
    """Its ``artifactType``, None for none."""
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    """Its annotations."""

    @property
    def config(self) -> Digest:
        """Digest of the config."""
        return next(iter(self.blobs))

    @property
    def layers(self) -> tuple[Digest, ...]:
        """Digests of the layers, base layer first, each once."""
        return tuple(self.blobs)[1:]

    def walk(self) -> Iterator[Built]:
        """The image itself."""
        yield self


@dataclass(frozen=True, slots=True)
class BuiltIndex:
    """An OCI index or a Docker manifest list, with the built images that it names."""

    raw: bytes
    """The bytes of the index."""
    media_type: str
    """Its media type."""
    digest: Digest
    """The digest of `raw`."""
    members: tuple[Built, ...]
    """The built instances in order; entries that were given as descriptors are missing."""
    platform: None = None
    """An index has none."""
    artifact_type: str | None = None
    """Its ``artifactType``, None for none."""
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    """Its annotations."""

    @property
    def blobs(self) -> Mapping[Digest, bytes]:
        """Digest to content of every config and layer below."""
        return MappingProxyType({d: b for member in self.members for d, b in member.blobs.items()})

    def walk(self) -> Iterator[Built]:
        """The index itself, then everything below it, depth first."""
        yield self
        for member in self.members:
            yield from member.walk()


Built: TypeAlias = BuiltImage | BuiltIndex


def build_image(
    platform: str = "linux/amd64",
    layers: Sequence[Layer] | None = None,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
    gzip: bool = True,
    algorithm: str = "sha256",
    subject: Built | None = None,
) -> BuiltImage:
    """Build an image of one platform.

    Args:
        platform: ``os/architecture[/variant]``.
        layers: Base layer first. A mapping of path to content becomes a tar archive; bytes
            become an uncompressed layer unchanged. None gives one layer with one file that
            contains the platform.
        labels: Labels of the config.
        annotations: Annotations of the manifest; Docker manifests have none.
        docker: Whether to use the media types of Docker instead of OCI.
        gzip: Whether to wrap the archives of mappings in gzip.
        algorithm: The algorithm of the digest of the manifest and of those in it.
        subject: The subject of the manifest.

    Returns:
        The image. The same arguments always give the same bytes.
    """
    if layers is None:
        layers = ({"etc/platform": f"{platform}\n"},)
    packed = [_pack(layer, gzip=gzip) for layer in layers]
    config = _dump(_config(platform, [diff for diff, _, _ in packed], labels))
    base = kinds.DOCKER_LAYER if docker else kinds.OCI_LAYER
    blobs = [(kinds.DOCKER_CONFIG if docker else kinds.OCI_CONFIG, config)]
    blobs += [(base + _suffix(docker=docker, gzip=zipped), data) for _, data, zipped in packed]
    descriptors = [_descriptor(kind, data, algorithm) for kind, data in blobs]
    media_type = kinds.DOCKER_MANIFEST if docker else kinds.OCI_MANIFEST
    document: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptors[0],
        "layers": descriptors[1:],
    }
    raw = _dump(document | _extras(subject, annotations))
    return BuiltImage(
        raw=raw,
        media_type=media_type,
        digest=Digest.of(raw, algorithm),
        blobs=MappingProxyType({Digest.of(data, algorithm): data for _, data in blobs}),
        platform=platform,
        annotations=MappingProxyType(dict(annotations or {})),
    )


def build_artifact(
    artifact_type: str,
    payload: bytes = b"",
    *,
    subject: Built | None = None,
    annotations: Mapping[str, str] | None = None,
    layer_type: str = "application/octet-stream",
    layer_annotations: Mapping[str, str] | None = None,
) -> BuiltImage:
    """Build an artifact of one layer: a signature, an SBOM, an attestation.

    Args:
        artifact_type: Becomes ``artifactType``.
        payload: The only layer.
        subject: The subject of the manifest, for the referrers API.
        annotations: Annotations of the manifest.
        layer_type: Media type of the layer.
        layer_annotations: Annotations of the layer, which hold the signature of a cosign artifact.
    """
    layer = _descriptor(layer_type, payload)
    if layer_annotations:
        layer["annotations"] = dict(layer_annotations)
    document: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": kinds.OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": _descriptor(kinds.OCI_EMPTY, EMPTY_CONFIG),
        "layers": [layer],
    }
    raw = _dump(document | _extras(subject, annotations))
    return BuiltImage(
        raw=raw,
        media_type=kinds.OCI_MANIFEST,
        digest=Digest.of(raw),
        blobs=MappingProxyType({Digest.of(data): data for data in (EMPTY_CONFIG, payload)}),
        platform=None,
        artifact_type=artifact_type,
        annotations=MappingProxyType(dict(annotations or {})),
    )


def build_index(
    entries: Sequence[Built | Mapping[str, Json]],
    *,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
    algorithm: str = "sha256",
    subject: Built | None = None,
) -> BuiltIndex:
    """Build an index over images, artifacts and other indexes.

    Args:
        entries: In order. A mapping is written as a descriptor unchanged, so that an index can
            name missing manifests, or wrong values.
        annotations: Annotations of the index; Docker lists have none.
        docker: Whether to build a Docker manifest list instead of an OCI index.
        algorithm: The algorithm of the digest of the index itself.
        subject: The subject of the index.
    """
    media_type = kinds.DOCKER_LIST if docker else kinds.OCI_INDEX
    document: dict[str, Json] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [describe(entry) for entry in entries],
    }
    raw = _dump(document | _extras(subject, annotations))
    return BuiltIndex(
        raw=raw,
        media_type=media_type,
        digest=Digest.of(raw, algorithm),
        members=tuple(entry for entry in entries if isinstance(entry, BuiltImage | BuiltIndex)),
        annotations=MappingProxyType(dict(annotations or {})),
    )


def describe(entry: Built | Mapping[str, Json]) -> dict[str, Json]:
    """The descriptor of a built image or index, as an entry of an index."""
    if isinstance(entry, Mapping):
        return dict(entry)
    descriptor: dict[str, Json] = {
        "mediaType": entry.media_type,
        "digest": entry.digest,
        "size": len(entry.raw),
    }
    if entry.artifact_type is not None:
        descriptor["artifactType"] = entry.artifact_type
    if entry.platform is not None:
        descriptor["platform"] = _platform(entry.platform)
    return descriptor


def _extras(subject: Built | None, annotations: Mapping[str, str] | None) -> dict[str, Json]:
    extras: dict[str, Json] = {}
    if subject is not None:
        extras["subject"] = {
            "mediaType": subject.media_type,
            "digest": subject.digest,
            "size": len(subject.raw),
        }
    if annotations:
        extras["annotations"] = dict(annotations)
    return extras


def _config(
    platform: str, diff_ids: Sequence[str], labels: Mapping[str, str] | None
) -> dict[str, Json]:
    settings: dict[str, Json] = {"Env": [SEARCH_PATH], "Cmd": ["/bin/sh"]}
    if labels:
        settings["Labels"] = dict(labels)
    return {
        "created": EPOCH,
        **_platform(platform),
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created": EPOCH, "created_by": f"layer {n}"} for n in range(len(diff_ids))],
    }


def _platform(text: str) -> dict[str, Json]:
    os, architecture, *variant = text.split("/", 2)
    platform: dict[str, Json] = {"architecture": architecture, "os": os}
    return platform | {"variant": variant[0]} if variant else platform


def _pack(layer: Layer, *, gzip: bool) -> tuple[Digest, bytes, bool]:
    """The diff ID of a layer, its bytes, and whether they are wrapped in gzip."""
    plain = layer if isinstance(layer, bytes) else pack_files(layer)
    wrap = gzip and not isinstance(layer, bytes)
    return Digest.of(plain), wrap_gzip(plain) if wrap else plain, wrap


def _suffix(*, docker: bool, gzip: bool) -> str:
    return "" if not gzip else ".gzip" if docker else "+gzip"


def _descriptor(media_type: str, data: bytes, algorithm: str = "sha256") -> dict[str, Json]:
    return {"mediaType": media_type, "digest": Digest.of(data, algorithm), "size": len(data)}


def _dump(document: Mapping[str, Json]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
