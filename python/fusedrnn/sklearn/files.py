"""Fitted estimators in safetensors files: the model, and as JSON beside it what else a prediction needs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data import Preprocessor
from ..data.preprocessor import preprocessing_from_spec, preprocessing_spec
from ..data.table import Table
from ..serialization import read, write
from ..training import History
from .estimator import SequenceEstimator

# The attributes that fit sets, but for the model and what only goes on with training.
_FITTED = (
    *("window_shape_", "n_features_in_", "feature_names_in_", "vocabulary_", "x_scaler_", "y_scaler_", "history_"),
    *("flat_target_", "classes_", "_labels", "_several", "_outputs", "_why_no_series", "_last_window", "_stride"),
    *("_columns", "_known", "_targets_at", "_spread", "_window", "_horizon", "_history"),
)
_INDEXES = ("DatetimeIndex", "TimedeltaIndex", "PeriodIndex", "RangeIndex", "Index")
_KINDS = "OUiufbMm"


def save(estimator: SequenceEstimator, path: str | os.PathLike[str]) -> None:
    """Write a fitted estimator; see ``SequenceEstimator.save``."""
    options = {name: _option(value) for name, value in estimator.get_params(deep=False).items()}
    fitted = {name: _encoded(getattr(estimator, name)) for name in _FITTED if name in vars(estimator)}
    spec = {"class": type(estimator).__name__, "options": options, "fitted": fitted}
    write(estimator.model_, path, {"estimator": spec})


def load_as(classes: Mapping[str, type[SequenceEstimator]], path: str | os.PathLike[str]) -> SequenceEstimator:
    """Read an estimator of one of these classes; see ``fusedrnn.sklearn.load``."""
    model, content = read(path)
    spec = content.get("estimator")
    if not isinstance(spec, Mapping):
        raise ValueError(f"load: {os.fspath(path)}: has no estimator; fusedrnn.load reads a model")
    try:
        cls = classes[spec["class"]]
        estimator = cls(**{name: _decoded(value) for name, value in spec["options"].items()})
        for name, value in spec["fitted"].items():
            if name not in _FITTED:
                raise ValueError(f"unknown attribute {name[:80]!r}")
            setattr(estimator, name, _decoded(value))
    except Exception as error:  # the file chooses the arguments, so anything may be raised
        raise ValueError(f"load: {os.fspath(path)}: {type(error).__name__}: {error}") from error
    estimator.model_, estimator._optimizer = model, None
    estimator._random = np.random.default_rng(estimator.random_state)  # of later epochs, not those of this training
    return estimator


def _option(value: Any) -> Any:
    """Return an argument of the constructor; a random generator and a vocabulary that has learnt nothing as None."""
    if isinstance(value, (np.random.RandomState, np.random.Generator)):
        return None
    return None if isinstance(value, Preprocessor) and not getattr(value, "tokens", True) else _encoded(value)


def _encoded(value: Any) -> Any:
    """Return a value as JSON, with its kind if JSON has no such; TypeError for others."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return value.item()
    if isinstance(value, History):
        return {"history": dict(value), "stopped": value.stopped, "watched": _encoded(value.watched)}
    if isinstance(value, Mapping):
        return {"items": [[_encoded(key), _encoded(each)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"tuple" if isinstance(value, tuple) else "list": [_encoded(each) for each in value]}
    if isinstance(value, np.ndarray):
        return {"array": _plain(value), "dtype": value.dtype.str, "shape": list(value.shape)}
    if isinstance(value, Preprocessor):
        return {"preprocessor": preprocessing_spec({"": value})}
    if isinstance(value, Table):
        return {"table": _encoded({**vars(value), "index": _encoded_index(value)})}
    raise TypeError(
        f"save: cannot write {value!r} of type {type(value).__name__}; expected a number, text, list or dict"
    )


def _decoded(value: Any) -> Any:
    """Return what ``_encoded`` was given."""
    if not isinstance(value, Mapping):
        return value
    kind = next(iter(value))
    content = value[kind]
    if kind == "history":
        history = History()
        history.update({str(name): [float(each) for each in column] for name, column in content.items()})
        history.stopped, history.watched = str(value["stopped"]), _decoded(value.get("watched"))
        return history
    if kind == "items":
        return {_decoded(key): _decoded(each) for key, each in content}
    if kind in ("list", "tuple"):
        items = [_decoded(each) for each in content]
        return items if kind == "list" else tuple(items)
    if kind == "array":
        return _array(content, value["dtype"]).reshape(value["shape"])
    if kind == "preprocessor":
        return preprocessing_from_spec(content)[""]
    if kind == "table":
        fields = _decoded(content)
        return Table(**{**fields, "index": _decoded_index(fields)})
    raise ValueError(f"unknown kind {kind[:80]!r}")


def _plain(array: Any) -> list[Any]:
    """Return an array as a flat list of JSON values; times as integers."""
    flat = array.ravel()
    listed: list[Any] = (flat.astype(np.int64) if flat.dtype.kind in "Mm" else flat).tolist()
    return listed


def _array(values: Any, dtype: str) -> Any:
    kind = np.dtype(str(dtype))
    if kind.kind not in _KINDS or kind.itemsize > 4 * max(2, len(str(values))):
        raise ValueError(f"array of dtype {str(dtype)[:20]!r}")
    if kind.kind in "Mm":
        return np.array(values, np.int64).view(kind)
    return np.array(values, kind)


def _encoded_index(table: Table) -> Any:
    """Return the times of a table: their kind, and integers or numbers."""
    index = table.index
    if index is None or table.kind != "pandas":
        return None if index is None else [str(index.dtype), index.to_numpy().astype("datetime64[us]")]
    kind = next(each for each in _INDEXES if type(index).__name__ == each or each == "Index")
    values = (
        np.arange(index.start, index.stop, index.step)
        if kind == "RangeIndex"
        else np.asarray(index.astype("int64") if kind in ("DatetimeIndex", "TimedeltaIndex", "PeriodIndex") else index)
    )
    frequency = getattr(index, "freqstr", None)
    return [kind, values, str(index.dtype), frequency, index.name]


def _decoded_index(fields: Mapping[str, Any]) -> Any:
    index = fields["index"]
    if index is None:
        return None
    if fields["kind"] == "polars":
        import polars

        dtype, values = index
        date = dtype == "Date"
        return polars.Series(fields["time"], values).cast(polars.Date if date else polars.Datetime("us"))
    import pandas

    kind, values, dtype, frequency, name = index
    if kind == "PeriodIndex":
        return pandas.PeriodIndex.from_ordinals(values, freq=frequency, name=name)
    if kind == "RangeIndex":
        step = int(values[1] - values[0]) if len(values) > 1 else 1
        return pandas.RangeIndex(int(values[0]), int(values[0]) + step * len(values), step, name=name)
    if kind in ("DatetimeIndex", "TimedeltaIndex"):
        made = pandas.Index(values.view(_stored_unit(dtype)), name=name)
        if kind == "DatetimeIndex" and "," in dtype:
            made = made.tz_localize("UTC").tz_convert(dtype.partition(",")[2].strip(" ]"))
        return type(made)(made, freq=frequency)
    return pandas.Index(values, name=name)


def _stored_unit(dtype: str) -> str:
    """Return NumPy's dtype of pandas' ``datetime64[us, Europe/Berlin]``."""
    return dtype.partition(",")[0].rstrip("]") + "]"
