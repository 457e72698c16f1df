"""The parts of the command line, each alone: codes, words, sizes, bars and files."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import typer
from rich.progress import Progress

from asupplemented import errors, events
from asupplemented.cli import console
from asupplemented.cli.console import Narrator
from asupplemented.cli.options import GroupOptions, with_group
from asupplemented.cli.output import open_output, printable, short, show_size
from asupplemented.cli.running import exit_code, working
from asupplemented.errors import LayoutError, NetworkError, SourceError
from asupplemented.model.descriptor import Descriptor
from asupplemented.transfer.copy import BlobAdvanced, BlobCopied, BlobReused, CopyPlanned
from tests.cli.conftest import ARM

NOT_FOUND = {
    *("NotFoundError", "ManifestNotFoundError", "ImageNotFoundError", "InstanceNotFoundError"),
    *("BlobNotFoundError", "PlatformNotFoundError"),
}
WRONG_CONTENT = {
    *("VerificationError", "DigestMismatchError", "SizeMismatchError", "MalformedManifestError"),
    *("AmbiguousManifestError", "InvalidDigestError", "UnsupportedDigestError"),
}
USAGE = {"InvalidReferenceError", "UnknownTransportError"}


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "excerpt"])
def test_every_error_has_a_code(name: str) -> None:
    expected = 3 if name in NOT_FOUND else 4 if name in WRONG_CONTENT else 2 if name in USAGE else 1
    assert exit_code(getattr(errors, name)("words")) == expected


OPTIONS = GroupOptions(top="oci:x")


def test_an_error_and_its_notes_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    error = NetworkError("no\x1b[31m route", reference="docker://host/app", member=1)
    error.add_note("the first try\nand the second")
    with pytest.raises(typer.Exit) as caught, working(OPTIONS):
        raise error
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: no\ufffd[31m route (reference docker://host/app, member 1)",
        "  the first try; and the second",
    ]


def test_several_errors_are_told_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("closing", [LayoutError("one"), ExceptionGroup("", [OSError("two")])])
    with pytest.raises(typer.Exit) as caught, working(OPTIONS):
        raise group
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == "error: one\nerror: two\n"


def test_a_bug_is_shown_as_one() -> None:
    with pytest.raises(TypeError), working(OPTIONS):
        raise TypeError
    with pytest.raises(ExceptionGroup), working(OPTIONS):
        raise ExceptionGroup("closing", [LayoutError("one"), TypeError("two")])


EVENTS = [
    events.ManifestFetched("oci:x", ARM.digest, 2048, 0.5),
    events.BlobStarted("oci:x", ARM.config, 7, 1),
    events.BlobFinished("oci:x", ARM.config, 0, 10, None, verified=True, error=None),
    events.BlobFinished("oci:x", ARM.config, 0, 10, 2, verified=False, error="NetworkError"),
    events.RateLimitTold("docker://x", "docker.io", 100, 76, 21600),
    events.RateLimitTold("docker://x", "docker.io", None, 76, None),
    events.RequestRetried("docker://x", "429", 1, 2.0),
    events.ResolutionFinished("oci:x", 3, 4, 0.1, None),
    events.ResolutionFinished("oci:x", 3, 4, 0.1, "NetworkError"),
]


def test_every_event_is_told_if_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    quiet, verbose = Narrator(), Narrator(verbose=True)
    for event in EVENTS:
        quiet(event)
    assert capsys.readouterr().err == ""
    for event in EVENTS:
        verbose(event)
    assert capsys.readouterr().err.splitlines() == [
        f"manifest {short(ARM.digest)}, 2.0 KiB in 500 ms, from oci:x",
        f"blob {short(ARM.config)} from byte 7 by member 1: reading oci:x",
        f"blob {short(ARM.config)}: verified, 10 B of oci:x",
        f"blob {short(ARM.config)} by member 2: NetworkError, 10 B of oci:x",
        "docker.io allows 76 of 100 requests in 21600 s",
        "docker.io allows 76 of ? requests",
        "docker://x: 429, attempt 2 in 2.0 s",
        "oci:x has 3 manifests, 4 fetches in 100 ms",
        "oci:x failed with NetworkError, 4 fetches in 100 ms",
    ]


def test_warnings_are_always_told(capsys: pytest.CaptureFixture[str]) -> None:
    Narrator()(events.Warned("oci:x", "beware"))
    assert capsys.readouterr() == ("", "warning: beware\n")


def test_bars_follow_a_copy() -> None:
    progress = Progress(disable=True)
    bars = console._Bars(progress)
    one, two = Descriptor(digest=ARM.layers[0], size=10), Descriptor(digest=ARM.layers[1], size=5)
    bars.follow(CopyPlanned(manifests=1, blobs=2, bytes=15))
    bars.follow(BlobAdvanced(one, 0))
    bars.follow(BlobAdvanced(one, 4))
    assert [(task.description, task.completed, task.total) for task in progress.tasks] == [
        ("2 blobs", 0, 15),
        (f"  {short(one.digest)}", 4, 10),
    ]
    bars.follow(BlobCopied(one, 10, None))
    bars.follow(BlobReused(two))
    assert [(task.description, task.completed) for task in progress.tasks] == [("2 blobs", 15)]


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


# Options


def test_a_command_takes_the_fields_of_the_group_before_its_own() -> None:
    @with_group
    def command(options: GroupOptions, *, own: int = 3) -> None:
        seen.append((options, own))

    seen: list[tuple[GroupOptions, int]] = []
    parameters = inspect.signature(command).parameters
    assert [*parameters][:2] == ["top", "supplements"]
    assert [*parameters][-1] == "own"
    command(**{name: p.default for name, p in parameters.items()} | {"top": "oci:y", "own": 4})
    assert seen == [(GroupOptions(top="oci:y"), 4)]
