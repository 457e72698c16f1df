"""A certificate authority for one test, and TLS contexts of it. Needs the package trustme."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from asupplemented.errors import ConfigurationError

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    import trustme

__all__ = ("Authority",)

CLIENT: Final = "client@example.org"


class Authority:
    """A new certificate authority, which no client trusts by default.

    Raises:
        ConfigurationError: The package trustme is not installed.
    """

    def __init__(self) -> None:
        self._authority = _load()()

    @property
    def pem(self) -> bytes:
        """Its certificate, in PEM."""
        return self._authority.cert_pem.bytes()

    def server_context(
        self,
        *names: str,
        demand_client: bool = False,
        not_after: datetime | None = None,
    ) -> ssl.SSLContext:
        """A context for a server, with a certificate of its own.

        Args:
            names: Host names and addresses of the certificate; by default ``127.0.0.1`` and
                ``localhost``. With other names clients refuse the server.
            demand_client: Whether to refuse clients without a certificate of this authority.
            not_after: When the certificate expires; None for far in the future.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        names = names or ("127.0.0.1", "localhost")
        _show(context, self._authority.issue_cert(*names, not_after=not_after))
        if demand_client:
            context.load_verify_locations(cadata=self.pem.decode())
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_context(self, *, certificate: bool = False) -> ssl.SSLContext:
        """A context for a client that trusts this authority and no other.

        Args:
            certificate: Whether it sends a client certificate.
        """
        context = ssl.create_default_context(cadata=self.pem.decode())
        if certificate:
            _show(context, self._authority.issue_cert(CLIENT))
        return context

    def write(self, directory: Path, *, client: bool = False) -> Path:
        """Fill a directory of ``certs.d`` (rule TLS-03). Blocking.

        Args:
            directory: Made if it does not exist; ``ca.crt`` is written there.
            client: Whether to write ``client.cert`` and ``client.key`` too.

        Returns:
            The directory.
        """
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "ca.crt").write_bytes(self.pem)
        if client:
            pair = self._authority.issue_cert(CLIENT)
            chain = b"".join(blob.bytes() for blob in pair.cert_chain_pems)
            (directory / "client.cert").write_bytes(chain)
            (directory / "client.key").write_bytes(pair.private_key_pem.bytes())
        return directory


def _show(context: ssl.SSLContext, pair: trustme.LeafCert) -> None:
    """Load a certificate into a context; Python reads them from files only."""
    with pair.private_key_and_cert_chain_pem.tempfile() as file:
        context.load_cert_chain(file)


def _load() -> type[trustme.CA]:
    try:
        from trustme import CA  # noqa: PLC0415  # only tests over TLS need it
    except ModuleNotFoundError as error:
        raise ConfigurationError("TLS in tests needs trustme: pip install trustme") from error
    return CA
