"""Signatures that lie beside a registry: numbered files in a directory or on a web server.

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
from asupplemented.transports.registry.addresses import origin_of
from asupplemented.transports.registry.bodies import refuse
from asupplemented.transports.registry.documents import receive
from asupplemented.transports.registry.endpoint import DIRECT
from asupplemented.transports.registry.error_response import Inquiry
from asupplemented.transports.registry.patience import judge
from asupplemented.transports.registry.redirects import Courier, Home, Parcel, parse_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import aiohttp
    from yarl import URL

    from asupplemented.abc import Context
    from asupplemented.model.digest import Digest
    from asupplemented.model.name import ImageName
    from asupplemented.transports.registry.request import Caller, Means

__all__ = ("fetch_beside",)

_HTML: Final = "text/html"
_HERE: Final = frozenset(("", "localhost"))
_ABSENT: Final = 404
_ANSWERS: Final = frozenset((200, _ABSENT))
_WHAT: Final = "signature"


async def fetch_beside(
    base: str, name: ImageName, digest: Digest, means: Means, caller: Caller, context: Context
) -> list[Signature]:
    """Read the signatures of a manifest that lie beside its registry.

    Nothing of the registry is used for that: no credentials, and no trust in what it is.

    Args:
        base: The URL that all of them have in common.
        name: The image.
        digest: Of the manifest.
        means: Connections, settings and time.
        caller: Who it is for.
        context: The session, in whose threads files are read.

    Raises:
        ConfigurationError: `base` is nothing where signatures could be.
        LimitExceededError: There are more than ``MAX_SIGNATURES``, or one is too large.
        LayoutError: One is no signature, or no file below `base`.
        SourceError: They cannot be read.
    """
    urls = partial(locate_signature, base, name, digest)
    match urlsplit(base).scheme:
        case "file":
            blobs = await run_blocking(context, _read_files, base, urls)
        case "http" | "https":
            blobs = await _fetch_files(await _Server.find(base, means, caller), urls)
        case scheme:
            message = f"signatures lie at file, http or https URLs, not at {excerpt(scheme)}"
            raise ConfigurationError(message)
    return [Signature.from_blob(blob) for blob in blobs]


def _numbers() -> Iterator[int]:
    """The numbers to look for; whoever takes one more than there may be has found too many."""
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
    if parts.netloc not in _HERE or not path.is_absolute() or "\0" in str(path):
        message = "the URL of a directory of signatures has the form file:///path"
        raise ConfigurationError(message)
    return path


def _read_file(root: Path, path: Path) -> bytes | None:
    """Read a file, None if it is missing. It has to be below `root`, after all links (SEC-11)."""
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
    """A web server with signatures. It gets to know nothing but their names."""

    def __init__(self, courier: Courier, means: Means, caller: Caller) -> None:
        self._courier = courier
        self._means = means
        self._caller = caller

    @classmethod
    async def find(cls, base: str, means: Means, caller: Caller) -> _Server:
        try:
            url = parse_url(base)
        except ValueError as error:
            message = f"signatures lie at a URL that {error}"
            raise ConfigurationError(message) from None
        proxies = means.options.proxies or DIRECT
        channel = await means.connections.open_channel(
            url, verify=True, reach=None, proxies=proxies
        )
        home = Home(url, origin_of(url), channel, insecure=False, proxies=proxies)
        return cls(Courier(means.connections, means.options, home), means, caller)

    async def fetch(self, url: URL) -> bytes | None:
        """Get a file, None if it is missing."""
        response = await retry(
            partial(self._ask, url),
            judge=judge,
            policy=self._means.options.retry,
            clock=self._means.clock,
            notify=self._caller.report_retry,
        )
        if response.status == _ABSENT:
            response.close()
            return None
        timeouts = self._means.timeouts
        letter = await receive(response, _WHAT, limit=MAX_SIGNATURE, timeouts=timeouts)
        if letter.media_type == _HTML:
            self._caller.warn(f"{letter.url} is a page for people, where a signature should be")
        return letter.body

    async def _ask(self, url: URL) -> aiohttp.ClientResponse:
        headers = CIMultiDict({hdrs.ACCEPT: "*/*"})
        response, _ = await self._courier.deliver(Parcel(url, headers, headers))
        if response.status in _ANSWERS:
            return response
        raise await refuse(response, Inquiry(_WHAT), self._means)


async def _fetch_files(server: _Server, locate: Callable[[int], str]) -> list[bytes]:
    """Fetch files until one is missing."""
    blobs: list[bytes] = []
    for number in _numbers():
        blob = await server.fetch(parse_url(locate(number)))
        if blob is None:
            break
        blobs.append(blob)
    return blobs
