"""A million random calls: each returns, or raises an error that says what was wrong; never a signal.

    python tests/fuzz/calls.py --calls 1000000 --seed 1
    tests/sanitize/run asan tests/fuzz/calls.py --calls 1000000 --seed 1

A round makes a small layer and calls it, its streams, tapes, kernels and optimizers, with arrays in any memory and with
things that are no arrays. Tiny shapes, so that calls are cheap. ``--round`` runs again the one that failed.
"""

from __future__ import annotations

import argparse
import faulthandler
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import fusedrnn as fr
from fusedrnn import _core, training

faulthandler.enable()
REFUSALS = (ValueError, TypeError, RuntimeError, MemoryError)  # MemoryError: of sizes that no machine has
RAW_REFUSALS = (*REFUSALS, IndexError, OverflowError)
SIZES = (1, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 33)
OBJECTS = (None, 0, -1, 2**70, 1.5, float("nan"), "x", b"x", [], [[]], [[1], [1, 2]], (), {}, object(), np.float32(3))
DTYPES = ("f4", "f4", "f4", "f8", ">f4", "f2", "i4", "u8", "?", "c8", "O", "U3", "M8[s]", "V3")
HUGE = (2**12, 2**31, 2**40, 2**62)


class Round:
    """The calls of one layer. Its random numbers follow from the seed and the number of the round."""

    def __init__(self, seed: int, number: int) -> None:
        self.rng = np.random.default_rng((seed, number))
        self.calls = 0

    def choice(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float = 0.5) -> bool:
        return bool(self.rng.random() < p)

    def tried(self, call: Callable[[], Any], refusals: tuple[type[Exception], ...] = REFUSALS) -> Any:
        """Return what a call returns, or None after an error that says something."""
        self.calls += 1
        try:
            return call()
        except refusals as error:
            assert type(error) in refusals, repr(error)
            assert str(error), repr(error)
            return None

    def layer(self) -> Any:
        """Return a recurrent layer, one in three of a variant, some of them with weights of 8 bits."""
        cls = self.choice((fr.RNN, fr.LSTM, fr.GRU))
        count = self.choice((1, 1, 2, 3))
        options: dict[str, Any] = {
            "bidirectional": self.chance(0.3),
            "batch_first": self.chance(),
            "bias": self.chance(0.8),
            "dropout": 0.4 if count > 1 and self.chance(0.3) else 0.0,
            "dtype": self.choice(("float32", "float32", "float64")),
            "seed": int(self.rng.integers(2**31)),
        }
        hidden = self.choice(SIZES)
        if cls is fr.RNN:
            options["nonlinearity"] = self.choice(("tanh", "relu"))
        if self.chance(0.3):
            more = [{"clip": 0.5}, {"recurrent_dropout": 0.3}, {"zoneout": 0.2}]
            if cls is fr.GRU:
                more += [{"reset_after": False}, {"activations": ("hard_sigmoid", "softsign")}]
            if cls is fr.LSTM:
                more += [{"coupled": True}, {"peephole": True}, {"proj_size": max(1, hidden // 2)}]
            options |= self.choice(more)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer: Any = self.tried(lambda: cls(self.choice(SIZES), hidden, count, **options))
        return cls(self.choice(SIZES), hidden, count, seed=1) if layer is None else layer

    def laid_out(self, array: np.ndarray) -> np.ndarray:
        """Return the same values in another memory."""
        how = int(self.rng.integers(7))
        if how == 1 and array.ndim:
            return np.flip(np.flip(array, 0).copy(), 0)
        if how == 2:
            return np.asfortranarray(array)
        if how == 3:
            wide = np.zeros((*array.shape, 2), array.dtype)
            wide[..., 0] = array
            return wide[..., 0]
        if how == 4:
            copy: np.ndarray = np.ndarray(array.shape, array.dtype, np.empty(array.nbytes + 1, np.uint8)[1:])
            copy[...] = array
            return copy
        if how == 5:
            return array.astype(array.dtype.newbyteorder())
        if how == 6:
            array = array.copy()
            array.flags.writeable = False
        return array

    def junk(self, like: np.ndarray | None = None) -> Any:
        """Return something that may be given for an array, or for anything else."""
        kind = int(self.rng.integers(8))
        if kind == 0:
            return self.choice(OBJECTS)
        shape = tuple(int(each) for each in self.rng.integers(0, 7, int(self.rng.integers(0, 6))))
        if like is not None and kind > 3:  # almost right
            shape = tuple(max(0, size + int(self.rng.integers(-1, 2)) * self.chance(0.3)) for size in like.shape)
        dtype = np.dtype(self.choice(DTYPES))
        if kind == 1 and shape and all(shape):  # rows without elements may be any number, and so may results be
            place = int(self.rng.integers(len(shape)))
            small = np.zeros((*shape[:place], 1, *shape[place + 1 :]), dtype)
            huge = (*shape[:place], self.choice(HUGE), *shape[place + 1 :])
            try:
                return np.broadcast_to(small, huge)
            except ValueError:  # more than NumPy can count
                return small
        array = np.zeros(shape, dtype)
        if like is not None and kind > 5 and dtype.kind == "f":
            array[...] = self.choice((np.nan, np.inf, 1e-40, 1e30, 1.0))
        return self.laid_out(array) if not dtype.hasobject else array

    def run(self) -> None:
        """Make the calls of a round."""
        layer = self.layer()
        steps, batch = int(self.rng.integers(6)), int(self.rng.integers(6))
        axes = (batch, steps) if layer.batch_first else (steps, batch)
        x = self.rng.standard_normal((*axes, layer.input_size)).astype(layer.dtype)
        sizes = layer.state_sizes if isinstance(layer.state_sizes, tuple) else (layer.state_sizes,)
        sizes = layer.state_sizes() if layer._has_cell_state else (layer.state_sizes(),)
        states = [self.rng.standard_normal((each.slabs, batch, each.hidden_size)).astype(layer.dtype) for each in sizes]
        state = tuple(states) if layer._has_cell_state else states[0]
        lengths = self.rng.integers(0, steps + 1, batch) if self.chance() else None
        self.memory(layer, x, state, lengths)
        self.arguments(layer, x, state, lengths)
        self.tapes(layer, x, state)
        self.stream(layer)
        self.binding(layer, x)
        if self.chance(0.2):
            self.quantized(layer, x, state)
        if self.chance(0.5):
            self.losses()
        if self.chance(0.3):
            self.optimizer(layer)

    def memory(self, layer: Any, x: Any, state: Any, lengths: Any) -> None:
        """The same bits from any memory."""
        y, _ = layer(x, state, lengths)
        other = tuple(map(self.laid_out, state)) if isinstance(state, tuple) else self.laid_out(state)
        again, _ = layer(self.laid_out(x), other, None if lengths is None else lengths.astype("u1"))
        assert y.tobytes() == again.tobytes()
        (y, _), tape = layer.forward(self.laid_out(x), other, lengths)
        layer.backward(tape, self.laid_out(y))
        assert tape is not None
        self.calls += 4

    def arguments(self, layer: Any, x: Any, state: Any, lengths: Any) -> None:
        """Anything at all for each argument."""
        for _ in range(6):
            given = [x, state, lengths, None, None]
            for place in self.rng.integers(0, 5, int(self.rng.integers(1, 3))):
                given[place] = self.junk(x if place == 0 else None)
            if self.chance(0.2):
                given[1] = (self.junk(), self.junk())
            self.tried(lambda given=given: layer(*given))
            self.tried(lambda given=given: layer.forward(*given))
        name = self.choice(list(layer.params))
        self.tried(lambda: layer.load_state_dict({**layer.state_dict(), name: self.junk(layer.params[name])}))
        self.tried(lambda: layer.load_state_dict(self.junk()))
        self.calls += 1
        layer(x, state, lengths)

    def tapes(self, layer: Any, x: Any, state: Any) -> None:
        """Cotangents of any kind, tapes that were used or are of other layers."""
        tapes = [layer.forward(x, state)[1] for _ in range(2)]
        other = fr.GRU(2, 3, seed=0)
        tapes += [other.forward(np.zeros((1, 2, 2), "f4"))[1], None, self.junk()]
        for _ in range(6):
            tape, dy, dstate = self.choice(tapes), self.junk(), self.choice((None, state, self.junk()))
            self.tried(lambda tape=tape, dy=dy, dstate=dstate: layer.backward(tape, dy, dstate))
        self.calls += 3

    def stream(self, layer: Any) -> None:
        batch = self.choice((1, 1, 2, 3, 0, -1, 2**62))
        stream = self.tried(lambda: layer.stream(batch))
        if stream is None:
            return
        x = self.rng.standard_normal((batch, layer.input_size)).astype(layer.dtype)
        expected = stream.step(x).copy()
        for _ in range(3):
            self.tried(lambda: stream.step(self.junk(x), out=self.junk(expected) if self.chance() else None))
            self.tried(lambda: stream.reset(self.junk()))
        stream.reset()
        assert stream.step(self.laid_out(x)).tobytes() == expected.tobytes()
        self.calls += 2

    def binding(self, layer: Any, x: Any) -> None:
        """What lies below the layers refuses as well."""
        core, weights, junk = layer._stack, layer._weights, self.junk
        calls: list[Callable[[], Any]] = [
            lambda: core.forward(weights, junk(x), junk(), junk(), None, self.chance(), self.chance()),
            lambda: core.forward(weights, x, None, None, junk(), layer.batch_first, True),
            lambda: core.forward(weights, x, None, None, None, layer.batch_first, True, 0, junk(), junk(), junk()),
            lambda: core.forward(weights, x, None, None, None, layer.batch_first, True, factors=junk()),
            lambda: core.forward(weights, x, None, None, None, layer.batch_first, True, factors=(junk(), junk())),
            lambda: core.forward((*weights[:-1], junk(weights[-1])), x, None, None, None, layer.batch_first, True),
            lambda: core.plan(self.choice((-1, 0, 7, *HUGE)), self.choice((-1, 0, 7, *HUGE))),
            lambda: _core.row_products(junk(), junk()),
            lambda: _core.square_sum(junk()),
            lambda: _core.fingerprint([junk(), junk()]),
        ]
        for _ in range(5):
            self.tried(self.choice(calls), RAW_REFUSALS)
        made = core.forward(weights, x, None, None, None, layer.batch_first, True)
        tape, gradients = made[3], [np.zeros_like(weight) for weight in weights]
        calls = [
            lambda: tape.backward(junk(made[0]), junk(), junk(), gradients),
            lambda: tape.backward(made[0], None, None, [*gradients[:-1], junk(gradients[-1])]),
            lambda: tape.gates(self.choice((-1, 0, 1, 9, 2**62))),
            lambda: tape.cell_states(self.choice((-1, 0, 1, 9, 2**62))),
            lambda: tape.outputs(self.choice((-1, 0, 1, 9, 2**62))),
        ]
        for _ in range(3):
            self.tried(self.choice(calls), RAW_REFUSALS)
        self.calls += 1

    def quantized(self, layer: Any, x: Any, state: Any) -> None:
        """Weights of 8 bits."""
        small = self.tried(lambda: fr.quantize(layer, inputs=self.choice(("int16", "int8", "x"))))
        if small is None:
            return
        y = self.tried(lambda: small(x, state))
        if y is not None:
            assert small(self.laid_out(x), state)[0].tobytes() == y[0].tobytes()
        for _ in range(4):
            self.tried(lambda: small(self.junk(x), self.choice((None, state, self.junk()))))
        self.stream(small)

    def losses(self) -> None:
        batch, steps, classes = (int(each) for each in self.rng.integers(0, 5, 3))
        pred = self.rng.standard_normal((batch, steps, classes)).astype(self.choice(("f4", "f8")))
        targets = self.rng.integers(-1, classes + 1, (batch, steps))
        loss = self.choice((training.cross_entropy, training.mse, training.ctc, training.huber, training.mae))
        self.tried(lambda: loss(self.laid_out(pred), targets))
        self.tried(lambda: loss(pred, pred))
        for _ in range(3):
            given = [self.choice((pred, self.junk(pred))), self.choice((targets, self.junk(targets))), self.junk()]
            self.tried(lambda given=given: loss(*given))
        self.tried(lambda: training.ctc_labels(self.junk(pred), self.junk()))

    def optimizer(self, layer: Any) -> None:
        cls = self.choice((fr.SGD, fr.Adam, fr.AdamW, fr.RMSprop))
        numbers = (0.0, 1e-3, 1.0, 1e30, -1.0, float("nan"), float("inf"), "x", None)
        optimizer = self.tried(lambda: cls(layer, self.choice(numbers), weight_decay=self.choice(numbers)))
        if optimizer is None:
            return
        for gradient in layer.grads.values():
            gradient[...] = self.choice((0.0, 1.0, 1e-40, 1e30, np.nan, np.inf))
        self.tried(lambda: fr.clip_grad_norm(layer, self.choice(numbers)))
        self.tried(optimizer.step)
        rule = self.choice(("sgd", "adam", "adamw", "rmsprop", "x"))
        self.tried(lambda: _core.update(rule, [(self.junk(), self.junk(), self.junk(), self.junk())]), RAW_REFUSALS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, help="run this round alone")
    options = parser.parse_args()
    if options.round is not None:
        Round(options.seed, options.round).run()
        return
    warnings.simplefilter("ignore")
    calls, number, start, told = 0, 0, time.perf_counter(), 0
    while calls < options.calls:
        each = Round(options.seed, number)
        with np.errstate(all="ignore"):
            try:
                each.run()
            except BaseException as error:
                error.add_note(f"--seed {options.seed} --round {number}, after {calls} calls")
                raise
        calls, number = calls + each.calls, number + 1
        if calls - told >= min(50_000, options.calls):
            told = calls
            print(
                f"{calls} calls in {number} rounds of seed {options.seed}, {time.perf_counter() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
