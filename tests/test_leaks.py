"""Nothing stays behind: files, connections, tasks and sources, however a group ends."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asupplemented import (
    DigestMismatchError,
    NotFoundError,
    Session,
    SourceError,
    SupplementedError,
    Timeouts,
    VerificationError,
    copy,
    supplement,
)
from asupplemented.testing import (
    Corrupt,
    Cut,
    FakeRegistry,
    Html,
    Stall,
    Status,
    build_image,
    build_index,
    write_directory,
    write_layout,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from asupplemented.supplemented import SupplementedReference

AMD = build_image("linux/amd64", [{"bin/amd": "amd" * 1000}])
ARM = build_image("linux/arm64", [{"bin/arm": "arm" * 1000}])
S390 = build_image("linux/s390x", [{"bin/s390": "s390" * 1000}])
BIG = build_image("linux/ppc64le", [os.urandom(6 << 20)])
TOP = build_index([AMD, ARM, S390, BIG])


def open_files() -> set[str]:
    """What this process has open, as the kernel names it."""
    found: set[str] = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.add(f"{link.name} {link.readlink()}")
    return found


def foreign_threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.is_alive()}


class Place:
    """A registry, a layout and a directory that hold one image together."""

    def __init__(self, registry: FakeRegistry, root: Path) -> None:
        self.registry = registry
        self.root = root
        top = registry.add("team/app", TOP, omit=[AMD.digest, ARM.digest])
        layout = write_layout(root / "layout", AMD)
        directory = write_directory(root / "directory", ARM)
        self.group: SupplementedReference = supplement(top, layout, directory)

    async def use(self, session: Session) -> None:
        """Open, read a blob of each kind of source, and copy the whole."""
        async with self.group.open(session) as image:
            for built in (AMD, ARM, S390, BIG):
                async with image.open_blob(built.layers[0]) as blob:
                    assert await blob.read_all(8 << 20) == built.blobs[built.layers[0]]
            await copy(image, f"oci:{self.root}/out{time.monotonic_ns()}", session)


@asynccontextmanager
async def nothing_left(registry: FakeRegistry) -> AsyncGenerator[None]:
    """What the block opens is closed behind it."""
    gc.collect()
    tasks, files, threads = asyncio.all_tasks(), open_files(), foreign_threads()
    yield
    await registry.wait_until(lambda: registry.open_connections == 0)
    for _ in range(3):
        await asyncio.sleep(0)
    gc.collect()
    assert registry.in_flight == 0
    assert asyncio.all_tasks() - tasks <= registry_tasks()
    assert open_files() - files == set()
    assert foreign_threads() - threads == set()


def registry_tasks() -> set[asyncio.Task[object]]:
    """Tasks of the registry itself, which ends after the block."""
    return {task for task in asyncio.all_tasks() if "testing" in repr(task.get_coro())}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Place]:
    async with FakeRegistry() as registry:
        yield Place(registry, tmp_path)


def make_session(**options: object) -> Session:
    return Session(tls_verify=False, **options)  # type: ignore[arg-type]


async def test_success(place: Place) -> None:
    async with nothing_left(place.registry), make_session() as session:
        await place.use(session)


MANIFESTS = "/v2/team/app/manifests/*"
BLOBS = "/v2/team/app/blobs/*"

FAULTS: dict[str, tuple[str, object, type[SupplementedError]]] = {
    "no top": ("/v2/team/app/manifests/latest", Status(404), NotFoundError),
    "html": ("/v2/team/app/manifests/latest", Html(), SupplementedError),
    "server error": (f"/v2/team/app/manifests/{S390.digest}", Status(500), SourceError),
    "denied": (f"/v2/team/app/manifests/{S390.digest}", Status(403), SourceError),
    "corrupt manifest": (f"/v2/team/app/manifests/{S390.digest}", Corrupt(5), VerificationError),
    "no blob": (f"/v2/team/app/blobs/{S390.layers[0]}", Status(404), NotFoundError),
    "corrupt blob": (f"/v2/team/app/blobs/{S390.layers[0]}", Corrupt(5), DigestMismatchError),
    "cut blob": (f"/v2/team/app/blobs/{BIG.layers[0]}", Cut(1000), SourceError),
    "reset blob": (f"/v2/team/app/blobs/{BIG.layers[0]}", Cut(1000, "rst"), SourceError),
    "stalled blob": (f"/v2/team/app/blobs/{BIG.layers[0]}", Stall(1000), SourceError),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_each_kind_of_error(
    place: Place, fault: tuple[str, object, type[SupplementedError]]
) -> None:
    match, answer, expected = fault
    place.registry.script(match, answer, forever=True)  # type: ignore[arg-type]
    timeouts = Timeouts(stall=0.2, first_byte=5)
    async with nothing_left(place.registry), make_session(timeouts=timeouts) as session:
        with pytest.raises(expected):
            await place.use(session)


async def run_for(seconds: float, start: Callable[[], Awaitable[None]]) -> bool:
    """Cancel it after a while; whether it was done by then."""
    task = asyncio.ensure_future(start())
    await asyncio.wait([task], timeout=seconds)
    finished = task.done()
    task.cancel()
    await asyncio.wait([task])
    if finished:
        task.result()
    return finished


@pytest.mark.parametrize("steps", [12, pytest.param(80, marks=pytest.mark.slow)])
async def test_SEC16_cancelled_at_any_time(place: Place, steps: int) -> None:
    """Sessions that are cancelled in the middle, all over the time that the work takes."""
    async with make_session() as session:
        await place.use(session)  # Imports and caches are warm now.
        started = time.monotonic()
        await place.use(session)
        whole = time.monotonic() - started
    async with nothing_left(place.registry):
        for step in range(steps):

            async def work() -> None:
                async with make_session() as session:
                    await place.use(session)

            await run_for(whole * step / steps, work)


async def test_a_session_survives_what_was_cancelled_in_it(place: Place) -> None:
    async with nothing_left(place.registry), make_session() as session:
        for step in range(12):
            await run_for(0.004 * step, lambda: place.use(session))
        await place.use(session)
