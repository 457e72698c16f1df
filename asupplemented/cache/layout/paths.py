"""Where things are in the directory of a cache: an OCI layout, and beside it what only we read."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asupplemented.aio.atomic import PREFIX, make_directory
from asupplemented.errors import InvalidDigestError
from asupplemented.model.digest import Digest
from asupplemented.oci_layout import LayoutStore

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Places", "label", "read_labels")

PRIVATE: Final = ".asupplemented"
"""The directory within the layout that other tools have no reason to look into."""


@dataclass(frozen=True, slots=True)
class Places:
    """The paths of a cache. Methods block where they say so; the others only make names.

    Attributes:
        root: The directory of the layout.
        durable: Whether what is written has reached the disk when it is named.
    """

    root: Path
    durable: bool = True

    @property
    def layout(self) -> LayoutStore:
        """What any tool reads."""
        return LayoutStore.at(self.root, durable=self.durable)

    @property
    def ingest(self) -> Path:
        """Files in the making."""
        return self.root / PRIVATE / "ingest"

    @property
    def leads(self) -> Path:
        """Who is fetching what."""
        return self.root / PRIVATE / "leads"

    @property
    def records(self) -> Path:
        """What is known of each blob: who may have it, when it was used, what kind it is."""
        return self.root / PRIVATE / "records"

    @property
    def waiting(self) -> Path:
        """Which tops wait for which blob."""
        return self.root / PRIVATE / "waiting"

    @property
    def pins(self) -> Path:
        """What must not be evicted."""
        return self.root / PRIVATE / "pins"

    @property
    def ledger(self) -> Path:
        """The sum of all sizes."""
        return self.root / PRIVATE / "ledger"

    def blob(self, digest: Digest) -> Path:
        """A blob or manifest."""
        return Path(self.layout.blob_path(digest))

    def has(self, digest: Digest) -> bool:
        """Whether a blob or manifest is there. Blocking, but never raises."""
        return os.access(self.layout.blob_path(digest), os.F_OK)

    def record(self, digest: Digest) -> Path:
        """What is known of a blob; a directory, last changed when the blob was last used."""
        return self.records / digest.algorithm / digest.encoded

    def kind(self, digest: Digest) -> Path:
        """The media type of a manifest; only what was kept as a manifest has one."""
        return self.record(digest) / "media-type"

    def grant(self, digest: Digest, principal: str | None) -> Path:
        """Says that a principal has fetched a blob by itself (rule SEC-13)."""
        return self.record(digest) / f"grant-{_name_of(principal)}"

    def lead(self, digest: Digest, principal: str | None) -> Path:
        """Locked by the process that is fetching a blob for a principal, and names its file."""
        name = hashlib.sha256(f"{_name_of(principal)} {digest}".encode()).hexdigest()
        return self.leads / (PREFIX + name[:32])

    def waiting_for(self, digest: Digest) -> Path:
        """The tops that wait for a blob: a directory of names."""
        return self.waiting / label(digest)

    def pin(self, digest: Digest) -> Path:
        """Says that a blob is pinned."""
        return self.pins / label(digest)

    def make(self) -> None:
        """Make the directories that are not there. Blocking.

        The layout's own is for the user of this process alone, if it is made here.

        Raises:
            SourceError: See `asupplemented.aio.atomic.map_write_errors`.
        """
        if not os.access(self.root, os.F_OK):
            make_directory(self.root, mode=0o700)
        for path in (
            self.root / "blobs",
            self.root / PRIVATE,
            *(self.ingest, self.leads, self.records, self.waiting, self.pins),
        ):
            make_directory(path)


def label(digest: Digest) -> str:
    """A digest as one name, without the colon that some tools split paths at."""
    return f"{digest.algorithm}-{digest.encoded}"


def read_labels(directory: Path) -> Iterator[Digest]:
    """The digests that names in a directory stand for; none if it is not there."""
    try:
        names = os.listdir(directory)  # noqa: PTH208 - a snapshot, and of names only
    except OSError:
        return
    for name in sorted(names):
        with suppress(InvalidDigestError):
            yield Digest(name.replace("-", ":", 1))


def _name_of(principal: str | None) -> str:
    """A name for a principal that tells nothing, and can be the name of a file."""
    if principal is None:
        return "nobody"
    return hashlib.sha256(principal.encode("utf-8", "surrogatepass")).hexdigest()[:32]
