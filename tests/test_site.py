"""The pages of the site: what they show runs, and what they name is there."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any, Final

import pytest

import asupplemented as asup
from asupplemented.cli.app import Program
from asupplemented.testing import FakeRegistry, build_image, build_index, write_layout
from tests.modules import ROOT, code_blocks, read_page

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DOCS: Final = ROOT / "docs"
PAGES: Final = {
    path.relative_to(DOCS).as_posix(): path.read_text("utf-8")
    for path in sorted(DOCS.rglob("*.md"))
    if "_build" not in path.parts
}
CODE: Final = re.compile(r"^```(?:python|toml|nginx|ini)$", re.MULTILINE)
TOP: Final = build_index([build_image("linux/amd64"), build_image("linux/arm64")])


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as opened:
        for repository in ("app", "team/app"):
            opened.add(repository, TOP, tag="1.4")
        yield opened


def run(block: str, registry: FakeRegistry, directory: Path, **given: object) -> dict[str, Any]:
    """Run an example, with the addresses and directories of a test; gives its names."""
    for told, there in {
        "registry.example": registry.host,
        "/srv/airgap": str(directory),
        "/srv": str(directory),
        "/var/cache": str(directory),
        "asup.Session(": "asup.Session(tls_verify=False, ",
        "asyncio.run(main())": "",
    }.items():
        block = block.replace(told, there)
    names: dict[str, Any] = dict(given)
    exec(compile(block, "a page", "exec", dont_inherit=True), names)  # noqa: S102 - our own page
    return names


@pytest.mark.parametrize(
    ("page", "there", "made"),
    [
        ("index.md", "app", "out"),
        ("howto/copy.md", "app", "out"),
        ("howto/cache.md", None, "images"),
    ],
)
async def test_the_main_functions_of_pages(
    page: str, there: str | None, made: str, registry: FakeRegistry, tmp_path: Path
) -> None:
    if there is not None:
        write_layout(tmp_path / there, TOP, name="1.4")
    [block] = [each for each in code_blocks(PAGES[page], "python") if "def main" in each]
    await run(block, registry, tmp_path)["main"]()
    assert (tmp_path / made / "index.json").is_file()


async def test_credentials_are_given_as_the_page_says(
    registry: FakeRegistry, tmp_path: Path
) -> None:
    asked = []

    async def read_secret(name: str) -> str:
        asked.append(name)
        return "secret"

    files, mapping, function = code_blocks(read_page("howto/credentials.md"), "python")
    async with run(files, registry, tmp_path)["session"]:
        pass
    host = registry.host
    async with run(mapping, registry, tmp_path, asup=asup)["session"] as session:
        assert await session.credentials(f"{host}/team") == asup.Credential(
            "ci", "another password"
        )
        assert await session.credentials("quay.io/other") is None
    names = run(function, registry, tmp_path, asup=asup, read_secret=read_secret)
    async with names["session"] as session:
        assert await session.credentials(f"{host}/app") == asup.Credential("ann", "secret")
    assert asked == ["registry"]


def test_mirrors_are_grouped_as_the_page_says(registry: FakeRegistry, tmp_path: Path) -> None:
    [block] = code_blocks(read_page("howto/mirrors.md"), "python")
    group = run(block, registry, tmp_path)["reference"]
    assert (len(group.references), group.prefer) == (3, "supplements")


def test_a_cache_of_several_hosts_compiles() -> None:
    [block] = code_blocks(read_page("howto/hosts.md"), "python")
    compile(block, "hosts.md", "exec")


def test_every_page_with_code_is_read_by_a_test() -> None:
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    pages = [name for name, text in PAGES.items() if CODE.search(text)]
    assert len(pages) > 15
    assert [name for name in pages if f'"{name}"' not in tests] == []


def find_commands() -> list[str]:
    """The commands of the library that pages and README show, without what a shell does."""
    texts = [*PAGES.values(), (ROOT / "README.md").read_text("utf-8")]
    blocks = [block for text in texts for block in code_blocks(text, "console")]
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    shown = {
        re.split(" [<>|] ", line)[0] for line in lines if re.match(r"\$ asupplemented \w", line)
    }
    return sorted(line.removeprefix("$ asupplemented ") for line in shown)


@pytest.mark.parametrize("command", find_commands())
def test_every_command_that_a_page_shows_is_understood(command: str) -> None:
    program: Any = Program(name="asupplemented")
    name, *arguments = shlex.split(command)
    parsed = program.get_command(program.context_class(program), name)
    parsed.make_context(name, arguments)


def test_the_picture_of_every_page_has_a_text() -> None:
    images = [
        found for text in PAGES.values() for found in re.findall(r"!\[(.*?)\]\((.+?)\)", text)
    ]
    assert len(images) > 5
    assert [path for text, path in images if len(text) < 20] == []
