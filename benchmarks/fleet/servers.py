"""What proxies talk to: registries on the in-memory transport, a bucket, and a Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self

from asupplemented.abc import Opening
from asupplemented.errors import NetworkError
from asupplemented.model.descriptor import Descriptor
from asupplemented.model.digest import Digest
from asupplemented.source import VerifiedSource, open_verified
from asupplemented.transports.memory import MemorySource
from benchmarks.fleet.network import Machine, transfer

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Mapping
    from types import TracebackType

    from asupplemented.abc import Context, RawManifest, Source
    from asupplemented.transports.memory import MemoryBlob, MemoryReference

__all__ = ("Bucket", "BucketClient", "Redis", "RedisConnection", "Registry", "RegistryReference")

BUCKET_LATENCY: Final = 0.01
"""Seconds until object storage answers."""

REDIS_LATENCY: Final = 0.001


@dataclass(eq=False)
class Registry:
    """A registry that holds one image.

    Attributes:
        machine: Where it runs.
        image: What it holds.
        latency: Seconds from a request to the beginning of its answer.
        asked: Requests that it answered, by method and by what they asked for: a digest or a tag.
        probes: Requests for one byte of a blob, by which the library asks whether it is there.
        sent: Bytes of bodies.
        streams: Bodies under way, by the machine that reads them.
    """

    machine: Machine
    image: MemoryReference
    latency: float
    asked: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    probes: int = 0
    sent: int = 0
    streams: Counter[Machine] = field(default_factory=Counter[Machine])
    _progress: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, client: Machine) -> None:
        """Wait for the head of an answer.

        Raises:
            NetworkError: The registry or the client is dead.
        """
        await asyncio.sleep(self.latency)
        for machine in (self.machine, client):
            if not machine.alive:
                message = f"{machine.name} refused the connection"
                raise NetworkError(message)

    async def send(self, size: int, client: Machine) -> None:
        """Send a part of a body.

        Raises:
            NetworkError: The registry or the client died.
        """
        try:
            await transfer(size, self.machine, client)
        except ConnectionResetError as error:
            raise NetworkError(str(error)) from error
        self.sent += size
        self._progress.set()

    async def wait_until_sent(self, part: float) -> None:
        """Wait until a part of the image, from 0 to 1, was sent."""
        size = sum(map(len, self.image.blobs.values()))
        while self.sent < part * size:
            self._progress.clear()
            await self._progress.wait()


@dataclass(frozen=True)
class RegistryReference:
    """The image of a registry, as one proxy reads it."""

    registry: Registry
    client: Machine
    which: str = "latest"

    @property
    def transport(self) -> str:
        """That of `MemoryReference`."""
        return self.registry.image.transport

    @property
    def tag(self) -> str | None:
        """The tag, None for a digest."""
        return None if ":" in self.which else self.which

    @property
    def repository(self) -> str:
        """The name of the registry, and that of the image."""
        return f"{self.registry.machine.name}/{self.registry.image.name}"

    def at(self, which: str) -> RegistryReference:
        """The same repository at another tag or digest."""
        return replace(self, which=which)

    def open(self, session: Context) -> Opening[Source]:
        """Open the image and read its default manifest."""

        async def opener() -> _RegistrySource:
            return _RegistrySource(self)

        return open_verified(opener, self, session)

    def open_repository(self, session: Context) -> Opening[Source]:
        """Open the repository; nothing is asked."""

        async def opener() -> Source:
            return VerifiedSource(_RegistrySource(self), self, session)

        return Opening(opener, self)

    async def list_tags(self, session: Context) -> tuple[str, ...]:
        """The one tag."""
        del session
        await self.registry.answer(self.client)
        return ("latest",)

    async def get_digest(self, session: Context) -> Digest:
        """Ask for the digest by HEAD."""
        del session
        await self.registry.answer(self.client)
        self.registry.asked["HEAD", self.which] += 1
        default = self.registry.image.default
        assert default is not None  # noqa: S101 - each registry has one
        return Digest.of(default.raw)

    def __str__(self) -> str:
        separator = "@" if self.tag is None else ":"
        return f"{self.transport}://{self.repository}{separator}{self.which}"


class _RegistrySource:
    """An adapter: what the in-memory transport serves, as late as a network would."""

    def __init__(self, reference: RegistryReference) -> None:
        self._reference = reference
        self._inner = MemorySource(reference.registry.image)

    @property
    def default_descriptor(self) -> Descriptor | None:
        which = self._reference.which
        return Descriptor(digest=which) if ":" in which else None

    async def fetch_manifest(self, instance: Digest | None) -> RawManifest:
        registry, client = self._reference.registry, self._reference.client
        await registry.answer(client)
        registry.asked["GET", instance or self._reference.which] += 1
        manifest = await self._inner.fetch_manifest(instance)
        await registry.send(len(manifest.raw), client)
        return manifest

    def open_blob(
        self, blob: Descriptor, start: int = 0, end: int | None = None, etag: str | None = None
    ) -> _RegistryBlob:
        body = self._inner.open_blob(blob, start, end, etag)
        return _RegistryBlob(self._reference, blob.digest, body, probe=(start, end) == (0, 1))

    async def aclose(self) -> None:
        """There is nothing to release."""


class _RegistryBlob:
    def __init__(
        self, reference: RegistryReference, digest: str, body: MemoryBlob, *, probe: bool
    ) -> None:
        self._registry = reference.registry
        self._client = reference.client
        self._digest = digest
        self._body = body
        self._probe = probe
        self._chunks: AsyncIterator[bytes] = aiter(body)
        self.start = body.start
        self.size: int | None = None
        self.etag: str | None = None

    async def __aenter__(self) -> Self:
        await self._registry.answer(self._client)
        if self._probe:
            self._registry.probes += 1
        else:
            self._registry.asked["GET", self._digest] += 1
        await self._body.__aenter__()
        self.size = self._body.size
        self._registry.streams[self._client] += 1
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._registry.streams[self._client] -= 1

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        await self._registry.send(len(chunk), self._client)
        return chunk


class Bucket:
    """Object storage that the proxies share.

    Args:
        machine: Where it is.

    Attributes:
        objects: What it holds.
        sent: Bytes that it sent.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.objects: dict[str, bytes] = {}
        self.sent = 0


class BucketClient:
    """The methods of a store of obstore that `ObjectStore` uses, for one proxy."""

    def __init__(self, bucket: Bucket, client: Machine) -> None:
        self._bucket = bucket
        self._client = client

    async def head_async(self, key: str) -> Mapping[str, int]:
        return {"size": len(await self._find(key))}

    async def get_async(
        self, key: str, *, options: Mapping[str, object] | None = None
    ) -> _StoredAnswer:
        data = await self._find(key)
        start, end = 0, len(data)
        match (options or {}).get("range"):
            case {"offset": int(offset)}:
                start = offset
            case (int(first), int(last)):
                start, end = first, min(last, end)
            case _:
                pass
        return _StoredAnswer(self._bucket, self._client, data, (start, end))

    async def put_async(
        self, key: str, data: bytes | AsyncIterable[bytes], **_: object
    ) -> Mapping[str, None]:
        await self._answer()
        blocks = [data] if isinstance(data, bytes) else [bytes(block) async for block in data]
        for block in blocks:
            await transfer(len(block), self._client, self._bucket.machine)
        self._bucket.objects[key] = b"".join(blocks)
        return {"e_tag": None}

    async def _find(self, key: str) -> bytes:
        await self._answer()
        found = self._bucket.objects.get(key)
        if found is None:
            raise FileNotFoundError(key)
        return found

    async def _answer(self) -> None:
        await asyncio.sleep(BUCKET_LATENCY)
        _check_alive(self._client)


class _StoredAnswer:
    def __init__(self, bucket: Bucket, client: Machine, data: bytes, span: tuple[int, int]) -> None:
        self.meta = {"size": len(data)}
        self.range = span
        self._bucket = bucket
        self._client = client
        self._data = data

    async def stream(self, min_chunk_size: int) -> AsyncIterator[bytes]:
        start, end = self.range
        for at in range(start, end, min_chunk_size):
            chunk = self._data[at : min(at + min_chunk_size, end)]
            await transfer(len(chunk), self._bucket.machine, self._client)
            self._bucket.sent += len(chunk)
            yield chunk

    async def bytes_async(self) -> bytes:
        return b"".join([chunk async for chunk in self.stream(max(len(self._data), 1))])


class Redis:
    """Keys with a time to live."""

    def __init__(self) -> None:
        self._values: dict[object, tuple[object, float]] = {}

    def execute(self, *arguments: str | int) -> object:
        """One command of those that leases and values send.

        Raises:
            NotImplementedError: It is another one.
        """
        now = asyncio.get_running_loop().time()
        match arguments:
            case ("GET", key):
                return self._get(key, now)
            case ("SET", key, _, "NX", "PX", _) if self._get(key, now) is not None:
                return None
            case ("SET", key, value, "NX", "PX", int(time)) | ("SET", key, value, "PX", int(time)):
                self._values[key] = value, now + time / 1000
                return b"OK"
            case ("EVAL", _, 1, key, owner, *rest):  # both scripts compare the owner first
                if self._get(key, now) != owner:
                    return 0
                if rest:
                    self._values[key] = owner, now + float(rest[0]) / 1000
                else:
                    del self._values[key]
                return 1
            case _:
                raise NotImplementedError(arguments)

    def _get(self, key: object, now: float) -> object:
        value, ends = self._values.get(key, (None, 0.0))
        return value if now < ends else None


class RedisConnection:
    """The client of one proxy."""

    def __init__(self, redis: Redis, client: Machine) -> None:
        self._redis = redis
        self._client = client

    async def execute_command(self, *arguments: str | int) -> object:
        await asyncio.sleep(REDIS_LATENCY)
        _check_alive(self._client)
        return self._redis.execute(*arguments)

    async def aclose(self) -> None:
        """There is nothing to release."""


def _check_alive(client: Machine) -> None:
    if not client.alive:
        message = f"{client.name} is dead, and sends nothing"
        raise ConnectionResetError(message)
