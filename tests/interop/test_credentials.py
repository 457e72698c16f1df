"""Who logged in with skopeo is logged in here: its files and helpers, read as it reads them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

import asupplemented as asup
from asupplemented.credentials import AuthFileCredentials
from tests.credentials.keepers import Shelf, encode, entry, write_json
from tests.interop.programs import Home, ProgramError, run
from tests.interop.reading import read_reference
from tests.interop.servers import run_registry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.busybox import Family
    from tests.interop.programs import Skopeo
    from tests.interop.servers import Account, Registry

NAME = "told/app:1"

NAMES = (
    *("quay.io", "quay.io/a", "quay.io/a/b", "quay.io/a/b/c", "quay.io/ab", "Quay.io/a"),
    *("docker.io", "docker.io/library/busybox", "index.docker.io", "registry-1.docker.io/a/b"),
    *("localhost", "localhost:5000", "localhost:5000/a/b", "ghcr.io/a", "nobody.example/a"),
)

DOCUMENTS: dict[str, Any] = {
    "hosts and namespaces": {
        "auths": {
            "quay.io/a/b": entry("deep:x"),
            "quay.io/a": entry("a:x"),
            "quay.io": entry("host:x"),
            "localhost:5000": entry("port:x"),
            "docker.io/library": entry("library:x"),
        }
    },
    "URLs": {
        "auths": {
            "https://quay.io/v1/": entry("url:x"),
            "http://localhost:5000": entry("plain:x"),
            "https://index.docker.io/v1/": entry("hub:x"),
            "ghcr.io/": entry("slash:x"),
        }
    },
    "another name of Docker Hub": {"auths": {"registry-1.docker.io": entry("hub:x")}},
    "entries that say nothing": {
        "auths": {
            "quay.io/a": {},
            "quay.io": entry("host:x"),
            "docker.io": {"auth": encode("no colon")},
            "ghcr.io": {"username": "user", "password": "x"},
        },
        "credsStore": "users",
    },
    "helpers": {
        "auths": {"quay.io/a": entry("file:x"), "ghcr.io": entry("file:x")},
        "credHelpers": {"quay.io": "users", "ghcr.io": "nothing", "localhost": "fails"},
    },
    "no JSON": '{"auths": ',
    "no text": "",
    "no base64": {"auths": {"quay.io": {"auth": "dXNlcjp4="}}},
}


class Logins:
    """What skopeo and we make of the same home directory.

    Attributes:
        environ: Of both.
    """

    def __init__(self, root: Path) -> None:
        shelf = Shelf(root / "shelf")
        shelf.add_user("users", "helper")
        shelf.add_answer("nothing", "credentials not found in native keychain", status=1)
        shelf.add_answer("fails", "the keychain is locked", status=1)
        path = os.pathsep.join([str(shelf.bin), os.environ.get("PATH", os.defpath)])
        home = Home.make(root / "home")
        self.environ = {**home.environment, "SHELF": str(shelf.root), "PATH": path}

    def ask_skopeo(self, name: str, *options: str) -> str | None:
        """The user that skopeo is logged in as: "" for nobody, None for an error."""
        try:
            return (
                run("skopeo", "login", "--get-login", *options, name, environment=self.environ)
                .decode()
                .strip()
            )
        except ProgramError as error:
            return "" if "not logged into" in str(error) else None

    async def ask_us(self, name: str, path: Path | None = None) -> str | None:
        """The same of us."""
        try:
            found = await AuthFileCredentials(path, environ=self.environ)(name)
        except asup.SupplementedError:
            return None
        return "" if found is None else found.username


@pytest.fixture
def logins(tmp_path: Path) -> Logins:
    return Logins(tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=list(DOCUMENTS))
async def test_FILE05_FILE08_FILE11_skopeo_finds_the_same_user(
    logins: Logins, tmp_path: Path, document: Any
) -> None:
    path = tmp_path / "auth.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    theirs = {name: logins.ask_skopeo(name, f"--authfile={path}") for name in NAMES}
    assert {name: await logins.ask_us(name, path) for name in NAMES} == theirs


async def test_FILE01_skopeo_looks_into_the_same_files(logins: Logins, tmp_path: Path) -> None:
    home = tmp_path / "home"
    files = {
        "containers/auth.json": {"auths": {"quay.io": entry("runtime:x")}},
        ".config/containers/auth.json": {"auths": {"quay.io": entry("config:x")}},
        ".docker/config.json": {"auths": {"quay.io": entry("docker:x")}},
        ".dockercfg": {"https://quay.io/v1/": entry("legacy:x")},
    }
    for relative, document in reversed(files.items()):
        write_json(home / relative, document)
        user = await logins.ask_us("quay.io/a")
        assert user == logins.ask_skopeo("quay.io/a")
        assert user is not None
        assert encode(f"{user}:x") in json.dumps(document)
    logins.environ["XDG_RUNTIME_DIR"] = str(home / "missing")
    assert await logins.ask_us("quay.io/a") == logins.ask_skopeo("quay.io/a") == "config"


async def test_CHAL04_who_logged_in_with_skopeo_is_let_in(
    family: Family, registry: Registry, skopeo: Skopeo, account: Account, tmp_path: Path
) -> None:
    skopeo.copy(family.reference(), registry.reference(NAME), "--all")
    path = tmp_path / "auth.json"
    with run_registry(tmp_path / "told", store=registry.store, account=account) as guarded:
        login = [f"--username={account.user}", f"--password={account.password}"]
        options = [f"--authfile={path}", "--tls-verify=false", *login]
        run("skopeo", "login", *options, guarded.address, environment=skopeo.home.environment)
        async with asup.Session(tls_verify=False, credentials=AuthFileCredentials(path)) as session:
            assert await read_reference(guarded.reference(NAME), session) == family.contents()
