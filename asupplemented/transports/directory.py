"""``dir:PATH``: one image in a directory of plain files (rules DI-01 to DI-08).

``manifest.json`` is the default manifest and ``<hex>.manifest.json`` an instance; ``<hex>`` is a
blob; ``signature-N`` and ``<hex>.signature-N`` are signatures, N from 1. A digest that is not
sha256 is spelled ``<algorithm>-<hex>``.
"""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from asupplemented.abc import Opening
from asupplemented.aio.atomic import PREFIX, sync_directory, write_file
from asupplemented.aio.files import map_os_error, map_write_errors, read_limited
from asupplemented.aio.threads import run_blocking
from asupplemented.errors import (
    ImageNotFoundError,
    LayoutError,
    LimitExceededError,
    NotFoundError,
    excerpt,
)
from asupplemented.limits import MAX_SIGNATURE, MAX_SIGNATURES
from asupplemented.model.signature import Signature
from asupplemented.source import open_verified
from asupplemented.transports.disk import (
    DiskDestination,
    DiskSource,
    check_path,
    first_found,
    holds,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asupplemented.abc import Context, Destination, Source
    from asupplemented.model.digest import Digest
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform

__all__ = ("DirectoryDestination", "DirectoryReference", "DirectorySource", "read_version")

MANIFEST_FILE: Final = "manifest.json"
VERSION_FILE: Final = "version"

_VERSION: Final = re.compile(rb"Directory Transport Version: ([0-9]{1,9})\.([0-9]{1,9})\n")
_VERSION_SIZE: Final = 64
_NEWEST: Final = (1, 2)
_SHA256_ONLY: Final = (1, 1)


@dataclass(frozen=True, slots=True)
class DirectoryReference:
    """An image in a directory. A value; equality is lexical.

    ``str()`` gives the path; the options after it have no text form.

    Attributes:
        path: The directory, as the user wrote it; it may hold colons (rule DI-01).
        follow_symlinks: Whether a file may be a symbolic link, wherever it leads (rule DI-07).
        durable: Whether a destination waits until what it wrote is on the disk.

    Raises:
        InvalidReferenceError: The path is empty or holds NUL.
    """

    path: str
    follow_symlinks: bool = True
    durable: bool = True

    def __post_init__(self) -> None:
        check_path(self.path)

    @classmethod
    def parse(cls, rest: str) -> Self:
        """Take everything as the path (rule DI-01).

        Raises:
            InvalidReferenceError: It is empty or holds NUL.
        """
        return cls(rest)

    @property
    def transport(self) -> str:
        """Always "dir"."""
        return "dir"

    def open(self, session: Context) -> Opening[Source]:
        """Open the image for reading. Its default manifest is read and verified at once.

        Opening raises:
            ImageNotFoundError: There is no such directory, or no image in it.
            LayoutError: Its version is not known (rule DI-03), or a file is no regular file.
            LimitExceededError: The manifest is larger than ``MAX_MANIFEST``.
            ManifestError: The manifest is none.
            SourceError: A file cannot be read.
        """
        return open_verified(lambda: DirectorySource.find(self, session), self, session)

    def create(self, session: Context) -> Opening[Destination]:
        """Open the directory for writing; it is made if it is not there.

        What is in it stays: blobs that are whole are not written again, and an image in it can
        be read until `Destination.commit` puts another one in its place (rule DI-06).

        Opening raises:
            LayoutError: It holds something else than an image, or one of a newer version.
            SourceError: The place cannot be written.
        """

        async def opener() -> Destination:
            return await DirectoryDestination(self, session).start()

        return Opening(opener, self)

    def __str__(self) -> str:
        return f"dir:{self.path}"


def read_version(root: str) -> tuple[int, int] | None:
    """The version of an image directory (rule DI-03). Blocking.

    Returns:
        Major and minor number, None if the directory does not say.

    Raises:
        LayoutError: The file is malformed, or says more than 1.2.
        SourceError: It cannot be read.
    """
    path = f"{root}/{VERSION_FILE}"
    try:
        content = read_limited(path, _VERSION_SIZE)
    except NotFoundError:
        return None
    except LimitExceededError as error:
        raise LayoutError(f"invalid version file content in {path}: it is too long") from error
    match = _VERSION.fullmatch(content)
    if match is None:
        raise LayoutError(f"invalid version file content {excerpt(content)} in {path}")
    version = (int(match[1]), int(match[2]))
    if version > _NEWEST:
        shown = ".".join(map(str, version))
        raise LayoutError(f"unsupported version {shown} of the image directory {root}")
    return version


def _spell(digest: Digest) -> str:
    """A digest as the names of files have it (rules DI-01, DI-02)."""
    return digest.encoded if digest.algorithm == "sha256" else digest.replace(":", "-")


def _spellings(digest: Digest) -> tuple[str, ...]:
    """How a digest may be spelled; older tools left every algorithm out (rule DI-02)."""
    return (_spell(digest),) if digest.algorithm == "sha256" else (_spell(digest), digest.encoded)


class DirectorySource(DiskSource):
    """Reads the image of a directory.

    Args:
        reference: What is opened.
        session: The session.
    """

    def __init__(self, reference: DirectoryReference, session: Context) -> None:
        super().__init__(session, follow=reference.follow_symlinks)
        self._root = reference.path

    @classmethod
    async def find(cls, reference: DirectoryReference, session: Context) -> Self:
        """Check that there is a directory of a version that can be read (rule DI-03)."""
        await run_blocking(session, _check_directory, reference.path)
        return cls(reference, session)

    def manifest_paths(self, instance: Digest | None) -> Iterable[str]:
        if instance is None:
            return (f"{self._root}/{MANIFEST_FILE}",)
        return [f"{self._root}/{name}.{MANIFEST_FILE}" for name in _spellings(instance)]

    def blob_paths(self, digest: Digest) -> Iterable[str]:
        return [f"{self._root}/{name}" for name in _spellings(digest)]

    async def fetch_signatures(self, instance: Digest | None) -> Sequence[Signature]:
        """Read ``signature-1`` and on, until one is not there (rules DI-04, SR-12)."""
        return await run_blocking(self._session, self._read_signatures, instance)

    def _read_signatures(self, instance: Digest | None) -> list[Signature]:
        signatures: list[Signature] = []
        total = 0
        for number in range(1, MAX_SIGNATURES + 2):
            found = self._read_signature(instance, number)
            if found is None:
                return signatures
            signatures.append(_parse_signature(*found))
            total += len(found[1])
            if total > MAX_SIGNATURE:
                message = f"the signatures exceeded maximum allowed size of {MAX_SIGNATURE} bytes"
                raise LimitExceededError(message, limit=MAX_SIGNATURE)
        message = f"there are more than {MAX_SIGNATURES} signatures"
        raise LimitExceededError(message, limit=MAX_SIGNATURES)

    def _read_signature(self, instance: Digest | None, number: int) -> tuple[str, bytes] | None:
        """The file and its content, None if there is no signature of this number."""

        def read(path: str) -> tuple[str, bytes]:
            return path, read_limited(path, MAX_SIGNATURE, follow=self._follow)

        try:
            return first_found(_signature_paths(self._root, instance, number), read)
        except NotFoundError:
            return None


def _signature_paths(root: str, instance: Digest | None, number: int) -> list[str]:
    names = [""] if instance is None else [f"{name}." for name in _spellings(instance)]
    return [f"{root}/{name}signature-{number}" for name in names]


def _parse_signature(path: str, blob: bytes) -> Signature:
    try:
        return Signature.from_blob(blob)
    except LayoutError as error:
        raise LayoutError(f"{path}: {error.message}") from error


def _check_directory(root: str) -> None:
    try:
        mode = Path(root).stat().st_mode
    except FileNotFoundError as error:
        message = f"there is no directory {root}; check the path, or copy an image to it first"
        raise ImageNotFoundError(message) from error
    except OSError as error:
        raise map_os_error(error, root) from error
    if not stat.S_ISDIR(mode):
        message = f"{root} is not a directory"
        raise LayoutError(message)
    read_version(root)


class DirectoryDestination(DiskDestination):
    """Writes one image into a directory.

    A version file marks the directory as an image from the start, so that the next attempt
    knows its own; ``manifest.json``, written last, is what makes the image visible.

    Args:
        reference: Where to.
        session: The session.
    """

    keeps_media_type = False

    def __init__(self, reference: DirectoryReference, session: Context) -> None:
        root = Path(reference.path)
        super().__init__(
            reference,
            session,
            root,
            staging=root,
            durable=reference.durable,
            follow=reference.follow_symlinks,
        )
        self._version: tuple[int, int] | None = None
        self._signatures: tuple[Signature, ...] | None = None

    def blob_path(self, digest: Digest) -> Path:
        return self._path(_spell(digest))

    def manifest_path(self, digest: Digest) -> Path:
        return self._path(f"{_spell(digest)}.{MANIFEST_FILE}")

    def _path(self, name: str) -> Path:
        return self._root / name

    def prepare(self) -> None:
        """Check that the directory is an image or empty (rule DI-06), make it, and mark it."""
        version = read_version(str(self._root))
        if version is None and _is_occupied(self._root):
            message = (
                f"{self._root} is not an image directory, and its files may be important; "
                "give a new or empty directory"
            )
            raise LayoutError(message)
        super().prepare()
        if version is None:
            self._write_version(_SHA256_ONLY)

    def abandon(self) -> None:
        if self._version is not None:
            with suppress(OSError):
                self._path(VERSION_FILE).unlink()
        super().abandon()

    def _write_version(self, version: tuple[int, int]) -> None:
        content = b"Directory Transport Version: %d.%d\n" % version
        write_file(self._path(VERSION_FILE), content, staging=self._root, durable=self._durable)
        self._version = version

    async def put_signatures(
        self, signatures: Sequence[Signature], instance: Digest | None
    ) -> bool:
        """Write all signatures of an instance; those of the top wait for `commit`.

        Raises:
            LimitExceededError: There are more than ``MAX_SIGNATURES``.
        """
        self._check_open()
        if len(signatures) > MAX_SIGNATURES:
            message = f"{len(signatures)} signatures, at most {MAX_SIGNATURES} can be read back"
            raise LimitExceededError(message, limit=MAX_SIGNATURES, digest=instance)
        if instance is None:
            self._signatures = tuple(signatures)
        else:
            with self._located(instance):
                await run_blocking(self._session, self._write_signatures, signatures, instance)
        return True

    def _write_signatures(self, signatures: Sequence[Signature], instance: Digest | None) -> None:
        prefix = "" if instance is None else f"{_spell(instance)}."
        for number, signature in enumerate(signatures, 1):
            self.write(self._path(f"{prefix}signature-{number}"), signature.to_blob())
        for number in count(len(signatures) + 1):
            path = self._path(f"{prefix}signature-{number}")
            with map_write_errors(path):
                try:
                    path.unlink()
                except FileNotFoundError:
                    return

    async def publish(self, top: Manifest, platform: Platform | None) -> None:  # noqa: ARG002 - no place for it
        await run_blocking(self._session, self._publish, top)

    def _publish(self, top: Manifest) -> None:
        path = self._path(MANIFEST_FILE)
        # Signatures before the manifest: those of another image must never stand beside this one.
        if self._signatures is not None or not holds(path, top.raw):
            self._write_signatures(self._signatures or (), None)
        if self._algorithms - {"sha256"} and read_version(str(self._root)) != _NEWEST:
            self._write_version(_NEWEST)
        self.write(path, top.raw)
        if self._durable:
            sync_directory(self._root)


def _is_occupied(root: Path) -> bool:
    try:
        names = [path.name for path in root.iterdir()]
    except FileNotFoundError:
        return False
    except OSError as error:
        raise map_os_error(error, root) from error
    return not all(name.startswith(PREFIX) for name in names)
