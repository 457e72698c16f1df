"""Files of configuration: read whole, never more than a cap."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.hostconfig.documents import (
    MAX_DOCUMENT,
    MAX_DOCUMENTS,
    MAX_DOTS,
    check_keys,
    list_documents,
    list_readable,
    parse_toml,
    read_document,
)
from tests.hostconfig.machine import forbid, write

PATH = Path("/etc/a.conf")


async def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conf", "#" * MAX_DOCUMENT)
    assert await read_document(path) == "#" * MAX_DOCUMENT
    write(path, "#" * (MAX_DOCUMENT + 1))
    with pytest.raises(ConfigurationError, match=rf"a\.conf exceeded .*{MAX_DOCUMENT} bytes"):
        await read_document(path)


async def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert await read_document(tmp_path / "a.conf") is None
    (tmp_path / "b.conf").symlink_to(tmp_path / "nowhere")
    assert await read_document(tmp_path / "b.conf") is None


async def test_the_null_device_is_an_empty_file() -> None:
    assert await read_document(Path(os.devnull)) == ""


async def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    assert await read_document(write(tmp_path / "a.conf", "\ufeffa = 1")) == "a = 1"


@pytest.mark.parametrize("kind", ["directory", "fifo"])
async def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.conf"
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(ConfigurationError, match=r"a\.conf"):
        await read_document(path)


async def test_other_text_than_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.conf").write_bytes(b"ab\xff")
    with pytest.raises(ConfigurationError, match=r"a\.conf is not UTF-8 at byte 2"):
        await read_document(tmp_path / "a.conf")


async def test_a_file_that_may_not_be_read_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.conf", "")
    forbid(monkeypatch, "open", path)
    with pytest.raises(ConfigurationError, match=r"a\.conf: Permission denied; check"):
        await read_document(path)


async def test_a_directory_is_listed_by_name_and_not_what_is_within_it(tmp_path: Path) -> None:
    for name in ("b.conf", "a.conf", "B.conf", "c.yaml", "sub.conf/d.conf"):
        write(tmp_path / name, "")
    assert [path.name for path in await list_documents(tmp_path, ".conf")] == [
        *("B.conf", "a.conf", "b.conf")
    ]
    assert await list_documents(tmp_path / "nowhere", ".conf") == ()


async def test_a_directory_has_at_most_so_many_files(tmp_path: Path) -> None:
    for number in range(MAX_DOCUMENTS):
        (tmp_path / f"{number}.conf").touch()
    assert len(await list_documents(tmp_path, ".conf")) == MAX_DOCUMENTS
    (tmp_path / "one-more.conf").touch()
    with pytest.raises(ConfigurationError, match=f"more than {MAX_DOCUMENTS} files"):
        await list_documents(tmp_path, ".conf")


async def test_a_directory_that_may_not_be_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(monkeypatch, "scandir", tmp_path)
    assert await list_readable(tmp_path, ".conf") is None
    with pytest.raises(ConfigurationError, match="permission denied"):
        await list_documents(tmp_path, ".conf")


async def test_a_file_is_no_directory(tmp_path: Path) -> None:
    path = write(tmp_path / "conf.d", "")
    with pytest.raises(ConfigurationError, match=r"conf\.d: Not a directory"):
        await list_documents(path, ".conf")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = \n", r"a\.conf is not TOML: .*line 1"),
        ("a = 1\na = 2\n", r"a\.conf is not TOML: .*line 2"),
        ("a = " + "[" * 100_000, "nesting is too deep"),
        ("a = " + "9" * 5_000, "number is too long"),
    ],
    ids=["syntax", "twice", "deep", "long"],
)
def test_hostile_toml_is_an_error_that_names_the_file(text: str, fault: str) -> None:
    gc.disable()  # What other tests left would be finalized where no frame is left for it.
    try:
        with pytest.raises(ConfigurationError, match=fault):
            parse_toml(text, PATH)
    finally:
        gc.enable()


def test_a_line_of_toml_has_at_most_so_many_dots() -> None:
    longest = f"{'a.' * MAX_DOTS}b = 1"
    assert parse_toml(f"# a comment\n{longest}", PATH)
    with pytest.raises(ConfigurationError, match=rf"a\.conf has more than {MAX_DOTS} .* line 2"):
        parse_toml(f"# a comment\na.{longest}", PATH)


@pytest.mark.parametrize(
    "line",
    ['[[registry]]\nlocation = "a"\n', f"[{'a.' * (MAX_DOTS - 1)}x%d]\n", "[%d]\n", "#"],
    ids=["tables", "dots", "headers", "comment"],
)
def test_a_file_of_the_largest_size_is_parsed_in_time(line: str) -> None:
    count = MAX_DOCUMENT // (len(line) + 6)
    text = "".join(line % n if "%" in line else line for n in range(count))
    begin = time.process_time()
    parse_toml(text, PATH)
    assert time.process_time() - begin < 10


def test_unknown_keys_are_remarked_on_and_misspelt_ones_refused() -> None:
    known = ("blocked", "mirror-by-digest-only")
    assert check_keys(["blocked"], known, "a.conf") == ()
    [remark] = check_keys(["blocked", "colour"], known, "a.conf")
    assert remark == "a.conf: the key 'colour' is unknown, and ignored"
    for key in ("Blocked", "BLOCKED", "bloc\u212aed"):
        with pytest.raises(ConfigurationError, match=r"a\.conf: .* must be written blocked"):
            check_keys([key], known, "a.conf")
