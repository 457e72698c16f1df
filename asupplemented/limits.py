"""All limits of the library, with their reasons.

Sizes are bytes unless a name says otherwise. A limit is the largest value that is allowed; a larger
one raises `asupplemented.errors.LimitExceededError`.
"""

from __future__ import annotations

from typing import Final

__all__ = (
    "BLOBS_AT_ONCE",
    "BLOB_BYTES_AT_ONCE",
    "BLOCK",
    "CHUNK_MAX",
    "MAX_AUTH_FILE",
    "MAX_BLOB",
    "MAX_CONFIG",
    "MAX_ENTRIES",
    "MAX_ERROR_BODY",
    "MAX_HELPER_OUTPUT",
    "MAX_INSTANCES",
    "MAX_JSON_DEPTH",
    "MAX_JSON_VALUES",
    "MAX_LAYERS",
    "MAX_MANIFEST",
    "MAX_MANIFESTS_TOTAL",
    "MAX_NESTING",
    "MAX_READ_AHEAD",
    "MAX_REDIRECTS",
    "MAX_RESOLVED",
    "MAX_SIGNATURE",
    "MAX_SIGNATURES",
    "MAX_SPOOLED",
    "MAX_TOKEN_BODY",
    "OFFLOAD_BYTES",
    "SMALL_BLOB",
)

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

MAX_MANIFEST: Final = 4 * MIB
"""One manifest, index, or ``index.json``: what every registry accepts (rules L-01, L-03)."""

MAX_CONFIG: Final = 4 * MIB
"""One config blob read into memory (rule I-03)."""

MAX_SIGNATURE: Final = 4 * MIB
"""One signature, or one list of them (rules L-01, L-03)."""

MAX_SIGNATURES: Final = 127
"""Signatures of one manifest, stored as numbered files (rule SIG-02)."""

MAX_INSTANCES: Final = 20_000
"""Distinct manifests in one group: far above any real index, far below what hurts (rule X-15)."""

MAX_ENTRIES: Final = 10 * MAX_INSTANCES
"""Queue entries in one resolution: lists may name the same instance repeatedly."""

MAX_NESTING: Final = 8
"""Nesting of indexes; real ones nest two levels deep (rule X-15)."""

MAX_MANIFESTS_TOTAL: Final = 256 * MIB
"""All manifests of one resolution together (rule X-15)."""

MAX_READ_AHEAD: Final = 64 * MIB
"""Manifests in flight, by the sizes in their descriptors, and those that wait for serial order."""

MAX_RESOLVED: Final = 224 * MIB
"""Memory that the descriptors of one resolution take, as they are weighed (rule X-17)."""

MAX_LAYERS: Final = 10_000
"""Layers of one manifest; runtimes mount at most 127 (rule L-04)."""

MAX_JSON_VALUES: Final = 500_000
"""Values of one JSON document; 4 MiB of real manifests hold less than half of that (rule L-04)."""

MAX_JSON_DEPTH: Final = 64
"""Nesting of JSON documents: manifests need six (rule SEC-06)."""

MAX_TOKEN_BODY: Final = 1 * MIB
"""The response of a token server."""

MAX_ERROR_BODY: Final = 64 * KIB
"""The body of an error response (rule ERR-09)."""

MAX_AUTH_FILE: Final = 1 * MIB
"""An auth file; Kubernetes secrets have the same limit."""

MAX_HELPER_OUTPUT: Final = 1 * MIB
"""The output of a credential helper (rule HELP-03)."""

MAX_REDIRECTS: Final = 10
"""Redirects of one request; the eleventh is refused (rule REDIR-04)."""

MAX_BLOB: Final = 10 * GIB
"""A blob of unknown size (rule BLOB-05)."""

MAX_SPOOLED: Final = 64 * MIB
"""Blobs that readers of a session share and that lie in memory; what exceeds it goes to files."""

SMALL_BLOB: Final = 4 * MIB
"""Blobs up to this size are fetched whole and verified before the first byte is returned."""

BLOBS_AT_ONCE: Final = 64
"""Blobs that are read at the same time, if they are small (rules SR-04, RET-07)."""

BLOB_BYTES_AT_ONCE: Final = 6 * SMALL_BLOB
"""Their bytes, of each at most ``SMALL_BLOB``: six large blobs, as in the Go package."""

BLOCK: Final = 1 * MIB
"""One read of a file: large enough to make the hop to a thread cheap."""

CHUNK_MAX: Final = 1 * MIB
"""The largest chunk that a stream yields."""

OFFLOAD_BYTES: Final = 256 * KIB
"""Hashing or decoding more bytes than this happens in a thread."""
