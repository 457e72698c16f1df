"""registries.d: where signatures are that lie beside a registry (rules SIG-02, SIG-04 to SIG-06).

Its files are YAML, read by PyYAML: the extra ``signatures``. Files without content need it not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote, urlsplit

from asupplemented.errors import ConfigurationError, excerpt
from asupplemented.hostconfig.documents import (
    check_keys,
    is_visible,
    list_documents,
    read_document,
)
from asupplemented.limits import KIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from yaml import Node

    from asupplemented.hostconfig.paths import ConfigurationPaths
    from asupplemented.model.digest import Digest
    from asupplemented.model.name import ImageName

__all__ = ("Lookaside", "Section", "locate_signature")

T = TypeVar("T")

MAX_YAML: Final = 256 * KIB
"""One file: real ones have a few lines, and parsing YAML is slow."""

_SUFFIX: Final = ".yaml"
_SCHEMES: Final = ("file", "http", "https")

_TEXT: Final = "tag:yaml.org,2002:str"
_BOOLEAN: Final = "tag:yaml.org,2002:bool"
_NULL: Final = "tag:yaml.org,2002:null"
_TRUE: Final = frozenset(("true", "yes", "on"))

_READ: Final = ("lookaside", "sigstore")
"""Keys of one meaning, the newer one first."""
_STAGING: Final = ("lookaside-staging", "sigstore-staging")
_ATTACHMENTS: Final = "use-sigstore-attachments"
_KEYS: Final = (*_READ, *_STAGING, _ATTACHMENTS)


@dataclass(frozen=True, slots=True)
class Section:
    """What is said of one namespace. None is what it leaves to wider ones.

    Attributes:
        url: Where signatures are read from.
        staging: Where they are written to; without it, `url`.
        attachments: Whether signatures are also looked for in the registry itself.
        origin: The file that says so.
    """

    url: str | None = field(default=None, repr=False)
    staging: str | None = field(default=None, repr=False)
    attachments: bool | None = None
    origin: Path | None = None


@dataclass(frozen=True, slots=True)
class Lookaside:
    """All that the files of one registries.d say. A value.

    Attributes:
        sections: By namespace: a repository with or without tag or digest, what contains it, or
            ``*.example.com``.
        default: For all that no section speaks of; None for nothing.
        fallback: Where signatures are that nobody has configured; None for nowhere.
        remarks: What is odd in the files, and does no harm.
    """

    sections: Mapping[str, Section] = field(default_factory=dict[str, Section], hash=False)
    default: Section | None = None
    fallback: str | None = None
    remarks: tuple[str, ...] = ()

    @classmethod
    def load(cls, paths: ConfigurationPaths) -> Lookaside:
        """Read a registries.d (rule SIG-04). Blocking.

        That is the directory that was named, else the user's if it exists, else the system's.

        Args:
            paths: Where it is.

        Raises:
            ConfigurationError: A file cannot be read or followed, two files speak of the same
                namespace, or there are files and PyYAML is not installed.
        """
        directory = _choose(paths)
        sections: dict[str, Section] = {}
        defaults: list[Section] = []
        remarks: list[str] = []
        for path in () if directory is None else list_documents(directory, _SUFFIX):
            file = _File(path, remarks)
            for name, section in file.read():
                if name is None:
                    defaults.append(section)
                elif sections.setdefault(name, section) is not section:
                    raise _repeated(f"docker: {name}", sections[name], path)
            if len(defaults) > 1:
                raise _repeated("default-docker", defaults[0], path)
        signatures = paths.signatures
        fallback = None if signatures is None else f"file://{quote(str(signatures))}"
        return cls(sections, next(iter(defaults), None), fallback, tuple(remarks))

    def find_url(self, name: ImageName) -> str | None:
        """Where the signatures of an image are read from (rule SIG-05).

        Each setting is looked up by itself: a section that lacks it is passed over.

        Args:
            name: The image as it is physically read (rule CONF-18).

        Returns:
            The URL of a place for all repositories, for `locate_signature`. None for nowhere.

        Raises:
            ConfigurationError: It is no URL of a file or of a web server.
        """
        section = self._first(name, lambda each: each.url)
        return self.fallback if section is None else _check_url(section.url, section)

    def find_staging_url(self, name: ImageName) -> str | None:
        """Where signatures of an image are written to.

        Raises:
            ConfigurationError: See `find_url`.
        """
        section = self._first(name, lambda each: each.staging or each.url)
        if section is None:
            return self.fallback
        return _check_url(section.staging or section.url, section)

    def uses_attachments(self, name: ImageName) -> bool:
        """Whether the registry itself may hold signatures, under tags (rule SIG-06)."""
        section = self._first(name, lambda each: each.attachments)
        return section is not None and section.attachments is True

    def _first(self, name: ImageName, pick: Callable[[Section], object]) -> Section | None:
        """The section closest to an image that has a setting."""
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
        name: The image; its registry does not count.
        digest: Of the manifest.
        number: From 1.
    """
    parts = urlsplit(url)
    path = f"{parts.path}/{name.path}@{digest.algorithm}={digest.encoded}/signature-{number}"
    return parts._replace(path=path).geturl()


def _choose(paths: ConfigurationPaths) -> Path | None:
    if paths.lookaside is not None:
        return paths.lookaside
    of_user = paths.of_user("registries.d")
    if of_user is not None and is_visible(of_user):
        return of_user
    return paths.of_system("registries.d")


def _check_url(url: str | None, section: Section) -> str:
    try:
        parts = urlsplit(url or "")
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in _SCHEMES or (parts.scheme != "file" and not parts.hostname):
        message = f"{section.origin}: a lookaside is the URL of a file or of a web server"
        raise ConfigurationError(message)
    return parts.geturl()


def _repeated(what: str, first: Section, path: Path) -> ConfigurationError:
    message = f"{what} is defined both in {first.origin} and in {path}; keep one of them"
    return ConfigurationError(message)


class _File:
    """One file: its nodes, and their keys and types."""

    def __init__(self, path: Path, remarks: list[str]) -> None:
        self._path = path
        self._remarks = remarks

    def read(self) -> Iterator[tuple[str | None, Section]]:
        """Its sections by namespace; that of all others by None."""
        text = read_document(self._path, MAX_YAML)
        root = None if text is None or _is_blank(text) else _compose(text, self._path)
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
        """The value of the first of some keys that has one; an empty text is none."""
        for key in keys:
            node = self._optional(table, key)
            if node is not None and node.tag != _TEXT:
                raise self._wrong(f"{where}, {key}", "text")
            if node is not None and node.value:
                return str(node.value)
        return None

    def _boolean(self, table: Mapping[str, Node], where: str) -> bool | None:
        node = self._optional(table, _ATTACHMENTS)
        if node is None:
            return None
        if node.tag != _BOOLEAN:
            raise self._wrong(f"{where}, {_ATTACHMENTS}", "true or false")
        return str(node.value).lower() in _TRUE

    def _optional(self, table: Mapping[str, Node], key: str) -> Node | None:
        node = table.get(key)
        return None if node is None or node.tag == _NULL else node

    def _mapping(self, node: Node, where: str) -> dict[str, Node]:
        from yaml import MappingNode, ScalarNode  # noqa: PLC0415 - an extra

        if not isinstance(node, MappingNode):
            raise self._wrong(where, "keys with values")
        table: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise self._wrong(f"a key of {where}", "text")
            if table.setdefault(str(key.value), value) is not value:
                message = f"{self._path}: {where} gives {excerpt(str(key.value))} twice; keep one"
                raise ConfigurationError(message)
        return table

    def _check_keys(self, table: Mapping[str, Node], known: tuple[str, ...], where: str) -> None:
        self._remarks.extend(check_keys(table, known, f"{self._path}: {where}"))

    def _wrong(self, where: str, expected: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path}: {where} has to be {expected}")


def _is_blank(text: str) -> bool:
    """Whether there is nothing but comments, as in files that only show what could be said."""
    lines = (line.strip() for line in text.splitlines())
    return all(not line or line.startswith("#") or line == "---" for line in lines)


def _compose(text: str, path: Path) -> Node | None:
    """The nodes of a document. No values are made of them: what YAML can make is too much."""
    try:
        import yaml  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        message = (
            f"{path} is YAML, for which PyYAML is needed: pip install 'asupplemented[signatures]'"
        )
        raise ConfigurationError(message) from error
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        message = f"{path} is not YAML{line}: {error.problem}"
        raise ConfigurationError(message) from error
    except (yaml.YAMLError, RecursionError) as error:
        message = f"{path} is not YAML that can be read: odd characters, or nested too deep"
        raise ConfigurationError(message) from error
