"""Groups of references: one top, any number of supplements, one image source.

`supplement` returns a `SupplementedReference`, a value. Opening it resolves the group and returns a
`SupplementedSource`, which routes each digest to the member that serves it. Groups nest: a group is
a reference like any other, and its source is a source.

To read the algorithm, begin with `resolver`, then `lookahead` and `driver`; `resolution` is the
result.
"""

from __future__ import annotations

from asupplemented.supplemented.reference import SupplementedReference, supplement
from asupplemented.supplemented.source import SupplementedSource

__all__ = ("SupplementedReference", "SupplementedSource", "supplement")
