"""``asupplemented serve`` as a program: several processes, signals, and deaths."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.serve import supervisor
from asupplemented.serve.config import ServeConfig
from asupplemented.serve.sockets import Listeners
from asupplemented.serve.supervisor import Pauses
from tests.modules import ROOT
from tests.serve.clients import IMAGE, LARGE, Client, get, is_refused, write_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Self

TAG = "/v2/team/app/manifests/latest"
BLOB = f"/v2/team/app/blobs/{IMAGE.layers[0]}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_image(tmp_path_factory.mktemp("layout"))


def until(condition: Callable[[], object]) -> None:
    """Wait for what another process does."""
    while not condition():  # the time limit of the test ends it
        time.sleep(0.01)


class Program:
    """A running ``asupplemented serve``.

    Args:
        directory: Where its configuration and its output are.
        names: What it serves.
        settings: Further keys of the configuration.
    """

    def __init__(
        self, directory: Path, names: dict[str, str], *, stdout: Any = None, **settings: Any
    ) -> None:
        self._config = directory / "serve.toml"
        self._settings = settings
        self.stdout = directory / "stdout"
        self.write(names)
        with self.stdout.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "asupplemented", "serve", "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=subprocess.PIPE,
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(directory), "NO_COLOR": "1"},
                text=True,
            )
        self.errors: list[str] = []

    def wait_ready(self) -> None:
        self.address = self.wait_for("serving on ")
        self.admin = self.wait_for("status on http://")

    def write(self, names: dict[str, str], *, more: str = "") -> None:
        settings = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"} | self._settings
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        lines += [more, "[names]"]
        lines += [f'"{name}" = "{reference}"' for name, reference in names.items()]
        self._config.write_text("\n".join(lines))

    def wait_for(self, text: str) -> str:
        """Wait for a line on stderr; gives what follows the text in it."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.errors.append(line)
            if text in line:
                return line.partition(text)[2].strip()
        pytest.fail(f"no {text!r} in {self.errors}")

    def workers(self) -> list[int]:
        """The processes that it has started."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.process.pid)],
            check=False,
            capture_output=True,
            text=True,
        )
        return [int(pid) for pid in listed.stdout.split()]

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; gives the exit code."""
        self.process.send_signal(number)
        assert self.process.stderr is not None
        self.errors += self.process.stderr.readlines()
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def start(tmp_path: Path, reference: str) -> Iterator[Callable[..., Program]]:
    """Starts programs that serve "team/app", and ends them."""
    started: list[Program] = []

    def start(**settings: Any) -> Program:
        program = Program(tmp_path, {"team/app": reference}, **settings)
        started.append(program)
        program.wait_ready()
        return program

    yield start
    for each in started:
        with each:
            pass


def count_requests(admin: str) -> float:
    """The sum over all processes, statuses and methods."""
    status, body = get(admin, "/metrics")
    assert status == 200
    values = re.findall(
        r"^registry_http_requests_total(?:{.*})? (\S+)$", body.decode(), re.MULTILINE
    )
    return sum(map(float, values))


@pytest.mark.slow
def test_SRV45_SRV50_a_worker_that_dies_is_replaced_and_nothing_is_lost(
    start: Callable[..., Program], tmp_path: Path, reference: str
) -> None:
    program = start(workers=2)
    for _ in range(20):
        assert get(program.address, TAG)[0] == 200
    assert get(program.admin, "/readyz")[0] == 200
    until(lambda: count_requests(program.admin) == 20)
    [first, second] = program.workers()
    os.kill(first, signal.SIGKILL)
    clients = [Client(program.address) for _ in range(32)]
    for each in clients:
        each.send(TAG)
    assert [each.head().status for each in clients] == [200] * 32
    for each in clients:
        each.close()
    program.wait_for(f"(process {first}) ended by signal 9; another one is started now")
    assert second in program.workers()
    assert len(program.workers()) == 2
    until(lambda: count_requests(program.admin) == 52)
    assert list(tmp_path.glob("asupplemented-metrics-*"))
    assert program.end() == 0
    assert not list(tmp_path.glob("asupplemented-metrics-*"))
    lines = [json.loads(line) for line in program.stdout.read_text().splitlines()]
    assert len(lines) >= 32  # those of the worker that was killed may be lost
    assert {each["source"] for each in lines} == {reference}


@pytest.mark.slow
def test_SRV46_a_reload_has_all_workers_change_or_none(
    start: Callable[..., Program], reference: str
) -> None:
    program = start(workers=2)
    workers = program.workers()
    program.write({"other": reference})
    program.process.send_signal(signal.SIGHUP)
    program.wait_for("reloaded")
    other = TAG.replace("team/app", "other")
    assert {get(program.address, other)[0] for _ in range(16)} == {200}
    assert {get(program.address, TAG)[0] for _ in range(16)} == {404}
    program.errors.clear()
    program.write({"third": reference}, more='workrs = 2\nttl = "long"')
    program.process.send_signal(signal.SIGHUP)
    problem = program.wait_for("not reloaded, the old configuration stays: ")
    assert "unknown key" in problem
    program.write({"third": reference}, more="ttl = 1\nshutdown_timeout = 1")
    program._settings["workers"] = 3
    program.write({"third": reference})
    program.process.send_signal(signal.SIGHUP)
    assert "workers changes with a restart only" in program.wait_for("not reloaded")
    assert {get(program.address, other)[0] for _ in range(16)} == {200}
    assert program.workers() == workers
    assert program.end() == 0


@pytest.mark.slow
def test_workers_stop_when_their_supervisor_is_killed(start: Callable[..., Program]) -> None:
    program = start(workers=2)
    with Client(program.address) as client:
        client.ask("/v2/")
        program.process.kill()
        assert client.body(2) == b"{}"
        assert client.is_closed()
    until(lambda: is_refused(program.address))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_SRV44_a_stop_is_seen_at_once_and_a_second_signal_ends_it(
    start: Callable[..., Program], workers: int
) -> None:
    program = start(workers=workers, shutdown_timeout=3600)
    with Client(program.address) as stream:
        assert stream.ask(BLOB).length == len(LARGE)
        assert get(program.admin, "/readyz")[0] == 200
        program.process.send_signal(signal.SIGTERM)
        until(lambda: get(program.admin, "/readyz")[0] == 503)
        assert get(program.admin, "/healthz")[0] == 200
        until(lambda: is_refused(program.address))
        assert program.process.poll() is None
        assert program.end(signal.SIGINT) == 128 + signal.SIGINT
        assert len(stream.body(len(LARGE))) < len(LARGE)


@pytest.mark.slow
def test_SRV46_the_service_manager_is_told_and_stdout_may_be_closed(
    start: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    reading, writing = os.pipe()
    os.close(reading)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        program = start(stdout=writing)
        os.close(writing)
        assert manager.recv(4096) == b"READY=1"
        assert get(program.address, TAG)[0] == 200
        program.wait_for("the access log ends")
        assert get(program.address, TAG)[0] == 200
        program.process.send_signal(signal.SIGHUP)
        assert manager.recv(4096).startswith(b"RELOADING=1\n")
        assert manager.recv(4096) == b"READY=1"
        assert program.end() == 0
        assert manager.recv(4096) == b"STOPPING=1"


def test_workers_that_end_at_once_are_replaced_more_and_more_slowly() -> None:
    pauses = Pauses()
    lives = [90, 0, 0, 1, 59, 0, 0, 0, 60, 0]
    assert [pauses.next_pause(lived) for lived in lives] == [0, 1, 2, 4, 8, 16, 30, 30, 0, 1]
    assert Pauses().next_pause(0) == 0


class RecordedWorker(supervisor.Worker):
    """A worker that keeps the processes that it started."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.processes: list[subprocess.Popen[bytes]] = []

    def _spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        process, channel = super()._spawn()
        self.processes.append(process)
        return process, channel


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os._exit(3)", r"\(process \d+\) ended by exit code 3"),
        ("import os; os.abort()", r"\(process \d+\) ended by signal 6"),
        ("import time; time.sleep(3600)", "did not answer for 0 s"),
        ("import os, sys; os.write(int(sys.argv[2]), b'nonsense\\n')", "sent what is no report"),
        (None, "could not be started"),
    ],
)
async def test_a_process_that_does_not_serve_is_ended_and_says_why(
    program: str | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program is None:
        monkeypatch.setattr(sys, "executable", "/absent")
    else:
        monkeypatch.setattr(supervisor, "_BOOT", program.replace("{", "{{"))
        monkeypatch.setattr(supervisor, "STALLED", 0 if "sleep" in program else 3600)
    worker = RecordedWorker(0, [])
    await worker.run(b"")
    with pytest.raises(ConfigurationError, match=reason):
        await worker.started
    assert len(worker.processes) == (program is not None)
    assert all(each.returncode is not None for each in worker.processes)


class FakeWorker:
    """A worker that answers `prepare`, and notes what it is told after that."""

    def __init__(self, error: str | None) -> None:
        self.error = error
        self.used: list[bool] = []

    async def prepare(self, config: bytes) -> str | None:
        return self.error

    async def finish(self, config: bytes, *, use: bool) -> None:
        self.used.append(use)


@pytest.mark.parametrize("errors", [(None, None), (None, "no room"), ("no room", "no room")])
async def test_SRV46_a_configuration_that_one_worker_cannot_open_is_used_by_none(
    errors: tuple[str | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ServeConfig(names={})
    with Listeners([]) as listeners:
        pool = supervisor.WorkerPool(listeners)
    workers = [FakeWorker(error) for error in errors]
    monkeypatch.setattr(pool, "_workers", workers)
    if any(errors):
        with pytest.raises(ConfigurationError, match=r"^no room$"):
            await pool.prepare(config)
    else:
        await pool.prepare(config)
        await pool.finish(config, use=True)
    assert {used for each in workers for used in each.used} == {not any(errors)}
    assert all(len(each.used) == 1 for each in workers)


UNUSABLE = """
import sys
from pathlib import Path
from asupplemented.serve.config import Address, ServeConfig
from asupplemented.serve.supervisor import serve

listen = (Address("127.0.0.1", 0),)
serve(ServeConfig(names={}, listen=listen, workers=int(sys.argv[1]), htpasswd=Path("/absent")))
"""
"""Serves a configuration that `load_config` would have refused."""


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_configuration_that_cannot_be_opened_fails_the_start_once(workers: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNUSABLE, str(workers)],
        check=False,
        capture_output=True,
        cwd=ROOT,
        text=True,
    )
    assert done.returncode == 1
    assert "serving on" not in done.stderr
    assert (
        len(re.findall("^asupplemented.*ConfigurationError: .*/absent", done.stderr, re.MULTILINE))
        == 1
    )
