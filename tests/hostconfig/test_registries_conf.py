"""What one registries.conf says, and what it may not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from asupplemented.errors import ConfigurationError
from asupplemented.hostconfig.registries_conf import Mirror, Registry, parse_registries_conf

PATH = Path("/etc/containers/registries.conf")
SECRET = "hunter2"  # noqa: S105 - that is what it stands for


def refuse(text: str, *parts: str) -> None:
    """Parsing fails, and the message names the file and each of the parts."""
    with pytest.raises(ConfigurationError) as caught:
        parse_registries_conf(text, PATH)
    for part in (str(PATH), *parts):
        assert part in caught.value.message


def test_everything_that_can_be_said() -> None:
    text = """
        unqualified-search-registries = ["quay.io", "localhost:5000/"]
        credential-helpers = ["secretservice"]
        short-name-mode = "enforcing"
        additional-layer-store-auth-helper = "helper"

        [[registry]]
        prefix = "example.com/team"
        location = "internal.example.com/team/"
        insecure = true
        blocked = true
        proxy = "http://proxy:3128"
        [[registry.mirror]]
        location = "mirror.lan:5000/team"
        insecure = true
        pull-from-mirror = "tag-only"
        proxy = "https://proxy.lan"
        asupplemented-tells-registry = true
        [[registry.mirror]]
        location = "mirror.lan/other"

        [aliases]
        fedora = "registry.fedoraproject.org/fedora"
    """
    fragment = parse_registries_conf(text, PATH)
    assert fragment.registries == (
        Registry(
            "example.com/team",
            "internal.example.com/team",
            insecure=True,
            blocked=True,
            mirrors=(
                Mirror(
                    "mirror.lan:5000/team",
                    insecure=True,
                    pulls="tag-only",
                    tells_registry=True,
                    proxy="https://proxy.lan",
                ),
                Mirror("mirror.lan/other"),
            ),
            proxy="http://proxy:3128",
            origin=PATH,
        ),
    )
    assert fragment.search == ("quay.io", "localhost:5000")
    assert fragment.helpers == ("secretservice",)
    assert fragment.mode == "enforcing"
    assert {name: str(value) for name, value in fragment.aliases.items()} == {
        "fedora": "registry.fedoraproject.org/fedora"
    }
    assert fragment.warnings == ()


def test_nothing_said_is_not_the_same_as_nothing_wanted() -> None:
    silent = parse_registries_conf("", PATH)
    assert (silent.search, silent.helpers, silent.mode) == (None, None, None)
    empty = parse_registries_conf(
        "unqualified-search-registries = []\ncredential-helpers = []", PATH
    )
    assert (empty.search, empty.helpers) == ((), ())


@pytest.mark.parametrize("name", ["search", "insecure", "block"])
@pytest.mark.parametrize("beside", ["", '[[registry]]\nlocation = "a.com"\n', "[aliases]\n"])
def test_CONF04_version_1_is_refused_and_the_error_shows_version_2(name: str, beside: str) -> None:
    refuse(
        f"{beside}[registries.{name}]\nregistries = []",
        "version 1",
        f"[registries.{name}]",
        "[[registry]]",
    )


def test_CONF04_empty_tables_of_version_1_do_no_harm() -> None:
    text = '[registries]\n[registries.search]\n[[registry]]\nlocation = "a.com"'
    assert [table.prefix for table in parse_registries_conf(text, PATH).registries] == ["a.com"]


def test_CONF04_unknown_keys_are_ignored_with_a_remark() -> None:
    text = """
        colour = "red"
        [[registry]]
        location = "a.com"
        taste = "sweet"
        [[registry.mirror]]
        location = "b.com"
        smell = "none"
    """
    fragment = parse_registries_conf(text, PATH)
    assert [table.prefix for table in fragment.registries] == ["a.com"]
    assert [remark.partition("the key ")[2] for remark in fragment.warnings] == [
        "'colour' is unknown, and ignored",
        "'taste' is unknown, and ignored",
        "'smell' is unknown, and ignored",
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('[[registry]]\nlocation = "a.com"\nBlocked = true', "blocked"),
        ('[[Registry]]\nlocation = "a.com"', "registry"),
        (
            '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\nINSECURE = true',
            "ins",
        ),
        ('[registries.Block]\nregistries = ["a.com"]', "block"),
        ('[registries.block]\nRegistries = ["a.com"]', "registries"),
    ],
)
def test_CONF04_a_key_in_another_case_is_refused_as_others_would_obey_it(
    text: str, key: str
) -> None:
    refuse(text, f"must be written {key}")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("registry = 1", "$.registry"),
        ('[[registry]]\nlocation = "a"\ninsecure = "yes"', "$.registry[0].insecure"),
        ('[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = 1', "mirror[0].location"),
        ('unqualified-search-registries = "a.com"', "$.unqualified-search-registries"),
        ('[aliases]\n"a" = 1', "$.aliases"),
        ("registries = []", "$.registries"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(text: str, place: str) -> None:
    refuse(text, place)


def test_CONF05_a_missing_prefix_is_the_location() -> None:
    [table] = parse_registries_conf('[[registry]]\nlocation = "a.com/b//"', PATH).registries
    assert (table.prefix, table.location) == ("a.com/b", "a.com/b")


@pytest.mark.parametrize("text", ["", 'location = "/"', 'prefix = "/"', 'prefix = ""'])
def test_CONF05_prefix_and_location_are_not_both_missing(text: str) -> None:
    refuse(f"[[registry]]\n{text}", "number 1", "neither prefix nor location")


def test_CONF05_only_a_wildcard_may_lack_a_location() -> None:
    [table] = parse_registries_conf('[[registry]]\nprefix = "*.a.com"', PATH).registries
    assert table.location is None
    refuse('[[registry]]\nprefix = "a.com"', "'a.com'", "no location")


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "text",
    [
        '[[registry]]\nlocation = "{}://a.com"',
        '[[registry]]\nlocation = "a.com"\nprefix = "{}://a.com"',
        '[[registry]]\nlocation = "a.com"\n[[registry.mirror]]\nlocation = "{}://b.com"',
        'unqualified-search-registries = ["{}://a.com"]',
    ],
)
def test_CONF05_no_location_has_a_scheme(text: str, scheme: str) -> None:
    refuse(text.format(scheme), "must not have a scheme", "insecure = true")


@pytest.mark.parametrize(
    "text",
    [
        f'[[registry]]\nlocation = "https://user:{SECRET}@a.com"',
        f'[[registry]]\nprefix = "user:{SECRET}@a.com"',
        f'unqualified-search-registries = ["user:{SECRET}@a.com"]',
        f'[aliases]\na = "user:{SECRET}@a.com/x"',
    ],
)
def test_CONF05_what_may_be_a_password_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_registries_conf(text, PATH)
    assert "a.com" in caught.value.message
    assert SECRET not in f"{caught.value}{caught.value.__cause__}{caught.value.__context__}"


@pytest.mark.parametrize("key", ["insecure", "blocked"])
def test_CONF06_tables_of_one_location_agree(key: str) -> None:
    text = f"""
        [[registry]]
        location = "a.com"
        {key} = true
        [[registry]]
        location = "a.com"
        prefix = "b.com"
        {key} = %s
    """
    assert len(parse_registries_conf(text % "true", PATH).registries) == 2
    refuse(text % "false", "'a.com'", f"differ in {key}")


def test_CONF06_tables_without_location_agree_by_prefix() -> None:
    table = '[[registry]]\nprefix = "*.a.com"\n'
    refuse(f"{table}insecure = true\n{table}", "differ in insecure")


def test_CONF06_different_wildcards_may_differ() -> None:
    text = '[[registry]]\nprefix = "*.a.com"\n[[registry]]\nprefix = "*.b.com"\nblocked = true'
    assert [table.blocked for table in parse_registries_conf(text, PATH).registries] == [
        False,
        True,
    ]


def test_CONF06_of_tables_with_one_prefix_the_first_wins() -> None:
    text = """
        [[registry]]
        location = "one.com"
        prefix = "a.com"
        [[registry]]
        location = "two.com"
        prefix = "a.com"
    """
    fragment = parse_registries_conf(text, PATH)
    assert [table.location for table in fragment.registries] == ["one.com"]
    [remark] = fragment.warnings
    assert "the second [[registry]] of prefix 'a.com' is ignored" in remark


def test_CONF07_pull_from_mirror_is_for_mirrors() -> None:
    text = '[[registry]]\nlocation = "a.com"\npull-from-mirror = "all"'
    refuse(text, "'a.com'", "belongs in a [[registry.mirror]]")


def test_CONF07_pull_from_mirror_has_three_values() -> None:
    text = (
        '[[registry]]\nlocation="a.com"\n[[registry.mirror]]\nlocation="b.com"\npull-from-mirror='
    )
    for value in ("all", "digest-only", "tag-only"):
        [table] = parse_registries_conf(f'{text}"{value}"', PATH).registries
        assert table.mirrors[0].pulls == value
    refuse(f'{text}"sometimes"', "'b.com'", "all or digest-only or tag-only", "'sometimes'")


@pytest.mark.parametrize("value", ["all", "digest-only", "tag-only"])
def test_CONF07_pull_from_mirror_contradicts_mirror_by_digest_only(value: str) -> None:
    text = f"""
        [[registry]]
        location = "a.com"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "b.com"
        pull-from-mirror = "{value}"
    """
    refuse(text, "contradicts mirror-by-digest-only")


def test_CONF13_mirror_by_digest_only_is_about_all_mirrors() -> None:
    text = """
        [[registry]]
        location = "a.com"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "b.com"
        [[registry.mirror]]
        location = "c.com"
    """
    [table] = parse_registries_conf(text, PATH).registries
    assert [mirror.pulls for mirror in table.mirrors] == ["digest-only", "digest-only"]


@pytest.mark.parametrize("location", ["", 'location = ""', 'location = "/"'])
def test_CONF07_a_mirror_has_a_location(location: str) -> None:
    refuse(f'[[registry]]\nlocation = "a.com"\n[[registry.mirror]]\n{location}', "no location")


@pytest.mark.parametrize("prefix", ["*.a.com/b", "*.a.com:5000", "*.a.com@sha256"])
def test_CONF08_a_wildcard_stands_for_hosts_alone(prefix: str) -> None:
    refuse(f'[[registry]]\nprefix = "{prefix}"', "number 1", "*.host")


@pytest.mark.parametrize("name", ["", "a.com/b", "a b", "-a.com", "a.com:x"])
def test_a_registry_to_search_is_a_host(name: str) -> None:
    refuse(f'unqualified-search-registries = ["{name}"]', "not a host[:port]")


def test_SHORT01_the_mode_is_one_of_three() -> None:
    for mode in ("permissive", "enforcing", "disabled"):
        assert parse_registries_conf(f'short-name-mode = "{mode}"', PATH).mode == mode
    assert parse_registries_conf('short-name-mode = ""', PATH).mode is None
    refuse('short-name-mode = "strict"', "short-name-mode is permissive or", "'strict'")


@pytest.mark.parametrize(
    "proxy",
    [
        f"socks5://user:{SECRET}@proxy:1080",
        f"user:{SECRET}@proxy:3128",
        f"http://user:{SECRET}",
        f"http://user:{SECRET}@",
        f"http://[user:{SECRET}@proxy",
        f"http://user:{SECRET}@proxy:port",
        f"http://user:{SECRET}@proxy:3128\\n",
    ],
)
@pytest.mark.parametrize("where", ["", '[[registry.mirror]]\nlocation = "b.com"'])
def test_TLS07_a_proxy_is_a_url_and_never_shown(proxy: str, where: str) -> None:
    text = f'[[registry]]\nlocation = "a.com"\n{where}\nproxy = "{proxy}"'
    with pytest.raises(ConfigurationError, match="proxy") as caught:
        parse_registries_conf(text, PATH)
    shown = repr(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert SECRET not in shown


def test_TLS07_a_proxy_is_not_shown_by_the_values_that_hold_it() -> None:
    text = f'[[registry]]\nlocation = "a.com"\nproxy = "http://u:{SECRET}@p"\n'
    text += f'[[registry.mirror]]\nlocation = "b.com"\nproxy = "http://u:{SECRET}@p"'
    fragment = parse_registries_conf(text, PATH)
    assert fragment.registries[0].proxy == f"http://u:{SECRET}@p"
    assert SECRET not in repr(fragment)
