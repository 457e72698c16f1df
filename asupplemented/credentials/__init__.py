"""Credentials that podman, skopeo and docker store: in auth files and in credential helpers.

- `auth_json`: the format of auth files. Errors never quote a secret (rule CRED-07).
- `auth_files`: where the files are, and reading them.
- `auth_store`: storing and removing a login.
- `helper_process`: runs a program with limits.
- `helpers`: asks ``docker-credential-*`` programs and caches the answers.
- `provider`: the `asupplemented.abc.CredentialProvider` that combines files and helpers.
"""

from __future__ import annotations

from asupplemented.credentials.auth_files import (
    AuthFile,
    AuthFiles,
    AuthVariable,
    default_auth_file,
)
from asupplemented.credentials.auth_store import erase_credential, store_credential
from asupplemented.credentials.helpers import CredentialHelpers, HelperLimits
from asupplemented.credentials.provider import AuthFileCredentials
from asupplemented.model.credential import AUTH_FILES

__all__ = (
    "AUTH_FILES",
    "AuthFile",
    "AuthFileCredentials",
    "AuthFiles",
    "AuthVariable",
    "CredentialHelpers",
    "HelperLimits",
    "default_auth_file",
    "erase_credential",
    "store_credential",
)
