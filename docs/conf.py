"""Configuration of Sphinx: ``sphinx-build -W -b html docs docs/_build``."""

import fusedrnn

project = "fusedrnn"
author = "fusedrnn contributors"
version = release = fusedrnn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 2

napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say shapes and dtypes, the annotations only that it is an array
autodoc_default_options = {"members": True, "show-inheritance": True}

html_theme = "furo"
html_title = f"fusedrnn {release}"
exclude_patterns = ["_build"]
