"""registries.conf of a machine: which files count, and what they say together."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.hostconfig.registries import Registries, RegistriesCache
from asupplemented.hostconfig.registries_conf import Registry
from asupplemented.model.name import ImageName
from tests.hostconfig.machine import forbid, write

if TYPE_CHECKING:
    from tests.hostconfig.machine import Machine

MAIN = "registries.conf"
SYSTEM_MAIN = "containers/registries.conf"
SYSTEM_DROP_INS = "containers/registries.conf.d"
DIGEST = f"sha256:{'ab' * 32}"


def name(text: str) -> ImageName:
    return ImageName.parse(text)


def search(*names: str) -> str:
    return f"unqualified-search-registries = {list(names)}\n"


def table(prefix: str, location: str | None = None, *, more: str = "") -> str:
    place = prefix if location is None else location
    return f'[[registry]]\nprefix = "{prefix}"\nlocation = "{place}"\n{more}\n'


def test_CONF01_nothing_configured_is_nothing(machine: Machine) -> None:
    assert Registries.load(ConfigurationPaths()) == Registries()
    assert Registries.load(machine.paths) == Registries()
    assert Registries().credential_helpers == ("containers-auth.json",)


def test_CONF01_a_file_that_was_named_has_to_exist(machine: Machine) -> None:
    path = machine.home / "mine.conf"
    with pytest.raises(ConfigurationError, match=r"no file .*mine\.conf.* given"):
        Registries.load(replace(machine.paths, registries=path))
    write(path, search("a.com"))
    assert Registries.load(replace(machine.paths, registries=path)).search == ("a.com",)


def test_CONF01_a_file_that_was_named_counts_before_that_of_the_user(machine: Machine) -> None:
    machine.write_user(MAIN, search("user.com"))
    machine.write_system(SYSTEM_MAIN, search("system.com"))
    path = write(machine.home / "mine.conf", "")
    assert Registries.load(replace(machine.paths, registries=path)).search == ()


def test_CONF01_the_null_device_switches_the_main_file_off(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, search("system.com"))
    paths = replace(machine.paths, registries=Path("/dev/null"))
    assert Registries.load(paths).search == ()


def test_CONF01_the_file_of_the_system_counts_unless_the_user_has_one(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, search("system.com"))
    assert Registries.load(machine.paths).search == ("system.com",)
    machine.write_user(MAIN, "")
    assert Registries.load(machine.paths).search == ()


def test_CONF01_with_a_main_file_of_the_user_drop_ins_of_the_system_do_not_count(
    machine: Machine,
) -> None:
    machine.write_system(f"{SYSTEM_DROP_INS}/a.conf", table("system.com"))
    machine.write_user("registries.conf.d/a.conf", table("user.com"))
    found = [each.prefix for each in Registries.load(machine.paths).tables]
    assert found == ["system.com", "user.com"]
    machine.write_user(MAIN, "")
    assert [each.prefix for each in Registries.load(machine.paths).tables] == ["user.com"]


def test_CONF01_a_home_that_is_not_ours_to_see_does_not_count(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = machine.write_user(MAIN, search("user.com"))
    machine.write_system(SYSTEM_MAIN, search("system.com"))

    def see(path: Path, mode: int) -> bool:
        return path != hidden

    monkeypatch.setattr("os.access", see)
    assert Registries.load(machine.paths).search == ("system.com",)


def test_CONF02_drop_ins_are_read_in_order_and_the_last_one_wins(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, search("main.com"))
    machine.write_user("registries.conf.d/10.conf", search("user.com"))
    machine.write_system(f"{SYSTEM_DROP_INS}/20.conf", search("late.com"))
    machine.write_system(f"{SYSTEM_DROP_INS}/10.conf", search("early.com"))
    registries = Registries.load(machine.paths)
    assert registries.search == ("user.com",)
    assert [path.relative_to(machine.root.parent).parts[-2:] for path in registries.files] == [
        ("containers", MAIN),
        ("registries.conf.d", "10.conf"),
        ("registries.conf.d", "20.conf"),
        ("registries.conf.d", "10.conf"),
    ]


def test_CONF02_other_files_and_directories_within_do_not_count(machine: Machine) -> None:
    machine.write_system(f"{SYSTEM_DROP_INS}/a.conf.bak", "broken")
    machine.write_system(f"{SYSTEM_DROP_INS}/sub/a.conf", "broken")
    machine.write_system(f"{SYSTEM_DROP_INS}/sub.conf/a.conf", "broken")
    assert Registries.load(machine.paths) == Registries()


def test_CONF02_a_directory_that_was_named_replaces_both(machine: Machine) -> None:
    machine.write_system(f"{SYSTEM_DROP_INS}/a.conf", table("system.com"))
    machine.write_user("registries.conf.d/a.conf", table("user.com"))
    mine = write(machine.home / "mine.d/a.conf", table("mine.com")).parent
    for path in (mine, machine.home / "nowhere"):
        found = Registries.load(replace(machine.paths, registries_directory=path)).tables
        assert [each.prefix for each in found] == (["mine.com"] if path == mine else [])


def test_CONF02_a_drop_in_that_vanishes_is_skipped(machine: Machine) -> None:
    path = machine.write_system(f"{SYSTEM_DROP_INS}/a.conf", search("a.com"))
    (path.parent / "b.conf").symlink_to("nowhere")
    assert Registries.load(machine.paths).search == ("a.com",)


def test_CONF02_drop_ins_that_may_not_be_listed_are_an_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine.write_system(f"{SYSTEM_DROP_INS}/a.conf")
    forbid(monkeypatch, "scandir", path.parent)
    with pytest.raises(ConfigurationError, match=r"registries\.conf\.d: permission denied"):
        Registries.load(machine.paths)


def test_CONF02_a_drop_in_of_version_1_is_an_error(machine: Machine) -> None:
    machine.write_system(f"{SYSTEM_DROP_INS}/old.conf", "[registries.search]\nregistries = []")
    with pytest.raises(ConfigurationError, match=r"old\.conf is of version 1"):
        Registries.load(machine.paths)
    machine.write_system(f"{SYSTEM_DROP_INS}/old.conf", "")
    machine.write_system(SYSTEM_MAIN, '[registries.search]\nregistries = ["a.com"]')
    assert Registries.load(machine.paths).search == ("a.com",)


def test_CONF03_a_table_is_replaced_whole(machine: Machine) -> None:
    mirror = '[[registry.mirror]]\nlocation = "m.com"'
    machine.write_system(SYSTEM_MAIN, table("a.com", more=f"insecure = true\n{mirror}"))
    path = machine.write_system(f"{SYSTEM_DROP_INS}/a.conf", table("a.com") + table("b.com"))
    assert Registries.load(machine.paths).tables == (
        Registry("a.com", "a.com", origin=path),
        Registry("b.com", "b.com", origin=path),
    )


def test_CONF03_lists_are_replaced_if_given_be_they_empty(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, search("a.com") + 'credential-helpers = ["one"]')
    assert Registries.load(machine.paths).credential_helpers == ("one",)
    machine.write_system(f"{SYSTEM_DROP_INS}/1.conf", table("b.com"))
    assert Registries.load(machine.paths).search == ("a.com",)
    machine.write_system(f"{SYSTEM_DROP_INS}/2.conf", search() + "credential-helpers = []")
    registries = Registries.load(machine.paths)
    assert registries.search == ()
    assert registries.credential_helpers == ("containers-auth.json",)


def test_CONF03_the_mode_is_replaced_if_given(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, 'short-name-mode = "enforcing"')
    machine.write_system(f"{SYSTEM_DROP_INS}/1.conf", 'short-name-mode = ""')
    assert Registries.load(machine.paths).short_name_mode == "enforcing"
    machine.write_system(f"{SYSTEM_DROP_INS}/2.conf", 'short-name-mode = "disabled"')
    assert Registries.load(machine.paths).short_name_mode == "disabled"
    assert Registries().short_name_mode == "permissive"


def test_CONF03_aliases_are_merged_and_no_value_erases_one(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, '[aliases]\na = "x.com/a"\nb = "x.com/b"\nc = "x.com/c"')
    machine.write_system(f"{SYSTEM_DROP_INS}/1.conf", '[aliases]\nb = ""\nc = "y.com/c"')
    aliases = Registries.load(machine.paths).aliases
    assert {short: str(full) for short, full in aliases.items()} == {
        "a": "x.com/a",
        "c": "y.com/c",
    }


def test_CONF04_remarks_of_all_files_are_kept(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, "one = 1")
    machine.write_system(f"{SYSTEM_DROP_INS}/1.conf", "two = 2")
    remarks = Registries.load(machine.paths).remarks
    assert [remark.split(": ")[1] for remark in remarks] == [
        "the key 'one' is unknown, and ignored",
        "the key 'two' is unknown, and ignored",
    ]


def test_CONF06_tables_of_two_files_may_differ(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, table("a.com", "c.com"))
    machine.write_system(
        f"{SYSTEM_DROP_INS}/1.conf", table("b.com", "c.com", more="blocked = true")
    )
    assert [each.blocked for each in Registries.load(machine.paths).tables] == [False, True]


def test_a_broken_file_is_named(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, "broken")
    with pytest.raises(ConfigurationError, match=r"containers/registries\.conf is not TOML"):
        Registries.load(machine.paths)


def make(*prefixes: str) -> Registries:
    return Registries(tuple(Registry(prefix, None) for prefix in sorted(prefixes)))


@pytest.mark.parametrize(
    ("text", "prefixes", "expected"),
    [
        ("a.com/x/y", ("a.com", "a.com/x", "a.com/x/y/z"), "a.com/x"),
        ("b.a.com/x", ("*.a.com", "b.a.com/x"), "b.a.com/x"),
        ("b.a.com/x", ("*.com", "*.a.com"), "*.a.com"),
        ("c.b.a.com/x", ("*.b.a.com", "*.a.com"), "*.b.a.com"),
        ("a.b.com/x", ("*.b.com", "a.b.com"), "*.b.com"),
        ("d.com/x", ("a.com", "*.a.com"), None),
    ],
)
def test_CONF10_the_longest_prefix_wins_then_the_first(
    text: str, prefixes: tuple[str, ...], expected: str | None
) -> None:
    found = make(*prefixes).find(name(text))
    assert (found and found.prefix) == expected


def test_CONF10_prefixes_of_one_length_are_worth_a_remark() -> None:
    registries = make("*.b.com", "a.b.com", "b.com")
    assert [each.prefix for each in registries.find_rivals(name("a.b.com/x"))] == ["a.b.com"]
    assert registries.find_rivals(name("c.b.com/x")) == ()


def test_CONF10_the_order_of_files_does_not_matter(machine: Machine) -> None:
    prefixes = ["*.b.com", "a.b.com", "a.b.com/x", "b.com"]
    for seed in range(5):
        random.Random(seed).shuffle(prefixes)
        machine.write_system(SYSTEM_MAIN, "".join(f"{table(each)}" for each in prefixes))
        found = Registries.load(machine.paths).find(name("a.b.com/y"))
        assert found is not None
        assert found.prefix == "*.b.com"


@pytest.mark.parametrize("prefix", ["a.com/x:t", f"a.com/x@{DIGEST}"])
def test_CONF11_tag_and_digest_do_not_matter(prefix: str) -> None:
    for text in ("a.com/x:t", f"a.com/x@{DIGEST}"):
        assert make(prefix).find(name(text)) is None
        found = make("a.com/x").find(name(text))
        assert found is not None


def test_CONF13_an_image_without_a_table_is_where_its_name_says() -> None:
    [candidate] = make("a.com").candidates(name("b.com/x:t"))
    assert candidate.name == name("b.com/x:t")
    assert (candidate.insecure, candidate.is_mirror, candidate.blocked) == (False, False, None)


def test_CONF17_a_blocked_registry_is_still_read_from_its_mirrors(machine: Machine) -> None:
    mirror = '[[registry.mirror]]\nlocation = "m.com"'
    machine.write_system(SYSTEM_MAIN, table("a.com", more=f"blocked = true\n{mirror}"))
    mirrored, own = Registries.load(machine.paths).candidates(name("a.com/x"))
    mirrored.check_allowed()
    with pytest.raises(ConfigurationError, match=r"a\.com/x is blocked"):
        own.check_allowed()


def test_CONF17_what_counts_is_where_a_candidate_is_not_what_was_asked_for(
    machine: Machine,
) -> None:
    machine.write_system(
        SYSTEM_MAIN,
        table("a.com", "b.com", more='blocked = true\n[[registry.mirror]]\nlocation = "c.com"')
        + table("c.com", more="blocked = true"),
    )
    mirrored, own = Registries.load(machine.paths).candidates(name("a.com/x"))
    assert mirrored.blocked is not None
    assert mirrored.blocked.prefix == "c.com"
    assert own.name.registry == "b.com"
    own.check_allowed()


def test_CONF21_files_are_read_once_and_again_when_told_to(machine: Machine) -> None:
    path = machine.write_system(SYSTEM_MAIN, search("a.com"))
    cache = RegistriesCache(machine.paths)
    assert cache.current is None
    first = cache.get()
    write(path, search("b.com"))
    assert cache.get() is first is cache.current
    assert cache.reload().search == ("b.com",)
    assert cache.get().search == ("b.com",)


def test_CONF21_what_cannot_be_reloaded_stays_as_it_was(machine: Machine) -> None:
    path = machine.write_system(SYSTEM_MAIN, search("a.com"))
    cache = RegistriesCache(machine.paths)
    first = cache.get()
    write(path, "broken")
    with pytest.raises(ConfigurationError, match="not TOML"):
        cache.reload()
    assert cache.get() is first


def test_CONF21_a_failure_is_not_remembered(machine: Machine) -> None:
    path = machine.write_system(SYSTEM_MAIN, "broken")
    cache = RegistriesCache(machine.paths)
    with pytest.raises(ConfigurationError):
        cache.get()
    write(path, search("a.com"))
    assert cache.get().search == ("a.com",)


def test_registries_are_values_that_hash() -> None:
    assert hash(make("a.com")) == hash(make("a.com"))
    assert make("a.com") == make("a.com") != make("b.com")
