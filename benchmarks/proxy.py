"""The smallest proxy that one would write with this library: one blob of one image.

``python -m benchmarks.proxy --digest sha256:... --size 1024 docker://...`` prints one JSON line
that says where it listens, then serves the blob at every path until it is terminated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

import asupplemented as asup
from asupplemented.cache.layout.layout_cache import LayoutCache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.abc import AbstractStreamWriter

__all__ = ("main", "serve_blob")

CACHE_BYTES = 1 << 34


class KeptBlob(web.FileResponse):
    """A verified file, sent by the kernel; its stream protects it meanwhile, and ends then."""

    def __init__(self, blob: asup.BlobStream, path: Path) -> None:
        super().__init__(path)
        self._blob = blob

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send all of it, as aiohttp calls that."""
        try:
            return await super().prepare(request)
        finally:
            await self._blob.aclose()


async def serve_blob(
    request: web.BaseRequest, source: asup.Source, descriptor: asup.Descriptor
) -> web.StreamResponse:
    """One blob: by the kernel if it is in a file that was verified, else as it comes."""
    async with contextlib.AsyncExitStack() as scope:
        blob = await scope.enter_async_context(source.open_blob(descriptor))
        if (path := blob.take_path()) is not None:
            scope.pop_all()
            return KeptBlob(blob, path)
        response = web.StreamResponse()
        response.content_length = blob.size
        await response.prepare(request)
        async for chunk in blob:
            await response.write(chunk)
        await response.write_eof()
        return response


async def run(reference: str, descriptor: asup.Descriptor, cache: Path | None) -> None:
    """Serve until cancelled."""
    kept = None if cache is None else LayoutCache(cache, CACHE_BYTES)
    async with (
        asup.Session(tls_verify=False, cache=kept) as session,
        asup.parse_reference(reference).open(session) as source,
    ):

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            with contextlib.suppress(ConnectionError):  # the client has left
                return await serve_blob(request, source, descriptor)
            return web.Response()

        server = web.Server(handle)
        runner = web.ServerRunner(server)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
            await asyncio.get_running_loop().create_future()
        finally:
            await runner.cleanup()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy")
    parser.add_argument("reference")
    parser.add_argument("--digest", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--cache", type=Path, help="a directory to keep blobs in")
    options = parser.parse_args(arguments)
    descriptor = asup.Descriptor("application/octet-stream", options.digest, options.size)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(options.reference, descriptor, options.cache))


if __name__ == "__main__":
    sys.exit(main())
