"""Images in registries, read over HTTP: the transport ``docker:``.

From the inside out: values and decisions without I/O (`addresses`, `answers`, `challenge`,
`multipart`, `ranges`, `redirects`, `tokens`, `options`, `route`), what one request takes
(`connections`, `faults`, `bodies`, `courier`), what a registry takes (`ping`, `token_server`,
`access`, `notices`, `limiter`, `client`, `pool`), what one can ask it for (`letters`, `pages`,
`tags`, `referrers`, `signatures` with `lookaside`, `blob` with `external`, `parts` with `feeds`),
where an image is (`configuration`, `system`), what reads it from there (`source`,
`mirrors`), and the face (`opening`, `reference`).
"""

from __future__ import annotations

from asupplemented.hostconfig import ConfigurationPaths, Proxies
from asupplemented.transports.registry.host_config import reload_configuration
from asupplemented.transports.registry.options import (
    OPTIONS,
    RegistryLimits,
    RegistryOptions,
    SignaturePlaces,
)
from asupplemented.transports.registry.reference import RegistryReference

__all__ = (
    "OPTIONS",
    "ConfigurationPaths",
    "Proxies",
    "RegistryLimits",
    "RegistryOptions",
    "RegistryReference",
    "SignaturePlaces",
    "reload_configuration",
)
