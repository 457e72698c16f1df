"""The commands that store a credential for a registry, and remove it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

import click

from asupplemented.cli.console import ConsoleReporter
from asupplemented.cli.help import Command
from asupplemented.cli.options import CommonOptions, as_usage_error
from asupplemented.cli.output import write_text
from asupplemented.cli.parameters import PATH, documented_argument, shared_option
from asupplemented.cli.running import call, reporting_errors
from asupplemented.cli.wording import in_options
from asupplemented.credentials import (
    AuthFile,
    AuthFiles,
    CredentialHelpers,
    erase_credential,
    store_credential,
)
from asupplemented.errors import NotFoundError, UnauthorizedError
from asupplemented.model.credential import Credential, check_lookup
from asupplemented.model.name import ImageName
from asupplemented.session import Session

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ("login", "logout")

_ANY: Final = "asupplemented"
"""A repository to ask a registry about, which need not exist."""

_registry = documented_argument(
    "registry", "REGISTRY", "HOST[:PORT], such as quay.io or localhost:5000."
)
_authfile = click.option(
    "--authfile",
    metavar="FILE",
    type=PATH,
    help="Use this auth.json or config.json, not $REGISTRY_AUTH_FILE, config.json in "
    "$DOCKER_CONFIG, or the file of podman.",
)


@click.command(cls=Command)
@_registry
@click.option("--username", "-u", metavar="USER", help="Otherwise it is asked for.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin.")
@_authfile
@shared_option(CommonOptions, "tls_verify")
@click.option("--no-check", is_flag=True, help="Store it without asking the registry.")
def login(
    registry: str,
    *,
    username: str | None,
    password_stdin: bool,
    authfile: Path | None,
    tls_verify: bool | None,
    no_check: bool,
) -> None:
    """Store a user name and a password for a registry.

    The registry is asked first whether it accepts them. They go where podman, skopeo and docker
    look: to the credential helper that the auth file names, else to the file itself.
    """
    name = _parse_registry(registry)
    with as_usage_error("--username"):
        credential = Credential(*_ask(username, password_stdin=password_stdin))
    path = _find_file(authfile)
    reporter = ConsoleReporter()

    async def store(_session: Session) -> str:
        return await store_credential(path, name, credential, CredentialHelpers())

    with reporting_errors(reporter), in_options():
        if not no_check:
            _check(name, credential, CommonOptions(tls_verify=tls_verify), reporter)
        place = call(store)
    write_text(f"stored the login of {credential.username} at {name} in {place}")


@click.command(cls=Command)
@_registry
@_authfile
def logout(registry: str, *, authfile: Path | None) -> None:
    """Remove the user name and the password for a registry.

    The exit code is 3 if there are none.
    """
    name = _parse_registry(registry)
    path = _find_file(authfile)

    async def erase(_session: Session) -> None:
        if not await erase_credential(path, name, CredentialHelpers()):
            message = f"{path} has no login at {name}; another file may, see --authfile"
            raise NotFoundError(message)

    with reporting_errors(ConsoleReporter()):
        call(erase)
    write_text(f"removed the login at {name} from {path}")


def _parse_registry(text: str) -> str:
    name = text.removeprefix("docker://").removeprefix("https://").removesuffix("/")
    if "/" in name or "@" in name:
        message = "it is not HOST[:PORT]; a login is for a whole registry"
        raise click.BadParameter(message, param_hint="REGISTRY")
    with as_usage_error("REGISTRY"):
        check_lookup(name)
        parsed = ImageName.parse(f"{name}/{_ANY}", allow_ipv6=True)
    if parsed.path.endswith(f"{name}/{_ANY}"):
        message = f"{name} is no host: it has neither a dot nor a port"
        raise click.BadParameter(message, param_hint="REGISTRY")
    return parsed.registry


def _ask(username: str | None, *, password_stdin: bool) -> tuple[str, str]:
    if not password_stdin and not sys.stdin.isatty():
        message = "stdin is no terminal to ask for the password; give --password-stdin"
        raise click.BadParameter(message, param_hint="--password-stdin")
    if username is None:
        if password_stdin:
            message = "give the user with --username, as stdin holds the password"
            raise click.BadParameter(message, param_hint="--username")
        username = str(click.prompt("Username", err=True))
    if password_stdin:
        return username, sys.stdin.read().removesuffix("\n").removesuffix("\r")
    return username, str(click.prompt("Password", hide_input=True, err=True))


def _find_file(given: Path | None) -> Path:
    """The file to write: what is given, else the first one that is searched."""
    if given is not None:
        return given
    files = AuthFiles.of_environment(os.environ).files
    found = next((each for each in files if isinstance(each, AuthFile) and not each.legacy), None)
    if found is None:
        message = "there is no home directory; name a file with --authfile"
        raise click.BadParameter(message, param_hint="--authfile")
    return found.path


def _check(
    name: str, credential: Credential, options: CommonOptions, reporter: ConsoleReporter
) -> None:
    """Ask a registry whether it accepts a credential."""
    from asupplemented.transports.registry import RegistryReference
    from asupplemented.transports.registry.host_config import make_registry_options

    session = Session(
        credentials={name: credential},
        settings=(make_registry_options(options),),
        tls_verify=options.tls_verify,
        hooks=(reporter,),
    )
    reference = RegistryReference(ImageName.parse(f"{name}/{_ANY}", allow_ipv6=True))
    try:
        call(reference.check_login, session)
    except UnauthorizedError as error:
        error.add_note("nothing was stored; check the user and the password")
        raise
