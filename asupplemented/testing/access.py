"""Who may read: Basic access, and Bearer tokens with their own token endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asupplemented.testing.exchange import Answer, Request

__all__ = ("Access",)


class Access(Protocol):
    """Decides about a request before a registry answers it."""

    def answer(self, request: Request, url: str) -> Answer | None:
        """A refusal, or the answer of a token endpoint; None to let the registry answer.

        Args:
            request: What was asked.
            url: Of the registry that was asked.
        """
        ...

    def challenge(self, request: Request, url: str) -> str:
        """The value of ``WWW-Authenticate`` for a request."""
        ...
