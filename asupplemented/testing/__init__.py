"""Fakes for tests: image builders, and a registry that is right, or hostile when told to be."""

from __future__ import annotations

from asupplemented.testing.disk import select, write_directory, write_layout
from asupplemented.testing.exchange import Answer, Pause, Request, fail
from asupplemented.testing.images import (
    Built,
    BuiltImage,
    BuiltIndex,
    build_artifact,
    build_image,
    build_index,
)
from asupplemented.testing.registry import FakeRegistry
from asupplemented.testing.script import Fault, Match, Script, Turn

__all__ = (
    "Answer",
    "Built",
    "BuiltImage",
    "BuiltIndex",
    "FakeRegistry",
    "Fault",
    "Match",
    "Pause",
    "Request",
    "Script",
    "Turn",
    "build_artifact",
    "build_image",
    "build_index",
    "fail",
    "select",
    "write_directory",
    "write_layout",
)
