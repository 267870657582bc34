"""``load_state_dict(rename=...)``: the parameters of a model whose parts have other names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr


def model() -> fr.Sequential:
    return fr.Sequential(fr.Embedding(7, 3), fr.LSTM(3, 4, 2, bidirectional=True), fr.Linear(8, 2))


def other_names() -> dict[str, Any]:
    ours = model().state_dict()
    prefixes = {"0": "words", "1": "body.encoder", "2": "body.head.0"}
    return {f"{prefixes[name[0]]}{name[1:]}": value + 1 for name, value in ours.items()}


def test_prefixes() -> None:
    """The longest of several counts: body.head alone is left out."""
    ours, state = model(), other_names()
    state["body.head.weight"] = 0
    ours.load_state_dict(state, rename={"words": "0", "body.encoder": "1", "body.head": None, "body.head.0": "2"})
    np.testing.assert_array_equal(ours.params["1.weight_hh_l1_reverse"], state["body.encoder.weight_hh_l1_reverse"])
    np.testing.assert_array_equal(ours.params["2.bias"], state["body.head.0.bias"])


def test_whole_names_and_names_left_out() -> None:
    layer = fr.Linear(3, 2)
    state = {"fc.W": np.ones((2, 3)), "fc.b": np.full(2, 2.0), "extra.W": np.zeros(1), "extra.b": np.zeros(1)}
    layer.load_state_dict(state, rename={"fc.W": "weight", "fc.b": "bias", "extra": None})
    assert layer.params["bias"].tolist() == [2, 2]


def test_a_beginning_is_dropped() -> None:
    layer = fr.GRU(3, 4)
    layer.load_state_dict({f"rnn.{name}": value for name, value in layer.state_dict().items()}, rename={"rnn": ""})


def test_a_prefix_ends_at_a_dot() -> None:
    layer = fr.Linear(3, 2)
    with pytest.raises(ValueError, match="rename has f; the state has no such names"):
        layer.load_state_dict({"fc.weight": 0, "fc.bias": 0}, rename={"f": ""})


def test_errors_change_nothing() -> None:
    layer = fr.Linear(3, 2)
    before = layer.state_dict()
    state = {"a.weight": np.ones((2, 3)), "b.weight": np.ones((2, 3)), "bias": np.ones(2)}
    with pytest.raises(ValueError, match="Linear: rename gives weight to two values"):
        layer.load_state_dict(state, rename={"a": "", "b": ""})
    with pytest.raises(ValueError, match=r"Linear: rename has c, d; the state has no such names"):
        layer.load_state_dict(state, rename={"c": "x", "d": None})
    with pytest.raises(TypeError, match="state is a list"):
        layer.load_state_dict([], rename={})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Linear: rename is a str; expected a mapping"):
        layer.load_state_dict(state, rename="a")  # type: ignore[arg-type]
    for name, value in before.items():
        np.testing.assert_array_equal(layer.params[name], value)


def test_a_module_of_torch() -> None:
    torch = pytest.importorskip("torch")

    class Tagger(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(7, 3)
            self.body = torch.nn.ModuleDict({"encoder": torch.nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True)})
            self.out = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(8, 2))

        def forward(self, x: Any) -> Any:
            return self.out(self.body["encoder"](self.words(x))[0])

    theirs, ours = Tagger().eval(), model()
    ours.load_state_dict(theirs.state_dict(), rename={"words": "0", "body.encoder": "1", "out.1": "2"})
    ids = np.random.default_rng(0).integers(0, 7, (2, 5))
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(ids)).numpy()
    assert np.abs(ours(ids) - expected).max() <= 1e-6
