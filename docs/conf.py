"""The site: ``nox -s docs`` builds it, and fails on each warning."""

project = "asupplemented"
author = "The asupplemented authors"
project_copyright = author
html_title = project

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"

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
