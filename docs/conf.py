"""The site: ``nox -s docs`` builds it, and fails on each warning."""

from __future__ import annotations

import builtins
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx import addnodes
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).parents[1]))

from docs.generated import fill

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "asupplemented"
author = "The asupplemented authors"
project_copyright = author
html_title = project

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]

# links to headings are checked as links to pages are
myst_heading_anchors = 3

# `Name` in a docstring is a link where the site has a page for it, else plain code
default_role = "py:obj"
# a public name is found under its own module, too; either page will do
suppress_warnings = ["ref.python"]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80

PACKAGE = "asupplemented"
USER_MODULES = (
    PACKAGE,
    *(f"{PACKAGE}.{name}" for name in ("abc", "limits", "telemetry")),
    *(f"{PACKAGE}.{name}" for name in ("testing", "transports", "web")),
)
"""The modules that users import from; the reference has every public name of theirs."""

MARKUP = re.compile(r"`|:\w+:|^(?:Args|Returns|Raises|Attributes):|^Alias for field", re.MULTILINE)
NAME = re.compile(
    r"(?P<path>(?:asup(?:plemented)?\.)?(?:(?:abc|testing|telemetry|transports|web)\.)?)"
    r"(?P<name>[A-Za-z_]\w+)(?P<field>(?:\.\w+)?)(?P<call>(?:\(.*\))?)"
)
SHORT = 36
"""Characters of code that fit into a line of a narrow screen."""

PROSE = re.compile(r"[a-z] [a-z]")
FIELDS = frozenset({"Parameters", "Returns", "Raises", "Type", "Yields"})
"""What napoleon makes of the sections of a docstring."""

PLAIN = frozenset({"attribute", "data", "property"})
COLON = "\N{RATIO}"
"""Stands for a colon while napoleon reads a docstring."""


def setup(app: Sphinx) -> None:
    """Connect what this site needs besides its extensions."""
    # before and after napoleon, which connects with the default priority of 500
    app.connect("autodoc-process-docstring", hide_colons, priority=400)
    app.connect("autodoc-process-docstring", show_colons, priority=600)
    app.connect("env-check-consistency", check_reference)
    app.connect("source-read", fill_page)
    app.connect("doctree-read", tidy_entries)
    app.connect("doctree-read", link_names)
    app.connect("doctree-resolved", check_entries)


def fill_page(_app: Sphinx, _page: str, source: list[str]) -> None:
    """Put the parts that are made from the code into a page."""
    source[0] = fill(source[0])


def hide_colons(
    _app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Hide colons from napoleon, which reads "a type: a text" in the docstring of an attribute.

    The types of attributes are annotations, so a colon there is a colon of the sentence.
    """
    if what in PLAIN and lines:
        lines[0] = lines[0].replace(":", COLON)


def show_colons(
    _app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Undo `hide_colons`."""
    if what in PLAIN:
        lines[:] = [line.replace(COLON, ":") for line in lines]


def tidy_entries(_app: Sphinx, tree: nodes.document) -> None:
    """Remove the base that every class has, and links from builtins to attributes of their name."""
    for link in list(tree.findall(addnodes.pending_xref)):
        if link.get("reftarget") in vars(builtins) and link.get("refdomain") == "py":
            short = link.next_node(addnodes.pending_xref_condition)
            link.replace_self((link if short is None else short).children)
    for paragraph in list(tree.findall(nodes.paragraph)):
        if paragraph.astext() == "Bases: object":
            paragraph.parent.remove(paragraph)


def link_names(app: Sphinx, tree: nodes.document) -> None:
    """Link code that is a public name, and keep short code on one line."""
    page = app.env.docname
    known = {name: f"{module}.{name}" for module, name in find_names()}
    known |= {name: f"{PACKAGE}.{name}" for module, name in find_names() if module == PACKAGE}
    if page.endswith("testing"):
        known |= {name: target for name, target in known.items() if ".testing." in target}

    def find_target(text: str) -> str | None:
        found = NAME.fullmatch(text)
        target = None if found is None else known.get(found["name"])
        if found is None or target is None:
            return None
        if found["name"].islower() and not (found["path"] or found["call"]):
            return None  # as likely a word, or a command
        return f"{target}{found['field']}"

    for link in tree.findall(addnodes.pending_xref):
        if link.get("reftype") == "obj":
            link["reftarget"] = find_target(link["reftarget"]) or link["reftarget"]
    for code in list(tree.findall(nodes.literal)):
        text = code.astext()
        if len(text) <= SHORT:
            code["classes"].append("short")
        target = find_target(text)
        if target and not isinstance(code.parent, nodes.reference | addnodes.pending_xref):
            link = addnodes.pending_xref(
                "", refdomain="py", reftype="obj", refdoc=page, reftarget=target
            )
            code.replace_self(link)
            link += code


def check_entries(_app: Sphinx, tree: nodes.document, page: str) -> None:
    """Warn of entries that say nothing, and of those that docutils or napoleon misread."""
    for entry in tree.findall(addnodes.desc):
        problem = find_problem(entry.next_node(addnodes.desc_content))
        if problem:
            name = entry.next_node(addnodes.desc_signature)
            said = name.astext() if name else "an entry"
            logging.getLogger(__name__).warning("%s: %s says %r", page, said, problem)


def find_problem(content: nodes.Element | None) -> str | None:
    """Text of an entry that still has markup, or a field that only a colon can have made."""
    if content is None or not content.children:
        return "nothing"
    for paragraph in content.findall(nodes.paragraph):
        for text in paragraph.findall(nodes.Text):
            if not isinstance(text.parent, nodes.literal) and MARKUP.search(text):
                return str(text)
    for field in content.findall(nodes.field):
        name, body = (each.astext() for each in field.children)
        if name not in FIELDS or (name == "Type" and PROSE.search(body)):
            return f"{name}: {body}"
    return None


def check_reference(_app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that have no entry in the reference, lazy ones included."""
    anchors = {name for name, *_ in env.get_domain("py").get_objects()}
    for module, name in find_names():
        value = getattr(import_module(module), name)
        home = f"{getattr(value, '__module__', module)}.{name}"
        if anchors.isdisjoint({f"{module}.{name}", f"{PACKAGE}.{name}", home}):
            logging.getLogger(__name__).warning("the reference lacks %s.%s", module, name)


def find_names() -> Iterator[tuple[str, str]]:
    """The public names of the modules for users, those that are modules aside."""
    for module in USER_MODULES:
        public = import_module(module)
        for name in public.__all__:
            if f"{module}.{name}" not in USER_MODULES:
                yield module, name
