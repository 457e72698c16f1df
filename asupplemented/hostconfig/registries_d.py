"""registries.d: where signatures outside of registries are (rules SIG-02, SIG-04 to SIG-06).

The files are YAML and parsed with PyYAML, which the extra ``signatures`` installs. Files that hold
only comments do not need it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote, urlsplit

import anyio.to_thread

from asupplemented.errors import ConfigurationError, excerpt
from asupplemented.hostconfig.documents import (
    check_keys,
    list_drop_ins,
    read_document,
)
from asupplemented.limits import KIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from yaml import Node

    from asupplemented.hostconfig.paths import ConfigurationPaths
    from asupplemented.model.digest import Digest
    from asupplemented.model.name import ImageName

__all__ = ("Lookaside", "Section", "locate_signature")

T = TypeVar("T")

MAX_YAML: Final = 256 * KIB
"""Bytes of one file. Real ones have a few lines, and parsing YAML is slow."""

_SUFFIX: Final = ".yaml"
_SCHEMES: Final = ("file", "http", "https")

_TEXT: Final = "tag:yaml.org,2002:str"
_BOOLEAN: Final = "tag:yaml.org,2002:bool"
_NULL: Final = "tag:yaml.org,2002:null"
_TRUE: Final = frozenset(("true", "yes", "on"))

_READ: Final = ("lookaside", "sigstore")
"""Keys of the same meaning, the newer one first."""
_STAGING: Final = ("lookaside-staging", "sigstore-staging")
_ATTACHMENTS: Final = "use-sigstore-attachments"
_KEYS: Final = (*_READ, *_STAGING, _ATTACHMENTS)


@dataclass(frozen=True, slots=True)
class Section:
    """The settings of one namespace. None is a setting that it leaves to wider namespaces.

    Attributes:
        url: Where signatures are read.
        staging: Where signatures are written; None for `url`.
        attachments: Whether signatures are also read from the registry itself.
        origin: The file of the section.
    """

    url: str | None = field(default=None, repr=False)
    staging: str | None = field(default=None, repr=False)
    attachments: bool | None = None
    origin: Path | None = None


@dataclass(frozen=True, slots=True)
class Lookaside:
    """The content of all files of one registries.d. A value.

    Attributes:
        sections: By namespace: a repository with or without tag or digest, a parent of it, or
            ``*.example.com``.
        default: For images without a section; None for none.
        fallback: The URL of signatures if no file configures one; None for none.
        warnings: Harmless oddities of the files.
    """

    sections: Mapping[str, Section] = field(default_factory=dict[str, Section], hash=False)
    default: Section | None = None
    fallback: str | None = None
    warnings: tuple[str, ...] = ()

    @classmethod
    async def load(cls, paths: ConfigurationPaths) -> Lookaside:
        """Read a registries.d (rule SIG-04).

        It is the directory that `paths` names, else all directories of the distribution, the
        system and the user: of files with equal names, only the last one is read.

        Args:
            paths: Where the directories are.

        Raises:
            ConfigurationError: A file cannot be read or is malformed, two files configure the
                same namespace, or PyYAML is not installed and a file needs it.
        """
        directories = paths.drop_in_directories("registries")
        if paths.lookaside is not None:
            directories = (paths.lookaside,)
        found = await list_drop_ins(directories, _SUFFIX)
        texts = [(path, await read_document(path, MAX_YAML)) for path in found]
        signatures = paths.signatures
        fallback = None if signatures is None else f"file://{quote(str(signatures))}"
        parse = partial(cls.parse, texts, fallback=fallback)
        return await anyio.to_thread.run_sync(parse, abandon_on_cancel=True)

    @classmethod
    def parse(
        cls, texts: Iterable[tuple[Path, str | None]], *, fallback: str | None = None
    ) -> Lookaside:
        """Parse and merge files. Pure.

        Args:
            texts: Paths and texts; None for a file that is gone.
            fallback: See the attribute.

        Raises:
            ConfigurationError: See `load`.
        """
        sections: dict[str, Section] = {}
        defaults: list[Section] = []
        warnings: list[str] = []
        for path, text in texts:
            file = _File(path, warnings)
            for name, section in file.parse(text or ""):
                if name is None:
                    defaults.append(section)
                elif sections.setdefault(name, section) is not section:
                    raise _duplicate_error(f"docker: {name}", sections[name], path)
            if len(defaults) > 1:
                raise _duplicate_error("default-docker", defaults[0], path)
        return cls(sections, next(iter(defaults), None), fallback, tuple(warnings))

    def find_url(self, name: ImageName) -> str | None:
        """Where the signatures of an image are read (rule SIG-05).

        Each setting is looked up by itself: a section without it is skipped.

        Args:
            name: The image at the location that is read (rule CONF-18).

        Returns:
            The base URL of all repositories, for `locate_signature`; None for none.

        Raises:
            ConfigurationError: The setting is not the URL of a file or of a web server.
        """
        section = self._find_section(name, lambda each: each.url)
        return self.fallback if section is None else _check_url(section.url, section)

    def find_staging_url(self, name: ImageName) -> str | None:
        """Where the signatures of an image are written.

        Raises:
            ConfigurationError: See `find_url`.
        """
        section = self._find_section(name, lambda each: each.staging or each.url)
        if section is None:
            return self.fallback
        return _check_url(section.staging or section.url, section)

    def uses_attachments(self, name: ImageName) -> bool:
        """Whether the registry itself may hold signatures, as tags (rule SIG-06)."""
        section = self._find_section(name, lambda each: each.attachments)
        return section is not None and section.attachments is True

    def _find_section(self, name: ImageName, pick: Callable[[Section], object]) -> Section | None:
        """The section of the narrowest namespace that has a setting."""
        identity = str(name if name.digest is None else name.with_tag(None))
        sections = (self.sections.get(scope) for scope in (identity, *name.namespaces()))
        for section in (*sections, self.default):
            if section is not None and pick(section) is not None:
                return section
        return None


def locate_signature(url: str, name: ImageName, digest: Digest, number: int) -> str:
    """The URL of one signature of a manifest (rule SIG-02). Pure.

    Args:
        url: See `Lookaside.find_url`.
        name: The image; its registry is not part of the URL.
        digest: The digest of the manifest.
        number: The number of the signature, from 1.
    """
    parts = urlsplit(url)
    path = f"{parts.path}/{name.path}@{digest.algorithm}={digest.encoded}/signature-{number}"
    return parts._replace(path=path).geturl()


def _check_url(url: str | None, section: Section) -> str:
    try:
        parts = urlsplit(url or "")
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in _SCHEMES or (parts.scheme != "file" and not parts.hostname):
        message = f"{section.origin}: a lookaside must be the URL of a file or of a web server"
        raise ConfigurationError(message)
    return parts.geturl()


def _duplicate_error(what: str, first: Section, path: Path) -> ConfigurationError:
    message = f"{what} is defined both in {first.origin} and in {path}; keep one of them"
    return ConfigurationError(message)


class _File:
    """Parses one file: checks the keys and types of its nodes."""

    def __init__(self, path: Path, warnings: list[str]) -> None:
        self._path = path
        self._warnings = warnings

    def parse(self, text: str) -> Iterator[tuple[str | None, Section]]:
        """Its sections with their namespaces; the default section with None."""
        root = None if _is_blank(text) else _compose(text, self._path)
        if root is None:
            return
        top = self._mapping(root, "the file")
        self._check_keys(top, ("default-docker", "docker"), "the file")
        default = self._optional(top, "default-docker")
        if default is not None:
            yield None, self._section(default, "default-docker")
        docker = self._optional(top, "docker")
        if docker is not None:
            for name, node in self._mapping(docker, "docker").items():
                yield name, self._section(node, f"docker: {excerpt(name)}")

    def _section(self, node: Node, where: str) -> Section:
        if node.tag == _NULL:
            return Section(origin=self._path)
        table = self._mapping(node, where)
        self._check_keys(table, _KEYS, where)
        return Section(
            self._text(table, _READ, where),
            self._text(table, _STAGING, where),
            self._boolean(table, where),
            self._path,
        )

    def _text(self, table: Mapping[str, Node], keys: tuple[str, ...], where: str) -> str | None:
        """The first value of some keys that is not empty."""
        for key in keys:
            node = self._optional(table, key)
            if node is not None and node.tag != _TEXT:
                raise self._type_error(f"{where}, {key}", "text")
            if node is not None and node.value:
                return str(node.value)
        return None

    def _boolean(self, table: Mapping[str, Node], where: str) -> bool | None:
        node = self._optional(table, _ATTACHMENTS)
        if node is None:
            return None
        if node.tag != _BOOLEAN:
            raise self._type_error(f"{where}, {_ATTACHMENTS}", "true or false")
        return str(node.value).lower() in _TRUE

    def _optional(self, table: Mapping[str, Node], key: str) -> Node | None:
        node = table.get(key)
        return None if node is None or node.tag == _NULL else node

    def _mapping(self, node: Node, where: str) -> dict[str, Node]:
        from yaml import MappingNode, ScalarNode  # noqa: PLC0415 - an extra

        if not isinstance(node, MappingNode):
            raise self._type_error(where, "keys with values")
        table: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise self._type_error(f"a key of {where}", "text")
            if table.setdefault(str(key.value), value) is not value:
                message = f"{self._path}: {where} gives {excerpt(str(key.value))} twice; keep one"
                raise ConfigurationError(message)
        return table

    def _check_keys(self, table: Mapping[str, Node], known: tuple[str, ...], where: str) -> None:
        self._warnings.extend(check_keys(table, known, f"{self._path}: {where}"))

    def _type_error(self, where: str, expected: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}: {where} must be {expected}")


def _is_blank(text: str) -> bool:
    """Whether there are only comments, as in the examples that packages install."""
    lines = (line.strip() for line in text.splitlines())
    return all(not line or line.startswith("#") or line == "---" for line in lines)


def _compose(text: str, path: Path) -> Node | None:
    """The nodes of a document. No objects are made of them, because YAML can name types."""
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        message = f"{path} is YAML and needs PyYAML: pip install 'asupplemented[signatures]'"
        raise ConfigurationError(message) from error
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        message = f"{path} is not YAML{line}: {error.problem}"
        raise ConfigurationError(message) from error
    except (yaml.YAMLError, RecursionError) as error:
        message = f"{path} is not YAML: it has control characters, or nesting is too deep"
        raise ConfigurationError(message) from error
