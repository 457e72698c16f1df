"""Signatures of manifests (rules SIG-01 to SIG-06).

Simple signatures come from the X-R-S-S extension of the registry, or from files beside it if it
has no such extension. Sigstore signatures are attached in the registry, under a tag; they are
read if the configuration says so.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from asupplemented.aio.concurrency import for_each
from asupplemented.errors import (
    BlobNotFoundError,
    DigestMismatchError,
    LimitExceededError,
    MalformedResponseError,
    ManifestNotFoundError,
    NotFoundError,
    SizeMismatchError,
    UnsupportedManifestError,
)
from asupplemented.limits import MAX_SIGNATURE
from asupplemented.model.digest import Digest
from asupplemented.model.manifest import Manifest
from asupplemented.model.media_type import OCI_MANIFEST
from asupplemented.model.name import is_tag
from asupplemented.model.signature import Signature
from asupplemented.transports.registry.documents import fetch_document, fetch_manifest
from asupplemented.transports.registry.error_response import Target, decode_document
from asupplemented.transports.registry.request import Request
from asupplemented.transports.registry.sigstore_files import fetch_beside
from asupplemented.transports.registry.tokens import pull_scope

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asupplemented.abc import Context
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.image_manifest import ImageManifest
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.client import RegistryClient
    from asupplemented.transports.registry.options import SignaturePlaces
    from asupplemented.transports.registry.request import RequestContext

__all__ = ("Signatures", "attachment_tag", "parse_extension")

_SCHEMA: Final = 2
_KIND: Final = "atomic"


class Signatures:
    """The signatures of one image.

    Args:
        client: The registry.
        name: The image in the place that it is read from (rule CONF-18).
        places: Where signatures are kept beside the extension; None for nowhere.
        request_context: The reference that it is for.
        context: The session, in whose threads files are read.
    """

    __slots__ = (
        "_client",
        "_context",
        "_limits",
        "_name",
        "_places",
        "_request_context",
        "_scope",
    )

    def __init__(
        self,
        client: RegistryClient,
        name: ImageName,
        places: SignaturePlaces | None,
        request_context: RequestContext,
        context: Context,
    ) -> None:
        self._client = client
        self._name = name
        self._places = places
        self._request_context = request_context
        self._context = context
        self._limits = client.deps.options.limits
        self._scope = pull_scope(name.path)

    async def fetch(self, digest: Digest) -> tuple[Signature, ...]:
        """All signatures of a manifest: simple ones, then attached ones, in their order.

        Args:
            digest: Of the manifest.

        Raises:
            ConfigurationError: Signatures are configured to be where they cannot be.
            LimitExceededError: There are too many, or they are too large.
            VerificationError: An attached one does not match its digest.
            ManifestError: The tag for signatures names something else than an OCI image manifest.
            SourceError: They cannot be read, or are malformed.
        """
        if await self._client.has_signatures(self._request_context):
            simple = await self._fetch_by_extension(digest)
        else:
            simple = await self._fetch_beside(digest)
        return (*simple, *await self._fetch_attached(digest))

    async def _fetch_by_extension(self, digest: Digest) -> list[Signature]:
        request = Request(
            URL(f"/extensions/v2/{self._name.path}/signatures/{digest}", encoded=True),
            Target(f"list of signatures of {digest}", digest=digest),
            CIMultiDict({hdrs.ACCEPT: "application/json"}),
            scope=self._scope,
        )
        document = await fetch_document(
            self._client, request, self._request_context, limit=MAX_SIGNATURE
        )
        return parse_extension(document.body, document.place)

    async def _fetch_beside(self, digest: Digest) -> list[Signature]:
        base = None if self._places is None else self._places.find_url(self._name)
        if base is None:
            return []
        deps = self._client.deps
        return await fetch_beside(
            base, self._name, digest, deps, self._request_context, self._context
        )

    # Attachments

    async def _fetch_attached(self, digest: Digest) -> Sequence[Signature]:
        places, tag = self._places, attachment_tag(digest)
        if places is None or tag is None or not places.uses_attachments(self._name):
            return ()
        manifest = await self._fetch_attachment(tag)
        if manifest is None:
            return ()
        self._check_layers(manifest.layers)
        payloads = await self._fetch_payloads(manifest.layers)
        return [_attached(layer, payloads[layer.digest]) for layer in manifest.layers]

    async def _fetch_attachment(self, tag: str) -> ImageManifest | None:
        """The manifest whose layers are signatures, None if there is none (rule ERR-06)."""
        path, missing = self._name.path, ManifestNotFoundError
        try:
            document = await fetch_manifest(
                self._client, path, tag, None, missing, self._request_context
            )
        except NotFoundError:
            return None
        manifest = Manifest.verified(document.body, document.media_type, None)
        if manifest.media_type != OCI_MANIFEST:
            message = f"signatures are in an OCI image manifest; {tag} is {manifest.media_type}"
            raise UnsupportedManifestError(message)
        return manifest.parse_image()

    def _check_layers(self, layers: Sequence[Descriptor]) -> None:
        """Check the limits of all signatures before any is read (rule SIG-06)."""
        if len(layers) > self._limits.attachments:
            message = f"more than {self._limits.attachments} signatures are attached to a manifest"
            raise LimitExceededError(message, limit=self._limits.attachments)
        sizes = [MAX_SIGNATURE if layer.size is None else layer.size for layer in layers]
        if max(sizes, default=0) > MAX_SIGNATURE:
            message = f"a signature has more than {MAX_SIGNATURE} bytes"
            raise LimitExceededError(message, limit=MAX_SIGNATURE)
        if sum(sizes) > self._limits.attached:
            message = f"the signatures of a manifest have more than {self._limits.attached} bytes"
            raise LimitExceededError(message, limit=self._limits.attached)

    async def _fetch_payloads(self, layers: Sequence[Descriptor]) -> dict[str, bytes]:
        """The contents of layers by digest, each read once, a few at a time."""
        distinct = {layer.digest: layer for layer in layers}.values()
        found: dict[str, bytes] = {}

        async def fetch(layer: Descriptor) -> None:
            found[layer.digest] = await self._fetch_payload(layer)

        await for_each(distinct, fetch, limit=self._limits.bodies)
        return found

    async def _fetch_payload(self, layer: Descriptor) -> bytes:
        digest = Digest(layer.digest)
        request = Request(
            URL(f"/v2/{self._name.path}/blobs/{digest}", encoded=True),
            Target(f"signature {digest}", BlobNotFoundError, digest),
            CIMultiDict({hdrs.ACCEPT: "*/*"}),
            scope=self._scope,
        )
        limit = MAX_SIGNATURE if layer.size is None else layer.size
        bodies = self._client.limiter.bodies
        async with bodies.hold(bodies.weigh(layer.size)):
            document = await fetch_document(
                self._client, request, self._request_context, limit=limit, digest=digest
            )
        if layer.size not in {None, len(document.body)}:
            message = f"a signature has {len(document.body)} bytes, and should have {layer.size}"
            raise SizeMismatchError(
                message, expected=layer.size, actual=len(document.body), digest=digest
            )
        if not digest.matches(document.body):
            actual = Digest.of(document.body, digest.algorithm)
            message = f"a signature does not match its digest, it has {actual}"
            raise DigestMismatchError(message, actual=actual, digest=digest)
        return document.body


def attachment_tag(digest: Digest) -> str | None:
    """The tag under which signatures of a manifest are attached, None if it is no valid tag."""
    tag = f"{digest.algorithm}-{digest.encoded}.sig"
    return tag if is_tag(tag) else None


def parse_extension(body: bytes, place: str) -> list[Signature]:
    """Read the list of signatures of a registry with the extension (rule SIG-01).

    Entries of unknown versions and kinds are skipped.

    Args:
        body: A JSON object.
        place: Its redacted URL, for errors.

    Raises:
        MalformedResponseError: It is not such a list.
    """
    try:
        return list(_listed(body))
    except ValueError as error:
        message = f"{place} answered with something that is no list of signatures: {error}"
        raise MalformedResponseError(message, url=place) from None


def _listed(body: bytes) -> Iterator[Signature]:
    listed = decode_document(body).get("signatures")
    if listed is not None and not isinstance(listed, list):
        message = "its signatures are no list"
        raise ValueError(message)
    for entry in listed or ():
        if not isinstance(entry, dict):
            message = "a signature is no object"
            raise ValueError(message)  # noqa: TRY004 - of the wrong value, not of ours
        if entry.get("schemaVersion") == _SCHEMA and entry.get("type") == _KIND:
            yield Signature("simple-signing", _decode(entry.get("content")))


def _decode(content: object) -> bytes:
    if not isinstance(content, str):
        message = "a signature has no content"
        raise ValueError(message)  # noqa: TRY004 - of the wrong value, not of ours
    compact = content.replace("\r", "").replace("\n", "")
    try:
        return base64.b64decode(compact.encode("ascii", "replace"), validate=True)
    except binascii.Error:
        message = "the content of a signature is not base64"
        raise ValueError(message) from None


def _attached(layer: Descriptor, payload: bytes) -> Signature:
    """A layer as a signature, in the JSON form in which other programs keep it."""
    framed = {
        "mimeType": layer.media_type or "",
        "payload": payload,
        "annotations": dict(sorted(layer.annotations.items())),
    }
    return Signature(
        "sigstore-json",
        msgspec.json.encode(framed),
        media_type=layer.media_type,
        annotations=layer.annotations,
    )
