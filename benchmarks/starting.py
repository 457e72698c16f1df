"""Starting: what importing the package and running its command line costs in CPU.

Each contestant is a fresh interpreter. Byte code is compiled beforehand, as that of an installed
package is, and kept in a directory of its own, whatever the environment says about writing it.
aiohttp is imported without aiodns, which it does not need, and which makes it slower to import.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asupplemented.testing import build_image
from asupplemented.testing.disk import write_layout
from benchmarks.harness import timed
from benchmarks.results import OURS

if TYPE_CHECKING:
    from benchmarks.harness import Bench

__all__ = ("AIOHTTP", "CASE", "PYTHON", "run")

CASE: Final = "start"
PYTHON: Final = "python"
AIOHTTP: Final = "import aiohttp"
COMMAND: Final = ("-m", "asupplemented")


def start(arguments: tuple[str, ...], cache: str) -> None:
    """Run an interpreter."""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def run(bench: Bench) -> None:
    """Measure the case."""
    with tempfile.TemporaryDirectory() as directory:
        layout = write_layout(Path(directory, "layout"), build_image())
        programs: dict[str, tuple[str, ...]] = {
            PYTHON: ("-c", "pass"),
            AIOHTTP: ("-c", "import sys; sys.modules['aiodns'] = None; import aiohttp"),
            f"import {OURS}": ("-c", f"import {OURS}"),
            f"{OURS} --version": (*COMMAND, "--version"),
            f"{OURS} --help": (*COMMAND, "--help"),
            f"{OURS} digest oci:": (*COMMAND, "digest", layout),
        }
        cache = str(Path(directory, "cache"))
        bench.compare(
            CASE,
            {
                name: partial(timed, partial(start, arguments, cache))
                for name, arguments in programs.items()
            },
            seconds=12,
        )
