"""Configuration files: read within a cap, listed, parsed as TOML, and their keys checked."""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Final, TypeVar

import anyio.to_thread
import msgspec

from asupplemented.aio.async_files import read_file
from asupplemented.aio.files import map_os_error
from asupplemented.errors import ConfigurationError, NotFoundError, SupplementedError, excerpt
from asupplemented.limits import MIB
from asupplemented.model.strict_json import fold

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

__all__ = (
    "check_keys",
    "convert",
    "find_visible",
    "list_documents",
    "list_drop_ins",
    "list_readable",
    "parse_toml",
    "quote_location",
    "read_bytes",
    "read_document",
)

T = TypeVar("T")

MAX_DOCUMENT: Final = 1 * MIB
"""Bytes of one file. The largest that distributions ship has 20 KiB, and parsers are slow."""

MAX_DOCUMENTS: Final = 1000
"""Files of one kind in one directory."""

MAX_DOTS: Final = 500
"""Dots in one line of TOML: parsing a dotted key takes time quadratic in its parts."""


async def read_document(path: Path, limit: int = MAX_DOCUMENT) -> str | None:
    """Read a file as text.

    Args:
        path: A regular file, or the null device, which counts as an empty file.
        limit: The most bytes to accept.

    Returns:
        None if the file does not exist.

    Raises:
        ConfigurationError: The file cannot be read, is too large, or is not UTF-8.
    """
    data = await read_bytes(path, limit)
    try:
        return None if data is None else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8"
        raise ConfigurationError(message) from error


async def read_bytes(path: Path, limit: int = MAX_DOCUMENT) -> bytes | None:
    """Read the bytes of a file.

    Args:
        path: See `read_document`.
        limit: See `read_document`.

    Returns:
        None if the file does not exist.

    Raises:
        ConfigurationError: The file cannot be read, or is too large.
    """
    if str(path) == os.devnull:
        return b""
    try:
        return await read_file(path, limit)
    except NotFoundError:
        return None
    except SupplementedError as error:
        raise ConfigurationError(error.message) from error


async def find_visible(paths: Iterable[Path | None]) -> Path | None:
    """The first file or directory that exists and that this process may see.

    Args:
        paths: Where to look; None is nowhere.
    """
    wanted = [path for path in paths if path is not None]

    def find() -> Path | None:
        return next((path for path in wanted if os.access(path, os.F_OK)), None)

    return await anyio.to_thread.run_sync(find)  # in one hop


async def list_documents(directory: Path, *suffixes: str) -> tuple[Path, ...]:
    """List the files of a directory, without its subdirectories, sorted by name.

    Args:
        directory: A directory that does not exist has no files.
        *suffixes: The suffixes of names to list.

    Raises:
        ConfigurationError: The directory cannot be listed, or has too many files.
    """
    return await anyio.to_thread.run_sync(_list_documents, directory, suffixes)


def _list_documents(directory: Path, suffixes: tuple[str, ...]) -> tuple[Path, ...]:
    found = _list_readable(directory, suffixes)
    if found is None:
        message = f"cannot list {directory}: permission denied; check its permissions"
        raise ConfigurationError(message)
    return found


async def list_drop_ins(directories: Iterable[Path], *suffixes: str) -> tuple[Path, ...]:
    """List the files of several directories as one list, sorted by file name (rule CONF-02).

    Args:
        directories: The lowest precedence first: of files with equal names, the last one is
            listed.
        *suffixes: The suffixes of names to list.

    Raises:
        ConfigurationError: See `list_documents`.
    """

    def list_all() -> tuple[Path, ...]:
        found: dict[str, Path] = {}
        for directory in directories:
            found.update((path.name, path) for path in _list_documents(directory, suffixes))
        return tuple(found[name] for name in sorted(found))

    return await anyio.to_thread.run_sync(list_all)  # in one hop


async def list_readable(directory: Path, *suffixes: str) -> tuple[Path, ...] | None:
    """The same as `list_documents`, but missing permission is not an error.

    Returns:
        None if this process has no permission to list the directory.

    Raises:
        ConfigurationError: The directory cannot be listed for another reason, or has too many
            files.
    """
    # In one hop: `aiofiles.os.scandir` returns an iterator whose steps block the event loop.
    return await anyio.to_thread.run_sync(_list_readable, directory, suffixes)


def _list_readable(directory: Path, suffixes: tuple[str, ...]) -> tuple[Path, ...] | None:
    names: list[str] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(suffixes) and not entry.is_dir(follow_symlinks=False):
                    names.append(entry.name)
                if len(names) > MAX_DOCUMENTS:
                    message = f"{directory} has more than {MAX_DOCUMENTS} files; remove some"
                    raise ConfigurationError(message)
    except FileNotFoundError:
        return ()
    except PermissionError:
        return None
    except OSError as error:
        raise ConfigurationError(map_os_error(error, directory).message) from error
    return tuple(directory / name for name in sorted(names))


def parse_toml(text: str, path: Path) -> dict[str, object]:
    """Parse the text of a TOML file. Pure.

    Args:
        text: The text.
        path: The file, for messages.

    Raises:
        ConfigurationError: The text is not TOML; the message says where. Or a line has too many
            dots.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS:
            message = f"{path} has more than {MAX_DOTS} dots in line {number}; break the line"
            raise ConfigurationError(message)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = f"{path} is not TOML: {error}"
        raise ConfigurationError(message) from error
    except (ValueError, RecursionError) as error:
        message = f"{path} is not TOML: a number is too long, or nesting is too deep"
        raise ConfigurationError(message) from error


def convert(tree: object, kind: type[T], path: Path) -> T:
    """Convert a parsed tree to a struct. Unknown keys are dropped. Pure.

    Args:
        tree: The result of a parser.
        kind: The type of the struct.
        path: The file, for messages.

    Raises:
        ConfigurationError: A value has the wrong type; the message names its key.
    """
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        message = f"{path}: {error}"
        raise ConfigurationError(message) from error


def check_keys(found: Iterable[str], known: Collection[str], where: str) -> tuple[str, ...]:
    """Check the keys of a table: unknown ones are ignored, those in the wrong case refused. Pure.

    Other programs read keys without regard to case. To ignore a key that they obey, ``Blocked``
    for example, would be dangerous.

    Args:
        found: The keys of the table.
        known: The keys that the library reads.
        where: The table, for messages.

    Returns:
        A warning for each unknown key.

    Raises:
        ConfigurationError: A key equals a known one but for its case.
    """
    folded = {fold(key): key for key in known}
    warnings: list[str] = []
    for key in found:
        meant = folded.get(fold(key), key)
        if meant != key:
            message = f"{where}: the key {excerpt(key)} must be written {meant}"
            raise ConfigurationError(message)
        if key not in known:
            warnings.append(f"{where}: the key {excerpt(key)} is unknown, and ignored")
    return tuple(warnings)


def quote_location(text: str) -> str:
    """Quote a location for a message, without a user name and password before an ``@``."""
    return excerpt(text.rpartition("@")[2])
