"""The access log: what its lines say, and a standard output that stands still or is gone."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

from asupplemented.events import RequestServed, Warned
from asupplemented.serve.access_log import AccessLog, LineWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

NOON = 1_800_014_400.125  # 2027-01-15T12:00:00.125Z

SERVED = RequestServed(
    method="GET",
    route="blob",
    registry="docker.io",
    name="library/alpine",
    reference="sha256:ab",
    status=206,
    sent=1024,
    seconds=0.0123456,
    first_byte=0.001,
    source="docker://mirror.lan/alpine:3",
    cache="miss",
    principal=None,
    client="192.0.2.7",
    complete=True,
    error=None,
)

HOSTILE = SERVED._replace(
    method="GET\n",
    name='evil"\x1b[2J\x7f\x85\u2028\u202e name',
    reference="\r\nforged line",
    principal="Renée \\",
    client=None,
    registry=None,
    source=None,
    complete=False,
    error="TruncatedError",
)


class Lines(LineWriter):
    """Keeps lines in place of writing them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        self.lines.append(line)


def log(style: Any, *events: Any) -> list[str]:
    lines = Lines()
    hook = AccessLog(lines, style, now=lambda: NOON)
    for event in events:
        hook(event)
    return lines.lines


def test_a_line_for_people_names_the_member_that_served() -> None:
    [line] = log("text", SERVED, Warned("", "not a request"))
    assert line == (
        "2027-01-15T12:00:00.125+00:00 192.0.2.7 - GET blob docker.io/library/alpine@sha256:ab "
        "206 1024 12.3ms miss docker://mirror.lan/alpine:3"
    )


def test_a_line_of_json_has_every_field() -> None:
    [line] = log("json", SERVED, Warned("", "not a request"))
    assert json.loads(line) == {
        "time": "2027-01-15T12:00:00.125+00:00",
        **SERVED._asdict(),
        "seconds": 0.012346,
    }


@pytest.mark.parametrize("style", ["json", "text"])
def test_what_a_client_chooses_stays_within_its_line_and_its_word(style: str) -> None:
    [line] = log(style, HOSTILE)
    assert line.isascii()
    assert line.isprintable()
    if style == "json":
        assert json.loads(line) == {
            "time": "2027-01-15T12:00:00.125+00:00",
            **HOSTILE._asdict(),
            "seconds": 0.012346,
        }
    else:
        _, client, *_, cut, error = line.split(" ")
        assert client == "-"
        assert (cut, error) == ("cut", "TruncatedError")
        name = json.loads('"' + line.split(' "')[3].split('" 206')[0] + '"')
        assert name == f"{HOSTILE.name}:{HOSTILE.reference}"


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    ends = {reading, writing}
    try:
        yield reading, writing
    finally:
        for each in ends:
            with suppress(OSError):  # the test closed it
                os.close(each)


def read_lines(fd: int, until: bytes) -> list[bytes]:
    data = b""
    while until not in data:
        data += os.read(fd, 65536)
    return data.splitlines()


def test_lines_are_written_in_order_and_all_of_them_before_the_end() -> None:
    with pipe() as (reading, writing):
        writer = LineWriter(writing)
        for number in range(1000):
            writer.write(f"line {number}")
        writer.close(within=60)
        assert read_lines(reading, b"line 999\n") == [b"line %d" % n for n in range(1000)]


def test_lines_are_dropped_and_counted_while_the_reader_stands_still() -> None:
    with pipe() as (reading, writing):
        writer = LineWriter(writing, limit=10)
        for number in range(2000):  # never blocks, though a pipe holds 64 KiB
            writer.write(f"{number:100}")
        writer.close(within=0)
        lines = read_lines(reading, b'{"dropped":')
        told = [json.loads(each)["dropped"] for each in lines if each.startswith(b"{")]
        written = [int(each) for each in lines if not each.startswith(b"{")]
        assert sum(told) + len(written) <= 2000
        assert sum(told) >= 1000
        assert written == sorted(written)


def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    with pipe() as (reading, writing):
        os.set_blocking(writing, False)
        writer = LineWriter(writing)
        for number in range(2000):
            writer.write(f"{number:100}")
        lines = read_lines(reading, b"1999\n")
        assert [int(each) for each in lines] == list(range(2000))
        writer.close(within=60)


async def test_a_closed_standard_output_ends_the_log_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pipe() as (reading, writing):
        os.close(reading)
        writer = LineWriter(writing)
        writer.write("lost")
        async with asyncio.timeout(60):
            while not caplog.records:  # noqa: ASYNC110 - a thread logs it
                await asyncio.sleep(0.001)
        writer.write("ignored")
        writer.close(within=60)
    assert [each.getMessage() for each in caplog.records] == [
        "the access log ends, for standard output failed: [Errno 32] Broken pipe"
    ]
