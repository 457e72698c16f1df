"""Groups of references: one top, any number of supplements, one image source.

The face of the library. `supplement` makes a `SupplementedReference`, a value; opening it
resolves the group and gives a `SupplementedSource`, which routes each digest to the member that
serves it. Groups nest: a group is a reference like any other, and its source a source.
"""

from __future__ import annotations

from asupplemented.supplemented.reference import SupplementedReference, supplement
from asupplemented.supplemented.source import SupplementedSource

__all__ = ("SupplementedReference", "SupplementedSource", "supplement")
