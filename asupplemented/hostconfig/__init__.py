"""Configuration of registries on this host: the files that podman and skopeo read. No network.

Functions that read files are asynchronous, parsers are pure, and all results are frozen values.

- `paths`: where the files are.
- `documents`: reads one file within a cap, lists directories, checks keys.
- `registries_conf`: parses one registries.conf; `registries` merges all of them and gives the
  locations of an image.
- `short_names`: resolves names without a registry.
- `certificates`: certs.d.
- `registries_d`: registries.d, where signatures outside of registries are.
- `proxies`: proxy variables of an environment.
"""

from __future__ import annotations

from asupplemented.hostconfig.certificates import (
    Certificates,
    find_directory,
    get_context,
    make_context,
    read_certificates,
)
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.hostconfig.proxies import Proxies
from asupplemented.hostconfig.registries import (
    ImageLocation,
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
    "Certificates",
    "ConfigurationPaths",
    "ImageLocation",
    "Lookaside",
    "Proxies",
    "Registries",
    "RegistriesCache",
    "find_directory",
    "get_context",
    "is_short_name",
    "join_failures",
    "load_aliases",
    "make_context",
    "read_certificates",
    "resolve_short_name",
)
