"""The running mean of a model's weights."""

from __future__ import annotations

from typing import Any

from ..arrays.checks import Array
from ..arrays.namespace import assign, host_copy
from .callbacks import Callback, Training
from .gradients import unique_arrays


class AverageWeights(Callback):
    r"""Keep an exponential moving average of the weights, with which the model is judged and ends.

    After step t, the average becomes

    .. math::

        \bar w \leftarrow d\, \bar w + (1 - d)\, w, \quad d = \min\Bigl(\mathrm{decay}, \frac{1 + t}{10 + t}\Bigr),

    so that the first weights are soon forgotten (Polyak & Juditsky 1992). The model has the average from the end of an
    epoch's steps to the beginning of the next, so during validation and for other callbacks' ``on_epoch_end``
    (``Checkpoint`` saves it, ``EarlyStopping`` keeps it), and when training has ended. Put it in front of the other
    callbacks.

    Parameters
    ----------
    decay : float
        In [0, 1); nearly 1 is a mean over many steps, about 1 / (1 - decay).

    Raises
    ------
    ValueError
        If ``decay`` is outside its range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"AverageWeights: decay is {decay}; expected a number in [0, 1)")
        self.decay = decay
        self.average: dict[str, Array] = {}
        self._weights: dict[str, Array] | None = None  # the model's own, while it has the average
        self._steps = 0
        self._update: Any = None

    def on_train_begin(self, training: Training) -> None:
        """Begin with the weights, and have the optimizer update the average after each of its steps."""
        self.average = {name: param.copy() for name, param in unique_arrays(training.model.params).items()}
        self._weights, self._steps = None, 0

        def update() -> None:
            self._steps += 1
            keep = min(self.decay, (1 + self._steps) / (10 + self._steps))
            params = training.model.params
            for name, mean in self.average.items():
                mean += (params[name] - mean) * mean.dtype.type(1 - keep)

        self._update = update
        training.optimizer.constraints.append(update)

    def on_epoch_begin(self, training: Training) -> None:
        """Give the model its own weights back."""
        if self._weights is not None:
            _copy(self._weights, training.model.params)
            self._weights = None

    def on_validation_begin(self, training: Training) -> None:
        """Give the model the average."""
        self._weights = {name: training.model.params[name].copy() for name in self.average}
        _copy(self.average, training.model.params)

    def on_train_end(self, training: Training) -> None:
        """Leave the model with the average, and the optimizer as it was."""
        if self._update in training.optimizer.constraints:
            training.optimizer.constraints.remove(self._update)
        if self._weights is None:  # in the middle of an epoch
            _copy(self.average, training.model.params)
        self._weights = None

    def state_dict(self) -> dict[str, Any]:
        """Return the average, how many steps it is of, and the weights that training goes on with."""
        return {"average": _on_host(self.average), "steps": self._steps, "weights": _on_host(self._weights or {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""
        for name, mean in self.average.items():
            assign(mean, state["average"][name])
        self._weights = {name: mean.copy() for name, mean in self.average.items()}
        for name, weights in self._weights.items():
            assign(weights, state["weights"][name])
        self._steps = state["steps"]


def _copy(values: dict[str, Array], params: dict[str, Array]) -> None:
    for name, value in values.items():
        params[name][...] = value


def _on_host(arrays: dict[str, Array]) -> dict[str, Array]:
    return {name: host_copy(array) for name, array in arrays.items()}
