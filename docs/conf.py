"""Configuration of Sphinx: ``sphinx-build -W -b html docs docs/_build``."""

import sys
from pathlib import Path
from typing import Any

import fusedrnn

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "fusedrnn"
author = "fusedrnn contributors"
copyright = author
version = release = fusedrnn.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "linked_names",
    "mathml",
]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = (
    "none"  # the docstrings say shapes and dtypes, the annotations only that it is an array
)
autodoc_default_options = {"members": True, "show-inheritance": True}
add_module_names = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"fusedrnn {release}"
html_static_path = ["_static"]
html_css_files = ["guide.css"]
html_copy_source = False
html_show_sourcelink = False
templates_path = []
copybutton_exclude = ".linenos, .gp"
exclude_patterns = ["_build", "_ext"]


def skip(app: Any, what: str, name: str, member: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out ``config``, which the base class explains, and the fields of named tuples."""
    if name == "config":
        return (
            True if getattr(member, "__qualname__", "") not in ("config", "Layer.config") else None
        )
    return True if (getattr(member, "__doc__", None) or "").startswith("Alias for field") else None


def setup(app: Any) -> None:
    """Connect the above."""
    app.connect("autodoc-skip-member", skip)
