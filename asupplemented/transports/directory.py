"""``dir:PATH``: one image in a directory of plain files (rules DI-01 to DI-08).

``manifest.json`` is the default manifest and ``<hex>.manifest.json`` an instance; ``<hex>`` is a
blob; ``signature-N`` and ``<hex>.signature-N`` are signatures, N from 1. A digest that is not
sha256 is spelled ``<algorithm>-<hex>``.

Theory of operation of writing. ``version`` gets its name first and keeps it, so a directory is
known as an image whatever becomes of the copy. Blobs and instances have their digests for names,
and so belong to the old image as well as to the new one. Signatures do not: their files change when
the image does, one after another, and no rename covers them and ``manifest.json``. So a commit that
changes signatures beside an image that is there takes these steps, under the lock of the directory:

1. write the new manifest under a name that no reader looks at: a full disk fails here
2. save the signatures of the old image in one file, `SAVED_FILE`, with the digest of its manifest
3. change the files of signatures
4. rename the new manifest to ``manifest.json``
5. remove `SAVED_FILE`

A reader takes the saved signatures as long as ``manifest.json`` has the digest that they were saved
with. So at every moment the image is the old one with its signatures, or the new one with its own,
even if the process is killed. Other tools do not know the file, so a commit that fails after step 2
also puts the old files back.
"""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec

from asupplemented.abc import Opening
from asupplemented.aio.atomic import PREFIX, StagedFile, sync_directory
from asupplemented.aio.beneath import Follow, read_beneath
from asupplemented.aio.files import map_os_error, map_write_errors
from asupplemented.aio.locks import LOCK_FILE, call_locked
from asupplemented.aio.threads import run_blocking
from asupplemented.errors import (
    ImageNotFoundError,
    LayoutError,
    LimitExceededError,
    NotFoundError,
    SupplementedError,
    excerpt,
)
from asupplemented.limits import MAX_MANIFEST, MAX_SIGNATURE, MAX_SIGNATURES, MIB
from asupplemented.model.digest import Digest
from asupplemented.model.signature import Signature
from asupplemented.source import open_verified
from asupplemented.transports.disk import (
    DiskDestination,
    DiskSource,
    check_path,
    first_found,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from asupplemented.abc import Context, Destination, Source
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform

__all__ = ("DirectoryDestination", "DirectoryReference", "DirectorySource", "read_version")

MANIFEST_FILE: Final = "manifest.json"
VERSION_FILE: Final = "version"

SAVED_FILE: Final = ".asupplemented.signatures"
"""The signatures of the image that a commit is about to replace."""

_MAX_SAVED: Final = 64 * MIB
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
        follow_symlinks: Whether files may be symbolic links: blobs and instances wherever they
            lead, all others only within the directory (rule DI-07).
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


def read_version(root: str, *, follow: Follow = Follow.INSIDE) -> tuple[int, int] | None:
    """The version of an image directory (rule DI-03). Blocking.

    Args:
        root: The directory.
        follow: Which links are followed.

    Returns:
        Major and minor number, None if the directory does not say.

    Raises:
        LayoutError: The file is malformed, or says more than 1.2.
        SourceError: It cannot be read.
    """
    path = f"{root}/{VERSION_FILE}"
    try:
        content = read_beneath(root, VERSION_FILE, _VERSION_SIZE, follow=follow)
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
        super().__init__(session, reference.path, follow=reference.follow_symlinks, named=False)

    @classmethod
    async def find(cls, reference: DirectoryReference, session: Context) -> Self:
        """Check that there is a directory of a version that can be read (rule DI-03)."""
        source = cls(reference, session)
        await run_blocking(session, source._check)
        return source

    def _check(self) -> None:
        root = self._root
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
        read_version(root, follow=self._follow_unnamed)

    def manifest_names(self, instance: Digest | None) -> Iterable[str]:
        if instance is None:
            return (MANIFEST_FILE,)
        return [f"{name}.{MANIFEST_FILE}" for name in _spellings(instance)]

    def blob_names(self, digest: Digest) -> Iterable[str]:
        return _spellings(digest)

    async def fetch_signatures(self, instance: Digest | None) -> Sequence[Signature]:
        """Read ``signature-1`` and on, until one is not there (rules DI-04, SR-12)."""
        return await run_blocking(self._session, self._read_signatures, instance)

    def _read_signatures(self, instance: Digest | None) -> list[Signature]:
        found = _read_signatures(self._root, instance, follow=self._follow_unnamed)
        return [_parse_signature(path, blob) for path, blob in found]


def _read_signatures(
    root: str, instance: Digest | None, *, follow: Follow
) -> list[tuple[str, bytes]]:
    """The signatures of an image as they are stored, each with its file. Blocking."""
    saved = _Saved.read(root)
    key = instance or ""
    if saved is not None and key in saved.signatures and saved.fits(root, follow):
        return [(f"{root}/{SAVED_FILE}", blob) for blob in saved.signatures[key]]
    return _read_signature_files(root, instance, follow=follow)


def _read_signature_files(
    root: str, instance: Digest | None, *, follow: Follow
) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    total = 0
    prefixes = [""] if instance is None else [f"{name}." for name in _spellings(instance)]

    def read(name: str) -> tuple[str, bytes]:
        return f"{root}/{name}", read_beneath(root, name, MAX_SIGNATURE, follow=follow)

    for number in range(1, MAX_SIGNATURES + 2):
        try:
            found.append(first_found([f"{each}signature-{number}" for each in prefixes], read))
        except NotFoundError:
            return found
        total += len(found[-1][1])
        if total > MAX_SIGNATURE:
            message = f"the signatures exceeded maximum allowed size of {MAX_SIGNATURE} bytes"
            raise LimitExceededError(message, limit=MAX_SIGNATURE)
    message = f"there are more than {MAX_SIGNATURES} signatures"
    raise LimitExceededError(message, limit=MAX_SIGNATURES)


class _Saved(msgspec.Struct, frozen=True):
    """Signatures of the image that a commit is about to replace.

    Attributes:
        manifest: The sha256 of its ``manifest.json``.
        signatures: What is stored, by the digest of an instance; "" is the image itself.
    """

    manifest: str
    signatures: dict[str, list[bytes]]

    @classmethod
    def read(cls, root: str) -> _Saved | None:
        """Read what a commit saved that is running or was killed; None if there is nothing."""
        try:
            raw = read_beneath(root, SAVED_FILE, _MAX_SAVED, follow=Follow.NONE)
            return msgspec.json.decode(raw, type=cls)
        except (SupplementedError, msgspec.DecodeError):
            return None

    def fits(self, root: str, follow: Follow) -> bool:
        """Whether the image is still the one that is about to be replaced."""
        return self.manifest == _digest_of_top(_read_top(root, follow))


def _read_top(root: str, follow: Follow) -> bytes | None:
    try:
        return read_beneath(root, MANIFEST_FILE, MAX_MANIFEST, follow=follow)
    except SupplementedError:
        return None


def _digest_of_top(raw: bytes | None) -> str | None:
    return None if raw is None else str(Digest.of(raw))


def _parse_signature(path: str, blob: bytes) -> Signature:
    try:
        return Signature.from_blob(blob)
    except LayoutError as error:
        raise LayoutError(f"{path}: {error.message}") from error


class DirectoryDestination(DiskDestination):
    """Writes one image into a directory.

    ``manifest.json``, written last, is what makes the image visible.

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
            blob_root=root,
            durable=reference.durable,
            follow=reference.follow_symlinks,
        )
        self._signatures: dict[Digest | None, Sequence[Signature]] = {}

    def blob_path(self, digest: Digest) -> Path:
        return self._path(_spell(digest))

    def manifest_path(self, digest: Digest) -> Path:
        return self._path(f"{_spell(digest)}.{MANIFEST_FILE}")

    def _path(self, name: str) -> Path:
        return self._root / name

    def prepare(self) -> None:
        """Check that the directory is an image or empty (rule DI-06), and make it."""
        # In this order: another copy that starts now writes the version before any other file.
        occupied = _is_occupied(self._root)
        if read_version(str(self._root)) is None and occupied:
            message = (
                f"{self._root} is not an image directory, and its files may be important; "
                "give a new or empty directory"
            )
            raise LayoutError(message)
        super().prepare()

    def mark(self) -> None:
        if read_version(str(self._root)) is None:
            self._write_version(_SHA256_ONLY)

    def _write_version(self, version: tuple[int, int]) -> None:
        self.write(self._path(VERSION_FILE), b"Directory Transport Version: %d.%d\n" % version)

    async def put_signatures(
        self, signatures: Sequence[Signature], instance: Digest | None
    ) -> bool:
        """Keep all signatures of an instance for `commit`: until then an older image has its own.

        Raises:
            LimitExceededError: There are more than ``MAX_SIGNATURES``.
        """
        self._check_open()
        if len(signatures) > MAX_SIGNATURES:
            message = f"{len(signatures)} signatures, at most {MAX_SIGNATURES} can be read back"
            raise LimitExceededError(message, limit=MAX_SIGNATURES, digest=instance)
        self._signatures[instance] = tuple(signatures)
        return True

    async def publish(self, top: Manifest, platform: Platform | None) -> None:  # noqa: ARG002 - no place for it
        await call_locked(self._session, self._path(LOCK_FILE), partial(self._publish, top))

    def _publish(self, top: Manifest) -> None:
        root = str(self._root)
        old = _read_top(root, Follow.INSIDE)
        saved = _Saved.read(root)
        wanted = {
            key or "": [each.to_blob() for each in signatures]
            for key, signatures in self._signatures.items()
        }
        if old != top.raw:
            wanted.setdefault("", [])  # Those of another image do not stay.
        if saved is not None and saved.manifest == _digest_of_top(old):
            # A commit was killed, and may have changed any of these files.
            wanted = {**saved.signatures, **wanted}
        before = {key: self._stored_signatures(key) for key in wanted}
        if self._algorithms - {"sha256"} and read_version(root) != _NEWEST:
            self._write_version(_NEWEST)
        staged = StagedFile.create(self._root, root=self._root)
        try:
            staged.write(0, top.raw)
            if self._durable:
                staged.sync()
            if old is not None and before != wanted:
                self._save(_Saved(str(Digest.of(old)), before))
            self._replace_signatures(before, wanted)
            if old != top.raw:
                staged.publish(self._path(MANIFEST_FILE))
        finally:
            staged.close()
        if self._durable:
            sync_directory(self._root)
        self._remove(SAVED_FILE)

    def _stored_signatures(self, key: str) -> list[bytes]:
        instance = Digest(key) if key else None
        try:
            found = _read_signatures(str(self._root), instance, follow=Follow.INSIDE)
        except SupplementedError:
            return []  # What cannot be read is replaced.
        return [blob for _, blob in found]

    def _save(self, saved: _Saved) -> None:
        raw = msgspec.json.encode(saved)
        if len(raw) > _MAX_SAVED:
            message = (
                f"the signatures of the image in {self._root} exceeded maximum allowed size of "
                f"{_MAX_SAVED} bytes; copy to a new directory"
            )
            raise LimitExceededError(message, limit=_MAX_SAVED)
        self.write(self._path(SAVED_FILE), raw)
        if self._durable:
            sync_directory(self._root)

    def _replace_signatures(
        self, before: Mapping[str, Sequence[bytes]], wanted: Mapping[str, Sequence[bytes]]
    ) -> None:
        try:
            for key, blobs in wanted.items():
                self._write_signatures(key, blobs)
        except BaseException:
            with suppress(SupplementedError):  # Then the saved ones stay, for our readers.
                for key, blobs in before.items():
                    self._write_signatures(key, blobs)
                self._remove(SAVED_FILE)
            raise

    def _write_signatures(self, key: str, blobs: Sequence[bytes]) -> None:
        prefix = f"{_spell(Digest(key))}." if key else ""
        for number, blob in enumerate(blobs, 1):
            self.write(self._path(f"{prefix}signature-{number}"), blob)
        for number in count(len(blobs) + 1):
            if not self._remove(f"{prefix}signature-{number}"):
                return

    def _remove(self, name: str) -> bool:
        """Remove a file; gives whether there was one."""
        path = self._path(name)
        with map_write_errors(path):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
        return True


def _is_occupied(root: Path) -> bool:
    try:
        names = [path.name for path in root.iterdir()]
    except FileNotFoundError:
        return False
    except OSError as error:
        raise map_os_error(error, root) from error
    return not all(name.startswith(PREFIX) or name == LOCK_FILE for name in names)
