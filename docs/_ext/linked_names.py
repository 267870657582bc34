"""Make a link of each public name that stands in code font: ``LSTM``, ``fr.fit``, ``gradient_flow``."""

from __future__ import annotations

import re
from importlib import import_module

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

MODULES = (
    "layers",
    "models",
    "training",
    "training.schedules",
    "data",
    "diagnostics",
    "init",
    "functional",
    "cuda",
    "",
)
NAME = re.compile(r"(?:fr\.|fusedrnn\.)?((?:[a-z]+\.)*)([A-Za-z_]\w*)(?:\(\))?")
# Words of the language and of other libraries that happen to be names of ours.
COMMON = {"config", "load", "save", "init", "normal", "uniform", "constant", "step"}


def public_names() -> dict[str, str]:
    """Return {name as pages write it: full name}, with and without the module; the first module wins."""
    names: dict[str, str] = {}
    for short in MODULES:
        module = import_module(f"fusedrnn.{short}".rstrip("."))
        for name in getattr(module, "__all__", ()):
            if not callable(getattr(module, name)):
                continue
            full = f"{module.__name__}.{name}"
            names.setdefault(f"{short}.{name}".lstrip("."), full)
            if name not in COMMON:
                names.setdefault(name, full)
    return names


def link(app: Sphinx, doctree: nodes.document) -> None:
    """Replace literals by references to what they name; headings and what is a link already stay."""
    page = app.env.docname
    for reference in doctree.findall(pending_xref):  # docstrings name types without their module
        target = reference.get("reftarget")
        if (
            reference.get("refdomain") == "py"
            and page != "api/torch"
            and target in app.linked_names
        ):
            reference["reftarget"] = app.linked_names[target]
    for literal in list(doctree.findall(nodes.literal)):
        match = NAME.fullmatch(literal.astext())
        if match is None or isinstance(
            literal.parent, (pending_xref, nodes.reference, nodes.title)
        ):
            continue
        written = "".join(match.groups())
        prefixed = literal.astext().startswith(("fr.", "fusedrnn."))
        full = app.linked_names.get(written)
        if full is None or (written in COMMON and not prefixed):
            continue
        reference = pending_xref(
            "",
            literal.deepcopy(),
            refdomain="py",
            reftype="obj",
            reftarget=full,
            refexplicit=True,
            refwarn=False,
        )
        reference["refdoc"] = app.env.docname
        literal.replace_self(reference)


def setup(app: Sphinx) -> dict[str, bool]:
    """Read the names once, then link in each page."""
    app.linked_names = public_names()
    app.connect("doctree-read", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
