"""A registry that costs little: every answer is made beforehand, and written in one piece.

``python -m benchmarks.server --instances 256 --latency 0.02`` prints one JSON line that says
where it listens and what it holds, then serves until it is terminated. Clients and servers of
one benchmark should not share an interpreter: `serve` runs it in a process of its own.

It holds, under the repository ``bench``: ``all``, an index of so many images with manifests of
1.5 KiB; ``half-0`` and ``half-1``, indexes of half of them each; ``single-0``, ``single-1``, ...:
one such image each; and, where a file is given, ``file``, an image whose layer is that file, sent
with sendfile. It tells at ``/sent`` how often it was. To be copied are ``small``, an index of
images with a layer of 2 KiB each, and ``large``, an image whose layers are files. It knows no
ranges, no access and no faults.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import ssl
import subprocess
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self, TextIO, cast
from urllib.request import urlopen

from asupplemented.model.digest import Digest
from asupplemented.testing import build_image, build_index

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from asupplemented.testing import Built, BuiltImage

__all__ = ("Holding", "LeanRegistry", "Offer", "build_padded_image", "hold", "main", "serve")

REPOSITORY = "bench"
MANIFEST_BYTES = 1536
LAYER_BYTES = 2048
"""Bytes of a layer of ``small``."""
BACKLOG = 2048
"""Connections that may be made at the same moment; of more, Linux delays some by a second."""
TLS_RECORD = b"\x16"
"""How a TLS handshake begins: a client that tries it on this plain server is told at once."""
SENT = b"/sent"
"""Asks how often the file was asked for."""
MISSING = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"


@dataclass(frozen=True)
class Offer:
    """Where a registry listens, and what it holds."""

    port: int
    instances: tuple[str, ...]
    """Digests of the images in ``all``, in order."""
    singles: int
    blob: str | None
    """Digest of the blob, None where there is none."""
    blob_size: int | None
    tls: bool = False
    """Whether it is reached over TLS."""

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``, or the same with https."""
        return f"http{'s' * self.tls}://127.0.0.1:{self.port}"

    def reference(self, tag: str = "all") -> str:
        """The reference of a tag."""
        return f"docker://127.0.0.1:{self.port}/{REPOSITORY}:{tag}"

    @property
    def repository(self) -> str:
        """The reference of the repository."""
        return f"docker://127.0.0.1:{self.port}/{REPOSITORY}"

    def manifest_url(self, key: str) -> str:
        """The URL of a manifest by tag or digest."""
        return f"{self.url}/v2/{REPOSITORY}/manifests/{key}"

    @property
    def blob_url(self) -> str:
        """The URL of the blob."""
        return f"{self.url}/v2/{REPOSITORY}/blobs/{self.blob}"

    def count_sent(self) -> int:
        """How often the blob was sent up to now, whole or in part."""
        with urlopen(f"{self.url}/sent") as answer:  # noqa: S310 - of our own server
            return int(answer.read())


@dataclass(frozen=True)
class Holding:
    """Answers by request target, and the one file."""

    answers: Mapping[bytes, tuple[bytes, bytes]]
    """Target to head and body."""
    instances: tuple[str, ...]
    singles: int
    file: Path | None
    blob: str | None
    files: Mapping[bytes, tuple[str, Path]] = field(default_factory=dict[bytes, tuple[str, Path]])
    """Target to digest and file: the layers of ``large``."""

    @property
    def file_target(self) -> bytes:
        """What asks for the file."""
        return _blob_target(str(self.blob))


def build_padded_image(number: int) -> BuiltImage:
    """An image whose manifest has exactly `MANIFEST_BYTES` bytes, another one for each number."""
    notes = {"bench.number": str(number), "bench.padding": ""}
    layers = [b"first layer", b"second layer", b"third layer"]
    short = MANIFEST_BYTES - len(build_image(layers=layers, annotations=notes).raw)
    return build_image(layers=layers, annotations=notes | {"bench.padding": "." * short})


def hold(
    instances: int,
    *,
    singles: int = 0,
    file: Path | None = None,
    small: int = 0,
    large: Sequence[Path] = (),
) -> Holding:
    """Make every answer.

    Args:
        instances: Images in the index.
        singles: Images on their own.
        file: Becomes the blob; it is hashed here.
        small: Images in ``small``.
        large: The layers of ``large``; they are hashed here.
    """
    images = [build_padded_image(number) for number in range(instances)]
    answers = {b"/v2/": (_head("application/json", 2), b"{}")}
    answers |= _answer_manifest("all", build_index(images))
    for half, part in enumerate((images[: instances // 2], images[instances // 2 :])):
        answers |= _answer_manifest(f"half-{half}", build_index(part))
    for image in images:
        answers |= _answer_manifest(image.digest, image)
    for number in range(singles):
        answers |= _answer_manifest(f"single-{number}", build_padded_image(instances + number))
    if images:
        answers |= _answer_blobs(images[0])
    digests = tuple(image.digest for image in images)
    blob = None if file is None else _hash_file(file)
    if file is not None and blob is not None:
        answers |= _answer_manifest("file", _name_layers({blob: file}))
    if small:
        answers |= _answer_small(small)
    layers = {_hash_file(path): path for path in large}
    if layers:
        built = _name_layers(layers)
        answers |= _answer_manifest("large", built) | _answer_blobs(built)
    files = {_blob_target(digest): (digest, path) for digest, path in layers.items()}
    return Holding(answers, digests, singles, file, blob, files)


def _answer_small(count: int) -> dict[bytes, tuple[bytes, bytes]]:
    """An index of images, no two of which share a blob."""
    images = [
        build_image(layers=[number.to_bytes(4) * (LAYER_BYTES // 4)]) for number in range(count)
    ]
    answers = _answer_manifest("small", build_index(images))
    for image in images:
        answers |= _answer_manifest(image.digest, image) | _answer_blobs(image)
    return answers


def _answer_blobs(image: Built) -> dict[bytes, tuple[bytes, bytes]]:
    return {
        _blob_target(digest): (_head("application/octet-stream", len(data), digest), data)
        for digest, data in image.blobs.items()
    }


def _blob_target(digest: str) -> bytes:
    return f"/v2/{REPOSITORY}/blobs/{digest}".encode()


def _name_layers(files: Mapping[Digest, Path]) -> Built:
    """An image with layers whose bytes are not at hand."""
    image = build_image(layers=[b"layer"])
    value = json.loads(image.raw)
    [layer] = value["layers"]
    value["layers"] = [
        layer | {"digest": digest, "size": path.stat().st_size} for digest, path in files.items()
    ]
    raw = json.dumps(value).encode()
    return replace(image, raw=raw, digest=Digest.of(raw))


def _answer_manifest(tag: str, built: Built) -> dict[bytes, tuple[bytes, bytes]]:
    answer = (_head(built.media_type, len(built.raw), built.digest), built.raw)
    return {f"/v2/{REPOSITORY}/manifests/{key}".encode(): answer for key in (tag, built.digest)}


def _head(media_type: str, size: int, digest: str | None = None) -> bytes:
    lines = ["HTTP/1.1 200 OK", f"Content-Type: {media_type}", f"Content-Length: {size}"]
    if digest is not None:
        lines += [f"Docker-Content-Digest: {digest}", f'ETag: "{digest}"']
    return "\r\n".join((*lines, "", "")).encode()


def _hash_file(file: Path) -> Digest:
    with file.open("rb") as opened:
        return Digest(f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}")


class LeanRegistry:
    """Listens on 127.0.0.1 in the event loop that enters it.

    Args:
        holding: What it serves.
        latency: Seconds before each answer.
        port: 0 for any free one.
        certificate: A certificate and its key in PEM, to speak TLS; None for plain HTTP.
    """

    def __init__(
        self,
        holding: Holding,
        *,
        latency: float = 0.0,
        port: int = 0,
        certificate: Path | None = None,
    ) -> None:
        self.holding = holding
        self._certificate = certificate
        self.latency = latency
        self.sent = 0
        """How often the file was sent, or was begun to be."""
        self._port = port
        self._connections: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        context = None
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
        self._server = await loop.create_server(
            self._accept, "127.0.0.1", self._port, ssl=context, backlog=BACKLOG
        )
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.abort()
        while self._connections:  # noqa: ASYNC110  # a turn of the loop or two
            await asyncio.sleep(0)

    @property
    def offer(self) -> Offer:
        """Where it listens, and what it holds."""
        file = self.holding.file
        return Offer(
            port=self._port,
            instances=self.holding.instances,
            singles=self.holding.singles,
            blob=self.holding.blob,
            blob_size=None if file is None else file.stat().st_size,
            tls=self._certificate is not None,
        )

    def _accept(self) -> _Connection:
        return _Connection(self, self._connections)


class _Connection(asyncio.Protocol):
    """Answers one request at a time; the body of a request is not foreseen."""

    def __init__(self, registry: LeanRegistry, peers: set[_Connection]) -> None:
        self._registry = registry
        self._holding = registry.holding
        self._latency = registry.latency
        self._peers = peers
        self._received = b""
        self._sending: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self._timer is not None:
            self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()
        self._peers.discard(self)

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received[:1] == TLS_RECORD:
            self._transport.close()
            return
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head, self._received = self._received[:end], self._received[end + 4 :]
            if self._latency:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._latency, self._answer, head)
            else:
                self._answer(head)

    def _answer(self, request: bytes) -> None:
        method, target, _ = request.split(b" ", 2)
        if target == self._holding.file_target and self._holding.file is not None:
            self._registry.sent += method != b"HEAD"
            self._send_file(self._holding.file, self._holding.blob, bodiless=method == b"HEAD")
            return
        if target in self._holding.files:
            digest, path = self._holding.files[target]
            self._send_file(path, digest, bodiless=method == b"HEAD")
            return
        if target == SENT:
            count = str(self._registry.sent).encode()
            self._transport.write(_head("text/plain", len(count)) + count)
            return
        answer = self._holding.answers.get(target)
        if answer is None:
            self._transport.write(MISSING)
        else:
            self._transport.write(answer[0] if method == b"HEAD" else answer[0] + answer[1])

    def _send_file(self, file: Path, digest: str | None, *, bodiless: bool) -> None:
        opened = file.open("rb")
        size = file.stat().st_size
        self._transport.write(_head("application/octet-stream", size, digest))
        if bodiless:
            opened.close()
            return
        self._sending = asyncio.get_running_loop().create_task(self._stream(opened))

    async def _stream(self, opened: BinaryIO) -> None:
        with opened, contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sendfile(self._transport, opened)


@contextlib.contextmanager
def serve(
    *,
    instances: int,
    singles: int = 0,
    latency: float = 0.0,
    file: Path | None = None,
    small: int = 0,
    large: Sequence[Path] = (),
    certificate: Path | None = None,
) -> Generator[Offer]:
    """Run the registry in a process of its own, until the block is left.

    Arguments as `hold` and `LeanRegistry`.
    """
    command = [sys.executable, "-m", "benchmarks.server", f"--instances={instances}"]
    command += [f"--singles={singles}", f"--latency={latency}", f"--small={small}"]
    command += [f"--large={path}" for path in large]
    if file is not None:
        command.append(f"--blob={file}")
    if certificate is not None:
        command.append(f"--certificate={certificate}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = json.loads(cast("TextIO", process.stdout).readline())
            yield Offer(**said | {"instances": tuple(said["instances"])})
        finally:
            process.terminate()


async def _run(registry: LeanRegistry) -> None:
    async with registry:
        sys.stdout.write(json.dumps(asdict(registry.offer)) + "\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().create_future()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server")
    parser.add_argument("--instances", type=int, default=64, help="images in the index")
    parser.add_argument("--singles", type=int, default=0, help="images on their own")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds before each answer")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--blob", type=Path, help="a file to serve as a blob")
    parser.add_argument("--small", type=int, default=0, help="images in the index to copy")
    parser.add_argument(
        "--large", type=Path, action="append", default=[], help="a layer of the image to copy"
    )
    parser.add_argument("--certificate", type=Path, help="a certificate and its key, for TLS")
    options = parser.parse_args(arguments)
    holding = hold(
        options.instances,
        singles=options.singles,
        file=options.blob,
        small=options.small,
        large=options.large,
    )
    registry = LeanRegistry(
        holding, latency=options.latency, port=options.port, certificate=options.certificate
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(registry))


if __name__ == "__main__":
    main()
