"""The page about catalogs does what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asupplemented.testing import build_image
from tests.modules import code_blocks, read_page

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from asupplemented.testing import FakeRegistry

GUIDE = read_page("howto/names.md")


async def test_the_example_serves_an_image(
    registry: FakeRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = build_image(layers=[b"a layer"])
    registry.add("team/app", image, tag="1.4")
    [example] = code_blocks(GUIDE, "python")
    example = example.replace("registry.example", registry.host).replace("/srv", str(tmp_path))
    example = example.replace("asup.Session()", "asup.Session(tls_verify=False)")
    names: dict[str, Any] = {}
    exec(compile(example, "names.md", "exec"), names)  # noqa: S102 - the page itself
    await names["main"]()
    assert capsys.readouterr().out == f"{image.digest} False {b'a layer'!r}\n"
