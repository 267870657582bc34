"""States that start again inside a sequence: against the reference, and bit for bit against a call for each piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fusedrnn as fr
import reference
from problems import FORWARD, Array, Case, as_state, backward, flat
from stacks import INPUTS, B, H, Stack, T
from tolerance import assert_forward, assert_same_bits, assert_slope

MARKS = np.zeros((B, T), bool)
MARKS[0, [0, 2, 3]] = True
MARKS[1, 4] = True
LENGTHS = np.array([T, 4, 0])


def pieces(marks: Array, lengths: Any = None) -> list[list[tuple[int, int]]]:
    """(begin, end) of every piece of each sample; one of no steps for a sample of none."""
    ends = [marks.shape[1]] * len(marks) if lengths is None else list(lengths)
    result = []
    for row, end in zip(marks, ends, strict=True):
        begins = [0, *(t for t in range(1, end) if row[t])]
        result.append(list(zip(begins, [*begins[1:], end], strict=True)))
    return result


def by_pieces(run: Any, x: Array, start: Any, again: Any, marks: Array, lengths: Any, directions: int) -> Any:
    """Call ``run(x (1, t, I), states)`` for each piece; put y and the states together. Arrays are batch-major."""
    y, finals = [], []
    slab_is_reverse = np.arange(len(start[0])) % 2 == 1 if directions == 2 else np.zeros(len(start[0]), bool)
    for b, cut in enumerate(pieces(marks, lengths)):
        rows, ends = [], []
        for i, (t0, t1) in enumerate(cut):
            first, last = i == 0 and not (t1 > t0 and marks[b, 0]), i == len(cut) - 1
            entered = np.where(slab_is_reverse, last, first)[:, None, None]
            states = [np.where(entered, s[:, b : b + 1], r[:, b : b + 1]) for s, r in zip(start, again, strict=True)]
            out, *end = run(x[b : b + 1, t0:t1], states)
            rows.append(out)
            ends.append(end)
        whole = np.concatenate(rows, axis=1)
        y.append(np.concatenate([whole, np.zeros((1, x.shape[1] - whole.shape[1], whole.shape[2]))], axis=1))
        leave = slab_is_reverse[:, None, None]
        finals.append([np.where(leave, ends[0][k], ends[-1][k]) for k in range(len(start))])
    return (np.concatenate(y), *(np.concatenate(part, axis=1) for part in zip(*finals, strict=True)))


class Cut(Stack):
    """A stack whose samples start again."""

    def __init__(self, cell: str, **options: Any) -> None:
        self.given = options.pop("given", True)
        super().__init__(cell, **options)
        rng = np.random.default_rng(8)
        self.again = [rng.normal(0.3, 1, s.shape).astype(np.float32).astype(self.dtype) for s in self.start]
        if not self.given:
            self.again = [np.zeros_like(s) for s in self.start]
        self.marks = MARKS if self.batch_first else MARKS.T
        self.options = {
            "resets": self.marks,
            **({"reset_state": as_state(self.again)} if self.given else {}),
        }

    def train(self) -> Any:
        outputs, tape = self.layer.forward(self.x, as_state(self.start), self.lengths, **self.options)
        return flat(*outputs), tape

    def arguments(self) -> dict[str, Array]:
        again = {f"{name}r": value.astype(np.float64) for name, value in zip(self.states, self.again, strict=True)}
        return super().arguments() | again

    def reference(self, **arguments: Array) -> tuple[Array, ...]:
        x = arguments.pop("x")
        start = [arguments.pop(f"{name}0") for name in self.states]
        again = [arguments.pop(f"{name}r") for name in self.states]

        def run(part: Array, states: list[Array]) -> tuple[Array, ...]:
            names = [f"{name}0" for name in self.states]
            return reference.stack(
                self.cell,
                arguments,
                part,
                **dict(zip(names, states, strict=True)),
                num_layers=self.layers,
                bidirectional=self.bidirectional,
            )

        x = x if self.batch_first else x.swapaxes(0, 1)
        y, *finals = by_pieces(run, x, start, again, MARKS, self.lengths, 1 + self.bidirectional)
        return (y if self.batch_first else y.swapaxes(0, 1), *finals)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "ragged"])
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch_major", "time_major"])
@pytest.mark.parametrize("given", [True, False], ids=["given_state", "zeros"])
@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])
def test_against_the_reference(
    cell: str, dtype: str, num_layers: int, bidirectional: bool, given: bool, batch_first: bool, lengths: Any
) -> None:
    """y, states, and the slope of every gradient along a random direction."""
    cut = Cut(
        cell, num_layers=num_layers, bidirectional=bidirectional, given=given, batch_first=batch_first,
        lengths=lengths, dtype=dtype,
    )  # fmt: skip
    arguments = cut.arguments()
    truth = cut.reference(**arguments)
    outputs, tape = cut.train()
    inference = flat(*cut.layer(cut.x, as_state(cut.start), cut.lengths, **cut.options))
    for actual, again, expected in zip(outputs, inference, truth, strict=True):
        assert_forward(actual, expected)
        assert_same_bits(again, actual)
    for _ in range(2):  # the second time the forward is computed again
        cut.layer.zero_grad()
        dx, dstate, *dagain = cut.layer.backward(tape, cut.dy, as_state(cut.dfinal))
        assert len(dagain) == given
    _, *dstart = flat(dx, dstate)
    actual = {"x": dx, **{f"{n}0": d for n, d in zip(cut.states, dstart, strict=True)}, **cut.layer.grads}
    if given:
        actual |= {f"{n}r": d for n, d in zip(cut.states, flat(dx, dagain[0])[1:], strict=True)}
    rng = np.random.default_rng(4)
    cotangents = tuple(d.astype(np.float64) for d in (cut.dy, *cut.dfinal))
    for name, gradient in actual.items():
        along = rng.normal(size=gradient.shape)
        slope = reference.slope(cut.reference, arguments, cotangents, name, along)
        assert_slope(gradient, along, slope, f"d{name}")


@pytest.mark.every_isa
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_bits_of_separate_calls(cell: str, bidirectional: bool, threads: int, restore_threads: None) -> None:
    """One call gives the bits of a call for each piece, under every plan."""
    fr.set_num_threads(threads)
    rng = np.random.default_rng(2)
    batch, steps = 5, 40
    layer = Stack(cell, num_layers=2, bidirectional=bidirectional).layer
    marks = rng.random((batch, steps)) < 0.2
    lengths = np.array([40, 39, 7, 0, 1])
    x = rng.normal(size=(batch, steps, INPUTS)).astype(np.float32)
    slabs = 2 * (1 + bidirectional)
    start = [rng.normal(size=(slabs, batch, H)).astype(np.float32) for _ in reference.CELLS[cell].states]
    zeros = [np.zeros_like(s) for s in start]

    def run(part: Array, states: list[Array]) -> tuple[Array, ...]:
        return flat(*layer(part, as_state(states)))

    expected = by_pieces(run, x, start, zeros, marks, lengths, 1 + bidirectional)
    actual = flat(*layer(x, as_state(start), lengths, resets=marks))
    for a, e in zip(actual, expected, strict=True):
        assert_same_bits(a, e.astype(np.float32))


def test_no_mark_and_every_step(cell: str) -> None:
    """No mark changes no bit; where every step is marked the outputs depend on their own step alone."""
    stack = Stack(cell)
    plain = flat(*stack.layer(stack.x))
    for a, e in zip(flat(*stack.layer(stack.x, resets=np.zeros((B, T), bool))), plain, strict=True):
        assert_same_bits(a, e)
    y, *_ = flat(*stack.layer(stack.x, as_state(stack.start), resets=np.ones((B, T), bool)))
    alone = flat(*stack.layer(stack.x.reshape(B * T, 1, INPUTS)))[0]
    assert_same_bits(y, alone.reshape(B, T, H))


def test_dropout_between_layers(cell: str) -> None:
    """Layer by layer, with masks between them, the pieces are the same; so is the tape's second use."""
    cut = Cut(cell, num_layers=2, dropout=0.5)
    x2 = cut.x.copy()
    x2[0, :2] += 1  # before the mark at 2
    masks = [np.random.default_rng(1), np.random.default_rng(1)]
    ys = []
    for x, rng in zip((cut.x, x2), masks, strict=True):
        cut.layer._rng = rng
        (y, _), tape = cut.layer.forward(x, as_state(cut.start), **cut.options)
        ys.append(y)
    assert_same_bits(ys[0][0, 2:], ys[1][0, 2:])
    assert not np.array_equal(ys[0][0, :2], ys[1][0, :2])
    first = flat(*cut.layer.backward(tape, cut.dy)[:2])
    second = flat(*cut.layer.backward(tape, cut.dy)[:2])
    for a, e in zip(second, first, strict=True):
        assert_same_bits(a, e)


@pytest.mark.parametrize("reverse", [False, True])
def test_functional(cell: str, reverse: bool) -> None:
    case = Case(cell, batch=B, steps=T, inputs=INPUTS, hidden=H, reverse=reverse)
    arguments = case.arguments("float32")
    given = {k: v for k, v in arguments.items() if k not in ("reverse", "batch_first")}
    y, *finals, tape = FORWARD[cell](**given, reverse=reverse, resets=MARKS, training=True)
    names = [f"{name}0" for name in reference.CELLS[cell].states]
    start = [given[name][None] for name in names]

    def run(part: Array, states: list[Array]) -> tuple[Array, ...]:
        own = given | {"x": part} | {name: s[0] for name, s in zip(names, states, strict=True)}
        out, *ends = FORWARD[cell](**own, reverse=reverse)
        return (out, *(end[None] for end in ends))

    if reverse:  # one slab that is entered at the last piece

        def turned(part: Array, states: list[Array]) -> tuple[Array, ...]:
            out, *ends = run(part, [s[1:] for s in states])
            return (out, *(np.concatenate([end, end]) for end in ends))

        double = [np.concatenate([s, s]) for s in start]
        expected = by_pieces(turned, given["x"], double, [np.zeros_like(s) for s in double], MARKS, None, 2)
        expected = (expected[0], *(e[1:] for e in expected[1:]))
    else:
        expected = by_pieces(run, given["x"], start, [np.zeros_like(s) for s in start], MARKS, None, 1)
    assert_same_bits(y, expected[0].astype(np.float32))
    for a, e in zip(finals, expected[1:], strict=True):
        assert_same_bits(a, e[0])
    dh0 = backward(cell, tape, (np.ones_like(y), *[None] * len(finals)))["h0"]
    marked = MARKS[:, 0] & (not reverse)
    assert not dh0[marked].any() and dh0[~marked].any()


def test_unbatched_and_strided() -> None:
    layer = fr.GRU(INPUTS, H, seed=1)
    x = np.random.default_rng(0).normal(size=(T, INPUTS)).astype(np.float32)
    marks = np.array([0, 0, 1, 0, 0, 0, 1, 0, 0, 0], bool)[::2]
    y, h = layer(x, resets=marks)
    expected_y, expected_h = layer(x[None], resets=np.ascontiguousarray(marks)[None])
    assert_same_bits(y, expected_y[0])
    assert_same_bits(h, expected_h[:, 0])


def test_errors() -> None:
    lstm = fr.LSTM(INPUTS, H, seed=1)
    x = np.zeros((B, T, INPUTS), np.float32)
    state = np.zeros((1, B, H), np.float32)
    with pytest.raises(ValueError, match=r"LSTM: resets has shape \(5, 3\); expected \(batch, time\) = \(3, 5\)"):
        lstm(x, resets=MARKS.T)
    with pytest.raises(TypeError, match=r"LSTM: resets has dtype float32; expected bool"):
        lstm(x, resets=MARKS.astype(np.float32))
    with pytest.raises(ValueError, match=r"LSTM: reset_state is given without resets; expected both or neither"):
        lstm(x, reset_state=(state, state))
    with pytest.raises(ValueError, match=r"LSTM: h of reset_state has shape \(1, 2, 7\); expected"):
        lstm(x, resets=MARKS, reset_state=(state[:, :2], state))
    with pytest.raises(ValueError, match=r"LSTM: reset_state is an array of shape .*; expected a pair \(h, c\)"):
        lstm(x, resets=MARKS, reset_state=state)
    with pytest.raises(ValueError, match=r"LSTM: resets has shape \(3, 5\); expected \(time,\), as x has no batch"):
        lstm(x[0], resets=MARKS)
    with pytest.raises(ValueError, match=r"LSTM: x has shape"):
        lstm(x[..., :2], resets=MARKS, reset_state=(state, state))
    with pytest.raises(ValueError, match=r"rnn: resets has shape|RNN: resets has shape"):
        fr.functional.rnn(x, np.zeros((H, INPUTS), np.float32), np.zeros((H, H), np.float32), resets=MARKS[:, :2])
