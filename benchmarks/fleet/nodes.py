"""Nodes: clients that pull one image as containerd does.

A node asks for the tag by HEAD, then for the manifest by its digest, for the config, and for the
layers, three at a time. If a proxy breaks off or fails, the node asks the next one for the rest.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from asupplemented.model.digest import Digest
from benchmarks.fleet.proxies import NAME

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from asupplemented.testing import BuiltImage
    from benchmarks.fleet.network import Machine
    from benchmarks.fleet.proxies import Proxy, Reply

__all__ = ("CorruptError", "Expected", "Node")

PARALLEL: Final = 3
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 8.0
"""Seconds before a node asks again; each pause is twice as long as the one before."""

_SERVED: Final = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})
_FAILED: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, *range(500, 600)})


class CorruptError(Exception):
    """A node got other bytes than those that the image has."""


class Expected:
    """The image, with which nodes compare what they get.

    Comparing proves more than hashing. Files that a proxy sends as a whole are compared once, and
    not for each of a thousand nodes.

    Args:
        image: The image.
    """

    def __init__(self, image: BuiltImage) -> None:
        self.image = image
        self._right: dict[tuple[Digest, int], object] = {}
        """Objects that were compared as a whole, kept so that no other object gets their ids."""

    def check(self, digest: Digest, at: int, part: memoryview) -> None:
        """Compare a part of a blob or manifest.

        Raises:
            CorruptError: It differs.
        """
        whole = self.find(digest)
        key = digest, id(part.obj)
        if key in self._right:
            return
        if at == 0 and part.obj == whole:
            self._right[key] = part.obj
        elif not whole.startswith(bytes(part), at):  # memoryviews compare item by item
            message = f"{digest} has wrong bytes at {at}"
            raise CorruptError(message)

    def find(self, digest: Digest) -> bytes:
        """The right bytes."""
        return self.image.raw if digest == self.image.digest else self.image.blobs[digest]


class Node:
    """A client, and what became of its pull.

    Args:
        machine: Its machine.
        proxies: Those that it may ask, its own one first.
        expected: The image.
        rng: Chance, for pauses.

    Attributes:
        began: When it began to pull.
        ended: When it had the whole image, compared; None before.
        first_bytes: For each blob the seconds from its first request to its first byte.
        retries: Requests that failed and were sent again.
    """

    def __init__(
        self, machine: Machine, proxies: Sequence[Proxy], expected: Expected, rng: random.Random
    ) -> None:
        self.machine = machine
        self.began = 0.0
        self.ended: float | None = None
        self.first_bytes: list[float] = []
        self.retries = 0
        self._proxies = proxies
        self._expected = expected
        self._rng = rng
        self._at = 0

    async def pull(self, delay: float) -> None:
        """Pull the image after some seconds."""
        await asyncio.sleep(delay)
        loop = asyncio.get_running_loop()
        self.began = loop.time()
        reply = await self._ask("HEAD", "manifests/latest", _Body())
        digest = Digest(reply.headers["docker-content-digest"])
        manifest = json.loads(await self._fetch("manifests", digest))
        await self._fetch("blobs", Digest(manifest["config"]["digest"]))
        slots = asyncio.Semaphore(PARALLEL)

        async def fetch(layer: Digest) -> None:
            async with slots:
                await self._fetch("blobs", layer)

        async with asyncio.TaskGroup() as group:
            for layer in manifest["layers"]:
                group.create_task(fetch(Digest(layer["digest"])))
        self.ended = loop.time()

    async def _fetch(self, kind: str, digest: Digest) -> bytes:
        loop = asyncio.get_running_loop()
        body = _Body(partial(self._expected.check, digest))
        began, whole = loop.time(), self._expected.find(digest)
        reply = await self._ask("GET", f"{kind}/{digest}", body)
        if reply.status not in _SERVED:
            message = f"{digest} was answered with {reply.status}"
            raise CorruptError(message)
        if body.received != len(whole):
            message = f"{digest} has {len(whole)} bytes, and {body.received} came"
            raise CorruptError(message)
        if kind == "blobs":
            assert body.first is not None  # noqa: S101 - no blob is empty
            self.first_bytes.append(body.first - began)
        return whole

    async def _ask(self, method: str, path: str, body: _Body) -> Reply:
        """Ask one proxy after another until one answers, each for what is missing."""
        pause = FIRST_PAUSE
        while True:
            at = self._at
            headers = {"range": f"bytes={body.received}-"} if body.received else {}
            try:
                reply = await self._proxies[at].ask(
                    self.machine, method, f"/v2/{NAME}/{path}", headers, body
                )
            except ConnectionError:
                pass
            else:
                if reply.status not in _FAILED:
                    return reply
            self.retries += 1
            if self._at == at:  # Another request of this node may have moved on already.
                self._at = (at + 1) % len(self._proxies)
            await asyncio.sleep(pause * (0.5 + self._rng.random() / 2))
            pause = min(2 * pause, LONGEST_PAUSE)


class _Body:
    """What came of a blob or manifest so far."""

    def __init__(self, check: Callable[[int, memoryview], None] | None = None) -> None:
        self.received = 0
        self.first: float | None = None
        """When the first byte came."""
        self._check = check
        self._wanted = False

    def begin(self, status: int) -> None:
        self._wanted = status in _SERVED
        if status == HTTPStatus.OK:
            self.received = 0

    def take(self, part: memoryview) -> None:
        if not self._wanted:
            return  # the body of an error
        if self.first is None:
            self.first = asyncio.get_running_loop().time()
        if self._check is not None:
            self._check(self.received, part)
        self.received += len(part)
