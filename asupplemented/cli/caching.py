"""The cache on disk: its options, and the command that fills it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from asupplemented.cli.options import GroupOptions, as_usage_error, with_group
from asupplemented.cli.output import write_json, write_text
from asupplemented.cli.running import running
from asupplemented.model.sizes import parse_size, show_size

if TYPE_CHECKING:
    from asupplemented.cache.layout.layout_cache import LayoutCache
    from asupplemented.events import PrefetchReport
    from asupplemented.session import Session

__all__ = ("make_cache", "parse_cache_size", "prefetch")


def parse_cache_size(text: str) -> int:
    """The bytes that the option ``--cache-size`` stands for.

    Raises:
        click.BadParameter: The text is not a size.
    """
    with as_usage_error("--cache-size"):
        return parse_size(text)


def make_cache(options: GroupOptions) -> LayoutCache | None:
    """The cache that the options name, None without ``--cache``.

    Raises:
        click.BadParameter: The size is malformed, or the directory cannot be a cache.
    """
    size = parse_cache_size(options.cache_size)
    if options.cache is None:
        return None
    from asupplemented.cache.layout.layout_cache import LayoutCache

    with as_usage_error("--cache"):
        return LayoutCache(options.cache, size)


@with_group
@click.option("--pin", is_flag=True, help="Never evict the image; cache unpin allows it again.")
def prefetch(options: GroupOptions, *, pin: bool) -> None:
    """Fetch an image into the cache on disk (--cache).

    Prints the digest of the image. Blobs that the cache holds already are not fetched again. The
    exit status is 1 if the cache does not hold all of the image at the end; blobs that a local
    member holds need not be in the cache.
    """
    group = options.parse_group()
    if options.cache is None:
        message = "there is no cache to fetch into; name its directory with --cache"
        raise click.BadParameter(message, param_hint="--cache")
    with running(options, make_cache(options)) as runner:
        group = runner.complete(group)
        with runner.reporter.copy_progress() as progress:

            async def fetch(session: Session) -> PrefetchReport:
                if pin and runner.cache is not None:
                    return await runner.cache.pin(group, session, progress=progress)
                async with group.open(session) as image:
                    return await image.prefetch(progress=progress)

            report = runner.run(fetch)
        if options.as_json:
            write_json(report._asdict())
        else:
            write_text(report.digest)
            runner.reporter.info(_summarize(report))
    if report.not_kept or report.missing:
        raise click.exceptions.Exit(1)


def _summarize(report: PrefetchReport) -> str:
    text = (
        f"{report.manifests} manifests, fetched {report.blobs} blobs "
        f"({show_size(report.bytes)}) in {report.seconds:.1f} s"
    )
    if report.reused_blobs:
        text += f"; {report.reused_blobs} blobs were already there"
    if report.missing:
        text += f"; no member holds {', '.join(report.missing)}"
    if report.not_kept:
        text += (
            f"; the cache does not hold {', '.join(report.not_kept)}: "
            "make it larger with --cache-size, or unpin images"
        )
    return text
