"""Features on one scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..arrays.checks import Array, as_array, as_real
from ..arrays.lengths import valid_steps, without_padding
from .preprocessor import Preprocessor

_CONSTANT = 1e-12  # a deviation below this share of the largest value is rounding: the feature is constant


class Scaler(Preprocessor):
    """Bring each feature to mean 0 and standard deviation 1, over all samples and valid time steps.

    The features are on the last axis of arrays (..., F) and tables; a vector (T,) is one feature. Data of unequal
    lengths is a list of arrays (T_n, F) or (T_n,), or a padded array with ``lengths``. NaN, an unknown value, is left
    out of the mean and stays NaN; a constant feature becomes 0.

    Attributes
    ----------
    mean, scale : ndarray of float64 (F,)
        None before ``fit``.

    Examples
    --------
    >>> scaler = Scaler().fit(learn)
    >>> fit(model, scaler.transform(learn), targets, epochs=10, batch_size=32)
    """

    def __init__(self) -> None:
        self.mean: Array | None = None
        self.scale: Array | None = None

    def fit(self, data: Any, lengths: Any = None) -> Scaler:
        """Learn mean and deviation of each feature.

        Parameters
        ----------
        data : array_like (..., F) or (T,), or list of arrays (T_n, F) or (T_n,)
            Real.
        lengths : array_like of int (B,), optional
            Valid time steps of data (B, T, F).

        Returns
        -------
        Scaler
            This one.

        Raises
        ------
        ValueError
            If the shapes do not fit, a value is infinite, or a feature has no known value.
        TypeError
            If a dtype is not real.
        """
        pieces = [_rows(piece) for piece in self._pieces(data, lengths)]
        features = {piece.shape[1] for piece in pieces}
        if len(features) != 1:
            raise ValueError(f"Scaler: data has {sorted(features) or 'no'} features; expected one number of them")
        if any(np.isinf(piece).any() for piece in pieces):
            raise ValueError("Scaler: data has infinite values; expected finite ones, or NaN where unknown")
        count = sum((~np.isnan(piece)).sum(axis=0) for piece in pieces)
        if not np.all(count):
            raise ValueError(
                f"Scaler: feature {int(np.argmin(count))} of data has no known value; expected at least one"
            )
        largest = np.max([np.nanmax(np.abs(piece), axis=0, initial=0) for piece in pieces], axis=0)
        # In units of a power of two, which changes no bit, squares neither overflow nor vanish.
        unit = np.where(largest > 0, np.ldexp(1.0, np.frexp(largest)[1] - 1), 1.0)
        mean = sum(np.nansum(piece / unit, axis=0) for piece in pieces) / count
        square = sum(np.nansum(np.square(piece / unit - mean), axis=0) for piece in pieces) / count
        scale = np.sqrt(square) * unit
        self.mean, self.scale = np.asarray(mean) * unit, np.where(scale > _CONSTANT * largest, scale, 1.0)
        return self

    def transform(self, data: Any, lengths: Any = None) -> Any:
        """Return data scaled, a list for a list; float32 stays float32, all else becomes float64; padding becomes 0."""
        return self._each(data, lengths, lambda x, mean, scale: (x - mean) / scale)

    def inverse_transform(self, data: Any, lengths: Any = None) -> Any:
        """Return scaled data in its own units; padding becomes 0."""
        return self._each(data, lengths, lambda x, mean, scale: x * scale + mean)

    def config(self) -> dict[str, Any]:
        """Return mean and scale as lists."""
        mean, scale = self._learnt()
        return {"mean": mean.tolist(), "scale": scale.tolist()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Scaler:
        """Make one from what ``config`` returned."""
        scaler = cls()
        scaler.mean, scaler.scale = (np.array(config[name], np.float64) for name in ("mean", "scale"))
        fine = scaler.mean.ndim == 1 and scaler.mean.shape == scaler.scale.shape
        if not (fine and np.isfinite(scaler.mean).all() and (np.isfinite(scaler.scale) & (scaler.scale > 0)).all()):
            raise ValueError("Scaler: mean and scale are malformed; expected finite (F,), scale > 0")
        return scaler

    def __repr__(self) -> str:
        return "Scaler()" if self.mean is None else f"Scaler(mean={self.mean}, scale={self.scale})"

    def _learnt(self) -> tuple[Array, Array]:
        if self.mean is None or self.scale is None:
            raise self._not_fitted()
        return self.mean, self.scale

    def _pieces(self, data: Any, lengths: Any) -> Iterator[Array]:
        """Yield arrays of valid rows: that of an array, or those of the arrays of a list."""
        if is_list_of_arrays(data):
            if lengths is not None:
                raise ValueError("Scaler: got lengths together with a list, whose arrays have their own; expected one")
            yield from (_real(f"data[{index}]", each) for index, each in enumerate(data))
            return
        array = _real("data", data)
        if lengths is not None:
            _check_batch(array)
            array = array[valid_steps("Scaler", lengths, *array.shape[:2])]
        yield array

    def _each(self, data: Any, lengths: Any, formula: Any) -> Any:
        mean, scale = self._learnt()

        def applied(name: str, x: Any) -> Array:
            x = _real(name, x)
            if x.ndim == 1 and len(mean) == 1:
                return applied(name, x[:, np.newaxis])[:, 0]
            if x.ndim == 0 or x.shape[-1] != len(mean):
                raise ValueError(f"Scaler: {name} has shape {x.shape}; expected (..., features) = (..., {len(mean)})")
            scaled: Array = formula(x, mean, scale).astype(x.dtype)
            return scaled

        if is_list_of_arrays(data):
            return [applied(f"data[{index}]", each) for index, each in enumerate(data)]
        result = applied("data", data)
        if lengths is not None:
            _check_batch(result)
        return without_padding("Scaler", result, lengths)


def is_list_of_arrays(data: Any) -> bool:
    """Return whether data is a list, tuple or object array of arrays, as ragged data is; rows of numbers are not."""
    if isinstance(data, np.ndarray):
        return data.dtype == object and data.ndim == 1 and len(data) > 0 and not np.isscalar(data[0])
    if not isinstance(data, (list, tuple)) or len(data) == 0 or np.isscalar(data[0]):
        return False
    return not isinstance(data[0], (list, tuple)) or any(len(each) and not np.isscalar(each[0]) for each in data)


def _real(name: str, x: Any) -> Array:
    array = as_array("Scaler", name, x)
    return as_real("Scaler", name, array, None if array.dtype == np.float32 else np.dtype(np.float64))


def _check_batch(array: Array) -> None:
    if array.ndim != 3:
        raise ValueError(f"Scaler: data has shape {array.shape} with lengths; expected (batch, time, features)")


def _rows(piece: Array) -> Array:
    if piece.ndim == 0:
        raise ValueError("Scaler: data has shape (); expected (..., features)")
    rows: Array = piece.reshape(-1, 1 if piece.ndim == 1 else piece.shape[-1]).astype(np.float64)
    return rows
