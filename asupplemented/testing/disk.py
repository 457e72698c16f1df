"""Writes built images to disk, complete or with parts missing. Blocking, for tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from asupplemented.testing.images import BuiltImage, describe

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from asupplemented.model.digest import Digest
    from asupplemented.testing.images import Built

__all__ = ("select", "write_directory", "write_layout")

REF_NAME: Final = "org.opencontainers.image.ref.name"


def select(
    top: Built, include: Container[str] | None, omit: Container[str]
) -> tuple[dict[Digest, Built], dict[Digest, bytes]]:
    """Select manifests and blobs of a built image.

    Args:
        top: The image or index. It is always selected, unless it is omitted.
        include: Digests of the instances to select with their blobs; None for all.
        omit: Digests of manifests and blobs to leave out in any case. The blobs of an omitted
            instance stay selected.

    Returns:
        Manifests by digest, depth first, and blobs by digest.
    """
    chosen = [
        built for built in top.walk() if built is top or include is None or built.digest in include
    ]
    manifests = {built.digest: built for built in chosen if built.digest not in omit}
    blobs = {
        digest: data
        for built in chosen
        if isinstance(built, BuiltImage)
        for digest, data in built.blobs.items()
        if digest not in omit
    }
    return manifests, blobs


def write_layout(
    path: Path,
    top: Built,
    *,
    name: str | None = None,
    include: Container[str] | None = None,
    omit: Container[str] = (),
) -> str:
    """Write an OCI layout, or add to one.

    Args:
        path: The directory, made if it does not exist.
        top: The image to add to ``index.json``.
        name: Its ``org.opencontainers.image.ref.name``; replaces an entry of that name.
        include: Digests of the instances to write, None for all. See `select`.
        omit: Digests of manifests and blobs not to write.

    Returns:
        The reference, ``oci:PATH`` or ``oci:PATH:NAME``.
    """
    manifests, blobs = select(top, include, omit)
    files = {digest: built.raw for digest, built in manifests.items()} | blobs
    for digest, data in files.items():
        file = path / "blobs" / digest.algorithm / digest.encoded
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    path.mkdir(parents=True, exist_ok=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    _add_entry(path / "index.json", top, name)
    return f"oci:{path}" if name is None else f"oci:{path}:{name}"


def write_directory(
    path: Path,
    top: Built,
    *,
    include: Container[str] | None = None,
    omit: Container[str] = (),
) -> str:
    """Write a ``dir:`` image (rules DI-01, DI-02).

    Args:
        path: The directory, made if it does not exist.
        top: The default manifest, ``manifest.json``.
        include: Digests of the instances to write, None for all. See `select`.
        omit: Digests of manifests and blobs not to write.

    Returns:
        The reference, ``dir:PATH``.
    """
    manifests, blobs = select(top, include, omit)
    path.mkdir(parents=True, exist_ok=True)
    for digest, built in manifests.items():
        name = "manifest.json" if built is top else f"{_plain(digest)}.manifest.json"
        (path / name).write_bytes(built.raw)
    for digest, data in blobs.items():
        (path / _plain(digest)).write_bytes(data)
    only_sha256 = all(digest.startswith("sha256:") for digest in (*manifests, *blobs))
    version = "1.1" if only_sha256 else "1.2"
    (path / "version").write_text(f"Directory Transport Version: {version}\n")
    return f"dir:{path}"


def _plain(digest: Digest) -> str:
    """A digest in a file name of ``dir:``: hex digits for sha256, else ``ALGORITHM-HEX``."""
    if digest.algorithm == "sha256":
        return digest.encoded
    return f"{digest.algorithm}-{digest.encoded}"


def _add_entry(file: Path, top: Built, name: str | None) -> None:
    document: dict[str, Any] = {"schemaVersion": 2, "manifests": []}
    if file.exists():
        document = json.loads(file.read_bytes())
    entry = describe(top)
    if name is not None:
        entry["annotations"] = {REF_NAME: name}
    kept = [other for other in document["manifests"] if name is None or _name(other) != name]
    document["manifests"] = [*kept, entry]
    file.write_text(json.dumps(document, indent=2))


def _name(entry: dict[str, Any]) -> str | None:
    name: str | None = entry.get("annotations", {}).get(REF_NAME)
    return name
