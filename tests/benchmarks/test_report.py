"""A report shows what its results say, and the pages show what the committed results say."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benchmarks.__main__ import GROUPS, main
from benchmarks.harness import Bench, Sample
from benchmarks.report import draw_plots, fill_page, write_headlines, write_report
from benchmarks.results import OURS, Results, Row

ROOT = Path(__file__).parent.parent.parent
FAR = "open an index of 256, 20 ms"
SMALL = "copy an index of 64 small images, 20 ms"
MEMORY = "memory of reading a large blob"
PAGE = "\n".join(
    f"<!-- benchmarks: {name} -->\nold\n<!-- end of benchmarks -->"
    for name in ("targets", "plots", "machine", "notes", "tables")
)


@pytest.fixture
def results() -> Results:
    """Three rounds, in the second of which the machine was slow."""
    return Results(
        {"date": "2026-11-29", "curl": "7.88.1"},
        [
            Row("opening", FAR, OURS, 256, "manifests", (0.1, 0.2, 0.1), (0.0256, 0.0512, 0.0256)),
            Row("opening", FAR, "Go package", 256, "manifests", (4.0, 9.0, 3.5)),
            Row("copying", SMALL, OURS, 128, "blobs", (0.3,)),
            Row("copying", SMALL, "skopeo copy --all", 128, "blobs", (6.0,)),
            Row("blobs", "1 GiB over http", f"{OURS}, shared=False", 1024, "MiB", (0.5, 1.0)),
            Row("blobs", "1 GiB over http", "curl | openssl dgst", 1024, "MiB", (1.0, 1.5)),
            Row("memory", MEMORY, OURS, 1, "", memory=(50.0, 70.0, 60.0)),
        ],
        ["skopeo skipped: not installed"],
    )


def test_a_ratio_is_the_median_of_those_of_each_round(results: Results) -> None:
    ours, theirs = results.find(FAR), results.find(FAR, "Go package")
    assert ours is not None
    assert theirs is not None
    assert theirs.time_of(ours) == 40.0
    assert theirs.cpu_of(ours) != theirs.cpu_of(ours)  # NaN: it was not measured


def test_the_page_is_filled(results: Results) -> None:
    page = fill_page(PAGE, results)
    assert "old" not in page
    for line in (
        "| open an index of 256, 20 ms: speed of the Go package | at least 38 x | 40 x | yes |",
        "| copy an index of 64 small images, 20 ms | at most 0.25 s | 0.3 s | **no** |",
        f"| {FAR} | asupplemented | 3 | 100 (100 to 200) ms | 100 us each |  |",
        "|  | Go package | 3 | 4 (3.5 to 9) s |  | 40 |",
        "|  | curl \\| openssl dgst | 2 | 853 (683 to 1,024) MiB/s |  | 1.75 |",
        f"| {MEMORY} | asupplemented | 60 |",
        "| curl | 7.88.1 |",
        "- skopeo skipped: not installed",
        "![Opening an index: 20 ms to each answer](opening-far.svg)",
    ):
        assert line in page.splitlines()
    assert "1 GiB over TLS" in page
    assert "not measured" in page
    assert fill_page(page, results) == page


def test_a_page_without_its_blocks_is_refused(results: Results) -> None:
    with pytest.raises(ValueError, match="0 blocks"):
        fill_page("", results)


def test_headlines(results: Results) -> None:
    rows = write_headlines(results)[2:]
    assert rows[0] == (
        "| Open an index of 256 images, 20 ms away | 100 ms | Go package: 4 s | 40 |"
    )
    assert rows[2].endswith("| 1,536 MiB/s | curl \\| openssl dgst: 853 MiB/s | 1.75 |")
    assert rows[3].endswith("not measured | |")
    assert len(rows) == 4
    results.about["load before"] = "2.5"
    assert "(load 2.5)" in write_headlines(results)[0]


def test_plots_are_valid_and_label_what_they_show(results: Results) -> None:
    plots = draw_plots(results)
    assert set(plots) == {"opening-far", "blobs", "copying", "memory"}
    for plot in plots.values():
        ET.fromstring(plot)  # noqa: S314 - it was written here
    assert ">Go package</text>" in plots["opening-far"]
    assert ">20 s</text>" not in plots["copying"]
    assert ">0.3 s</text>" in plots["copying"]
    assert ">60 MiB</text>" in plots["memory"]


def test_results_are_read_as_they_were_written(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.jsonl")
    assert Results.read(tmp_path / "results.jsonl") == results


def test_pages_show_the_committed_results(tmp_path: Path) -> None:
    """`nox -s bench -- report` writes them."""
    committed = ROOT / "docs" / "benchmarks"
    copied = tmp_path / "docs" / "benchmarks"
    copied.mkdir(parents=True)
    (copied / "index.md").write_bytes((committed / "index.md").read_bytes())
    (tmp_path / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    write_report(Results.read(committed / "results.jsonl"), tmp_path)
    assert (tmp_path / "README.md").read_text() == (ROOT / "README.md").read_text()
    written = {path.name: path.read_text() for path in copied.iterdir()}
    names = ("*.svg", "index.md")
    assert written == {
        path.name: path.read_text() for name in names for path in committed.glob(name)
    }


def test_a_contestant_that_fails_is_named_and_the_others_are_measured() -> None:
    def fail() -> Sample:
        raise OSError("gone")

    bench = Bench(scale="tiny")
    bench.compare("case", {OURS: lambda: Sample(1.0, 2.0), "peer": fail})
    assert [row.name for row in bench.results.rows] == [OURS]
    assert bench.results.notes == ["peer left out of “case”: OSError: gone"]
    assert not bench.failed
    bench.compare("other case", {OURS: fail})
    assert bench.failed


def test_a_case_is_cut_when_no_time_is_left() -> None:
    bench = Bench(seconds=0.0)
    bench.begin_group("group", 10.0)
    bench.compare("case", {OURS: lambda: Sample(1.0)})
    assert bench.results.rows == []
    assert bench.results.notes == ["cut, no time was left: case"]


def test_unknown_groups_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["opening", "nothing"])
    assert "no such group: nothing" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_every_case_runs(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import import_module

    monkeypatch.setattr(
        "benchmarks.peers.golang.PACKAGE", Path("missing")
    )  # building takes minutes
    bench = Bench(scale="tiny")
    bench.begin_group(group)
    import_module(f"benchmarks.{group}").run(bench)
    assert not bench.failed, bench.results.notes
    for case, rows in bench.results.cases().items():
        assert any(row.name.startswith(OURS) and (row.wall or row.memory) for row in rows), case
