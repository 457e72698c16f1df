"""Other Python libraries that read from registries, called as well as they can be.

Each keeps its connections, streams blobs in pieces of 1 MiB, and reads up to `CONCURRENCY`
manifests or small blobs at the same time: the asynchronous ones from tasks, the others from
threads. None of them opens a whole index, so `Peer.open_all` does that for all of them; where one
checks no digest, its adapter does. Every adapter makes a new client for each run, as `Ours` makes a
new session.

``python -m benchmarks.peers.python NAME WHAT SERVER`` does one thing once, for `memory`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import sys
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from threading import local
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import aiohttp

import asupplemented as asup
from asupplemented.model.media_type import ACCEPT
from benchmarks.results import OURS
from benchmarks.server import LAYER_BYTES, REPOSITORY, Offer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from benchmarks.harness import Bench

__all__ = ("BARE", "CONCURRENCY", "Bare", "Ours", "Peer", "find_peers")

BARE: Final = "bare aiohttp"
CONCURRENCY: Final = 64
MIB: Final = 1024 * 1024
Untyped: TypeAlias = Any
"""What libraries without types return, and decoded JSON."""


def check(digest: str, data: bytes) -> None:
    """Compare bytes with a digest; a tag says nothing about them."""
    if digest.startswith("sha256:") and hashlib.sha256(data).hexdigest() != digest[7:]:
        raise RuntimeError(f"the bytes do not match {digest}")


class Hasher:
    """Hashes what a library hands out without hashing it."""

    def __init__(self, digest: str) -> None:
        self._digest = digest
        self._hash = hashlib.sha256()
        self.update = self._hash.update

    def finish(self) -> None:
        """Compare, at the end of the blob."""
        if self._hash.hexdigest() != self._digest[7:]:
            raise RuntimeError(f"the blob does not match {self._digest}")


class Peer(ABC):
    """A client of one repository.

    Args:
        offer: The registry.
        concurrency: Manifests or small blobs to read at the same time.
    """

    name: str
    """The distribution."""
    reads_blobs = True
    """Whether it can read blobs of the registry of the benchmarks."""

    def __init__(self, offer: Offer, concurrency: int = CONCURRENCY) -> None:
        self.offer = offer
        self.concurrency = concurrency
        self.host = f"127.0.0.1:{offer.port}"

    @abstractmethod
    async def open_all(self, tag: str = "all") -> None:
        """Read an index and all its manifests, verified and decoded."""

    @abstractmethod
    async def read_blob(self, digest: str) -> None:
        """Read a large blob in pieces, and verify it."""

    @abstractmethod
    async def read_blobs(self, digests: Sequence[str]) -> None:
        """Read many small blobs, and verify them."""


class AsyncPeer(Peer):
    """One whose methods are coroutines."""

    @abstractmethod
    async def enter(self) -> None:
        """Make the client."""

    @abstractmethod
    async def leave(self) -> None:
        """Close the client."""

    @abstractmethod
    async def get_manifest(self, key: str) -> Untyped:
        """A manifest, verified and decoded."""

    @abstractmethod
    async def get_blob(self, digest: str) -> None:
        """Read a blob and verify it."""

    @contextlib.asynccontextmanager
    async def _client_open(self) -> AsyncGenerator[None]:
        await self.enter()
        try:
            yield
        finally:
            await self.leave()

    async def open_all(self, tag: str = "all") -> None:
        async with self._client_open():
            index = await self.get_manifest(tag)
            await self._gather(self.get_manifest, [each["digest"] for each in index["manifests"]])

    async def read_blob(self, digest: str) -> None:
        await self.read_blobs([digest])

    async def read_blobs(self, digests: Sequence[str]) -> None:
        async with self._client_open():
            await self._gather(self.get_blob, digests)

    async def _gather(self, work: Callable[[str], Any], items: Sequence[str]) -> None:
        waiting = iter(items)

        async def run() -> None:
            for item in waiting:
                await work(item)

        await asyncio.gather(*(run() for _ in range(min(self.concurrency, len(items)))))


class ThreadPeer(Peer):
    """One whose methods block: each thread has a client of its own, with its connection."""

    def __init__(self, offer: Offer, concurrency: int = CONCURRENCY) -> None:
        super().__init__(offer, concurrency)
        self._local = local()

    @property
    def client(self) -> Untyped:
        """The client of this thread."""
        if not hasattr(self._local, "client"):
            self._local.client = self.make()
        return self._local.client

    @abstractmethod
    def make(self) -> Untyped:
        """A new client."""

    @abstractmethod
    def get_manifest(self, key: str) -> Untyped:
        """A manifest, verified and decoded."""

    @abstractmethod
    def get_blob(self, digest: str) -> None:
        """Read a blob and verify it."""

    async def open_all(self, tag: str = "all") -> None:
        index = self.get_manifest(tag)
        self._map(self.get_manifest, [each["digest"] for each in index["manifests"]])

    async def read_blob(self, digest: str) -> None:
        self.get_blob(digest)

    async def read_blobs(self, digests: Sequence[str]) -> None:
        self._map(self.get_blob, digests)

    def _map(self, work: Callable[[str], Any], items: Sequence[str]) -> None:
        with ThreadPoolExecutor(min(self.concurrency, len(items))) as pool:
            for _ in pool.map(work, items):
                pass


class Ours(Peer):
    """The library, with the session that it makes by default."""

    name = OURS
    shared = True

    def _session(self) -> asup.Session:
        return asup.Session(tls_verify=False, lookahead=self.concurrency)

    async def open_all(self, tag: str = "all") -> None:
        await self.open_group(tag)

    async def open_group(self, *tags: str) -> None:
        """Open a group of tags and close it."""
        group = asup.supplement(*map(self.offer.reference, tags))
        async with self._session() as session, group.open(session):
            pass

    async def read_blob(self, digest: str) -> None:
        await self.read_blobs([digest])

    async def read_blobs(self, digests: Sequence[str]) -> None:
        waiting = iter(digests)
        async with (
            self._session() as session,
            asup.parse_reference(self.offer.reference("single-0")).open(session) as image,
        ):

            async def run() -> None:
                for digest in waiting:
                    size = self.offer.blob_size if digest == self.offer.blob else LAYER_BYTES
                    blob = asup.Descriptor("application/octet-stream", digest, size)
                    async with image.open_blob(blob, shared=self.shared) as stream:
                        async for _ in stream:
                            pass
                    if not stream.verified:
                        raise RuntimeError("the blob was not verified")

            await asyncio.gather(*(run() for _ in range(min(self.concurrency, len(digests)))))


class OursAlone(Ours):
    """The library, where no other reader wants the blob."""

    name = f"{OURS}, shared=False"
    shared = False


class Bare(AsyncPeer):
    """aiohttp by hand: bytes of manifests are thrown away, blobs are hashed on the event loop."""

    name = BARE

    async def enter(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, ssl=False)
        headers = {"Accept": ", ".join(ACCEPT)}
        self._client = aiohttp.ClientSession(connector=connector, headers=headers)

    async def leave(self) -> None:
        await self._client.close()

    async def get_manifest(self, key: str) -> Untyped:
        async with self._client.get(self.offer.manifest_url(key)) as response:
            raw = await response.read()
        return json.loads(raw) if not key.startswith("sha256:") else None

    async def get_blob(self, digest: str) -> None:
        hasher = Hasher(digest)
        url = f"{self.offer.url}/v2/{REPOSITORY}/blobs/{digest}"
        async with self._client.get(url) as response:
            async for chunk in response.content.iter_chunked(MIB):
                hasher.update(chunk)
        hasher.finish()


class AioRegistry(AsyncPeer):
    """aioregistry: it checks no digests."""

    name = "aioregistry"

    async def enter(self) -> None:
        self._module: Any = import_module("aioregistry")
        self._client: Any = self._module.AsyncRegistryClient()
        await self._client.__aenter__()
        host = self._module.Registry(host="127.0.0.1", port=self.offer.port, prot="http")
        self._reference = {"registry": host, "repo": (REPOSITORY,)}

    async def leave(self) -> None:
        await self._client.__aexit__(None, None, None)

    async def get_manifest(self, key: str) -> Untyped:
        reference = self._module.RegistryManifestRef(**self._reference, ref=key)
        manifest = await self._client.manifest_download(reference)
        text = manifest.canonical()  # as it was received
        check(key, text.encode())
        return json.loads(text) if not key.startswith("sha256:") else manifest

    async def get_blob(self, digest: str) -> None:
        reference = self._module.RegistryBlobRef(**self._reference, ref=digest)
        _, chunks = await self._client.ref_content_stream(reference, MIB)
        hasher = Hasher(digest)
        async for chunk in chunks:
            hasher.update(chunk)
        hasher.finish()


class ClientAsync(AsyncPeer):
    """docker-registry-client-async: it checks no digests; its streams are those of aiohttp."""

    name = "docker-registry-client-async"

    async def enter(self) -> None:
        self._module: Any = import_module("docker_registry_client_async")
        client = self._module.DockerRegistryClientAsync
        client.DEFAULT_PROTOCOL = "http"
        options = {"limit": 0, "resolver": aiohttp.ThreadedResolver()}
        self._client: Any = client(tcp_connector_kwargs=options)

    async def leave(self) -> None:
        await self._client.close()

    async def get_manifest(self, key: str) -> Untyped:
        manifest = (await self._client.get_manifest(self._name(key))).manifest
        check(key, manifest.get_bytes())
        return manifest.get_json()

    async def get_blob(self, digest: str) -> None:
        hasher = Hasher(digest)
        response = await self._client._get_blob(  # noqa: SLF001 - `get_blob` does not stream
            self._name(digest), self._module.FormattedSHA256.parse(digest), protocol="http"
        )
        async with response:
            async for chunk in response.content.iter_chunked(MIB):
                hasher.update(chunk)
        hasher.finish()

    def _name(self, key: str) -> Untyped:
        separator = "@" if key.startswith("sha256:") else ":"
        name = self._module.ImageName.parse(f"{self.host}/{REPOSITORY}{separator}{key}")
        name.resolve_image = lambda: REPOSITORY  # it would be library/bench, as on Docker Hub
        return name


class Azure(AsyncPeer):
    """azure-containerregistry: it checks digests, and reads blobs by ranges of 4 MiB."""

    name = "azure-containerregistry"
    reads_blobs = False

    async def enter(self) -> None:
        module: Any = import_module("azure.containerregistry.aio")
        self._client: Any = module.ContainerRegistryClient(
            self.offer.url, connection_verify=False, enforce_https=False
        )
        await self._client.__aenter__()

    async def leave(self) -> None:
        await self._client.__aexit__(None, None, None)

    async def get_manifest(self, key: str) -> Untyped:
        return (await self._client.get_manifest(REPOSITORY, key, enforce_https=False)).manifest

    async def get_blob(self, digest: str) -> None:
        del digest
        raise NotImplementedError


class Dxf(ThreadPeer):
    """python-dxf: it checks the digests of blobs."""

    name = "python-dxf"

    def make(self) -> Untyped:
        module: Any = import_module("dxf")
        return module.DXF(self.host, REPOSITORY, insecure=True).__enter__()

    def get_manifest(self, key: str) -> Untyped:
        text, _ = self.client.get_manifest_and_response(key)
        check(key, text.encode())
        return json.loads(text)

    def get_blob(self, digest: str) -> None:
        for _ in self.client.pull_blob(digest, chunk_size=MIB):
            pass


class Oras(ThreadPeer):
    """oras: it checks no digests."""

    name = "oras"

    def make(self) -> Untyped:
        module: Any = import_module("oras.provider")
        return module.Registry(self.host, insecure=True)

    def get_manifest(self, key: str) -> Untyped:
        headers = {"Accept": ", ".join(ACCEPT)}
        url = self.offer.manifest_url(key)
        raw = self.client.do_request(url, "GET", headers=headers).content
        check(key, raw)
        return json.loads(raw)

    def get_blob(self, digest: str) -> None:
        container = self.client.get_container(f"{self.host}/{REPOSITORY}:all")
        hasher = Hasher(digest)
        with self.client.get_blob(container, digest, stream=True) as response:
            for chunk in response.iter_content(MIB):
                hasher.update(chunk)
        hasher.finish()


PEERS: Final[Sequence[type[Peer]]] = (AioRegistry, ClientAsync, Azure, Dxf, Oras)
CLIENTS: Final[Sequence[type[Peer]]] = (Ours, OursAlone, Bare, *PEERS)


def find_peers(bench: Bench, *, blobs: bool = False) -> list[type[Peer]]:
    """Those that are installed; the others are noted.

    Args:
        bench: The run.
        blobs: Whether they have to read blobs.
    """
    found: list[type[Peer]] = []
    for peer in PEERS:
        try:
            version(peer.name)
        except PackageNotFoundError:
            bench.note(f"{peer.name} skipped: not installed (pip install {peer.name})")
            continue
        if blobs and not peer.reads_blobs:
            bench.note(f"{peer.name} reads no blobs: this registry does not serve ranges")
        else:
            found.append(peer)
    return found


def main(name: str, what: str, server: str) -> None:
    """Do one thing once."""
    said = json.loads(server)
    offer = Offer(**said | {"instances": tuple(said["instances"])})
    [client] = [each(offer) for each in CLIENTS if each.name == name]
    asyncio.run(client.open_all() if what == "open" else client.read_blob(str(offer.blob)))


if __name__ == "__main__":
    main(*sys.argv[1:])
