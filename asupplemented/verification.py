"""Manifests as sources give them, verified."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from asupplemented.abc import RawManifest
from asupplemented.errors import (
    LimitExceededError,
    ManifestError,
    SizeMismatchError,
    SupplementedError,
)
from asupplemented.limits import MAX_MANIFEST
from asupplemented.model.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asupplemented.abc import Batched
    from asupplemented.model.digest import Digest

__all__ = ("fetch_batch", "verify_and_parse", "verify_manifest")


def verify_manifest(raw: RawManifest, expected: Digest | None, size: int | None) -> Manifest:
    """A manifest that is what its digest names.

    Args:
        raw: As a source gave it.
        expected: The digest that named it, None if nothing did.
        size: The bytes that it was promised to have, None if nobody promised.

    Raises:
        LimitExceededError: It is larger than ``MAX_MANIFEST``.
        VerificationError: It is not what was named.
        ManifestError: It is no manifest.
    """
    actual = len(raw.raw)
    if actual > MAX_MANIFEST:
        message = f"the manifest exceeded maximum allowed size of {MAX_MANIFEST} bytes"
        raise LimitExceededError(message, limit=MAX_MANIFEST)
    if size is not None and actual != size:
        message = f"the manifest has {actual} bytes where {size} were promised"
        raise SizeMismatchError(message, expected=size, actual=actual)
    return Manifest.verified(raw.raw, raw.media_type, expected)


def verify_and_parse(raw: RawManifest, expected: Digest | None, size: int | None) -> Manifest:
    """The same, and parsed as well while we are off the event loop. Blocking."""
    manifest = verify_manifest(raw, expected, size)
    with suppress(ManifestError):  # Whoever parses it will hear.
        manifest.parse()
    return manifest


def fetch_batch(
    adapter: Batched, instances: Sequence[Digest]
) -> list[Manifest | SupplementedError]:
    """Read many manifests, and verify and parse each; one outcome for each. Blocking."""
    outcomes: list[Manifest | SupplementedError] = []
    for digest, raw in zip(instances, adapter.fetch_manifests(instances), strict=True):
        try:
            outcomes.append(
                verify_and_parse(raw, digest, None) if isinstance(raw, RawManifest) else raw
            )
        except SupplementedError as error:
            outcomes.append(error)
    return outcomes
