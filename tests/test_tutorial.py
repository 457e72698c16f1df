"""The tutorial is followed from its second step to its end: files, commands, what they print."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from tests.modules import ROOT, read_page

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAGE: Final = read_page("tutorial.md")
INSTALL, STEPS = PAGE.split("\n## Make an image", 1)
STEP: Final = re.compile(
    r"^```(?P<language>\w+)\n(?P<block>.*?)^```$"
    r"|Save this as\s+`(?P<file>[\w.]+)`"
    r"|Press Ctrl-C in the terminal of the (?P<stopped>\w+)",
    re.MULTILINE | re.DOTALL,
)
SERVERS: Final = {"asupplemented serve": "registry", "python3 proxy.py": "proxy"}
"""How the commands begin that go on until they are stopped."""

ENVIRONMENT: Final = {"NO_COLOR": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
"""Bytecode is kept, for many interpreters start."""


class Reader:
    """Does what the page says, in a directory, with ports of its own."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._ports = {"5000": str(unused_port()), "5001": str(unused_port())}
        self._file = ""

    def follow(self, step: re.Match[str]) -> None:
        if step["file"]:
            self._file = step["file"]
        elif step["stopped"]:
            self._stop(step["stopped"])
        elif step["language"] == "python":
            (self._directory / self._file).write_text(self._translate(step["block"]))
        elif step["language"] == "console":
            for command, said in commands(step["block"]):
                self._type(command, said)
        else:
            self._expect("proxy", step["block"].splitlines())

    def _translate(self, text: str) -> str:
        for told, port in self._ports.items():
            text = re.sub(rf"\b{told}\b", port, text)
        return text

    def _start(self, command: str) -> subprocess.Popen[str]:
        arguments = shlex.split(self._translate(command))
        known = {"asupplemented": ["-m", "asupplemented"], "python3": []}
        return self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, *known[arguments[0]], *arguments[1:]],
                cwd=self._directory,
                env={**os.environ, **ENVIRONMENT, "PYTHONPYCACHEPREFIX": str(self._directory)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )

    def _type(self, command: str, said: list[str]) -> None:
        name = next((each for start, each in SERVERS.items() if command.startswith(start)), None)
        process = self._start(command)
        if name is None:
            out, _ = process.communicate()
            assert process.returncode == 0, out
            if said:
                assert comparable(out.splitlines()) == comparable(map(self._translate, said))
        else:
            self._stack.callback(process.kill)
            self._running[name] = process
            self._expect(name, said)

    def _expect(self, name: str, said: list[str]) -> None:
        """Read as many lines of a program that runs as the page shows."""
        out = self._running[name].stdout
        assert out is not None
        lines = [out.readline().rstrip("\n") for _ in said]
        assert comparable(lines) == comparable(map(self._translate, said))

    def _stop(self, name: str) -> None:
        process = self._running.pop(name)
        process.send_signal(signal.SIGINT)
        process.communicate()


def commands(block: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of a block, each with the lines that it prints."""
    for part in re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
        command, *said = part.splitlines()
        yield command, said


def comparable(lines: Iterator[str] | list[str]) -> list[str]:
    """Lines without times; what runs side by side is not printed in a fixed order."""
    return sorted(re.sub(r" in \d+\.\d s$", "", line) for line in lines)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    with ExitStack() as stack:
        reader = Reader(tmp_path, stack)
        for step in STEP.finditer(STEPS):
            reader.follow(step)
    assert {path.name for path in tmp_path.iterdir()} >= {"proxy.py", "cache", "again"}


def test_the_tutorial_installs_what_it_uses() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [extra] = re.findall(r"pip install '\./asupplemented\[(\w+)\]'", INSTALL)
    assert extra in project["optional-dependencies"]
    assert f"git clone {project['urls']['Homepage']}\n" in INSTALL
