"""Documents: configuration files as text, never more than a cap, and the keys within."""

from __future__ import annotations

import os
import tomllib
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from asupplemented.aio.files import map_os_error, read_limited
from asupplemented.errors import ConfigurationError, NotFoundError, SupplementedError, excerpt
from asupplemented.limits import MIB
from asupplemented.model.strict_json import fold

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

__all__ = (
    "check_keys",
    "convert",
    "is_visible",
    "list_documents",
    "list_readable",
    "parse_toml",
    "quote_place",
    "read_bytes",
    "read_document",
)

T = TypeVar("T")

MAX_DOCUMENT: Final = 1 * MIB
"""One file. The largest that distributions ship has 20 KiB, and parsers are not quick."""

MAX_DOCUMENTS: Final = 1000
"""Files of one kind in one directory."""

MAX_DOTS: Final = 500
"""In one line of TOML: the time for a dotted key grows with the square of its parts."""


def read_document(path: Path, limit: int = MAX_DOCUMENT) -> str | None:
    """Read a file as text. Blocking.

    Args:
        path: A regular file, or the null device, which is an empty one.
        limit: The most bytes to accept.

    Returns:
        None if there is no such file.

    Raises:
        ConfigurationError: It cannot be read, is too large, or is not UTF-8.
    """
    data = read_bytes(path, limit)
    try:
        return None if data is None else data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 at byte {error.start}; save it as UTF-8"
        raise ConfigurationError(message) from error


def read_bytes(path: Path, limit: int = MAX_DOCUMENT) -> bytes | None:
    """Read a file as it is. Blocking.

    Args:
        path: See `read_document`.
        limit: See `read_document`.

    Returns:
        None if there is no such file.

    Raises:
        ConfigurationError: It cannot be read, or is too large.
    """
    if str(path) == os.devnull:
        return b""
    try:
        return read_limited(path, limit)
    except NotFoundError:
        return None
    except SupplementedError as error:
        raise ConfigurationError(error.message) from error


def is_visible(path: Path) -> bool:
    """Whether there is such a file or directory, as far as we may look. Blocking."""
    return os.access(path, os.F_OK)


def list_documents(directory: Path, *suffixes: str) -> tuple[Path, ...]:
    """The files of a directory, not of those within it, sorted by name. Blocking.

    Args:
        directory: If there is no such directory, it has no files.
        *suffixes: The ends of names to look for.

    Raises:
        ConfigurationError: It cannot be listed, or has too many files.
    """
    found = list_readable(directory, *suffixes)
    if found is None:
        message = f"cannot list {directory}: permission denied; check its permissions"
        raise ConfigurationError(message)
    return found


def list_readable(directory: Path, *suffixes: str) -> tuple[Path, ...] | None:
    """The same, where a directory that may not be read is no error. Blocking.

    Returns:
        None if we may not list the directory.

    Raises:
        ConfigurationError: It cannot be listed for another reason, or has too many files.
    """
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
    """The tables of a file in TOML.

    Args:
        text: What is in the file.
        path: The file, for messages.

    Raises:
        ConfigurationError: It is no TOML; the message says where. Or a line has too many dots.
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
        message = f"{path} is not TOML of this world: a number is too long, or nesting too deep"
        raise ConfigurationError(message) from error


def convert(tree: object, kind: type[T], path: Path) -> T:
    """Give a tree its type. Unknown keys are left out.

    Args:
        tree: What a parser made.
        kind: A struct.
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
    """Tell keys that nobody reads from those that somebody meant differently.

    Other programs read keys without regard to case. Such a key is refused: to leave out what
    they obey, a ``Blocked`` perhaps, would be worse.

    Args:
        found: Keys of a table.
        known: Keys that are read.
        where: The table, for messages.

    Returns:
        A remark for each key that is not read.

    Raises:
        ConfigurationError: A key is a known one in another case.
    """
    folded = {fold(key): key for key in known}
    remarks: list[str] = []
    for key in found:
        meant = folded.get(fold(key), key)
        if meant != key:
            message = f"{where}: the key {excerpt(key)} must be written {meant}"
            raise ConfigurationError(message)
        if key not in known:
            remarks.append(f"{where}: the key {excerpt(key)} is unknown, and ignored")
    return tuple(remarks)


def quote_place(text: str) -> str:
    """Quote a location for a message, without what may be a user and password before it."""
    return excerpt(text.rpartition("@")[2])
