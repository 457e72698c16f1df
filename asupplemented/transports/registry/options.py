"""Settings of registries, with every cap (`RegistryLimits`) and its default."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol

from asupplemented.abc import ResourceKey
from asupplemented.aio.retry import RetryPolicy
from asupplemented.errors import ConfigurationError
from asupplemented.limits import (
    BLOB_BYTES_AT_ONCE,
    BLOBS_AT_ONCE,
    CHUNK_MAX,
    KIB,
    MAX_ERROR_BODY,
    MAX_MANIFEST,
    MAX_REDIRECTS,
    MAX_TOKEN_BODY,
    MIB,
)
from asupplemented.transports.registry.addresses import Origin, parse_origin

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from asupplemented.hostconfig.paths import ConfigurationPaths
    from asupplemented.hostconfig.proxies import Proxies
    from asupplemented.model.name import ImageName

__all__ = ("OPTIONS", "RegistryLimits", "RegistryOptions", "SignaturePlaces")

_DOCKER_HUB: Final = "docker.io"
_DOCKER_HUB_TOKENS: Final = Origin("https", "auth.docker.io", 443)


class SignaturePlaces(Protocol):
    """Says where signatures of images are kept, besides the extension of a registry."""

    def find_url(self, name: ImageName) -> str | None:
        """The URL (file, http or https) of the signatures of `name`, None for none (rule SIG-05).

        Raises:
            ConfigurationError: The configured value is not such a URL.
        """
        ...

    def uses_attachments(self, name: ImageName) -> bool:
        """Whether signatures of `name` are attached to it in the registry itself (rule SIG-06)."""
        ...


@dataclass(frozen=True, slots=True)
class RegistryLimits:
    """Caps; each is the largest value that still passes. Sizes are bytes, times are seconds.

    `redirects` is how many one request follows.
    """

    manifest: int = MAX_MANIFEST
    """One manifest."""
    token_body: int = MAX_TOKEN_BODY
    """The answer of a token server."""
    error_body: int = MAX_ERROR_BODY
    """What is read of an error."""
    header: int = 32 * KIB
    """One header field, or the status line; pre-signed locations are long (rule TLS-08)."""
    redirects: int = MAX_REDIRECTS
    bodies: int = BLOBS_AT_ONCE
    """Blobs read at the same time from one registry by one identity (rule RET-07), if they are
    small."""
    body_bytes: int = BLOB_BYTES_AT_ONCE
    """Bytes of these blobs together, where a blob counts as 4 MiB at most: so six large ones are
    read at the same time. While a registry is overloaded, it is less (rule RET-11)."""
    body_idle: float = 1.0
    """Seconds that a body may be left unread while others wait to be read, before it does not
    count among `bodies` any more. It does again when it is read on."""
    body_wait: float | None = 60.0
    """Seconds to wait until another body may be read; None for ever. Then the next source is
    asked."""
    chunk: int = CHUNK_MAX
    """Bytes of one chunk of a blob."""
    pages: int = 10_000
    """Pages of one list of tags or referrers (rule TAG-01)."""
    listing: int = 32 * MIB
    """All pages of one list together. Old registries send a list as one page."""
    tags: int = 500_000
    """Tags of one list (rule TAG-01)."""
    parts: int = 256
    """Ranges of a blob in one request; servers refuse longer headers."""
    attachments: int = 1024
    """Signatures attached to one manifest in the registry (rule SIG-06)."""
    attached: int = 64 * MIB
    """All those signatures together."""
    external_urls: int = 8
    """URLs of a blob that are tried."""
    discard: int = 64 * MIB
    """Bytes skipped if a server sends the whole blob for a range (rule RES-06)."""
    token_life: float = 24 * 60 * 60
    """A token is renewed after this time, whatever its server says (rule TOK-04)."""
    mirror: float | None = 30.0
    """Seconds that a mirror may take to send the first byte of a manifest, before the next one is
    tried (rule CONF-16); None to apply only the session's ``Timeouts``."""
    head_start: float = 0.3
    """Seconds before an insecure registry is tried over http as well as over https."""
    keep_alive: float = 90.0
    """Seconds that an idle connection is kept."""
    idle_clients: int = 64
    """Registries whose clients (scheme, tokens) are kept while no source uses them."""


@dataclass(frozen=True, slots=True)
class RegistryOptions:
    """Settings of all registries of a session: ``Session(settings=[RegistryOptions(...)])``."""

    limits: RegistryLimits = field(default_factory=RegistryLimits)
    """Caps on what registries send, and on what is open at the same time."""
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    """Retries of failures before a body (rule RET-06)."""
    haste: RetryPolicy = field(default_factory=partial(RetryPolicy, 2, 0.5, 2.0, 5.0))
    """Retries while other sources can serve the same blob. If they have failed too, this registry
    is asked again with `retry`."""
    token_servers: Mapping[str, Collection[str]] = field(
        default_factory=dict[str, "Collection[str]"], hash=False
    )
    """Maps a registry (``host[:port]``, or ``*`` for every registry) to the origins
    (``https://host[:port]``) that may get its credentials, besides those on its own host and site
    (rule CRED-02). They may have any address."""
    private_targets: bool = False
    """Follow redirects, and get tokens, at addresses more private than the registry's own
    (rule SEC-01)."""
    public_only: bool = False
    """Connect to public addresses only, for programs whose users name registries (rule SEC-01).
    Every address is checked when it is connected to: that of a registry, a mirror, a token server,
    a redirect, a signature server and an external URL. A proxy is exempt, and looks names up
    itself. It cannot be combined with a borrowed HTTP client, which connects in its own way."""
    tag_and_digest: Literal["digest", "refuse"] = "digest"
    """A reference with tag and digest is read by its digest, or refused (rule REF-11)."""
    allow_external_urls: bool = False
    """Read blobs that must not be distributed from the URLs in their descriptors, if the
    registry does not hold them (rule BLOB-02)."""
    configuration: ConfigurationPaths | None = None
    """Configuration files (mirrors, certificates, lookaside signatures), read when the first
    reference is opened; None reads none. ``ConfigurationPaths.default(os.environ)`` are the files
    of podman and skopeo."""
    proxies: Proxies | None = None
    """Proxies for registries, and for where they redirect; None connects directly.
    ``Proxies.from_environment(os.environ)`` reads the usual variables (rule TLS-07)."""
    signature_places: SignaturePlaces | None = None
    """Where signatures are kept beside the registry; None for where `configuration` says."""
    take_over: int | None = 8 * MIB
    """Bytes from which on a plain body of a blob is received without the parser of aiohttp, which
    costs less; None for never. The connection is closed after such a body. A borrowed HTTP client
    receives all bodies in its own way."""
    user_agent: str | None = None
    """The ``User-Agent`` header; None for the name and version of this library."""

    def __post_init__(self) -> None:
        for registry in self.token_servers:
            self.named_token_servers(registry)

    def named_token_servers(self, registry: str) -> frozenset[Origin]:
        """The origins that may get the credentials of a registry (rule CRED-02).

        Raises:
            ConfigurationError: One of `token_servers` is no origin.
        """
        named = {*self.token_servers.get(registry, ()), *self.token_servers.get("*", ())}
        try:
            origins = frozenset(map(parse_origin, named))
        except ValueError as error:
            message = f"one of token_servers for {registry} {error}"
            raise ConfigurationError(message) from None
        return origins | {_DOCKER_HUB_TOKENS} if registry == _DOCKER_HUB else origins

    @property
    def key(self) -> ResourceKey[RegistryOptions]:
        """The key of these options among the settings of a session."""
        return OPTIONS


OPTIONS: Final = ResourceKey["RegistryOptions"]("registry options")
"""The options of a session: from its settings, else the defaults."""
