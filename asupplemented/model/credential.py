"""Credentials: what a registry is told to let us in. They never show what they hold."""

from __future__ import annotations

from dataclasses import dataclass, fields

from asupplemented.errors import ConfigurationError

__all__ = ("Credential",)


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A user name and password, or a token.

    Neither `repr` nor `str` shows anything but which of the fields are set.

    Attributes:
        username: For basic access and for token servers.
        password: Belongs to `username`.
        registry_token: A bearer token, sent to the registry as it is.
        identity_token: A refresh token, exchanged at the token server.

    Raises:
        ConfigurationError: A field holds a line break or NUL, which would end a header; a
            password has no user name, or a user name holds a colon.
    """

    username: str | None = None
    password: str | None = None
    registry_token: str | None = None
    identity_token: str | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and any(character in value for character in "\r\n\0"):
                message = f"the {field.name} of a credential holds a line break or NUL"
                raise ConfigurationError(message)
        if self.password is not None and self.username is None:
            message = "a credential has a password but no username"
            raise ConfigurationError(message)
        if self.username is not None and ":" in self.username:
            message = "the username of a credential holds a colon, which basic access cannot say"
            raise ConfigurationError(message)

    @classmethod
    def of(cls, value: Credential | tuple[str, str] | str | None) -> Credential | None:
        """Take what users write for a credential.

        Args:
            value: A credential; a user name and a password; a registry token; or None.

        Returns:
            The credential, None for anonymous access.

        Raises:
            ConfigurationError: See the class; or `value` is none of these.
        """
        match value:
            case None | Credential():
                return value
            case str():
                return cls(registry_token=value)
            case (str() as username, str() as password):
                return cls(username, password)
        message = "a credential is (username, password), a registry token, or a Credential"
        raise ConfigurationError(message)

    def __repr__(self) -> str:
        known = [field.name for field in fields(self) if getattr(self, field.name) is not None]
        return f"<Credential with {', '.join(known) or 'nothing'}>"
