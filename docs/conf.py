"""Configuration of Sphinx: ``sphinx-build -W -b html docs docs/_build``."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fusedrnn
from fusedrnn.layers.protocol import LayerProtocol
from fusedrnn.training import Callback

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
if find_spec("torch") is None:  # large; without it the reference lacks the page of fusedrnn.torch
    exclude_patterns.append("api/torch.md")
    suppress_warnings = ["toc.excluded", "myst.xref_missing"]


# What a base class documents once: what a layer answers to composites, what a callback may do.
ONCE = {"config", "from_config", *vars(LayerProtocol), *vars(Callback)} - {"stream", "__doc__"}


def skip(app: Any, what: str, name: str, member: Any, skipped: bool, options: Any) -> bool | None:
    """Leave out overrides that say nothing new, fields of named tuples, and scikit-learn's routing of metadata."""
    if name.startswith("set_") and name.endswith("_request"):
        return True
    if (getattr(member, "__doc__", None) or "").startswith("Alias for field"):
        return True
    owner = getattr(getattr(member, "fget", member), "__qualname__", "").rpartition(".")[0]
    return (
        True if name in ONCE and owner not in ("", "Layer", "LayerProtocol", "Callback") else None
    )


def setup(app: Any) -> None:
    """Connect the above."""
    app.connect("autodoc-skip-member", skip)
