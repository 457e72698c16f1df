"""What a system says about registries: mirrors, short names, certificates, signatures, proxies.

Nothing here talks to a registry, and nothing here is asynchronous. Functions that read files
block, and are called in a worker thread; all others are pure. What was read is a frozen value.

`paths` says where files are, `documents` reads them, never more than a cap. On these stand
`registries` (registries.conf, with `fragments`, `tables`, `candidates` and `aliases`),
`short_names`, `certificates` (certs.d), and `lookaside` (registries.d). `proxies` reads an
environment, and no file.
"""

from __future__ import annotations

from asupplemented.hostconfig.certificates import (
    Certificates,
    find_directory,
    make_context,
    read_certificates,
)
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.hostconfig.proxies import Proxies
from asupplemented.hostconfig.registries import (
    Candidate,
    Registries,
    RegistriesCache,
    join_failures,
)
from asupplemented.hostconfig.registries_conf import load_aliases
from asupplemented.hostconfig.registries_d import Lookaside
from asupplemented.hostconfig.short_names import (
    is_short_name,
    resolve_short_name,
)

__all__ = (
    "Candidate",
    "Certificates",
    "ConfigurationPaths",
    "Lookaside",
    "Proxies",
    "Registries",
    "RegistriesCache",
    "find_directory",
    "is_short_name",
    "join_failures",
    "load_aliases",
    "make_context",
    "read_certificates",
    "resolve_short_name",
)
