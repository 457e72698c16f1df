"""Arguments that commands share, each declared once, and what they are parsed into."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import click

from asupplemented.abc import RepositoryReference, Timeouts
from asupplemented.cli.digests import DigestPrefix, parse_abbreviated
from asupplemented.cli.names import resolve_name
from asupplemented.cli.parameters import PATH, argument, option, with_options
from asupplemented.cli.wording import in_options
from asupplemented.errors import InvalidReferenceError, SupplementedError
from asupplemented.model.credential import Credential
from asupplemented.model.index import AllImages, SpecificImages, SystemImage
from asupplemented.model.platform import Platform
from asupplemented.session import LOOKAHEAD
from asupplemented.supplemented import supplement
from asupplemented.supplemented.lookahead import MissingPolicy, UnavailablePolicy, UnknownPolicy
from asupplemented.supplemented.resolution import Preference
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from collections.abc import Container, Generator
    from pathlib import Path

    from asupplemented.abc import Reference
    from asupplemented.model.digest import Digest
    from asupplemented.model.index import Selection
    from asupplemented.supplemented import SupplementedReference
    from asupplemented.transports.registry.host_config import ConfigurationFiles

__all__ = (
    "AccessOptions",
    "CacheOptions",
    "CommonOptions",
    "GroupOptions",
    "ReferenceOptions",
    "Select",
    "as_usage_error",
    "digest_option",
    "parse_creds",
    "parse_platform",
    "with_group",
    "with_reference",
)

Select: TypeAlias = Literal["all", "system", "specific"]
"""Which instances are selected from each index."""

_USUAL: Final = Timeouts()


@dataclass(frozen=True, kw_only=True)
class AccessOptions:
    """How a registry is trusted, and logged in to."""

    tls_verify: bool | None = option(
        "--tls-verify/--no-tls-verify",
        help="Require verified TLS of every registry, or allow plain http and unverified TLS; by "
        "default registries.conf decides.",
    )
    authfile: Path | None = option(
        "--authfile",
        metavar="FILE",
        type=PATH,
        help="Read credentials from this file only, not from $REGISTRY_AUTH_FILE, "
        "$DOCKER_AUTH_CONFIG, and where podman, skopeo and docker log in.",
    )


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """The cache on disk."""

    cache: Path | None = option(
        "--cache",
        metavar="DIR",
        type=PATH,
        help="Cache what registries serve in this OCI layout.",
    )
    cache_size: str = option(
        "--cache-size",
        metavar="SIZE",
        default="10GiB",
        help="The most to keep in it, like 500MB.",
    )


@dataclass(frozen=True, kw_only=True)
class CommonOptions(AccessOptions):
    """How registries are reached, and how the command reports. Commands on images take these."""

    creds: str | None = option(
        "--creds",
        metavar="USER:PASSWORD",
        help="Log in to the registry of the first reference like this. Other users of this "
        "machine can see it; `asupplemented login` is better.",
    )
    registries_conf: Path | None = option(
        "--registries-conf",
        metavar="FILE",
        type=PATH,
        help="Read mirrors and short names from this file, not from registries.conf.",
    )
    registries_conf_dir: Path | None = option(
        "--registries-conf-dir",
        metavar="DIR",
        type=PATH,
        help="Read drop-ins of registries.conf from this directory only.",
    )
    cert_dir: Path | None = option(
        "--cert-dir",
        metavar="DIR",
        type=PATH,
        help="Use these certificates (*.crt, *.cert, *.key) for every registry, not certs.d.",
    )
    registries_d: Path | None = option(
        "--registries.d",
        metavar="DIR",
        type=PATH,
        help="Read where signatures are from this directory, not from registries.d.",
    )
    token_server: tuple[str, ...] = option(
        "--token-server",
        metavar="[REGISTRY=]HOST[:PORT]",
        multiple=True,
        help="A token server that may get the credentials of a registry, by default of every "
        "registry; write http://HOST for plain http; repeatable. Servers on the host and on the "
        "site of a registry are allowed without it.",
    )
    private_targets: bool = option(
        "--private-targets",
        is_flag=True,
        default=False,
        help="Let registries redirect to addresses that are more private than their own.",
    )
    external_urls: bool = option(
        "--external-urls",
        is_flag=True,
        default=False,
        help="Read layers that a registry must not distribute from the URLs that the image names.",
    )
    open_timeout: float = option(
        "--open-timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0),
        default=_USUAL.open,
        help="The longest time to open one reference; 0 for no limit.",
    )
    stall_timeout: float = option(
        "--stall-timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=0),
        default=_USUAL.stall,
        help="The longest wait for the next bytes of a body; 0 for no limit.",
    )
    min_rate: int = option(
        "--min-rate",
        metavar="BYTES",
        type=click.IntRange(min=0),
        default=_USUAL.min_rate,
        help="The fewest bytes per second of a body, on average; 0 for no limit.",
    )
    as_json: bool = option(
        "--json", is_flag=True, default=False, help="Print one JSON object on stdout."
    )
    verbose: bool = option(
        "--verbose", "-v", is_flag=True, default=False, help="Report every event on stderr."
    )
    quiet: bool = option(
        "--quiet",
        "-q",
        is_flag=True,
        default=False,
        help="Report errors only, without warnings and progress.",
    )

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts of the library, with those that are given."""
        return Timeouts(
            stall=self.stall_timeout or None, min_rate=self.min_rate, open=self.open_timeout or None
        )

    @property
    def token_servers(self) -> dict[str, tuple[str, ...]]:
        """Registry to the origins that may get its credentials; ``*`` for every registry.

        A host without a scheme is reached by https; with ``--no-tls-verify``, by http as well.

        Raises:
            click.BadParameter: One of them is malformed.
        """
        from asupplemented.transports.registry.addresses import parse_origin

        found: dict[str, tuple[str, ...]] = {}
        for text in self.token_server:
            registry, _, place = text.rpartition("=")
            plain = self.tls_verify is False and "://" not in place
            origins = (place, f"http://{place}") if plain else (place,)
            try:
                parsed = [str(parse_origin(origin)) for origin in origins]
            except ValueError as error:
                message = f"a token server {error}"
                raise click.BadParameter(message, param_hint="--token-server") from None
            found[registry or "*"] = (*found.get(registry or "*", ()), *parsed)
        return found


@dataclass(frozen=True, kw_only=True)
class GroupOptions(CommonOptions, CacheOptions):
    """The arguments of a command on a group: references, and how to open and resolve them."""

    top: str = argument(
        "TOP",
        "docker://NAME, oci:PATH[:IMAGE], dir:PATH, or a short NAME.",
    )
    supplements: tuple[str, ...] = argument(
        "[SUPPLEMENT]...",
        "More places to read from, each preferred over the top.",
        many=True,
    )
    select: Select | None = option(
        "--select",
        type=click.Choice(get_args(Select)),
        help="What to take from each index: all of it, or as the next two options say.",
    )
    instances: tuple[str, ...] = option(
        "--instance",
        metavar="DIGEST",
        multiple=True,
        help="An instance to take; repeatable.",
    )
    platform: str | None = option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        help="The platform to take; --select system takes this host's.",
    )
    missing: MissingPolicy = option(
        "--missing",
        type=click.Choice(get_args(MissingPolicy)),
        default="raise",
        help="If a member lacks an instance of its index.",
    )
    unavailable: UnavailablePolicy = option(
        "--unavailable",
        type=click.Choice(get_args(UnavailablePolicy)),
        default="raise",
        help="If a supplement cannot be opened.",
    )
    unknown: UnknownPolicy = option(
        "--unknown",
        type=click.Choice(get_args(UnknownPolicy)),
        default="opaque",
        help="What to do with an entry of an index whose media type or digest algorithm is "
        "unknown: fail, or serve and copy it as bytes.",
    )
    prefer_gzip: bool = option(
        "--prefer-gzip",
        is_flag=True,
        default=False,
        help="Take gzip over zstd where both fit equally.",
    )
    prefer: Preference = option(
        "--prefer",
        type=click.Choice(get_args(Preference)),
        default="manifest",
        help="Which member is asked first for a blob: the one that served the manifest, or any "
        "but the top.",
    )
    lookahead: int = option(
        "--lookahead",
        type=click.IntRange(min=0),
        metavar="N",
        default=LOOKAHEAD,
        help="Manifests to fetch ahead; 0 fetches them one by one.",
    )

    @property
    def texts(self) -> tuple[str, ...]:
        """All references as they were typed."""
        return (self.top, *self.supplements)

    def parse_group(self, *not_selecting: str) -> SupplementedReference:
        """The group that the arguments describe, without instances that are abbreviated.

        `CommandRunner.complete` adds these.

        Args:
            not_selecting: Options that do not select instances for this command. ``--instance``
                and ``--platform`` can also name the manifest to read.

        Raises:
            click.BadParameter: An argument is malformed, or contradicts another one.
        """
        references = [_parse(self.top, "TOP", self)]
        references += [_parse(text, "SUPPLEMENT", self) for text in self.supplements]
        return supplement(
            *references,
            selection=self._selection(not_selecting),
            missing=self.missing,
            unavailable=self.unavailable,
            unknown=self.unknown,
            prefer=self.prefer,
        )

    def parse_one(self, *not_selecting: str) -> SupplementedReference:
        """The group that the arguments describe, to look at one manifest of it.

        The other manifests need not be there.

        Args:
            not_selecting: See `parse_group`.

        Raises:
            click.BadParameter: An argument is malformed, or contradicts another one.
        """
        group = self.parse_group(*not_selecting)
        return group if self.missing != "raise" else group.with_options(missing="skip")

    def parse_instances(self) -> list[Digest | DigestPrefix]:
        """The instances of ``--instance``.

        Raises:
            click.BadParameter: One of them is malformed.
        """
        return [parse_abbreviated(text, "--instance") for text in self.instances]

    def parse_instance(self) -> Digest | DigestPrefix | None:
        """The one manifest to read, None for the top's default one.

        Raises:
            click.BadParameter: Several are given, or the digest is malformed.
        """
        found = self.parse_instances()
        if len(found) > 1:
            message = "this command reads one manifest, so --instance can be given once"
            raise click.BadParameter(message, param_hint="--instance")
        return found[0] if found else None

    def parse_platform(self) -> Platform | None:
        """The platform given, None for that of this host.

        Raises:
            click.BadParameter: It is malformed.
        """
        return parse_platform(self.platform)

    def hints_for_unavailable(self) -> tuple[str, ...]:
        """What to do if a supplement cannot be opened: options that are not set."""
        if self.unavailable != "raise":
            return ()
        return ("go on without supplements that cannot be opened with --unavailable skip",)

    def hints_for_missing(self) -> tuple[str, ...]:
        """What to do if an instance is missing: options that are not set."""
        if self.missing != "raise":
            return ()
        hint = "leave out what is missing with --missing skip"
        if self.select is None and self.platform is None and not self.instances:
            hint += ", or take one image with --platform"
        return (hint,)

    def _selection(self, not_selecting: Container[str]) -> Selection:
        platform = self.parse_platform()
        specific = bool(self.instances) and "--instance" not in not_selecting
        system = platform is not None and "--platform" not in not_selecting
        select = self.select or _implied_select(specific=specific, system=system)
        if specific and select != "specific":
            message = f"instances go with --select specific, not with --select {select}"
            raise click.BadParameter(message, param_hint="--instance")
        if system and select != "system":
            message = f"a platform goes with --select system, not with --select {select}"
            raise click.BadParameter(message, param_hint="--platform")
        match select:
            case "all":
                return AllImages()
            case "system":
                return SystemImage(platform, self.prefer_gzip)
            case "specific":
                found = self.parse_instances()
                return SpecificImages(each for each in found if not isinstance(each, DigestPrefix))


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions(CommonOptions):
    """The arguments of a command on one reference."""

    reference: str = argument("REFERENCE", "docker://NAME, oci:PATH[:IMAGE] or dir:PATH.")

    @property
    def lookahead(self) -> int:
        """The default: these commands resolve no group."""
        return LOOKAHEAD

    @property
    def texts(self) -> tuple[str, ...]:
        """The reference as it was typed."""
        return (self.reference,)

    def parse_instances(self) -> list[Digest | DigestPrefix]:
        """Nothing: these commands select none."""
        return []

    def hints_for_unavailable(self) -> tuple[str, ...]:
        """Nothing: these commands read one reference."""
        return ()

    def hints_for_missing(self) -> tuple[str, ...]:
        """Nothing: these commands have no option for that."""
        return ()

    def parse_reference(self) -> Reference:
        """The reference that was typed.

        Raises:
            click.BadParameter: It is malformed.
        """
        return _parse(self.reference, "REFERENCE", self)


def _implied_select(*, specific: bool, system: bool) -> Select:
    """The value of ``--select`` that the other options imply."""
    if specific:
        return "specific"
    return "system" if system else "all"


@contextmanager
def as_usage_error(hint: str) -> Generator[None]:
    """Turn errors of the library about an argument into usage errors.

    Args:
        hint: The argument as the help text names it.

    Raises:
        click.BadParameter: The body raised a `SupplementedError`.
    """
    try:
        with in_options():
            yield
    except SupplementedError as error:
        raise click.BadParameter(str(error), param_hint=hint) from error


def parse_creds(options: GroupOptions | ReferenceOptions) -> dict[str, Credential]:
    """The credential that ``--creds`` gives, under the registry of the first reference.

    Raises:
        click.BadParameter: It is malformed, or the reference is not of one registry.
    """
    if options.creds is None:
        return {}
    user, colon, password = options.creds.partition(":")
    if not user or not colon:
        message = "it is not USER:PASSWORD; asupplemented login asks for the password"
        raise click.BadParameter(message, param_hint="--creds")
    first = _parse(options.texts[0], "--creds", options)
    if not isinstance(first, RepositoryReference):
        message = f"{first} is not an image in one registry, so there is nothing to log in to"
        raise click.BadParameter(message, param_hint="--creds")
    with as_usage_error("--creds"):
        return {first.repository.partition("/")[0]: Credential(user, password)}


def parse_platform(text: str | None) -> Platform | None:
    """Parse the argument of ``--platform``, None without it.

    Raises:
        click.BadParameter: It is malformed.
    """
    if text is None:
        return None
    with as_usage_error("--platform"):
        return Platform.parse(text)


def _parse(text: str, hint: str, files: ConfigurationFiles) -> Reference:
    """Parse a reference, or a name without a transport."""
    _refuse_url(text, hint)
    with as_usage_error(hint):
        try:
            return parse_reference(text, allow_ipv6=True)
        except InvalidReferenceError:
            found = resolve_name(text, files)
            if found is None:
                raise
            return found


def _refuse_url(text: str, hint: str) -> None:
    """Refuse a reference with a user and a password, or with the scheme of a URL, in it.

    Raises:
        click.BadParameter: It has one. The message does not show the password.
    """
    name = text.removeprefix("docker://")
    host, slash, path = name.partition("/")
    if "@" in host and slash and not text.startswith(("oci:", "dir:")):
        registry = host.rpartition("@")[2]
        message = (
            f"a reference holds no user and password; write docker://{registry}/{path}, and log in "
            f"with asupplemented login {registry}, or give --creds USER:PASSWORD"
        )
        raise click.BadParameter(message, param_hint=hint)
    if text.startswith(("docker://https://", "docker://http://")):
        rest = name.partition("://")[2]
        message = f"a reference holds no URL; write docker://{rest}"
        if name.startswith("http://"):
            message += ", with --no-tls-verify for plain http"
        raise click.BadParameter(message, param_hint=hint)


with_group = with_options(GroupOptions)
"""Makes a command on a group, which is called with `GroupOptions`."""

with_reference = with_options(ReferenceOptions)
"""Makes a command on one reference, which is called with `ReferenceOptions`."""

digest_option = click.option(
    "--digest",
    metavar="DIGEST",
    required=True,
    help="Digest of a manifest or blob; it can be abbreviated.",
)
