"""Embeddings with sparse gradients: a step costs what its tokens cost, and does what it says."""

from __future__ import annotations

import copy
import pickle
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn.models import SequenceToSequence

torch = pytest.importorskip("torch")


def tagger(sparse: bool, tokens: int = 60) -> SequenceToSequence:
    embedding = fr.Embedding(tokens, 5, padding_idx=3, sparse=sparse, dtype="float64", seed=1)
    return SequenceToSequence(fr.GRU(5, 4, dtype="float64", seed=2), 3, embedding=embedding, seed=3)


DATA = np.random.default_rng(1).integers(0, 60, (20, 7)), np.random.default_rng(2).integers(0, 3, (20, 7))


def trained(sparse: bool, optimizer: Any, **options: Any) -> tuple[SequenceToSequence, fr.training.History]:
    model = tagger(sparse)
    history = fr.fit(
        *(model, *DATA),
        loss="cross_entropy",
        optimizer=optimizer,
        **({"epochs": 4, "batch_size": 2, "progress": False, "seed": 4} | options),
    )
    return model, history


@pytest.mark.parametrize("options", [{}, {"accumulate": 3}, {"clip_value": 0.01}])
def test_plain_sgd_gives_the_same_bits(options: dict[str, Any]) -> None:
    (sparse, first), (dense, second) = (trained(each, lambda m: fr.SGD(m, lr=0.3), **options) for each in (True, False))
    assert first["loss"] == second["loss"]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(sparse.params.values(), dense.params.values(), strict=True))


def test_the_norm_is_that_of_the_whole_gradient() -> None:
    norms = []
    for sparse in (True, False):
        model = tagger(sparse)
        y, tape = model.forward(DATA[0])
        model.backward(tape, y)
        norms.append(fr.clip_grad_norm(model, 0.5))
        norms.append(fr.clip_grad_norm(model, 10.0))
    assert np.allclose(norms[:2], norms[2:], rtol=1e-14) and abs(norms[1] - 0.5) <= 1e-5


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.9)])
def test_adam_is_torchs_sparse_adam(betas: tuple[float, float]) -> None:
    rng = np.random.default_rng(3)
    ours = fr.Embedding(30, 4, sparse=True, dtype="float64", seed=1)
    theirs = torch.nn.Embedding(30, 4, sparse=True, dtype=torch.float64)
    theirs.weight.data = torch.from_numpy(ours.params["weight"].copy())
    optimizer = fr.Adam(ours, lr=0.1, betas=betas, eps=0.0)
    oracle = torch.optim.SparseAdam(theirs.parameters(), lr=0.1, betas=betas, eps=1e-300)
    for _ in range(12):
        ids, dy = rng.integers(0, 30, (2, 5)), rng.standard_normal((2, 5, 4))
        ours.zero_grad()
        oracle.zero_grad()
        _, tape = ours.forward(ids)
        ours.backward(tape, dy)
        theirs(torch.from_numpy(ids)).backward(torch.from_numpy(dy))
        optimizer.step()
        oracle.step()
        assert np.max(np.abs(ours.params["weight"] - theirs.weight.detach().numpy())) <= 1e-12


def test_rows_that_do_not_occur_stand_still() -> None:
    layer = fr.Embedding(9, 3, sparse=True, seed=1)
    optimizer, before = fr.AdamW(layer, weight_decay=0.5), layer.state_dict()["weight"]
    for ids in ([1, 4], [4, 4, 7], []):
        layer.zero_grad()
        _, tape = layer.forward(np.array(ids, np.int32))
        layer.backward(tape, np.ones((len(ids), 3), "float32"))
        assert layer.gradient_rows()["weight"].tolist() == sorted(set(ids))
        assert np.flatnonzero(layer.grads["weight"].any(axis=1)).tolist() == sorted(set(ids))
        optimizer.step()
    moved = np.flatnonzero((layer.params["weight"] != before).any(axis=1))
    assert moved.tolist() == [1, 4, 7]


def test_several_backward_calls_count_together() -> None:
    model = fr.Sequential(fr.Embedding(9, 3, sparse=True, seed=1))
    for ids in ([5, 2], [2, 8, 0]):
        _, tape = model.forward(np.array([ids]))
        model.backward(tape, np.ones((1, len(ids), 3), "float32"))
    assert {name: rows.tolist() for name, rows in model.gradient_rows().items()} == {"0.weight": [0, 2, 5, 8]}
    assert model.grads["0.weight"][2].tolist() == [2, 2, 2]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        other.zero_grad()
        assert not other.grads["0.weight"].any() and not len(other.gradient_rows()["0.weight"])
    assert model.grads["0.weight"].any()


def test_a_gradient_that_is_not_finite_is_found() -> None:
    model = tagger(True)
    y, tape = model.forward(DATA[0])
    model.backward(tape, y)
    model.grads["embedding.weight"][DATA[0][0, 0], 1] = np.nan
    with pytest.raises(FloatingPointError, match=r"the gradient of embedding\.weight"):
        fr.Adam(model, check_finite=True).step()


def test_files_and_text_keep_it(tmp_path: Path) -> None:
    fr.Embedding(4, 2, sparse=True).save(tmp_path / "model")
    assert fr.load(tmp_path / "model").config()["sparse"] is True
    assert "sparse=True" in repr(fr.Embedding(4, 2, sparse=True))
    with pytest.raises(TypeError, match="Embedding: sparse is 1; expected True or False"):
        fr.Embedding(4, 2, sparse=1)  # type: ignore[arg-type]


def test_a_step_costs_what_its_tokens_cost() -> None:
    """With a table a hundred times as large at most twice as much; a dense gradient takes ten times that."""

    def seconds(tokens: int) -> float:
        layer = fr.Embedding(tokens, 32, sparse=True, seed=1)
        optimizer, ids = fr.Adam(layer), np.random.default_rng(1).integers(0, tokens, 100)
        times = []
        for _ in range(30):
            start = time.perf_counter()
            layer.zero_grad()
            y, tape = layer.forward(ids)
            layer.backward(tape, y)
            fr.clip_grad_norm(layer, 1.0)
            optimizer.step()
            times.append(time.perf_counter() - start)
        return min(times)

    for _ in range(3):
        small, large = seconds(2_000), seconds(200_000)
        if large <= 2 * small:
            return
    assert large <= 2 * small
