"""What the pages about running a registry show is so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.limits import GIB
from asupplemented.serve.config import ServeConfig, load_config
from asupplemented.serve.toml_file import choices, meta_of, tables
from tests.modules import code_blocks, read_page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GUIDE, SETTINGS = read_page("howto/serve.md"), read_page("reference/serve.md")


def rows() -> Iterator[str]:
    """The list of settings, from the types and their annotations."""
    for table, kind in tables(ServeConfig):
        for field in msgspec.structs.fields(kind):
            key = f"{table}.{field.encode_name}" if table else field.encode_name
            meaning = meta_of(field).description or ""
            if words := [f"`{word}`" for word in choices(field)]:
                meaning = f"{meaning.removesuffix('.')}: {', '.join(words[:-1])} or {words[-1]}."
            yield f"- `{key}`{default_of(field)}: {meaning}"


def default_of(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if field.required:
        return " (required)"
    if value is None or value is msgspec.NODEFAULT:
        return ""
    if meta_of(field).extra:
        value = f"{value // GIB}GiB"
    elif isinstance(value, tuple):
        value = ", ".join(map(str, value))
    elif isinstance(value, float):
        value = int(value)
    return f" (default `{json.dumps(value)}`)"


def test_the_list_of_settings_is_complete_and_true() -> None:
    told = re.findall(r"^- `[a-z_.]+`.*$", SETTINGS, re.MULTILINE)
    assert told == list(rows())


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    [example] = code_blocks(GUIDE, "toml")
    path = tmp_path / "serve.toml"
    path.write_text(example)
    config = load_config(path, files=False)
    assert (config.workers, len(config.names), config.default_registry) == (2, 3, "docker.io")


def test_the_mistakes_are_told_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [shown] = re.findall(r"^```text\nerror: (.*?)```$", GUIDE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    [example] = code_blocks(GUIDE, "toml")
    wrong = example.replace("workers = 2", "worker = 2").replace('"50GiB"', '"50 gigs"')
    (tmp_path / "serve.toml").write_text(wrong)
    with pytest.raises(ConfigurationError) as caught:
        load_config("serve.toml", files=False)
    told = [caught.value.message, *caught.value.__notes__]
    assert told == [line.strip() for line in shown.splitlines()]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_the_unit_is_one(tmp_path: Path) -> None:
    [unit] = code_blocks(GUIDE, "ini")
    [program] = re.findall(r"^ExecStart=(\S+)", unit, re.MULTILINE)
    path = tmp_path / "asupplemented.service"

    def verify(text: str) -> subprocess.CompletedProcess[str]:
        path.write_text(text.replace(program, sys.executable))
        command = ["systemd-analyze", "verify", "--man=no", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    verified = verify(unit)
    assert (verified.returncode, str(path) in verified.stderr) == (0, False), verified.stderr
    assert "asupplemented.service" in verify(unit.replace("Type=notify", "Type=wrong")).stderr


def test_the_unit_gives_the_server_time_to_stop_and_the_cache_its_directory() -> None:
    [unit] = code_blocks(GUIDE, "ini")
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))
    assert float(settings["TimeoutStopSec"]) > ServeConfig(names={}).shutdown_timeout
    [example] = code_blocks(GUIDE, "toml")
    assert f'path = "/var/cache/{settings["CacheDirectory"]}"' in example
