"""Short names, and what they may mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import ConfigurationError, InvalidReferenceError
from asupplemented.hostconfig.registries import Registries
from asupplemented.hostconfig.registries_conf import (
    load_aliases,
    parse_aliases,
)
from asupplemented.hostconfig.short_names import (
    is_short_name,
    resolve_short_name,
)
from asupplemented.model.name import ImageName
from tests.hostconfig.machine import write

if TYPE_CHECKING:
    from pathlib import Path

    from asupplemented.hostconfig.registries_conf import ShortNameMode

DIGEST = f"sha256:{'ab' * 32}"
ALIASES = {
    "fedora": ImageName("registry.fedoraproject.org", "fedora"),
    "team/app": ImageName("quay.io", "team/app"),
}


def make(*search: str, mode: ShortNameMode = "permissive") -> Registries:
    return Registries(search=search, short_name_mode=mode, aliases=ALIASES)


def resolve(text: str, registries: Registries) -> list[str]:
    return [str(name) for name in resolve_short_name(text, registries)]


@pytest.mark.parametrize("text", ["busybox", "busybox:1", "a/b/c", f"a@{DIGEST}", "test.com:5000"])
def test_SHORT01_a_name_without_a_registry_is_short(text: str) -> None:
    assert is_short_name(text)


@pytest.mark.parametrize("text", ["quay.io/a", "localhost/a", "a:5000/b", f"a.b/c@{DIGEST}"])
def test_SHORT01_a_name_with_a_registry_is_not(text: str) -> None:
    assert not is_short_name(text)
    assert resolve(text, make("search.com")) == [str(ImageName.parse(text))]


def test_SHORT01_a_full_name_is_completed_as_ever() -> None:
    assert resolve("docker.io/busybox", make()) == ["docker.io/library/busybox:latest"]


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("fedora", "registry.fedoraproject.org/fedora:latest"),
        ("fedora:40", "registry.fedoraproject.org/fedora:40"),
        (f"fedora@{DIGEST}", f"registry.fedoraproject.org/fedora@{DIGEST}"),
        (f"fedora:40@{DIGEST}", f"registry.fedoraproject.org/fedora:40@{DIGEST}"),
        ("team/app", "quay.io/team/app:latest"),
    ],
)
@pytest.mark.parametrize("mode", ["permissive", "enforcing", "disabled"])
def test_SHORT01_an_alias_settles_the_matter(text: str, full: str, mode: ShortNameMode) -> None:
    assert resolve(text, make("a.com", "b.com", mode=mode)) == [full]


def test_SHORT01_a_recorded_alias_comes_first_and_may_hide_one() -> None:
    registries = make("search.com")
    recorded = {"fedora": ImageName("mine.com", "fedora"), "team/app": None}
    assert resolve_short_name("fedora", registries, recorded) == (
        ImageName("mine.com", "fedora", "latest"),
    )
    assert resolve_short_name("team/app", registries, recorded) == (
        ImageName("search.com", "team/app", "latest"),
    )


@pytest.mark.parametrize("mode", ["permissive", "disabled"])
def test_SHORT01_without_an_alias_every_registry_of_the_search_is_tried(
    mode: ShortNameMode,
) -> None:
    registries = make("quay.io", "docker.io", "localhost:5000", mode=mode)
    assert resolve("busybox:1", registries) == [
        "quay.io/busybox:1",
        "docker.io/library/busybox:1",
        "localhost:5000/busybox:1",
    ]


def test_SHORT01_enforcing_refuses_to_choose() -> None:
    with pytest.raises(ConfigurationError, match=r"a\.com/x, b\.com/x.*add the registry"):
        resolve("x", make("a.com", "b.com", mode="enforcing"))
    assert resolve("x", make("a.com", mode="enforcing")) == ["a.com/x:latest"]


def test_SHORT01_without_alias_and_search_there_is_no_guess() -> None:
    with pytest.raises(ConfigurationError, match="unqualified-search-registries") as caught:
        resolve("busybox", make())
    assert caught.value.reference == "busybox"


@pytest.mark.parametrize("text", ["", "Busybox", "a..b", "x:", "x@sha256:1", "ab" * 32])
def test_SHORT01_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidReferenceError):
        resolve(text, make("a.com"))


async def test_SHORT01_recorded_aliases_are_read_from_their_file(tmp_path: Path) -> None:
    path = write(
        tmp_path / "short-name-aliases.conf",
        '[aliases]\n"fedora" = "mine.com:5000/fedora"\n"busybox" = "docker.io/busybox"\n"a/b" = ""',
    )
    assert await load_aliases(path) == {
        "fedora": ImageName("mine.com:5000", "fedora"),
        "busybox": ImageName("docker.io", "library/busybox"),
        "a/b": None,
    }
    assert await load_aliases(tmp_path / "nowhere.conf") == {}
    assert await load_aliases(None) == {}


async def test_SHORT01_a_broken_file_of_aliases_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "aliases.conf", "[aliases]\nfedora = 1")
    with pytest.raises(ConfigurationError, match=r"aliases\.conf: Expected `str`"):
        await load_aliases(path)


@pytest.mark.parametrize(
    ("short", "full", "fault"),
    [
        ("a.com/x", "b.com/x", "a short name has no registry"),
        ("localhost/x", "b.com/x", "a short name has no registry"),
        ("x:1", "b.com/x", "a short name has neither tag nor digest"),
        (f"x@{DIGEST}", "b.com/x", "a short name has neither tag nor digest"),
        ("X", "b.com/x", "lowercase"),
        ("", "b.com/x", "invalid reference format"),
        ("x", "x", "begins with a registry"),
        ("x", "library/x", "begins with a registry"),
        ("x", "b.com/x:1", "without tag or digest"),
        ("x", "b.com/x:latest", "without tag or digest"),
        ("x", f"b.com/x@{DIGEST}", "without tag or digest"),
        ("x", "b.com/X", "lowercase"),
        ("x", "b.com/", "invalid reference format"),
    ],
)
def test_SHORT01_aliases_lead_from_short_names_to_repositories(
    tmp_path: Path, short: str, full: str, fault: str
) -> None:
    path = tmp_path / "a.conf"
    with pytest.raises(ConfigurationError, match=fault) as caught:
        parse_aliases({short: full}, path)
    assert str(path) in caught.value.message


def test_SHORT01_several_faults_are_told_at_once_but_not_endlessly(tmp_path: Path) -> None:
    table = {f"X{number}": "b.com/x" for number in range(1000)}
    with pytest.raises(ConfigurationError, match="and 995 more") as caught:
        parse_aliases(table, tmp_path / "a.conf")
    assert "X0" in caught.value.message
    assert "X4" in caught.value.message
    assert len(caught.value.message) < 1000
