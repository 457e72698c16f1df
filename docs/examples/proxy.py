"""A pull-through proxy: ``python docs/examples/proxy.py`` serves quay.io at localhost:5000."""

from aiohttp import web

import asupplemented as asup


async def make_app() -> web.Application:
    """Make the application, which closes what it opens."""
    session, catalog = asup.Session(), asup.Catalog({"quay.io/*": "docker://quay.io/{name}"})
    app = asup.web.registry_app(catalog, session)
    app.on_cleanup.extend([lambda _: catalog.aclose(), lambda _: session.aclose()])
    return app


if __name__ == "__main__":
    web.run_app(make_app(), port=5000, max_field_size=65536)
