"""Fakes for tests: image builders, and a registry that answers correctly, or fails by script."""

from __future__ import annotations

from asupplemented.testing.access import Access, Basic, Bearer, Token
from asupplemented.testing.certificates import Authority
from asupplemented.testing.control import Raise, SourceControl
from asupplemented.testing.delivery import (
    Chunked,
    CloseDelimited,
    ContentLength,
    Cut,
    Delay,
    Endless,
    Hold,
    Raw,
    Slow,
    Stall,
)
from asupplemented.testing.disk import select, write_directory, write_layout
from asupplemented.testing.exchange import Answer, Pause, Request, fail
from asupplemented.testing.faults import (
    Body,
    Corrupt,
    Encoding,
    Headers,
    Html,
    IgnoreRange,
    Redirect,
    Resize,
    Status,
    Unauthorized,
    WrongRange,
)
from asupplemented.testing.image_builder import ImageBuilder
from asupplemented.testing.images import (
    Built,
    BuiltImage,
    BuiltIndex,
    build_artifact,
    build_image,
    build_index,
)
from asupplemented.testing.recorder import Fault, Match, Script, Turn
from asupplemented.testing.registry import FakeRegistry
from asupplemented.testing.sources import FaultyReference, FaultySource, hold_in_memory

__all__ = (
    "Access",
    "Answer",
    "Authority",
    "Basic",
    "Bearer",
    "Body",
    "Built",
    "BuiltImage",
    "BuiltIndex",
    "Chunked",
    "CloseDelimited",
    "ContentLength",
    "Corrupt",
    "Cut",
    "Delay",
    "Encoding",
    "Endless",
    "FakeRegistry",
    "Fault",
    "FaultyReference",
    "FaultySource",
    "Headers",
    "Hold",
    "Html",
    "IgnoreRange",
    "ImageBuilder",
    "Match",
    "Pause",
    "Raise",
    "Raw",
    "Redirect",
    "Request",
    "Resize",
    "Script",
    "Slow",
    "SourceControl",
    "Stall",
    "Status",
    "Token",
    "Turn",
    "Unauthorized",
    "WrongRange",
    "build_artifact",
    "build_image",
    "build_index",
    "fail",
    "hold_in_memory",
    "select",
    "write_directory",
    "write_layout",
)
