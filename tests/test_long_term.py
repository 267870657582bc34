"""What helps against vanishing and exploding gradients: initial weights and constraints on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.diagnostics import spectral_norm
from fusedrnn.init import RecurrentInit
from fusedrnn.training import Callback, SpectralNormLimit, Training

H = 9


def recurrent_blocks(layer: fr.Layer) -> list[Any]:
    return [
        block for name, w in layer.params.items() if "weight_hh" in name for block in np.split(w, len(w) // w.shape[1])
    ]


# ----------------------------------------------------------------------------------------------------- initial weights


def test_the_default_is_an_empty_recipe() -> None:
    for cell in (fr.RNN, fr.LSTM, fr.GRU):
        named, made = cell(3, H, 2, seed=1), cell(3, H, 2, seed=1, init=RecurrentInit())
        assert all(np.array_equal(named.params[name], param) for name, param in made.params.items())


@pytest.mark.parametrize("cell", [fr.RNN, fr.LSTM, fr.GRU])
def test_spectral_initialisation(cell: Any) -> None:
    blocks = recurrent_blocks(cell(3, H, 2, bidirectional=True, seed=1, init="spectral"))
    norms = [spectral_norm(block) for block in blocks]
    assert max(norms) <= 1 + 1e-6 and min(norms) >= 1 - 1e-6  # Glorot is above 1 before
    assert all(np.linalg.norm(block) < 0.9 * np.sqrt(H) for block in blocks)  # not orthogonal


def test_recipes_of_recurrent_weights() -> None:
    eye = fr.RNN(3, H, init=RecurrentInit("identity", gain=0.5), dtype="float64")
    assert np.array_equal(eye.params["weight_hh_l0"], 0.5 * np.eye(H))
    large = recurrent_blocks(fr.GRU(3, H, seed=1, init=RecurrentInit(gain=1.5), dtype="float64"))
    assert all(np.max(np.abs(block @ block.T - 2.25 * np.eye(H))) <= 1e-13 for block in large)
    limited = recurrent_blocks(fr.GRU(3, H, seed=1, init=RecurrentInit("glorot", spectral_norm=0.7), dtype="float64"))
    assert max(abs(spectral_norm(block) - 0.7) for block in limited) <= 1e-14
    small = recurrent_blocks(fr.RNN(3, H, seed=1, init=RecurrentInit("torch"), dtype="float64"))[0]
    assert np.abs(small).max() <= 1 / 3 and np.abs(small).max() >= 0.3


def test_biases_of_gates() -> None:
    bias = fr.LSTM(3, H, init=RecurrentInit(forget_bias=-2.5)).params["bias_ih_l0"]
    assert np.array_equal(np.flatnonzero(bias), np.arange(H, 2 * H)) and np.all(bias[H : 2 * H] == -2.5)
    bias = fr.LSTM(3, 400, init=RecurrentInit(memory_steps=100), seed=1, dtype="float64").params["bias_ih_l0"]
    i, f, g, o = np.split(bias, 4)
    assert np.array_equal(i, -f) and not g.any() and not o.any()
    assert f.min() >= 0 and f.max() <= np.log(99) and abs(np.exp(f).mean() - 50) <= 5
    r, z, n = np.split(fr.GRU(3, H, init=RecurrentInit(memory_steps=100), seed=1).params["bias_ih_l0"], 3)
    assert np.all(z > 0) and not r.any() and not n.any()
    assert "bias_ih_l0" not in fr.LSTM(3, H, bias=False, init=RecurrentInit(memory_steps=9)).params


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RecurrentInit("random"), "recurrent is 'random'; expected one of 'orthogonal', 'identity'"),
        (lambda: RecurrentInit(gain=0), "gain is 0; expected a positive number"),
        (lambda: RecurrentInit(spectral_norm=float("nan")), "spectral_norm is nan"),
        (lambda: RecurrentInit(forget_bias=float("inf")), "forget_bias is inf"),
        (lambda: RecurrentInit(memory_steps=2), "memory_steps is 2; expected at least 3"),
        (lambda: fr.RNN(2, 3, init=RecurrentInit(memory_steps=9)), "RNN: init has memory_steps"),
        (lambda: fr.RNN(2, 3, init="best"), "init is 'best'; expected 'default', 'torch', 'spectral' or a"),
        (lambda: fr.RNN(2, 3, init={"gain": 2}), "init is {'gain': 2}; expected 'default'"),
        (lambda: fr.Linear(2, 3, init="spectral"), "Linear: init is 'spectral'; expected 'default' or 'torch'"),
    ],
)
def test_wrong_recipes(make: Any, message: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


def test_a_file_says_nothing_of_the_recipe(tmp_path: Any) -> None:
    layer = fr.LSTM(3, H, init=RecurrentInit(memory_steps=50), seed=1)
    layer.save(tmp_path / "layer.safetensors")
    loaded = fr.load(tmp_path / "layer.safetensors")
    assert all(np.array_equal(loaded.params[name], param) for name, param in layer.params.items())


# --------------------------------------------------------------------------------------------------------- constraints


class Norms(Callback):
    """Note the largest spectral norm at the start of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_step_begin(self, training: Training) -> None:
        self.seen.append(max(spectral_norm(block) for block in recurrent_blocks(training.model)))


def test_the_norm_stays_limited_during_training() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 6, 3)), 5 * rng.normal(size=(24, 6, 1))
    seen = {}
    for limited in (False, True):
        model = fr.Sequential(fr.LSTM(3, H, 2, seed=1), fr.Linear(H, 1, seed=2))
        optimizer, norms = fr.Adam(model, lr=0.05), Norms()
        callbacks = [SpectralNormLimit(0.8), norms] if limited else [norms]
        fr.fit(model, x, y, optimizer=optimizer, epochs=3, batch_size=8, callbacks=callbacks, progress=False)
        seen[limited] = [*norms.seen, max(spectral_norm(block) for block in recurrent_blocks(model))]
        assert optimizer.constraints == []
    assert max(seen[False]) >= 1.1 and max(seen[True]) <= 0.8 + 1e-6


def test_the_nearest_matrix_is_taken() -> None:
    layer = fr.GRU(3, H, dtype="float64", seed=1, init=RecurrentInit("torch", gain=2.0))
    before = layer.state_dict()
    SpectralNormLimit(0.9).apply(layer)
    w, old = layer.params["weight_hh_l0"], before["weight_hh_l0"]
    for gate in range(3):
        u, s, vt = np.linalg.svd(old[gate * H : (gate + 1) * H])
        assert s[0] > 0.9 > s[-1]
        truth = u @ np.diag(np.minimum(s, 0.9)) @ vt
        assert np.max(np.abs(w[gate * H : (gate + 1) * H] - truth)) <= 1e-13
    assert np.array_equal(layer.params["weight_ih_l0"], before["weight_ih_l0"])
    kept = w.copy()
    SpectralNormLimit(0.95).apply(layer)
    assert np.array_equal(w, kept)


def test_constraints_of_other_weights() -> None:
    head = fr.Linear(4, 7, seed=1, dtype="float64")
    SpectralNormLimit(0.5, "weight").apply(head)
    assert abs(spectral_norm(head.params["weight"]) - 0.5) <= 1e-14
    with pytest.raises(ValueError, match=r"pattern is '\*weight_hh\*', which fits no parameter of Linear"):
        SpectralNormLimit().apply(head)
    with pytest.raises(ValueError, match="bias has shape"):
        SpectralNormLimit(1.0, "bias").apply(head)
    with pytest.raises(ValueError, match="limit is 0"):
        SpectralNormLimit(0)
    exploded = fr.RNN(2, 3, seed=1)
    exploded.params["weight_hh_l0"][0, 0] = np.nan
    SpectralNormLimit(1.0).apply(exploded)  # a constraint cannot help; the loss says it
    assert np.isnan(exploded.params["weight_hh_l0"][0, 0])
