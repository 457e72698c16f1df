"""Several entries of ``index.json`` with one name, for several platforms (rules OC-04, CI-02)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import asupplemented as asup
from asupplemented.oci_layout import REF_NAME
from asupplemented.testing.disk import write_layout
from asupplemented.testing.images import build_image, build_index, describe

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented import Session
    from asupplemented.testing.images import BuiltImage


def equal_names(path: Path) -> tuple[str, dict[str, BuiltImage]]:
    """A layout whose entries have one name, each for another platform."""
    images = {arch: build_image(f"linux/{arch}") for arch in ("arm64", "amd64", "riscv64")}
    write_layout(path, build_index(list(images.values())))
    entries: list[dict[str, object]] = []
    for arch, image in images.items():
        platform = {"os": "linux", "architecture": "x86_64" if arch == "amd64" else arch}
        entries.append({**describe(image), "platform": platform, "annotations": {REF_NAME: "x"}})
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return f"oci:{path}:x", images


@pytest.mark.parametrize("arch", ["arm64", "amd64", "riscv64"])
async def test_OC04_CI02_a_wanted_platform_chooses_among_equal_names(
    tmp_path: Path, session: Session, arch: str
) -> None:
    text, images = equal_names(tmp_path)
    wanted = images[arch].digest
    async with asup.open_image(
        asup.parse_reference(text), session, platform=f"linux/{arch}"
    ) as image:
        assert image.digest == wanted
    group = asup.supplement(text, selection=asup.SystemImage(f"linux/{arch}"))
    async with group.open(session) as source:
        assert source.resolution.top == wanted
    async with group.open(session, resolution=source.resolution) as again:
        assert (await again.get_manifest()).digest == wanted
    async with group.open_image(session) as image:
        assert image.digest == wanted
    report = await asup.copy(
        text, f"dir:{tmp_path / 'copy'}", session, selection=asup.SystemImage(f"linux/{arch}")
    )
    assert report.digest == wanted


async def test_OC04_without_a_platform_the_first_of_equal_names_is_taken(
    tmp_path: Path, session: Session
) -> None:
    text, images = equal_names(tmp_path)
    assert (await asup.supplement(text).resolve(session)).top == images["arm64"].digest
    system = asup.supplement(text, selection=asup.SystemImage("linux/s390x"))
    with pytest.raises(asup.PlatformNotFoundError) as caught:
        await system.resolve(session)
    assert caught.value.available == ("linux/arm64", "linux/x86_64", "linux/riscv64")
