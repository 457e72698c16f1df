"""The command that tells which servers a pull reaches, for the rules of a firewall."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asupplemented.aio.concurrency import for_each
from asupplemented.cli.options import GroupOptions, with_group
from asupplemented.cli.output import write_json, write_text
from asupplemented.cli.running import running
from asupplemented.events import UpstreamResponded

if TYPE_CHECKING:
    from asupplemented.events import Event
    from asupplemented.model.digest import Digest
    from asupplemented.session import Session

__all__ = ("endpoints",)

_BLOBS = 6
"""Blobs that are asked for at the same time."""


@with_group
def endpoints(options: GroupOptions) -> None:
    """List the servers that a pull reaches.

    Reads the manifests, and one byte of each blob, because registries redirect blobs to storage
    elsewhere. Prints one origin on a line: registries, mirrors, token servers and storages.
    """
    group = options.parse_group()
    reached: dict[str, set[str]] = {}

    def note(event: Event) -> None:
        if isinstance(event, UpstreamResponded) and event.status is not None:
            reached.setdefault(event.origin, set()).add(event.registry)

    async def touch(session: Session) -> None:
        async with group.open(session) as image:

            async def read(blob: Digest) -> None:
                size = image.resolution.descriptor(blob).size
                if size == 0:
                    return
                async with image.open_blob(blob, end=1, shared=False) as stream:
                    await stream.read_all(1)

            await for_each(list(image.resolution.blobs), read, limit=_BLOBS)

    with running(options, hooks=(note,)) as runner:
        group = runner.complete(group)
        runner.run(touch)
        if options.as_json:
            found = {origin: sorted(reached[origin]) for origin in sorted(reached)}
            write_json({"endpoints": found})
        else:
            for origin in sorted(reached):
                write_text(origin)
