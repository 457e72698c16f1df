"""An aiohttp application with a registry: ``python docs/examples/aiohttp_proxy.py``."""

from aiohttp import web

import asupplemented as asup

NAMES = {"quay.io/*": ["docker://quay.io/{name}", "docker://mirror.lan/{name}"]}


async def make_app() -> web.Application:
    """Make the application, which closes what it opens."""
    cache = asup.LayoutCache("/srv/cache", max_bytes=50 << 30, fills=True)
    timeouts = asup.Timeouts(connect=3, first_byte=5)
    session = asup.Session(cache=cache, timeouts=timeouts)
    catalog = asup.Catalog(NAMES)

    async def close(_: web.Application) -> None:
        for resource in (catalog, session, cache):
            await resource.aclose()

    app = web.Application()
    app.add_subapp("/v2/", asup.web.registry_app(catalog, session))
    app.on_cleanup.append(close)
    return app


if __name__ == "__main__":
    web.run_app(make_app(), port=5000, max_field_size=65536)
