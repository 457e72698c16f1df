"""The options that stand for the settings which errors advise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asupplemented import remedies

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from asupplemented.remedies import Remedy

__all__ = ("OPTIONS", "in_options")

OPTIONS: Final[Mapping[Remedy, str]] = {
    remedies.TLS_VERIFY: "--no-tls-verify",
    remedies.TOKEN_SERVERS: "--token-server {registry}={origin}",
    remedies.PRIVATE_TARGETS: "--private-targets",
    remedies.EXTERNAL_URLS: "--external-urls",
    remedies.OPEN_TIMEOUT: "--open-timeout",
    remedies.STALL_TIMEOUT: "--stall-timeout",
    remedies.MIN_RATE: "--min-rate",
}
"""Templates by remedy. Other remedies are for programs only, so messages here omit them."""


def in_options() -> AbstractContextManager[None]:
    """Word messages that are made in the body for users of the command line."""
    return remedies.wording(OPTIONS.get)
