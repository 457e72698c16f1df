"""certs.d: own authorities and client certificates for a registry (rules TLS-01 to TLS-06)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from asupplemented.aio.files import map_os_error
from asupplemented.errors import ConfigurationError, excerpt
from asupplemented.hostconfig.documents import (
    is_visible,
    list_readable,
    read_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from asupplemented.hostconfig.paths import ConfigurationPaths

__all__ = ("Certificates", "ClientPair", "find_directory", "make_context", "read_certificates")

_DIRECTORY: Final = "certs.d"
_AUTHORITY: Final = ".crt"
_CERTIFICATE: Final = ".cert"
_KEY: Final = ".key"

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class ClientPair:
    """A certificate to show to a registry, with its chain, and its key; both in PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a directory of certs.d holds. A value; keys stay in their files until they are used.

    Attributes:
        authorities: Certificates in DER that are trusted besides those of the system.
        pairs: Sorted by file name.
        warnings: What the operator should know.
    """

    authorities: tuple[bytes, ...] = field(default=(), repr=False)
    pairs: tuple[ClientPair, ...] = ()
    warnings: tuple[str, ...] = ()


def find_directory(registry: str, paths: ConfigurationPaths) -> Path | None:
    """The one directory of certificates that counts for a registry (rule TLS-01). Blocking.

    Of the default ones that is the first one that exists, alone: nothing is merged. One that we
    may not look at counts as not there.

    Args:
        registry: ``host[:port]`` exactly as in references: ``quay.io`` and ``quay.io:443`` are
            two, and ``docker.io`` is never called otherwise here (rule TLS-02).
        paths: Where to look.

    Returns:
        None if there is none. A directory that was named need not exist.

    Raises:
        ConfigurationError: The name cannot be that of a directory.
    """
    if paths.certificates is not None:
        return paths.certificates
    if registry in {"", ".", ".."} or "/" in registry or "\0" in registry:
        message = f"{excerpt(registry)} is no host[:port], and has no certificates"
        raise ConfigurationError(message)
    if paths.certificates_root is not None:
        return paths.certificates_root / registry
    roots = (
        paths.of_user(_DIRECTORY),
        paths.of_system(_DIRECTORY),
        paths.of_system(_DIRECTORY, "docker"),
    )
    places = (root / registry for root in roots if root is not None)
    return next((place for place in places if is_visible(place)), None)


def read_certificates(directory: Path | None) -> Certificates:
    """Read a directory of certificates (rules TLS-03, TLS-04). Blocking.

    ``*.crt`` are authorities, ``X.cert`` with ``X.key`` is a pair; other names do not matter.
    What is no certificate within a ``.crt`` is passed over with a warning.

    Args:
        directory: None, or one that is not there, holds nothing.

    Raises:
        ConfigurationError: A file cannot be read, or half of a pair is missing.
    """
    if directory is None:
        return Certificates()
    files = list_readable(directory, _AUTHORITY, _CERTIFICATE, _KEY)
    if files is None:
        warning = f"{directory} may not be listed, so no certificate in it counts"
        return Certificates(warnings=(warning,))
    authorities, warnings = _read_authorities([f for f in files if f.suffix == _AUTHORITY])
    pairs = _match_pairs({file.name for file in files}, directory)
    if len(pairs) > 1:
        warnings.append(
            f"{directory} has several client certificates; of those with keys of one kind, the "
            f"first is shown: of all, {pairs[0].certificate.name}"
        )
    return Certificates(tuple(authorities), pairs, tuple(warnings))


def make_context(certificates: Certificates, *, verify: bool = True) -> ssl.SSLContext:
    """A new context for connections to a registry (rules TLS-05, TLS-06). Blocking.

    The authorities of the system count always. An own one need not be a root: who puts the
    certificate of an intermediate authority there means to trust it.

    Args:
        certificates: What to trust and to show besides.
        verify: False checks neither certificate nor host name. It is for the origin of an
            insecure registry, and for no other.

    Raises:
        ConfigurationError: A client certificate cannot be used: it is not readable, is not
            PEM, does not belong to its key, or the key needs a password.
    """
    context = ssl.create_default_context() if verify else _make_trusting()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if verify and certificates.authorities:
        context.load_verify_locations(cadata=b"".join(certificates.authorities))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # The last one loaded of each kind of key is shown, and the first one should be.
    for pair in reversed(certificates.pairs):
        _load_pair(context, pair)
    return context


def _make_trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _read_authorities(files: Sequence[Path]) -> tuple[list[bytes], list[str]]:
    """Certificates in DER, and warnings about what is none."""
    authorities: list[bytes] = []
    warnings: list[str] = []
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for file in files:
        data = read_bytes(file)
        if data is None:  # it went while we were looking, or is a link to nowhere
            continue
        blocks = tuple(_split(data))
        if not blocks:
            warnings.append(f"{file} holds no certificate in PEM, and is ignored; convert it")
        for number, block in enumerate(blocks, 1):
            certificate = _decode(block, probe)
            if certificate is None:
                warnings.append(f"{file}: certificate number {number} is broken, and ignored")
            else:
                authorities.append(certificate)
    return authorities, warnings


def _split(data: bytes) -> Iterator[bytes]:
    """The blocks of a PEM file that are to be certificates."""
    end = 0
    while (begin := data.find(_BEGIN, end)) >= 0:
        end = data.find(_END, begin)
        if end < 0:
            yield data[begin:]
            return
        end += len(_END)
        yield data[begin:end]


def _decode(block: bytes, probe: ssl.SSLContext) -> bytes | None:
    try:
        certificate = ssl.PEM_cert_to_DER_cert(block.decode("ascii"))
        probe.load_verify_locations(cadata=certificate)
    except (ValueError, ssl.SSLError):
        return None
    return certificate


def _match_pairs(names: set[str], directory: Path) -> tuple[ClientPair, ...]:
    certificates = {
        name.removesuffix(_CERTIFICATE) for name in names if name.endswith(_CERTIFICATE)
    }
    keys = {name.removesuffix(_KEY) for name in names if name.endswith(_KEY)}
    for stem in sorted(certificates ^ keys):
        if stem in certificates:
            message = (
                f"{directory} has {stem}{_CERTIFICATE}, a client certificate, without its key "
                f"{stem}{_KEY}; add that, or name an authority *{_AUTHORITY}"
            )
        else:
            message = (
                f"{directory} has {stem}{_KEY}, the key of a client, without its certificate "
                f"{stem}{_CERTIFICATE}; add that"
            )
        raise ConfigurationError(message)
    return tuple(
        ClientPair(directory / f"{stem}{_CERTIFICATE}", directory / f"{stem}{_KEY}")
        for stem in sorted(certificates)
    )


def _load_pair(context: ssl.SSLContext, pair: ClientPair) -> None:
    def refuse() -> NoReturn:
        message = f"{pair.key} needs a password, and nobody is there to ask; decrypt it"
        raise ConfigurationError(message)

    try:
        context.load_cert_chain(pair.certificate, pair.key, password=refuse)
    except ssl.SSLError as error:
        message = f"{pair.certificate} and {pair.key} are no certificate and key in PEM that match"
        raise ConfigurationError(message) from error
    except OSError as error:
        message = map_os_error(error, f"{pair.certificate} with {pair.key}").message
        raise ConfigurationError(message) from error
