"""Wrong input raises an exception that names the argument, what was expected and what was got; nothing ever crashes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import fusedrnn as fr
from problems import LAYERS
from scripts import run_python
from tolerance import assert_same_bits

F32 = np.float32


class Bad(NamedTuple):
    """A call, and the exception that it should raise."""

    call: Callable[[], Any]
    error: type[Exception]
    argument: str
    got: str
    expected: str = "expected"


def check(bad: Bad) -> None:
    """Demand the exception type, and a message with the argument's name, what was expected and what was got."""
    with pytest.raises(bad.error) as caught:
        bad.call()
    assert type(caught.value) is bad.error
    message = str(caught.value)
    assert re.search(rf"\b{re.escape(bad.argument)}(_l0)?\b", message), f"does not name {bad.argument}: {message}"
    assert bad.expected in message, f"does not say {bad.expected}: {message}"
    assert bad.got in message, f"does not say {bad.got}: {message}"


def cases(table: dict[str, Bad]) -> pytest.MarkDecorator:
    """Parametrize over a table."""
    return pytest.mark.parametrize("bad", table.values(), ids=table)


def zeros(*shape: int, dtype: Any = F32) -> np.ndarray:
    """Return an array of zeros, float32 unless told otherwise."""
    return np.zeros(shape, dtype)


def normal(*shape: int) -> np.ndarray:
    """Return an array of random float32: with zeros a call that should have failed could leave no trace."""
    return np.random.default_rng(0).normal(size=shape).astype(F32)


lstm: Any = fr.LSTM(4, 8, 2)
parted: Any = fr.GRU(4, 8, 2, dropout=0.3)  # in training each of its layers is a call of its own
autoencoder: Any = fr.models.SequenceAutoencoder(fr.LSTM(4, 8), fr.LSTM(4, 8), fr.Linear(8, 4))
gru: Any = fr.GRU(4, 8, 2)
X, H0 = normal(3, 5, 4), normal(2, 3, 8)

CONSTRUCTORS = {
    "hidden_size 0": Bad(lambda: fr.LSTM(4, 0), ValueError, "hidden_size", "0"),
    "hidden_size negative": Bad(lambda: fr.GRU(4, -3), ValueError, "hidden_size", "-3"),
    "hidden_size float": Bad(lambda: fr.RNN(4, 2.5), TypeError, "hidden_size", "2.5"),
    "hidden_size text": Bad(lambda: fr.RNN(4, "8"), TypeError, "hidden_size", "8"),
    "input_size 0": Bad(lambda: fr.LSTM(0, 8), ValueError, "input_size", "0"),
    "num_layers 0": Bad(lambda: fr.LSTM(4, 8, 0), ValueError, "num_layers", "0"),
    "num_layers negative": Bad(lambda: fr.LSTM(4, 8, -1), ValueError, "num_layers", "-1"),
    "num_layers huge": Bad(lambda: fr.LSTM(1, 1, 2**40), ValueError, "num_layers", str(2**40)),
    "num_layers many": Bad(lambda: fr.LSTM(1, 1, 300_000), ValueError, "num_layers", "300000"),
    "num_layers float": Bad(lambda: fr.LSTM(4, 8, 1.0), TypeError, "num_layers", "1.0"),
    "dropout negative": Bad(lambda: fr.LSTM(4, 8, 2, dropout=-0.1), ValueError, "dropout", "-0.1"),
    "dropout over 1": Bad(lambda: fr.LSTM(4, 8, 2, dropout=1.5), ValueError, "dropout", "1.5"),
    "dropout None": Bad(lambda: fr.LSTM(4, 8, 2, dropout=None), TypeError, "dropout", "None"),
    "dropout text": Bad(lambda: fr.LSTM(4, 8, 2, dropout="x"), TypeError, "dropout", "x"),
    "compute_dtype array": Bad(lambda: fr.LSTM(2, 3, compute_dtype=zeros(3)), ValueError, "compute_dtype", "array([0."),
    "dtype list": Bad(lambda: fr.LSTM(2, 3, dtype=["f4"]), TypeError, "dtype", "['f4']"),
    "bias text": Bad(lambda: fr.LSTM(4, 8, bias="no"), TypeError, "bias", "no"),
    "bidirectional number": Bad(lambda: fr.GRU(4, 8, bidirectional=2), TypeError, "bidirectional", "2"),
    "batch_first None": Bad(lambda: fr.RNN(4, 8, batch_first=None), TypeError, "batch_first", "None"),
    "seed text": Bad(lambda: fr.LSTM(4, 8, seed="a"), TypeError, "seed", "a"),
    "seed negative": Bad(lambda: fr.Linear(4, 8, seed=-1), ValueError, "seed", "-1"),
    "seed float": Bad(lambda: fr.Dropout(seed=0.5), TypeError, "seed", "0.5"),
    "dropout nan": Bad(lambda: fr.LSTM(4, 8, 2, dropout=float("nan")), ValueError, "dropout", "nan"),
    "dtype half": Bad(lambda: fr.LSTM(4, 8, dtype="float16"), TypeError, "dtype", "float16"),
    "dtype complex": Bad(lambda: fr.LSTM(4, 8, dtype=np.complex64), TypeError, "dtype", "complex64"),
    "dtype unknown": Bad(lambda: fr.LSTM(4, 8, dtype="real"), TypeError, "dtype", "real"),
    "nonlinearity": Bad(lambda: fr.RNN(4, 8, nonlinearity="gelu"), ValueError, "nonlinearity", "gelu"),
    "init": Bad(lambda: fr.LSTM(4, 8, init="zeros"), ValueError, "init", "zeros"),
    "device": Bad(lambda: fr.LSTM(4, 8, device="cuda"), RuntimeError, "device", "cuda", "cpu"),
    "device array": Bad(lambda: fr.LSTM(4, 8, device=np.array(["cpu", "x"])), RuntimeError, "device", "array", "cpu"),
}


@pytest.mark.usefixtures("no_device")
@cases(CONSTRUCTORS)
def test_constructor(bad: Bad) -> None:
    """Sizes, probabilities, dtypes and names that no layer can have."""
    check(bad)


SHAPES = {
    "x rank 0": Bad(lambda: lstm(F32(1)), ValueError, "x", "()"),
    "x rank 1": Bad(lambda: lstm(zeros(4)), ValueError, "x", "(4,)"),
    "x rank 4": Bad(lambda: lstm(zeros(1, 3, 5, 4)), ValueError, "x", "(1, 3, 5, 4)"),
    "x last dim": Bad(lambda: lstm(zeros(3, 5, 6)), ValueError, "x", "(3, 5, 6)"),
    "x last dim 0": Bad(lambda: gru(zeros(3, 5, 0)), ValueError, "x", "(3, 5, 0)"),
    "h0 layers": Bad(lambda: gru(X, zeros(4, 3, 8)), ValueError, "h0", "(4, 3, 8)", "(2, 3, 8)"),
    "h0 batch": Bad(lambda: gru(X, zeros(2, 4, 8)), ValueError, "h0", "(2, 4, 8)", "(2, 3, 8)"),
    "h0 hidden": Bad(lambda: gru(X, zeros(2, 3, 9)), ValueError, "h0", "(2, 3, 9)", "(2, 3, 8)"),
    "h0 of LSTM": Bad(lambda: lstm(X, (zeros(2, 4, 8), H0)), ValueError, "h0", "(2, 4, 8)", "(2, 3, 8)"),
    "h0 and c0 differ": Bad(lambda: lstm(X, (H0, zeros(3, 3, 8))), ValueError, "c0", "(3, 3, 8)", "(2, 3, 8)"),
    "batched h, unbatched x": Bad(lambda: gru(zeros(5, 4), zeros(2, 1, 8)), ValueError, "h0", "(2, 1, 8)", "(2, 8)"),
    "unbatched h, batched x": Bad(lambda: gru(X, zeros(2, 8)), ValueError, "h0", "(2, 8)", "(2, 3, 8)"),
    "array for a pair": Bad(lambda: lstm(X, zeros(2, 2, 3, 8)), ValueError, "state", "(2, 2, 3, 8)"),
    "triple for a pair": Bad(lambda: lstm(X, (H0, H0, H0)), ValueError, "state", "tuple"),
    "pair for an array": Bad(lambda: gru(X, (H0, H0)), ValueError, "state", "tuple"),
    "number for a state": Bad(lambda: gru(X, 3.0), ValueError, "h0", "()", "(2, 3, 8)"),
    "number, layers apart": Bad(lambda: parted.forward(X, 3.0), ValueError, "h0", "()", "(2, 3, 8)"),
    "too many, layers apart": Bad(
        lambda: parted.forward(X, zeros(5, 3, 8)), ValueError, "h0", "(5, 3, 8)", "(2, 3, 8)"
    ),
    "x rank 4, layers apart": Bad(lambda: parted.forward(zeros(1, 3, 5, 4), 3.0), ValueError, "x", "(1, 3, 5, 4)"),
}


@cases(SHAPES)
def test_shapes(bad: Bad) -> None:
    """Ranks, sizes and states that do not fit the layer or each other."""
    check(bad)


LENGTHS = {
    "negative": Bad(lambda: lstm(X, lengths=np.array([1, -1, 2])), ValueError, "lengths", "-1"),
    "too long": Bad(lambda: lstm(X, lengths=np.array([1, 6, 2])), ValueError, "lengths", "6"),
    "huge": Bad(lambda: lstm(X, lengths=np.array([1, 2**63, 2], np.uint64)), ValueError, "lengths", str(2**63)),
    "too few": Bad(lambda: lstm(X, lengths=np.array([1, 2])), ValueError, "lengths", "(2,)", "(3,)"),
    "too many": Bad(lambda: lstm(X, lengths=np.array([1, 2, 3, 4])), ValueError, "lengths", "(4,)", "(3,)"),
    "rank 2": Bad(lambda: lstm(X, lengths=np.array([[1, 2, 3]])), ValueError, "lengths", "(1, 3)", "(batch,)"),
    "ragged": Bad(lambda: lstm(X, lengths=[[1], [1, 2], 3]), ValueError, "LSTM: lengths", "unlike", "(batch,)"),
    "float": Bad(lambda: lstm(X, lengths=np.array([1.0, 2, 3])), TypeError, "lengths", "float64"),
    "bool": Bad(lambda: lstm(X, lengths=np.array([True, True, False])), TypeError, "lengths", "bool"),
    "text": Bad(lambda: lstm(X, lengths=np.array(["1", "2", "3"])), TypeError, "lengths", "<U1"),
}


@cases(LENGTHS)
def test_lengths(bad: Bad) -> None:
    """Lengths that are out of range, too few, or no integers."""
    check(bad)


@pytest.mark.parametrize("kind", ["complex64", "complex128", "object", "bool", "<U3", "S3", "datetime64[s]"])
@pytest.mark.parametrize("name", ["x", "h0", "c0"])
def test_dtypes(name: str, kind: str) -> None:
    """What is not a real number is not converted."""
    arrays = {"x": X, "h0": H0, "c0": H0}
    arrays[name] = arrays[name].astype("i8").astype(kind)
    dtype = str(arrays[name].dtype)
    check(Bad(lambda: lstm(arrays["x"], (arrays["h0"], arrays["c0"])), TypeError, name, dtype))


def tape_of(layer: Any, x: np.ndarray = X) -> Any:
    """Return the tape of a forward call."""
    return layer.forward(x)[1]


DY = normal(3, 5, 8)
BACKWARD = {
    "dy shape": Bad(lambda: lstm.backward(tape_of(lstm), zeros(3, 5, 9)), ValueError, "dy", "(3, 5, 9)", "(3, 5, 8)"),
    "dy rank": Bad(lambda: lstm.backward(tape_of(lstm), zeros(3, 8)), ValueError, "dy", "(3, 8)", "(3, 5, 8)"),
    "dy steps": Bad(lambda: gru.backward(tape_of(gru), zeros(3, 4, 8)), ValueError, "dy", "(3, 4, 8)", "(3, 5, 8)"),
    "dy complex": Bad(lambda: gru.backward(tape_of(gru), DY.astype("c8")), TypeError, "dy", "complex64"),
    "dh shape": Bad(lambda: gru.backward(tape_of(gru), DY, zeros(2, 3, 7)), ValueError, "dh", "(2, 3, 7)", "(2, 3, 8)"),
    "dc shape": Bad(
        lambda: lstm.backward(tape_of(lstm), DY, (H0, zeros(2, 2, 8))), ValueError, "dc", "(2, 2, 8)", "(2, 3, 8)"
    ),
    "array for a pair": Bad(
        lambda: lstm.backward(tape_of(lstm), DY, zeros(2, 2, 3, 8)), ValueError, "dstate", "(2, 2, 3, 8)"
    ),
    "neither": Bad(lambda: gru.backward(tape_of(gru), None), ValueError, "dy", "None"),
    "another cell's tape": Bad(lambda: lstm.backward(tape_of(gru), DY), ValueError, "tape", "GRU"),
    "another layer's tape": Bad(lambda: gru.backward(tape_of(fr.GRU(4, 8, 2)), DY), ValueError, "tape", "GRU"),
    "another configuration": Bad(lambda: gru.backward(tape_of(fr.GRU(4, 8, 3)), DY), ValueError, "tape", "GRU"),
    "number for dstate": Bad(lambda: gru.backward(tape_of(gru), None, 3.0), ValueError, "dh", "()", "(2, 3, 8)"),
    "number, layers apart": Bad(
        lambda: parted.backward(tape_of(parted), None, 3.0), ValueError, "dh", "()", "(2, 3, 8)"
    ),
    "too many, layers apart": Bad(
        lambda: parted.backward(tape_of(parted), DY, zeros(5, 3, 8)), ValueError, "dh", "(5, 3, 8)", "(2, 3, 8)"
    ),
    "number for dy": Bad(lambda: autoencoder.backward(tape_of(autoencoder), 1.0), ValueError, "dy", "()", "(3, 5, 4)"),
    "no tape": Bad(lambda: gru.backward(None, DY), ValueError, "tape", "NoneType"),
    "outputs for a tape": Bad(lambda: gru.backward(gru(X), DY), ValueError, "tape", "tuple"),
}


@cases(BACKWARD)
def test_backward(bad: Bad) -> None:
    """Cotangents that do not fit the outputs, tapes of other calls; the gradients stay as they were."""
    for layer in (lstm, gru):
        layer.backward(tape_of(layer), DY)
    before = [grad.copy() for layer in (lstm, gru) for grad in layer.grads.values()]
    check(bad)
    after = [grad for layer in (lstm, gru) for grad in layer.grads.values()]
    for grad, expected in zip(after, before, strict=True):
        assert np.any(expected)
        assert_same_bits(grad, expected)


def test_good_after_bad(cell: str) -> None:
    """An exception leaves the layer as it was."""
    layer = LAYERS[cell](4, 8, 2, seed=1)
    x = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(F32)
    expected = layer(x)[0]
    calls: list[Callable[[], Any]] = [
        lambda: layer(x[..., :3]),
        lambda: layer(x, lengths=np.array([9, 9, 9])),
        lambda: layer.load_state_dict({"weight_ih_l0": x}),
    ]
    for call in calls:
        with pytest.raises(ValueError):
            call()
        assert_same_bits(layer(x)[0], expected)


def test_load_state_dict_lists_everything() -> None:
    """Missing and extra names and wrong shapes come in one message, and the model is untouched."""
    layer = fr.LSTM(4, 8, seed=1)
    before, state = layer.state_dict(), layer.state_dict()
    del state["bias_hh_l0"]
    state |= {"weight_ih_l1": zeros(2), "weight_hh_l0": zeros(32, 9), "weight_ih_l0": zeros(32, 4)}
    with pytest.raises(ValueError) as caught:
        layer.load_state_dict(state)
    for part in ("bias_hh_l0", "weight_ih_l1", "weight_hh_l0", "(32, 9)", "(32, 8)"):
        assert part in str(caught.value)
    for name, value in layer.params.items():
        assert_same_bits(value, before[name])


stream: Any = lstm.stream(batch_size=3)
untouched: Any = lstm.stream(batch_size=3)
STEP = normal(3, 4)


def overlapping() -> Any:
    """Step with an output that shares memory with the input."""
    layer = fr.GRU(8, 8)
    x = zeros(3, 8)
    return layer.stream(batch_size=3).step(x, out=x)


def read_only() -> np.ndarray:
    """Return an output that may not be written."""
    out = zeros(3, 8)
    out.flags.writeable = False
    return out


STREAMS = {
    "x shape": Bad(lambda: stream.step(zeros(3, 5)), ValueError, "x", "(3, 5)", "(3, 4)"),
    "x batch": Bad(lambda: stream.step(zeros(2, 4)), ValueError, "x", "(2, 4)", "(3, 4)"),
    "x rank": Bad(lambda: stream.step(X), ValueError, "x", "(3, 5, 4)", "(3, 4)"),
    "x complex": Bad(lambda: stream.step(STEP.astype("c8")), TypeError, "x", "complex64"),
    "out shape": Bad(lambda: stream.step(STEP, out=zeros(3, 9)), ValueError, "out", "(3, 9)", "(3, 8)"),
    "out dtype": Bad(lambda: stream.step(STEP, out=zeros(3, 8, dtype="f8")), TypeError, "out", "float64", "float32"),
    "out read-only": Bad(lambda: stream.step(STEP, out=read_only()), ValueError, "out", "read-only"),
    "out broadcast": Bad(
        lambda: stream.step(STEP, out=np.broadcast_to(F32(0), (3, 8))), ValueError, "out", "read-only"
    ),
    "out stride 0": Bad(
        lambda: stream.step(STEP, out=np.lib.stride_tricks.as_strided(zeros(3, 8), (3, 8), (0, 4))),
        ValueError,
        "out",
        "strided",
    ),
    "out overlaps x": Bad(overlapping, ValueError, "out", "overlap"),
    "out no array": Bad(lambda: stream.step(STEP, out=[0.0]), TypeError, "out", "list"),
    "two directions": Bad(
        lambda: fr.GRU(4, 8, bidirectional=True).stream(), ValueError, "stream", "future", "one forward"
    ),
    "batch_size 0": Bad(lambda: lstm.stream(batch_size=0), ValueError, "batch_size", "0"),
    "state shape": Bad(lambda: stream.reset((H0, zeros(2, 2, 8))), ValueError, "c", "(2, 2, 8)", "(2, 3, 8)"),
    "state no pair": Bad(lambda: stream.reset(H0), ValueError, "state", "(2, 3, 8)"),
}


@cases(STREAMS)
def test_streams(bad: Bad) -> None:
    """Steps and outputs that do not fit, and the same stream works on as one that never saw them."""
    for each in (stream, untouched):
        each.reset()
        each.step(STEP)
    check(bad)
    assert_same_bits(stream.step(STEP), untouched.step(STEP))
    for value, expected in zip(stream.state, untouched.state, strict=True):
        assert_same_bits(value, expected)


@pytest.mark.memory_limit
def test_overflowing_sizes() -> None:
    """Views of one element whose sizes multiply to more than any memory are refused before anything is allocated."""
    run_python(
        """
        import resource
        import numpy as np
        import fusedrnn as fr

        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
        lstm = fr.LSTM(4, 64)
        for shape in ((2**30, 2**28, 4), (1, 2**58, 4), (2**58, 1, 4), (2**58, 4)):
            x = np.broadcast_to(np.float32(0), shape)
            for call in (lstm, lstm.forward):
                try:
                    call(x)
                except ValueError as error:
                    assert "x" in str(error) and str(shape[0]) in str(error), error
                else:
                    raise AssertionError(shape)
        for sizes in ((2**62, 8), (8, 2**62), (2**31, 2**31)):
            try:
                fr.LSTM(*sizes)
            except ValueError as error:
                assert "LSTM" in str(error), error
            else:
                raise AssertionError(sizes)
        assert lstm(np.zeros((1, 2, 4), np.float32))[0].shape == (1, 2, 64)
        """
    )


SCALARS = {
    "pad_sequences": Bad(lambda: fr.pad_sequences(np.array(2.0)), TypeError, "sequences", "an ndarray"),
    "x": Bad(lambda: lstm(3.0), ValueError, "x", "()"),
    "h0": Bad(lambda: gru(X, 0.0), ValueError, "h0", "()"),
    "dy": Bad(lambda: gru.backward(gru.forward(X)[1], 1.0), ValueError, "dy", "()"),
    "step": Bad(lambda: gru.stream().step(1), ValueError, "x", "()"),
    "Linear": Bad(lambda: fr.Linear(2, 3)(1.0), ValueError, "x", "()"),
}


@cases(SCALARS)
def test_numbers_are_no_arrays(bad: Bad) -> None:
    check(bad)


TENSORS = {
    "gradient": Bad(lambda: lstm(torch.zeros(3, 5, 4, requires_grad=True)), TypeError, "x", "Tensor"),
    "bfloat16": Bad(lambda: lstm(torch.zeros(3, 5, 4, dtype=torch.bfloat16)), TypeError, "x", "Tensor"),
    "meta": Bad(lambda: lstm(torch.zeros(3, 5, 4, device="meta")), TypeError, "x", "Tensor"),
    "sparse": Bad(lambda: gru(X, torch.zeros(2, 3).to_sparse()), TypeError, "h0", "Tensor"),
    "fit": Bad(
        lambda: fr.fit(lstm, torch.zeros(3, 5, 4, requires_grad=True), X, epochs=1, batch_size=1),
        TypeError,
        "x",
        "Tensor",
    ),
}


@cases(TENSORS)
def test_tensors_that_numpy_cannot_read(bad: Bad) -> None:
    check(bad)


PACKED = torch.nn.utils.rnn.pack_padded_sequence(torch.zeros(3, 5, 4), torch.tensor([5, 3, 2]), batch_first=True)
MASKED = np.ma.masked_equal(zeros(3, 5, 4), 0)
SELF_DESCRIBED = {
    "packed": Bad(lambda: lstm(PACKED), TypeError, "x", "PackedSequence", "pad_packed_sequence"),
    "packed in fit": Bad(lambda: fr.fit(lstm, PACKED, X, epochs=1, batch_size=1), TypeError, "x", "PackedSequence"),
    "masked": Bad(lambda: fr.Linear(4, 2)(MASKED), TypeError, "x", "MaskedArray", "x.filled(0)"),
    "masked tokens": Bad(lambda: fr.Embedding(4, 2)(MASKED.astype(int)), TypeError, "ids", "MaskedArray", "lengths="),
}


@cases(SELF_DESCRIBED)
def test_arrays_that_say_what_counts_in_them(bad: Bad) -> None:
    check(bad)


def test_a_mask_of_nothing_is_no_mask() -> None:
    assert_same_bits(lstm(np.ma.array(X))[0], lstm(X)[0])
    assert_same_bits(lstm(np.ma.array(X, mask=np.zeros(X.shape, bool)))[0], lstm(X)[0])


RAGGED = [zeros(5, 4), zeros(3, 4)]


def test_a_ragged_list_names_the_way_out_where_it_is_none() -> None:
    """A layer without time steps has no lengths to give it; so does one whose first axis is time."""
    for call in (lambda: fr.Linear(4, 2)(RAGGED), lambda: fr.LSTM(4, 2, batch_first=False)(RAGGED)):
        with pytest.raises(
            ValueError, match=r"x is not an array: its parts have unlike shapes; fusedrnn.pad_sequences makes"
        ):
            call()


CLASSES = {
    "Bidirectional": Bad(lambda: fr.Bidirectional(fr.LSTM), TypeError, "layer", "the class LSTM"),
    "Sequential": Bad(lambda: fr.Sequential(fr.LSTM), TypeError, "layer 0", "the class LSTM"),
    "encoder": Bad(lambda: fr.models.EncoderDecoder(fr.LSTM, gru, 2), TypeError, "encoder", "the class LSTM"),
    "output": Bad(lambda: fr.models.SequenceToVector(fr.LSTM, 2), TypeError, "layer", "the class LSTM"),
    "save": Bad(lambda: fr.save({}, "x"), TypeError, "layer", "a dict"),
    "fit": Bad(lambda: fr.fit(fr.LSTM, X, X, epochs=1, batch_size=1), TypeError, "model", "the class LSTM"),
    "fit None": Bad(lambda: fr.fit(None, X, X, epochs=1, batch_size=1), TypeError, "model", "a NoneType"),
    "evaluate": Bad(lambda: fr.training.evaluate(fr.LSTM, X, X), TypeError, "model", "the class LSTM"),
}


@cases(CLASSES)
def test_what_is_no_layer(bad: Bad) -> None:
    check(bad)
