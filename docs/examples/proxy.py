"""A pull-through proxy in one page: a group of references, served through a cache.

``python docs/examples/proxy.py docker://registry.example/team/app:1.4`` serves the image as
``localhost:5000/app:latest``. Each blob is fetched once, however many clients ask for it at once.
A cached blob is sent by the kernel from its file.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from aiohttp import web

import asupplemented as asup

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.typedefs import Handler

IMAGE: web.AppKey[asup.SupplementedSource] = web.AppKey("image", asup.SupplementedSource)
VERSION = {"Docker-Distribution-API-Version": "registry/2.0"}


class CachedBlob(web.FileResponse):
    """A file of the cache. Its stream protects it from eviction until it was sent."""

    def __init__(self, path: Path, blob: asup.BlobStream, headers: dict[str, str]) -> None:
        super().__init__(path, headers=headers)
        self._blob = blob

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send the whole file; aiohttp does that here."""
        try:
            return await super().prepare(request)
        finally:
            await self._blob.aclose()


async def check_version(_: web.Request) -> web.Response:
    """Say that this is a registry."""
    return web.json_response({}, headers=VERSION)


async def send_manifest(request: web.Request) -> web.Response:
    """The manifest of the image by any tag, or one of its manifests by digest."""
    wanted = request.match_info["reference"]
    manifest = await request.app[IMAGE].get_manifest(wanted if ":" in wanted else None)
    headers = {"Docker-Content-Digest": manifest.digest, **VERSION}
    return web.Response(body=manifest.raw, content_type=manifest.media_type, headers=headers)


async def find_blob(image: asup.SupplementedSource, digest: asup.Digest) -> asup.Descriptor:
    """Find what a manifest of the image says about a blob. No blob is opened."""
    if digest not in image.resolution.blobs:
        message = "no manifest of the image names this blob"
        raise asup.BlobNotFoundError(message, digest=digest)
    manifest = await image.get_manifest(image.resolution.blobs[digest])
    return next(blob for blob in manifest.parse_image().blobs if blob.digest == digest)


async def send_blob(request: web.Request) -> web.StreamResponse:
    """A blob: from the cache if it is there, else as it comes from upstream."""
    image, digest = request.app[IMAGE], asup.Digest(request.match_info["digest"])
    descriptor = await find_blob(image, digest)
    headers = {"Docker-Content-Digest": digest, "Content-Type": "application/octet-stream"}
    response = web.StreamResponse(headers=headers)
    response.content_length = descriptor.size
    if request.method == "HEAD":
        return response
    async with AsyncExitStack() as scope:
        blob = await scope.enter_async_context(image.open_blob(descriptor))
        if (path := blob.take_path()) is not None:
            scope.pop_all()
            return CachedBlob(path, blob, headers)
        await response.prepare(request)
        try:
            async for chunk in blob:
                await response.write(chunk)
        except asup.SupplementedError:
            # The status is out, so only a cut tells the client that the blob is incomplete.
            if request.transport is not None:
                request.transport.abort()
        return response


@web.middleware
async def map_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Respond 404 if content is missing, and 502 if upstream fails."""
    try:
        return await handler(request)
    except (asup.NotFoundError, asup.InvalidDigestError):
        raise web.HTTPNotFound from None
    except asup.SourceError:
        raise web.HTTPBadGateway from None


def make_app(image: asup.SupplementedSource) -> web.Application:
    """Make the application for an image, which stays open as long as it runs."""
    app = web.Application(middlewares=[map_errors])
    app[IMAGE] = image
    app.router.add_get("/v2/", check_version)
    app.router.add_get("/v2/{name:.+}/manifests/{reference}", send_manifest)
    app.router.add_get("/v2/{name:.+}/blobs/{digest}", send_blob)
    return app


async def serve(references: Sequence[str], cache: Path, port: int) -> None:
    """Open the group and serve it until cancelled."""
    async with AsyncExitStack() as scope:
        kept = await scope.enter_async_context(asup.LayoutCache(cache, max_bytes=10 << 30))
        session = await scope.enter_async_context(asup.Session(cache=kept))
        image = await scope.enter_async_context(asup.supplement(*references).open(session))
        runner = web.AppRunner(make_app(image))
        await runner.setup()
        scope.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "localhost", port).start()
        print(f"localhost:{port}/app:latest is {image.resolution.top}")
        await asyncio.Event().wait()


def main() -> None:
    """Read the arguments and serve through a temporary cache."""
    parser = argparse.ArgumentParser()
    parser.add_argument("references", nargs="+", metavar="REFERENCE")
    parser.add_argument("--port", type=int, default=5000)
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="asupplemented-proxy-") as cache:
        asyncio.run(serve(arguments.references, Path(cache), arguments.port))


if __name__ == "__main__":
    main()
