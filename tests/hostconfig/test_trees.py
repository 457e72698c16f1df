"""Trees of configuration files, and which of them are read: CONF-01, CONF-02, TLS-01, SIG-04.

Each tree is a row of a table. A path begins with a word that stands for a directory for
containers: ``etc``, ``usr``, ``home`` or ``xdg``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.hostconfig.certificates import find_directory
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.hostconfig.registries import Registries
from asupplemented.hostconfig.registries_d import Lookaside
from tests.hostconfig.machine import write

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOST = "registry.example:5000"
ROOT_USER, USER = 0, 1000
WORDS = {
    "etc": "root/etc/containers",
    "usr": "root/usr/share/containers",
    "home": "home/.config/containers",
    "xdg": "xdg/containers",
    "docker": "root/etc/docker",
}


@dataclass(frozen=True)
class Tree:
    """Files, variables and a user."""

    base: Path
    variables: Mapping[str, str]
    uid: int

    @property
    def paths(self) -> ConfigurationPaths:
        environ = {name: str(self.base / value) for name, value in self.variables.items()}
        environ |= {"HOME": str(self.base / "home"), "_CONTAINERS_ROOTLESS_UID": str(self.uid)}
        return ConfigurationPaths.default(environ, root=self.base / "root")

    def locate(self, names: str) -> list[Path]:
        """The paths of some names."""
        parts = [name.partition("/") for name in names.split()]
        return [self.base / WORDS.get(word, word) / rest for word, _, rest in parts]

    def write(self, names: str, text: str = "") -> None:
        for number, path in enumerate(self.locate(names)):
            write(path, text.format(number))


IN_XDG = {"XDG_CONFIG_HOME": "xdg"}
NAMED = {"CONTAINERS_REGISTRIES_CONF": "named.conf"}
OVERRIDDEN = {"CONTAINERS_REGISTRIES_CONF_OVERRIDE": "over.conf"}

REGISTRIES = [
    pytest.param("", {}, USER, "", id="CONF-01 nothing"),
    pytest.param(
        "usr/registries.conf",
        {},
        USER,
        "usr/registries.conf",
        id="CONF-01 what the distribution ships",
    ),
    pytest.param(
        "usr/registries.conf etc/registries.conf",
        {},
        USER,
        "etc/registries.conf",
        id="CONF-01 the system's",
    ),
    pytest.param(
        "usr/registries.conf etc/registries.conf home/registries.conf",
        {},
        USER,
        "home/registries.conf",
        id="CONF-01 the user's",
    ),
    pytest.param(
        "etc/registries.conf home/registries.conf",
        {},
        ROOT_USER,
        "home/registries.conf",
        id="CONF-01 root has a home too",
    ),
    pytest.param(
        "xdg/registries.conf home/registries.conf",
        IN_XDG,
        USER,
        "xdg/registries.conf",
        id="CONF-01 XDG_CONFIG_HOME",
    ),
    pytest.param(
        "etc/registries.conf home/registries.conf",
        IN_XDG,
        USER,
        "etc/registries.conf",
        id="CONF-01 XDG_CONFIG_HOME without a file",
    ),
    pytest.param(
        "named.conf home/registries.conf etc/registries.conf.d/a.conf"
        " home/registries.conf.d/b.conf",
        NAMED,
        USER,
        "named.conf",
        id="CONF-01 a variable leaves drop-ins out",
    ),
    pytest.param("", NAMED, USER, None, id="CONF-01 a variable names a missing file"),
    pytest.param(
        "home/registries.conf etc/registries.conf.d/a.conf home/registries.conf.d/b.conf"
        " usr/registries.conf.d/c.conf",
        {},
        USER,
        "home/registries.conf etc/registries.conf.d/a.conf home/registries.conf.d/b.conf"
        " usr/registries.conf.d/c.conf",
        id="CONF-02 drop-ins of the system beside the user's main file",
    ),
    pytest.param(
        "home/registries.conf.d/10.conf etc/registries.conf.d/20.conf"
        " usr/registries.conf.d/30.conf etc/registries.conf.d/05.conf",
        {},
        USER,
        "etc/registries.conf.d/05.conf home/registries.conf.d/10.conf"
        " etc/registries.conf.d/20.conf usr/registries.conf.d/30.conf",
        id="CONF-02 the order is that of file names",
    ),
    pytest.param(
        "usr/registries.conf.d/a.conf etc/registries.conf.d/a.conf home/registries.conf.d/a.conf",
        {},
        USER,
        "home/registries.conf.d/a.conf",
        id="CONF-02 one of equal names, the user's",
    ),
    pytest.param(
        "usr/registries.conf.d/a.conf etc/registries.conf.d/a.conf",
        {},
        USER,
        "etc/registries.conf.d/a.conf",
        id="CONF-02 one of equal names, the system's",
    ),
    pytest.param(
        "etc/registries.conf.d/a.conf usr/registries.rootless.conf.d/a.conf",
        {},
        USER,
        "etc/registries.conf.d/a.conf",
        id="CONF-02 all of the system is above all of the distribution",
    ),
    pytest.param(
        "etc/registries.conf.d/a.conf etc/registries.rootful.conf.d/a.conf"
        " etc/registries.rootless.conf.d/a.conf",
        {},
        ROOT_USER,
        "etc/registries.rootful.conf.d/a.conf",
        id="CONF-02 rootful",
    ),
    pytest.param(
        "etc/registries.rootful.conf.d/a.conf etc/registries.rootless.conf.d/b.conf"
        " etc/registries.rootless.conf.d/1000/c.conf"
        " etc/registries.rootless.conf.d/1001/d.conf home/registries.rootless.conf.d/e.conf",
        {},
        USER,
        "etc/registries.rootless.conf.d/b.conf etc/registries.rootless.conf.d/1000/c.conf",
        id="CONF-02 rootless, and of one user",
    ),
    pytest.param(
        "etc/registries.rootless.conf.d/a.conf etc/registries.rootless.conf.d/1000/a.conf",
        {},
        USER,
        "etc/registries.rootless.conf.d/1000/a.conf",
        id="CONF-02 of one user above rootless",
    ),
    pytest.param(
        "etc/registries.rootless.conf.d/0/a.conf usr/registries.rootful.conf.d/b.conf",
        {},
        ROOT_USER,
        "usr/registries.rootful.conf.d/b.conf",
        id="CONF-02 rootful of the distribution",
    ),
    pytest.param(
        "xdg/registries.conf.d/a.conf home/registries.conf.d/b.conf",
        IN_XDG,
        USER,
        "xdg/registries.conf.d/a.conf",
        id="CONF-02 drop-ins in XDG_CONFIG_HOME",
    ),
    pytest.param(
        "etc/registries.conf over.conf home/registries.conf.d/zz.conf",
        OVERRIDDEN,
        USER,
        "etc/registries.conf home/registries.conf.d/zz.conf over.conf",
        id="CONF-02 the override is last",
    ),
    pytest.param(
        "named.conf over.conf home/registries.conf.d/a.conf",
        NAMED | OVERRIDDEN,
        USER,
        "named.conf over.conf",
        id="CONF-02 the override of a named file",
    ),
    pytest.param("etc/registries.conf", OVERRIDDEN, USER, None, id="CONF-02 a missing override"),
]


@pytest.mark.parametrize(("files", "variables", "uid", "expected"), REGISTRIES)
async def test_CONF02_the_files_of_registries_conf(
    files: str, variables: dict[str, str], uid: int, expected: str | None, tmp_path: Path
) -> None:
    tree = Tree(tmp_path, variables, uid)
    tree.write(files, "unqualified-search-registries = ['r{}.example']")
    if expected is None:
        with pytest.raises(ConfigurationError, match="there is no file"):
            await Registries.load(tree.paths)
        return
    registries = await Registries.load(tree.paths)
    assert list(registries.files) == tree.locate(expected)
    last = [f"r{files.split().index(name)}.example" for name in expected.split()[-1:]]
    assert list(registries.search) == last


async def test_CONF02_a_directory_that_is_given_stands_alone(tmp_path: Path) -> None:
    tree = Tree(tmp_path, OVERRIDDEN, USER)
    tree.write("home/registries.conf etc/registries.conf.d/a.conf over.conf mine/b.conf")
    paths = replace(tree.paths, registries_directory=tmp_path / "mine")
    found = (await Registries.load(paths)).files
    assert list(found) == tree.locate("home/registries.conf mine/b.conf")


async def test_CONF01_drop_ins_are_read_beside_a_file_that_the_caller_gives(tmp_path: Path) -> None:
    tree = Tree(tmp_path, {}, USER)
    tree.write("mine.conf home/registries.conf etc/registries.conf.d/a.conf")
    paths = replace(tree.paths, registries=tmp_path / "mine.conf")
    found = (await Registries.load(paths)).files
    assert list(found) == tree.locate("mine.conf etc/registries.conf.d/a.conf")


CERTIFICATES = [
    pytest.param("", {}, None, id="TLS-01 nothing"),
    pytest.param("docker", {}, "docker", id="TLS-01 docker's"),
    pytest.param("docker usr", {}, "usr", id="TLS-01 the distribution's"),
    pytest.param("docker usr etc", {}, "etc", id="TLS-01 the system's"),
    pytest.param("docker usr etc home", {}, "home", id="TLS-01 the user's"),
    pytest.param("etc home xdg", IN_XDG, "xdg", id="TLS-01 XDG_CONFIG_HOME"),
    pytest.param("etc home", IN_XDG, "etc", id="TLS-01 XDG_CONFIG_HOME without a directory"),
]


@pytest.mark.parametrize(("roots", "variables", "expected"), CERTIFICATES)
async def test_TLS01_the_directory_of_certificates(
    roots: str, variables: dict[str, str], expected: str | None, tmp_path: Path
) -> None:
    tree = Tree(tmp_path, variables, USER)
    tree.write(" ".join(f"{root}/certs.d/{HOST}/ca.crt" for root in roots.split()))
    wanted = None if expected is None else tree.locate(f"{expected}/certs.d/{HOST}")[0]
    assert await find_directory(HOST, tree.paths) == wanted


LOOKASIDE = [
    pytest.param("", {}, USER, "", id="SIG-04 nothing"),
    pytest.param(
        "usr/registries.d/a.yaml etc/registries.d/b.yaml home/registries.d/c.yaml",
        {},
        USER,
        "usr/registries.d/a.yaml etc/registries.d/b.yaml home/registries.d/c.yaml",
        id="SIG-04 they merge",
    ),
    pytest.param(
        "usr/registries.d/a.yaml etc/registries.d/a.yaml home/registries.d/a.yaml",
        {},
        USER,
        "home/registries.d/a.yaml",
        id="SIG-04 one of equal names",
    ),
    pytest.param(
        "etc/registries.rootful.d/a.yaml etc/registries.rootless.d/b.yaml"
        " etc/registries.rootless.d/1000/c.yaml",
        {},
        USER,
        "etc/registries.rootless.d/b.yaml etc/registries.rootless.d/1000/c.yaml",
        id="SIG-04 rootless",
    ),
    pytest.param(
        "etc/registries.rootful.d/a.yaml etc/registries.rootless.d/b.yaml",
        {},
        ROOT_USER,
        "etc/registries.rootful.d/a.yaml",
        id="SIG-04 rootful",
    ),
    pytest.param(
        "xdg/registries.d/a.yaml home/registries.d/b.yaml",
        IN_XDG,
        USER,
        "xdg/registries.d/a.yaml",
        id="SIG-04 XDG_CONFIG_HOME",
    ),
]


@pytest.mark.parametrize(("files", "variables", "uid", "expected"), LOOKASIDE)
async def test_SIG04_the_files_of_registries_d(
    files: str, variables: dict[str, str], uid: int, expected: str, tmp_path: Path
) -> None:
    tree = Tree(tmp_path, variables, uid)
    tree.write(files, "docker:\n  r{}.example:\n    lookaside: https://s.example\n")
    found = (await Lookaside.load(tree.paths)).sections.values()
    assert {section.origin for section in found} == set(tree.locate(expected))
