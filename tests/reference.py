"""The truth: RNN, LSTM and GRU in float64 NumPy, one sample and one step at a time.

Written from the formulas, slow and obvious. ``run`` takes the arguments of the kernels of ``fusedrnn.functional``.
Complex arguments work throughout: derivatives come from a complex step through the forward, so there is no second
backward to get wrong. Gradients are those of the loss sum(y*dy) + sum(h*dh) + sum(c*dc).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
State = tuple[Array, ...]
STEP = 1e-30  # complex step: no subtraction, so the step can be far below the rounding of the values


class Weights(NamedTuple):
    """W_x (gates*H, I), W_h (gates*H, H) and the two biases (gates*H,) of one layer and direction."""

    weight_ih: Array
    weight_hh: Array
    bias_ih: Array
    bias_hh: Array


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(-z)), written so that a large -z does not overflow."""
    return 0.5 + 0.5 * np.tanh(0.5 * z)


def relu(z: Array) -> Array:
    """max(z, 0); NaN stays NaN, and the derivative at 0 is 0."""
    return np.where(z.real <= 0, 0, z)


def rnn_tanh(x: Array, state: State, w: Weights) -> State:
    """h(t) = tanh(U x(t) + W h(t-1) + b)."""
    (h,) = state
    return (np.tanh(w.weight_ih @ x + w.bias_ih + w.weight_hh @ h + w.bias_hh),)


def rnn_relu(x: Array, state: State, w: Weights) -> State:
    """h(t) = relu(U x(t) + W h(t-1) + b)."""
    (h,) = state
    return (relu(w.weight_ih @ x + w.bias_ih + w.weight_hh @ h + w.bias_hh),)


def lstm(x: Array, state: State, w: Weights) -> State:
    """Gates i, f, g, o; i, f, o = sigma(W_x x + W_h h + b); g = tanh(...); c(t) = f*c(t-1) + i*g; h(t) = o*tanh(c)."""
    h, c = state
    i, f, g, o = np.split(w.weight_ih @ x + w.bias_ih + w.weight_hh @ h + w.bias_hh, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(x: Array, state: State, w: Weights) -> State:
    """Gates r, z, n; n = tanh(W_n x + b_n + r*(W_hn h + b_hn)), so reset after; h(t) = (1-z)*n + z*h(t-1)."""
    (h,) = state
    r_x, z_x, n_x = np.split(w.weight_ih @ x + w.bias_ih, 3)
    r_h, z_h, n_h = np.split(w.weight_hh @ h + w.bias_hh, 3)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    n = np.tanh(n_x + r * n_h)
    return ((1 - z) * n + z * h,)


def gate_function(name: str, alpha: float, beta: float) -> Callable[[Array], Array]:
    """Return a gate function of ONNX's recurrent operators, of real or complex arguments."""

    def where(condition: Array, yes: Any, no: Any) -> Array:
        return np.where(condition, yes, no)

    functions: dict[str, Callable[[Array], Array]] = {
        "sigmoid": sigmoid,
        "tanh": np.tanh,
        "relu": relu,
        "affine": lambda z: alpha * z + beta,
        "leaky_relu": lambda z: where(z.real > 0, z, alpha * z),
        "thresholded_relu": lambda z: where(z.real > alpha, z, 0),
        "scaled_tanh": lambda z: alpha * np.tanh(beta * z),
        "hard_sigmoid": lambda z: clamp(alpha * z + beta, 0, 1),
        "elu": lambda z: where(z.real > 0, z, alpha * np.expm1(where(z.real > 0, 0, z))),
        "softsign": lambda z: z / (1 + where(z.real > 0, z, -z)),
        "softplus": lambda z: where(z.real > 40, z, np.log1p(np.exp(where(z.real > 40, 40, z)))),
    }
    return functions[name]


def clamp(z: Array, low: float, high: float) -> Array:
    """z clipped by its real part; the derivative is 0 outside."""
    return np.where(z.real < low, low, np.where(z.real > high, high, z))


def varied(
    cell: str,
    functions: Sequence[tuple[str, float, float]],
    clip: float = np.inf,
    coupled: bool = False,
    peephole: Array | None = None,
    reset_after: bool = True,
) -> Cell:
    """RNN (one function), LSTM (of i f o; g; c) or GRU (of r z; n) with other functions, and what ONNX has beside them.

    All but the function of c read z clipped to [-clip, clip]. Coupled: f = 1 - i. Peephole p (3*H,) of i, f, o:
    i and f see c(t-1), o sees c(t). Reset before: n = candidate(W_n x + b_n + W_hn (r*h) + b_hn).
    """
    act, *others = (gate_function(*function) for function in functions)

    def gate(z: Array) -> Array:
        return act(clamp(z, -clip, clip))

    def candidate(z: Array) -> Array:
        return others[0](clamp(z, -clip, clip))

    def rnn_step(x: Array, state: State, w: Weights) -> State:
        (h,) = state
        return (gate(w.weight_ih @ x + w.bias_ih + w.weight_hh @ h + w.bias_hh),)

    def lstm_step(x: Array, state: State, w: Weights) -> State:
        h, c = state
        p_i, p_f, p_o = np.zeros((3, len(c))) if peephole is None else np.split(peephole, 3)
        i, f, g, o = np.split(w.weight_ih @ x + w.bias_ih + w.weight_hh @ h + w.bias_hh, 4)
        i = gate(i + p_i * c)
        f = 1 - i if coupled else gate(f + p_f * c)
        c = f * c + i * candidate(g)
        return gate(o + p_o * c) * others[1](c), c

    def gru_step(x: Array, state: State, w: Weights) -> State:
        (h,) = state
        r_x, z_x, n_x = np.split(w.weight_ih @ x + w.bias_ih, 3)
        r_h, z_h, n_h = np.split(w.weight_hh @ h + w.bias_hh, 3)
        r, z = gate(r_x + r_h), gate(z_x + z_h)
        n_rh = np.split(w.weight_hh @ (r * h) + w.bias_hh, 3)[2]
        return ((1 - z) * candidate(n_x + (r * n_h if reset_after else n_rh)) + z * h,)

    step = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}[cell]
    parameters = () if peephole is None else (peephole,)
    return Cell({"rnn": 1, "lstm": 4, "gru": 3}[cell], ("h", "c") if cell == "lstm" else ("h",), step, parameters)


def noisy(
    cell: str,
    reset_after: bool,
    h_factor: Array | None,
    g_factor: Array | None,
    zones: tuple[Any, Any],
) -> Cell:
    """LSTM, GRU or RNN with noise inside: h*h_factor where W_hh reads it, the candidate times g_factor.

    Zoneout d of h and c: h(t) = d h(t-1) + (1-d) h~(t), h~ being what the formulas make, from their own c~. Factors
    and d may be numbers or arrays (H,).
    """
    read = 1.0 if h_factor is None else h_factor
    kept = 1.0 if g_factor is None else g_factor
    h_zone, c_zone = zones

    def step(x: Array, state: State, w: Weights) -> State:
        h = state[0]
        z_x = w.weight_ih @ x + w.bias_ih
        z_h = w.weight_hh @ (read * h) + w.bias_hh
        if cell == "rnn":
            new = (np.tanh(z_x + z_h),)
        elif cell == "lstm":
            i, f, g, o = np.split(z_x + z_h, 4)
            c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g) * kept
            return (
                h_zone * h + (1 - h_zone) * (sigmoid(o) * np.tanh(c)),
                c_zone * state[1] + (1 - c_zone) * c,
            )
        else:
            (r_x, z, n_x), (r_h, z_z, n_h) = np.split(z_x, 3), np.split(z_h, 3)
            r, z = sigmoid(r_x + r_h), sigmoid(z + z_z)
            n_rh = np.split(w.weight_hh @ (r * (read * h)) + w.bias_hh, 3)[2]
            n = kept * np.tanh(n_x + (r * n_h if reset_after else n_rh))
            new = ((1 - z) * n + z * h,)
        return (h_zone * h + (1 - h_zone) * new[0],)

    given = (h_factor, g_factor, *zones)
    return Cell(
        {"rnn": 1, "lstm": 4, "gru": 3}[cell],
        ("h", "c") if cell == "lstm" else ("h",),
        step,
        tuple(np.asarray(each) for each in given if each is not None),
    )


def projected(weight_hr: Array, cell: Callable[[Array, State, Weights], State] = lstm) -> Cell:
    """LSTM whose h is W_hr (o*tanh(c))."""

    def step(x: Array, state: State, w: Weights) -> State:
        h, c = cell(x, state, w)
        return weight_hr @ h, c

    return Cell(4, ("h", "c"), step, (weight_hr,))


def normalise(v: Array, gain: Array, bias: Array) -> Array:
    """Layer normalisation over all of v."""
    centred = v - np.mean(v)
    return gain * centred / np.sqrt(np.mean(centred * centred) + 1e-5) + bias


def normalised(
    cell: str, gain_ih: Array, gain_hh: Array, gain_c: Array | None = None, bias_c: Array | None = None
) -> Cell:
    """LSTM or GRU with layer normalisation of W_x x, of W_h h and of c where h reads it.

    Its biases are bias_ih and bias_hh. An LSTM's is over all four gates together, a GRU's over r and z together, and
    over n.
    """

    def lstm_step(x: Array, state: State, w: Weights) -> State:
        h, c = state
        z = normalise(w.weight_ih @ x, gain_ih, w.bias_ih) + normalise(w.weight_hh @ h, gain_hh, w.bias_hh)
        i, f, g, o = np.split(z, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(normalise(c, gain_c, 0.0 if bias_c is None else bias_c)), c

    def gru_step(x: Array, state: State, w: Weights) -> State:
        (h,) = state
        z_x, z_h, rz = w.weight_ih @ x, w.weight_hh @ h, slice(0, 2 * len(h))
        n = slice(2 * len(h), None)
        r, z = np.split(
            sigmoid(normalise(z_x[rz], gain_ih[rz], w.bias_ih[rz]) + normalise(z_h[rz], gain_hh[rz], w.bias_hh[rz])), 2
        )
        n_h = normalise(z_h[n], gain_hh[n], w.bias_hh[n])
        candidate = np.tanh(normalise(z_x[n], gain_ih[n], w.bias_ih[n]) + r * n_h)
        return ((1 - z) * candidate + z * h,)

    parameters = tuple(each for each in (gain_ih, gain_hh, gain_c, bias_c) if each is not None)
    if cell == "lstm":
        return Cell(4, ("h", "c"), lstm_step, parameters)
    return Cell(3, ("h",), gru_step, parameters)


class Cell(NamedTuple):
    """What the tests need to know of a cell."""

    gates: int
    states: tuple[str, ...]
    step: Callable[[Array, State, Weights], State]
    parameters: tuple[Array, ...] = ()  # that the step reads beside the weights


CELLS = {
    "rnn_tanh": Cell(1, ("h",), rnn_tanh),
    "rnn_relu": Cell(1, ("h",), rnn_relu),
    "lstm": Cell(4, ("h", "c"), lstm),
    "gru": Cell(3, ("h",), gru),
}


def run(
    cell: str | Cell,
    x: Array,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    lengths: Array | None = None,
    reverse: bool = False,
    batch_first: bool = True,
) -> tuple[Array, ...]:
    """One layer in one direction: (y, h) or (y, h, c).

    Sample b reads x[b, 0] .. x[b, lengths[b]-1], or from the last of these to the first with ``reverse``. y[b, t] is
    the h of the step that read x[b, t], and 0 from lengths[b] on; the final state is the one after the last step taken.
    """
    kind = cell if isinstance(cell, Cell) else CELLS[cell]
    if not batch_first:
        x = x.swapaxes(0, 1)
    batch, steps, _ = x.shape
    sizes = (weight_hh.shape[1], len(weight_ih) // kind.gates)[: len(kind.states)]  # of h and c
    zero_bias = np.zeros(len(weight_ih))
    w = Weights(
        weight_ih, weight_hh, zero_bias if bias_ih is None else bias_ih, zero_bias if bias_hh is None else bias_hh
    )
    given = [value for value in (x, *w, h0, c0, *kind.parameters) if value is not None]
    dtype = np.result_type(np.float64, *given)
    y = np.zeros((batch, steps, sizes[0]), dtype)
    final = [np.zeros((batch, size), dtype) for size in sizes]
    for b in range(batch):
        valid = range(steps if lengths is None else int(lengths[b]))
        state = tuple(np.zeros(size) if s0 is None else s0[b] for s0, size in zip((h0, c0), sizes, strict=False))
        for t in reversed(valid) if reverse else valid:
            state = kind.step(x[b, t], state, w)
            y[b, t] = state[0]
        for out, value in zip(final, state, strict=True):
            out[b] = value
    return (y if batch_first else y.swapaxes(0, 1), *final)


def stack(
    cell: str | Callable[[str], Cell],
    params: Mapping[str, Array],
    x: Array,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    num_layers: int,
    bidirectional: bool,
    lengths: Array | None = None,
    batch_first: bool = True,
) -> tuple[Array, ...]:
    """Layers on top of each other: (y, h) or (y, h, c), parameters named as in torch.

    Layer k reads the outputs of layer k-1, both directions side by side. States are (num_layers * directions, B, H),
    ordered layer 0 forward, layer 0 reverse, layer 1 forward, ... ``cell`` is a name, or makes the cell of a layer and
    direction from the suffix of its parameters.
    """
    finals: list[tuple[Array, ...]] = []
    for layer in range(num_layers):
        outputs = []
        for reverse in (False, True) if bidirectional else (False,):
            suffix = f"_l{layer}" + "_reverse" * reverse
            weights = [params.get(name + suffix) for name in Weights._fields]
            start = [None if s0 is None else s0[len(finals)] for s0 in (h0, c0)]
            kind = cell if isinstance(cell, str) else cell(suffix)
            y, *final = run(kind, x, *weights, *start, lengths=lengths, reverse=reverse, batch_first=batch_first)  # type: ignore[arg-type]
            outputs.append(y)
            finals.append(tuple(final))
        x = np.concatenate(outputs, axis=2)
    return (x, *(np.stack(state) for state in zip(*finals, strict=True)))


Function = Callable[..., tuple[Array, ...]]


def loss(outputs: tuple[Array, ...], cotangents: tuple[Array | None, ...]) -> Any:
    """sum(y*dy) + sum(h*dh) + sum(c*dc); a cotangent of None is zero."""
    return sum(np.sum(out * d) for out, d in zip(outputs, cotangents, strict=True) if d is not None)


def slope(
    function: Function, at: Mapping[str, Any], cotangents: tuple[Array | None, ...], name: str, along: Array
) -> float:
    """Return the derivative of the loss of ``function(**at)`` as the argument ``name`` moves along ``along``."""
    moved = {**at, name: at[name] + 1j * STEP * along}
    return float(np.imag(loss(function(**moved), cotangents)) / STEP)


def gradient(function: Function, at: Mapping[str, Any], cotangents: tuple[Array | None, ...], name: str) -> Array:
    """Return the gradient of the loss of ``function(**at)`` by the argument ``name``, one element at a time."""
    result = np.zeros(at[name].shape)
    for index in np.ndindex(result.shape):
        along = np.zeros(result.shape)
        along[index] = 1
        result[index] = slope(function, at, cotangents, name, along)
    return result
