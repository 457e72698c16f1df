"""The commands that read blobs: one of them, or an image with all of them."""

from __future__ import annotations

import re
import sys
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final

import aiofiles
import aiofiles.os
import click

from asupplemented.abc import WritableReference
from asupplemented.aio.async_files import opened
from asupplemented.aio.atomic import StagedFile
from asupplemented.aio.files import map_write_errors
from asupplemented.aio.threads import run_blocking, run_closing, run_opening
from asupplemented.cli.caching import make_cache
from asupplemented.cli.digests import complete_digest, parse_abbreviated
from asupplemented.cli.options import GroupOptions, as_usage_error, digest_option, with_group
from asupplemented.cli.output import write_bytes, write_json, write_text
from asupplemented.cli.parameters import PATH
from asupplemented.cli.running import running
from asupplemented.events import BlobAdvanced, CopyPlanned
from asupplemented.model.index import SystemImage
from asupplemented.model.sizes import show_size
from asupplemented.transfer.copy import copy as copy_image
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from aiofiles.threadpool.binary import AsyncFileIO

    from asupplemented.abc import Context, Reference
    from asupplemented.events import CopyProgress
    from asupplemented.session import Session
    from asupplemented.transfer.copy import CopyReport

__all__ = ("blob", "copy", "open_output")


_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f]")
"""Bytes that a text for people has not, and that a terminal may obey."""


@with_group
@digest_option
@click.option(
    "--output",
    "-o",
    metavar="FILE",
    type=PATH,
    help="Write to this file; it appears when it is complete.",
)
def blob(options: GroupOptions, digest: str, output: Path | None) -> None:
    """Print a blob, or write it to a file.

    The blob is verified while it is read. The exit code is 0 only if it matches its digest.
    """
    group = options.parse_group()
    wanted = parse_abbreviated(digest, "--digest")
    if options.as_json and (output is None or str(output) == "-"):
        message = (
            "stdout can take the blob or the JSON, not both; write the blob to a file with --output"
        )
        raise click.BadParameter(message, param_hint="--json")
    guarded = output is None and sys.stdout.isatty()

    async def fetch(
        session: Session, progress: Callable[[CopyProgress], None]
    ) -> dict[str, object]:
        async with group.open(session) as image:
            found = complete_digest(wanted, image.resolution.blobs)
            if found in image.resolution.sources and found not in image.resolution.blobs:
                message = f"{found} is a manifest, not a blob; print it with manifest --instance"
                raise click.BadParameter(message, param_hint="--digest")
            blob = image.resolution.descriptor(found)
            progress(CopyPlanned(manifests=0, blobs=1, bytes=blob.size))
            # Only a cache gains from a fetch that others can join, and such a fetch tells less.
            stream = image.open_blob(found, shared=session.cache is not None)
            stream.on_progress(lambda received: progress(BlobAdvanced(blob, received)))
            async with stream, open_output(session, output) as write:
                async for chunk in stream:
                    if guarded and _CONTROLS.search(chunk) is not None:
                        message = (
                            "this blob is not text, and stdout is a terminal; write it to a file "
                            "with --output, or to the terminal with --output -"
                        )
                        raise click.BadParameter(message, param_hint="--output")
                    await write(chunk)
            return {"digest": found, "size": stream.received, "member": stream.member}

    with running(options, make_cache(options)) as runner:
        group = runner.complete(group)
        drawing = runner.reporter.copy_progress() if _is_file(output) else nullcontext(_ignore)
        with drawing as progress:
            fetched = runner.run(lambda session: fetch(session, progress))
        if options.as_json:
            write_json(fetched)


@asynccontextmanager
async def open_output(
    context: Context, path: Path | None
) -> AsyncGenerator[Callable[[bytes], Awaitable[object]]]:
    """Open stdout, or a file that appears under its name when the body ends without an error.

    If the body fails, an existing file keeps its content. A path that is not a regular file, such
    as a device or a pipe, is written directly.

    Args:
        context: The session, whose threads write to stdout.
        path: The file; None or ``-`` for stdout.

    Yields:
        A function that writes all of its argument.

    Raises:
        SourceError: The file or stdout cannot be written.
        click.exceptions.Exit: The reader of stdout closed the pipe.
    """
    if path is None or str(path) == "-":
        yield lambda data: run_blocking(context, write_bytes, data)
        return
    if await aiofiles.os.path.exists(path) and not await aiofiles.os.path.isfile(path):
        with map_write_errors(path):
            async with opened(aiofiles.open(path, "wb", buffering=0)) as file:
                yield partial(_write_all, file)
        return
    target = await run_blocking(context, path.resolve)
    make = partial(StagedFile.create, target.parent)
    staged = await run_opening(context, make, StagedFile.close)
    try:
        with map_write_errors(path):
            # Not "wb": an open that a cancelled caller left behind would create the file again.
            async with opened(aiofiles.open(staged.path, "r+b", buffering=0)) as file:
                yield partial(_write_all, file)
        await run_blocking(context, staged.sync)
        await run_blocking(context, staged.publish, target)
    finally:
        await run_closing(context, staged.close)


async def _write_all(file: AsyncFileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[await file.write(rest) :]


def _is_file(output: Path | None) -> bool:
    """Whether the blob goes to a file, so that a terminal is free for bars."""
    if output is None or str(output) == "-":
        return False
    return output.is_file() or not output.exists()


def _ignore(event: CopyProgress) -> None:
    """Bars would be drawn between the lines of the blob."""


@with_group
@click.option(
    "--to",
    "destination",
    metavar="DESTINATION",
    help="oci:PATH[:IMAGE] or dir:PATH.  [required]",
)
@click.option("--extras", is_flag=True, help="Copy images that only supplements hold, too.")
def copy(options: GroupOptions, destination: str | None, *, extras: bool) -> None:
    """Copy an image with all its blobs.

    Prints the digest of the copy. The destination shows the image once it is complete. Blobs
    that the destination holds already are not fetched again.
    """
    if destination is None:
        raise click.BadParameter(_suggest_destination(options), param_hint="--to")
    group = options.parse_group()
    target = _parse_destination(destination)
    if extras and isinstance(group.selection, SystemImage):
        message = "--extras needs --select all or --select specific"
        raise click.BadParameter(message, param_hint="--extras")
    with running(options, make_cache(options)) as runner:
        group = runner.complete(group)
        with runner.reporter.copy_progress() as progress:
            report = runner.run(
                lambda session: copy_image(group, target, session, extras=extras, progress=progress)
            )
        if options.as_json:
            write_json(report._asdict())
        else:
            write_text(report.digest)
            runner.reporter.info(_summarize(report))


def _suggest_destination(options: GroupOptions) -> str:
    """What to type if there is no destination, as skopeo takes it without an option."""
    *others, last = options.texts
    message = "there is no destination; name it with --to oci:PATH[:IMAGE] or --to dir:PATH"
    if others and last.startswith(("oci:", "dir:")):
        message += f": asupplemented copy {' '.join(others)} --to {last}"
    return message


def _parse_destination(text: str) -> Reference:
    with as_usage_error("--to"):
        target = parse_reference(text, allow_ipv6=True)
    if not isinstance(target, WritableReference):
        message = f"cannot copy to {target.transport}:, only to oci: and dir:"
        raise click.BadParameter(message, param_hint="--to")
    return target


def _summarize(report: CopyReport) -> str:
    text = (
        f"copied {report.manifests} manifests and {report.blobs} blobs "
        f"({show_size(report.bytes)}) to {report.destination} in {report.seconds:.1f} s"
    )
    if report.reused_blobs:
        reused = f"{report.reused_blobs} blobs ({show_size(report.reused_bytes)})"
        text += f"; {reused} were already there"
    return text
