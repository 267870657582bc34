"""Write formulas as MathML, which browsers draw by themselves: no script, no font and no network is needed."""

from __future__ import annotations

from html import escape

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

logger = logging.getLogger(__name__)


def _convert(node: nodes.Element, block: bool) -> str:
    """Return the MathML of a formula, or with a warning its text if it cannot be converted."""
    text = node.astext().strip()
    if r"\\" in text and r"\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    try:
        return str(tex2mathml(text, as_block=block)).replace("\n", "")
    except MathError as error:
        logger.warning("formula: %s in %s", error, text, location=node)
        return escape(text)


def _inline(translator: HTML5Translator, node: nodes.math) -> None:
    translator.body.append(_convert(node, block=False))
    raise nodes.SkipNode


def _block(translator: HTML5Translator, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math">{_convert(node, block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the renderer."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
