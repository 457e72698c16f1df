"""The demo runs, without a terminal too, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.modules import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_the_demo_says_in_three_lines_what_happened(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "docs" / "demo.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *_, grouped, copied, verified = done.stdout.splitlines()
    assert grouped.startswith("Grouped  3 places into one image of 4 platforms")
    assert copied.startswith("Copied   5 manifests and 9 blobs (2.0 MiB) in ")
    assert verified.startswith("Verified 14 files (2.0 MiB)")
    assert "├── 1 supplement" in done.stdout
    assert list(tmp_path.iterdir()) == []
