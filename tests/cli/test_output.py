"""What goes to stdout or to a file: sizes, printable text, staged files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asupplemented.cli.copying import open_output
from asupplemented.cli.output import printable
from asupplemented.errors import NetworkError, SourceError
from asupplemented.model.sizes import show_size
from tests.suspending import cancel_at_every_await, count_open_files, wait_until

if TYPE_CHECKING:
    from asupplemented.session import Session


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (None, "? B"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2, "1.0 MiB"),
        (10 * 1024**3, "10.0 GiB"),
        (2**63 - 1, "8.0 EiB"),
        (2**80, "1048576.0 EiB"),
    ],
)
def test_sizes_are_shown_for_people(size: int | None, shown: str) -> None:
    assert show_size(size) == shown


def test_what_steers_a_terminal_is_not_printable() -> None:
    assert (
        printable("a\x1b[0m\r\nb\u202ec\x9bd é 漢") == "a\ufffd[0m\ufffd\ufffdb\ufffdc\ufffdd é 漢"
    )


# Files


async def test_a_file_appears_when_it_is_whole(tmp_path: Path, session: Session) -> None:
    target = tmp_path / "blob"
    async with open_output(session, target) as write:
        await write(b"one, ")
        assert not target.exists()
        await write(b"two")
    assert target.read_bytes() == b"one, two"
    assert list(tmp_path.iterdir()) == [target]


async def write_half(session: Session, target: Path) -> None:
    async with open_output(session, target) as write:
        await write(b"half")
        raise NetworkError("half way")


async def test_a_failure_leaves_what_was_there_before(tmp_path: Path, session: Session) -> None:
    target = tmp_path / "blob"
    target.write_text("before")
    with pytest.raises(NetworkError, match="half way"):
        await write_half(session, target)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


async def test_a_link_is_followed_and_stays(tmp_path: Path, session: Session) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "blob")
    async with open_output(session, link) as write:
        await write(b"data")
    assert link.is_symlink()
    assert (tmp_path / "real" / "blob").read_bytes() == b"data"


async def test_what_is_no_regular_file_is_written_as_it_is(
    tmp_path: Path, session: Session
) -> None:
    async with open_output(session, Path("/dev/null")) as write:
        await write(b"gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(SourceError, match="Is a directory"):
        async with open_output(session, tmp_path):
            pass


async def test_SEC16_cancelled_at_every_await_no_file_stays(
    tmp_path: Path, session: Session
) -> None:
    async def write() -> None:
        async with open_output(session, tmp_path / "blob") as write:
            await write(b"data")

    def is_clean() -> bool:
        names = {path.name for path in tmp_path.iterdir()}
        return count_open_files() == before and names <= {"blob"}  # published in a thread

    async def check() -> None:
        await wait_until(is_clean)

    await write()
    (tmp_path / "blob").unlink()
    before = count_open_files()
    assert await cancel_at_every_await(write, check) >= 5
