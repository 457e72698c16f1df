"""Every cap of the library, each a named constant with its reason.

Sizes are bytes and times are seconds unless a name says otherwise. A cap is the largest value
that still passes: one more is refused with `asupplemented.errors.LimitExceededError`.
"""

from __future__ import annotations

from typing import Final

__all__ = (
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
    "MAX_MANIFEST",
    "MAX_MANIFESTS_TOTAL",
    "MAX_NESTING",
    "MAX_READ_AHEAD",
    "MAX_REDIRECTS",
    "MAX_SIGNATURE",
    "MAX_SIGNATURES",
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
"""Queue entries in one resolution: lists may name the same instances again and again."""

MAX_NESTING: Final = 8
"""Lists within lists; real ones stop at two (rule X-15)."""

MAX_MANIFESTS_TOTAL: Final = 256 * MIB
"""All manifests of one resolution together (rule X-15)."""

MAX_READ_AHEAD: Final = 64 * MIB
"""Manifests fetched ahead of serial order and not yet committed."""

MAX_JSON_DEPTH: Final = 64
"""Nesting of JSON documents: manifests need six (rule SEC-06)."""

MAX_TOKEN_BODY: Final = 1 * MIB
"""The answer of a token server."""

MAX_ERROR_BODY: Final = 64 * KIB
"""The body of an error answer (rule ERR-09)."""

MAX_AUTH_FILE: Final = 1 * MIB
"""A file of credentials; clusters, which hand them out as secrets, have the same cap."""

MAX_HELPER_OUTPUT: Final = 1 * MIB
"""What a credential helper may print (rule HELP-03)."""

MAX_REDIRECTS: Final = 10
"""Hops of one request; the eleventh is refused (rule REDIR-04)."""

MAX_BLOB: Final = 10 * GIB
"""A blob whose size nobody announced (rule BLOB-05)."""

SMALL_BLOB: Final = 4 * MIB
"""Blobs up to this are fetched whole and verified before their first byte is handed out."""

BLOCK: Final = 1 * MIB
"""One read of a file: large enough that the hop to a thread is cheap."""

CHUNK_MAX: Final = 1 * MIB
"""The largest chunk that a stream hands out."""

OFFLOAD_BYTES: Final = 256 * KIB
"""Work on more bytes than this (hash, decode) leaves the event loop for a thread."""
