"""The arguments that every command takes, and the group of references that they make."""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from asupplemented.cli.names import find_named
from asupplemented.errors import InvalidReferenceError, SupplementedError
from asupplemented.model.digest import Digest
from asupplemented.model.index import AllImages, SpecificImages, SystemImage
from asupplemented.model.platform import Platform
from asupplemented.session import LOOKAHEAD
from asupplemented.supplemented import supplement
from asupplemented.transports import parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Generator

    from asupplemented.abc import Reference
    from asupplemented.cli.names import FilesNamed
    from asupplemented.model.index import Selection
    from asupplemented.supplemented import SupplementedReference

__all__ = (
    "GroupOptions",
    "Missing",
    "PlaceOptions",
    "Prefer",
    "Select",
    "Unavailable",
    "as_usage_error",
    "parse_digest",
    "with_group",
    "with_place",
)


class Select(StrEnum):
    """What is taken from each list."""

    ALL = "all"
    SYSTEM = "system"
    SPECIFIC = "specific"


class Missing(StrEnum):
    """What happens to an instance that its member does not hold."""

    RAISE = "raise"
    FALLBACK = "fallback"
    SKIP = "skip"


class Unavailable(StrEnum):
    """What happens to a supplement that cannot be opened."""

    RAISE = "raise"
    SKIP = "skip"


class Prefer(StrEnum):
    """Which member is asked first for a blob."""

    MANIFEST = "manifest"
    SUPPLEMENTS = "supplements"


Top = Annotated[
    str,
    typer.Argument(
        metavar="TOP",
        help="The image: docker://NAME, oci:PATH[:IMAGE] or dir:PATH; "
        "a NAME alone is looked for as registries.conf says.",
    ),
]
Place = Annotated[
    str,
    typer.Argument(metavar="REFERENCE", help="docker://NAME, oci:PATH[:IMAGE] or dir:PATH."),
]
Supplements = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SUPPLEMENT",
        help="More places to take from, each preferred over the top.",
        show_default=False,
    ),
]
SelectOption = Annotated[
    Select | None,
    typer.Option(
        "--select",
        help="What to take from each list; all, unless --instance or --platform says otherwise.",
        show_default=False,
    ),
]
Instances = Annotated[
    list[str] | None,
    typer.Option(
        "--instance",
        metavar="DIGEST",
        help="An instance to take (with --select specific, which it implies); repeatable.",
        show_default=False,
    ),
]
PlatformOption = Annotated[
    str | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH[/VARIANT]",
        help="The platform to take (with --select system, which it implies); else this host's.",
        show_default=False,
    ),
]
MissingOption = Annotated[
    Missing,
    typer.Option(
        "--missing",
        help="What to do when a member lacks an instance that it lists.",
    ),
]
UnavailableOption = Annotated[
    Unavailable,
    typer.Option(
        "--unavailable",
        help="What to do when a supplement cannot be opened.",
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
        help="Manifests to fetch ahead; 0 fetches one after another.",
    ),
]
TlsVerify = Annotated[
    bool | None,
    typer.Option(
        "--tls-verify/--no-tls-verify",
        help="--no-tls-verify allows plain http and unverified TLS for every registry, "
        "--tls-verify for none; else registries.conf says for which.",
        show_default=False,
    ),
]
AuthFile = Annotated[
    Path | None,
    typer.Option(
        "--authfile",
        metavar="FILE",
        help="Who we are to registries: an auth.json or config.json, read alone. By default "
        "$REGISTRY_AUTH_FILE or $DOCKER_CONFIG, else where podman, skopeo and docker log in.",
    ),
]
RegistriesConf = Annotated[
    Path | None,
    typer.Option(
        "--registries-conf",
        metavar="FILE",
        help="Mirrors and short names, in place of the registries.conf of user or system.",
        show_default=False,
    ),
]
RegistriesConfDir = Annotated[
    Path | None,
    typer.Option(
        "--registries-conf-dir",
        metavar="DIR",
        help="Its drop-ins, in place of those of user and system.",
        show_default=False,
    ),
]
CertDir = Annotated[
    Path | None,
    typer.Option(
        "--cert-dir",
        metavar="DIR",
        help="Certificates (*.crt, *.cert, *.key) for every registry, in place of certs.d.",
        show_default=False,
    ),
]
RegistriesD = Annotated[
    Path | None,
    typer.Option(
        "--registries.d",
        metavar="DIR",
        help="Where signatures lie, in place of the registries.d of user or system.",
        show_default=False,
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Keep what registries give in this directory, an OCI layout, and read from there.",
        show_default=False,
    ),
]
CacheSize = Annotated[
    str,
    typer.Option(
        "--cache-size", metavar="SIZE", help="The most that the cache may hold, like 500MB."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Tell on stderr what happens.")]


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """What every command is given: references, and how to open and resolve them."""

    top: Top
    supplements: Supplements = None
    select: SelectOption = None
    instances: Instances = None
    platform: PlatformOption = None
    missing: MissingOption = Missing.RAISE
    unavailable: UnavailableOption = Unavailable.RAISE
    prefer: PreferOption = Prefer.MANIFEST
    lookahead: Lookahead = LOOKAHEAD
    tls_verify: TlsVerify = None
    authfile: AuthFile = None
    registries_conf: RegistriesConf = None
    registries_conf_dir: RegistriesConfDir = None
    cert_dir: CertDir = None
    registries_d: RegistriesD = None
    cache: CacheOption = None
    cache_size: CacheSize = "10GiB"
    as_json: AsJson = False
    verbose: Verbose = False

    @property
    def texts(self) -> tuple[str, ...]:
        """All references, as they were typed."""
        return (self.top, *(self.supplements or ()))

    def group(self, *own: str) -> SupplementedReference:
        """The group that the arguments describe.

        Args:
            own: Options that mean something else to this command than what to select:
                ``--instance`` and ``--platform`` can also say what to look at.

        Raises:
            typer.BadParameter: An argument is malformed, or contradicts another one.
        """
        references = [_parse(self.top, "TOP", self)]
        references += [_parse(text, "SUPPLEMENT", self) for text in self.supplements or ()]
        return supplement(
            *references,
            selection=self._selection(own),
            missing=self.missing.value,
            unavailable=self.unavailable.value,
            prefer=self.prefer.value,
        )

    def looked_at(self) -> Digest | None:
        """The one manifest to look at, None for the top's default one.

        Raises:
            typer.BadParameter: More than one is named, or the digest is malformed.
        """
        if not self.instances:
            return None
        if len(self.instances) > 1:
            message = "this command looks at one manifest, so --instance can be given once"
            raise typer.BadParameter(message, param_hint="--instance")
        return parse_digest(self.instances[0], "--instance")

    def wanted_platform(self) -> Platform | None:
        """The platform given, None for the host's.

        Raises:
            typer.BadParameter: It is malformed.
        """
        if self.platform is None:
            return None
        with as_usage_error("--platform"):
            return Platform.parse(self.platform)

    def _selection(self, own: Container[str]) -> Selection:
        digests = [parse_digest(text, "--instance") for text in self.instances or ()]
        platform = self.wanted_platform()
        specific = bool(digests) and "--instance" not in own
        system = platform is not None and "--platform" not in own
        select = self.select or _implied(specific=specific, system=system)
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
                return SystemImage(platform)
            case Select.SPECIFIC:
                return SpecificImages(digests)


@dataclass(frozen=True, slots=True)
class PlaceOptions:
    """What a command about one place is given."""

    reference: Place
    tls_verify: TlsVerify = None
    authfile: AuthFile = None
    registries_conf: RegistriesConf = None
    registries_conf_dir: RegistriesConfDir = None
    cert_dir: CertDir = None
    registries_d: RegistriesD = None
    as_json: AsJson = False
    verbose: Verbose = False

    @property
    def lookahead(self) -> int:
        """As usual: nothing is resolved."""
        return LOOKAHEAD

    @property
    def texts(self) -> tuple[str, ...]:
        """The reference, as it was typed."""
        return (self.reference,)

    def place(self) -> Reference:
        """The reference.

        Raises:
            typer.BadParameter: It is malformed.
        """
        return _parse(self.reference, "REFERENCE", self)


def _implied(*, specific: bool, system: bool) -> Select:
    """What to select if nobody says."""
    if specific:
        return Select.SPECIFIC
    return Select.SYSTEM if system else Select.ALL


@contextmanager
def as_usage_error(hint: str) -> Generator[None]:
    """Let what the library finds wrong with an argument leave as an error of usage.

    Args:
        hint: The argument, as the user knows it.
    """
    try:
        yield
    except SupplementedError as error:
        raise typer.BadParameter(str(error), param_hint=hint) from error


def parse_digest(text: str, hint: str) -> Digest:
    """Read a digest that was given as the argument `hint`.

    Raises:
        typer.BadParameter: It is malformed.
    """
    with as_usage_error(hint):
        return Digest(text)


def _parse(text: str, hint: str, named: FilesNamed) -> Reference:
    """Read a reference, or a name without a transport."""
    with as_usage_error(hint):
        try:
            return parse_reference(text)
        except InvalidReferenceError:
            found = find_named(text, named)
            if found is None:
                raise
            return found


def with_group(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments that make a group; it is called with `GroupOptions`."""
    return _spread(GroupOptions, command)


def with_place(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments about one place; it is called with `PlaceOptions`."""
    return _spread(PlaceOptions, command)


def _spread(
    kind: type[GroupOptions | PlaceOptions], command: Callable[..., None]
) -> Callable[..., None]:
    """Spread the fields of options over the parameters of a command.

    The command line library reads the signature of what it runs, so the result has one in which
    the fields stand before the command's own parameters.
    """
    hints = get_type_hints(kind, include_extras=True)
    shared = [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(kind)
    ]
    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]

    @functools.wraps(command)
    def run(**given: Any) -> None:  # noqa: ANN401 - typed by the signature that is set below
        options = kind(**{each.name: given.pop(each.name) for each in shared})
        command(options, **given)

    parameters = [*shared, *own]
    run.__dict__["__signature__"] = inspect.Signature(parameters)
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
