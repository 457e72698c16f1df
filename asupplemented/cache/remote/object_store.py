"""Blobs and manifests in object storage, laid out as an OCI layout is on disk.

::

    oci-layout
    index.json                              lists nothing
    blobs/<algorithm>/<hex>                              blobs and manifests, each once
    grants/<namespace>/<algorithm>/<hex>                 which principal uploaded a blob
    manifests/<namespace>/<source>/<algorithm>/<hex>     and a manifest, which it read from where

A grant is a small object that says that a principal fetched that content itself. It is written
after the content. That of a manifest belongs to the source too that it was read from, named by a
hash, and holds the media type that this source gave. Content is stored once, however many
principals upload it. Looking for a grant takes one request, as looking for the content would.
Nothing is ever listed.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self, cast
from urllib.parse import urlsplit

from asupplemented.abc import RawManifest
from asupplemented.cache.remote.leases import check_seconds
from asupplemented.cache.remote.object_blob import StoredBlob, ask
from asupplemented.cache.remote.uploads import Read, put_object
from asupplemented.errors import BlobNotFoundError, ConfigurationError, LimitExceededError
from asupplemented.limits import MAX_MANIFEST
from asupplemented.model.credential import NO_PRINCIPAL, hash_principal
from asupplemented.oci_layout import INDEX_FILE, LAYOUT_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import ClientConfig, S3Config
    from obstore.store import ObjectStore as Store

    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest

__all__ = ("ANONYMOUS", "TIMEOUT", "ObjectStore", "namespace_of")

TIMEOUT: Final = 5.0
"""Seconds to wait for one answer; a body that has begun is not bounded by it."""

ANONYMOUS: Final = NO_PRINCIPAL
"""The namespace of sessions without a principal. The name is stored, so it stays."""

_FILES: Final = {
    LAYOUT_FILE: b'{"imageLayoutVersion":"1.0.0"}',
    INDEX_FILE: b'{"schemaVersion":2,"manifests":[]}',
}
_MAX_GRANT: Final = 255
"""Bytes of a grant: a media type at most."""

_RETRIES: Final = 2
_BODY: Final = timedelta(hours=1)
"""For one whole body, which would be cut after 30 s otherwise; streams watch its pace."""


def namespace_of(principal: str | None) -> str:
    """The namespace of a principal. Its name is hashed, so that it fits into a key."""
    return hash_principal(principal)


class ObjectStore:
    """An OCI layout in object storage, with grants; it holds nothing open.

    Methods raise errors of this library, which repeat nothing of the messages of storage.

    Args:
        store: Any store of obstore; its prefix is the root of the layout.
        name: Its name in events and errors.
        timeout: Seconds to wait for one answer.

    Raises:
        ConfigurationError: `timeout` is not a number of seconds above 0.
    """

    __slots__ = ("_marked", "_name", "_store", "_timeout")

    def __init__(
        self, store: Store, *, name: str = "object storage", timeout: float = TIMEOUT
    ) -> None:
        self._store = store
        self._name = name
        self._timeout = check_seconds("timeout", timeout)
        self._marked = False

    @classmethod
    def from_url(
        cls,
        url: str,
        options: Mapping[str, str] | None = None,
        *,
        allow_http: bool = False,
        timeout: float = TIMEOUT,
    ) -> Self:
        """The layout at a URL such as ``s3://bucket/prefix``; for any store, see the constructor.

        Args:
            url: Where it is; its path is the root of the layout.
            options: The configuration of that kind of store, as obstore names it:
                ``region``, ``endpoint``, ``access_key_id``, ... What is not given is taken from
                the environment.
            allow_http: Whether the endpoint may do without TLS; so does ``AWS_ALLOW_HTTP=true`` in
                the environment.
            timeout: Seconds to wait for one answer.

        Raises:
            ConfigurationError: The URL or an option is not understood; neither is repeated,
                since they may hold secrets. Or the extra ``s3`` is not installed.
        """
        client: ClientConfig = {
            # Options of the client replace what obstore reads of the environment.
            "allow_http": allow_http or os.environ.get("AWS_ALLOW_HTTP", "").lower() == "true",
            "connect_timeout": timedelta(seconds=check_seconds("timeout", timeout)),
            "timeout": _BODY,
        }
        store, name = _open(url, options or {}, client)
        return cls(store, name=name, timeout=timeout)

    @property
    def name(self) -> str:
        """Its name in events and errors."""
        return self._name

    def blob(self, digest: Digest) -> StoredBlob:
        """The blob `digest` as a candidate. Opening it fails if it is not there."""
        return StoredBlob(self._store, _content(digest), self._name, self._timeout)

    async def has(self, namespace: str, digest: Digest) -> bool:
        """Whether the principal of `namespace` uploaded the content of `digest`.

        Raises:
            SourceError: Storage failed.
        """
        return await self._measure(_grant(namespace, digest)) is not None

    async def put_blob(
        self, namespace: str, digest: Digest, size: int, read: Read, *, replace: bool = False
    ) -> None:
        """Store a blob unless it is there, and add a grant.

        Args:
            namespace: The namespace of the grant.
            digest: Its digest.
            size: Bytes that it has.
            read: Gives them.
            replace: Whether to store it again, because what is there is corrupt.

        Raises:
            SupplementedError: See `asupplemented.cache.remote.uploads.put_object`; then there is
                no grant.
        """
        await self._mark()
        key = _content(digest)
        if replace or await self._measure(key) != size:
            await put_object(self._store, key, size, read, self._timeout)
        await self._write(_grant(namespace, digest), b"")

    async def get_manifest(
        self, namespace: str, digest: Digest, source: str | None
    ) -> RawManifest | None:
        """Read a manifest that a principal uploaded. It is not verified.

        Args:
            namespace: The namespace of its grant.
            digest: Its digest.
            source: What the principal read it from; see `asupplemented.abc.BlobCache`.

        Returns:
            The bytes and the media type; None if the principal did not upload it.

        Raises:
            LimitExceededError: It is larger than ``MAX_MANIFEST``.
            SourceError: Storage failed.
        """
        try:
            grant = await self._read(_manifest_grant(namespace, digest, source), _MAX_GRANT)
            raw = await self._read(_content(digest), MAX_MANIFEST)
            return RawManifest(raw, grant.decode("ascii", "replace"))
        except BlobNotFoundError:
            return None

    async def put_manifest(
        self, namespace: str, manifest: Manifest, source: str | None, *, replace: bool = False
    ) -> None:
        """Store a manifest unless it is there, and add a grant; see `put_blob`."""
        grant = _manifest_grant(namespace, manifest.digest, source)
        if not replace and await self._measure(grant) is not None:
            return
        await self._mark()
        await self._write(_content(manifest.digest), manifest.raw)
        await self._write(grant, manifest.media_type.encode("ascii", "replace"))

    async def _mark(self) -> None:
        """Write the files that make it a layout for other tools, unless they are there."""
        if not self._marked:
            for key, data in _FILES.items():
                if await self._measure(key) is None:
                    await self._write(key, data)
            self._marked = True

    async def _measure(self, key: str) -> int | None:
        try:
            found = await ask(self._store.head_async(key), self._timeout)
        except BlobNotFoundError:
            return None
        return found["size"]

    async def _read(self, key: str, limit: int) -> bytes:
        answer = await ask(self._store.get_async(key), self._timeout)
        if answer.meta["size"] > limit:
            message = f"an object in {self._name} exceeds {limit} bytes"
            raise LimitExceededError(message, limit=limit)
        return bytes(await ask(answer.bytes_async(), self._timeout))

    async def _write(self, key: str, data: bytes) -> None:
        await ask(self._store.put_async(key, data, use_multipart=False), self._timeout)

    def __repr__(self) -> str:
        return f"<ObjectStore {self._name}>"


def _content(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"


def _grant(namespace: str, digest: Digest) -> str:
    return f"grants/{namespace}/{digest.algorithm}/{digest.encoded}"


def _manifest_grant(namespace: str, digest: Digest, source: str | None) -> str:
    place = hash_principal(source or "")[:32]
    return f"manifests/{namespace}/{place}/{digest.algorithm}/{digest.encoded}"


def _open(url: str, options: Mapping[str, str], client: ClientConfig) -> tuple[Store, str]:
    try:
        from obstore.exceptions import BaseError  # noqa: PLC0415 - an extra
        from obstore.store import from_url  # noqa: PLC0415
    except ImportError as error:
        message = "object storage needs its client: pip install 'asupplemented[s3]'"
        raise ConfigurationError(message) from error
    try:
        store = from_url(
            url,
            config=cast("S3Config", dict(options)),  # or that of another cloud, by the URL
            client_options=client,
            retry_config={"max_retries": _RETRIES},
        )
        return store, _name_of(url)
    except (BaseError, ValueError, TypeError, OSError) as error:
        kind = type(error).__name__
    # Not chained: the error may repeat the URL and the options.
    message = f"the URL of the object storage, or one of its options, is not understood ({kind})"
    raise ConfigurationError(message)


def _name_of(url: str) -> str:
    """Scheme, host and path of a URL: what may be shown of it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
