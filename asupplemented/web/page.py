"""The status page: a `Status` as a tree of elements, and the tree as HTML.

The tree is what the page shows. The server renders it as HTML, for browsers without scripts and for
the first look, and sends it again and again as JSON (rule SRV-52). The script makes elements and
text nodes of it and does not know what they mean, so all words and numbers are made here.

Text comes from clients and registries. In HTML it is escaped; the script makes text nodes of it. No
name of an element or attribute comes from there.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from asupplemented.model.sizes import show_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asupplemented.web.status import (
        BlobsStatus,
        BudgetStatus,
        CacheStatus,
        ManifestStatus,
        MemberStatus,
        PlanStatus,
        RunningStatus,
        Status,
    )

__all__ = ("Element", "build_tree", "render_page", "show_time")

_DIGEST: Final = re.compile(r"(sha\d+:[0-9a-f]{12})[0-9a-f]{20,}")
_VOID: Final = frozenset(("link", "meta"))
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_NOTHING: Final = "\N{EN DASH}"
_CACHE_USES: Final = {
    "hit": "from the cache",
    "joined": "joined a running fetch",
    "stale": "stale",
    "miss": "fetched",
}


class Element(msgspec.Struct, frozen=True, array_like=True):
    """An element of HTML."""

    tag: str
    attributes: dict[str, str]
    children: tuple[Element | str, ...]


_Node: TypeAlias = "Element | str"


def _make(tag: str, *children: _Node, **attributes: str) -> Element:
    """An element. Write ``class_`` for ``class`` and ``data_label`` for ``data-label``."""
    named = {name.strip("_").replace("_", "-"): value for name, value in attributes.items()}
    return Element(tag, named, children)


# Words


def _show_duration(seconds: float) -> str:
    """A duration in its two largest units, such as ``"3 d 4 h"``."""
    left, parts = int(seconds), list[str]()
    for size, unit in _UNITS:
        if (left >= size or size == 1) and len(parts) < 2:  # noqa: PLR2004
            count, left = divmod(left, size)
            if count or not parts:
                parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts)


def _show_latency(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def show_time(seconds: float, *, date: bool = False) -> str:
    """A time in seconds since the epoch, such as ``"14:00:05 UTC"``."""
    form = "%Y-%m-%d %H:%M:%S UTC" if date else "%H:%M:%S UTC"
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def _show_count(count: int, one: str, several: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _show_source(source: str) -> str:
    """A member as the page names it: a registry by its host."""
    return source.removeprefix("docker://").removesuffix("/")


def _shorten(text: str) -> str:
    return _DIGEST.sub(r"\1…", text)


def _code(text: str, **attributes: str) -> Element:
    """An identifier; a digest is shortened, and whole in its title."""
    short = _shorten(text)
    titled = {} if short == text else {"title": text}
    return _make("code", short, **titled, **attributes)


def _pill(kind: str, text: str) -> Element:
    return _make("span", text, class_=f"pill {kind}")


def _note(text: str) -> Element:
    return _make("span", text, class_="note")


# Tables


def _table(
    label: str, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[_Node]]
) -> Element:
    """A table. On narrow screens each row is a card, so each cell has its column as a label.

    Roles are spelled out, since browsers forget them where a table is not displayed as one.

    Args:
        label: The id of its heading.
        columns: Name and class of each.
        rows: The cells, as many as there are columns.
    """
    head = (
        _make("th", name, scope="col", role="columnheader", class_=kind) for name, kind in columns
    )
    body = (
        _make(
            "tr",
            *(
                _make("td", cell, role="cell", class_=_classify(cell, kind), data_label=name)
                for cell, (name, kind) in zip(row, columns, strict=True)
            ),
            role="row",
        )
        for row in rows
    )
    return _make(
        "table",
        _make("thead", _make("tr", *head, role="row"), role="rowgroup"),
        _make("tbody", *body, role="rowgroup"),
        role="table",
        aria_labelledby=label,
    )


def _classify(cell: _Node, kind: str) -> str:
    """The class of a cell; narrow screens leave out those that say nothing."""
    return f"{kind} none" if cell == _NOTHING else kind


def _section(name: str, title: str, *children: _Node, note: str = "") -> Element:
    heading = _make("h2", title, id=name)
    head = _make("div", heading, *((_note(note),) if note else ()), class_="head")
    return _make("section", head, *children, class_=name, aria_labelledby=name, data_key=name)


def _empty(text: str) -> Element:
    return _make("p", text, class_="empty")


def _cell(*parts: _Node) -> Element:
    """Several lines in one cell."""
    return _make("div", *parts, class_="lines")


# Sections


def build_tree(status: Status) -> tuple[Element, ...]:
    """What the page shows, from top to bottom."""
    return (
        _describe_server(status),
        _describe_totals(status),
        _describe_running(status),
        _describe_members(status),
        _describe_plans(status),
        _describe_cache(status),
        _describe_names(status),
        _describe_warnings(status),
    )


def _describe_server(status: Status) -> Element:
    parts = [
        "asupplemented" if status.version is None else f"asupplemented {status.version}",
        _show_count(status.processes, "process", "processes"),
        f"up {_show_duration(status.taken - status.started)}",
    ]
    return _make("p", " · ".join(parts), class_="server", data_key="server")


def _describe_totals(status: Status) -> Element:
    totals = status.totals
    found = totals.hits + totals.misses
    ratio = _NOTHING if not found else f"{totals.hits / found:.1%}"
    tiles = (
        ("Running", f"{status.running_count:,}", "requests now"),
        ("Requests", f"{totals.requests:,}", f"{totals.refused:,} refused"),
        ("Failed", f"{totals.failed:,}", "5xx or cut"),
        ("Sent", show_size(totals.sent), "to clients"),
        ("Read", show_size(totals.fetched), f"{totals.asked:,} upstream requests"),
        ("Hit ratio", ratio, f"{totals.hits:,} of {found:,}"),
    )
    return _make(
        "dl",
        *(
            _make(
                "div",
                _make("dt", name),
                _make("dd", value, class_="value"),
                _make("dd", note, class_="note"),
                class_="tile bad" if name == "Failed" and totals.failed else "tile",
            )
            for name, value, note in tiles
        ),
        class_="tiles",
        data_key="totals",
    )


def _describe_running(status: Status) -> Element:
    if not status.running:
        body = _empty("No request is being answered.")
    else:
        columns = (
            ("Image", "wide"),
            ("Served by", "wide"),
            ("Progress", "bar"),
            ("Rate", "number"),
            ("Time", "number"),
        )
        body = _table("running", columns, map(_describe_request, status.running))
    hidden = status.running_count - len(status.running)
    return _section("running", "Running", body, note=f"and {hidden:,} more" if hidden else "")


def _describe_request(each: RunningStatus) -> Sequence[_Node]:
    rate = each.sent / each.seconds if each.seconds > 0 else 0
    if each.size is None:
        progress: _Node = _make("span", "waiting for a source", class_="note")
    else:
        share = each.sent / each.size if each.size else 1.0
        progress = _cell(
            _make("progress", value=str(each.sent), max=str(each.size or 1), aria_label="Sent"),
            _note(f"{show_size(each.sent)} of {show_size(each.size)} · {share:.0%}"),
        )
    name = _make("strong", each.name or _NOTHING)
    what = () if each.reference is None else (_code(each.reference),)
    use = (_note(_CACHE_USES[each.cache]),) if each.cache in _CACHE_USES else ()
    client = () if each.client is None else (_note(f"to {each.client}"),)
    return (
        _cell(name, *what, *client),
        _NOTHING if each.source is None else _cell(_code(each.source), *use),
        progress,
        f"{show_size(int(rate))}/s" if each.sent else _NOTHING,
        _show_duration(each.seconds) if each.seconds >= 1 else _show_latency(each.seconds),
    )


def _describe_members(status: Status) -> Element:
    if not status.members:
        return _section("members", "Members", _empty("No member was read from yet."))
    columns = (
        ("Member", "wide"),
        ("Health", "short"),
        ("Request budget", "bar"),
        ("Requests", "number"),
        ("Failures", "number"),
        ("Response", "number"),
        ("Read", "number"),
        ("Last failure", "wide"),
    )
    rows = (_describe_member(each, status.taken) for each in status.members)
    return _section("members", "Members", _table("members", columns, rows))


def _describe_member(member: MemberStatus, now: float) -> Sequence[_Node]:
    pills = {
        "ok": _pill("good", "healthy"),
        "probing": _pill("warn", "being tried again"),
        "failing": _pill("bad", "failing"),
    }
    health = pills[member.health]
    if member.health == "failing" and member.retry_in:
        health = _cell(health, _note(f"tried again in {_show_duration(member.retry_in)}"))
    failure: _Node = _NOTHING
    if member.error is not None:
        when = (_note(f"{_show_duration(now - member.failed)} ago"),) if member.failed else ()
        failure = _cell(_make("span", _shorten(member.error)), *when)
    return (
        _code(_show_source(member.source)),
        health,
        _NOTHING if member.budget is None else _describe_budget(member.budget),
        f"{member.requests:,}" if member.requests else _NOTHING,
        f"{member.failures:,}",
        _show_latency(member.seconds) if member.seconds else _NOTHING,
        show_size(member.served),
        failure,
    )


def _describe_budget(budget: BudgetStatus) -> Element:
    until = show_time(budget.resets).replace(":00 UTC", " UTC")
    if budget.limit is None:
        return _cell(f"{budget.remaining:,} left", _note(f"until {until}"))
    return _cell(
        _meter(budget.remaining, budget.limit, "Requests left", bad=budget.low),
        _note(f"{budget.remaining:,} of {budget.limit:,} until {until}"),
    )


def _meter(value: int, limit: int, label: str, *, bad: bool) -> Element:
    kind = "low" if bad else "fine"
    return _make("meter", value=str(value), max=str(limit), aria_label=label, class_=kind)


def _describe_plans(status: Status) -> Element:
    if not status.plans:
        return _section("plans", "Plans", _empty("No image is open."))
    hidden = status.plan_count - len(status.plans)
    return _section(
        "plans",
        "Plans",
        *map(_describe_plan, status.plans),
        note=f"and {hidden:,} more" if hidden > 0 else "which member serves what, and why",
    )


def _describe_plan(plan: PlanStatus) -> Element:
    facts: list[str] = []
    if plan.age is not None:
        facts.append(f"confirmed {_show_duration(plan.age)} ago")
    facts.append(_show_count(plan.manifest_count, "manifest"))
    if plan.leases:
        facts.append(_show_count(plan.leases, "request"))
    joint = "@" if ":" in plan.reference else ":"
    pills = [_pill("warn", "stale") if plan.stale else _pill("good", "current")]
    if plan.unavailable:
        pills.append(_pill("warn", f"{_show_count(len(plan.unavailable), 'member')} left out"))
    if plan.missing:
        pills.append(_pill("warn", f"{len(plan.missing):,} missing"))
    summary = _make(
        "summary",
        _make("strong", f"{plan.name}{joint}{_shorten(plan.reference)}"),
        *pills,
        _note(" · ".join(facts)),
    )
    name = f"{plan.name} {plan.reference} {plan.digest}"
    members = _make("ol", *_describe_plan_members(plan), start="0", class_="plan-members")
    columns = (("Manifest", "short"), ("Served by", "short"), ("Why", "wide"), ("Blobs", "wide"))
    table = _table("plans", columns, map(_describe_manifest, plan.manifests))
    hidden = plan.manifest_count - len(plan.manifests)
    more = (_empty(f"{_show_count(hidden, 'manifest')} more"),) if hidden > 0 else ()
    missing = (
        (
            _make(
                "p", "No member has ", *_between([_code(each) for each in plan.missing], ", "), "."
            ),
        )
        if plan.missing
        else ()
    )
    return _make("details", summary, members, table, *more, *missing, data_key=name)


def _describe_plan_members(plan: PlanStatus) -> Iterator[Element]:
    for number, reference in enumerate(plan.members):
        error = plan.unavailable.get(number)
        parts: list[_Node] = [_code(reference)]
        if number == 0:
            parts.append(_note(" the top"))
        if error is not None:
            parts.append(_make("span", f" left out: {_shorten(error)}", class_="problem"))
        yield _make("li", *parts)


def _describe_manifest(manifest: ManifestStatus) -> Sequence[_Node]:
    blobs = [_describe_blobs(each) for each in manifest.blobs]
    return (
        _cell(_make("span", manifest.platform or manifest.kind), _code(manifest.digest)),
        _show_members(manifest.members),
        _shorten(manifest.rule),
        _cell(*blobs) if blobs else _NOTHING,
    )


def _show_members(members: Sequence[int]) -> Element:
    first, others = members[0], ", ".join(map(str, members[1:]))
    served = _make("span", f"member {first}")
    return _cell(served, _note(f"else {others}")) if others else _cell(served)


def _describe_blobs(blobs: BlobsStatus) -> Element:
    others = "".join(f", else {member}" for member in blobs.members[1:])
    count = _show_count(blobs.count, "blob")
    text = f"{count}, {show_size(blobs.size)}: member {blobs.members[0]}{others}"
    return _make("span", text, title=blobs.rule)


def _between(nodes: Sequence[_Node], joint: str) -> Iterator[_Node]:
    for number, node in enumerate(nodes):
        if number:
            yield joint
        yield node


def _describe_cache(status: Status) -> Element:
    cache = status.cache
    parts: list[_Node] = []
    if cache is None:
        parts.append(_empty("There is no cache, or its files are being counted."))
    else:
        parts.append(_describe_fill(cache))
    if status.evictions:
        columns = (
            ("Evicted", "wide"),
            ("Size", "number"),
            ("Unused for", "number"),
            ("When", "short"),
        )
        rows = (
            (
                _code(each.digest),
                show_size(each.size),
                _NOTHING if each.unused is None else _show_duration(each.unused),
                f"{_show_duration(status.taken - each.at)} ago",
            )
            for each in status.evictions
        )
        parts.append(_table("cache", columns, rows))
    elif cache is not None:
        parts.append(_empty("Nothing was evicted."))
    return _section("cache", "Cache", *parts, note="" if cache is None else cache.path)


def _describe_fill(cache: CacheStatus) -> Element:
    share = cache.bytes / cache.limit
    facts = (
        _show_count(cache.entries, "entry", "entries"),
        f"{cache.pins:,} pinned",
        _show_count(cache.hits, "hit"),
        _show_count(cache.misses, "miss", "misses"),
    )
    size = f"{show_size(cache.bytes)} of {show_size(cache.limit)} · {share:.0%}"
    return _make(
        "div",
        _make("strong", size),
        _meter(cache.bytes, cache.limit, "Cache fill", bad=False),
        _note(" · ".join(facts)),
        class_="fill",
    )


def _describe_names(status: Status) -> Element:
    parts: list[_Node] = []
    if status.names:
        configured = (
            (_code(each.name), _cell(*(_code(member) for member in each.members)))
            for each in status.names
        )
        parts.append(_table("names", (("Name", "wide"), ("Stands for", "wide")), configured))
    if status.requested:
        columns = (
            ("Requested", "wide"),
            ("Requests", "number"),
            ("Sent", "number"),
            ("Last", "short"),
        )
        requested = (
            (
                _code(each.name),
                f"{each.requests:,}",
                show_size(each.sent),
                f"{_show_duration(status.taken - each.last)} ago",
            )
            for each in status.requested
        )
        parts.append(_table("names", columns, requested))
    if not parts:
        parts.append(_empty("No name is configured, and none was requested."))
    return _section("names", "Names", *parts)


def _describe_warnings(status: Status) -> Element:
    if not status.warnings:
        return _section("warnings", "Warnings", _empty("There was no warning."))
    columns = (("Warning", "wide"), ("Times", "number"), ("Last", "short"))
    rows = (
        (
            _cell(_make("span", _shorten(each.message)), _note(each.source)),
            f"{each.count:,}",
            f"{_show_duration(status.taken - each.at)} ago",
        )
        for each in status.warnings
    )
    return _section("warnings", "Warnings", _table("warnings", columns, rows))


# HTML


def render_page(status: Status) -> str:
    """The whole page, as it is without scripts."""
    head = _make(
        "head",
        _make("meta", charset="utf-8"),
        _make("title", "Registry status"),
        _make("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _make("meta", name="color-scheme", content="light dark"),
        _make("link", rel="icon", href="status.svg"),
        _make("link", rel="stylesheet", href="status.css"),
        _make("noscript", _make("meta", http_equiv="refresh", content="10")),
        _make("script", src="status.js", defer=""),
    )
    taken = f"Snapshot of {show_time(status.taken, date=True)}"
    body = _make(
        "body",
        _make(
            "header", _make("h1", "Registry status"), _make("p", taken, id="live", role="status")
        ),
        _make("main", *build_tree(status), id="status"),
    )
    html = _make("html", head, body, lang="en")
    return f"<!doctype html>\n{''.join(_render(html))}\n"


def _render(node: _Node) -> Iterator[str]:
    if isinstance(node, str):
        yield escape(node)
        return
    attributes = "".join(f' {name}="{escape(value)}"' for name, value in node.attributes.items())
    yield f"<{node.tag}{attributes}>"
    if node.tag not in _VOID:
        for child in node.children:
            yield from _render(child)
        yield f"</{node.tag}>"
