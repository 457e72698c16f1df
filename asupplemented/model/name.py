"""Names of images in registries: ``registry/path[:tag][@digest]`` (rules REF-01 to REF-19).

The grammar is ASCII only, and every expression below is linear: quantifiers are possessive,
so that no text makes them try twice (rules REF-01, REF-02, SEC-08).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from asupplemented.errors import InvalidDigestError, InvalidReferenceError, excerpt
from asupplemented.model.digest import Digest
from asupplemented.remedies import ALLOW_IPV6, advise

__all__ = ("DEFAULT_REGISTRY", "DEFAULT_TAG", "MAX_NAME", "ImageName", "is_tag")

DEFAULT_REGISTRY: Final = "docker.io"
DEFAULT_TAG: Final = "latest"

MAX_NAME: Final = 255
"""Characters of registry, slash and path together (rule REF-13)."""

_MAX_TEXT: Final = 1024
"""Longer than any name with the longest tag and digest; longer text is refused unparsed."""

_LEGACY_REGISTRY: Final = "index.docker.io"
_OFFICIAL: Final = "library/"
_UNKNOWN_DIGEST: Final = "@@unknown-digest@@"

_REGISTRY: Final = re.compile(
    r"[a-zA-Z0-9]++(?:-++[a-zA-Z0-9]++)*+"
    r"(?:\.[a-zA-Z0-9]++(?:-++[a-zA-Z0-9]++)*+)*+"
    r"(?::[0-9]++)?",
    re.ASCII,
)
_BRACKETED: Final = re.compile(r"\[([0-9a-fA-F:.]{2,45})\](?::[0-9]++)?", re.ASCII)
_COMPONENT: Final = r"[a-z0-9]++(?:(?:\.|__?|-++)[a-z0-9]++)*+"
_PATH: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*+", re.ASCII)
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_DIGEST: Final = re.compile(
    r"[A-Za-z][A-Za-z0-9]*+(?:[-_+.][A-Za-z][A-Za-z0-9]*+)*+:[0-9a-fA-F]{32,}+", re.ASCII
)
_IDENTIFIER: Final = re.compile(r"[a-f0-9]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ImageName:
    """An image in a registry. A value; ``str()`` is the full form.

    A name with a tag or a digest, as every parsed name has, parses back from that form.

    Attributes:
        registry: ``host[:port]``, as written: case matters (rule REF-09).
        path: The repository within the registry, in lowercase.
        tag: Or None.
        digest: Or None. A name may have both (rule REF-11).

    Raises:
        InvalidReferenceError: A part breaks the grammar, or the name is too long.
    """

    registry: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        _check_registry(self.registry)
        _check_path(self.path)
        if len(self.registry) + 1 + len(self.path) > MAX_NAME:
            message = f"a repository name must not be more than {MAX_NAME} characters"
            raise InvalidReferenceError(message)
        if self.tag is not None and not is_tag(self.tag):
            raise _malformed(f"{excerpt(self.tag)} is no tag")

    @classmethod
    def parse(cls, text: str, *, allow_ipv6: bool = False) -> ImageName:
        """Parse a name as users write it, and complete it.

        ``busybox`` becomes ``docker.io/library/busybox:latest``. A name with neither tag nor
        digest gets the tag "latest"; one with a digest gets none (rule REF-10).

        Args:
            text: The name, without a scheme.
            allow_ipv6: Accept a registry like ``[::1]:5000`` (rule REF-12).

        Raises:
            InvalidReferenceError: The text is not a name; the message says which part is wrong.
        """
        try:
            return _parse(cls, text, allow_ipv6=allow_ipv6)
        except InvalidReferenceError as error:
            raise error.locate(reference=excerpt(text)) from error.__cause__

    @property
    def repository(self) -> str:
        """``registry/path``."""
        return f"{self.registry}/{self.path}"

    @property
    def familiar(self) -> str:
        """The shortest text that parses back to this name (rule REF-17)."""
        return self._suffixed(self._short())

    def namespaces(self) -> tuple[str, ...]:
        """Scopes that contain this repository, from the narrowest on (rule REF-18).

        Returns:
            The repository, its parents down to the registry, then the registry's parent
            domains as ``*.example.com``. The port does not occur in those.
        """
        parts = self.path.split("/")
        paths = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
        labels = self.registry.partition(":")[0].split(".")
        wild = [f"*.{'.'.join(labels[start:])}" for start in range(1, len(labels))]
        if self.registry.startswith("["):
            wild = []
        return (*(f"{self.registry}/{path}" for path in paths), self.registry, *wild)

    def with_tag(self, tag: str | None) -> ImageName:
        """The same name with another tag, or with none; the digest stays."""
        return replace(self, tag=tag)

    def with_digest(self, digest: Digest | str | None) -> ImageName:
        """The same name with another digest, or with none; the tag stays.

        Raises:
            InvalidDigestError: `digest` is malformed.
        """
        return replace(self, digest=None if digest is None else Digest(digest))

    def __str__(self) -> str:
        return self._suffixed(self.repository)

    def _suffixed(self, name: str) -> str:
        tag = "" if self.tag is None else f":{self.tag}"
        digest = "" if self.digest is None else f"@{self.digest}"
        return f"{name}{tag}{digest}"

    def _short(self) -> str:
        if self.registry != DEFAULT_REGISTRY:
            return self.repository
        rest = self.path.removeprefix(_OFFICIAL)
        short = self.path if "/" in rest else rest
        # A first component with a dot would be taken for a registry when it is read again.
        return short if _split_registry(short)[0] == DEFAULT_REGISTRY else self.repository


def is_tag(text: str) -> bool:
    """Whether a text is a valid tag (rule REF-14)."""
    return _TAG.fullmatch(text) is not None


def _parse(cls: type[ImageName], text: str, *, allow_ipv6: bool) -> ImageName:
    if len(text) > _MAX_TEXT:
        message = (
            f"a reference of {len(text)} characters: "
            f"the repository name must not be more than {MAX_NAME} characters"
        )
        raise InvalidReferenceError(message)
    if _IDENTIFIER.fullmatch(text) is not None:
        message = "64 hex digits cannot be a repository name, they look like an image ID"
        raise InvalidReferenceError(message)
    if text.endswith(_UNKNOWN_DIGEST):
        message = "a reference with an unknown digest cannot be read"
        raise InvalidReferenceError(message)
    name, at, digest = text.partition("@")
    registry, rest = _split_registry(name)
    if registry.startswith("[") and not allow_ipv6:
        raise _malformed("an IPv6 registry has to be allowed" + advise("set {}", ALLOW_IPV6))
    path, colon, tag = rest.partition(":")
    if registry == DEFAULT_REGISTRY and path and "/" not in path:
        path = _OFFICIAL + path
    if not colon and not at:
        return cls(registry, path, DEFAULT_TAG)
    return cls(registry, path, tag if colon else None, _parse_digest(digest) if at else None)


def _split_registry(name: str) -> tuple[str, str]:
    """Registry and the rest; a first part counts as a registry by its look (rule REF-05)."""
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return DEFAULT_REGISTRY, name
    return (DEFAULT_REGISTRY if first == _LEGACY_REGISTRY else first), rest


def _parse_digest(text: str) -> Digest:
    if _DIGEST.fullmatch(text) is None:
        raise _malformed(f"{excerpt(text)} is no digest")
    try:
        return Digest(text)
    except InvalidDigestError as error:
        raise InvalidReferenceError(error.message) from error


def _check_registry(registry: str) -> None:
    if registry.startswith("["):
        _check_ipv6(registry)
    elif _REGISTRY.fullmatch(registry) is None:
        raise _malformed(f"{excerpt(registry)} is no registry")


def _check_ipv6(registry: str) -> None:
    import ipaddress  # noqa: PLC0415 - slow to import, and needed for few names

    match = _BRACKETED.fullmatch(registry)
    try:
        ipaddress.IPv6Address(match[1] if match else "")
    except ValueError as error:
        raise _malformed(f"{excerpt(registry)} is no registry") from error


def _check_path(path: str) -> None:
    if path != path.lower():
        message = f"repository name must be lowercase, unlike {excerpt(path)}"
        raise InvalidReferenceError(message)
    if _PATH.fullmatch(path) is None:
        raise _malformed(f"{excerpt(path)} is no repository name")


def _malformed(fault: str) -> InvalidReferenceError:
    message = f"invalid reference format: {fault}, expected [registry/]path[:tag][@digest]"
    return InvalidReferenceError(message)
