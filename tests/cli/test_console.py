"""What goes to stderr: events, warnings and progress bars."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from asupplemented import events
from asupplemented.cli.console import ConsoleReporter
from asupplemented.cli.output import short
from asupplemented.cli.progress import ProgressBars, make_progress
from asupplemented.model.descriptor import Descriptor
from asupplemented.transfer.copy import BlobAdvanced, BlobCopied, BlobReused, CopyPlanned
from tests.cli.conftest import ARM

if TYPE_CHECKING:
    import pytest

EVENTS = [
    events.ManifestFetched("oci:x", ARM.digest, 2048, 0.5),
    events.BlobStarted("oci:x", ARM.config, 7, 1),
    events.BlobFinished("oci:x", ARM.config, 0, 10, None, verified=True, error=None),
    events.BlobFinished("oci:x", ARM.config, 0, 10, 2, verified=False, error="NetworkError"),
    events.RateLimitTold("docker://x", "docker.io", 100, 76, 21600),
    events.RateLimitTold("docker://x", "docker.io", None, 76, None),
    events.RequestRetried("docker://x", "429", 1, 2.0),
    events.UpstreamResponded("docker.io", "HEAD", 200, 0.25, None),
    events.UpstreamResponded("docker.io", "GET", None, 0.25, "NetworkError"),
    events.BlobEvicted(ARM.config, 2048, 60.0),
    events.RequestServed(
        "GET",
        "manifest",
        None,
        "team/app",
        "1.4",
        200,
        2048,
        0.1,
        0.1,
        None,
        "hit",
        None,
        None,
        complete=True,
        error=None,
    ),
    events.ResolutionFinished("oci:x", 3, 4, 0.1, None),
    events.ResolutionFinished("oci:x", 3, 4, 0.1, "NetworkError"),
]


def test_every_event_is_told_if_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    quiet, verbose = ConsoleReporter(), ConsoleReporter(verbose=True)
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
        "docker.io: HEAD 200 after 250 ms",
        "docker.io: GET NetworkError after 250 ms",
        f"blob {short(ARM.config)}: evicted, 2.0 KiB",
        "GET manifest team/app 1.4: 200, 2.0 KiB",
        "oci:x has 3 manifests, 4 fetches in 100 ms",
        "oci:x failed with NetworkError, 4 fetches in 100 ms",
    ]


def test_warnings_are_always_told(capsys: pytest.CaptureFixture[str]) -> None:
    ConsoleReporter()(events.Warned("oci:x", "beware"))
    assert capsys.readouterr() == ("", "warning: beware\n")


async def test_bars_follow_the_bytes_of_a_copy() -> None:
    progress = Progress(disable=True)
    bars = ProgressBars(progress)
    one, two = Descriptor(digest=ARM.layers[0], size=10), Descriptor(digest=ARM.layers[1], size=5)

    def shown() -> list[tuple[str, float, float | None]]:
        return [(task.description, task.completed, task.total) for task in progress.tasks]

    bars.update(CopyPlanned(manifests=1, blobs=2, bytes=15))
    bars.update(BlobAdvanced(one, 0))
    bars.update(BlobAdvanced(one, 4))
    assert shown() == [("2 blobs", 4, 15), (f"  {short(one.digest)}", 4, 10)]
    bars.update(BlobAdvanced(one, 2))  # It started over.
    assert shown()[0] == ("2 blobs", 2, 15)
    bars.update(BlobCopied(one, 10, None))
    bars.update(BlobReused(two))
    assert shown() == [("2 blobs", 15, 15)]


async def test_bars_fit_80_columns_and_have_one_unit() -> None:
    drawn = StringIO()
    with make_progress(Console(file=drawn, force_terminal=True, width=80)) as progress:
        bars = ProgressBars(progress)
        blob = Descriptor(digest=ARM.layers[0], size=1023 * 1024**2)
        bars.update(CopyPlanned(manifests=1, blobs=12, bytes=1023 * 1024**3))
        bars.update(BlobAdvanced(blob, 1000 * 1024**2))
        progress.refresh()
    text = Text.from_ansi(drawn.getvalue()).plain
    assert "1000.0 MiB of 1023.0 MiB" in text
    assert "1000.0 MiB of 1023.0 GiB" in text
    assert max(map(len, text.splitlines())) <= 80
