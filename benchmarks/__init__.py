"""Benchmarks: the library beside its peers, measured in the same run.

Theory of operation
-------------------

A group (`opening`, `blobs`, ...) is a module with a function ``run`` that measures cases. In a case
several contestants do the same work: the library, and programs or libraries to compare with. The
contestants of a case take turns, so a machine that becomes slower affects all of them alike, and a
ratio is the median of the ratios of each round. `harness` runs the rounds within a limit of time.

What was measured is one JSON line for each contestant of a case: seconds, and seconds of CPU, of
every round (`results`). `report` turns such a file into tables, plots and the numbers of the
README, and can do it again later. A peer that is not installed is skipped, and the report names it.
"""

import sys

# One of the peers brings aiodns, which aiohttp would use then. It is measured as it comes: without.
if "aiohttp" not in sys.modules:
    sys.modules["aiodns"] = None  # type: ignore[assignment]
