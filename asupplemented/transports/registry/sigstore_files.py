"""Signatures in files beside a registry, in a directory or on a web server.

They are at ``BASE/PATH@ALGORITHM=HEX/signature-N``, N from 1 until one is missing (rule SIG-02).
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from aiohttp import hdrs
from multidict import CIMultiDict

from asupplemented.aio.files import read_limited
from asupplemented.aio.retry import retry
from asupplemented.aio.threads import run_blocking
from asupplemented.errors import (
    ConfigurationError,
    LayoutError,
    LimitExceededError,
    NotFoundError,
    excerpt,
)
from asupplemented.hostconfig.registries_d import locate_signature
from asupplemented.limits import MAX_SIGNATURE, MAX_SIGNATURES
from asupplemented.model.signature import Signature
from asupplemented.transports.registry.bodies import refuse
from asupplemented.transports.registry.documents import HTML, read_document
from asupplemented.transports.registry.endpoint import DIRECT
from asupplemented.transports.registry.error_response import Target
from asupplemented.transports.registry.failures import should_retry
from asupplemented.transports.registry.redirects import RedirectClient, parse_url
from asupplemented.transports.registry.request import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import aiohttp
    from yarl import URL

    from asupplemented.abc import Context
    from asupplemented.model.digest import Digest
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.request import ClientDeps, RequestContext

__all__ = ("fetch_beside",)

_LOCAL_HOSTS: Final = frozenset(("", "localhost"))
_ABSENT: Final = 404
_STATUSES: Final = frozenset((200, _ABSENT))
_TARGET: Final = Target("signature")


async def fetch_beside(
    base: str,
    name: ImageName,
    digest: Digest,
    deps: ClientDeps,
    request_context: RequestContext,
    context: Context,
) -> list[Signature]:
    """Read the signatures of a manifest that are kept beside its registry.

    The registry's credentials, certificates and insecure setting are not used for it.

    Args:
        base: The URL below which all of them are.
        name: The image.
        digest: Of the manifest.
        deps: Connections, settings and clock.
        request_context: The reference that it is for.
        context: The session, in whose threads files are read.

    Raises:
        ConfigurationError: `base` is not a URL where signatures can be.
        LimitExceededError: There are more than ``MAX_SIGNATURES``, or one is too large.
        LayoutError: One is not a signature, or not a file below `base`.
        SourceError: They cannot be read.
    """
    urls = partial(locate_signature, base, name, digest)
    match urlsplit(base).scheme:
        case "file":
            blobs = await run_blocking(context, _read_files, base, urls)
        case "http" | "https":
            blobs = await _fetch_files(await _Server.find(base, deps, request_context), urls)
        case scheme:
            message = f"signatures are at file, http or https URLs, not at {excerpt(scheme)}"
            raise ConfigurationError(message)
    return [Signature.from_blob(blob) for blob in blobs]


def _numbers() -> Iterator[int]:
    """The numbers to read. Asking for one more than the limit raises `LimitExceededError`."""
    yield from range(1, MAX_SIGNATURES + 2)
    message = f"a manifest has more than {MAX_SIGNATURES} signatures"
    raise LimitExceededError(message, limit=MAX_SIGNATURES)


# Files


def _read_files(base: str, locate: Callable[[int], str]) -> list[bytes]:
    """Read files until one is missing. Blocking."""
    root = _path_of(base)
    blobs: list[bytes] = []
    for number in _numbers():
        blob = _read_file(root, _path_of(locate(number)))
        if blob is None:
            break
        blobs.append(blob)
    return blobs


def _path_of(url: str) -> Path:
    parts = urlsplit(url)
    path = Path(unquote(parts.path))
    if parts.netloc not in _LOCAL_HOSTS or not path.is_absolute() or "\0" in str(path):
        message = "the URL of a directory of signatures has the form file:///path"
        raise ConfigurationError(message)
    return path


def _read_file(root: Path, path: Path) -> bytes | None:
    """Read a file, None if it is missing.

    After all links are followed, it has to be below `root` (rule SEC-11).
    """
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        message = f"{path} is a link that leads out of {root}"
        raise LayoutError(message)
    try:
        return read_limited(real, MAX_SIGNATURE, follow=False)
    except NotFoundError:
        return None


# Web servers


class _Server:
    """A web server with signatures. It gets no credentials."""

    def __init__(
        self, redirect_client: RedirectClient, deps: ClientDeps, request_context: RequestContext
    ) -> None:
        self._redirect_client = redirect_client
        self._deps = deps
        self._request_context = request_context

    @classmethod
    async def find(cls, base: str, deps: ClientDeps, request_context: RequestContext) -> _Server:
        try:
            url = parse_url(base)
        except ValueError as error:
            message = f"the URL of the signatures {error}"
            raise ConfigurationError(message) from None
        proxies = deps.options.proxies or DIRECT
        endpoint = await deps.connections.open_endpoint(
            url, verify=True, max_scope=None, proxies=proxies
        )
        client = RedirectClient(deps.connections, deps.options, endpoint, proxies=proxies)
        return cls(client, deps, request_context)

    async def fetch(self, url: URL) -> bytes | None:
        """Get a file, None if it is missing."""
        response = await retry(
            partial(self._send, url),
            judge=should_retry,
            policy=self._deps.options.retry,
            clock=self._deps.clock,
            notify=self._request_context.report_retry,
        )
        if response.status == _ABSENT:
            response.close()
            return None
        timeouts = self._deps.timeouts
        what = _TARGET.description
        document = await read_document(response, what, limit=MAX_SIGNATURE, timeouts=timeouts)
        if document.media_type == HTML:
            self._request_context.warn(f"{document.place} is an HTML page and not a signature")
        return document.body

    async def _send(self, url: URL) -> aiohttp.ClientResponse:
        headers = CIMultiDict({hdrs.ACCEPT: "*/*"})
        response, _ = await self._redirect_client.send(Request(url, _TARGET, headers))
        if response.status in _STATUSES:
            return response
        raise await refuse(response, _TARGET, self._deps)


async def _fetch_files(server: _Server, locate: Callable[[int], str]) -> list[bytes]:
    """Fetch files until one is missing."""
    blobs: list[bytes] = []
    for number in _numbers():
        blob = await server.fetch(parse_url(locate(number)))
        if blob is None:
            break
        blobs.append(blob)
    return blobs
