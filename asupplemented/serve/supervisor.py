"""`serve`: what the command ``asupplemented serve`` runs.

Theory of operation
-------------------

One process serves alone. Several *workers* are processes of their own, and this one is their
*supervisor*: it binds the addresses and keeps them, starts a worker for each set of sockets, and
replaces the ones that end (rule SRV-45). Both cases are a `Pool`, so all that follows is the same.

A *reload* (SIGHUP) has two steps. Everything opens the new configuration and goes on with the old
one; only if that worked everywhere is it used. So the workers never disagree, and a configuration
with a mistake changes nothing and is reported once (rule SRV-46).

A *stop* (SIGTERM, SIGINT) has one deadline. ``/readyz`` answers 503 at once, the addresses are
closed so that clients are refused rather than left waiting, and what is being answered goes on
until the deadline, when its connections are cut (rule SRV-44). A second signal is the deadline.

A supervisor that is killed closes its ends of the channels, and its workers stop by that.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, ExitStack, suppress
from typing import TYPE_CHECKING, Final, Protocol

import msgspec
from aiohttp import web

from asupplemented.errors import ConfigurationError, SupplementedError
from asupplemented.serve import metrics
from asupplemented.serve.channel import (
    REPORTS,
    Channel,
    Done,
    Failed,
    Finish,
    Prepare,
    Ready,
    Report,
    Running,
    Start,
    Stop,
    open_channel,
    pack,
)
from asupplemented.serve.clients import pull_command
from asupplemented.serve.config import Address, in_settings
from asupplemented.serve.server import RegistryServer
from asupplemented.serve.sockets import Listeners
from asupplemented.serve.systemd import notify, notify_reloading
from asupplemented.serve.worker import SIGNALS
from asupplemented.web.admin import admin_app
from asupplemented.web.status import StatusBoard, end_status, merge_status

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from asupplemented.serve.config import ServeConfig
    from asupplemented.web.status import Status

__all__ = ("Pauses", "Pool", "SingleProcess", "Worker", "WorkerPool", "serve")

STALLED: Final = 60.0
"""Seconds without a report after which a worker is replaced; it reports each second."""

STEADY: Final = 60.0
"""A worker that lived so many seconds did not fail at once."""

LONGEST_PAUSE: Final = 30.0
"""Seconds before a worker is started that failed at once again and again."""

CLOSE_WITHIN: Final = 3.0
"""Seconds that a worker has to close what is open, after its last request."""

FIXED: Final = ("listen", "admin", "workers")
"""Settings that a reload cannot change: the addresses are bound."""

_BOOT: Final = (
    "import sys; sys.path[:] = sys.argv.pop(1).split({separator!r}); "
    "from asupplemented.serve.worker import main; main()"
)
"""What a worker runs. Its path is that of this process, so that it imports the same modules."""

_log: Final = logging.getLogger(__name__)


def serve(config: ServeConfig, *, reload: Callable[[], ServeConfig] | None = None) -> int:
    """Serve until a signal ends it.

    Call it in the main thread. SIGTERM and SIGINT stop it, SIGHUP has it reload.

    Args:
        config: What is served, and where.
        reload: Reads the configuration again, in a thread; None to keep it, so that a reload reads
            the certificates again and opens the upstreams anew.

    Returns:
        The exit code: 0 after a stop, 128 + the number of the signal if a second one cut it short.

    Raises:
        SupplementedError: An address is taken, or the configuration cannot be used.
    """
    logging.basicConfig(format="asupplemented: %(message)s")
    logging.getLogger("asupplemented").setLevel(logging.INFO)
    with ExitStack() as stack:
        stack.enter_context(in_settings())
        listeners = stack.enter_context(Listeners(config.listen, config.workers))
        admin = stack.enter_context(Listeners([config.admin] if config.admin else []))
        return asyncio.run(_Supervisor(config, reload, listeners, admin).run())


class Pool(Protocol):
    """What serves: this process, or workers."""

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered."""
        ...

    def statuses(self) -> Sequence[Status]:
        """What each process does at the moment."""
        ...

    async def start(self, config: ServeConfig) -> None:
        """Serve a configuration; raises `SupplementedError` if that fails."""
        ...

    async def prepare(self, config: ServeConfig) -> None:
        """Open another configuration; raises `SupplementedError` if that fails."""
        ...

    async def finish(self, config: ServeConfig, *, use: bool) -> None:
        """Use the configuration that was prepared, or close it."""
        ...

    async def stop(self, within: float) -> None:
        """Accept nothing more, finish within so many seconds, and close everything."""
        ...

    def abort(self) -> None:
        """Cut all connections, so that `stop` ends."""
        ...


class _Supervisor:
    """Follows signals: starts a pool, has it reload, and stops it."""

    def __init__(
        self,
        config: ServeConfig,
        reload: Callable[[], ServeConfig] | None,
        listeners: Listeners,
        admin: Listeners,
    ) -> None:
        self._config = config
        self._read = reload
        self._listeners = listeners
        self._admin = admin
        self._stop = asyncio.Event()
        self._abort = asyncio.Event()
        self._reload = asyncio.Event()
        self._signal = 0
        """The number of the last signal that asked to stop."""

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        async with AsyncExitStack() as stack:
            self._pool = self._make_pool(stack)
            await self._open_admin(stack)
            try:
                await self._serve()
            finally:
                notify("STOPPING=1")
                self._stop.set()  # /readyz must not wait for the rest
                self._listeners.close()
                await self._stop_pool()
        return 128 + self._signal if self._abort.is_set() else 0

    def _make_pool(self, stack: AsyncExitStack) -> Pool:
        if self._config.workers == 1:
            return SingleProcess(self._listeners)
        stack.enter_context(metrics.shared_metrics())
        return WorkerPool(self._listeners)

    def _end(self, number: int) -> None:
        self._signal = number
        (self._abort if self._stop.is_set() else self._stop).set()

    def _is_ready(self) -> bool:
        return self._pool.is_ready and not self._stop.is_set()

    async def _open_admin(self, stack: AsyncExitStack) -> None:
        (sockets,) = self._admin.of_worker
        if not sockets:
            return
        app = admin_app(
            status=lambda: merge_status(self._pool.statuses()),
            ready=self._is_ready,
            metrics=metrics.exposition(),
        )
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=75.0, shutdown_timeout=1.0)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        for each in sockets:
            await web.SockSite(runner, each.dup()).start()

    async def _serve(self) -> None:
        """Start, then reload on demand, until a signal says to stop."""
        if not await self._unless_stopped(self._pool.start(self._config)):
            return
        notify("READY=1")
        names = self._listeners.names
        _log.info("serving on %s", ", ".join(names))
        _log.info("to pull: %s", pull_command(self._config, Address.parse(names[0])))
        if self._admin.names:
            _log.info("status on http://%s", self._admin.names[0])
        while await self._unless_stopped(self._reload.wait()):
            self._reload.clear()
            notify_reloading()
            await self._reload_now()
            notify("READY=1")

    async def _unless_stopped(self, work: Coroutine[object, object, object]) -> bool:
        """Do something; gives False, and does it no further, if a signal says to stop."""
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                return False
            task.result()
            return True
        finally:
            for each in (task, stopped):
                each.cancel()
            await asyncio.wait((task, stopped))

    async def _reload_now(self) -> None:
        try:
            config = self._config if self._read is None else await asyncio.to_thread(self._read)
            self._check_fixed(config)
            if not await self._unless_stopped(self._pool.prepare(config)):
                return
            await self._pool.finish(config, use=True)
        except (SupplementedError, OSError) as error:
            notes: list[str] = getattr(error, "__notes__", [])
            reasons = "\n".join((str(error), *notes))
            _log.error("not reloaded, the old configuration stays: %s", reasons)
            return
        except Exception:  # noqa: BLE001 - whatever it is, the server goes on
            _log.exception("not reloaded, the old configuration stays")
            return
        self._config = config
        _log.info("reloaded")

    def _check_fixed(self, config: ServeConfig) -> None:
        for name in FIXED:
            if getattr(config, name) != getattr(self._config, name):
                message = f"{name} changes with a restart only; restart the server"
                raise ConfigurationError(message)

    async def _stop_pool(self) -> None:
        stopping = asyncio.create_task(self._pool.stop(self._config.shutdown_timeout))
        aborted = asyncio.create_task(self._abort.wait())
        try:
            await asyncio.wait((stopping, aborted), return_when=asyncio.FIRST_COMPLETED)
            if not stopping.done():
                self._pool.abort()
            await stopping
        finally:
            aborted.cancel()


class SingleProcess:
    """Serves in this process.

    Args:
        listeners: Where connections come from.
    """

    def __init__(self, listeners: Listeners) -> None:
        self._server = RegistryServer(listeners.of_worker[0], metrics.count_alone())
        self.is_ready = False

    def statuses(self) -> Sequence[Status]:
        return [self._server.status()]

    async def start(self, config: ServeConfig) -> None:
        await self._server.start(config)
        self.is_ready = True

    async def prepare(self, config: ServeConfig) -> None:
        await self._server.prepare(config)

    async def finish(self, config: ServeConfig, *, use: bool) -> None:  # noqa: ARG002 - of `Pool`
        await self._server.finish(use=use)

    async def stop(self, within: float) -> None:
        self.is_ready = False
        await self._server.stop(within)
        await self._server.aclose()

    def abort(self) -> None:
        self._server.abort()


class WorkerPool:
    """Serves in several processes.

    Args:
        listeners: Where connections come from, for each of them.
    """

    def __init__(self, listeners: Listeners) -> None:
        self._workers = [Worker(n, each) for n, each in enumerate(listeners.of_worker)]
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False
        self._status = end_status(StatusBoard().snapshot())
        """That of this process, which serves nothing."""

    @property
    def is_ready(self) -> bool:
        # What waits at the socket of a worker that is being replaced is answered soon.
        return self._started and any(each.is_ready for each in self._workers)

    def statuses(self) -> Sequence[Status]:
        parts = (part for each in self._workers for part in (each.status, each.ended))
        return [self._status, *(part for part in parts if part is not None)]

    async def start(self, config: ServeConfig) -> None:
        packed = pack(config)
        first: list[asyncio.Future[None]] = []
        for each in self._workers:
            first.append(each.started)
            self._tasks.add(asyncio.create_task(each.run(packed)))
        done, _ = await asyncio.wait(first, return_when=asyncio.FIRST_EXCEPTION)
        failures = [error for each in done if (error := each.exception()) is not None]
        if failures:
            raise failures[0]
        self._started = True

    async def prepare(self, config: ServeConfig) -> None:
        packed = pack(config)
        for error in await asyncio.gather(*(each.prepare(packed) for each in self._workers)):
            if error is not None:
                await self.finish(config, use=False)
                raise ConfigurationError(error)

    async def finish(self, config: ServeConfig, *, use: bool) -> None:
        packed = pack(config)
        await asyncio.gather(*(each.finish(packed, use=use) for each in self._workers))

    async def stop(self, within: float) -> None:
        for each in self._workers:
            each.stop(within)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=within + CLOSE_WITHIN)
            self.abort()
            await asyncio.gather(*self._tasks)

    def abort(self) -> None:
        for each in self._workers:
            each.kill()


class Pauses:
    """How long to wait before a worker is replaced: longer and longer if each ends at once."""

    def __init__(self) -> None:
        self._next = 0.0

    def next_pause(self, lived: float) -> float:
        """Seconds to wait, after a process that lived for so many seconds."""
        pause = 0.0 if lived >= STEADY else self._next
        self._next = min(max(2 * pause, 1.0), LONGEST_PAUSE)
        return pause


class Worker:
    """One of the processes, and its replacements.

    Args:
        number: Of the worker, from 0.
        sockets: Where its connections come from.
    """

    def __init__(self, number: int, sockets: Sequence[socket.socket]) -> None:
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the first process serves; the error says why it does not."""
        self.status: Status | None = None
        """What the process does."""
        self.ended: Status | None = None
        """What its predecessors counted."""
        self.is_ready = False
        self._number = number
        self._sockets = sockets
        self._config = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel[Report] | None = None
        self._answer: asyncio.Future[str | None] | None = None
        self._prepared: Channel[Report] | None = None
        """Leads to the process that has prepared a configuration."""
        self._stopping = asyncio.Event()

    async def run(self, config: bytes) -> None:
        """Keep a process running until `stop`."""
        self._config = config
        loop = asyncio.get_running_loop()
        pauses = Pauses()
        while not self._stopping.is_set():
            began = loop.time()
            reason = await self._run_once()
            if self._stopping.is_set():
                break
            if not self.started.done():
                self.started.set_exception(ConfigurationError(reason))
                break
            pause = pauses.next_pause(loop.time() - began)
            when = f"in {pause:g} s" if pause else "now"
            _log.error("worker %d %s; another one is started %s", self._number, reason, when)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
        self.started.cancel()

    def stop(self, within: float) -> None:
        """Have the process end, and start no other."""
        self._stopping.set()
        if self.started.done() and not self.started.cancelled():
            self.started.exception()  # Another worker failed before, and that was told.
        if self._channel is not None:
            self._channel.send(Stop(within))

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._process.kill()

    async def prepare(self, config: bytes) -> str | None:
        """Have the process open a configuration; gives what is wrong with it."""
        channel = self._channel
        error = await self._tell(Prepare(config))
        # One that is being replaced has nothing to open, and `finish` sees to its successor.
        self._prepared = channel if error is None else None
        return error

    async def finish(self, config: bytes, *, use: bool) -> None:
        """Have the process use what it prepared, or close it."""
        prepared, self._prepared = self._prepared, None
        if use:
            self._config = config
        if prepared is not None and prepared is self._channel:
            await self._tell(Finish(use))
        elif use:
            self.kill()  # It has begun with the old configuration.

    async def _tell(self, order: Prepare | Finish) -> str | None:
        """Wait until the process has done something; gives what is wrong, if it lives to say so."""
        if not self.is_ready or self._channel is None:
            return None
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self._channel.send(order)
        try:
            async with asyncio.timeout(STALLED):
                return await answer
        except TimeoutError:
            self.kill()
            return f"worker {self._number} did not open it within {STALLED:g} s"

    async def _run_once(self) -> str:
        """Run one process to its end; gives what happened to it."""
        try:
            process, mine = self._spawn()
        except OSError as error:
            return f"could not be started: {error}"
        self._process = process
        reason: str | None = None
        self._channel = channel = await open_channel(mine, REPORTS)
        if self._stopping.is_set():
            process.kill()  # Stopped meanwhile, when there was no channel to say so.
        try:
            channel.send(Start(self._number, self._config))
            reason = await self._follow(channel)
        except TimeoutError:
            reason = f"did not answer for {STALLED:g} s"
            process.kill()
        except msgspec.DecodeError as error:
            reason = f"sent what is no report: {error}"
            process.kill()
        finally:
            self._channel = None
            self.is_ready = False
            self._end_status()
            self._answer_with(None)
            channel.close()
            code = await asyncio.to_thread(_reap, process)
            self._process = None
            metrics.forget_worker(self._number)
        return reason or _explain(process.pid, code)

    def _answer_with(self, error: str | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(error)

    def _end_status(self) -> None:
        status, self.status = self.status, None
        if status is not None:
            parts = [end_status(status), *([] if self.ended is None else [self.ended])]
            self.ended = merge_status(parts)

    async def _follow(self, channel: Channel[Report]) -> str | None:
        """Read reports until the process has ended; gives why it could not go on."""
        while True:
            async with asyncio.timeout(STALLED):
                message = await channel.receive()
            match message:
                case Ready():
                    self.is_ready = True
                    if not self.started.done():
                        self.started.set_result(None)
                case Failed(reason):
                    return reason
                case Done(error):
                    self._answer_with(error)
                case Running(status):
                    self.status = status
                case None:
                    return None

    def _spawn(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start a process; gives it with this end of the channel.

        Signals are blocked in it until it ignores them.
        """
        with ExitStack() as stack:
            mine, theirs = map(stack.enter_context, socket.socketpair())
            fds = [theirs.fileno(), *(each.fileno() for each in self._sockets)]
            command = _BOOT.format(separator=os.pathsep), os.pathsep.join(sys.path), *map(str, fds)
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
            try:
                process = subprocess.Popen(  # noqa: S603 - this program again
                    [sys.executable, "-c", *command], stdin=subprocess.DEVNULL, pass_fds=fds
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            theirs.close()
            stack.pop_all()
        return process, mine


def _reap(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a process that has ended or is about to."""
    try:
        return process.wait(CLOSE_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _explain(pid: int, code: int) -> str:
    how = f"exit code {code}" if code >= 0 else f"signal {-code}"
    return f"(process {pid}) ended by {how}"
