"""``oci:PATH[:IMAGE|:@N]``: images in OCI layouts on disk (rules OC-01 to OC-12).

URLs in descriptors are never followed here (rule OC-08): a layout serves what is in its files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from asupplemented.abc import Opening, RawManifest
from asupplemented.aio.threads import run_blocking
from asupplemented.errors import (
    ImageNotFoundError,
    InvalidReferenceError,
    UnsupportedManifestError,
    UnsupportedOperationError,
    excerpt,
)
from asupplemented.events import Warned
from asupplemented.model import media_type
from asupplemented.model.digest import Digest
from asupplemented.model.index import Index
from asupplemented.model.name import is_tag
from asupplemented.oci_layout import (
    INDEX_FILE,
    LAYOUT_FILE,
    REF_NAME,
    LayoutIndex,
    LayoutStore,
    Tree,
    add_beside,
    add_entry,
    describe,
    list_entries,
    name_of,
)
from asupplemented.source import open_verified
from asupplemented.transports.disk import DiskDestination, DiskSource, check_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asupplemented.abc import Context, Destination, Source
    from asupplemented.model.descriptor import Descriptor
    from asupplemented.model.manifest import Manifest
    from asupplemented.model.platform import Platform
    from asupplemented.model.signature import Signature

__all__ = ("LayoutDestination", "LayoutReference", "LayoutSource", "PlatformChoice", "choose_entry")

_ALNUM: Final = r"[A-Za-z0-9]++"
_COMPONENT: Final = rf"{_ALNUM}(?:(?:--|[-._:@+]){_ALNUM})*+"
_IMAGE: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*+", re.ASCII)
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_READABLE: Final = frozenset(
    (
        media_type.OCI_MANIFEST,
        media_type.OCI_INDEX,
        media_type.DOCKER_MANIFEST,
        media_type.DOCKER_LIST,
    )
)
"""What an entry of the right name may be (rule OC-04)."""
_SHOWN: Final = 10
"""Names, or types, that a message lists."""


class PlatformChoice(NamedTuple):
    """The platform that chooses among several images."""

    platform: Platform | None
    """None is that of this host."""


@dataclass(frozen=True, slots=True)
class LayoutReference:
    """An image in an OCI layout. A value; equality is lexical.

    ``str()`` gives path and image or number; the options after those have no text form.

    Attributes:
        path: The directory, as the user wrote it; it holds no colon (rule OC-02).
        image: The name of an entry of ``index.json`` (rule OC-04). None is the only entry there
            is (rule OC-05).
        index: The position of an entry in ``index.json``, from 0, or None. For reading only.
        shared_blob_dir: Where blobs and manifests are instead of ``blobs`` (rule OC-09), or None.
        follow_symlinks: Whether files may be symbolic links: blobs and manifests wherever they
            lead, ``index.json`` only within the layout (rules DI-07, OC-10).
        durable: Whether a destination waits until what it wrote is on the disk.
        choice: What chooses among several entries of the name (rule CI-02); None takes the first.

    Raises:
        InvalidReferenceError: The path is empty or holds a colon or NUL, the image is no name,
            the index is negative, or both of them are given.
    """

    path: str
    image: str | None = None
    index: int | None = None
    shared_blob_dir: str | None = None
    follow_symlinks: bool = True
    durable: bool = True
    choice: PlatformChoice | None = None

    def __post_init__(self) -> None:
        check_path(self.path)
        if ":" in self.path:
            message = f"the path of a layout cannot hold a colon: {excerpt(self.path)}"
            raise InvalidReferenceError(message)
        if self.shared_blob_dir is not None:
            check_path(self.shared_blob_dir)
        if self.image is not None and _IMAGE.fullmatch(self.image) is None:
            message = (
                f"invalid image name {excerpt(self.image)}: letters and digits, with one of "
                "-._:@+ or -- between them, and slashes between such parts"
            )
            raise InvalidReferenceError(message)
        if self.index is not None and self.index < 0:
            message = f"invalid source index @{self.index}: it must not be negative"
            raise InvalidReferenceError(message)
        if self.image is not None and self.index is not None:
            message = "a layout reference has an image name or an index, not both"
            raise InvalidReferenceError(message)

    @classmethod
    def parse(cls, rest: str) -> Self:
        """Read ``PATH[:IMAGE|:@N]`` (rules OC-01, OC-02).

        Raises:
            InvalidReferenceError: It is malformed; the message says which part is.
        """
        path, _, image = rest.partition(":")
        if not image.startswith("@"):
            return cls(path, image or None)
        if _NUMBER.fullmatch(image, 1) is None:
            message = f"invalid source index {excerpt(image)}: @ is followed by a number, from 0 on"
            raise InvalidReferenceError(message)
        return cls(path, index=int(image[1:]))

    def for_platform(self, platform: Platform | None) -> Self:
        """The same image name, to open the entry for a platform; None is that of this host."""
        return replace(self, choice=PlatformChoice(platform))

    @property
    def transport(self) -> str:
        """Always "oci"."""
        return "oci"

    @property
    def tag(self) -> str | None:
        """The tag that the name of the image is, or ends with; None if it has none."""
        tag = (self.image or "").rpartition(":")[2]
        return tag if is_tag(tag) else None

    @property
    def store(self) -> LayoutStore:
        """The files of the layout."""
        return LayoutStore.at(
            self.path,
            shared=self.shared_blob_dir,
            durable=self.durable,
            follow=self.follow_symlinks,
        )

    def open(self, session: Context) -> Opening[Source]:
        """Open the image for reading. Its default manifest is read and verified at once.

        Opening raises:
            ImageNotFoundError: There is no layout, or no such image in it.
            InvalidReferenceError: The layout holds several images, and none was chosen.
            PlatformNotFoundError: No image of the name is for the platform wanted.
            UnsupportedManifestError: The image is nothing that can be read here.
            LimitExceededError: A file is larger than ``MAX_MANIFEST``.
            MalformedManifestError: ``index.json`` or the manifest is broken.
            VerificationError: The manifest is not what ``index.json`` says (rule OC-07).
            SourceError: A file cannot be read.
        """
        return open_verified(lambda: LayoutSource.find(self, session), self, session)

    def create(self, session: Context) -> Opening[Destination]:
        """Open the layout for writing; it is made if it is not there.

        An image that is there under the same name loses the name, all others stay (rule OC-12).

        Opening raises:
            UnsupportedOperationError: The reference is ``@N``, which is for reading.
            MalformedManifestError: There is an ``index.json`` already that is none.
            SourceError: The place cannot be written.
        """

        async def opener() -> Destination:
            if self.index is not None:
                message = "an index in index.json cannot be written to; give the image a name"
                raise UnsupportedOperationError(message, reference=self)
            return await LayoutDestination(self, session).start()

        return Opening(opener, self)

    def __str__(self) -> str:
        if self.index is not None:
            return f"oci:{self.path}:@{self.index}"
        return f"oci:{self.path}" if self.image is None else f"oci:{self.path}:{self.image}"


class LayoutSource(DiskSource):
    """Reads one image of a layout, and whatever else its blobs hold.

    Args:
        reference: What is opened.
        session: The session.
        index: What ``index.json`` says.
        entry: The default manifest, one of its entries.
    """

    def __init__(
        self, reference: LayoutReference, session: Context, index: LayoutIndex, entry: Descriptor
    ) -> None:
        store = reference.store
        root = str(store.blob_root)
        self._prefix = store.blob_prefix
        super().__init__(session, root, follow=reference.follow_symlinks, named=True)
        self._default = Digest(entry.digest)
        self._entry = entry
        self._types = {each.digest: each.media_type for each in reversed(index.manifests)}

    @classmethod
    async def find(cls, reference: LayoutReference, session: Context) -> Self:
        """Look an image up in ``index.json``. A missing ``oci-layout`` is no failure (OC-03)."""
        # All of it in a thread, because an index may have tens of thousands of entries.
        source, marked = await run_blocking(session, cls._find, reference, session)
        if not marked:
            message = f"the layout has no file {LAYOUT_FILE}; other tools may refuse it"
            session.emit(Warned(str(reference), message))
        return source

    @classmethod
    def _find(cls, reference: LayoutReference, session: Context) -> tuple[Self, bool]:
        store = reference.store
        index = store.read_index()
        if index is None:
            message = (
                f"there is no OCI layout at {store.root}: it has no {INDEX_FILE}; check the path, "
                "or copy an image to it first"
            )
            raise ImageNotFoundError(message, reference=reference)
        source = cls(reference, session, index, choose_entry(index, reference))
        return source, store.is_marked()

    @property
    def default_descriptor(self) -> Descriptor:
        """The chosen entry: the default manifest has its digest and size (rule OC-07)."""
        return self._entry

    def manifest_names(self, instance: Digest | None) -> Iterable[str]:
        return self.blob_names(instance or self._default)

    def blob_names(self, digest: Digest) -> Iterable[str]:
        return (self._prefix + digest.replace(":", "/"),)

    def read_manifest(self, instance: Digest | None) -> RawManifest:
        """Read one manifest; its type is what an entry of ``index.json`` says (rule OC-06)."""
        raw = self.read_bytes(instance)
        kind = self._entry.media_type if instance is None else self._types.get(instance)
        if kind in media_type.SCHEMA1 or (
            kind not in media_type.KNOWN_MANIFESTS and _is_schema1(raw)
        ):
            message = "a schema 1 manifest has no place in an OCI layout; convert the image first"
            raise UnsupportedManifestError(message, digest=instance or self._default)
        return RawManifest(raw, kind or None)


def _is_schema1(raw: bytes) -> bool:
    # Guessing takes a decode. Schema 1 cannot do without the key, which an escape might hide; one
    # of its letters is rare, and found in a fraction of the time.
    suspicious = (b"L" in raw and b"fsLayers" in raw) or b"\\" in raw
    return suspicious and media_type.guess(raw) in media_type.SCHEMA1


def choose_entry(index: LayoutIndex, reference: LayoutReference) -> Descriptor:
    """The entry of ``index.json`` that a reference means (rules OC-02, OC-04, OC-05).

    Raises:
        ImageNotFoundError: There is none.
        InvalidReferenceError: There are several, and the reference does not choose.
        UnsupportedManifestError: Entries have the right name, but a type that is never read.
        PlatformNotFoundError: Several have the name, and none is for the platform wanted.
    """
    if reference.index is not None:
        return _numbered(index, reference, reference.index)
    return _sole(index, reference) if reference.image is None else _named(index, reference)


def _numbered(index: LayoutIndex, reference: LayoutReference, number: int) -> Descriptor:
    if number >= len(index.manifests):
        message = f"index {number} is too large, only {len(index.manifests)} entries available"
        raise ImageNotFoundError(message, reference=reference)
    return index.manifests[number]


def _sole(index: LayoutIndex, reference: LayoutReference) -> Descriptor:
    if len(index.manifests) == 1:
        return index.manifests[0]
    if not index.manifests:
        message = f"the layout {reference.path} holds no image"
        raise ImageNotFoundError(message, reference=reference)
    message = (
        f"more than one image in the layout, choose one: {_names(index)}, or a number from "
        f":@0 to :@{len(index.manifests) - 1}"
    )
    raise InvalidReferenceError(message, reference=reference)


def _named(index: LayoutIndex, reference: LayoutReference) -> Descriptor:
    found = [
        entry for entry in index.manifests if entry.annotations.get(REF_NAME) == reference.image
    ]
    readable = tuple(entry for entry in found if entry.media_type in _READABLE)
    if len(readable) > 1 and reference.choice is not None:
        return Index(media_type.OCI_INDEX, readable).choose(reference.choice.platform)
    if readable:
        return readable[0]
    if found:
        types = ", ".join(excerpt(entry.media_type or "none") for entry in found[:_SHOWN])
        message = f"the image {reference.image} has a media type that is not read here: {types}"
        raise UnsupportedManifestError(message, reference=reference)
    message = f"no image {reference.image} in the layout {reference.path}; it has {_names(index)}"
    raise ImageNotFoundError(message, reference=reference)


def _names(index: LayoutIndex) -> str:
    names = [name for entry in index.manifests if (name := entry.annotations.get(REF_NAME))]
    shown = ", ".join(excerpt(name) for name in names[:_SHOWN])
    if not names:
        return "no names"
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


class LayoutDestination(DiskDestination):
    """Writes one image into a layout, and lists others beside it.

    Args:
        reference: Where to; not one with an index.
        session: The session.
    """

    def __init__(self, reference: LayoutReference, session: Context) -> None:
        self._store = reference.store
        self._given = reference
        self._beside: list[tuple[Manifest, Platform | None]] = []
        super().__init__(
            reference,
            session,
            self._store.root,
            staging=self._store.blobs,
            blob_root=self._store.blob_root,
            durable=reference.durable,
            follow=reference.follow_symlinks,
        )

    def blob_path(self, digest: Digest) -> Path:
        return Path(self._store.blob_path(digest))

    def manifest_path(self, digest: Digest) -> Path:
        return Path(self._store.blob_path(digest))

    def prepare(self) -> None:
        """See that ``index.json``, if there is one, can be added to; make the directories."""
        self._store.read_index()
        super().prepare()

    def mark(self) -> None:
        self._store.mark()

    async def put_signatures(
        self,
        signatures: Sequence[Signature],  # noqa: ARG002 - a layout holds none
        instance: Digest | None,  # noqa: ARG002
    ) -> bool:
        """Nothing: a layout has no place for signatures (rule OC-12)."""
        return False

    def list_beside(self, images: Sequence[tuple[Manifest, Platform | None]]) -> bool:
        """List images in ``index.json``, without a name, unless they are listed already.

        Returns:
            False if the image itself has no name: it has to be the only entry then (OC-05).
        """
        if self._given.image is None:
            return False
        self._beside += images
        return True

    async def commit(self, top: Manifest, *, platform: Platform | None = None) -> None:
        await self.put_manifest(top)
        await super().commit(top, platform=platform)

    async def publish(self, top: Manifest, platform: Platform | None) -> None:
        """List the image in ``index.json``.

        A nameless image that is not the only one can be opened by its number only, so that becomes
        the reference of this destination (rule OC-05).
        """
        given = self._given
        entry = describe(top, platform, given.image)
        number: int | None = None

        def change(tree: Tree) -> Tree:
            nonlocal number
            beside = [describe(manifest, platform) for manifest, platform in self._beside]
            changed = add_beside(add_entry(tree, entry), beside)
            number = None if given.image else _number_of(changed, top.digest)
            return changed

        await self._store.update_index(self._session, change)
        if number is not None:
            self._reference = replace(given, index=number)


def _number_of(tree: Tree, digest: Digest) -> int | None:
    """The position of a nameless entry; None if it is the only entry of all."""
    entries = list_entries(tree)
    numbers = (
        number
        for number, each in enumerate(entries)
        if each.get("digest") == digest and not name_of(each)
    )
    return next(numbers, None) if len(entries) > 1 else None
