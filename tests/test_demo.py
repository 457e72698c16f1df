"""The demo runs, on a terminal and without one, and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.modules import ROOT
from tests.terminals import read_terminal, show_screen

if TYPE_CHECKING:
    from pathlib import Path

DEMO = (sys.executable, "-W", "error", ROOT / "docs" / "demo.py")


def check(lines: list[str]) -> None:
    """What the demo says: the plan, each blob, who served which bytes, and a summary."""
    *_, grouped, copied, lost, verified = filter(None, lines)
    assert grouped.startswith("Grouped  4 places into one image of 4 platforms")
    assert copied.startswith("Copied   5 manifests and 9 blobs (24.0 MiB) in ")
    assert lost.startswith("Lost     a registry in the middle of a layer")
    assert verified.startswith("Verified 14 files (24.0 MiB)")
    text = "\n".join(lines)
    assert "├── 1 supplement" in text
    assert len(re.findall(r"^  sha256:\w{12} .* from member \d$", text, re.MULTILINE)) == 9
    parts = re.findall(r"(sha256:\w{12}) +([\d,]+) to +([\d,]+)$", text, re.MULTILINE)
    halved = re.findall(r"^  (sha256:\w{12})  half of it is there", text, re.MULTILINE)
    (died,) = [end for blob, start, end in parts if [blob] == halved and start == "0"]
    assert [start for blob, start, _ in parts if [blob] == halved and start != "0"] == [died]


def test_the_demo_loses_a_source_and_copies_all_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        DEMO,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    check(done.stdout.splitlines())
    assert list(tmp_path.iterdir()) == []


def test_the_demo_leaves_no_bars_on_a_terminal(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "TERM": "xterm"}
    with subprocess.Popen(
        DEMO,
        cwd=ROOT,
        env=os.environ | environment | {"COLUMNS": "200", "LINES": "50"},
        stdout=theirs,
        stderr=theirs,
    ) as program:
        os.close(theirs)
        drawn = b"".join(read_terminal(ours))
    assert program.returncode == 0
    lines = show_screen(drawn)
    check(lines)
    assert "━" in drawn.decode()
    assert [line for line in lines if "━" in line] == []
