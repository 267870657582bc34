"""A layer keeps packed copies of its weights between calls; no way of writing to them may go unnoticed.

Nor may one between a forward and its backward, of layers whose backward reads them again.
"""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
from fusedrnn import _core
from fusedrnn.layers.parameters import Parameters, serial_of
from fusedrnn.models import Attention, SequenceToSequence, StackedAutoencoder

pytestmark = pytest.mark.skipif(
    "t" in sys.abiflags, reason="weights are compared at every call of a free-threaded build"
)
NAME = "weight_hh_l0"
X = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)


def make() -> fr.LSTM:
    """Return a layer that has settled: it knows that nobody else holds its weights."""
    layer = fr.LSTM(3, 7, seed=1)
    layer(X)
    layer(X)
    assert serial_of(layer) > 0
    return layer


def outputs_of_fresh(layer: fr.LSTM) -> np.ndarray:
    fresh = fr.LSTM(3, 7, seed=2)
    fresh.load_state_dict(layer.state_dict())
    return fresh(X)[0]


def hold_array(layer: fr.LSTM) -> Callable[[], None]:
    array = layer.params[NAME]
    return lambda: array.__setitem__((0, 0), 3)


def hold_row(layer: fr.LSTM) -> Callable[[], None]:
    row = layer.params[NAME][2]
    return lambda: row.fill(-1)


def hold_transposed(layer: fr.LSTM) -> Callable[[], None]:
    transposed = layer.params[NAME].T
    return lambda: transposed.fill(0.25)


def hold_dict(layer: fr.LSTM) -> Callable[[], None]:
    params = layer.params
    return lambda: params[NAME].fill(0.5)


def hold_memoryview(layer: fr.LSTM) -> Callable[[], None]:
    view = memoryview(layer.params[NAME])
    return lambda: view.__setitem__((1, 1), 2.0)


def hold_weak_reference(layer: fr.LSTM) -> Callable[[], None]:
    reference = weakref.ref(layer.params[NAME])
    return lambda: reference().fill(0.75)


def hold_ctypes_pointer(layer: fr.LSTM) -> Callable[[], None]:
    pointer = layer.params[NAME].ctypes.data_as(np.ctypeslib.ctypes.POINTER(np.ctypeslib.ctypes.c_float))
    return lambda: pointer.__setitem__(0, 5.0)


def hold_torch_tensor(layer: fr.LSTM) -> Callable[[], None]:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(layer.params[NAME])
    return lambda: tensor.fill_(0.1)


def hold_nothing(layer: fr.LSTM) -> Callable[[], None]:
    return lambda: layer.params[NAME].__imul__(2)


def hold_parent(layer: fr.LSTM) -> Callable[[], None]:
    parent = fr.Sequential(layer)
    return lambda: parent.params[f"0.{NAME}"].__imul__(2)


def hold_shallow_copy(layer: fr.LSTM) -> Callable[[], None]:
    other = copy.copy(layer)
    return lambda: other.params[NAME].__imul__(2)


def hold_optimizer(layer: fr.LSTM) -> Callable[[], None]:
    optimizer = fr.SGD(layer, lr=0.5)

    def change() -> None:
        for grad in layer.grads.values():
            grad.fill(1)
        optimizer.step()

    return change


def hold_shared_array(layer: fr.LSTM) -> Callable[[], None]:
    other = fr.LSTM(3, 7, seed=3)
    other.params[NAME] = layer.params[NAME]
    return lambda: other.params[NAME].__imul__(2)


def replace_array(layer: fr.LSTM) -> Callable[[], None]:
    return lambda: layer.params.update({NAME: layer.params[NAME] * 2})


def load(layer: fr.LSTM) -> Callable[[], None]:
    state = {name: array + 1 for name, array in layer.state_dict().items()}
    return lambda: layer.load_state_dict(state)


WAYS = [
    hold_array,
    hold_row,
    hold_transposed,
    hold_dict,
    hold_memoryview,
    hold_weak_reference,
    hold_ctypes_pointer,
    hold_torch_tensor,
    hold_nothing,
    hold_parent,
    hold_shallow_copy,
    hold_optimizer,
    hold_shared_array,
    replace_array,
    load,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("calls", [0, 1, 3])
def test_no_change_goes_unnoticed(way: Callable[[fr.LSTM], Callable[[], None]], calls: int) -> None:
    layer = make()
    change = way(layer)
    for _ in range(calls):
        layer(X)
    before = layer(X)[0]
    for _ in range(2):  # a second change, by the same holder
        change()
        after = layer(X)[0]
        assert (after == outputs_of_fresh(layer)).all()
    assert (after != before).any()


def test_training_forward_sees_changes_too() -> None:
    layer = make()
    layer.forward(X)
    before = layer.forward(X)[0][0]
    layer.params[NAME][...] *= 2
    after = layer.forward(X)[0][0]
    assert (after == outputs_of_fresh(layer)).all()
    assert (after != before).any()


def test_each_stack_of_a_layer_sees_changes() -> None:
    """With dropout between layers, training and inference pack for themselves."""
    layer = fr.LSTM(3, 7, num_layers=2, dropout=0.5, seed=1)
    for _ in range(2):
        layer(X)
        layer.forward(X)
    layer.params["weight_ih_l1"][...] *= 2
    layer(X)
    fresh = fr.LSTM(3, 7, num_layers=2, dropout=0.5, seed=2)
    fresh.load_state_dict(layer.state_dict())
    layer.reseed(5)
    fresh.reseed(5)
    assert (layer.forward(X)[0][0] == fresh.forward(X)[0][0]).all()


def test_weights_that_nobody_holds_are_read_once() -> None:
    """A write that Python cannot see changes nothing: proof that the check is skipped, and its stated limit."""
    layer = make()
    address = layer._params[NAME].ctypes.data
    gc.collect()
    before = layer(X)[0]
    np.ctypeslib.ctypes.memset(address, 0, 4)
    assert layer._params[NAME][0, 0] == 0
    assert (layer(X)[0] == before).all()


def test_serial_numbers() -> None:
    layer = make()
    first = serial_of(layer)
    assert serial_of(layer) == first
    held = layer.params[NAME]
    assert serial_of(layer) == 0
    del held
    settled = serial_of(layer)
    assert settled > first
    (y, _), tape = layer.forward(X)
    layer.backward(tape, y)
    assert serial_of(layer) == settled, "neither a tape nor a backward is a reason to look at the weights"


@pytest.mark.parametrize("again", [lambda p: pickle.loads(pickle.dumps(p)), copy.copy, copy.deepcopy])
def test_copies_of_parameters_start_unknown(again: Callable[[Any], Any]) -> None:
    layer = make()
    made = again(layer._params)
    assert type(made) is Parameters
    assert made.handed_out
    assert made.keys() == layer._params.keys()


def test_foreign_memory_is_never_trusted() -> None:
    layer = make()
    memory = bytearray(layer.params[NAME].tobytes())
    layer.params[NAME] = np.frombuffer(memory, np.float32).reshape(28, 7)
    before = layer(X)[0]
    memory[:4] = np.float32(9).tobytes()
    assert (layer(X)[0] != before).any()


# ------------------------------------------------------------------------------- between a forward and its backward


def linear() -> tuple[Any, tuple[Any, ...]]:
    return fr.Linear(3, 4, seed=1), (X,)


def general_attention() -> tuple[Any, tuple[Any, ...]]:
    return Attention(3, 5, "general", seed=1), (X, np.ones((2, 6, 5), np.float32))


def tied() -> tuple[Any, tuple[Any, ...]]:
    return StackedAutoencoder((3, 4), tied=True, seed=1), (X[:, 0],)


def head() -> tuple[Any, tuple[Any, ...]]:
    return SequenceToSequence(fr.GRU(3, 4, seed=1), 2, seed=2), (X,)


WRITES: dict[str, Callable[[dict[str, Any], str], object]] = {
    "in place": lambda params, name: params[name].__setitem__((0, 1), 3.0),
    "of another sign": lambda params, name: np.negative(params[name], out=params[name]),
    "in another order": lambda params, name: params[name].__setitem__(..., params[name][::-1].copy()),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    ("make_model", "name"),
    [
        (linear, "weight"),
        (general_attention, "weight"),
        (general_attention, "combine.weight"),
        (tied, "encoder.weight"),
        (head, "head.weight"),
    ],
)
def test_weights_that_backward_reads_again(make_model: Any, name: str, held: bool, write: str) -> None:
    model, inputs = make_model()
    name = next(each for each in model.params if each.endswith(name) or name == "encoder.weight")
    kept = model.params[name] if held else None
    y, tape = model.forward(*inputs)
    _ = model.params[name].sum(), model.state_dict(), str(model), model(*inputs)  # who only reads changes nothing
    model.backward(tape, y)
    before = {each: grad.copy() for each, grad in model.grads.items()}
    y, tape = model.forward(*inputs)
    old = model.state_dict()
    WRITES[write](model.params, name)
    with pytest.raises(
        ValueError, match="weights have been written to since the forward call of this tape; expected back"
    ):
        model.backward(tape, y)
    model.load_state_dict(old)
    model.zero_grad()
    model.backward(tape, y)
    assert all(np.array_equal(model.grads[each], grad) for each, grad in before.items())
    assert kept is None or kept is model.params[name]


def test_a_step_of_an_optimizer_comes_after_backward() -> None:
    layer = fr.Linear(3, 4, seed=1)
    layer.grads["weight"].fill(1)
    y, tape = layer.forward(X)
    fr.SGD(layer).step()
    with pytest.raises(ValueError, match="Linear: the weights have been written to"):
        layer.backward(tape, y)


def test_recurrent_layers_keep_the_weights_of_their_forward() -> None:
    gradients = []
    for write in (False, True):
        layer = make()
        (y, _), tape = layer.forward(X)
        if write:
            layer.params[NAME].fill(7)
        layer.backward(tape, y)
        gradients.append(layer.grads[NAME].tobytes())
    assert gradients[0] == gradients[1]


def test_the_witness_of_weights_that_nobody_holds_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, calls = fr.Linear(3, 4, seed=1), []
    fingerprint = _core.fingerprint
    monkeypatch.setattr(_core, "fingerprint", lambda arrays: calls.append(len(arrays)) or fingerprint(arrays))
    for _ in range(3):
        y, tape = layer.forward(X)
        layer.backward(tape, y)
    assert calls == [2]


def test_fingerprints_see_every_word() -> None:
    for dtype in ("float32", "float64"):
        for size in (1, 31, 32, 33, 63, 64, 65, 16_384, 16_385, 40_001):
            x = np.random.default_rng(size).standard_normal(size).astype(dtype)
            first = _core.fingerprint([x])
            for at in {0, size // 3, size - 1}:
                old = x[at].copy()
                x[at] = -old
                assert _core.fingerprint([x]) != first, (dtype, size, at)
                x[at] = old
            assert _core.fingerprint([x]) == first
            assert size == 1 or _core.fingerprint([x[::-1]]) != first
            assert _core.fingerprint([np.repeat(x, 2)[::2]]) == first
    assert _core.fingerprint([x, x[:3]]) != _core.fingerprint([x[:3], x])
    sums = set()
    for threads in (1, 2, 5):
        before = fr.get_num_threads()
        fr.set_num_threads(threads)
        sums.add(_core.fingerprint([x]))
        fr.set_num_threads(before)
    assert len(sums) == 1
    with pytest.raises(TypeError, match="fingerprint: an array has dtype int64; expected floats"):
        _core.fingerprint([np.zeros(3, np.int64)])
