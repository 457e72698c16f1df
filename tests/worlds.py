"""Places that hold images, as plain data: what every kind of adapter is tested against.

A `Contents` says what one place holds, byte for byte and lies included. It can be written to
disk in both forms, and read by a fake registry or a memory source as it is. The images
themselves come from `asupplemented.testing` (`build_image`, `build_index`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from asupplemented.abc import RawManifest
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.testing.disk import select

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

    from asupplemented.model.signature import Signature
    from asupplemented.testing.images import Built

REF_NAME = "org.opencontainers.image.ref.name"
LAYOUT_FILE = b'{"imageLayoutVersion":"1.0.0"}'


@dataclass(frozen=True)
class Contents:
    """All that one place holds."""

    default: Digest | None
    """What the default manifest is stored under; None: there is no default manifest."""
    manifests: Mapping[Digest, RawManifest]
    """By the digest they are stored under, which need not be their own."""
    blobs: Mapping[Digest, bytes]
    """By the digest they are stored under, which need not be their own."""
    signatures: Mapping[Digest | None, tuple[Signature, ...]] = field(default_factory=dict)
    """By instance, None for the default manifest."""

    @classmethod
    def of(
        cls, top: Built, *, include: Container[str] | None = None, omit: Container[str] = ()
    ) -> Contents:
        """The content of a place that has `top` and the instances in `include` (None: all)."""
        manifests, blobs = select(top, include, omit)
        raw = {digest: RawManifest(b.raw, b.media_type) for digest, b in manifests.items()}
        return cls(top.digest, raw, blobs)

    def replacing(self, digest: str, data: bytes) -> Contents:
        """The same place with other bytes under a digest, be it of a manifest or of a blob."""
        key = Digest(digest)
        if key in self.manifests:
            stored = RawManifest(data, self.manifests[key].media_type)
            return replace(self, manifests={**self.manifests, key: stored})
        return replace(self, blobs={**self.blobs, key: data})

    def without(self, digest: str) -> Contents:
        """The same place with a hole."""
        manifests = {key: stored for key, stored in self.manifests.items() if key != digest}
        blobs = {key: data for key, data in self.blobs.items() if key != digest}
        return replace(self, manifests=manifests, blobs=blobs)


def manifest_of(built: Built) -> Manifest:
    """What was built, as a verified manifest."""
    return Manifest.verified(built.raw, built.media_type, built.digest)


def write_layout(
    path: Path, contents: Contents, *, name: str | None = None, shared: Path | None = None
) -> str:
    """Write an OCI layout whose sole entry is the default manifest.

    Args:
        path: Directory, made if it is not there.
        contents: What to write.
        name: The name of the entry, None for none.
        shared: Where the blobs go instead (rule OC-09).

    Returns:
        The reference as text.
    """
    path.mkdir(parents=True, exist_ok=True)
    blobs = shared or path / "blobs"
    files = {digest: stored.raw for digest, stored in contents.manifests.items()}
    for digest, data in {**files, **contents.blobs}.items():
        file = blobs / digest.algorithm / digest.encoded
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    (path / "oci-layout").write_bytes(LAYOUT_FILE)
    entries = [] if contents.default is None else [_entry(contents, contents.default, name)]
    write_index(path, entries)
    return f"oci:{path}" if name is None else f"oci:{path}:{name}"


def write_index(path: Path, entries: list[dict[str, object]]) -> None:
    """Write ``index.json`` with these descriptors, as they are."""
    document = {"schemaVersion": 2, "manifests": entries}
    (path / "index.json").write_text(json.dumps(document))


def read_index(path: Path) -> list[dict[str, Any]]:
    """The entries of ``index.json``, as they are."""
    document = json.loads((path / "index.json").read_bytes())
    assert document["schemaVersion"] == 2
    entries: list[dict[str, Any]] = document["manifests"]
    return entries


def write_directory(path: Path, contents: Contents) -> str:
    """Write a ``dir:`` image (rules DI-01, DI-02).

    The default manifest is found only as ``manifest.json``.

    Returns:
        The reference as text.
    """
    path.mkdir(parents=True, exist_ok=True)
    for digest, stored in contents.manifests.items():
        name = "manifest.json" if digest == contents.default else f"{plain(digest)}.manifest.json"
        (path / name).write_bytes(stored.raw)
    for digest, data in contents.blobs.items():
        (path / plain(digest)).write_bytes(data)
    for instance, signatures in contents.signatures.items():
        prefix = "" if instance is None else f"{plain(instance)}."
        for number, signature in enumerate(signatures, 1):
            (path / f"{prefix}signature-{number}").write_bytes(signature.to_blob())
    (path / "version").write_text(f"Directory Transport Version: {_version(contents)}\n")
    return f"dir:{path}"


def plain(digest: Digest) -> str:
    """How ``dir:`` spells a digest: bare hex for sha256, else with the algorithm in front."""
    prefix = "" if digest.algorithm == "sha256" else f"{digest.algorithm}-"
    return prefix + digest.encoded


def _version(contents: Contents) -> str:
    digests = (*contents.manifests, *contents.blobs)
    return "1.1" if all(digest.algorithm == "sha256" for digest in digests) else "1.2"


def _entry(contents: Contents, digest: Digest, name: str | None) -> dict[str, object]:
    stored = contents.manifests.get(digest, RawManifest(b"", None))
    entry: dict[str, object] = {"digest": digest, "size": len(stored.raw)}
    if stored.media_type is not None:
        entry["mediaType"] = stored.media_type
    if name is not None:
        entry["annotations"] = {REF_NAME: name}
    return entry
