"""The commands that serve a registry, and that tell clients of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import click

from asupplemented.aio.files import map_write_errors
from asupplemented.cli.caching import parse_cache_size
from asupplemented.cli.console import ConsoleReporter
from asupplemented.cli.help import Command
from asupplemented.cli.options import (
    AccessOptions,
    CacheOptions,
    as_usage_error,
)
from asupplemented.cli.output import write_text
from asupplemented.cli.parameters import PATH, argument, option, with_options
from asupplemented.cli.running import reporting_errors
from asupplemented.errors import ConfigurationError
from asupplemented.serve.clients import (
    Client,
    Proxy,
    address_of,
    client_files,
    notes_for,
    served_prefixes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from asupplemented.serve.clients import ClientFile
    from asupplemented.serve.config import Address, ServeConfig, TlsFiles

__all__ = ("AccessLog", "ServeOptions", "mirrors", "serve")


DEFAULT_ADDRESS: Final = "127.0.0.1:5000"

AccessLog: TypeAlias = Literal["json", "text", "off"]
"""How requests are logged."""


_OPTIONS_OF_KEYS: Final = {
    "names": "NAME=TOP",
    "default_registry": "--mirror",
    "admin": "--admin",
    "cache": "--cache",
    "tls": "--tls-cert",
}
"""The options that the keys of a configuration have."""


@dataclass(frozen=True, kw_only=True)
class ServeOptions(AccessOptions, CacheOptions):
    """The arguments of ``serve``."""

    names: tuple[str, ...] = argument(
        "[NAME=TOP[,SUPPLEMENT...]]...",
        "A name or pattern, and what it stands for.",
        many=True,
    )
    config: Path | None = option(
        "--config", metavar="FILE", type=PATH, help="Read all of this from a TOML file."
    )
    mirror: tuple[str, ...] = option(
        "--mirror", metavar="REGISTRY", multiple=True, help="Serve all of a registry; repeatable."
    )
    listen: tuple[str, ...] = option(
        "--listen",
        metavar="ADDRESS",
        multiple=True,
        default=(DEFAULT_ADDRESS,),
        help="HOST:PORT or unix:PATH.",
    )
    admin: str | None = option(
        "--admin", metavar="ADDRESS", help="Where status, health and metrics are."
    )
    workers: int = option(
        "--workers",
        metavar="N",
        type=click.IntRange(1, 1024),
        default=1,
        help="Processes that serve.",
    )
    tls_cert: Path | None = option(
        "--tls-cert", metavar="FILE", type=PATH, help="Serve https: the certificate."
    )
    tls_key: Path | None = option(
        "--tls-key", metavar="FILE", type=PATH, help="The key of the certificate."
    )
    access_log: AccessLog = option(
        "--access-log",
        type=click.Choice(get_args(AccessLog)),
        default="json",
        help="The log on stdout.",
    )
    check: bool = option(
        "--check", is_flag=True, default=False, help="Check the configuration and serve nothing."
    )

    def load(self) -> ServeConfig:
        """The configuration that the arguments describe.

        Raises:
            click.BadParameter: An argument is malformed, or contradicts another one.
            ConfigurationError: The file has mistakes.
        """
        if self.config is None:
            return self._make()
        for each in fields(self):
            if each.name not in {"config", "check"} and getattr(self, each.name) != each.default:
                message = f"it is set in the file; leave out this option, or --config {self.config}"
                raise click.BadParameter(message, param_hint=_option_of(each.name))
        from asupplemented.serve.config import load_config

        return load_config(self.config)

    def _make(self) -> ServeConfig:
        from asupplemented.serve.config import (
            CacheConfig,
            ServeConfig,
            default_of,
            find_mistakes,
            mirror_names,
        )

        with as_usage_error("--mirror"):
            mirrored = mirror_names(self.mirror)
        size = parse_cache_size(self.cache_size)
        listen = [_parse_address(each, "--listen") for each in self.listen]
        config = ServeConfig(
            names=mirrored | _parse_names(self.names),
            default_registry=default_of(mirrored),
            listen=tuple(listen),
            admin=None if self.admin is None else _parse_address(self.admin, "--admin"),
            cache=None if self.cache is None else CacheConfig(path=self.cache, max_bytes=size),
            workers=self.workers,
            tls=self._parse_tls(),
            access_log=self.access_log,
            tls_verify=self.tls_verify,
            authfile=self.authfile,
        )
        if not config.names:
            message = "there is nothing to serve; give --mirror REGISTRY, NAME=TOP or --config FILE"
            raise click.BadParameter(message, param_hint="NAME=TOP")
        for (key, *_), message in find_mistakes(config):
            raise click.BadParameter(message, param_hint=_OPTIONS_OF_KEYS.get(key, key))
        return config

    def _parse_tls(self) -> TlsFiles | None:
        from asupplemented.serve.config import TlsFiles

        if self.tls_cert is not None and self.tls_key is not None:
            return TlsFiles(cert=self.tls_cert, key=self.tls_key)
        if self.tls_cert is not None or self.tls_key is not None:
            message = "a certificate and its key go together; give both"
            raise click.BadParameter(message, param_hint="--tls-cert, --tls-key")
        return None


def _option_of(field: str) -> str:
    return "NAME=TOP" if field == "names" else f"--{field.replace('_', '-')}"


def _parse_names(texts: Iterable[str]) -> dict[str, str | tuple[str, ...]]:
    found: dict[str, str | tuple[str, ...]] = {}
    for text in texts:
        name, equals, members = text.partition("=")
        if not name or not equals or not members:
            message = (
                f"{text!r} is no NAME=TOP, such as team/app=docker://registry.example/team/app"
            )
            raise click.BadParameter(message, param_hint="NAME=TOP")
        if name in found:
            message = f"{name} is given twice; put a comma between a top and its supplements"
            raise click.BadParameter(message, param_hint="NAME=TOP")
        found[name] = tuple(members.split(","))
    return found


def _parse_address(text: str, hint: str) -> Address:
    from asupplemented.serve.config import Address

    with as_usage_error(hint):
        return Address.parse(text)


@with_options(ServeOptions)
def serve(options: ServeOptions) -> None:
    """Serve images as a read-only registry.

    SIGTERM stops it. SIGHUP has it read the configuration again.
    """
    reporter = ConsoleReporter()
    with reporting_errors(reporter):
        config = options.load()
        if options.check:
            asyncio.run(_open_once(config, reporter))
            return
        from asupplemented.serve.supervisor import serve as run

        code = run(config, reload=None if options.config is None else options.load)
    raise click.exceptions.Exit(code)


async def _open_once(config: ServeConfig, reporter: ConsoleReporter) -> None:
    from asupplemented.serve.config import in_settings, open_config

    with in_settings():
        async with open_config(config, hooks=(reporter,)):
            pass
    reporter.info("the configuration is right")


@click.command(cls=Command)
@click.option(
    "--for",
    "client",
    type=click.Choice([each.value for each in Client]),
    required=True,
    help="What is to pull through the proxy.",
)
@click.option(
    "--mirror", metavar="REGISTRY", multiple=True, help="A registry it serves; repeatable."
)
@click.option("--config", metavar="FILE", type=PATH, help="The configuration of the proxy.")
@click.option(
    "--address",
    metavar="URL",
    help="How clients reach the proxy, http://HOST:PORT; by default what --config says, or "
    f"http://{DEFAULT_ADDRESS}.",
)
@click.option("--exclusive", is_flag=True, help="Have the registries themselves never asked.")
@click.option(
    "--output",
    "-o",
    metavar="DIR",
    type=PATH,
    help="Write the files below this directory, which must not have them.",
)
def mirrors(
    client: str,
    *,
    mirror: tuple[str, ...],
    config: Path | None,
    address: str | None,
    exclusive: bool,
    output: Path | None,
) -> None:
    """Print how podman, containerd or docker pull through a proxy."""
    chosen = Client(client)
    reporter = ConsoleReporter()
    with reporting_errors(reporter):
        proxy = _find_proxy(config, mirror, address)
        with as_usage_error("--for"):
            files = client_files(chosen, proxy, exclusive=exclusive)
        if output is not None:
            _write_files(files, output)
        else:
            write_text("\n".join(each.text for each in files).rstrip("\n"))
        for note in notes_for(chosen, proxy):
            reporter.info(f"note: {note}")


def _find_proxy(config: Path | None, mirror: tuple[str, ...], address: str | None) -> Proxy:
    from asupplemented.serve.config import default_of, load_config, mirror_names

    url = address or f"http://{DEFAULT_ADDRESS}"
    if config is None:
        with as_usage_error("--mirror"):
            names = mirror_names(mirror)
        with as_usage_error("--address"):
            return Proxy(url, served_prefixes(names), default_of(names))
    if mirror:
        message = f"{config} says what is served; leave out --mirror or --config"
        raise click.BadParameter(message, param_hint="--mirror")
    found = load_config(config, files=False)
    with as_usage_error("--address"):
        url = address or address_of(found)
        login = found.htpasswd is not None
        return Proxy(url, served_prefixes(found.names), found.default_registry, login)


def _write_files(files: Iterable[ClientFile], directory: Path) -> None:
    for each in files:
        path = directory / each.path
        if path.exists():
            message = f"{path} exists; print the files without --output, and merge them by hand"
            raise ConfigurationError(message)
        with map_write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(each.text, encoding="utf-8")
