"""The commands that serve a registry, and that tell clients of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from asupplemented.aio.files import map_write_errors
from asupplemented.cli.caching import parse_cache_size
from asupplemented.cli.console import ConsoleReporter
from asupplemented.cli.options import (
    AuthFile,
    CacheOption,
    CacheSize,
    TlsVerify,
    as_usage_error,
    expand_options,
)
from asupplemented.cli.output import write_text
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

    from asupplemented.serve.clients import ClientFile
    from asupplemented.serve.config import Address, ServeConfig, TlsFiles

__all__ = ("AccessLog", "ServeOptions", "mirrors", "serve")


DEFAULT_ADDRESS: Final = "127.0.0.1:5000"


class AccessLog(StrEnum):
    """How requests are logged."""

    JSON = "json"
    TEXT = "text"
    OFF = "off"


NameArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=TOP[,SUPPLEMENT...]",
        help="A name or pattern, and the references it stands for.",
        show_default=False,
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Read all of this from a TOML file."),
]
MirrorOption = Annotated[
    list[str] | None,
    typer.Option("--mirror", metavar="REGISTRY", help="Serve all of a registry; repeatable."),
]
ListenOption = Annotated[
    list[str] | None,
    typer.Option(
        "--listen",
        metavar="ADDRESS",
        help="HOST:PORT or unix:PATH; repeatable.",
        show_default=DEFAULT_ADDRESS,
    ),
]
AdminOption = Annotated[
    str | None,
    typer.Option("--admin", metavar="ADDRESS", help="Where status, health and metrics are."),
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=1, max=1024, metavar="N", help="Processes that serve.")
]
TlsCertOption = Annotated[
    Path | None, typer.Option("--tls-cert", metavar="FILE", help="Serve https: the certificate.")
]
TlsKeyOption = Annotated[
    Path | None, typer.Option("--tls-key", metavar="FILE", help="The key of the certificate.")
]
AccessLogOption = Annotated[
    AccessLog, typer.Option("--access-log", help="The log of requests, on stdout.")
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Check the configuration and serve nothing.")
]

_OPTIONS_OF_KEYS: Final = {
    "names": "NAME=TOP",
    "default_registry": "--mirror",
    "admin": "--admin",
    "cache": "--cache",
    "tls": "--tls-cert",
}
"""The options that the keys of a configuration have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """The arguments of ``serve``."""

    names: NameArguments = None
    config: ConfigOption = None
    mirror: MirrorOption = None
    listen: ListenOption = None
    admin: AdminOption = None
    cache: CacheOption = None
    cache_size: CacheSize = "10GiB"
    workers: WorkersOption = 1
    tls_cert: TlsCertOption = None
    tls_key: TlsKeyOption = None
    access_log: AccessLogOption = AccessLog.JSON
    tls_verify: TlsVerify = None
    authfile: AuthFile = None
    check: CheckOption = False

    def load(self) -> ServeConfig:
        """The configuration that the arguments describe.

        Raises:
            typer.BadParameter: An argument is malformed, or contradicts another one.
            ConfigurationError: The file has mistakes.
        """
        if self.config is None:
            return self._make()
        for each in fields(self):
            if each.name not in {"config", "check"} and getattr(self, each.name) != each.default:
                message = f"it is set in the file; leave out this option, or --config {self.config}"
                raise typer.BadParameter(message, param_hint=_option_of(each.name))
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
            mirrored = mirror_names(self.mirror or ())
        size = parse_cache_size(self.cache_size)
        listen = [_parse_address(each, "--listen") for each in self.listen or [DEFAULT_ADDRESS]]
        config = ServeConfig(
            names=mirrored | _parse_names(self.names or ()),
            default_registry=default_of(mirrored),
            listen=tuple(listen),
            admin=None if self.admin is None else _parse_address(self.admin, "--admin"),
            cache=None if self.cache is None else CacheConfig(path=self.cache, max_bytes=size),
            workers=self.workers,
            tls=self._parse_tls(),
            access_log=self.access_log.value,
            tls_verify=self.tls_verify,
            authfile=self.authfile,
        )
        if not config.names:
            message = "there is nothing to serve; give --mirror REGISTRY, NAME=TOP or --config FILE"
            raise typer.BadParameter(message, param_hint="NAME=TOP")
        for (key, *_), message in find_mistakes(config):
            raise typer.BadParameter(message, param_hint=_OPTIONS_OF_KEYS.get(key, key))
        return config

    def _parse_tls(self) -> TlsFiles | None:
        from asupplemented.serve.config import TlsFiles

        if self.tls_cert is not None and self.tls_key is not None:
            return TlsFiles(cert=self.tls_cert, key=self.tls_key)
        if self.tls_cert is not None or self.tls_key is not None:
            message = "a certificate and its key go together; give both"
            raise typer.BadParameter(message, param_hint="--tls-cert, --tls-key")
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
            raise typer.BadParameter(message, param_hint="NAME=TOP")
        if name in found:
            message = f"{name} is given twice; put a comma between a top and its supplements"
            raise typer.BadParameter(message, param_hint="NAME=TOP")
        found[name] = tuple(members.split(","))
    return found


def _parse_address(text: str, hint: str) -> Address:
    from asupplemented.serve.config import Address

    with as_usage_error(hint):
        return Address.parse(text)


@partial(expand_options, ServeOptions)
def serve(options: ServeOptions) -> None:
    """Serve images as a read-only registry.

    \b
      asupplemented serve --mirror docker.io --mirror quay.io --cache /srv/cache
      asupplemented serve app=docker://registry.example/app,oci:/srv/app:1
      asupplemented serve --config serve.toml --check

    SIGTERM stops it. SIGHUP has it read the configuration again.
    """  # noqa: D301 - \b has click keep the lines as they are
    reporter = ConsoleReporter()
    with reporting_errors(reporter):
        config = options.load()
        if options.check:
            asyncio.run(_open_once(config, reporter))
            return
        from asupplemented.serve.supervisor import serve as run

        code = run(config, reload=None if options.config is None else options.load)
    raise typer.Exit(code)


async def _open_once(config: ServeConfig, reporter: ConsoleReporter) -> None:
    from asupplemented.serve.config import in_settings, open_config

    with in_settings():
        async with open_config(config, hooks=(reporter,)):
            pass
    reporter.info("the configuration is right")


ForOption = Annotated[
    Client, typer.Option("--for", help="What is to pull through the proxy.", show_default=False)
]
ExclusiveOption = Annotated[
    bool,
    typer.Option("--exclusive", help="Have the registries themselves never asked."),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help="How clients reach the proxy: http://HOST:PORT.",
        show_default=f"that of --config, or http://{DEFAULT_ADDRESS}",
    ),
]
ProxyConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The configuration of the proxy."),
]
ProxyMirrorOption = Annotated[
    list[str] | None,
    typer.Option("--mirror", metavar="REGISTRY", help="A registry it serves; repeatable."),
]
DirectoryOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Write the files below this directory, which must not have them.",
        show_default=False,
    ),
]


def mirrors(
    client: ForOption,
    *,
    mirror: ProxyMirrorOption = None,
    config: ProxyConfigOption = None,
    address: AddressOption = None,
    exclusive: ExclusiveOption = False,
    output: DirectoryOption = None,
) -> None:
    """Print how podman, containerd or docker pull through a proxy.

    \b
      asupplemented mirrors --for podman --mirror docker.io --mirror quay.io
      asupplemented mirrors --for containerd --config serve.toml -o certs.d
      asupplemented mirrors --for docker --mirror docker.io
    """  # noqa: D301 - \b has click keep the lines as they are
    reporter = ConsoleReporter()
    with reporting_errors(reporter):
        proxy = _find_proxy(config, mirror, address)
        with as_usage_error("--for"):
            files = client_files(client, proxy, exclusive=exclusive)
        if output is not None:
            _write_files(files, output)
        else:
            write_text("\n".join(each.text for each in files).rstrip("\n"))
        for note in notes_for(client, proxy):
            reporter.info(f"note: {note}")


def _find_proxy(config: Path | None, mirror: list[str] | None, address: str | None) -> Proxy:
    from asupplemented.serve.config import default_of, load_config, mirror_names

    url = address or f"http://{DEFAULT_ADDRESS}"
    if config is None:
        with as_usage_error("--mirror"):
            names = mirror_names(mirror or ())
        with as_usage_error("--address"):
            return Proxy(url, served_prefixes(names), default_of(names))
    if mirror:
        message = f"{config} says what is served; leave out --mirror or --config"
        raise typer.BadParameter(message, param_hint="--mirror")
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
