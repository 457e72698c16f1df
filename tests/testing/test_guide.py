"""The example of docs/testing.md runs as it stands."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.modules import ROOT
from tests.testing.test_plugin import run

if TYPE_CHECKING:
    from pathlib import Path


def test_the_example_of_the_guide_passes(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```python\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    options = ["-p", "pytest_asyncio.plugin", "--asyncio-mode=auto", "-Werror"]
    said = run(tmp_path, example, *options, "-o", "asyncio_default_fixture_loop_scope=function")
    assert "1 passed" in said, said


def test_every_fault_is_in_the_guide() -> None:
    from asupplemented.testing import delivery, faults

    guide = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    assert [name for name in (*faults.__all__, *delivery.__all__) if f"`{name}`" not in guide] == []
