"""What can be set about registries, and every cap of section 0 of the rulebook in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol

from asupplemented.abc import ResourceKey
from asupplemented.aio.retry import RetryPolicy
from asupplemented.limits import (
    CHUNK_MAX,
    KIB,
    MAX_ERROR_BODY,
    MAX_MANIFEST,
    MAX_REDIRECTS,
    MAX_TOKEN_BODY,
    MIB,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from asupplemented.hostconfig.paths import ConfigurationPaths
    from asupplemented.hostconfig.proxies import Proxies
    from asupplemented.model.name import ImageName

__all__ = ("OPTIONS", "RegistryLimits", "RegistryOptions", "SignaturePlaces")


class SignaturePlaces(Protocol):
    """Knows where the signatures of images are kept, apart from the extension of a registry."""

    def find_url(self, name: ImageName) -> str | None:
        """A URL (file, http or https) under which signatures lie, None for none (rule SIG-05).

        Raises:
            ConfigurationError: What is configured is no such URL.
        """
        ...

    def uses_attachments(self, name: ImageName) -> bool:
        """Whether signatures are attached to images in the registry itself (rule SIG-06)."""
        ...


@dataclass(frozen=True, slots=True)
class RegistryLimits:
    """Caps; each is the largest value that still passes. Bytes and seconds."""

    manifest: int = MAX_MANIFEST
    token_body: int = MAX_TOKEN_BODY
    error_body: int = MAX_ERROR_BODY
    header: int = 32 * KIB
    """One header field, or the status line: pre-signed locations are long (rule TLS-08)."""
    redirects: int = MAX_REDIRECTS
    bodies: int = 6
    """Blobs read at the same time from one registry by one identity (rule RET-07)."""
    chunk: int = CHUNK_MAX
    """Bytes of a blob handed on at once."""
    pages: int = 10_000
    """Pages of one list of tags or referrers (rule TAG-01)."""
    listing: int = 32 * MIB
    """All pages of one list together; old registries send a list as one page."""
    parts: int = 256
    """Ranges of a blob in one request: servers take no longer headers."""
    attachments: int = 1024
    """Signatures of one manifest that are attached to it in the registry (rule SIG-06)."""
    attached: int = 64 * MIB
    """All those signatures together."""
    external_urls: int = 8
    """URLs of a blob that are tried."""
    discard: int = 64 * MIB
    """Bytes passed over where a server sends the whole for a range (rule RES-06)."""
    token_life: float = 24 * 60 * 60
    """A token is renewed after that, whatever its server says (rule TOK-04)."""
    mirror: float | None = 30.0
    """A mirror has so long to begin with a manifest before the next place is asked (rule
    CONF-16); None for as long as a registry. See ``Timeouts`` for that."""
    head_start: float = 0.3
    """Where TLS is not verified, https has so long to answer before http is asked too."""
    keep_alive: float = 90.0
    """An idle connection is kept for that long."""
    idle_clients: int = 64
    """Registries that are remembered (tokens, scheme) while no source uses them."""


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """Settings of all registries of a session: ``Session(settings=[RegistryOptions(...)])``."""

    limits: RegistryLimits = field(default_factory=RegistryLimits)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """Patience with what precedes a body (rule RET-06)."""
    haste: RetryPolicy = field(default_factory=partial(RetryPolicy, 2, 0.5, 2.0, 5.0))
    """The same while other members are fit to serve the same blob; once they have failed too, this
    registry is asked again with all patience."""
    token_servers: Mapping[str, Collection[str]] = field(
        default_factory=dict[str, "Collection[str]"], hash=False
    )
    """Registry (``host[:port]``) to origins (``https://host[:port]``) that may be told its
    credentials, besides the registry itself and its own site (rule CRED-02)."""
    private_targets: bool = False
    """Follow redirects, and realms, to addresses more private than the registry's own
    (rule SEC-01)."""
    tag_and_digest: Literal["digest", "refuse"] = "digest"
    """A reference with tag and digest is read by its digest, or refused (rule REF-11)."""
    allow_external_urls: bool = False
    """Read blobs that must not be distributed from the URLs in their descriptors, if the
    registry does not hold them (rule BLOB-02)."""
    configuration: ConfigurationPaths | None = None
    """Files that say where images are (mirrors, certificates, lookaside signatures), read when
    the first reference is opened; None reads none. ``ConfigurationPaths.default(os.environ)``
    are those of other programs."""
    proxies: Proxies | None = None
    """What leads to registries, and to where they send us; None reaches all directly.
    ``Proxies.from_environment(os.environ)`` are the usual ones (rule TLS-07)."""
    signature_places: SignaturePlaces | None = None
    """Where signatures are that lie beside the registry; None for where `configuration` says."""
    user_agent: str | None = None
    """None for the name and version of this library."""

    @property
    def key(self) -> ResourceKey[RegistryOptions]:
        """Options are given to a session among its settings."""
        return OPTIONS


OPTIONS: Final = ResourceKey["RegistryOptions"]("registry options")
"""The options of a session: those among its settings, else those that are made first."""
