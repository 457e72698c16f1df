"""Plain requests: sent by the connector of aiohttp, past what `ClientSession` does for others.

Theory of operation. `aiohttp.ClientSession.request` merges headers, looks for cookies and for
credentials in URLs, chooses a proxy, and follows redirects. A request to a registry needs none of
that, and it is a fifth of what a small response costs. `send_plainly` makes the same calls to the
request, the connector and the response as `ClientSession` makes, and no others.

aiohttp documents `ClientRequest` and `BaseConnector.connect`, but not how they work together. So
`TESTED` lists the versions of aiohttp for which the tests have shown that it is right. With any
other version `ClientSession.request` sends everything, and so it does with every version where a
request has a body, goes through a proxy, or uses a borrowed client.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from aiohttp.connector import Connection
    from aiohttp.typedefs import LooseCookies, LooseHeaders
    from yarl import URL

__all__ = ("TESTED", "PlainRequest", "is_tested", "send_plainly")

TESTED: Final = ("3.13.", "3.14.")
"""Versions of aiohttp, by their beginning, with which `send_plainly` was tested."""


def is_tested(version: str = aiohttp.__version__) -> bool:
    """Whether `send_plainly` can be used with a version of aiohttp."""
    return version.startswith(TESTED)


class PlainRequest(aiohttp.ClientRequest):
    """A request whose headers are complete when it is made.

    It skips the search for missing headers and for cookies, a good part of the cost of a small
    request. If another aiohttp names these methods differently, requests are still right, and a
    little slower.
    """

    def update_headers(self, headers: LooseHeaders | None) -> None:
        if isinstance(headers, CIMultiDict) and hdrs.HOST in headers:
            self.headers: CIMultiDict[str] = headers
        else:
            super().update_headers(headers)

    def update_auto_headers(self, skip_auto_headers: Iterable[str] | None) -> None:
        """Do nothing: the headers of the client have them all."""

    def update_cookies(self, cookies: LooseCookies | None) -> None:
        """Do nothing: `aiohttp.DummyCookieJar` has none."""


async def send_plainly(
    client: aiohttp.ClientSession,
    url: URL,
    *,
    method: str,
    headers: CIMultiDict[str] | None,
    tls: ssl.SSLContext | bool,
    header_limit: int,
) -> aiohttp.ClientResponse:
    """Send a request without a body, and wait for the head of the response.

    A connection that was idle and turns out to be closed is replaced once.

    Args:
        client: Gives the connector, the headers of every request, and the limit of connecting.
        url: An absolute URL without user and password.
        method: GET or HEAD.
        headers: They take precedence over those of the client.
        tls: The TLS settings.
        header_limit: The most bytes of the status line, and of each header.

    Raises:
        aiohttp.ClientError: There is no connection, it broke, or the response is not HTTP.
        OSError: The same.
        RuntimeError: The client is closed.
    """
    connector = client.connector
    if connector is None or client.closed:
        message = "the client is closed"
        raise RuntimeError(message)
    loop = asyncio.get_running_loop()
    replaced = False
    while True:
        complete = CIMultiDict(((hdrs.HOST, url.host_port_subcomponent or ""),))
        complete.extend(client.headers)
        if headers is not None:
            complete.update(headers)
        request = PlainRequest(method, url, headers=complete, loop=loop, session=client, ssl=tls)
        try:
            connection = await connector.connect(request, [], client.timeout)
        except TimeoutError as error:
            message = f"no connection to {url.host}"
            raise aiohttp.ConnectionTimeoutError(message) from error
        try:
            _expect_response(connection, method, header_limit)
            response = await request.send(connection)
            try:
                return await response.start(connection)
            except BaseException:
                response.close()
                raise
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
            connection.close()
            if replaced:
                raise
            replaced = True
        except BaseException:
            connection.close()
            raise


def _expect_response(connection: Connection, method: str, header_limit: int) -> None:
    """Tell the parser of a connection about the next response."""
    protocol = connection.protocol
    if protocol is None:
        message = "the connection is closed"
        raise aiohttp.ServerDisconnectedError(message)
    protocol.set_response_params(
        skip_payload=method == hdrs.METH_HEAD,
        read_until_eof=True,
        auto_decompress=False,
        max_line_size=header_limit,
        max_field_size=header_limit,
    )
