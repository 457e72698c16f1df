"""The program as a process of its own: streams, signals, and what is not installed."""

from __future__ import annotations

import asyncio
import os
import pty
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asupplemented.testing import FakeRegistry, Stall, build_image
from tests.cli.conftest import AMD, ARM, TOP
from tests.modules import ROOT
from tests.terminals import read_terminal, show_screen

if TYPE_CHECKING:
    from tests.cli.conftest import Places

PROGRAM = (sys.executable, "-W", "error", "-m", "asupplemented")
FULL = Path("/dev/full")


def run(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAM, *arguments], cwd=ROOT, capture_output=True, check=False)


def test_data_goes_to_stdout_and_only_data(group: tuple[str, ...]) -> None:
    done = run("manifest", *group)
    assert (done.returncode, done.stdout, done.stderr) == (0, TOP.raw, b"")
    done = run("blob", *group, "--digest", ARM.layers[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, ARM.blobs[ARM.layers[1]], b"")


def test_an_error_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    done = run("resolve", f"oci:{tmp_path / 'nowhere'}")
    assert (done.returncode, done.stdout) == (3, b"")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(b"error: there is no OCI layout at ")


def test_usage_is_told() -> None:
    done = run("resolve", "nowhere")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"Usage: asupplemented resolve" in done.stderr


def test_a_reader_that_goes_away_is_no_reason_to_complain(group: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        for arguments in (
            ("resolve", *group, "--json"),
            ("blob", *group, "--digest", ARM.layers[1]),
        ):
            done = subprocess.run(
                [*PROGRAM, *arguments], cwd=ROOT, stdout=writing, stderr=-1, check=False
            )
            assert (done.returncode, done.stderr) == (1, b"")
    finally:
        os.close(writing)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_once(group: tuple[str, ...]) -> None:
    with FULL.open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, "resolve", *group], cwd=ROOT, stdout=full, stderr=-1, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"error: cannot write to stdout: No space left on device\n"


def test_a_device_is_written_and_not_replaced(group: tuple[str, ...]) -> None:
    done = run("blob", *group, "--digest", ARM.config, "-o", "/dev/stdout")
    assert (done.returncode, done.stdout) == (0, ARM.blobs[ARM.config])


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, b"interrupted"), (signal.SIGTERM, 143, b"terminated")],
)
async def test_a_signal_ends_a_copy_without_a_trace(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    number: signal.Signals,
    code: int,
    word: bytes,
) -> None:
    # A shell has what it starts in the background ignore SIGINT, and a child inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    async with FakeRegistry() as registry:
        reference = registry.add("team/app", TOP)
        registry.script(AMD.layers[1], Stall(after=1), forever=True)
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            *("copy", reference, "--no-tls-verify", "--to", f"oci:{tmp_path / 'out'}:app"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        await registry.wait_until(lambda: registry.count(AMD.layers[1]) > 0)
        process.send_signal(number)
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (code, b"", b"error: " + word + b"\n")
    assert not (tmp_path / "out" / "index.json").exists()
    assert not list(tmp_path.glob("out/**/.asupplemented*"))


@pytest.mark.parametrize(
    ("arguments", "bar"),
    [
        (("copy", "--to", "oci:{out}:app"), b"5 blobs"),
        (("blob", "--digest", ARM.layers[1], "-o", "{out}"), ARM.layers[1][:19].encode()),
    ],
)
def test_bars_are_drawn_on_a_terminal_and_data_stays_clean(
    group: tuple[str, ...], tmp_path: Path, arguments: tuple[str, ...], bar: bytes
) -> None:
    command, *options = (each.format(out=tmp_path / "out") for each in arguments)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, command, *group, *options],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as program:
        os.close(theirs)
        drawn = b"".join(read_terminal(ours))
        out, _ = program.communicate()
    copying = command == "copy"
    assert (program.returncode, out) == (0, f"{TOP.digest}\n".encode() if copying else b"")
    assert b"\x1b[" in drawn
    assert bar in drawn
    assert (b"copied 3 manifests and 5 blobs" in drawn) is copying


BIG = build_image(layers=[{"data": random.Random(3).randbytes(3 * 2**20)}])
"""One whose layer comes in several reads, and is held back until it is verified."""

ON_TERMINAL = "import os, sys; os.login_tty(os.dup(0)); os.execv(sys.argv[1], sys.argv[1:])"
"""Has a terminal control a program, so that it turns what is typed into a signal."""


@pytest.mark.parametrize(
    "arguments",
    [("copy", "--to", "oci:{out}:app"), ("blob", "--digest", BIG.layers[0], "-o", "{out}")],
)
async def test_bars_move_with_the_bytes_and_ctrl_c_leaves_a_clean_screen(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    command, *options = (each.format(out=tmp_path / "out") for each in arguments)
    ours, theirs = pty.openpty()
    async with FakeRegistry() as registry:
        reference = registry.add("team/app", BIG)
        registry.script(BIG.layers[0], Stall(after=2 * 2**20), forever=True)
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ON_TERMINAL),
            *(*PROGRAM, command, reference, *options, "--no-tls-verify"),
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "80"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        reading, drawn = read_terminal(ours), b""
        while b"2.0 MiB of 3.0 MiB" not in drawn:
            more = await asyncio.to_thread(next, reading, b"")
            assert more, drawn
            drawn += more
        os.write(ours, b"\x03")
        drawn += await asyncio.to_thread(b"".join, reading)
        assert await program.wait() == 130
    assert show_screen(drawn) == ["error: interrupted"]
    assert drawn.count(b"\x1b[?25l") == drawn.count(b"\x1b[?25h")  # The cursor is seen again.
    assert not (tmp_path / "out").is_file()


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
sys.argv = ["asupplemented", "resolve", "--help"]
from asupplemented.__main__ import main
main()
"""


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_the_extra_the_remedy_is_told(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, package],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"asupplemented: the command line needs {package}: pip install 'asupplemented[cli]'\n"
    )


LOADED = """
import sys
from asupplemented.__main__ import main
try:
    main()
except SystemExit as ended:
    assert not ended.code, ended.code
sys.stderr.write(" ".join(sys.modules))
"""


@pytest.mark.parametrize(
    ("arguments", "unused"),
    [
        (("--version",), {"click", "rich", "asyncio", "asupplemented.errors"}),
        (("--help",), {"rich", "asyncio", "asupplemented.errors", "asupplemented.cli.options"}),
        (
            ("digest", "LAYOUT"),
            {"rich", "aiohttp", "aiofiles", "asupplemented.serve", "asupplemented.transfer"},
        ),
        (("tags", "--help"), {"aiohttp", "asupplemented.serve", "asupplemented.cache.layout"}),
    ],
)
def test_a_command_imports_what_it_uses(
    arguments: tuple[str, ...], unused: set[str], places: Places
) -> None:
    given = [places.top if each == "LAYOUT" else each for each in arguments]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *given], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert unused & set(done.stderr.split()) == set()
