"""How a command shows its options: its own first, then what it selects, and shared ones by name.

A command has up to 40 options, of which most reach registries. ``--help`` therefore describes the
options of the command and what it selects, and only names the shared ones, in groups;
``--help-all`` describes all. Both end with examples.
"""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ("EXAMPLES", "GROUPS", "Command")

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Several references": ("unavailable", "unknown", "prefer", "lookahead"),
    "Cache": ("cache", "cache_size"),
    "Registries": (
        *("tls_verify", "authfile", "creds", "cert_dir", "token_server", "private_targets"),
        *("external_urls", "registries_conf", "registries_conf_dir", "registries_d"),
    ),
    "Time limits": ("open_timeout", "stall_timeout", "min_rate"),
    "Messages": ("as_json", "verbose", "quiet"),
}
"""Shared options by the names of their parameters."""

SELECTION: Final = frozenset({"select", "instances", "platform", "missing", "prefer_gzip"})
"""Options, by the names of their parameters, that select what a command reads."""

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "resolve": (
        "resolve docker://registry.example/app:1 oci:/srv/airgap:1",
        "resolve docker://alpine:3 --platform linux/arm64 --full",
        "resolve oci:/srv/app:1 --missing skip --json",
    ),
    "explain": (
        "explain docker://alpine:3 oci:/srv/airgap:3 --digest 4bcff63911fc",
        "explain docker://alpine:3 --digest sha256:4bcff6",
        "explain oci:/srv/app:1 oci:/srv/patch:1 --digest 4bcff6 --prefer supplements",
    ),
    "inspect": (
        "inspect docker://alpine:3",
        "inspect docker://alpine:3 --platform linux/arm64 --no-tags",
        "inspect oci:/srv/app:1 --instance 4bcff63911fc",
    ),
    "manifest": (
        "manifest docker://alpine:3",
        "manifest docker://alpine:3 --platform linux/arm64",
        "manifest oci:/srv/app:1 --instance 4bcff63911fc",
    ),
    "digest": (
        "digest docker://alpine:3",
        "digest docker://alpine:3 --platform linux/arm64",
        "digest oci:/srv/app:1 --json",
    ),
    "tags": (
        "tags docker://alpine",
        "tags docker://registry.example/app --creds ada:secret",
        "tags docker://localhost:5000/app --tls-verify=false",
    ),
    "referrers": (
        "referrers docker://registry.example/app:1",
        "referrers docker://registry.example/app:1 --artifact-type application/spdx+json",
        "referrers docker://registry.example/app:1 --digest 4bcff63911fc --json",
    ),
    "endpoints": (
        "endpoints docker://alpine:3 --platform linux/amd64",
        "endpoints docker://registry.example/app:1 oci:/srv/airgap:1",
        "endpoints docker://alpine:3 --platform linux/amd64 --json",
    ),
    "blob": (
        "blob docker://alpine:3 --digest 4bcff63911fc --output layer.tar.gz",
        "blob oci:/srv/app:1 --digest 4bcff63911fc | tar -tz",
        "blob docker://alpine:3 oci:/srv/airgap:3 --digest 4bcff6 -o layer --json",
    ),
    "copy": (
        "copy docker://alpine:3 --to oci:/srv/out:3",
        "copy docker://registry.example/app:1 oci:/srv/airgap:1 --to oci:/srv/out:1",
        "copy docker://alpine:3 --platform linux/arm64 --to dir:/srv/arm64",
    ),
    "prefetch": (
        "prefetch docker://alpine:3 --cache /srv/cache",
        "prefetch docker://alpine:3 --cache /srv/cache --cache-size 50GiB --pin",
        "prefetch docker://alpine:3 oci:/srv/airgap:3 --cache /srv/cache --quiet",
    ),
    "login": (
        "login registry.example --username ada",
        "login registry.example -u ada --password-stdin < token.txt",
        "login localhost:5000 -u ada --tls-verify=false",
    ),
    "logout": (
        "logout registry.example",
        "logout localhost:5000",
        "logout registry.example --authfile auth.json",
    ),
    "serve": (
        "serve --mirror docker.io --mirror quay.io --cache /srv/cache",
        "serve app=docker://registry.example/app,oci:/srv/app:1",
        "serve --config serve.toml --check",
    ),
    "mirrors": (
        "mirrors --for podman --mirror docker.io --mirror quay.io",
        "mirrors --for containerd --config serve.toml -o certs.d",
        "mirrors --for docker --mirror docker.io",
    ),
    "completion": (
        "completion bash > ~/.local/share/bash-completion/completions/asupplemented",
        "completion zsh > ~/.zfunc/_asupplemented",
        "completion fish > ~/.config/fish/completions/asupplemented.fish",
    ),
    "ls": (
        "cache ls /srv/cache",
        "cache ls /srv/cache --blobs --full",
        "cache ls /srv/cache --json",
    ),
    "stats": (
        "cache stats /srv/cache",
        "cache stats /srv/cache --json",
        "cache stats . --json",
    ),
    "verify": (
        "cache verify /srv/cache",
        "cache verify /srv/cache --remove",
        "cache verify /srv/cache --json",
    ),
    "unpin": (
        "cache unpin /srv/cache 4bcff63911fc",
        "cache unpin /srv/cache sha256:4bcff6 sha256:9f21ab",
        "cache unpin /srv/cache --all",
    ),
    "gc": (
        "cache gc /srv/cache",
        "cache gc /srv/cache --cache-size 10GiB",
        "cache gc /srv/cache --cache-size 500MB",
    ),
}
"""Examples by command, without the name of the program."""


_ALL: Final = "asupplemented.help.all"
_COLUMNS: Final = 32
"""Columns of the names of options."""
_FEW: Final = 16
"""Options that fit one screen."""
_FALSE: Final = frozenset({"false", "f", "0"})
_TRUE: Final = frozenset({"true", "t", "1"})


class Command(click.Command):
    """A command whose help is grouped, and whose ``--tls-verify`` takes a value, as skopeo's."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401 - click's own
        super().__init__(*arguments, **settings)
        self.help = inspect.cleandoc(self.help or "")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Handle ``--help-all`` and ``--tls-verify=BOOL``, and parse the rest."""
        end = args.index("--") if "--" in args else len(args)
        options, rest = [_spell_flag(each) for each in args[:end]], args[end:]
        if "--help-all" in options:
            ctx.meta[_ALL] = True
            click.echo(self.get_help(ctx))
            ctx.exit()
        return super().parse_args(ctx, [*options, *rest])

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: `format_options` does it, as click before 8.5 has no part for them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments, and the options by group."""
        rows: dict[str, list[tuple[str, str]]] = {}
        flags: dict[str, list[str]] = {}
        for parameter in self.get_params(ctx):
            if (record := parameter.get_help_record(ctx)) is not None:
                group = _group_of(parameter)
                rows.setdefault(group, []).append(record)
                flags.setdefault(group, []).append(_flag_of(parameter))
        whole = _ALL in ctx.meta or len(self.params) <= _FEW
        for group in ("Arguments", "Options", "Selection", *(GROUPS if whole else ())):
            if group in rows:
                with formatter.section(group):
                    formatter.write_dl(rows[group], col_max=_COLUMNS)
        if not whole:
            with formatter.section("Shared options, which --help-all describes"):
                for group in (each for each in GROUPS if each in flags):
                    formatter.write(_list_options(group, flags[group], formatter.width))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        del ctx
        examples = EXAMPLES.get(self.name or "", ())
        if examples:
            formatter.write("\nExamples:\n")
            for example in examples:
                formatter.write(f"  asupplemented {example}\n")


def _list_options(group: str, names: Sequence[str], width: int) -> str:
    """The lines of a group; click would break options at their hyphens."""
    start = f"  {group:<{max(map(len, GROUPS))}}  "
    return (
        textwrap.fill(
            ", ".join(names),
            width,
            initial_indent=start,
            subsequent_indent=" " * len(start),
            break_on_hyphens=False,
        )
        + "\n"
    )


def _spell_flag(argument: str) -> str:
    """``--tls-verify=false`` as the flag that means the same."""
    name, equals, value = argument.partition("=")
    if name == "--tls-verify" and equals:
        if value.lower() in _FALSE:
            return "--no-tls-verify"
        if value.lower() in _TRUE:
            return "--tls-verify"
    return argument


def _group_of(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        return "Arguments"
    if parameter.name in SELECTION:
        return "Selection"
    return next((group for group, names in GROUPS.items() if parameter.name in names), "Options")


def _flag_of(parameter: click.Parameter) -> str:
    return next((each for each in parameter.opts if each.startswith("--")), parameter.opts[0])
