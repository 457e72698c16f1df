"""What the page about configuration shows is so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from asupplemented.hostconfig import ConfigurationPaths, Registries
from asupplemented.model.name import ImageName
from asupplemented.session import Session
from tests.modules import ROOT, code_blocks, read_page

if TYPE_CHECKING:
    from pathlib import Path

GUIDE = read_page("reference/configuration.md")


def test_the_example_makes_a_session() -> None:
    [example] = code_blocks(GUIDE, "python")
    names: dict[str, object] = {}
    exec(compile(example, "configuration.md", "exec"), names)  # noqa: S102 - it is ours
    assert isinstance(names["session"], Session)


async def test_the_mirrors_of_the_example_are_asked_in_the_order_that_is_told(
    tmp_path: Path,
) -> None:
    [example] = code_blocks(GUIDE, "toml")
    conf = tmp_path / "registries.conf"
    conf.write_text(example)
    registries = await Registries.load(ConfigurationPaths(registries=conf))
    [asked] = re.findall(r"`docker://(\S+)` is asked for at", GUIDE)
    told = re.findall(r"^\d+\. `(.*)`$", GUIDE, re.MULTILINE)
    found = registries.locations(ImageName.parse(asked))
    assert [str(candidate.name) for candidate in found] == told
    assert registries.warnings == ()


def test_the_options_of_the_command_line_are_told() -> None:
    source = (ROOT / "asupplemented" / "cli" / "options.py").read_text(encoding="utf-8")
    named = re.findall(r'"(--(?:registries|cert)[a-z.-]*)"', source)
    assert len(named) == 4
    assert [name for name in named if f"`{name}`" not in GUIDE] == []
