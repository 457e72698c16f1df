"""The example of the page about testing runs as it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.modules import code_blocks, read_page
from tests.testing.test_plugin import run

if TYPE_CHECKING:
    from pathlib import Path


def test_the_example_of_the_guide_passes(tmp_path: Path) -> None:
    guide = read_page("howto/testing.md")
    [example], [settings] = code_blocks(guide, "python"), code_blocks(guide, "toml")
    (tmp_path / "pyproject.toml").write_text(settings)
    said = run(tmp_path, example, "-p", "pytest_asyncio.plugin", "-Werror")
    assert "1 passed" in said, said


def test_every_fault_is_in_the_guide() -> None:
    from asupplemented.testing import delivery, faults

    guide = read_page("howto/testing.md")
    assert [name for name in (*faults.__all__, *delivery.__all__) if f"`{name}`" not in guide] == []
