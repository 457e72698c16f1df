"""A read-only registry to mount in an application: the ``/v2/`` endpoint of a `Catalog`.

::

    app.add_subapp("/v2/", asup.web.registry_app(catalog, session))  # aiohttp.web
    fastapi_app.mount("/v2", asup.web.asgi_app(catalog, session))  # FastAPI, Starlette, any ASGI

Both run as they are, too: their own path is ``/v2/`` then.

Theory of operation
-------------------

One request passes through four steps. The first and the third are functions without input or
output; both applications share all but the last.

1. `plan` reads method, path and query, and gives what is asked for, or an answer that is final
   already: wrong methods, malformed names and digests never reach the catalog.
2. `exchange` asks who the client is, then asks the catalog for the manifest, the size of the blob,
   the tags or the referrers. All of that has one deadline.
3. `answers` makes status, headers and body from what was found: conditions, then ranges, then
   pages. The body of a blob is a list of parts to be sent, not bytes.
4. The application sends the answer. The status is out then, so a blob that breaks off can only be
   cut: the connection is aborted, and no further byte follows on it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from asupplemented.web.access import (
    AccessRequest,
    Authenticate,
    Challenge,
    Denied,
    Identity,
    basic,
    bearer,
)
from asupplemented.web.contract import ServedCatalog, ServedImage
from asupplemented.web.exchange import Limits

if TYPE_CHECKING:
    from asupplemented.web.admin import admin_app
    from asupplemented.web.aiohttp_app import registry_app
    from asupplemented.web.asgi import asgi_app
    from asupplemented.web.status import Status, StatusBoard, merge_status

__all__ = (
    "AccessRequest",
    "Authenticate",
    "Challenge",
    "Denied",
    "Identity",
    "Limits",
    "ServedCatalog",
    "ServedImage",
    "Status",
    "StatusBoard",
    "admin_app",
    "asgi_app",
    "basic",
    "bearer",
    "merge_status",
    "registry_app",
)

_LAZY = {
    "Status": "asupplemented.web.status",
    "StatusBoard": "asupplemented.web.status",
    "admin_app": "asupplemented.web.admin",
    "merge_status": "asupplemented.web.status",
    "asgi_app": "asupplemented.web.asgi",
    "registry_app": "asupplemented.web.aiohttp_app",
}
"""Loaded when first used: an ASGI application needs no server of aiohttp, and few the status."""


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        message = f"module 'asupplemented.web' has no attribute {name!r}"
        raise AttributeError(message)
    found: object = getattr(import_module(_LAZY[name]), name)
    globals()[name] = found
    return found
