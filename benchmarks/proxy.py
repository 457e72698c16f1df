"""The proxies of the benchmarks: `registry_app` before one repository, or a bare aiohttp handler.

``python -m benchmarks.proxy docker://127.0.0.1:5000/bench`` prints one JSON line that says where it
listens, then serves the repository as ``bench`` until it is terminated. With ``--bare`` it answers
every path with one manifest, as the smallest handler of aiohttp does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

import asupplemented as asup
from asupplemented.cache.layout.layout_cache import LayoutCache

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

__all__ = ("bare_app", "main", "open_app")

CACHE_BYTES = 1 << 34
TTL = 3600.0
"""Seconds for which a tag is not asked for again: longer than a benchmark lasts."""


@contextlib.asynccontextmanager
async def open_app(reference: str, cache: Path | None = None) -> AsyncGenerator[web.Application]:
    """Serve a repository as ``bench``.

    Args:
        reference: The repository.
        cache: A directory to keep blobs in, None to keep none.
    """
    kept = None if cache is None else LayoutCache(cache, CACHE_BYTES)
    async with (
        asup.Session(tls_verify=False, cache=kept) as session,
        asup.Catalog({"bench": reference}, ttl=TTL) as catalog,
    ):
        yield asup.web.registry_app(catalog, session)


def bare_app(manifest: asup.Manifest) -> web.Application:
    """Answer every path with one manifest."""
    headers = {
        "Content-Type": manifest.media_type,
        "Docker-Content-Digest": manifest.digest,
        "ETag": f'"{manifest.digest}"',
    }

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=manifest.raw, headers=headers)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    return app


@contextlib.asynccontextmanager
async def _open_bare(reference: str) -> AsyncGenerator[web.Application]:
    async with (
        asup.Session(tls_verify=False) as session,
        asup.parse_reference(reference).open(session) as source,
    ):
        yield bare_app(await source.get_manifest())


async def run(options: argparse.Namespace) -> None:
    """Serve until cancelled."""
    opening = (
        _open_bare(f"{options.reference}:single-0")
        if options.bare
        else open_app(options.reference, options.cache)
    )
    async with opening as app:
        runner = web.AppRunner(app, access_log=None)
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
    parser.add_argument("--cache", type=Path, help="a directory to keep blobs in")
    parser.add_argument("--bare", action="store_true", help="serve one manifest, by aiohttp alone")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(parser.parse_args(arguments)))


if __name__ == "__main__":
    main()
