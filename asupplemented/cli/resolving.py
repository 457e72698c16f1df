"""The commands that resolve a group, and tell which member serves what."""

from __future__ import annotations

import click

from asupplemented.cli.caching import make_cache
from asupplemented.cli.digests import complete_digest, parse_abbreviated
from asupplemented.cli.options import GroupOptions, digest_option, with_group
from asupplemented.cli.output import printable, write_json, write_text
from asupplemented.cli.running import running
from asupplemented.cli.tree import draw_resolution, render

__all__ = ("explain", "resolve")


@with_group
@click.option("--full", is_flag=True, help="Print digests whole.")
def resolve(options: GroupOptions, *, full: bool) -> None:
    """Show which member serves each manifest and blob.

    Digests are abbreviated; other commands take them like this.
    """
    group = options.parse_group()
    with running(options, make_cache(options)) as runner:
        resolution = runner.run(runner.complete(group).resolve)
        if options.as_json:
            write_json(resolution.to_dict())
        else:
            write_text(render(draw_resolution(resolution, full=full)))


@with_group
@digest_option
def explain(options: GroupOptions, digest: str) -> None:
    """Explain which member serves a manifest or blob.

    Shows the member that serves it, the members that could serve it too, and the reasons.
    """
    group = options.parse_group()
    wanted = parse_abbreviated(digest, "--digest")
    with running(options, make_cache(options)) as runner:
        resolution = runner.run(runner.complete(group).resolve)
        known = [*resolution.sources, *resolution.blobs]
        explanation = resolution.explain(complete_digest(wanted, known))
        if options.as_json:
            candidates = [candidate._asdict() for candidate in explanation.candidates]
            write_json(explanation._asdict() | {"candidates": candidates})
        else:
            write_text("\n".join(map(printable, str(explanation).splitlines())))
