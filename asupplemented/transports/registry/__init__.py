"""Images in registries, read over HTTP: the transport ``docker:``.

From the inside out: values and decisions without I/O (`addresses`, `answers`, `challenge`,
`ranges`, `redirects`, `tokens`, `options`), what one request takes (`connections`, `faults`,
`bodies`, `courier`), what a registry takes (`ping`, `token_server`, `access`, `limiter`,
`client`, `pool`), and the face (`source`, `blob`, `reference`).
"""

from __future__ import annotations

from asupplemented.transports.registry.options import OPTIONS, RegistryLimits, RegistryOptions
from asupplemented.transports.registry.reference import RegistryReference

__all__ = ("OPTIONS", "RegistryLimits", "RegistryOptions", "RegistryReference")
