"""The commands on a cache directory: what it holds, whether that is whole, and what may go."""

from __future__ import annotations

import hashlib
import sys
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import click

from asupplemented.aio.locks import retry_while_locked
from asupplemented.cache.layout.graph import ManifestGraph
from asupplemented.cache.layout.paths import CachePaths, read_labels
from asupplemented.cache.layout.store import CacheStore
from asupplemented.cli.caching import parse_cache_size
from asupplemented.cli.console import ConsoleReporter
from asupplemented.cli.digests import complete_digest, parse_abbreviated
from asupplemented.cli.help import Command
from asupplemented.cli.options import CommonOptions
from asupplemented.cli.output import short, write_json, write_text
from asupplemented.cli.parameters import PATH, documented_argument, shared_option
from asupplemented.cli.running import WRONG_CONTENT, call, reporting_errors
from asupplemented.errors import ConfigurationError, ImageNotFoundError
from asupplemented.model.digest import Digest
from asupplemented.model.sizes import show_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asupplemented.session import Session

__all__ = ("cache", "gc", "list_images", "stats", "unpin", "verify")

_directory = documented_argument("directory", "DIR", "The directory that --cache named.", type=PATH)
_as_json = shared_option(CommonOptions, "as_json")


@click.group()
def cache() -> None:
    """Look at a cache directory, check it and tidy it."""


class _Entry(NamedTuple):
    digest: Digest
    size: int
    """Bytes; of an image, those of all blobs and manifests that it references."""
    used: float
    """When it was last used, seconds since the epoch."""
    pinned: bool


def _open(directory: Path, max_bytes: int = sys.maxsize) -> CacheStore:
    """The files of a cache.

    Raises:
        ImageNotFoundError: There are none.
    """
    if not (directory / "blobs").is_dir():
        message = f"there is no cache at {directory}: it has no directory blobs; check the path"
        raise ImageNotFoundError(message)
    return CacheStore(CachePaths(directory), max_bytes)


def _list_blobs(store: CacheStore) -> list[_Entry]:
    pinned = frozenset(read_labels(store.paths.pins))
    return [
        _Entry(usage.digest, usage.size, usage.used / 1e9, usage.digest in pinned)
        for usage in sorted(store.metadata.scan(), reverse=True)
    ]


def _list_images(store: CacheStore) -> Iterator[_Entry]:
    """The complete images, and those that are pinned and are not complete yet."""
    blobs = {entry.digest: entry for entry in _list_blobs(store)}
    index, graph = store.paths.layout.read_index(), ManifestGraph(store.paths)
    listed = [] if index is None else [Digest(each.digest) for each in index.manifests]
    tops = dict.fromkeys((*listed, *read_labels(store.paths.pins)))
    for top in tops:
        known = [blobs[each] for each in graph.known_closure(top) if each in blobs]
        if top in blobs:
            own = blobs[top]
            yield own._replace(size=sum(each.size for each in known))


@cache.command("ls", cls=Command)
@_directory
@click.option("--blobs", is_flag=True, help="List every blob and manifest, not images.")
@click.option("--full", is_flag=True, help="Print digests whole.")
@_as_json
def list_images(directory: Path, *, blobs: bool, full: bool, as_json: bool) -> None:
    """List the images of a cache, the last used first.

    Prints digest, size, time of last use in UTC, and "pinned" of one image on a line. Images can
    share blobs, so their sizes may add up to more than the cache holds.
    """
    with reporting_errors(ConsoleReporter()):
        store = _open(directory)
        found = _list_blobs(store) if blobs else list(_list_images(store))
        found.sort(key=lambda entry: entry.used, reverse=True)
    if as_json:
        write_json({"blobs" if blobs else "images": [entry._asdict() for entry in found]})
        return
    for entry in found:
        digest = entry.digest if full else short(entry.digest)
        used = datetime.fromtimestamp(entry.used, UTC).strftime("%Y-%m-%d %H:%M")
        line = f"{digest}  {show_size(entry.size):>10}  {used}"
        write_text(f"{line}  pinned" if entry.pinned else line)


@cache.command(cls=Command)
@_directory
@_as_json
def stats(directory: Path, *, as_json: bool) -> None:
    """Count the images, blobs, pins and bytes of a cache."""
    with reporting_errors(ConsoleReporter()):
        store = _open(directory)
        entries, images = _list_blobs(store), list(_list_images(store))
    counts = {
        "images": len(images),
        "entries": len(entries),
        "pins": sum(entry.pinned for entry in entries),
        "bytes": sum(entry.size for entry in entries),
    }
    if as_json:
        write_json(counts)
    else:
        write_text(
            f"{counts['images']} images, {counts['entries']} blobs and manifests, "
            f"{counts['pins']} pins, {show_size(counts['bytes'])}"
        )


@cache.command(cls=Command)
@_directory
@click.option("--remove", is_flag=True, help="Remove what is corrupt; it is fetched again.")
@_as_json
def verify(directory: Path, *, remove: bool, as_json: bool) -> None:
    """Hash every blob and manifest, and compare it with its name.

    Prints the digests of corrupt ones. The exit code is 4 if there are any that stay.
    """
    reporter = ConsoleReporter()
    with reporting_errors(reporter):
        store = _open(directory)
        entries = _list_blobs(store)
        corrupt = [entry.digest for entry in entries if not _is_whole(store, entry.digest)]
        if remove:
            _change(store, *(partial(store.remove, digest) for digest in corrupt))
        stay = [digest for digest in corrupt if store.paths.has(digest)]
    if as_json:
        write_json({"verified": len(entries) - len(corrupt), "corrupt": corrupt, "stay": stay})
    else:
        for digest in corrupt:
            write_text(digest)
        reporter.info(f"{len(entries)} verified, {len(corrupt)} corrupt, {len(stay)} stay")
    if stay:
        raise click.exceptions.Exit(WRONG_CONTENT)


def _is_whole(store: CacheStore, digest: Digest) -> bool:
    try:
        with store.paths.blob(digest).open("rb") as file:
            return hashlib.file_digest(file, digest.algorithm).hexdigest() == digest.encoded
    except FileNotFoundError:
        return True  # It was evicted meanwhile.
    except OSError as error:
        message = f"{store.paths.blob(digest)} cannot be read: {error.strerror}"
        raise ConfigurationError(message) from error


@cache.command(cls=Command)
@_directory
@documented_argument(
    "digests", "[DIGEST]...", "Pinned digests; they can be abbreviated.", many=True
)
@click.option("--all", "all_", is_flag=True, help="Remove all pins.")
def unpin(directory: Path, digests: tuple[str, ...], *, all_: bool) -> None:
    """Let images be evicted again that prefetch --pin keeps."""
    if bool(digests) is all_:
        message = "give the digests to unpin, or --all"
        raise click.BadParameter(message, param_hint="DIGEST")
    wanted = [parse_abbreviated(text, "DIGEST") for text in digests]
    with reporting_errors(ConsoleReporter()):
        store = _open(directory)
        pinned = tuple(read_labels(store.paths.pins))
        chosen = pinned if all_ else tuple(complete_digest(each, pinned) for each in wanted)
        _change(store, partial(store.set_pinned, chosen, pinned=False))
    for digest in chosen:
        write_text(digest)


@cache.command(cls=Command)
@_directory
@click.option(
    "--cache-size", metavar="SIZE", help="Evict until the cache holds at most this, like 500MB."
)
def gc(directory: Path, *, cache_size: str | None) -> None:
    """Evict what was not used for longest.

    What dead processes left is removed, too. Nothing is evicted without --cache-size, and never
    what is pinned or being read.
    """
    size = sys.maxsize if cache_size is None else parse_cache_size(cache_size)
    reporter = ConsoleReporter()
    with reporting_errors(reporter):
        store = _open(directory, size)
        before = sum(entry.size for entry in _list_blobs(store))
        _change(store, partial(store.prepare, time.time()))
        after = sum(entry.size for entry in _list_blobs(store))
    for event in store.evicted:
        write_text(event.digest)
    reporter.info(f"evicted {show_size(before - after)}; the cache holds {show_size(after)}")


def _change(store: CacheStore, *changes: Callable[[], object]) -> None:
    """Change a cache, and wait for other processes that change it."""

    async def change(session: Session) -> None:
        for each in changes:
            await retry_while_locked(session, store.paths.root, each)

    call(change)
