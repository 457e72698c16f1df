"""A FastAPI application with a registry: ``uvicorn --app-dir docs/examples fastapi_proxy:app``."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import asupplemented as asup

NAMES = {"quay.io/*": ["docker://quay.io/{name}", "docker://mirror.lan/{name}"]}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Mount the registry, and close what it uses at the end."""
    async with (
        asup.LayoutCache("/srv/cache", max_bytes=50 << 30, fills=True) as cache,
        asup.Session(cache=cache, timeouts=asup.Timeouts(connect=3, first_byte=5)) as session,
        asup.Catalog(NAMES) as catalog,
    ):
        app.mount("/v2", asup.web.asgi_app(catalog, session))
        yield


app = FastAPI(lifespan=lifespan)
