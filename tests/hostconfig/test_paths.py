"""Where files are looked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asupplemented.hostconfig.paths import ConfigurationPaths

HOME = Path("/home/ada")
ROOT = Path("/srv/image")


def test_without_arguments_nothing_is_looked_for() -> None:
    paths = ConfigurationPaths()
    assert paths.user_path("registries.conf") is None
    assert paths.system_path("registries.conf") is None
    assert paths.recorded_short_names is None
    assert paths.signatures is None


def test_the_environment_is_the_one_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/eve")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/eve/cache")
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", "/home/eve/registries.conf")
    assert ConfigurationPaths.default({}) == ConfigurationPaths(
        root=Path("/"), superuser=os.geteuid() == 0, uid=os.geteuid()
    )


def test_the_root_is_put_before_system_paths_and_never_before_home() -> None:
    paths = ConfigurationPaths.default({}, HOME, root=ROOT, superuser=False)
    assert paths.system_path("certs.d") == ROOT / "etc/containers/certs.d"
    assert paths.system_path("certs.d", "docker") == ROOT / "etc/docker/certs.d"
    assert paths.user_path("certs.d") == HOME / ".config/containers/certs.d"


def test_home_is_that_of_the_environment_unless_given() -> None:
    environ = {"HOME": "/home/eve"}
    assert ConfigurationPaths.default(environ).home == Path("/home/eve")
    assert ConfigurationPaths.default(environ, HOME).home == HOME


@pytest.mark.parametrize("text", ["", "cache", "./cache"])
def test_a_relative_directory_of_the_environment_means_nothing(text: str) -> None:
    assert ConfigurationPaths.default({"HOME": text}).home is None
    environ = {"HOME": str(HOME), "XDG_CACHE_HOME": text}
    assert ConfigurationPaths.default(environ).cache == HOME / ".cache"


def test_CONF01_the_main_file_can_be_named_in_the_environment() -> None:
    environ = {"CONTAINERS_REGISTRIES_CONF": "mine.conf"}
    assert ConfigurationPaths.default(environ).registries == Path("mine.conf")
    assert ConfigurationPaths.default({"CONTAINERS_REGISTRIES_CONF": ""}).registries is None


def test_SHORT01_recorded_aliases_of_root_and_of_users() -> None:
    environ = {"HOME": str(HOME), "XDG_CACHE_HOME": "/scratch/ada"}
    of_root = ConfigurationPaths.default(environ, root=ROOT, superuser=True)
    of_user = ConfigurationPaths.default(environ, root=ROOT, superuser=False)
    name = "containers/short-name-aliases.conf"
    assert of_root.recorded_short_names == ROOT / "var/cache" / name
    assert of_user.recorded_short_names == Path("/scratch/ada") / name
    given = ConfigurationPaths(short_names=Path("mine.conf"), cache=HOME)
    assert given.recorded_short_names == Path("mine.conf")


def test_SIG05_signatures_of_root_and_of_users() -> None:
    of_root = ConfigurationPaths.default({}, HOME, root=ROOT, superuser=True)
    of_user = ConfigurationPaths.default({}, HOME, root=ROOT, superuser=False)
    assert of_root.signatures == ROOT / "var/lib/containers/sigstore"
    assert of_user.signatures == HOME / ".local/share/containers/sigstore"


@pytest.mark.parametrize(("text", "superuser"), [("0", True), ("1000", False)])
def test_who_is_root_within_a_namespace_says_who_it_is(text: str, *, superuser: bool) -> None:
    environ = {"_CONTAINERS_ROOTLESS_UID": text}
    assert ConfigurationPaths.default(environ).superuser is superuser
