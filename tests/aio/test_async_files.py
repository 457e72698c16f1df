"""Files of aiofiles: read within a cap, and closed on every path out."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import aiofiles
import pytest

from asupplemented.aio.async_files import opened, read_file
from asupplemented.errors import (
    LayoutError,
    LimitExceededError,
    ManifestNotFoundError,
    NotFoundError,
    SourceError,
)
from tests.suspending import cancel_at_every_await, count_open_files, wait_until

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_file_of_the_largest_size_is_read_and_one_byte_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert await read_file(path, 100) == b"x" * 100
    with pytest.raises(LimitExceededError, match=r"file exceeded .* 99 bytes") as caught:
        await read_file(path, 99)
    assert caught.value.limit == 99


async def test_a_file_that_does_not_exist_raises_the_error_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="there is no file"):
        await read_file(tmp_path / "file", 100)
    with pytest.raises(ManifestNotFoundError):
        await read_file(tmp_path / "file", 100, missing=ManifestNotFoundError)


@pytest.mark.parametrize("kind", ["directory", "fifo", "link"])
async def test_DI07_what_is_not_a_regular_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to("/etc/hostname")
    before = count_open_files()
    with pytest.raises(LayoutError):
        await read_file(path, 100, follow=False)
    assert count_open_files() == before


async def test_an_error_of_the_operating_system_is_mapped() -> None:
    with pytest.raises(SourceError, match="cannot read /proc/self/mem: Input/output error"):
        await read_file("/proc/self/mem", 100)  # nothing is mapped at address 0


async def test_SEC16_cancelled_at_every_await_no_file_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    await read_file(path, 100)  # starts a thread
    before = count_open_files()

    async def check() -> None:
        await wait_until(lambda: count_open_files() == before)

    assert await cancel_at_every_await(partial(read_file, path, 100), check) >= 3


async def test_a_body_that_fails_closes_the_file(tmp_path: Path) -> None:
    async def write() -> None:
        async with opened(aiofiles.open(tmp_path / "file", "wb")) as file:
            await file.write(b"x")
            raise ZeroDivisionError

    before = count_open_files()
    with pytest.raises(ZeroDivisionError):
        await write()
    assert count_open_files() == before
    assert (tmp_path / "file").read_bytes() == b"x"
