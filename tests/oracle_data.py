"""Answers of the real Go package, and the worlds that it was asked about (``oracle/*.json``).

Each file is one case: the exact bytes of every object, what each source holds, the request,
and the answer. Objects have short names; a case speaks of them by name, and translates.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from asupplemented.abc import RawManifest
from asupplemented.model.digest import Digest
from asupplemented.model.media_type import DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED
from tests.worlds import Contents, write_directory, write_layout

ORACLE = Path(__file__).parent / "oracle"

SCHEMA1 = frozenset({DOCKER_SCHEMA1, DOCKER_SCHEMA1_SIGNED})


@dataclass(frozen=True)
class OracleObject:
    """A blob, config or manifest."""

    name: str
    digest: Digest
    """Its true digest; of the payload, where it is a signed schema 1 manifest."""
    raw: bytes
    media_type: str | None
    """None where the case does not say: configs and layers."""


@dataclass(frozen=True)
class OracleSource:
    """One member of the group."""

    number: int
    contents: Contents | None
    """None: there is nothing in this place, or it is the place of `same_as`."""
    same_as: int | None
    """The member whose reference is given once more, or None."""


@dataclass(frozen=True)
class OracleRequest:
    """What the group was asked for."""

    multiple: str
    """"all", "system" or "specific"."""
    instances: tuple[str, ...]
    """Names of the requested objects, or digests of what is no object."""
    os: str
    architecture: str
    variant: str | None


@dataclass(frozen=True)
class OracleAnswer:
    """What has to come out, by name; the mappings are empty where it has to fail."""

    ok: bool
    sources: dict[str, int]
    blobs: dict[str, str]
    defaults: dict[int, str]
    reads: tuple[str, ...]
    """``s2 default`` or ``s2 C``: what the serial loop reads, in its order."""


@dataclass(frozen=True)
class OracleCase:
    """One question and its answer."""

    name: str
    about: str
    objects: dict[str, OracleObject]
    sources: tuple[OracleSource, ...]
    request: OracleRequest
    expected: OracleAnswer
    outcome_only: bool
    """Compare only `OracleAnswer.ok`."""
    decision: str | None
    """Where the answer is ours and not that of the Go package, and why."""

    @cached_property
    def names(self) -> dict[Digest, str]:
        """True digest to name."""
        return {thing.digest: thing.name for thing in self.objects.values()}

    @property
    def uses_schema1(self) -> bool:
        """Whether a manifest of schema 1 is held anywhere: layouts refuse those."""
        held = {name for s in self.sources if s.contents for name in self._manifests(s.contents)}
        return any(self.objects[name].media_type in SCHEMA1 for name in held)

    def digest(self, name: str) -> Digest:
        """The true digest of an object; what is no name must be a digest itself."""
        return self.objects[name].digest if name in self.objects else Digest(name)

    def requested(self) -> tuple[Digest, ...]:
        """The instances that are asked for, by digest."""
        return tuple(self.digest(name) for name in self.request.instances)

    def expected_sources(self) -> dict[str, int]:
        """Manifest digest to member number."""
        return {self.digest(name): member for name, member in self.expected.sources.items()}

    def expected_blobs(self) -> dict[str, str]:
        """Blob digest to manifest digest."""
        return {self.digest(b): self.digest(m) for b, m in self.expected.blobs.items()}

    def expected_defaults(self) -> list[str | None]:
        """Each member's default digest, None for a reference given again."""
        defaults = self.expected.defaults
        names = [defaults.get(source.number) for source in self.sources]
        return [None if name is None else self.digest(name) for name in names]

    def write_dir(self, root: Path) -> list[str]:
        """Write every source as a ``dir:`` image below `root`; a reference for each member."""
        return self._write(root, write_directory, "dir")

    def write_oci(self, root: Path) -> list[str]:
        """Write every source as an OCI layout below `root`; a reference for each member.

        The default manifest is the only entry of its ``index.json``.
        """
        return self._write(root, write_layout, "oci")

    def _write(self, root: Path, write: Any, transport: str) -> list[str]:
        references: list[str] = []
        for source in self.sources:
            path = root / f"s{source.number}"
            if source.same_as is not None:
                references.append(references[source.same_as])
            elif source.contents is None:
                references.append(f"{transport}:{path}")
            else:
                references.append(write(path, source.contents))
        return references

    def _manifests(self, contents: Contents) -> list[str]:
        raws = {stored.raw for stored in contents.manifests.values()}
        return [thing.name for thing in self.objects.values() if thing.raw in raws]


def case_files() -> list[Path]:
    """All cases, sorted by name."""
    return sorted(ORACLE.glob("*.json"))


def load_case(path: Path) -> OracleCase:
    """Read one case."""
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    objects = {thing["name"]: _object(thing) for thing in data["objects"]}
    return OracleCase(
        name=data["name"],
        about=data["about"],
        objects=objects,
        sources=tuple(_source(source, objects) for source in data["sources"]),
        request=_request(data["request"]),
        expected=_answer(data["expected"]),
        outcome_only=bool(data.get("outcome_only")),
        decision=data.get("decision"),
    )


def _object(data: dict[str, Any]) -> OracleObject:
    raw = data["text"].encode()
    return OracleObject(data["name"], Digest(data["digest"]), raw, data.get("media_type"))


def _source(data: dict[str, Any], objects: dict[str, OracleObject]) -> OracleSource:
    same_as: int | None = data.get("same_reference_as")
    if same_as is not None or not data.get("exists", True):
        return OracleSource(data["id"], None, same_as)
    stored_as: dict[str, str] = data.get("stored_as", {})

    def place(name: str) -> Digest:
        return Digest(stored_as.get(name, objects[name].digest))

    default: str | None = data.get("default")
    contents = Contents(
        default=None if default is None else place(default),
        manifests={
            place(name): RawManifest(objects[name].raw, objects[name].media_type)
            for name in dict.fromkeys((*filter(None, [default]), *data["manifests"]))
        },
        blobs={place(name): objects[name].raw for name in data["blobs"]},
    )
    return OracleSource(data["id"], contents, None)


def _request(data: dict[str, Any]) -> OracleRequest:
    return OracleRequest(
        multiple=data["multiple"],
        instances=tuple(data["instances"]),
        os=data["os"],
        architecture=data["arch"],
        variant=data["variant"] or None,
    )


def _answer(data: dict[str, Any]) -> OracleAnswer:
    return OracleAnswer(
        ok=data["ok"],
        sources=data.get("sources", {}),
        blobs=data.get("blobs", {}),
        defaults={int(number): name for number, name in data.get("defaults", {}).items()},
        reads=tuple(data.get("reads", ())),
    )
