"""What is built for the index: files, metadata, and a description without links into the clone."""

from __future__ import annotations

import tarfile
import tomllib
from email import message_from_bytes
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest

from asupplemented._version import __version__
from tests.modules import PACKAGE, ROOT

if TYPE_CHECKING:
    from pathlib import Path

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def list_files(directory: str) -> set[str]:
    """The files of a directory of the clone that are sources."""
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / directory).rglob("*")
        if path.is_file() and not {"__pycache__", "_build"} & set(path.parts)
    }


@pytest.mark.slow
def test_the_wheel_has_the_package_and_the_plugin(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    [wheel] = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [info] = {name.partition("/")[0] for name in names if ".dist-info/" in name}
        metadata = message_from_bytes(archive.read(f"{info}/METADATA"))
        entry_points = archive.read(f"{info}/entry_points.txt").decode()
    about = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    code = {name.removeprefix(f"{PACKAGE}/_pytest/") for name in list_files(PACKAGE)}
    assert names == code | {f"{info}/{name}" for name in about}
    assert f"{PACKAGE}/py.typed" in names
    assert "[pytest11]" in entry_points
    assert "[console_scripts]" in entry_points
    description = str(metadata.get_payload())
    assert description.startswith("# asupplemented")
    assert (
        f"]({PROJECT['urls']['Homepage']}/blob/main/docs/explanation/architecture.md)"
        in description
    )
    links = [part.partition(")")[0] for part in description.split("](")[1:]]
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


@pytest.mark.slow
def test_the_sdist_has_what_its_tests_need(tmp_path: Path) -> None:
    from hatchling.builders.sdist import SdistBuilder

    [sdist] = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    directories = (".ci", ".github", PACKAGE, "benchmarks", "docs", "tests")
    expected = {"README.md", "LICENSE", "CHANGELOG.md", "noxfile.py", "pyproject.toml"}
    assert expected.union(*map(list_files, directories)) <= names
    roots = {name.partition("/")[0] for name in names}
    top = {"CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", "PKG-INFO", ".gitignore"}
    assert roots == expected | set(directories) | top


def test_the_pythons_of_the_classifiers_are_those_that_may_install_it() -> None:
    prefix = "Programming Language :: Python :: 3."
    minors = [int(x.removeprefix(prefix)) for x in PROJECT["classifiers"] if x.startswith(prefix)]
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert PROJECT["requires-python"] == f">=3.{minors[0]}"


def test_every_address_of_the_repository_is_the_one_of_the_metadata() -> None:
    home = PROJECT["urls"]["Homepage"]
    assert all(url.startswith(home) for url in PROJECT["urls"].values())
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"git clone {home} " in readme
    assert f'repository-code: "{home}"' in (ROOT / "CITATION.cff").read_text("utf-8")


def test_the_citation_names_the_version() -> None:
    lines = (ROOT / "CITATION.cff").read_text("utf-8").splitlines()
    assert f"version: {__version__}" in lines
    assert f"license: {PROJECT['license']}" in lines
