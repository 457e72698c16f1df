"""Arguments that commands share, each declared once, and what they are parsed into."""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from asupplemented.abc import RepositoryReference, Timeouts
from asupplemented.cli.digests import DigestPrefix, parse_abbreviated
from asupplemented.cli.names import resolve_name
from asupplemented.cli.wording import in_options
from asupplemented.errors import InvalidReferenceError, SupplementedError
from asupplemented.model.credential import Credential
from asupplemented.model.index import AllImages, SpecificImages, SystemImage
from asupplemented.model.platform import Platform
from asupplemented.session import LOOKAHEAD
from asupplemented.supplemented import supplement
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator

    from asupplemented.abc import Reference
    from asupplemented.model.digest import Digest
    from asupplemented.model.index import Selection
    from asupplemented.supplemented import SupplementedReference
    from asupplemented.transports.registry.host_config import ConfigurationFiles

__all__ = (
    "CommonOptions",
    "DigestOption",
    "GroupOptions",
    "Missing",
    "PlatformOption",
    "Prefer",
    "PreferGzip",
    "ReferenceOptions",
    "Select",
    "Unavailable",
    "Unknown",
    "as_usage_error",
    "expand_options",
    "parse_creds",
    "parse_digest",
    "parse_platform",
    "with_group",
    "with_reference",
)


class Select(StrEnum):
    """Which instances are selected from each index."""

    ALL = "all"
    SYSTEM = "system"
    SPECIFIC = "specific"


class Missing(StrEnum):
    """What happens if a member lacks an instance that its index names."""

    RAISE = "raise"
    FALLBACK = "fallback"
    SKIP = "skip"


class Unavailable(StrEnum):
    """What happens to a supplement that cannot be opened."""

    RAISE = "raise"
    SKIP = "skip"


class Unknown(StrEnum):
    """What happens to an entry of unknown media type or digest algorithm."""

    RAISE = "raise"
    OPAQUE = "opaque"


class Prefer(StrEnum):
    """Which member is asked first for a blob."""

    MANIFEST = "manifest"
    SUPPLEMENTS = "supplements"


Top = Annotated[
    str,
    typer.Argument(
        metavar="TOP",
        help="The image: docker://NAME, oci:PATH[:IMAGE] or dir:PATH; "
        "a NAME alone is looked up as registries.conf says.",
    ),
]
ReferenceArgument = Annotated[
    str,
    typer.Argument(metavar="REFERENCE", help="docker://NAME, oci:PATH[:IMAGE] or dir:PATH."),
]
Supplements = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SUPPLEMENT",
        help="More references to read from, each preferred over the top.",
        show_default=False,
    ),
]
SelectOption = Annotated[
    Select | None,
    typer.Option(
        "--select",
        help="What to take from each index: all, unless --instance or --platform is given.",
        show_default=False,
    ),
]
Instances = Annotated[
    list[str] | None,
    typer.Option(
        "--instance",
        metavar="DIGEST",
        help="An instance to take; implies --select specific; repeatable.",
        show_default=False,
    ),
]
PlatformOption = Annotated[
    str | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        help="The platform to take; implies --select system; by default that of this host.",
        show_default=False,
    ),
]
DigestOption = Annotated[
    str,
    typer.Option(
        "--digest", metavar="DIGEST", help="Digest of a manifest or blob; it can be abbreviated."
    ),
]
MissingOption = Annotated[
    Missing,
    typer.Option(
        "--missing",
        help="What to do if a member lacks an instance that its index names.",
    ),
]
UnavailableOption = Annotated[
    Unavailable,
    typer.Option(
        "--unavailable",
        help="What to do if a supplement cannot be opened.",
    ),
]
UnknownOption = Annotated[
    Unknown,
    typer.Option(
        "--unknown",
        help="What to do with an entry of an index whose media type or digest algorithm is "
        "unknown: fail, or serve and copy it as bytes.",
    ),
]
PreferGzip = Annotated[
    bool,
    typer.Option(
        "--prefer-gzip",
        help="Of images that fit the platform equally well, take the one compressed with gzip, "
        "not zstd.",
    ),
]
PreferOption = Annotated[
    Prefer,
    typer.Option(
        "--prefer",
        help="Which member is asked first for a blob: the one that served the manifest, or any "
        "but the top.",
    ),
]
Lookahead = Annotated[
    int,
    typer.Option(
        "--lookahead",
        min=0,
        metavar="N",
        help="Manifests to fetch ahead; 0 fetches them one by one.",
    ),
]
TlsVerify = Annotated[
    bool | None,
    typer.Option(
        "--tls-verify/--no-tls-verify",
        help="--no-tls-verify allows plain http and unverified TLS for every registry, "
        "--tls-verify for none; by default registries.conf decides for each registry.",
        show_default=False,
    ),
]
AuthFile = Annotated[
    Path | None,
    typer.Option(
        "--authfile",
        metavar="FILE",
        help="Read credentials from this auth.json or config.json only. By default "
        "$REGISTRY_AUTH_FILE, else the text in $DOCKER_AUTH_CONFIG, then $DOCKER_CONFIG or the "
        "files that podman, skopeo and docker log in to.",
    ),
]
Creds = Annotated[
    str | None,
    typer.Option(
        "--creds",
        metavar="USER:PASSWORD",
        help="Log in to the registry of the first reference like this. Other users of this "
        "machine can see it; `asupplemented login` is better.",
        show_default=False,
    ),
]
RegistriesConf = Annotated[
    Path | None,
    typer.Option(
        "--registries-conf",
        metavar="FILE",
        help="Read mirrors and short names from this file, not from registries.conf.",
        show_default=False,
    ),
]
RegistriesConfDir = Annotated[
    Path | None,
    typer.Option(
        "--registries-conf-dir",
        metavar="DIR",
        help="Read drop-ins of registries.conf from this directory only.",
        show_default=False,
    ),
]
CertDir = Annotated[
    Path | None,
    typer.Option(
        "--cert-dir",
        metavar="DIR",
        help="Use these certificates (*.crt, *.cert, *.key) for every registry, not certs.d.",
        show_default=False,
    ),
]
RegistriesD = Annotated[
    Path | None,
    typer.Option(
        "--registries.d",
        metavar="DIR",
        help="Read where signatures are from this directory, not from registries.d.",
        show_default=False,
    ),
]
TokenServers = Annotated[
    list[str] | None,
    typer.Option(
        "--token-server",
        metavar="[REGISTRY=]HOST[:PORT]",
        help="A token server that may get the credentials of a registry, by default of every "
        "registry; write http://HOST for plain http; repeatable. Servers on the host and on the "
        "site of a registry are allowed without it.",
        show_default=False,
    ),
]
PrivateTargets = Annotated[
    bool,
    typer.Option(
        "--private-targets",
        help="Let registries redirect to addresses that are more private than their own.",
    ),
]
ExternalUrls = Annotated[
    bool,
    typer.Option(
        "--external-urls",
        help="Read layers that a registry must not distribute from the URLs that the image names.",
    ),
]
OpenTimeout = Annotated[
    float | None,
    typer.Option(
        "--open-timeout",
        metavar="SECONDS",
        min=0,
        help="The longest time to open one reference; 0 for no limit.",
        show_default=f"{Timeouts().open:g}",
    ),
]
StallTimeout = Annotated[
    float | None,
    typer.Option(
        "--stall-timeout",
        metavar="SECONDS",
        min=0,
        help="The longest wait for the next bytes of a body; 0 for no limit.",
        show_default=f"{Timeouts().stall:g}",
    ),
]
MinRate = Annotated[
    int | None,
    typer.Option(
        "--min-rate",
        metavar="BYTES",
        min=0,
        help="The fewest bytes per second of a body, on average; 0 for no limit.",
        show_default=str(Timeouts().min_rate),
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Cache what registries serve in this directory, an OCI layout.",
        show_default=False,
    ),
]
CacheSize = Annotated[
    str,
    typer.Option(
        "--cache-size", metavar="SIZE", help="The most bytes to keep in the cache, like 500MB."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Report every event on stderr.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Report errors only, without warnings and progress.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonOptions:
    """How registries are reached, and how the command reports. Every command takes these."""

    tls_verify: TlsVerify = None
    authfile: AuthFile = None
    creds: Creds = None
    registries_conf: RegistriesConf = None
    registries_conf_dir: RegistriesConfDir = None
    cert_dir: CertDir = None
    registries_d: RegistriesD = None
    token_server: TokenServers = None
    private_targets: PrivateTargets = False
    external_urls: ExternalUrls = False
    open_timeout: OpenTimeout = None
    stall_timeout: StallTimeout = None
    min_rate: MinRate = None
    as_json: AsJson = False
    verbose: Verbose = False
    quiet: Quiet = False

    @property
    def timeouts(self) -> Timeouts:
        """The timeouts of the library, with those that are given."""
        usual = Timeouts()
        return Timeouts(
            stall=usual.stall if self.stall_timeout is None else self.stall_timeout or None,
            min_rate=usual.min_rate if self.min_rate is None else self.min_rate,
            open=usual.open if self.open_timeout is None else self.open_timeout or None,
        )

    @property
    def token_servers(self) -> dict[str, tuple[str, ...]]:
        """Registry to the origins that may get its credentials; ``*`` for every registry.

        A host without a scheme is reached by https; with ``--no-tls-verify``, by http as well.

        Raises:
            typer.BadParameter: One of them is malformed.
        """
        from asupplemented.transports.registry.addresses import parse_origin

        found: dict[str, tuple[str, ...]] = {}
        for text in self.token_server or ():
            registry, _, place = text.rpartition("=")
            plain = self.tls_verify is False and "://" not in place
            origins = (place, f"http://{place}") if plain else (place,)
            try:
                parsed = [str(parse_origin(origin)) for origin in origins]
            except ValueError as error:
                message = f"a token server {error}"
                raise typer.BadParameter(message, param_hint="--token-server") from None
            found[registry or "*"] = (*found.get(registry or "*", ()), *parsed)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions(CommonOptions):
    """The arguments of a command on a group: references, and how to open and resolve them."""

    top: Top
    supplements: Supplements = None
    select: SelectOption = None
    instances: Instances = None
    platform: PlatformOption = None
    missing: MissingOption = Missing.RAISE
    unavailable: UnavailableOption = Unavailable.RAISE
    unknown: UnknownOption = Unknown.OPAQUE
    prefer_gzip: PreferGzip = False
    prefer: PreferOption = Prefer.MANIFEST
    lookahead: Lookahead = LOOKAHEAD
    cache: CacheOption = None
    cache_size: CacheSize = "10GiB"

    @property
    def texts(self) -> tuple[str, ...]:
        """All references as they were typed."""
        return (self.top, *(self.supplements or ()))

    def parse_group(self, *not_selecting: str) -> SupplementedReference:
        """The group that the arguments describe.

        Args:
            not_selecting: Options that do not select instances for this command. ``--instance``
                and ``--platform`` can also name the manifest to read.

        Raises:
            typer.BadParameter: An argument is malformed, or contradicts another one.
        """
        references = [_parse(self.top, "TOP", self)]
        references += [_parse(text, "SUPPLEMENT", self) for text in self.supplements or ()]
        return supplement(
            *references,
            selection=self._selection(not_selecting),
            missing=self.missing.value,
            unavailable=self.unavailable.value,
            unknown=self.unknown.value,
            prefer=self.prefer.value,
        )

    def parse_one(self, *not_selecting: str) -> SupplementedReference:
        """The group that the arguments describe, to look at one manifest of it.

        The other manifests need not be there.

        Args:
            not_selecting: See `parse_group`.

        Raises:
            typer.BadParameter: An argument is malformed, or contradicts another one.
        """
        group = self.parse_group(*not_selecting)
        return group if self.missing is not Missing.RAISE else group.with_options(missing="skip")

    def parse_instance(self) -> Digest | DigestPrefix | None:
        """The one manifest to read, None for the top's default one.

        Raises:
            typer.BadParameter: Several are given, or the digest is malformed.
        """
        if not self.instances:
            return None
        if len(self.instances) > 1:
            message = "this command reads one manifest, so --instance can be given once"
            raise typer.BadParameter(message, param_hint="--instance")
        return parse_abbreviated(self.instances[0], "--instance")

    def parse_platform(self) -> Platform | None:
        """The platform given, None for that of this host.

        Raises:
            typer.BadParameter: It is malformed.
        """
        return parse_platform(self.platform)

    def hints_for_unavailable(self) -> tuple[str, ...]:
        """What to do if a supplement cannot be opened: options that are not set."""
        if self.unavailable is not Unavailable.RAISE:
            return ()
        return ("go on without supplements that cannot be opened with --unavailable skip",)

    def hints_for_missing(self) -> tuple[str, ...]:
        """What to do if an instance is missing: options that are not set."""
        if self.missing is not Missing.RAISE:
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
        if specific and select is not Select.SPECIFIC:
            message = f"instances go with --select specific, not with --select {select}"
            raise typer.BadParameter(message, param_hint="--instance")
        if system and select is not Select.SYSTEM:
            message = f"a platform goes with --select system, not with --select {select}"
            raise typer.BadParameter(message, param_hint="--platform")
        match select:
            case Select.ALL:
                return AllImages()
            case Select.SYSTEM:
                return SystemImage(platform, self.prefer_gzip)
            case Select.SPECIFIC:
                texts = self.instances or ()
                return SpecificImages([parse_digest(text, "--instance") for text in texts])


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceOptions(CommonOptions):
    """The arguments of a command on one reference."""

    reference: ReferenceArgument

    @property
    def lookahead(self) -> int:
        """The default: these commands resolve no group."""
        return LOOKAHEAD

    @property
    def texts(self) -> tuple[str, ...]:
        """The reference as it was typed."""
        return (self.reference,)

    def hints_for_unavailable(self) -> tuple[str, ...]:
        """Nothing: these commands read one reference."""
        return ()

    def hints_for_missing(self) -> tuple[str, ...]:
        """Nothing: these commands have no option for that."""
        return ()

    def parse_reference(self) -> Reference:
        """The reference that was typed.

        Raises:
            typer.BadParameter: It is malformed.
        """
        return _parse(self.reference, "REFERENCE", self)


def _implied_select(*, specific: bool, system: bool) -> Select:
    """The value of ``--select`` that the other options imply."""
    if specific:
        return Select.SPECIFIC
    return Select.SYSTEM if system else Select.ALL


@contextmanager
def as_usage_error(hint: str) -> Generator[None]:
    """Turn errors of the library about an argument into usage errors.

    Args:
        hint: The argument as the help text names it.

    Raises:
        typer.BadParameter: The body raised a `SupplementedError`.
    """
    try:
        with in_options():
            yield
    except SupplementedError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error


def parse_digest(text: str, hint: str) -> Digest:
    """Parse a whole digest that was given as the argument `hint`.

    Raises:
        typer.BadParameter: It is malformed or abbreviated.
    """
    found = parse_abbreviated(text, hint)
    if isinstance(found, DigestPrefix):
        message = f"{text} is abbreviated; give the whole digest, as resolve --full prints it"
        raise typer.BadParameter(message, param_hint=hint)
    return found


def parse_creds(options: GroupOptions | ReferenceOptions) -> dict[str, Credential]:
    """The credential that ``--creds`` gives, under the registry of the first reference.

    Raises:
        typer.BadParameter: It is malformed, or the reference is not of one registry.
    """
    if options.creds is None:
        return {}
    user, colon, password = options.creds.partition(":")
    if not user or not colon:
        message = "it is not USER:PASSWORD; asupplemented login asks for the password"
        raise typer.BadParameter(message, param_hint="--creds")
    first = _parse(options.texts[0], "--creds", options)
    if not isinstance(first, RepositoryReference):
        message = f"{first} is not an image in one registry, so there is nothing to log in to"
        raise typer.BadParameter(message, param_hint="--creds")
    with as_usage_error("--creds"):
        return {first.repository.partition("/")[0]: Credential(user, password)}


def parse_platform(text: str | None) -> Platform | None:
    """Parse the argument of ``--platform``, None without it.

    Raises:
        typer.BadParameter: It is malformed.
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
        typer.BadParameter: It has one. The message does not show the password.
    """
    name = text.removeprefix("docker://")
    host, slash, path = name.partition("/")
    if "@" in host and slash and not text.startswith(("oci:", "dir:")):
        registry = host.rpartition("@")[2]
        message = (
            f"a reference holds no user and password; write docker://{registry}/{path}, and log in "
            f"with asupplemented login {registry}, or give --creds USER:PASSWORD"
        )
        raise typer.BadParameter(message, param_hint=hint)
    if text.startswith(("docker://https://", "docker://http://")):
        rest = name.partition("://")[2]
        message = f"a reference holds no URL; write docker://{rest}"
        if name.startswith("http://"):
            message += ", with --no-tls-verify for plain http"
        raise typer.BadParameter(message, param_hint=hint)


def with_group(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments of a group; it is called with `GroupOptions`."""
    return expand_options(GroupOptions, command)


def with_reference(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments of one reference; it is called with `ReferenceOptions`."""
    return expand_options(ReferenceOptions, command)


def expand_options(kind: type[Any], command: Callable[..., None]) -> Callable[..., None]:
    """Replace the first parameter of a command, an options value, by one parameter for each field.

    typer reads the signature of what it runs. So the result has a signature in which the fields
    come first, those of `CommonOptions` last of them, and then the command's own parameters.
    """
    common = {each.name for each in fields(CommonOptions)}
    hints = get_type_hints(kind, include_extras=True)
    shared = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in sorted(fields(kind), key=lambda each: each.name in common)
    ]
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]

    @functools.wraps(command)
    def run(**given: Any) -> None:  # noqa: ANN401 - typed by the signature below
        options = kind(**{each.name: given.pop(each.name) for each in shared})
        command(options, **given)

    parameters = [*shared, *own]
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
