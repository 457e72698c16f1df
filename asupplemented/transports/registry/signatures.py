"""Signatures of manifests in registries (rules SIG-01 to SIG-06).

They come from an extension that some registries speak, else from a place beside the registry;
and, where that is configured, from the registry itself, under a tag.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import hdrs
from multidict import CIMultiDict

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
from asupplemented.transports.registry.client import Errand
from asupplemented.transports.registry.documents import fetch_letter
from asupplemented.transports.registry.error_response import Inquiry, decode_document
from asupplemented.transports.registry.host_config import System
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
    from asupplemented.transports.registry.request import Caller

__all__ = ("Signatures", "attachment_tag", "parse_extension")

_SCHEMA: Final = 2
_KIND: Final = "atomic"


class Signatures:
    """The signatures of one image, wherever they are.

    Args:
        client: The registry.
        name: The image, as it is physically read (rule CONF-18).
        caller: Who it is for.
        context: The session.
    """

    __slots__ = ("_caller", "_client", "_context", "_limits", "_name", "_scope")

    def __init__(
        self, client: RegistryClient, name: ImageName, caller: Caller, context: Context
    ) -> None:
        self._client = client
        self._name = name
        self._caller = caller
        self._context = context
        self._limits = client.means.options.limits
        self._scope = pull_scope(name.path)

    async def fetch(self, digest: Digest) -> tuple[Signature, ...]:
        """All signatures of a manifest: simple ones first, then those attached, in their order.

        Args:
            digest: Of the manifest.

        Raises:
            ConfigurationError: Signatures are configured to lie where they cannot.
            LimitExceededError: There are too many, or they are too large.
            VerificationError: One that is attached is not what its digest names.
            ManifestError: What is under the tag for signatures is no OCI image manifest.
            SourceError: They cannot be read, or are not what they should be.
        """
        places = await System.of(self._context).find_places(self._caller.warn)
        await self._client.reach(self._caller)
        if self._client.signatures:
            simple = await self._fetch_by_extension(digest)
        else:
            simple = await self._fetch_beside(digest, places)
        return (*simple, *await self._fetch_attached(digest, places))

    async def _fetch_by_extension(self, digest: Digest) -> list[Signature]:
        errand = Errand(
            f"/extensions/v2/{self._name.path}/signatures/{digest}",
            self._scope,
            Inquiry(f"list of signatures of {digest}", digest=digest),
            CIMultiDict({hdrs.ACCEPT: "application/json"}),
        )
        letter = await fetch_letter(self._client, errand, self._caller, limit=MAX_SIGNATURE)
        return parse_extension(letter.body, letter.url)

    async def _fetch_beside(
        self, digest: Digest, places: SignaturePlaces | None
    ) -> list[Signature]:
        base = None if places is None else places.find_url(self._name)
        if base is None:
            return []
        means = self._client.means
        return await fetch_beside(base, self._name, digest, means, self._caller, self._context)

    # Attachments

    async def _fetch_attached(
        self, digest: Digest, places: SignaturePlaces | None
    ) -> Sequence[Signature]:
        tag = attachment_tag(digest)
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
        path = f"/v2/{self._name.path}/manifests/{tag}"
        inquiry = Inquiry(f"manifest {tag}", ManifestNotFoundError)
        errand = Errand(path, self._scope, inquiry)
        limit = self._limits.manifest
        try:
            letter = await fetch_letter(self._client, errand, self._caller, limit=limit)
        except NotFoundError:
            return None
        manifest = Manifest.verified(letter.body, letter.media_type, None)
        if manifest.media_type != OCI_MANIFEST:
            message = f"signatures are in an OCI image manifest; {tag} is {manifest.media_type}"
            raise UnsupportedManifestError(message)
        return manifest.parse_image()

    def _check_layers(self, layers: Sequence[Descriptor]) -> None:
        """Make sure that all of them may be read, before any is (rule SIG-06)."""
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
        waiting = iter({layer.digest: layer for layer in layers}.values())
        found: dict[str, bytes] = {}

        async def work() -> None:
            for layer in waiting:
                found[layer.digest] = await self._fetch_payload(layer)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._limits.bodies, len(layers))):
                    group.create_task(work())
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
            raise first from first.__cause__
        return found

    async def _fetch_payload(self, layer: Descriptor) -> bytes:
        digest = Digest(layer.digest)
        errand = Errand(
            f"/v2/{self._name.path}/blobs/{digest}",
            self._scope,
            Inquiry(f"signature {digest}", BlobNotFoundError, digest),
            CIMultiDict({hdrs.ACCEPT: "*/*"}),
        )
        limit = MAX_SIGNATURE if layer.size is None else layer.size
        async with self._client.limiter.bodies:
            letter = await fetch_letter(self._client, errand, self._caller, limit=limit)
        if layer.size not in {None, len(letter.body)}:
            message = f"a signature has {len(letter.body)} bytes, and should have {layer.size}"
            raise SizeMismatchError(
                message, expected=layer.size, actual=len(letter.body), digest=digest
            )
        if not digest.matches(letter.body):
            actual = Digest.of(letter.body, digest.algorithm)
            message = f"a signature does not match its digest, it has {actual}"
            raise DigestMismatchError(message, actual=actual, digest=digest)
        return letter.body


def attachment_tag(digest: Digest) -> str | None:
    """The tag of the manifest with the signatures of another one, None if none is possible."""
    tag = f"{digest.algorithm}-{digest.encoded}.sig"
    return tag if is_tag(tag) else None


def parse_extension(body: bytes, place: str) -> list[Signature]:
    """Read the list of signatures that a registry with the extension gives (rule SIG-01).

    Of other versions and kinds than simple signatures nothing is known; they are left out.

    Args:
        body: A JSON object.
        place: Its redacted URL, for errors.

    Raises:
        MalformedResponseError: It is no such list.
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
    """A layer as a signature, in the form in which it is kept elsewhere."""
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
