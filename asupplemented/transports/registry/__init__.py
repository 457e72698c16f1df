"""Images in registries, read over HTTP: the transport ``docker:``.

The modules are in five layers, from the bottom up: values, headers and bodies without I/O
(``wire``); one request and its response (``http``); one registry as one identity (``client``);
what a registry can be asked for (``endpoints``); an image in one place or in several
(``adapter``). A module imports from its own layer and from lower ones, for types as well;
``tests/test_layers.py`` reads this table::

    wire: addresses, byteranges, challenge, endpoint, error_response, options, redaction
    http: bodies, connections, failures, redirects, request, takeover
    client: auth, client, notices, ping, pool, tokens
    endpoints: blobs, documents, listing, parts, referrers, signatures, sigstore_files
    adapter: adapter, host_config, mirrors, reference
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
