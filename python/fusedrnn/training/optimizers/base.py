"""What every optimizer is: it changes the parameters of one layer or model in place, and can be resumed."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ... import _core
from ...arrays.checks import Array, as_real, flag, integer, number
from ...arrays.namespace import assign, host_copy, take_host
from ...layers.base import Layer
from ...layers.parameters import check_writeable
from ..gradients import Gradients, unique_arrays
from .formulas import change


class Step(NamedTuple):
    """What a step does: a rule of ``formulas``, the buffers that it changes, in its order, and its numbers."""

    rule: str
    buffers: tuple[str, ...]
    rates: dict[str, float]


class Optimizer(ABC):
    """Base of the optimizers.

    Parameters
    ----------
    layer : Layer
        Its parameters are changed, from its gradients, where they are: make the optimizer after ``layer.to``.
    lr : float
        Learning rate, >= 0. It may be assigned at any time, as schedules do.
    weight_decay : float
        Factor of the parameter that is added to its gradient (L2), >= 0.
    check_finite : bool
        Whether ``step`` raises FloatingPointError, naming the parameter, on a gradient with NaN or infinity.

    Attributes
    ----------
    steps : int
        Number of steps made.
    constraints : list of callable
        Called without arguments after every change of the parameters, to bring them back into the allowed set.
    """

    buffer_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, layer: Layer, lr: float, *, weight_decay: float = 0.0, check_finite: bool = False) -> None:
        self.op = type(self).__name__
        self.layer = layer
        self.lr = lr
        self.weight_decay = self._at_least_0("weight_decay", weight_decay)
        self.check_finite = flag(self.op, "check_finite", check_finite)
        self.steps = 0
        self.constraints: list[Callable[[], object]] = []
        params = unique_arrays(layer.params)
        self._device, xp = layer.device, layer.xp
        self._buffers = {
            name: {key: xp.zeros(array.shape, dtype=array.dtype) for key, array in params.items()}
            for name in self.buffer_names
        }

    def __repr__(self) -> str:
        decay = f", weight_decay={self.weight_decay}" if self.weight_decay else ""
        return f"{self.op}(lr={self.lr}{decay}, of {self.layer.op}, {self.steps} steps made)"

    def step(self) -> None:
        """Change the parameters by their gradients.

        Raises
        ------
        FloatingPointError
            With ``check_finite``, before anything has changed.
        ValueError
            If the parameters are not those that the layer had when the optimizer was made, or one is read-only.
        RuntimeError
            If the layer has moved to another device since then.
        """
        if self.layer.device != self._device:
            raise RuntimeError(
                f"{self.op}: the layer has moved from {self._device} to {self.layer.device}: make the optimizer after "
                "that (its load_state_dict takes the old one's state_dict)"
            )
        xp = self.layer.xp
        if self.check_finite and (name := Gradients(self.layer).wrong()):
            raise FloatingPointError(f"{self.op}: the gradient of {name} is not finite")
        params: dict[str, Array] = {}
        grads: list[tuple[Array, Array | None]] = []  # and the rows that count, of a sparse one
        names = set()
        seen = set()
        for prefix, layer in self.layer._occurrences():
            own, rows = layer._own_params(), layer._own_gradient_rows()
            for key, param in own.items():
                if id(param) in seen:
                    continue
                seen.add(id(param))
                name = prefix + key
                names.add(name)
                if layer.trainable:
                    params[name] = param
                    grads.append((layer._grads[key], rows.get(key)))
        for buffers in self._buffers.values():
            if buffers.keys() != names:
                raise ValueError(f"{self.op}: the layer has other parameters than when the optimizer was made")
        check_writeable(self.op, params)
        self.steps += 1
        step = self._next_step()
        items = [
            (param, grad, *(self._buffers[buffer][name] for buffer in step.buffers), rows)
            for (name, param), (grad, rows) in zip(params.items(), grads, strict=True)
        ]
        left = list(range(len(items)))
        if xp is np:  # in one call, which nothing interrupts; it leaves arrays of other orders
            left = _core.update(step.rule, items, **step.rates)
        for index in left:
            param, grad, *states, chosen = items[index]
            change(xp, step.rule, step.rates, param, grad, tuple(states), chosen)
        for constrain in self.constraints:
            constrain()

    @abstractmethod
    def _next_step(self) -> Step:
        """Return what the step does whose number is ``steps``."""

    def state_dict(self) -> dict[str, Any]:
        """Return {"steps": int, "lr": float, "buffers": {buffer: {parameter: NumPy copy}}}, for resuming."""
        buffers = {
            buffer: {name: host_copy(array) for name, array in arrays.items()}
            for buffer, arrays in self._buffers.items()
        }
        return {"steps": self.steps, "lr": self.lr, "buffers": buffers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; ValueError, with nothing changed, if it does not fit."""
        try:
            steps, lr, values = self._read(state)
        except (KeyError, TypeError, AttributeError) as error:
            got = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{self.op}: the state does not fit; {got}") from None
        self.steps, self.lr = steps, lr
        for array, value in values:
            assign(array, value)

    def _read(self, state: Any) -> tuple[int, float, list[tuple[Array, Array]]]:
        """Return steps, learning rate and the pairs (own buffer, its new value) of a state, without a change."""
        steps, lr, buffers = integer(self.op, "steps", state["steps"]), state["lr"], state["buffers"]
        if steps < 0:
            raise ValueError(f"{self.op}: steps is {steps}; expected an integer >= 0")
        given = {
            f"{buffer}.{name}": take_host(value) for buffer, arrays in buffers.items() for name, value in arrays.items()
        }
        own = {f"{buffer}.{name}": array for buffer, arrays in self._buffers.items() for name, array in arrays.items()}
        common = own.keys() & given.keys()
        wrong = (own.keys() | given.keys()) - {key for key in common if np.shape(given[key]) == own[key].shape}
        if wrong:
            raise ValueError(
                f"{self.op}: the state does not fit; missing, unexpected or of wrong shape: {sorted(wrong)}"
            )
        values = [(array, as_real(self.op, key, given[key], array.dtype)) for key, array in own.items()]
        return steps, self._at_least_0("lr", lr), values

    @property
    def lr(self) -> float:
        """Learning rate, >= 0. May be changed."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = self._at_least_0("lr", value)

    def _at_least_0(self, name: str, value: float) -> float:
        result = number(self.op, name, value)
        if not 0 <= result < math.inf:
            raise ValueError(f"{self.op}: {name} is {value}; expected a number >= 0")
        return result

    def _fraction(self, name: str, value: float) -> float:
        result = number(self.op, name, value)
        if not 0 <= result < 1:
            raise ValueError(f"{self.op}: {name} is {value}; expected a number in [0, 1)")
        return result
