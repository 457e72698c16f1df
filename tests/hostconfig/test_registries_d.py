"""registries.d: where signatures lie beside a registry."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.hostconfig.registries_d import (
    MAX_YAML,
    Lookaside,
    Section,
    locate_signature,
)
from asupplemented.model.digest import Digest
from asupplemented.model.name import ImageName
from tests.hostconfig.machine import forbid, write

if TYPE_CHECKING:
    from tests.hostconfig.machine import Machine

SYSTEM = "containers/registries.d"
DIGEST = f"sha256:{'ab' * 32}"


def name(text: str) -> ImageName:
    return ImageName.parse(text)


async def load(tmp_path: Path, text: str) -> Lookaside:
    write(tmp_path / "a.yaml", text)
    return await Lookaside.load(ConfigurationPaths(lookaside=tmp_path))


def default(url: str) -> str:
    return f"default-docker:\n  lookaside: {url}\n"


# Which files


async def test_SIG04_no_directory_is_no_configuration(machine: Machine) -> None:
    nothing = await Lookaside.load(machine.paths)
    assert (nothing.sections, nothing.default) == ({}, None)
    nowhere = replace(machine.paths, lookaside=machine.home / "nowhere")
    assert await Lookaside.load(nowhere) == nothing
    assert await Lookaside.load(ConfigurationPaths()) == Lookaside()


async def test_SIG04_one_directory_counts(machine: Machine) -> None:
    async def url() -> str | None:
        return (await Lookaside.load(paths)).find_url(name("a.com/x"))

    paths = machine.paths
    machine.write_system(f"{SYSTEM}/a.yaml", default("https://system"))
    assert await url() == "https://system"
    machine.write_user("registries.d/a.yaml", default("https://user"))
    assert await url() == "https://user"
    mine = write(machine.home / "mine/a.yaml", default("https://mine")).parent
    paths = replace(machine.paths, lookaside=mine)
    assert await url() == "https://mine"


async def test_SIG04_only_yaml_counts(machine: Machine) -> None:
    for each in ("a.yml", "a.yaml.bak", "sub/a.yaml", "a.conf"):
        machine.write_system(f"{SYSTEM}/{each}", "{broken")
    machine.write_system(f"{SYSTEM}/b.yaml", default("https://b"))
    assert (await Lookaside.load(machine.paths)).default is not None


@pytest.mark.parametrize(
    ("text", "what"),
    [(default("https://x"), "default-docker"), ("docker:\n  a.com:\n    lookaside: x\n", "a.com")],
)
async def test_SIG04_two_files_do_not_speak_of_the_same(
    machine: Machine, text: str, what: str
) -> None:
    one = machine.write_system(f"{SYSTEM}/1.yaml", text)
    two = machine.write_system(f"{SYSTEM}/2.yaml", text)
    with pytest.raises(ConfigurationError, match=what) as caught:
        await Lookaside.load(machine.paths)
    assert f"both in {one} and in {two}" in caught.value.message


async def test_SIG04_an_empty_section_is_a_definition_too(machine: Machine) -> None:
    machine.write_system(f"{SYSTEM}/1.yaml", "docker:\n  a.com:\n")
    machine.write_system(f"{SYSTEM}/2.yaml", "docker:\n  a.com:\n    lookaside: https://x\n")
    with pytest.raises(ConfigurationError, match=r"a\.com is defined both"):
        await Lookaside.load(machine.paths)


async def test_SIG04_files_may_speak_of_different_things(machine: Machine) -> None:
    machine.write_system(f"{SYSTEM}/1.yaml", "docker:\n  a.com:\n    lookaside: https://a\n")
    machine.write_system(
        f"{SYSTEM}/2.yaml", f"{default('https://d')}docker:\n  b.com:\n    lookaside: https://b\n"
    )
    found = await Lookaside.load(machine.paths)
    assert [found.find_url(name(f"{host}/x")) for host in ("a.com", "b.com", "c.com")] == [
        *("https://a", "https://b", "https://d")
    ]


async def test_SIG04_a_directory_that_may_not_be_listed_is_an_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine.write_system(f"{SYSTEM}/a.yaml")
    forbid(monkeypatch, "scandir", path.parent)
    with pytest.raises(ConfigurationError, match=r"registries\.d: permission denied"):
        await Lookaside.load(machine.paths)


# Without the extra


COMMENTED = "---\n# This is the default location.\n\n  # default-docker:\n"


@pytest.mark.parametrize("text", ["", COMMENTED])
async def test_SIG04_without_pyyaml_files_that_say_nothing_are_read(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert await load(tmp_path, text) == Lookaside()


async def test_SIG04_without_pyyaml_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(ConfigurationError, match=r"a\.yaml .*'asupplemented\[signatures\]'"):
        await load(tmp_path, default("https://x"))


# What is in them


async def test_SIG04_everything_that_can_be_said(tmp_path: Path) -> None:
    found = await load(
        tmp_path,
        """
        default-docker:
          lookaside: file:///var/lib/containers/sigstore
        docker:
          a.com/x:
            lookaside: https://read.example/
            lookaside-staging: file:///srv/staging
            use-sigstore-attachments: true
          "*.b.com": {sigstore: "https://old.example", sigstore-staging: "file:///old"}
        """,
    )
    path = tmp_path / "a.yaml"
    assert found.default == Section("file:///var/lib/containers/sigstore", origin=path)
    assert found.sections == {
        "a.com/x": Section("https://read.example/", "file:///srv/staging", True, path),  # noqa: FBT003
        "*.b.com": Section("https://old.example", "file:///old", None, path),
    }
    assert found.warnings == ()


async def test_SIG05_the_new_key_counts_before_the_old_one(tmp_path: Path) -> None:
    text = "default-docker:\n  sigstore: https://old\n  lookaside: https://new\n"
    assert (await load(tmp_path, text)).find_url(name("a.com/x")) == "https://new"
    text = "default-docker:\n  sigstore: https://old\n  lookaside: ''\n"
    assert (await load(tmp_path, text)).find_url(name("a.com/x")) == "https://old"


@pytest.mark.parametrize("text", ["docker:", "default-docker:", "docker: {}", "docker: ~"])
async def test_SIG04_a_key_without_a_value_says_nothing(tmp_path: Path, text: str) -> None:
    assert await load(tmp_path, text) == Lookaside()


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("yes", True), ("On", True), ("false", False), ("no", False), ("~", None)],
)
async def test_SIG06_attachments_are_switched_by_what_yaml_takes_for_true(
    tmp_path: Path, text: str, *, value: bool | None
) -> None:
    found = await load(tmp_path, f"default-docker:\n  use-sigstore-attachments: {text}\n")
    assert found.default is not None
    assert found.default.attachments is value
    assert found.uses_attachments(name("a.com/x")) is (value is True)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("docker: [a", "is not YAML in line"),
        ("a: 1\n---\nb: 1", "is not YAML in line"),
        ("a: \x07", "control characters"),
        ("[" * 50_000, "nesting is too deep"),
        ("- docker", "the file must be keys with values"),
        ("docker: [a.com]", "docker must be keys with values"),
        ("docker:\n  a.com: https://x", "docker: 'a.com' must be keys with values"),
        ("docker:\n  [a, b]: {}", "a key of docker must be text"),
        ("default-docker: {lookaside: 1}", "default-docker, lookaside must be text"),
        ("default-docker: {lookaside: [x]}", "default-docker, lookaside must be text"),
        ("default-docker: {use-sigstore-attachments: 1}", "must be true or false"),
        ("default-docker: {use-sigstore-attachments: 'true'}", "must be true or false"),
        ("docker:\n  a: {}\n  a: {}", "docker gives 'a' twice"),
        ("docker: {}\ndocker: {}", "the file gives 'docker' twice"),
        ("Docker: {}", "must be written docker"),
        ("default-docker: {Lookaside: x}", "must be written lookaside"),
        ("default-docker: {lookaside: !!python/name:os.system x}", "must be text"),
    ],
)
async def test_SIG04_what_cannot_be_followed_is_an_error_that_names_the_file(
    tmp_path: Path, text: str, fault: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await load(tmp_path, text)
    assert str(tmp_path / "a.yaml") in caught.value.message
    assert fault in caught.value.message


async def test_SIG04_unknown_keys_are_ignored_with_a_remark(tmp_path: Path) -> None:
    found = await load(tmp_path, "colour: red\ndefault-docker: {taste: sweet}")
    assert [remark.partition("the key ")[2] for remark in found.warnings] == [
        "'colour' is unknown, and ignored",
        "'taste' is unknown, and ignored",
    ]


async def test_SIG04_anchors_are_followed_and_never_multiplied(tmp_path: Path) -> None:
    found = await load(
        tmp_path, "default-docker: &x {lookaside: https://x}\ndocker:\n  a.com: *x\n"
    )
    assert found.find_url(name("a.com/x")) == "https://x"
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30))
    bomb = f"l0: &l0 [x]\n{levels}\n{default('https://x')}"
    assert (await load(tmp_path, bomb)).find_url(name("a.com/x")) == "https://x"


async def test_SIG04_a_file_is_read_up_to_a_cap(tmp_path: Path) -> None:
    text = default("https://x")
    padding = "#" * (MAX_YAML - len(text))
    assert (await load(tmp_path, text + padding)).default is not None
    with pytest.raises(ConfigurationError, match=f"{MAX_YAML} bytes"):
        await load(tmp_path, f"{text}{padding}#")


# Lookups


SCOPES = (
    "h.example.com:8443/a/b:t",
    "h.example.com:8443/a/b",
    "h.example.com:8443/a",
    "h.example.com:8443",
    "*.example.com",
    "*.com",
)


def test_REF18_SIG05_the_narrowest_section_counts_then_the_default() -> None:
    image = name(SCOPES[0])
    sections = {scope: Section(f"https://x/{n}") for n, scope in enumerate(SCOPES)}
    for number, scope in enumerate(SCOPES):
        found = Lookaside(sections, Section("https://default"))
        assert found.find_url(image) == f"https://x/{number}"
        del sections[scope]
    assert Lookaside({}, Section("https://default")).find_url(image) == "https://default"


@pytest.mark.parametrize(
    "scope", ["h.example.com", "example.com", "*.h.example.com", "*", "h.example.com:8443/a/b:u"]
)
def test_REF18_SIG05_other_scopes_do_not_contain_it(scope: str) -> None:
    found = Lookaside({scope: Section("https://x")}, fallback="file:///f")
    assert found.find_url(name(SCOPES[0])) == "file:///f"


def test_SIG05_an_image_with_a_digest_is_known_by_that() -> None:
    for text in (f"a.com/x@{DIGEST}", f"a.com/x:t@{DIGEST}"):
        found = Lookaside({f"a.com/x@{DIGEST}": Section("https://x")})
        assert found.find_url(name(text)) == "https://x"


def test_SIG05_each_setting_is_looked_up_by_itself() -> None:
    found = Lookaside(
        {
            "a.com/x:t": Section(attachments=False),
            "a.com/x": Section(staging="file:///staging"),
            "a.com": Section("https://read", attachments=True),
        },
        Section("https://default", "file:///default", attachments=True),
    )
    assert found.find_url(name("a.com/x:t")) == "https://read"
    assert found.find_staging_url(name("a.com/x:t")) == "file:///staging"
    assert found.uses_attachments(name("a.com/x:t")) is False
    assert found.uses_attachments(name("a.com/x:u")) is True


def test_SIG05_without_staging_signatures_are_written_where_they_are_read() -> None:
    found = Lookaside({"a.com": Section("https://read")}, Section("https://d", "file:///staging"))
    assert found.find_staging_url(name("a.com/x")) == "https://read"


async def test_SIG05_what_nobody_has_configured(machine: Machine) -> None:
    root = ConfigurationPaths.default({}, root=Path("/"), superuser=True)
    lookaside = replace(root, lookaside=machine.home / "nowhere")
    of_root = await Lookaside.load(lookaside)
    assert of_root.find_url(name("a.com/x")) == "file:///var/lib/containers/sigstore"
    of_user = await Lookaside.load(
        replace(lookaside, superuser=False, home=Path("/home/ada lovelace"))
    )
    expected = "file:///home/ada%20lovelace/.local/share/containers/sigstore"
    assert of_user.find_url(name("a.com/x")) == of_user.find_staging_url(name("a.com/x"))
    assert of_user.find_url(name("a.com/x")) == expected
    assert Lookaside().find_url(name("a.com/x")) is None
    assert Lookaside().uses_attachments(name("a.com/x")) is False


@pytest.mark.parametrize(
    "url", ["s3://bucket", "/srv/sigstore", "srv", "https://", "http:///x", "https://[x"]
)
async def test_SIG02_other_places_are_refused(tmp_path: Path, url: str) -> None:
    found = await load(tmp_path, f'default-docker:\n  lookaside: "{url}"\n')
    with pytest.raises(ConfigurationError, match=r"a\.yaml: a lookaside must be the URL"):
        found.find_url(name("a.com/x"))


async def test_SIG02_a_password_is_not_shown(tmp_path: Path) -> None:
    found = await load(tmp_path, default("ftp://u:hunter2@host:port/"))
    assert "hunter2" not in repr(found)
    with pytest.raises(ConfigurationError) as caught:
        found.find_url(name("a.com/x"))
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://sigs.example", "https://sigs.example/a/b@sha256={}/signature-3"),
        ("https://sigs.example:1/x", "https://sigs.example:1/x/a/b@sha256={}/signature-3"),
        ("https://sigs.example/x?y=z", "https://sigs.example/x/a/b@sha256={}/signature-3?y=z"),
        ("file:///srv/sigs", "file:///srv/sigs/a/b@sha256={}/signature-3"),
    ],
)
def test_SIG02_a_signature_has_a_number_below_its_manifest(url: str, expected: str) -> None:
    found = locate_signature(url, name("h.com:5000/a/b:t"), Digest(DIGEST), 3)
    assert found == expected.format("ab" * 32)
