"""The merged registries.conf: which files count, and where an image may be."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asupplemented.errors import (
    ConfigurationError,
    ManifestNotFoundError,
    NetworkError,
    TooManyRequestsError,
)
from asupplemented.hostconfig.paths import ConfigurationPaths
from asupplemented.hostconfig.registries import (
    ImageLocation,
    Registries,
    RegistriesCache,
    join_failures,
    list_locations,
    match_prefix,
)
from asupplemented.hostconfig.registries_conf import Mirror, Pulls, Registry
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


async def test_CONF01_nothing_configured_is_nothing(machine: Machine) -> None:
    assert await Registries.load(ConfigurationPaths()) == Registries()
    assert await Registries.load(machine.paths) == Registries()
    assert Registries().credential_helpers == ("containers-auth.json",)


async def test_CONF01_a_file_that_was_named_has_to_exist(machine: Machine) -> None:
    path = machine.home / "mine.conf"
    with pytest.raises(ConfigurationError, match=r"no file .*mine\.conf.* given"):
        await Registries.load(replace(machine.paths, registries=path))
    write(path, search("a.com"))
    assert (await Registries.load(replace(machine.paths, registries=path))).search == ("a.com",)


async def test_CONF01_a_file_that_was_named_counts_before_that_of_the_user(
    machine: Machine,
) -> None:
    machine.write_user(MAIN, search("user.com"))
    machine.write_system(SYSTEM_MAIN, search("system.com"))
    path = write(machine.home / "mine.conf", "")
    assert (await Registries.load(replace(machine.paths, registries=path))).search == ()


async def test_CONF01_the_null_device_switches_the_main_file_off(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, search("system.com"))
    paths = replace(machine.paths, registries=Path("/dev/null"))
    assert (await Registries.load(paths)).search == ()


async def test_CONF01_a_home_that_is_not_ours_to_see_does_not_count(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = machine.write_user(MAIN, search("user.com"))
    machine.write_system(SYSTEM_MAIN, search("system.com"))

    def see(path: Path, mode: int) -> bool:
        return path != hidden

    monkeypatch.setattr("os.access", see)
    assert (await Registries.load(machine.paths)).search == ("system.com",)


async def test_CONF02_other_files_and_directories_within_do_not_count(machine: Machine) -> None:
    machine.write_system(f"{SYSTEM_DROP_INS}/a.conf.bak", "broken")
    machine.write_system(f"{SYSTEM_DROP_INS}/sub/a.conf", "broken")
    machine.write_system(f"{SYSTEM_DROP_INS}/sub.conf/a.conf", "broken")
    assert await Registries.load(machine.paths) == Registries()


async def test_CONF02_a_directory_that_was_named_replaces_both(machine: Machine) -> None:
    machine.write_system(f"{SYSTEM_DROP_INS}/a.conf", table("system.com"))
    machine.write_user("registries.conf.d/a.conf", table("user.com"))
    mine = write(machine.home / "mine.d/a.conf", table("mine.com")).parent
    for path in (mine, machine.home / "nowhere"):
        found = (await Registries.load(replace(machine.paths, registries_directory=path))).tables
        assert [each.prefix for each in found] == (["mine.com"] if path == mine else [])


async def test_CONF02_a_drop_in_that_vanishes_is_skipped(machine: Machine) -> None:
    path = machine.write_system(f"{SYSTEM_DROP_INS}/a.conf", search("a.com"))
    (path.parent / "b.conf").symlink_to("nowhere")
    assert (await Registries.load(machine.paths)).search == ("a.com",)


async def test_CONF02_drop_ins_that_may_not_be_listed_are_an_error(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = machine.write_system(f"{SYSTEM_DROP_INS}/a.conf")
    forbid(monkeypatch, "scandir", path.parent)
    with pytest.raises(ConfigurationError, match=r"registries\.conf\.d: permission denied"):
        await Registries.load(machine.paths)


async def test_CONF03_a_table_is_replaced_whole(machine: Machine) -> None:
    mirror = '[[registry.mirror]]\nlocation = "m.com"'
    machine.write_system(SYSTEM_MAIN, table("a.com", more=f"insecure = true\n{mirror}"))
    path = machine.write_system(f"{SYSTEM_DROP_INS}/a.conf", table("a.com") + table("b.com"))
    assert (await Registries.load(machine.paths)).tables == (
        Registry("a.com", "a.com", origin=path),
        Registry("b.com", "b.com", origin=path),
    )


async def test_CONF03_lists_are_replaced_if_given_be_they_empty(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, search("a.com") + 'credential-helpers = ["one"]')
    assert (await Registries.load(machine.paths)).credential_helpers == ("one",)
    machine.write_system(f"{SYSTEM_DROP_INS}/1.conf", table("b.com"))
    assert (await Registries.load(machine.paths)).search == ("a.com",)
    machine.write_system(f"{SYSTEM_DROP_INS}/2.conf", search() + "credential-helpers = []")
    registries = await Registries.load(machine.paths)
    assert registries.search == ()
    assert registries.credential_helpers == ("containers-auth.json",)


async def test_CONF03_the_mode_is_replaced_if_given(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, 'short-name-mode = "enforcing"')
    machine.write_system(f"{SYSTEM_DROP_INS}/1.conf", 'short-name-mode = ""')
    assert (await Registries.load(machine.paths)).short_name_mode == "enforcing"
    machine.write_system(f"{SYSTEM_DROP_INS}/2.conf", 'short-name-mode = "disabled"')
    assert (await Registries.load(machine.paths)).short_name_mode == "disabled"
    assert Registries().short_name_mode == "permissive"


async def test_CONF03_aliases_are_merged_and_no_value_erases_one(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, '[aliases]\na = "x.com/a"\nb = "x.com/b"\nc = "x.com/c"')
    machine.write_system(f"{SYSTEM_DROP_INS}/1.conf", '[aliases]\nb = ""\nc = "y.com/c"')
    aliases = (await Registries.load(machine.paths)).aliases
    assert {short: str(full) for short, full in aliases.items()} == {
        "a": "x.com/a",
        "c": "y.com/c",
    }


async def test_CONF04_remarks_of_all_files_are_kept(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, "one = 1")
    machine.write_system(f"{SYSTEM_DROP_INS}/1.conf", "two = 2")
    warnings = (await Registries.load(machine.paths)).warnings
    assert [remark.split(": ")[1] for remark in warnings] == [
        "the key 'one' is unknown, and ignored",
        "the key 'two' is unknown, and ignored",
    ]


async def test_CONF06_tables_of_two_files_may_differ(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, table("a.com", "c.com"))
    machine.write_system(
        f"{SYSTEM_DROP_INS}/1.conf", table("b.com", "c.com", more="blocked = true")
    )
    assert [each.blocked for each in (await Registries.load(machine.paths)).tables] == [False, True]


async def test_a_broken_file_is_named(machine: Machine) -> None:
    machine.write_system(SYSTEM_MAIN, "broken")
    with pytest.raises(ConfigurationError, match=r"containers/registries\.conf is not TOML"):
        await Registries.load(machine.paths)


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
    assert [each.prefix for each in registries.find_ties(name("a.b.com/x"))] == ["a.b.com"]
    assert registries.find_ties(name("c.b.com/x")) == ()


async def test_CONF10_the_order_of_files_does_not_matter(machine: Machine) -> None:
    prefixes = ["*.b.com", "a.b.com", "a.b.com/x", "b.com"]
    for seed in range(5):
        random.Random(seed).shuffle(prefixes)
        machine.write_system(SYSTEM_MAIN, "".join(f"{table(each)}" for each in prefixes))
        found = (await Registries.load(machine.paths)).find(name("a.b.com/y"))
        assert found is not None
        assert found.prefix == "*.b.com"


@pytest.mark.parametrize("prefix", ["a.com/x:t", f"a.com/x@{DIGEST}"])
def test_CONF11_tag_and_digest_do_not_matter(prefix: str) -> None:
    for text in ("a.com/x:t", f"a.com/x@{DIGEST}"):
        assert make(prefix).find(name(text)) is None
        found = make("a.com/x").find(name(text))
        assert found is not None


def test_CONF13_an_image_without_a_table_is_where_its_name_says() -> None:
    [candidate] = make("a.com").locations(name("b.com/x:t"))
    assert candidate.name == name("b.com/x:t")
    assert (candidate.insecure, candidate.is_mirror, candidate.blocked) == (False, False, None)


async def test_CONF17_a_blocked_registry_is_still_read_from_its_mirrors(machine: Machine) -> None:
    mirror = '[[registry.mirror]]\nlocation = "m.com"'
    machine.write_system(SYSTEM_MAIN, table("a.com", more=f"blocked = true\n{mirror}"))
    mirrored, own = (await Registries.load(machine.paths)).locations(name("a.com/x"))
    mirrored.check_allowed()
    with pytest.raises(ConfigurationError, match=r"a\.com/x is blocked"):
        own.check_allowed()


async def test_CONF17_what_counts_is_where_a_candidate_is_not_what_was_asked_for(
    machine: Machine,
) -> None:
    machine.write_system(
        SYSTEM_MAIN,
        table("a.com", "b.com", more='blocked = true\n[[registry.mirror]]\nlocation = "c.com"')
        + table("c.com", more="blocked = true"),
    )
    mirrored, own = (await Registries.load(machine.paths)).locations(name("a.com/x"))
    assert mirrored.blocked is not None
    assert mirrored.blocked.prefix == "c.com"
    assert own.name.registry == "b.com"
    own.check_allowed()


async def test_CONF21_files_are_read_once_and_again_when_told_to(machine: Machine) -> None:
    path = machine.write_system(SYSTEM_MAIN, search("a.com"))
    cache = RegistriesCache(machine.paths)
    assert cache.current is None
    first = await cache.get()
    write(path, search("b.com"))
    assert await cache.get() is first is cache.current
    assert (await cache.reload()).search == ("b.com",)
    assert (await cache.get()).search == ("b.com",)


async def test_CONF21_what_cannot_be_reloaded_stays_as_it_was(machine: Machine) -> None:
    path = machine.write_system(SYSTEM_MAIN, search("a.com"))
    cache = RegistriesCache(machine.paths)
    first = await cache.get()
    write(path, "broken")
    with pytest.raises(ConfigurationError, match="not TOML"):
        await cache.reload()
    assert await cache.get() is first


async def test_CONF21_a_failure_is_not_remembered(machine: Machine) -> None:
    path = machine.write_system(SYSTEM_MAIN, "broken")
    cache = RegistriesCache(machine.paths)
    with pytest.raises(ConfigurationError):
        await cache.get()
    write(path, search("a.com"))
    assert (await cache.get()).search == ("a.com",)


def test_registries_are_values_that_hash() -> None:
    assert hash(make("a.com")) == hash(make("a.com"))
    assert make("a.com") == make("a.com") != make("b.com")


FILE = Path("/etc/containers/registries.conf")


def places(text: str, registry: Registry) -> list[str]:
    return [str(candidate.name) for candidate in list_locations(name(text), registry)]


@pytest.mark.parametrize(
    ("text", "prefix", "matched"),
    [
        ("a.com/x", "a.com/x", "a.com/x"),
        ("a.com/x/y", "a.com/x", "a.com/x"),
        ("a.com/x", "a.com", "a.com"),
        ("a.com:5000/x", "a.com", "a.com"),
        ("a.com:5000/x", "a.com:5000", "a.com:5000"),
        ("a.com:5000/x", "a.com:50", None),
        ("a.com/xy", "a.com/x", None),
        ("a.community/x", "a.com", None),
        ("a.com/x", "a.com/x/y", None),
        ("sub.a.com/x", "a.com", None),
        ("A.com/x", "a.com", None),
    ],
)
def test_CONF09_a_prefix_ends_where_a_part_of_the_name_ends(
    text: str, prefix: str, matched: str | None
) -> None:
    assert match_prefix(text, prefix) == (None if matched is None else len(matched))


@pytest.mark.parametrize(
    ("text", "prefix", "matched"),
    [
        ("b.a.com/x", "*.a.com", "b.a.com"),
        ("c.b.a.com/x", "*.a.com", "c.b.a.com"),
        ("b.a.com:5000/x", "*.a.com", "b.a.com"),
        ("a.com/x", "*.com", "a.com"),
        ("a.com/x", "*.a.com", None),
        ("ba.com/x", "*.a.com", None),
        ("b.a.com.org/x", "*.a.com", None),
        ("b.org/x.a.com", "*.a.com", None),
        ("b.org/x.a.com/y", "*.a.com", None),
        ("x.a.com.a.com/x", "*.a.com", None),
        ("b.a.com/x", "b.*.com", None),
        ("b.a.com/x", "*a.com", None),
    ],
)
def test_CONF08_a_wildcard_stands_for_any_host_below_one(
    text: str, prefix: str, matched: str | None
) -> None:
    assert match_prefix(text, prefix) == (None if matched is None else len(matched))


@pytest.mark.parametrize(
    ("text", "prefix", "location", "physical"),
    [
        ("a.com/x:t", "a.com", "b.com", "b.com/x:t"),
        ("a.com/x:t", "a.com", "b.com/c/d", "b.com/c/d/x:t"),
        ("a.com/x/y:t", "a.com/x", "b.com/z", "b.com/z/y:t"),
        ("a.com/x/y:t", "a.com/x/y", "b.com/z", "b.com/z:t"),
        ("a.com/x", "a.com", "b.com:5000", "b.com:5000/x:latest"),
        ("a.com:5000/x:t", "a.com", "b.com", "b.com:5000/x:t"),
        ("a.com:5000/x:t", "a.com:5000", "b.com", "b.com/x:t"),
        (f"a.com/x@{DIGEST}", "a.com/x", "b.com/y", f"b.com/y@{DIGEST}"),
        (f"a.com/x:t@{DIGEST}", "a.com/x", "b.com/y", f"b.com/y:t@{DIGEST}"),
        ("b.a.com/x:t", "*.a.com", "c.com/d", "c.com/d/x:t"),
        ("busybox", "docker.io", "b.com", "b.com/library/busybox:latest"),
        ("busybox", "docker.io/library", "b.com", "b.com/busybox:latest"),
        ("a.com/a.com/x", "a.com", "b.com", "b.com/a.com/x:latest"),
        ("a.com/x:t", "a.com", "[::1]:5000", "[::1]:5000/x:t"),
    ],
)
def test_CONF12_a_location_takes_the_place_of_the_prefix(
    text: str, prefix: str, location: str, physical: str
) -> None:
    assert places(text, Registry(prefix, location)) == [physical]


def test_CONF12_without_a_location_the_name_stays_as_it_is() -> None:
    registry = Registry("*.a.com", None, mirrors=(Mirror("m.com"),))
    assert places("b.a.com/x:t", registry) == ["m.com/x:t", "b.a.com/x:t"]


@pytest.mark.parametrize(
    ("text", "prefix", "location", "remedy"),
    [
        ("a.com/x:t", "a.com/x", "docker.io/y", "docker.io/library/y"),
        ("a.com/x/y:t", "a.com", "mirror", "docker.io/mirror/x/y"),
        ("a.com/x:t", "a.com/x", "index.docker.io/b/c", "docker.io/b/c"),
        ("a.com/x:t", "a.com/x", "b.com", "docker.io/library/b.com"),
        ("a.com/x:t", "a.com", "b.com/UP", "lowercase"),
        ("a.com/x:t", "a.com/x", "b.com/y:t", "format"),
        ("a.com/x:t", "a.com/x", f"b.com/y@{DIGEST}", "digest"),
        ("a.com/x:t", "a.com", "b.com/../c", "format"),
        ("a.com/x:t", "a.com", "user:hunter2@b.com", "user"),
        ("a.com/x:t", "a.com", "b" * 254 + ".com", "255"),
    ],
)
def test_CONF12_a_location_that_makes_no_full_name_is_refused(
    text: str, prefix: str, location: str, remedy: str
) -> None:
    registry = Registry(prefix, location, origin=FILE)
    with pytest.raises(ConfigurationError, match="does not fit") as caught:
        places(text, registry)
    assert str(FILE) in caught.value.message
    assert remedy in caught.value.message
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"


def test_CONF12_one_bad_mirror_spoils_the_pull_before_any_request() -> None:
    mirrors = (Mirror("good.com"), Mirror("bad.com/UP"))
    with pytest.raises(ConfigurationError, match="lowercase"):
        places("a.com/x", Registry("a.com", "a.com", mirrors=mirrors))


def test_CONF12_a_bad_mirror_that_is_not_asked_spoils_nothing() -> None:
    mirrors = (Mirror("bad.com/UP", pulls="digest-only"),)
    registry = Registry("a.com", "a.com", mirrors=mirrors)
    assert places("a.com/x", registry) == ["a.com/x:latest"]


@pytest.mark.parametrize(
    ("pulls", "by_tag", "by_digest"),
    [("all", True, True), ("tag-only", True, False), ("digest-only", False, True)],
)
def test_CONF13_mirrors_serve_the_pulls_that_they_are_for(
    pulls: Pulls, *, by_tag: bool, by_digest: bool
) -> None:
    registry = Registry("a.com", "a.com", mirrors=(Mirror("m.com", pulls=pulls),))
    for text, served in (
        ("a.com/x:t", by_tag),
        (f"a.com/x@{DIGEST}", by_digest),
        (f"a.com/x:t@{DIGEST}", by_digest),
    ):
        found = list(list_locations(name(text), registry))
        assert [candidate.is_mirror for candidate in found] == [True, False][not served :]


def test_CONF13_mirrors_come_in_the_order_of_the_file_and_the_registry_last() -> None:
    mirrors = (Mirror("z.com"), Mirror("a.com"), Mirror("m.com"))
    registry = Registry("r.com", "s.com", mirrors=mirrors)
    assert places("r.com/x:t", registry) == ["z.com/x:t", "a.com/x:t", "m.com/x:t", "s.com/x:t"]


def test_CONF18_CONF19_what_holds_for_a_candidate_is_its_own() -> None:
    mirrors = (
        Mirror("plain.lan", insecure=True, proxy="http://one:1"),
        Mirror("safe.com", tells_registry=True),
    )
    registry = Registry("r.com", "s.com", mirrors=mirrors, proxy="http://two:2")
    plain, safe, own = list_locations(name("r.com/x:t"), registry)
    assert (plain.insecure, safe.insecure, own.insecure) == (True, False, False)
    assert (plain.proxy, safe.proxy, own.proxy) == ("http://one:1", None, "http://two:2")
    assert [each.name.registry for each in (plain, safe, own)] == ["plain.lan", "safe.com", "s.com"]


def test_TLS05_an_insecure_registry_has_secure_mirrors() -> None:
    registry = Registry("r.com", "r.com", insecure=True, mirrors=(Mirror("m.com"),))
    assert [each.insecure for each in list_locations(name("r.com/x"), registry)] == [False, True]


def test_CONF20_only_a_mirror_that_wants_it_is_told_the_registry() -> None:
    mirrors = (Mirror("m.com"), Mirror("n.com", tells_registry=True))
    registry = Registry("docker.io", "docker.io", mirrors=mirrors)
    told = [each.mirrored_registry for each in list_locations(name("busybox"), registry)]
    assert told == [None, "docker.io", None]


def test_CONF17_a_blocked_candidate_is_refused_by_name_and_file() -> None:
    ImageLocation(name("a.com/x")).check_allowed()
    blocked = ImageLocation(name("a.com/x"), blocked=Registry("a.com", "a.com", origin=FILE))
    with pytest.raises(ConfigurationError, match=r"a\.com/x is blocked") as caught:
        blocked.check_allowed()
    assert str(FILE) in caught.value.message


def test_CONF15_the_error_of_the_only_candidate_is_as_it_is() -> None:
    error = ManifestNotFoundError("no such tag")
    assert join_failures([(ImageLocation(name("a.com/x:t")), error)]) is error
    assert str(error) == "no such tag"


def test_CONF15_the_error_of_several_is_that_of_the_registry_and_tells_of_the_mirrors() -> None:
    own = TooManyRequestsError("slow down", status=429, retry_after=7.0)
    joined = join_failures(
        [
            (ImageLocation(name("m.com/x:t"), is_mirror=True), NetworkError("no route")),
            (
                ImageLocation(name("n.com/x:t"), is_mirror=True),
                ManifestNotFoundError("no such tag"),
            ),
            (ImageLocation(name("a.com/x:t")), own),
        ]
    )
    assert str(joined) == (
        "(Mirrors also failed: [m.com/x:t: no route]\n[n.com/x:t: no such tag]): "
        "a.com/x:t: slow down"
    )
    assert isinstance(joined, TooManyRequestsError)
    assert (joined.status, joined.retry_after) == (429, 7.0)
    assert joined.__cause__ is own
    assert str(own) == "slow down"


HOSTS = st.sampled_from(["a.com", "b.a.com", "c.b.a.com", "a.com:5000", "docker.io", "localhost"])
PATHS = st.sampled_from(["x", "x/y", "a.com", "x/a.com/y"])


@given(HOSTS, PATHS, st.integers(0, 3), HOSTS)
def test_CONF12_what_follows_the_prefix_is_kept_and_what_precedes_it_replaced(
    host: str, path: str, depth: int, location: str
) -> None:
    logical = ImageName(host, path, "t")
    prefix = "/".join(logical.repository.split("/")[: depth + 1])
    text = f"{location}/z/w"
    [candidate] = list_locations(logical, Registry(prefix, text))
    assert candidate.name.repository == text + logical.repository.removeprefix(prefix)
    assert candidate.name.tag == "t"
