"""Builders of real small images, with the same bytes on every machine.

What they build can be served (`asupplemented.testing.FakeRegistry.add`), written to disk
(`write_layout`, `write_directory`), and unpacked by any tool: configs have right ``diff_ids``.

Layers with the same bytes on every machine: tar archives, plain or in a gzip frame.
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
    """A tar archive of some files, as unpackers expect a layer.

    Args:
        files: Path to content; text is encoded as UTF-8. A path that ends in ``/`` is an empty
            directory. Parent directories are added. Order does not matter.

    Returns:
        The archive: sorted names, owner 0, time 0, modes 0644 and 0755.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in sorted(_with_parents(files).items()):
            archive.addfile(_member(name, content), io.BytesIO(content or b""))
    return buffer.getvalue()


def wrap_gzip(data: bytes) -> bytes:
    """A gzip frame around stored (not compressed) blocks.

    Compressors differ between versions of zlib, and a digest must not. Every reader of gzip
    reads this.
    """
    blocks = [_stored(data, at) for at in range(0, len(data), _STORED_MAX)] or [_stored(b"", 0)]
    tail = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return b"".join((_GZIP_HEAD, *blocks, tail))


def _stored(data: bytes, at: int) -> bytes:
    block = data[at : at + _STORED_MAX]
    last = at + _STORED_MAX >= len(data)
    return struct.pack("<BHH", last, len(block), len(block) ^ 0xFFFF) + block


def _with_parents(files: Mapping[str, bytes | str]) -> dict[str, bytes | None]:
    """Clean names to content, None for a directory."""
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
    digest: Digest
    """Of `raw`."""
    blobs: Mapping[Digest, bytes]
    """Digest to content: the config first, then the layers, base layer first."""
    platform: str | None
    """``os/architecture[/variant]``, None for an artifact."""
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])

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
    """An index, or a Docker manifest list, with all that it names and that was built."""

    raw: bytes
    """The bytes of the index."""
    media_type: str
    digest: Digest
    """Of `raw`."""
    members: tuple[Built, ...]
    """The instances that were built, in order; entries given as a descriptor are not here."""
    platform: None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def blobs(self) -> Mapping[Digest, bytes]:
        """Digest to content of every config and layer below."""
        return MappingProxyType({d: b for member in self.members for d, b in member.blobs.items()})

    def walk(self) -> Iterator[Built]:
        """The index itself, then all that is below, depth first."""
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
        layers: Base layer first. A mapping of path to content becomes a tar archive; bytes are
            taken as they are, as an uncompressed layer. None: one layer with one file that
            names the platform.
        labels: Labels of the config.
        annotations: Annotations of the manifest; Docker's has none.
        docker: Docker's media types instead of those of OCI.
        gzip: Whether archives made of a mapping are wrapped in gzip.
        algorithm: Of every digest in the manifest, and of its own.
        subject: What the manifest refers to.

    Returns:
        The image; the same arguments give the same bytes, everywhere.
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
        artifact_type: What it is; becomes ``artifactType``.
        payload: The only layer.
        subject: What it refers to, found again by the referrers API.
        annotations: Annotations of the manifest.
        layer_type: Media type of the layer.
        layer_annotations: Annotations of the layer, where signatures keep their signature.
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
        entries: In order. A mapping is written as the descriptor that it is, so that an index
            can name what nobody has, or lie.
        annotations: Annotations of the index; Docker's list has none.
        docker: A Docker manifest list instead of an index of OCI.
        algorithm: Of its digest, and of nothing below.
        subject: What it refers to.
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
    """The descriptor of something built, as it stands in an index."""
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
    """The diff id of a layer, its bytes, and whether those are wrapped in gzip."""
    plain = layer if isinstance(layer, bytes) else pack_files(layer)
    wrap = gzip and not isinstance(layer, bytes)
    return Digest.of(plain), wrap_gzip(plain) if wrap else plain, wrap


def _suffix(*, docker: bool, gzip: bool) -> str:
    return "" if not gzip else ".gzip" if docker else "+gzip"


def _descriptor(media_type: str, data: bytes, algorithm: str = "sha256") -> dict[str, Json]:
    return {"mediaType": media_type, "digest": Digest.of(data, algorithm), "size": len(data)}


def _dump(document: Mapping[str, Json]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
