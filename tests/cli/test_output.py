"""What goes to stdout or to a file: sizes, printable text, staged files."""

from __future__ import annotations

from pathlib import Path

import pytest

from asupplemented.cli.output import open_output, printable, show_size
from asupplemented.errors import NetworkError, SourceError


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


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "blob"
    with open_output(target) as write:
        write(b"one, ")
        assert not target.exists()
        write(b"two")
    assert target.read_bytes() == b"one, two"
    assert list(tmp_path.iterdir()) == [target]


def write_half(target: Path) -> None:
    with open_output(target) as write:
        write(b"half")
        raise NetworkError("half way")


def test_a_failure_leaves_what_was_there_before(tmp_path: Path) -> None:
    target = tmp_path / "blob"
    target.write_text("before")
    with pytest.raises(NetworkError, match="half way"):
        write_half(target)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "blob")
    with open_output(link) as write:
        write(b"data")
    assert link.is_symlink()
    assert (tmp_path / "real" / "blob").read_bytes() == b"data"


def test_what_is_no_regular_file_is_written_as_it_is(tmp_path: Path) -> None:
    with open_output(Path("/dev/null")) as write:
        write(b"gone")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(SourceError, match="Is a directory"), open_output(tmp_path):
        pass
