"""Storing credentials where podman, skopeo and docker look for them.

A login goes to the credential helper that the auth file names for the registry, else to the file
itself. Other programs own the file, so everything else in it stays as it is.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import anyio.to_thread

from asupplemented.aio.files import map_write_errors, read_limited
from asupplemented.credentials.auth_json import (
    HUB_URL,
    HelperCall,
    find_helper,
    find_keys,
    parse_auth_file,
)
from asupplemented.errors import ConfigurationError, NotFoundError
from asupplemented.limits import MAX_AUTH_FILE
from asupplemented.model.credential import Credential, check_lookup

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.credentials.helpers import CredentialHelpers

__all__ = ("erase_credential", "store_credential")

_DOCKER: Final = "config.json"
"""The name of docker's own file, in which Docker Hub has a name of its own."""


async def store_credential(
    path: Path, name: str, credential: Credential, helpers: CredentialHelpers
) -> str:
    """Store a user name and password.

    Args:
        path: The auth file. It is made if it is not there.
        name: A registry, or a namespace or a repository in it, which no helper can store.
        credential: What to store.
        helpers: Runs the helper.

    Returns:
        Where it is stored now, for people.

    Raises:
        ConfigurationError: The name cannot have a credential, the credential is no user name and
            password, or the file is malformed.
        SourceError: The helper failed, or the file cannot be written.
    """
    check_lookup(name)
    if credential.pair is None:
        message = "only a user name and a password can be stored"
        raise ConfigurationError(message)
    tree, helper = await anyio.to_thread.run_sync(_read, path, name)
    if helper is not None:
        await helpers.store(*helper, credential)
        return f"docker-credential-{helper.suffix}"
    auths = tree.setdefault("auths", {})
    for key in find_keys(auths, name):
        del auths[key]
    key = HUB_URL if name == "docker.io" and path.name == _DOCKER else name
    pair = ":".join(credential.pair).encode("utf-8")
    auths[key] = {"auth": base64.b64encode(pair).decode("ascii")}
    await anyio.to_thread.run_sync(_write, path, tree)
    return str(path)


async def erase_credential(path: Path, name: str, helpers: CredentialHelpers) -> bool:
    """Remove the credential of exactly one registry, namespace or repository.

    Args:
        path: The auth file.
        name: See `store_credential`.
        helpers: Runs the helper.

    Returns:
        Whether there was one.

    Raises:
        ConfigurationError: The name cannot have a credential, or the file is malformed.
        SourceError: The helper failed, or the file cannot be written.
    """
    check_lookup(name)
    tree, helper = await anyio.to_thread.run_sync(_read, path, name)
    found = False
    if helper is not None and await helpers.get(*helper) is not None:
        await helpers.erase(*helper)
        found = True
    auths = tree.get("auths", {})
    keys = find_keys(auths, name)
    for key in keys:
        del auths[key]
    if keys:
        await anyio.to_thread.run_sync(_write, path, tree)
    return found or bool(keys)


def _read(path: Path, name: str) -> tuple[dict[str, Any], HelperCall | None]:
    """The content of an auth file, and the helper that it names for a registry."""
    try:
        raw = read_limited(path, MAX_AUTH_FILE)
    except NotFoundError:
        return {}, None
    document = parse_auth_file(raw, str(path))
    helper = None if "/" in name else find_helper(document, name)
    return json.loads(raw), helper


def _write(path: Path, tree: dict[str, Any]) -> None:
    """Write an auth file whole, for this user alone, in place of what is there."""
    target = path.resolve()
    with map_write_errors(path):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, staged = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(f"{json.dumps(tree, indent=2)}\n")
                file.flush()
                os.fsync(fd)
            os.replace(staged, target)  # noqa: PTH105 - both are texts
        except BaseException:
            with suppress(OSError):
                os.unlink(staged)  # noqa: PTH108 - as above
            raise
