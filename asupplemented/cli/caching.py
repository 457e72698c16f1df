"""The cache on disk, as the command line knows it: where it is, and filling it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

import typer

from asupplemented.cache.layout.layout_cache import LayoutCache
from asupplemented.cli.options import GroupOptions, as_usage_error, with_group
from asupplemented.cli.output import show_size, write_json, write_text
from asupplemented.cli.running import working

if TYPE_CHECKING:
    from asupplemented.events import PrefetchReport
    from asupplemented.session import Session

__all__ = ("make_cache", "parse_size", "prefetch")

_SIZE: Final = re.compile(r"([0-9]{1,15})(?:([KMGT])(i?)B?)?", re.ASCII | re.IGNORECASE)
_POWERS: Final = {"K": 1, "M": 2, "G": 3, "T": 4}


def parse_size(text: str) -> int:
    """Bytes of a size like ``500MB``, ``10GiB``, ``10G`` (as ``10GiB``), or ``4096``.

    Raises:
        typer.BadParameter: It is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        message = f"{text!r} is no size; write 10GiB, 500MB or a number of bytes"
        raise typer.BadParameter(message, param_hint="--cache-size")
    number, unit, binary = match.groups()
    if unit is None:
        return int(number)
    decimal = text.strip().upper().endswith("B") and not binary
    factor: int = (1000 if decimal else 1024) ** _POWERS[unit.upper()]
    return int(number) * factor


def make_cache(options: GroupOptions) -> LayoutCache | None:
    """The cache that the options name, None for none.

    Raises:
        typer.BadParameter: It cannot be one.
    """
    size = parse_size(options.cache_size)
    if options.cache is None:
        return None
    with as_usage_error("--cache"):
        return LayoutCache(options.cache, size)


PinOption = Annotated[
    bool, typer.Option("--pin", help="Never evict it, until it is unpinned by a program.")
]


@with_group
def prefetch(options: GroupOptions, *, pin: PinOption = False) -> None:
    """Fetch an image into the cache on disk (--cache).

    Prints its digest. What is there already is not fetched again.
    """
    group = options.group()
    if options.cache is None:
        message = "there is no cache to fetch into; name its directory"
        raise typer.BadParameter(message, param_hint="--cache")
    with working(options, make_cache(options)) as desk:
        with desk.narrator.following_copy() as follow:

            async def fetch(session: Session) -> PrefetchReport:
                if pin and desk.cache is not None:
                    return await desk.cache.pin(group, session, progress=follow)
                async with group.open(session) as image:
                    return await image.prefetch(progress=follow)

            report = desk.run(fetch)
        if options.as_json:
            write_json(report._asdict())
        else:
            write_text(report.digest)
            desk.narrator.say(_tell(report))


def _tell(report: PrefetchReport) -> str:
    told = (
        f"{report.manifests} manifests, fetched {report.blobs} blobs "
        f"({show_size(report.bytes)}) in {report.seconds:.1f} s"
    )
    if report.reused_blobs:
        told += f"; {report.reused_blobs} blobs were there"
    if report.missing:
        told += f"; nobody has {', '.join(report.missing)}"
    return told
