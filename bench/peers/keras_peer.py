"""Keras on TensorFlow: keras.layers.LSTM, GRU, SimpleRNN, batch-major as Keras has it.

Inside a tf.function, with or without XLA: whichever is faster in the case.
"""

from __future__ import annotations

import itertools
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cases import Array, Case, Problem
from peers import Runner, reorder_gates

_LAYERS: dict[str, Any] = {"lstm": keras.layers.LSTM, "gru": keras.layers.GRU, "rnn": keras.layers.SimpleRNN}
# Position in torch's order (i f g o; r z n) of Keras's gates (i f c o; z r h); each permutation is its own inverse.
_GATE_ORDER = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn": (0,)}


def configure(threads: int) -> None:
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.get_logger().setLevel("ERROR")  # it would warn of a new tf.function per case, which is meant


def refuses(case: Case) -> str | None:
    if case.kind == "streaming":
        return "no single step"
    return None if case.dtype == "float32" else f"no {case.dtype}"


def build(case: Case, problem: Problem) -> Runner:
    x = tf.constant(problem.x.swapaxes(0, 1).copy())
    dy = tf.constant(problem.dy.swapaxes(0, 1).copy())
    layers = [_layer(case, problem, layer) for layer in range(case.layers)]
    mask = None
    if problem.lengths is not None:
        mask = tf.constant(np.arange(case.T) < problem.lengths[:, None])
    variables = [variable.value for layer in layers for variable in layer.trainable_variables]

    def forward() -> Any:
        y = x
        for layer in layers:
            y = layer(y) if mask is None else layer(y, mask=mask)
        return y

    if case.kind == "inference":
        infer = _faster(forward)
        return Runner(infer, lambda: {"y": infer().numpy().swapaxes(0, 1)})

    def forward_backward() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = forward()
        return y, tape.gradient(y, [x, *variables], output_gradients=dy)

    train = _faster(forward_backward)

    def gradients() -> dict[str, Array]:
        y, (dx, *grads) = train()
        arrays = iter(grad.numpy() for grad in grads)
        named = {"y": y.numpy().swapaxes(0, 1), "dx": dx.numpy().swapaxes(0, 1)}
        for _, suffix in case.parameter_names():
            named |= {f"{stem}_{suffix}": array for stem, array in _to_torch(case, *(next(arrays) for _ in range(3)))}
        return named

    return Runner(train, gradients)


def _faster(function: Any) -> Any:
    """Compile with and without XLA and return the faster: neither wins everywhere."""
    compiled = [tf.function(function), tf.function(function, jit_compile=True)]

    def seconds(call: Any) -> float:
        call()
        starts = [time.perf_counter() for _ in range(4) if call() is not None]
        return min(after - before for before, after in itertools.pairwise(starts))

    return min(compiled, key=seconds)


def _layer(case: Case, problem: Problem, layer: int) -> Any:
    options: dict[str, Any] = {"return_sequences": True}
    if case.valid < 1:
        options["zero_output_for_mask"] = True
    made = _LAYERS[case.cell](case.H, **options)
    if case.bidirectional:
        made = keras.layers.Bidirectional(made)
    made.build((case.B, case.T, case.input_size(layer)))
    arrays: list[Array] = []
    for at, suffix in case.parameter_names():
        if at == layer:
            arrays += _from_torch(case, problem.weights, suffix)
    made.set_weights(arrays)
    return made


def _from_torch(case: Case, weights: dict[str, Array], suffix: str) -> list[Array]:
    """Return kernel (in, G*H), recurrent kernel (H, G*H), and one bias, of the GRU (2, G*H)."""
    stems = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    w, r, b_ih, b_hh = (reorder_gates(weights[f"{stem}_{suffix}"], _GATE_ORDER[case.cell]) for stem in stems)
    return [w.T, r.T, np.stack([b_ih, b_hh]) if case.cell == "gru" else b_ih + b_hh]


def _to_torch(case: Case, kernel: Array, recurrent: Array, bias: Array) -> list[tuple[str, Array]]:
    """Name gradients as torch does; where Keras has one bias, it is the gradient of both of torch's."""
    b_ih, b_hh = bias if case.cell == "gru" else (bias, bias)
    stems = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    order = _GATE_ORDER[case.cell]
    return [(s, reorder_gates(a, order)) for s, a in zip(stems, (kernel.T, recurrent.T, b_ih, b_hh), strict=True)]
