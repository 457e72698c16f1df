"""What hooks and progress callbacks are told: frozen values, one class per thing that happens.

A hook is any callable that takes one `Event`; see `asupplemented.abc.Hook`. Events carry no
secret: URLs come without query, user and password. A progress callback takes one `CopyProgress`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.digest import Digest

__all__ = (
    "AttemptFailed",
    "BlobAdvanced",
    "BlobCopied",
    "BlobEvicted",
    "BlobFinished",
    "BlobJoined",
    "BlobReused",
    "BlobServed",
    "BlobStarted",
    "CacheUse",
    "CopyPlanned",
    "CopyProgress",
    "Event",
    "ManifestFetched",
    "PrefetchReport",
    "RateLimitTold",
    "RequestRetried",
    "RequestServed",
    "ResolutionFinished",
    "Route",
    "UpstreamResponded",
    "Warned",
)

CacheUse: TypeAlias = Literal["hit", "miss", "joined", "stale", ""]
"""Where a manifest or a blob came from.

"hit": from the cache, or from memory. "miss": it was fetched for this reader. "joined": another
reader fetches it, and this one follows. "stale": as a hit, because upstream failed. "": none of
these, such as a file of a local source.
"""

Route: TypeAlias = Literal["base", "manifest", "blob", "tags", "referrers", "other"]
"""What a request to the registry endpoint asks for; "other" is refused unread."""


class ManifestFetched(NamedTuple):
    """A source answered for a manifest, and the bytes were verified."""

    reference: str
    """The reference of the source, as text."""
    digest: str
    """What the manifest is indexed under."""
    size: int
    """Bytes."""
    seconds: float
    """Seconds from asking to verified; a batch reports its own time for each of its manifests."""
    cached: bool = False
    """Whether it came from the cache, and the source was not asked."""


class BlobStarted(NamedTuple):
    """A candidate answered and the body of a blob begins."""

    reference: str
    """The reference of the source that serves it."""
    digest: str
    """Digest of the blob."""
    start: int
    """Offset of the first byte, from 0."""
    member: int | None
    """Member number within a group, None outside of one."""
    cached: bool = False
    """Whether it is read from the cache."""


class BlobJoined(NamedTuple):
    """A reader follows a fetch of a blob that is under way, in place of one of its own."""

    reference: str
    """The reference of the source that the fetch reads now."""
    digest: str
    """Digest of the blob."""
    fetched: int
    """Bytes that had come by then."""


class BlobServed(NamedTuple):
    """A candidate served a part of a blob, or all of it, and has ended."""

    reference: str
    """The reference of the source that served it."""
    digest: str
    """Digest of the blob."""
    start: int
    """Offset of the first byte."""
    end: int
    """Offset behind the last byte."""
    member: int | None
    """Member number of the source, None outside of a group."""
    cached: bool = False
    """Whether it came from the cache, or from another process that fetches for the cache."""


class AttemptFailed(NamedTuple):
    """A candidate did not serve a blob, or not to its end; others are asked, if there are any."""

    reference: str
    """The source that failed, as text."""
    digest: str
    """Digest of the blob."""
    member: int | None
    """Member number of the source, None outside of a group."""
    error: str
    """Name of the error class."""
    message: str
    """What happened, in words."""


class BlobFinished(NamedTuple):
    """A stream that a caller read ended, whole or not. What streams share is told by `BlobServed`.

    The bytes of a blob whose file was taken in place of them (`BlobStream.take_path`) count too.
    """

    reference: str
    """The source that served last, as text."""
    digest: str
    """Digest of the blob."""
    start: int
    """Offset of the first byte that was asked for."""
    received: int
    """Bytes handed out."""
    member: int | None
    """Member number of the source that served last, None outside of a group."""
    verified: bool
    """True only if the whole blob was read and its digest is right."""
    error: str | None
    """Name of the error class that ended it, None for a clean end or an early close."""
    cached: bool = False
    """Whether its last bytes came from the cache."""


class RateLimitTold(NamedTuple):
    """A registry said how much it still allows, and said otherwise before (rule RET-09).

    That is its claim. It is about the identity that asked: other
    principals and credentials have limits of their own.
    """

    reference: str
    """The reference that was asked for."""
    registry: str
    """``host[:port]``, as in references."""
    limit: int | None
    """Requests in a window. Each of these is None if the registry did not say it clearly."""
    remaining: int | None
    """What is left of them."""
    window: int | None
    """Its length in seconds."""


class RequestRetried(NamedTuple):
    """A request is sent again after a pause, or with other credentials."""

    reference: str
    """The reference that the request is for, as text."""
    reason: str
    """Short and stable: a status ("429"), or the name of the error class."""
    attempt: int
    """Number of the attempt that failed, from 1."""
    delay: float
    """Seconds until the next one."""


class UpstreamResponded(NamedTuple):
    """A registry answered a request, or did not.

    There is one for each request that was sent: pings, tokens, redirects and retries included.
    """

    registry: str
    """The registry that it was for, ``host[:port]`` as in references; see `origin`."""
    method: str
    """The HTTP method."""
    status: int | None
    """None if there was no response."""
    seconds: float
    """From the beginning of the request to the head of its response, or to its failure."""
    error: str | None
    """Name of the error class; None for a response, and for a request that was given up."""
    origin: str = ""
    """The server that was asked: ``https://host:port``, perhaps one that a redirect led to."""


class BlobEvicted(NamedTuple):
    """A cache removed a blob or a manifest to make room."""

    digest: str
    """Digest of the blob or manifest."""
    size: int
    """Bytes."""
    seconds_unused: float | None
    """Since it was last read or added, None if that is unknown."""


class RequestServed(NamedTuple):
    """The registry endpoint answered a request, or cut its answer. There is one for each request.

    Method, name and reference are what the client sent: they may be anything.
    """

    method: str
    """The HTTP method."""
    route: Route
    """What was asked for."""
    registry: str | None
    """The registry that the client named, None if it named none, or one without such a name."""
    name: str | None
    """The repository."""
    reference: str | None
    """Tag or digest."""
    status: int
    """The HTTP status; 499 if the client left before there was one."""
    sent: int
    """Bytes of the body."""
    seconds: float
    """From the request to the end of its answer."""
    first_byte: float | None
    """Seconds from the request to the first byte of the body, None if none was sent."""
    source: str | None
    """The reference of the source that served the last bytes, as text."""
    cache: CacheUse
    """For manifests and blobs that were found; "" for all else."""
    principal: str | None
    """The client, if it was authenticated."""
    client: str | None
    """The address of the client."""
    complete: bool
    """False if the answer was cut, or the client left."""
    error: str | None
    """Name of the error class that the client was answered with, or that cut the answer."""
    scheme: str = "http"
    """"http" or "https"."""


class ResolutionFinished(NamedTuple):
    """A group was resolved, or failed to be."""

    reference: str
    """The group, as text."""
    manifests: int
    """Manifests committed."""
    fetches: int
    """Fetches made, those that were not needed in the end included."""
    seconds: float
    """Seconds of wall time."""
    error: str | None
    """Name of the error class, None for success."""


class Warned(NamedTuple):
    """Something that works but that the operator should know."""

    reference: str
    """What it is about, as text; "" for the session as a whole."""
    message: str
    """A sentence for people."""


Event: TypeAlias = (
    ManifestFetched
    | BlobStarted
    | BlobJoined
    | BlobServed
    | AttemptFailed
    | BlobFinished
    | RateLimitTold
    | RequestRetried
    | UpstreamResponded
    | BlobEvicted
    | RequestServed
    | ResolutionFinished
    | Warned
)


class CopyPlanned(NamedTuple):
    """All manifests were read: this is what the copy consists of."""

    manifests: int
    """Number of manifests to write."""
    blobs: int
    """Number of blobs."""
    bytes: int | None
    """Of all blobs; None if a manifest does not tell the size of one."""


class BlobAdvanced(NamedTuple):
    """A blob is on its way."""

    blob: Descriptor
    """The blob."""
    received: int
    """Bytes so far; 0 when a source has answered."""


class BlobCopied(NamedTuple):
    """A blob is in the destination, verified."""

    blob: Descriptor
    """The blob."""
    size: int
    """Bytes of it."""
    member: int | None
    """The member of a group that served its end, None outside of a group."""


class BlobReused(NamedTuple):
    """A blob was in the destination before."""

    blob: Descriptor
    """The blob."""


CopyProgress: TypeAlias = CopyPlanned | BlobAdvanced | BlobCopied | BlobReused


class PrefetchReport(NamedTuple):
    """What a prefetch did."""

    digest: Digest
    """Of the top manifest."""
    manifests: int
    """Manifests that are in the cache now, or will be in a moment."""
    blobs: int
    """Blobs that were fetched."""
    bytes: int
    """Of these blobs."""
    reused_blobs: int
    """Blobs that were there before, whole and right: in the cache, or in local files."""
    missing: tuple[str, ...]
    """Manifests and blobs that no source supplied."""
    seconds: float
    """Seconds of wall time."""
    kept: tuple[Digest, ...] = ()
    """Manifests and blobs of the image that the cache holds now."""
    not_kept: tuple[Digest, ...] = ()
    """Those that it does not hold, although it should: it has no room for them, or failed.

    Blobs that files of local members hold are in neither of the two: they are on this machine.
    """
