"""The fixtures, in a pytest of their own: each plugin that can run them, in each mode."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from asupplemented.testing import ImageBuilder

ROOT = Path(__file__).parents[2]

ASYNC_TEST = """
import json
import urllib.request

import anyio
import pytest

{mark}
async def test_registry(fake_registry, image_builder):
    image = image_builder.image("linux/s390x")
    fake_registry.add("app", image)
    url = fake_registry.url + "/v2/app/tags/list"
    opened = await anyio.to_thread.run_sync(urllib.request.urlopen, url)
    with opened as answer:
        assert json.load(answer)["tags"] == ["latest"]

{mark}
async def test_a_new_one_for_each_test(fake_registry):
    assert fake_registry.requests == []
    assert fake_registry.content.repositories == {{}}

def test_builder(image_builder, tmp_path):
    image = image_builder.image()
    assert image_builder.layout(image, name="a") == f"oci:{{tmp_path}}/images/image-1:a"
    assert image_builder.directory(image) == f"dir:{{tmp_path}}/images/image-2"
"""

ANYIO = """
@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


def run(directory: Path, test: str, *options: str, code: str = "") -> str:
    """Run a test file with the plugin, and say what pytest said."""
    (directory / "test_it.py").write_text(test)
    program = f"{code}\nimport sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    command = [sys.executable, "-W", "error", "-c", program]
    command += [*options, "-p", "pytest_asupplemented", "-p", "no:cacheprovider", "."]
    done = subprocess.run(
        command,
        cwd=directory,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_with_pytest_asyncio(tmp_path: Path, mode: str) -> None:
    mark = "@pytest.mark.asyncio" if mode == "strict" else ""
    options = ["-p", "pytest_asyncio.plugin", f"--asyncio-mode={mode}", "-Werror"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    said = run(tmp_path, ASYNC_TEST.format(mark=mark), *options)
    assert "3 passed" in said


def test_with_anyio(tmp_path: Path) -> None:
    test = ASYNC_TEST.format(mark="@pytest.mark.anyio") + ANYIO
    hide = "import sys; sys.modules['pytest_asyncio'] = None"
    said = run(tmp_path, test, "-p", "anyio.pytest_plugin", "-Werror", code=hide)
    assert "3 passed" in said


def test_installing_the_package_installs_the_plugin() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"pytest11": {"asupplemented": "pytest_asupplemented"}}


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("pytest_asupplemented", {"aiohttp", "asupplemented", "msgspec", "trustme"}),
        ("asupplemented.testing", {"aiohttp", "pytest", "pytest_asyncio", "trustme"}),
    ],
)
def test_neither_loads_what_only_the_other_needs(module: str, unwanted: set[str]) -> None:
    program = f"import sys, {module}; sys.exit(sorted({unwanted} & set(sys.modules)) or None)"
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, check=True)


def test_every_directory_is_a_new_one(tmp_path: Path) -> None:
    builder = ImageBuilder(tmp_path)
    index = builder.index([builder.image(), builder.artifact("application/x")])
    references = {builder.layout(index), builder.layout(index), builder.directory(index)}
    assert len(references) == 3
    assert all(Path(reference.partition(":")[2]).is_dir() for reference in references)
