"""Media types of manifests, configs and layers (rules MT), and guessing them (rules G)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asupplemented.errors import MalformedManifestError
from asupplemented.model.document import Document, convert, read, read_head

if TYPE_CHECKING:
    from asupplemented.model.document import Head, Reading

__all__ = (
    "ACCEPT",
    "DOCKER_CONFIG",
    "DOCKER_FOREIGN_LAYER",
    "DOCKER_FOREIGN_LAYER_GZIP",
    "DOCKER_LAYER",
    "DOCKER_LAYER_GZIP",
    "DOCKER_LAYER_ZSTD",
    "DOCKER_LIST",
    "DOCKER_MANIFEST",
    "DOCKER_SCHEMA1",
    "DOCKER_SCHEMA1_SIGNED",
    "DOCKER_TYPES",
    "KNOWN_MANIFESTS",
    "NON_DISTRIBUTABLE",
    "OCI_CONFIG",
    "OCI_EMPTY",
    "OCI_INDEX",
    "OCI_LAYER",
    "OCI_LAYER_GZIP",
    "OCI_LAYER_ZSTD",
    "OCI_MANIFEST",
    "OCI_NONDISTRIBUTABLE_LAYER",
    "OCI_NONDISTRIBUTABLE_LAYER_GZIP",
    "OCI_NONDISTRIBUTABLE_LAYER_ZSTD",
    "SCHEMA1",
    "guess",
    "guess_with_head",
    "is_declared",
    "is_index",
    "normalize",
)

DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER: Final = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP: Final = DOCKER_LAYER + ".gzip"
DOCKER_LAYER_ZSTD: Final = DOCKER_LAYER + ".zstd"
DOCKER_FOREIGN_LAYER: Final = "application/vnd.docker.image.rootfs.foreign.diff.tar"
DOCKER_FOREIGN_LAYER_GZIP: Final = DOCKER_FOREIGN_LAYER + ".gzip"

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"
OCI_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP: Final = OCI_LAYER + "+gzip"
OCI_LAYER_ZSTD: Final = OCI_LAYER + "+zstd"
OCI_NONDISTRIBUTABLE_LAYER: Final = "application/vnd.oci.image.layer.nondistributable.v1.tar"
OCI_NONDISTRIBUTABLE_LAYER_GZIP: Final = OCI_NONDISTRIBUTABLE_LAYER + "+gzip"
OCI_NONDISTRIBUTABLE_LAYER_ZSTD: Final = OCI_NONDISTRIBUTABLE_LAYER + "+zstd"

ACCEPT: Final = (
    OCI_MANIFEST,
    DOCKER_MANIFEST,
    DOCKER_SCHEMA1_SIGNED,
    DOCKER_SCHEMA1,
    DOCKER_LIST,
    OCI_INDEX,
)
"""What a registry is asked for, in this order (rule MT-03)."""

KNOWN_MANIFESTS: Final = frozenset(ACCEPT)
"""The six media types that a manifest can have here."""

SCHEMA1: Final = frozenset((DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED))
"""Manifests of Docker schema 1: read where they are found, never written to a layout."""

NON_DISTRIBUTABLE: Final = frozenset(
    (
        DOCKER_FOREIGN_LAYER,
        DOCKER_FOREIGN_LAYER_GZIP,
        OCI_NONDISTRIBUTABLE_LAYER,
        OCI_NONDISTRIBUTABLE_LAYER_GZIP,
        OCI_NONDISTRIBUTABLE_LAYER_ZSTD,
    )
)
"""Layers that registries do not serve: clients fetch them from the URLs of the descriptor."""

DOCKER_TYPES: Final = frozenset(
    (
        DOCKER_SCHEMA1,
        DOCKER_SCHEMA1_SIGNED,
        DOCKER_MANIFEST,
        DOCKER_LIST,
        DOCKER_CONFIG,
        DOCKER_LAYER,
        DOCKER_LAYER_GZIP,
        DOCKER_LAYER_ZSTD,
        DOCKER_FOREIGN_LAYER,
        DOCKER_FOREIGN_LAYER_GZIP,
    )
)
"""The only media types that may occur in a schema 2 manifest (rule P-06)."""


def is_index(media_type: str | None) -> bool:
    """Whether this is the type of an index or list, compared verbatim (rule MT-01)."""
    return media_type in (OCI_INDEX, DOCKER_LIST)


def normalize(media_type: str | None) -> str:
    """The type that a manifest is treated as (rule MT-02).

    Returns:
        One of the six known types as it is, and signed schema 1 for everything else.
    """
    return media_type if media_type in KNOWN_MANIFESTS else DOCKER_SCHEMA1_SIGNED


def guess(raw: bytes) -> str | None:
    """Guess the media type of a manifest from its bytes (rules G).

    Returns:
        None if there is no guess, or the bytes cannot be read (upstream: ""). A quirk of rule G-05:
        the answer can be a type that is none of the six, or no manifest's at all.
    """
    try:
        return guess_with_head(raw, read_head(raw))
    except MalformedManifestError:
        return None


def guess_with_head(raw: bytes, head: Head) -> str | None:
    """The same as `guess`, for a manifest whose head is read already.

    The content is read only if the head does not tell the type (rule G-05).

    Raises:
        MalformedManifestError: The content is needed and cannot be read.
    """
    if head.media_type in _TELLING:
        return head.media_type
    if head.schema_version == 1:
        return DOCKER_SCHEMA1_SIGNED if head.signed else DOCKER_SCHEMA1
    if head.schema_version != 2:  # noqa: PLR2004 - the version is the name of the thing
        return None
    return _guess_by_content(read(raw))


def is_declared(head: Head) -> bool:
    """Whether a document says of itself that it is a manifest of a type that is read here."""
    return head.media_type in _TELLING


_TELLING: Final = frozenset((DOCKER_MANIFEST, DOCKER_LIST, OCI_MANIFEST, OCI_INDEX))
"""Types that a document may claim for itself; schema 1 is told by its version (rule G-02)."""


def _guess_by_content(reading: Reading) -> str | None:
    try:
        document = convert(_part(reading))
    except MalformedManifestError:
        return None
    config_type = document.config.media_type if document.config is not None else None
    if config_type == OCI_CONFIG:
        return OCI_MANIFEST
    if config_type == DOCKER_CONFIG:
        return DOCKER_MANIFEST
    return (config_type or OCI_INDEX) if document.manifests else OCI_MANIFEST


def _part(reading: Reading) -> Reading:
    """The two fields that tell a manifest from an index (rule G-07: these must be right)."""
    if isinstance(reading, Document):
        return reading
    return {key: value for key, value in reading.items() if key in ("config", "manifests")}
