"""Several outputs of one sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_real, described, seed_sequence
from ..arrays.lengths import unragged, without_padding
from ..layers import Embedding, Layer, Tape, register_layer
from ..layers.calling import check_resets, clean_input, first, run_layer, runs_in_training
from ..layers.protocol import Shape, output_of
from ..layers.registry import layer_from_spec, layer_spec
from ..layers.states import add_states
from .model import (
    Model,
    batch_lengths,
    check_rank,
    embed,
    final_features,
    make_head,
    optional_layer,
    output_features,
    unembed,
)
from .pooling import POOLINGS, pooled, pooled_features, unpooled


@register_layer
class Heads(Model):
    """A sequence in, a dictionary of outputs: one head for each, of every step or of the sequence as a whole.

    In ``fit`` and ``evaluate`` y is a dictionary by the names of the heads, or a tuple in their order, as ``loss``,
    ``loss_weights``, ``metrics``, ``class_weight`` and ``sample_weight`` may be.

    Parameters
    ----------
    layer : Layer
        RNN, LSTM, GRU, Bidirectional, Residual, or any other from (B, T, I) to (B, T, H).
    heads : dict of str to Layer or int
        Each maps the layer's y at a step, or the pooled vector, to its output; a number stands for a Linear with that
        many.
    pooling : dict of str to {"last", "mean", "max"}, optional
        The heads that read one vector a sequence, as in ``SequenceToVector``; the others read every step.
    embedding : Embedding, optional
        For inputs that are tokens.
    seed : int, optional
        Seed for the weights of heads given as numbers.

    Raises
    ------
    ValueError
        If there is no head, a name is not one of a Python variable, or a pooling unknown.
    TypeError
        If a head is recurrent, or none of these.

    Examples
    --------
    >>> model = Heads(LSTM(16, 64), {"tag": 9, "mood": 3}, pooling={"mood": "mean"}, embedding=Embedding(5000, 16))
    >>> fit(model, texts, {"tag": tags, "mood": moods}, loss="cross_entropy", epochs=5, batch_size=32)
    """

    takes = frozenset({"lengths", "resets"})
    _fixed = frozenset({"pooling"})

    def __init__(
        self,
        layer: Layer,
        heads: Mapping[str, Layer | int],
        *,
        pooling: Mapping[str, str] | None = None,
        embedding: Embedding | None = None,
        seed: int | None = None,
    ) -> None:
        if not isinstance(heads, Mapping) or not heads:
            raise ValueError(f"{self.op}: heads is {described(heads)}; expected a dict with at least one head")
        for name in heads:
            if not isinstance(name, str) or not name.isidentifier() or name in ("layer", "embedding"):
                raise ValueError(f"{self.op}: a head is named {name!r}; expected the name of a Python variable")
        chosen: Any = {} if pooling is None else pooling
        if not isinstance(chosen, Mapping) or chosen.keys() - heads.keys() or set(chosen.values()) - set(POOLINGS):
            raise ValueError(
                f"{self.op}: pooling is {pooling!r}; expected a dict from some of {', '.join(heads)} to "
                f"{', '.join(map(repr, POOLINGS))}"
            )
        self.layer = layer
        self.embedding = embedding
        self.pooling = {name: str(chosen[name]) for name in heads if name in chosen}
        seeds = seed_sequence(self.op, seed).generate_state(len(heads)).tolist()
        made = {}
        for (name, head), each in zip(heads.items(), seeds, strict=True):
            size = final_features if self.pooling.get(name) == "last" else output_features
            features = None if isinstance(head, Layer) else size(self.op, "layer", layer)
            made[name] = make_head(self.op, head, layer, features, seed=each)
        self.output_names = tuple(made)
        super().__init__(embedding=embedding, layer=layer, **made)

    def config(self) -> dict[str, Any]:
        """Return the specifications of the children, and the pooling."""
        heads = {name: layer_spec(self._children[name]) for name in self.output_names}
        inside = {name: self._spec(name) for name in ("layer", "embedding")}
        return {**inside, "heads": heads, "pooling": self.pooling}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Heads:
        """Make a model from what ``config`` returned."""
        heads: dict[str, Layer | int] = {name: layer_from_spec(spec) for name, spec in config["heads"].items()}
        embedding: Any = optional_layer(config["embedding"])
        return cls(layer_from_spec(config["layer"]), heads, pooling=config["pooling"], embedding=embedding)

    def __call__(self, x: Any, lengths: Any = None, *, resets: Any = None) -> dict[str, Array]:
        """Compute the outputs, (B, T, O) or of pooled heads (B, O), in inference mode; 0 past each sample's end.

        Parameters
        ----------
        x : array_like (B, T, I), or integers (B, T) with an embedding
            The input.
        lengths : array_like of int (B,), optional
            Valid time steps of each sample.
        resets : array_like of bool (B, T), optional
            Before a marked step the state of the layer is zero again.
        """
        return self._run(False, x, lengths, resets)[0]

    def forward(self, x: Any, lengths: Any = None, *, resets: Any = None) -> tuple[dict[str, Array], Tape]:
        """Compute (outputs, tape) in training mode; arguments as in ``__call__``."""
        return self._run(True, x, lengths, resets)

    def backward(self, tape: Tape, dy: Any) -> Any:
        """Return dx for dy, the gradients of outputs by name, of which some may be left out; None for tokens.

        Of a step's output dy past a sample's end is not read.
        """
        embed_tape, layer_tape, tapes, shape, lengths = self._saved(tape)
        if not isinstance(dy, Mapping) or not dy or dy.keys() - tapes.keys():
            got = ", ".join(map(repr, dy)) if isinstance(dy, Mapping) else described(dy)
            raise ValueError(f"{self.op}: dy is {got or 'empty'}; expected a dict of some of {', '.join(tapes)}")
        dh: Array | None = None
        final: Any = None
        for name, given in dy.items():
            pool_tape, head_tape = tapes[name]
            d = as_real(self.op, f"dy[{name!r}]", given, self.dtype, self.xp)
            how, head = self.pooling.get(name), self._children[name]
            if how is None:
                part, end = first(head.backward(head_tape, without_padding(self.op, d, lengths))), None
            else:
                vector = first(head.backward(head_tape, d))
                if layer_tape is None:
                    continue
                part, end = unpooled(self.op, how, self.layer, vector, pool_tape, shape, lengths)
            dh = part if dh is None else dh if part is None else dh + part
            final = add_states(self.op, final, end)
        if layer_tape is None:
            return None
        ends = {} if final is None else {"dstate": final}
        return unembed(self.embedding, embed_tape, first(self.layer.backward(layer_tape, dh, **ends)))

    def input_shape(self) -> Shape:
        """Return (B, T) of tokens, or what the layer reads."""
        return ("B", "T") if self.embedding else self.layer.input_shape()

    def output_shape(self, x: Shape) -> Any:
        """Return the shapes of the outputs, one after the other."""
        inputs = self.child_inputs(x)
        return [output_of(self._children[name], inputs[name]) for name in self.output_names]

    def child_inputs(self, x: Shape) -> dict[str, Shape]:
        """Return x for the first child, its y for the layer, and what each head reads."""
        read = output_of(self.embedding, x) if self.embedding else x
        y = output_of(self.layer, read)
        inputs: dict[str, Shape] = {"embedding": x} if self.embedding else {}
        inputs["layer"] = read
        for name in self.output_names:
            how = self.pooling.get(name)
            inputs[name] = y if how is None else ("B", pooled_features(how, self.layer, y))
        return inputs

    def _run(self, training: bool, x: Any, lengths: Any, resets: Any) -> tuple[dict[str, Array], Tape]:
        check_resets(self.op, resets, self.layer)
        x, lengths = unragged(self.op, "x", x, lengths)
        check_rank(self.op, "x", x, "batch, time" if self.embedding else "batch, time, features")
        lengths = batch_lengths(self.op, x, lengths)
        x, embed_tape = embed(self.embedding, training, x, lengths)
        x = clean_input(self.op, self.layer, x, lengths)
        heads = [self._children[name] for name in self.output_names]
        # What is in front is frozen only if a head in the chain learns; which one does not matter.
        learning = next((head for head in heads if head.params.keys() - head.frozen_names()), heads[0])
        _, frozen, _ = self._frozen_bottom(self.embedding, self.layer, learning)
        in_training = training and runs_in_training(self.layer, frozen)
        h, final, layer_tape = run_layer(self.layer, in_training, x, lengths, resets)
        outputs: dict[str, Array] = {}
        tapes: dict[str, Any] = {}
        for name, head in zip(self.output_names, heads, strict=True):
            how, pool_tape, read = self.pooling.get(name), None, h
            if how is not None:
                read, pool_tape = pooled(self.op, how, self.layer, h, final, lengths)
            y, _, head_tape = run_layer(head, training, read, None)
            outputs[name] = y if how is not None else without_padding(self.op, y, lengths)
            tapes[name] = pool_tape, head_tape
        return outputs, Tape(self, (embed_tape, None if frozen else layer_tape, tapes, np.shape(h), lengths))
