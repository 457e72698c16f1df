"""Real images: umoci makes them of a root file system with busybox, one for each platform."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asupplemented.model.digest import Digest
from asupplemented.model.media_type import OCI_INDEX
from tests.interop.programs import Umoci, find
from tests.interop.reading import Contents

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PLATFORMS: Final = ("linux/amd64", "linux/arm64", "linux/arm/v7")
"""In the order of the index. What runs there is this machine's busybox: nobody starts it."""

HELD, *LOST = PLATFORMS
"""What a registry with holes still has of the family, and what it lost."""

INDEX: Final = "all"
REF_NAME: Final = "org.opencontainers.image.ref.name"

Tree = dict[str, tuple[int, bytes]]
"""Path to mode and content; the content of a link is its target, that of a directory empty."""


@dataclass(frozen=True)
class Image:
    """One image of the family."""

    tag: str
    descriptor: dict[str, Any]
    """Its entry in the index."""
    raw: bytes
    tree: Tree
    """What its root file system is."""

    @property
    def digest(self) -> Digest:
        return Digest(self.descriptor["digest"])

    @property
    def blobs(self) -> dict[str, int]:
        """Digest to size: the config, then the layers."""
        document = json.loads(self.raw)
        return {blob["digest"]: blob["size"] for blob in (document["config"], *document["layers"])}


@dataclass(frozen=True)
class Family:
    """A layout by umoci: an image per platform, each tagged, and our index over them, ``all``.

    The images share their lowest layer. The layer above adds a file that names the platform,
    changes one, and removes one.
    """

    layout: Path
    images: Mapping[str, Image]
    """By platform."""
    index: bytes

    @property
    def digest(self) -> Digest:
        """Of the index."""
        return Digest.of(self.index)

    def reference(self, platform: str | None = None) -> str:
        """``oci:`` for the image of a platform, None for the index."""
        tag = INDEX if platform is None else self.images[platform].tag
        return f"oci:{self.layout}:{tag}"

    def config(self, platform: str) -> Digest:
        """The digest of the config of the image for a platform."""
        return Digest(json.loads(self.images[platform].raw)["config"]["digest"])

    def contents(self, platform: str | None = None) -> Contents:
        """What is to be read there."""
        images = list(self.images.values()) if platform is None else [self.images[platform]]
        manifests: dict[str, bytes] = {} if platform else {self.digest: self.index}
        manifests |= {image.digest: image.raw for image in images}
        return Contents(manifests, {d: n for image in images for d, n in image.blobs.items()})


def build_family(directory: Path, umoci: Umoci) -> Family:
    """Make the family in a new directory."""
    directory.mkdir()
    layout = directory / "layout"
    base = _build_base(directory / "base")
    umoci("init", f"--layout={layout}")
    umoci("new", f"--image={layout}:base")
    umoci("insert", "--rootless", f"--image={layout}:base", str(base), "/")
    images = {platform: _build_image(directory, layout, platform, umoci) for platform in PLATFORMS}
    umoci("remove", f"--image={layout}:base")
    umoci("gc", f"--layout={layout}")
    index = _dump(
        {
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": [image.descriptor for image in images.values()],
        }
    )
    family = Family(layout, images, index)
    write_blob(layout, index)
    add_entry(layout, family.digest, index, INDEX, media_type=OCI_INDEX)
    return family


def _build_base(root: Path) -> Path:
    for name in ("bin", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    shutil.copy(find("busybox"), root / "bin" / "busybox")
    (root / "bin" / "sh").symlink_to("busybox")
    (root / "bin" / "cat").hardlink_to(root / "bin" / "busybox")
    (root / "etc" / "motd").write_text("a root file system\n")
    (root / "etc" / "scratch").write_text("for the layer above to remove\n")
    (root / "tmp").chmod(0o1777)
    return root


def _build_image(directory: Path, layout: Path, platform: str, umoci: Umoci) -> Image:
    os_name, architecture, *variant = platform.split("/")
    tag = "-".join([architecture, *variant])
    image = f"{layout}:{tag}"
    umoci("tag", f"--image={layout}:base", tag)
    umoci(
        "config",
        f"--image={image}",
        f"--os={os_name}",
        f"--architecture={architecture}",
        "--config.cmd=/bin/sh",
        f"--config.label=org.example.platform={platform}",
    )
    bundle = directory / tag
    root = umoci.unpack(image, bundle)
    (root / "etc" / "platform").write_text(f"{platform}\n")
    (root / "etc" / "motd").write_text(f"a root file system for {platform}\n")
    (root / "etc" / "scratch").unlink()
    umoci("repack", f"--image={image}", str(bundle))
    entry = find_entry(layout, tag)
    known = {key: entry[key] for key in ("mediaType", "digest", "size")}
    platform_of = {"architecture": architecture, "os": os_name}
    if variant:
        platform_of["variant"] = variant[0]
    raw = read_blob(layout, Digest(entry["digest"]))
    return Image(tag, known | {"platform": platform_of}, raw, read_tree(root))


# Layouts, read and written by hand: what the tests say must not depend on what they test.


def read_index(layout: Path) -> dict[str, Any]:
    """The document ``index.json``."""
    document: dict[str, Any] = json.loads((layout / "index.json").read_bytes())
    return document


def find_entry(layout: Path, name: str) -> dict[str, Any]:
    """The one entry of ``index.json`` that has a name."""
    [entry] = [
        entry
        for entry in read_index(layout)["manifests"]
        if entry.get("annotations", {}).get(REF_NAME) == name
    ]
    found: dict[str, Any] = entry
    return found


def add_entry(layout: Path, digest: Digest, raw: bytes, name: str, *, media_type: str) -> None:
    """Name a manifest that lies in a layout."""
    document = read_index(layout)
    entry = {"mediaType": media_type, "digest": digest, "size": len(raw)}
    document["manifests"].append(entry | {"annotations": {REF_NAME: name}})
    (layout / "index.json").write_bytes(_dump(document))


def read_blob(layout: Path, digest: Digest) -> bytes:
    """The content of a file of a layout."""
    return (layout / "blobs" / digest.algorithm / digest.encoded).read_bytes()


def write_blob(layout: Path, content: bytes) -> None:
    """Put content into a layout."""
    digest = Digest.of(content)
    (layout / "blobs" / digest.algorithm / digest.encoded).write_bytes(content)


def read_tree(root: Path) -> Tree:
    """All that lies below a directory."""
    tree: Tree = {}
    for path in sorted(root.rglob("*")):
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            content = os.fsencode(path.readlink())
        else:
            content = path.read_bytes() if stat.S_ISREG(mode) else b""
        tree[str(path.relative_to(root))] = (mode, content)
    return tree


def _dump(document: object) -> bytes:
    return json.dumps(document, indent=2).encode()
