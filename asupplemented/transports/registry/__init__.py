"""Images in registries, read over HTTP: the transport ``docker:``.

From the inside out: values and decisions without I/O (`addresses`, `answers`, `challenge`,
`multipart`, `ranges`, `redirects`, `tokens`, `options`), what one request takes (`connections`,
`faults`, `bodies`, `courier`), what a registry takes (`ping`, `token_server`, `access`,
`notices`, `limiter`, `client`, `pool`), what one can ask it for (`letters`, `pages`, `tags`,
`referrers`, `signatures` with `lookaside`, `blob` with `external`, `parts` with `feeds`), and the
face (`source`, `reference`).
"""

from __future__ import annotations

from asupplemented.transports.registry.options import (
    OPTIONS,
    RegistryLimits,
    RegistryOptions,
    SignaturePlaces,
)
from asupplemented.transports.registry.reference import RegistryReference

__all__ = ("OPTIONS", "RegistryLimits", "RegistryOptions", "RegistryReference", "SignaturePlaces")
