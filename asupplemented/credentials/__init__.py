"""Credentials that others keep: in files, and in programs that know them.

`entries` is what a file says, `files` where files are, `programs` runs a program of strangers,
`helpers` asks credential helpers, and `provider` puts it together for a session. `documents` is
what all of them have in common: nothing secret is ever shown (rule CRED-07).
"""

from __future__ import annotations

from asupplemented.credentials.auth_files import (
    AuthFile,
    AuthFiles,
    default_auth_file,
)
from asupplemented.credentials.helpers import CredentialHelpers, HelperLimits
from asupplemented.credentials.provider import AUTH_FILES, AuthFileCredentials

__all__ = (
    "AUTH_FILES",
    "AuthFile",
    "AuthFileCredentials",
    "AuthFiles",
    "CredentialHelpers",
    "HelperLimits",
    "default_auth_file",
)
