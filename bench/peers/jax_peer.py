"""JAX: jit of a lax.scan over time, the input projection of all steps hoisted out of it as one product."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cases import Array, Case, Problem
from peers import Runner


def configure(threads: int) -> None:
    """XLA takes as many threads as the process has cores when it starts, so it is started here, after the pinning."""
    jax.devices()


def refuses(case: Case) -> str | None:
    return None if case.dtype == "float32" else f"no {case.dtype}"


# Cells: p is W_ih x + b_ih (with b_hh too, except in the GRU), w and b the recurrent weight (H, G*H) and bias.
def _lstm(state: Any, p: Any, w: Any, b: Any) -> Any:
    h, c = state
    i, f, g, o = jnp.split(p + h @ w, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(state: Any, p: Any, w: Any, b: Any) -> Any:
    (h,) = state
    p_r, p_z, p_n = jnp.split(p, 3, axis=-1)
    q_r, q_z, q_n = jnp.split(h @ w + b, 3, axis=-1)
    z = jax.nn.sigmoid(p_z + q_z)
    n = jnp.tanh(p_n + jax.nn.sigmoid(p_r + q_r) * q_n)
    return (n + z * (h - n),)


def _rnn(state: Any, p: Any, w: Any, b: Any) -> Any:
    return (jnp.tanh(p + state[0] @ w),)


_CELLS = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}


def _zero_state(case: Case) -> tuple[Any, ...]:
    return (jnp.zeros((case.B, case.H)),) * (2 if case.cell == "lstm" else 1)


def _project(case: Case, x: Any, weights: dict[str, Any], suffix: str) -> Any:
    p = x @ weights[f"weight_ih_{suffix}"] + weights[f"bias_ih_{suffix}"]
    return p if case.cell == "gru" else p + weights[f"bias_hh_{suffix}"]


def _direction(case: Case, x: Any, weights: dict[str, Any], suffix: str, valid: Any) -> Any:
    """Scan one direction of one layer; `valid` (T, B, 1) freezes the state and zeroes y past the end of a sequence."""
    cell, w, b = _CELLS[case.cell], weights[f"weight_hh_{suffix}"], weights[f"bias_hh_{suffix}"]

    def step(state: Any, inputs: Any) -> Any:
        p, inside = inputs
        new = cell(state, p, w, b)
        if inside is None:
            return new, new[0]
        return tuple(jnp.where(inside, a, old) for a, old in zip(new, state, strict=True)), jnp.where(inside, new[0], 0)

    inputs = (_project(case, x, weights, suffix), valid)
    return jax.lax.scan(step, _zero_state(case), inputs, reverse=suffix.endswith("reverse"))[1]


def _forward(case: Case, x: Any, weights: dict[str, Any], valid: Any) -> Any:
    for layer in range(case.layers):
        suffixes = [suffix for at, suffix in case.parameter_names() if at == layer]
        x = jnp.concatenate([_direction(case, x, weights, suffix, valid) for suffix in suffixes], axis=-1)
    return x


def build(case: Case, problem: Problem) -> Runner:
    x, dy = jnp.asarray(problem.x), jnp.asarray(problem.dy)
    # (in, G*H), so that no product transposes a weight
    weights = {name: jnp.asarray(np.ascontiguousarray(array.T)) for name, array in problem.weights.items()}
    if case.kind == "streaming":
        return _streaming(case, x, weights)
    valid = None
    if problem.lengths is not None:
        valid = jnp.asarray((np.arange(case.T)[:, None] < problem.lengths)[..., None])

    if case.kind == "inference":
        forward = jax.jit(lambda x, weights: _forward(case, x, weights, valid))

        def infer() -> Any:
            return forward(x, weights).block_until_ready()

        return Runner(infer, lambda: {"y": np.asarray(infer())})

    @jax.jit
    def forward_backward(x: Any, weights: Any, dy: Any) -> Any:
        y, pullback = jax.vjp(lambda x, weights: _forward(case, x, weights, valid), x, weights)
        return y, *pullback(dy)

    def train() -> Any:
        return jax.block_until_ready(forward_backward(x, weights, dy))

    def gradients() -> dict[str, Array]:
        y, dx, grads = train()
        return {"y": np.asarray(y), "dx": np.asarray(dx), **{name: np.asarray(g).T for name, g in grads.items()}}

    return Runner(train, gradients)


def _streaming(case: Case, x: Any, weights: dict[str, Any]) -> Runner:
    @jax.jit
    def advance(state: Any, x_t: Any, weights: Any) -> Any:
        p = _project(case, x_t, weights, "l0")
        return _CELLS[case.cell](state, p, weights["weight_hh_l0"], weights["bias_hh_l0"])

    x_0 = x[0]
    state = _zero_state(case)

    def step(x_t: Any = x_0) -> Any:
        nonlocal state
        state = jax.block_until_ready(advance(state, x_t, weights))
        return state

    def steps() -> dict[str, Array]:
        nonlocal state
        state = _zero_state(case)
        return {"h": np.stack([np.asarray(step(x_t)[0]) for x_t in x])}

    return Runner(step, steps)
