"""Gradient flow and gate traces, against a float64 network whose states can be kicked at every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.diagnostics import (
    gate_trace,
    gradient_flow,
    plot_gradient_flow,
    power_norms,
    spectral_norm,
    spectral_radius,
)
from fusedrnn.training import mse
from problems import LAYERS
from reference import CELLS, STEP, Array, Weights, sigmoid

B, T, INPUTS, H = 3, 5, 2, 3
LENGTHS = np.array([5, 0, 3])


def layer_of(cell: str, **options: Any) -> fr.layers.Recurrent:
    layer: fr.layers.Recurrent = LAYERS[cell](INPUTS, H, dtype="float64", seed=4, init="torch", **options)
    return layer


def sequence(batch: int = B, steps: int = T) -> Array:
    return np.random.default_rng(3).normal(0.2, 1, (batch, steps, INPUTS))


def kicked(layer: fr.layers.Recurrent, x: Array, lengths: Array, kicks: dict[tuple[str, str], Array]) -> Any:
    """Run the layer's formulas; after each step, ``kicks[direction, state]`` (B, T, H) is added to that state.

    Return (y, the final h of each direction).
    """
    finals = {}
    for index in range(layer.num_layers):
        outputs = []
        for suffix in ("", "_reverse")[: layer.num_directions]:
            name = f"l{index}{suffix}"
            weights = Weights(*(layer.params[f"{kind}_{name}"] for kind in Weights._fields))
            y = np.zeros((*x.shape[:2], H), complex)
            final = np.zeros((len(x), H), complex)
            for b, length in enumerate(lengths):
                state = tuple(np.zeros(H, complex) for _ in CELLS[layer._cell].states)
                backwards = (suffix == "_reverse") != layer._reverse
                for t in reversed(range(length)) if backwards else range(length):
                    o = sigmoid((weights.weight_ih @ x[b, t] + weights.weight_hh @ state[0] + sum(weights[2:]))[-H:])
                    h, *c = CELLS[layer._cell].step(x[b, t], state, weights)
                    if (name, "c") in kicks:
                        c[0] = c[0] + kicks[name, "c"][b, t]
                        h = o * np.tanh(c[0])
                    state = (h + kicks[name, "h"][b, t] if (name, "h") in kicks else h, *c)
                    y[b, t] = state[0]
                final[b] = state[0]
            outputs.append(y)
            finals[name] = final
        x = np.concatenate(outputs, axis=-1)
    return x, finals


def kick_gradient(layer: Any, x: Array, lengths: Array, name: str, kind: str, loss: Any) -> Array:
    """Return the gradient of ``loss(y, finals)``, one a sample, by the state ``kind`` of ``name`` at every step."""
    result = np.zeros((*x.shape[:2], H))
    for t, unit in np.ndindex(result.shape[1:]):
        kick = np.zeros(result.shape, complex)
        kick[:, t, unit] = 1j * STEP
        result[:, t, unit] = np.imag(loss(*kicked(layer, x, lengths, {(name, kind): kick}))) / STEP
    return result


def assert_norms(actual: Array, gradients: Array, lengths: Array, what: str) -> None:
    truth = np.linalg.norm(gradients, axis=-1)
    valid = np.arange(actual.shape[1]) < lengths[:, np.newaxis]
    assert np.isnan(actual[~valid]).all(), what
    error = np.max(np.abs(actual[valid] - truth[valid]))
    assert error <= 1e-13 * max(1.0, float(truth.max())), f"{what}: {error:.1e}"


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_by_the_states_of_every_layer(cell: str, bidirectional: bool) -> None:
    layer = layer_of(cell, num_layers=2, bidirectional=bidirectional)
    x, target = sequence(), np.random.default_rng(5).normal(size=(B, T, H * layer.num_directions))
    mask = np.arange(T) < LENGTHS[:, np.newaxis]

    def loss(y: Array, finals: dict[str, Array]) -> Any:
        return np.sum((y - target) ** 2 * mask[..., np.newaxis], axis=(1, 2)) / (mask.sum() * y.shape[-1])

    y = layer(x, lengths=LENGTHS)[0]
    assert abs(mse(y, target, mask)[0] - loss(y, {}).sum()) <= 1e-14
    flow = gradient_flow(layer, x, target, lengths=LENGTHS, jacobian_samples=0)
    names = [f"l{i}{suffix}" for i in (0, 1) for suffix in ("", "_reverse")[: layer.num_directions]]
    assert sorted(flow) == sorted(names)
    for name in names:
        truth = kick_gradient(layer, x, LENGTHS, name, "h", loss)
        assert_norms(flow[name].dh, truth, LENGTHS, name)
        assert flow[name].cell == cell and flow[name].reverse == name.endswith("reverse")
        cells = flow[name].dc
        assert (cells is not None) == (cell == "lstm")
        if cells is not None:
            assert_norms(cells, kick_gradient(layer, x, LENGTHS, name, "c", loss), LENGTHS, f"c of {name}")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("norm", "order"), [("spectral", 2), ("frobenius", "fro")])
def test_jacobians(cell: str, norm: str, order: Any) -> None:
    layer, x = layer_of(cell, bidirectional=True), sequence()
    flow = gradient_flow(layer, x, lengths=LENGTHS, jacobian_samples=9, norm=norm)
    for name in flow:
        rows = [
            kick_gradient(layer, x, LENGTHS, name, "h", lambda y, finals, k=k, n=name: finals[n][:, k])
            for k in range(H)
        ]
        truth = np.linalg.norm(np.stack(rows, axis=-2), order, axis=(-2, -1))  # type: ignore[call-overload]
        assert_norms(flow[name].jacobian, truth[..., np.newaxis], LENGTHS, name)


def test_jacobians_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_of("gru"), sequence()
    whole = gradient_flow(layer, x)["l0"].jacobian
    monkeypatch.setattr("fusedrnn.diagnostics.through_time._CHUNK_ELEMENTS", T * 3 * H)  # one unit at a time
    assert np.array_equal(gradient_flow(layer, x)["l0"].jacobian, whole)


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm"])
def test_the_default_loss_starts_at_one(cell: str) -> None:
    layer = layer_of(cell, bidirectional=True)
    flow = gradient_flow(layer, sequence(), lengths=LENGTHS)
    assert np.max(np.abs(flow["l0"].dh[[0, 2], [4, 2]] - 1)) <= 1e-14
    assert np.max(np.abs(flow["l0_reverse"].dh[[0, 2], [0, 0]] - 1)) <= 1e-14
    assert np.nanmax(np.abs(flow["l0"].dh - gradient_flow(layer, sequence(), lengths=LENGTHS)["l0"].dh)) <= 0
    other = gradient_flow(layer, sequence(), lengths=LENGTHS, seed=1)["l0"].dh
    assert not np.array_equal(np.nan_to_num(flow["l0"].dh), np.nan_to_num(other))


def test_initial_state_and_layouts() -> None:
    """Time-major, unbatched and with a state: the same numbers where they mean the same."""
    layer = layer_of("lstm", num_layers=2)
    time_major = layer_of("lstm", num_layers=2, batch_first=False)
    x, rng = sequence(1), np.random.default_rng(2)
    state = (rng.normal(size=(2, 1, H)), rng.normal(size=(2, 1, H)))
    flow = gradient_flow(layer, x, state=state)
    turned = gradient_flow(time_major, x.swapaxes(0, 1), state=state)
    single = gradient_flow(layer, x[0], state=(state[0][:, 0], state[1][:, 0]))
    without = gradient_flow(layer, x)
    for name in ("l0", "l1"):
        assert np.array_equal(flow[name].dh, turned[name].dh)
        assert np.max(np.abs(flow[name].dh - single[name].dh)) <= 1e-15
        assert np.max(np.abs(flow[name].dh - without[name].dh)) >= 1e-3


def test_a_model_with_recurrent_layers_inside() -> None:
    """The layers of a Sequential see what they would see as one stack, with a loss at every step."""
    lower, upper = fr.GRU(INPUTS, H, dtype="float64", seed=1), fr.GRU(H, H, dtype="float64", seed=2)
    model = fr.Sequential(lower, upper, fr.Linear(H, 1, dtype="float64", seed=3))
    x, target = sequence(), np.random.default_rng(5).normal(size=(B, T, 1))
    flow = gradient_flow(model, x, target, lengths=LENGTHS)
    assert list(flow) == ["0.l0", "1.l0"]
    y, tape = upper.forward(lower(x, lengths=LENGTHS)[0], lengths=LENGTHS)
    head = model[2]
    mask = np.arange(T) < LENGTHS[:, np.newaxis]
    d = head.backward(head.forward(y[0])[1], mse(head(y[0]), target, mask)[1])
    d_lower = upper.backward(tape, d)[0]
    ends = LENGTHS[[0, 2]] - 1  # at its last step, h reaches only the output
    for name, gradient in (("1.l0", d), ("0.l0", d_lower)):
        truth = np.linalg.norm(gradient[[0, 2], ends], axis=-1)
        assert np.max(np.abs(flow[name].dh[[0, 2], ends] - truth)) <= 1e-15
    assert flow["0.l0"].gain_per_step != flow["1.l0"].gain_per_step


def test_a_bidirectional_wrapper() -> None:
    wrapped = fr.Bidirectional(layer_of("lstm"), seed=2)
    flow = gradient_flow(wrapped, sequence(), lengths=LENGTHS)
    assert list(flow) == ["forward.l0", "reverse.l0"]
    assert flow["reverse.l0"].reverse and abs(flow["reverse.l0"].dh[0, 0] - 1) <= 1e-14


def test_a_layer_that_is_called_twice() -> None:
    layer = fr.RNN(H, H, seed=1)
    flow = gradient_flow(fr.Sequential(layer, layer), np.random.default_rng(0).normal(size=(B, T, H)))
    assert list(flow) == ["0.l0", "0#2.l0"] and np.all(flow["0.l0"].dh[:, -1] > 0)


def test_the_model_is_left_as_it_was() -> None:
    x = sequence().astype(np.float32)
    model = fr.Sequential(fr.LSTM(INPUTS, H, 2, dropout=0.5, seed=1), fr.Dropout(0.5, seed=2), fr.Linear(H, 1, seed=3))
    outputs, tape = model.forward(x)
    model.backward(tape, np.ones_like(outputs))
    model.reseed(7)
    grads = {name: grad.copy() for name, grad in model.grads.items()}
    attributes = [set(vars(layer)) for layer in model.layers()]
    gradient_flow(model, x)
    gate_trace(model, x)
    with pytest.raises(ValueError, match="target has shape"):
        gradient_flow(model, x, np.zeros((B, 1, 1)))
    assert all(np.array_equal(grad, grads[name]) for name, grad in model.grads.items())
    assert [set(vars(layer)) for layer in model.layers()] == attributes
    first = model.forward(x)[0]
    model.reseed(7)
    assert np.array_equal(first, model.forward(x)[0])


def test_vanishing_and_exploding_follow_the_spectral_radius() -> None:
    """Without a non-linearity (a relu that is open), dh(T)/dh(t) is a power of W^T, and the gain its radius."""
    x = np.full((1, 40, INPUTS), 0.1)
    for radius in (0.8, 1.1):
        layer = fr.RNN(INPUTS, 6, nonlinearity="relu", dtype="float32", seed=1, bias=False)
        weight = np.random.default_rng(1).uniform(0.1, 1, (6, 6))
        layer.params["weight_hh_l0"][:] = weight * (radius / spectral_radius(weight))
        np.abs(layer.params["weight_ih_l0"], out=layer.params["weight_ih_l0"])
        flow = gradient_flow(layer, x)["l0"]
        assert abs(flow.spectral_radius["h"] - radius) <= 1e-6
        assert np.max(np.abs(flow.jacobian[0] / flow.powers - 1)) <= 1e-12
        assert abs(flow.gain_per_step - radius) <= 0.06 * radius
    assert flow.spectral_norm["h"] >= flow.spectral_radius["h"]


def test_gradients_below_float32_are_seen() -> None:
    layer = fr.RNN(INPUTS, H, seed=1)
    layer.params["weight_hh_l0"] *= np.float32(0.1)
    flow = gradient_flow(layer, sequence(2, 60))["l0"]
    assert np.all(flow.dh[:, 0] > 0) and np.all(flow.dh[:, 0] <= 1e-50)


def test_powers_of_a_matrix() -> None:
    weight = np.random.default_rng(0).normal(size=(5, 5))
    for norm, order in (("spectral", 2), ("frobenius", "fro")):
        truth = [np.linalg.norm(np.linalg.matrix_power(weight.T, t), order) for t in range(9)]  # type: ignore[call-overload]
        assert np.max(np.abs(power_norms(weight, 8, norm=norm) / truth - 1)) <= 1e-13
    large = power_norms(10 * weight, 1000)
    assert np.isinf(large[-1]) and not np.isnan(large).any()
    assert np.isnan(power_norms([[1.0, np.nan], [0.0, 1.0]], 3)).all()
    assert np.array_equal(power_norms(np.triu(np.ones((3, 3)), 1), 4)[3:], [0, 0])
    assert spectral_radius([[0.0, 2.0], [0.0, 0.5]]) == 0.5 and spectral_norm([[3.0, 0.0], [0.0, 0.5]]) == 3.0
    for wrong in (np.ones((2, 3)), np.ones(3)):
        with pytest.raises(ValueError, match=r"weight has shape .*; expected \(H, H\)"):
            power_norms(wrong, 3)


def test_wrong_arguments() -> None:
    layer = layer_of("gru")
    with pytest.raises(ValueError, match="Linear has no recurrent layer"):
        gradient_flow(fr.Linear(2, 1), np.ones((3, 2)))
    with pytest.raises(ValueError, match="Linear has no recurrent layer"):
        gate_trace(fr.Linear(2, 1), np.ones((3, 2)))
    with pytest.raises(ValueError, match="norm is 'max'"):
        gradient_flow(layer, sequence(), norm="max")
    with pytest.raises(ValueError, match="jacobian_samples is -1"):
        gradient_flow(layer, sequence(), jacobian_samples=-1)
    with pytest.raises(ValueError, match="batch_first=False"):
        gradient_flow(fr.Sequential(fr.GRU(INPUTS, H, batch_first=False)), sequence())
    with pytest.raises(ValueError, match="powers is of an RNN"):
        _ = gradient_flow(layer, sequence())["l0"].powers
    with pytest.raises(ValueError, match="margin is"):
        gate_trace(layer, sequence())["l0"].saturation(0.5)


def test_empty_batches_and_sequences() -> None:
    layer = layer_of("lstm")
    assert gradient_flow(layer, np.zeros((0, T, INPUTS)))["l0"].dh.shape == (0, T)
    empty = gradient_flow(layer, np.zeros((B, 0, INPUTS)))["l0"]
    assert empty.dh.shape == (B, 0) and np.isnan(empty.gain_per_step)
    assert gate_trace(layer, np.zeros((B, 0, INPUTS)))["l0"]["c"].shape == (B, 0, H)


# -------------------------------------------------------------------------------------------------------------- gates


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dropout", [0.0, 1e-300])  # with dropout the layers are calls of their own; it drops nothing
def test_gates_are_those_of_the_formulas(cell: str, dropout: float) -> None:
    layer = layer_of(cell, num_layers=2, bidirectional=True, dropout=dropout)
    x = sequence()
    trace = gate_trace(layer, x, lengths=LENGTHS)
    assert list(trace) == ["l0", "l0_reverse", "l1", "l1_reverse"]
    valid = np.arange(T) < LENGTHS[:, np.newaxis]
    for name, values in trace.items():
        weights = [layer.params[f"{kind}_{name}"] for kind in Weights._fields]
        if name == "l1":
            x = np.concatenate([np.nan_to_num(trace[below]["h"]) for below in ("l0", "l0_reverse")], axis=-1)
        reverse = name.endswith("reverse")
        for gate, activations in values.items():
            assert activations.shape == (B, T, H) and np.isnan(activations[~valid]).all(), gate
        for b, t in np.argwhere(valid):
            before = t + 1 if reverse else t - 1
            inside = 0 <= before < LENGTHS[b]
            now = {gate: activations[b, t] for gate, activations in values.items()}
            old = {gate: activations[b, before] if inside else np.zeros(H) for gate, activations in values.items()}
            for gate, truth in formulas(cell, x[b, t], old, now, weights).items():
                assert np.max(np.abs(now[gate] - truth)) <= 1e-14, f"{name} {gate} at {b}, {t}"


def formulas(cell: str, x: Array, old: dict[str, Array], now: dict[str, Array], weights: list[Array]) -> Any:
    """Return each gate from the inputs of the step, and the states from the gates."""
    gates = CELLS[cell].gates
    z_x = np.split(weights[0] @ x + weights[2], gates)
    z_h = np.split(weights[1] @ old["h"] + weights[3], gates)
    z = [a + b for a, b in zip(z_x, z_h, strict=True)]
    if cell == "lstm":
        i, f, o = (sigmoid(z[k]) for k in (0, 1, 3))
        c = now["f"] * old["c"] + now["i"] * now["g"]
        return {"i": i, "f": f, "g": np.tanh(z[2]), "o": o, "c": c, "h": now["o"] * np.tanh(now["c"])}
    if cell == "gru":
        n = np.tanh(z_x[2] + now["r"] * z_h[2])
        return {"r": sigmoid(z[0]), "z": sigmoid(z[1]), "n": n, "h": (1 - now["z"]) * now["n"] + now["z"] * old["h"]}
    return {"h": np.tanh(z[0]) if cell == "rnn_tanh" else np.maximum(z[0], 0)}


def test_saturation() -> None:
    layer = fr.LSTM(INPUTS, H, dtype="float64", seed=1)
    layer.params["bias_ih_l0"][: 2 * H] = np.repeat([9.0, -9.0], H)  # input gates open, forget gates closed
    found = gate_trace(layer, sequence(), lengths=LENGTHS)["l0"].saturation()
    assert (found["i"].high, found["i"].low) == (1.0, 0.0) and (found["f"].high, found["f"].low) == (0.0, 1.0)
    assert found["i"].mean >= 0.99 and found["i"].std <= 0.01
    halves = fr.RNN(INPUTS, H, dtype="float64", bias=False)
    for param in halves.params.values():
        param.fill(0)
    trace = gate_trace(halves, sequence())["l0"]
    trace["h"][:] = np.array([-1.0, -0.89, 0.91])
    assert (trace.saturation()["h"].low, trace.saturation()["h"].high) == (1 / 3, 1 / 3)
    assert abs(trace.saturation()["h"].mean + 0.98 / 3) <= 1e-15
    relu = gate_trace(fr.RNN(INPUTS, H, nonlinearity="relu", seed=1), sequence())["l0"]
    assert relu.saturation()["h"].low == np.mean(relu["h"] == 0) and np.isnan(relu.saturation()["h"].high)
    nothing = gate_trace(layer, sequence(), lengths=[0, 0, 0])["l0"].saturation()
    assert np.isnan(nothing["i"].mean)


def test_a_trace_of_a_model() -> None:
    model = fr.Sequential(fr.Linear(INPUTS, 3, seed=1), fr.GRU(3, H, seed=2, batch_first=True), fr.Linear(H, 1, seed=3))
    trace = gate_trace(model, sequence())
    assert list(trace) == ["1.l0"] and list(trace["1.l0"]) == ["r", "z", "n", "h"]
    assert trace["1.l0"]["h"].dtype == np.float32
    single = gate_trace(model[1], np.ones((T, 3)))
    assert single["l0"]["h"].shape == (1, T, H)


# ------------------------------------------------------------------------------------------------------------ figures


def test_figures(tmp_path: Path) -> None:
    flows = {
        "RNN": gradient_flow(layer_of("rnn_tanh"), sequence()),
        "LSTM": gradient_flow(layer_of("lstm", num_layers=2, bidirectional=True), sequence(), lengths=LENGTHS),
    }
    figure = plot_gradient_flow(flows, tmp_path / "flow.png")
    assert (tmp_path / "flow.png").stat().st_size > 10_000
    assert sum(axes.get_visible() for axes in figure.axes) == 5
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == len(set(labels)) == 5
    single = flows["LSTM"].plot(tmp_path / "single.png")
    assert [axes.get_visible() for axes in single.axes] == [True] * 4
    for cell in CELLS:
        gate_trace(layer_of(cell), sequence(), lengths=LENGTHS).plot(tmp_path / f"{cell}.png", name="l0", sample=2)
        assert (tmp_path / f"{cell}.png").stat().st_size > 5_000
    with pytest.raises(ValueError, match="got no flows"):
        plot_gradient_flow({})
    with pytest.raises(IndexError):
        gate_trace(layer_of("gru"), sequence()).plot(tmp_path / "none.png", sample=3)


@pytest.mark.parametrize(("scale", "gain", "first"), [(0.03, 0.03, 5.99003433304808e-182), (100.0, 100.0, 1e238)])
def test_norms_reach_as_far_as_float64(scale: float, gain: float, first: float) -> None:
    """Squares would leave it: below 1e-162 a norm was 0, above 1e154 infinite."""
    layer = fr.RNN(1, 2, dtype="float64", bias=False)
    layer.params["weight_hh_l0"][...] = scale * np.eye(2)
    for norm, factor in (("spectral", 1), ("frobenius", np.sqrt(2))):
        flow = gradient_flow(layer, np.zeros((2, 120, 1)), norm=norm)["l0"]  # tanh has slope 1 at h = 0
        assert np.max(np.abs(flow.dh[:, 0] / first - 1)) <= 1e-10
        assert flow.jacobian is not None and abs(flow.jacobian[0, 0] / (factor * first) - 1) <= 1e-10
        assert abs(flow.gain_per_step / gain - 1) <= 1e-10


def test_gains_beyond_float64() -> None:
    """1e200 a hundred steps before 1e-200: the quotient is no float, its root is one."""
    layer = fr.RNN(1, 1, dtype="float64", bias=False)
    layer.params["weight_hh_l0"][...] = 1e4
    flow = gradient_flow(layer, np.zeros((1, 80, 1)))["l0"]
    assert np.isinf(flow.dh[0, 0]) and flow.dh[0, 5] == pytest.approx(1e296, rel=1e-9)


def test_an_lstm_s_cell_gradients_are_seen_as_far() -> None:
    layer = fr.LSTM(1, 2, dtype="float64")
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
        layer.params[name][...] = 0
    layer.params["bias_ih_l0"][2:4] = -10  # the forget gate: 4.54e-5 of c is kept each step
    flow = gradient_flow(layer, np.zeros((1, 60, 1)))["l0"]
    forget = 1 / (1 + np.exp(10.0))
    assert flow.dc is not None and flow.dc[0, 0] / flow.dc[0, 1] == pytest.approx(forget, rel=1e-9)
    assert 0 < flow.dc[0, 0] < 1e-250


def test_models_with_two_inputs_take_a_pair_of_lengths() -> None:
    """Each sample's gradients are those of that sample alone, cut at its ends."""
    model = fr.models.EncoderDecoder(
        fr.GRU(3, 4, bidirectional=True, dtype="float64", seed=1),
        fr.LSTM(2, 4, dtype="float64", seed=2),
        5,
        target_embedding=fr.Embedding(5, 2, dtype="float64", seed=3),
        end=1,
        seed=4,
    )
    source, target = sequence(3, 6)[..., [0, 1, 0]], np.array([[2, 3, 1, 0], [2, 1, 0, 0], [3, 3, 2, 1]])
    ends = ([6, 2, 4], [3, 2, 4])
    inputs = model.decoder_inputs(target)
    flow = gradient_flow(model, (source, inputs), target, loss="cross_entropy", lengths=ends)
    weights = [length / 9 for length in ends[1]]  # a mean over the valid steps of all
    for b, (s, t) in enumerate(zip(*ends, strict=True)):
        alone = gradient_flow(
            model, (source[b : b + 1, :s], inputs[b : b + 1, :t]), target[b : b + 1, :t], loss="cross_entropy"
        )
        assert alone.keys() == flow.keys() == {"encoder.l0", "encoder.l0_reverse", "decoder.layer.l0"}
        for name, each in alone.items():
            end = each.dh.shape[1]
            assert np.max(np.abs(flow[name].dh[b, :end] / (weights[b] * each.dh[0]) - 1)) <= 1e-9
            assert np.isnan(flow[name].dh[b, end:]).all()
    assert gradient_flow(model, (source, inputs), lengths=ends).keys() == flow.keys()

    writer = fr.models.VectorToSequence(fr.GRU(2, 4, seed=1), 5, vector_size=3, embedding=fr.Embedding(5, 2), seed=2)
    for lengths in ((None, ends[1]), ends[1]):
        flow = gradient_flow(writer, (np.ones((3, 3)), inputs), target, loss="cross_entropy", lengths=lengths)
        assert flow["decoder.layer.l0"].lengths.tolist() == ends[1]


def test_what_is_printed_is_short() -> None:
    layer = fr.LSTM(2, 300, bidirectional=True, seed=0)
    x = np.zeros((40, 50, 2))
    for printed in (gate_trace(layer, x), gradient_flow(layer, x[:2], jacobian_samples=0)):
        text = str(printed)
        assert text.count("\n") == 2 and len(text) < 400 and "l0_reverse: lstm" in text
        assert len(repr(printed["l0"])) < 200


def test_figures_name_the_direction_and_count_in_whole_numbers(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    x = sequence(2, 4)
    trace = gate_trace(fr.LSTM(INPUTS, H, bidirectional=True, seed=0), x)
    figure = trace.plot(tmp_path / "gates.png", name="l0_reverse")
    assert figure.get_suptitle() == "l0_reverse, one of l0, l0_reverse"
    assert gate_trace(fr.LSTM(INPUTS, H, seed=0), x).plot(tmp_path / "one.png").get_suptitle() == ""
    flow = gradient_flow(fr.RNN(INPUTS, H, seed=0), x)
    figures = [figure, plot_gradient_flow(flow, tmp_path / "flow.png")]  # a flow by itself, too
    for axes in (axes for each in figures for axes in each.axes if axes.get_xlabel() == "time step t"):
        ticks = axes.get_xticks()
        assert len(ticks) and np.array_equal(ticks, np.round(ticks))
    with pytest.raises(ValueError, match="GateTrace: name is 'l1'; expected one of 'l0', 'l0_reverse'"):
        trace.plot(tmp_path / "gates.png", name="l1")
    with pytest.raises(TypeError, match="plot_gradient_flow: flows is a list; expected a GradientFlow"):
        plot_gradient_flow([flow])  # type: ignore[arg-type]
