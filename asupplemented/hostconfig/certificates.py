"""certs.d: authorities and client certificates of a registry (rules TLS-01 to TLS-06)."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import anyio.to_thread

from asupplemented.aio.files import map_os_error
from asupplemented.aio.lru import LRU
from asupplemented.errors import ConfigurationError, excerpt
from asupplemented.hostconfig.documents import (
    find_visible,
    list_readable,
    read_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asupplemented.hostconfig.paths import ConfigurationPaths

__all__ = (
    "Certificates",
    "ClientPair",
    "find_directory",
    "get_context",
    "make_context",
    "read_certificates",
)

_DIRECTORY: Final = "certs.d"
_AUTHORITY: Final = ".crt"
_CERTIFICATE: Final = ".cert"
_KEY: Final = ".key"

_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"


_CONTEXTS: Final = LRU[object, ssl.SSLContext](64)
"""Contexts of this process, each with the authorities of the system in memory, by what they were
made of."""


@dataclass(frozen=True, slots=True)
class ClientPair:
    """The client certificate for a registry, with its chain, and its key; both in PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Certificates:
    """The content of a directory of certs.d. A value; keys stay in their files until they are used.

    Attributes:
        authorities: Certificates in DER that are trusted in addition to those of the system.
        pairs: Sorted by file name.
        warnings: Problems that the operator should know.
    """

    authorities: tuple[bytes, ...] = field(default=(), repr=False)
    pairs: tuple[ClientPair, ...] = ()
    warnings: tuple[str, ...] = ()


async def find_directory(registry: str, paths: ConfigurationPaths) -> Path | None:
    """Find the one directory of certificates of a registry (rule TLS-01).

    Of the default directories the first one that exists is used alone: nothing is merged. A
    directory that this process may not see does not exist for it.

    Args:
        registry: ``host[:port]`` exactly as in references: ``quay.io`` and ``quay.io:443`` are
            different, and ``docker.io`` has no other name here (rule TLS-02).
        paths: Where the directories are.

    Returns:
        None if there is no directory. A directory that `paths` names may not exist.

    Raises:
        ConfigurationError: The registry cannot be the name of a directory.
    """
    if paths.certificates is not None:
        return paths.certificates
    if registry in {"", ".", ".."} or "/" in registry or "\0" in registry:
        message = f"{excerpt(registry)} is not a host[:port], so it cannot have certificates"
        raise ConfigurationError(message)
    if paths.certificates_root is not None:
        return paths.certificates_root / registry
    roots = (
        paths.user_path(_DIRECTORY),
        paths.system_path(_DIRECTORY),
        paths.shipped_path(_DIRECTORY),
        paths.system_path(_DIRECTORY, "docker"),
    )
    return await find_visible(None if root is None else root / registry for root in roots)


async def read_certificates(directory: Path | None) -> Certificates:
    """Read a directory of certificates (rules TLS-03, TLS-04).

    ``*.crt`` are authorities, ``X.cert`` and ``X.key`` are a pair; other names are ignored. Parts
    of a ``.crt`` that are not certificates are ignored with a warning.

    Args:
        directory: The directory. None, or one that does not exist, holds nothing.

    Raises:
        ConfigurationError: A file cannot be read, or half of a pair is missing.
    """
    if directory is None:
        return Certificates()
    files = await list_readable(directory, _AUTHORITY, _CERTIFICATE, _KEY)
    if files is None:
        warning = f"no permission to list {directory}, so its certificates are ignored"
        return Certificates(warnings=(warning,))
    found = [(file, await read_bytes(file)) for file in files if file.suffix == _AUTHORITY]
    authorities, warnings = await anyio.to_thread.run_sync(
        _parse_authorities, found, abandon_on_cancel=True
    )
    pairs = _match_pairs({file.name for file in files}, directory)
    if len(pairs) > 1:
        warnings.append(
            f"{directory} has several client certificates; for each type of key the first one is "
            f"used, so {pairs[0].certificate.name} before all others"
        )
    return Certificates(tuple(authorities), pairs, tuple(warnings))


def get_context(certificates: Certificates, *, verify: bool = True) -> ssl.SSLContext:
    """A TLS context from `make_context`, shared by this process. Blocking.

    Reading the authorities of the system takes long, so a context is made again only if the
    certificates, the client certificates in their files, or those authorities have changed.

    Args:
        certificates: See `make_context`.
        verify: See `make_context`.

    Raises:
        ConfigurationError: See `make_context`.
    """
    try:
        pairs = tuple(
            (pair, hashlib.sha256(pair.certificate.read_bytes() + pair.key.read_bytes()).digest())
            for pair in certificates.pairs
        )
        system = _identify_system_authorities() if verify else ()
    except OSError:
        return make_context(certificates, verify=verify)
    key = certificates.authorities, pairs, system, verify
    context = _CONTEXTS.get(key)
    if context is None:
        context = make_context(certificates, verify=verify)
        _CONTEXTS.put(key, context)
    return context


def _identify_system_authorities() -> object:
    """What changes with the authorities that the system, or its environment, gives."""
    paths = ssl.get_default_verify_paths()
    found = [path for path in (paths.cafile, paths.capath) if path]
    states = [Path(path).stat() for path in found]
    return tuple(
        (path, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        for path, state in zip(found, states, strict=True)
    )


def make_context(certificates: Certificates, *, verify: bool = True) -> ssl.SSLContext:
    """Make a new TLS context for a registry (rules TLS-05, TLS-06). Blocking.

    The authorities of the system are always trusted. An additional authority may be an
    intermediate one: its certificate in the directory is enough to trust it.

    Args:
        certificates: Additional authorities, and client certificates.
        verify: False checks neither the certificate nor the host name. Use it for the origin of
            an insecure registry only.

    Raises:
        ConfigurationError: A client certificate cannot be used: it is not readable, is not
            PEM, does not belong to its key, or the key needs a password.
    """
    context = ssl.create_default_context() if verify else _make_unverified_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if verify and certificates.authorities:
        context.load_verify_locations(cadata=b"".join(certificates.authorities))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # OpenSSL uses the certificate that was loaded last for a type of key; the first one is due.
    for pair in reversed(certificates.pairs):
        _load_pair(context, pair)
    return context


def _make_unverified_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _parse_authorities(
    files: Sequence[tuple[Path, bytes | None]],
) -> tuple[list[bytes], list[str]]:
    """Certificates in DER, and warnings about parts that are not certificates. Pure."""
    authorities: list[bytes] = []
    warnings: list[str] = []
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for file, data in files:
        if data is None:  # It was removed after it was listed, or is a broken link.
            continue
        blocks = tuple(_split(data))
        if not blocks:
            warnings.append(f"{file} holds no certificate in PEM and is ignored; convert it")
        for number, block in enumerate(blocks, 1):
            certificate = _decode(block, probe)
            if certificate is None:
                warnings.append(f"{file}: certificate number {number} is malformed and ignored")
            else:
                authorities.append(certificate)
    return authorities, warnings


def _split(data: bytes) -> Iterator[bytes]:
    """The blocks of a PEM file that are marked as certificates."""
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
                f"{stem}{_KEY}; add the key, or rename an authority to *{_AUTHORITY}"
            )
        else:
            message = (
                f"{directory} has {stem}{_KEY}, the key of a client, without its certificate "
                f"{stem}{_CERTIFICATE}; add the certificate"
            )
        raise ConfigurationError(message)
    return tuple(
        ClientPair(directory / f"{stem}{_CERTIFICATE}", directory / f"{stem}{_KEY}")
        for stem in sorted(certificates)
    )


def _load_pair(context: ssl.SSLContext, pair: ClientPair) -> None:
    def refuse() -> NoReturn:
        message = f"{pair.key} is encrypted, and there is no way to enter its password; decrypt it"
        raise ConfigurationError(message)

    try:
        context.load_cert_chain(pair.certificate, pair.key, password=refuse)
    except ssl.SSLError as error:
        message = f"{pair.certificate} and {pair.key} are not a matching certificate and key in PEM"
        raise ConfigurationError(message) from error
    except OSError as error:
        message = map_os_error(error, f"{pair.certificate} with {pair.key}").message
        raise ConfigurationError(message) from error
