"""What the steps before a model share: learnt from data, undone again, and written into files as JSON."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from ..arrays.checks import described

_Self = TypeVar("_Self", bound="Preprocessor")


class Preprocessor(ABC):
    """Base of ``Scaler``, ``Vocabulary`` and ``Labels``: the only classes that a file's preprocessing may name."""

    _classes: ClassVar[dict[str, type[Preprocessor]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        Preprocessor._classes.setdefault(cls.__name__, cls)

    @abstractmethod
    def fit(self: _Self, data: Any) -> _Self:
        """Learn from data; return self."""

    @abstractmethod
    def transform(self, data: Any) -> Any:
        """Return data as a model reads it."""

    @abstractmethod
    def inverse_transform(self, data: Any) -> Any:
        """Return what ``transform`` was given, of what it returned."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return options and what was learnt as JSON values."""

    @classmethod
    @abstractmethod
    def from_config(cls: type[_Self], config: Mapping[str, Any]) -> _Self:
        """Make one from what ``config`` returned; ValueError if it cannot be that."""

    def fit_transform(self, data: Any) -> Any:
        """Learn from data and return it transformed."""
        return self.fit(data).transform(data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.config() == other.config()

    __hash__ = None  # type: ignore[assignment]

    def _not_fitted(self) -> ValueError:
        return ValueError(f"{type(self).__name__}: has learnt nothing yet; call fit first")


def preprocessing_spec(preprocessing: Any) -> dict[str, Any]:
    """Return the preprocessing of a model, {name: preprocessor}, as JSON values; TypeError if it is none."""
    if not isinstance(preprocessing, Mapping):
        raise TypeError(f"save: preprocessing is {described(preprocessing)}; expected {{name: Preprocessor}}")
    for name, each in preprocessing.items():
        if not isinstance(name, str) or Preprocessor._classes.get(type(each).__name__) is not type(each):
            known = ", ".join(Preprocessor._classes)
            raise TypeError(
                f"save: preprocessing[{name!r}] is {described(each)}; expected one of {known}, under a name"
            )
    return {name: {"class": type(each).__name__, "config": each.config()} for name, each in preprocessing.items()}


def preprocessing_from_spec(spec: Any) -> dict[str, Preprocessor]:
    """Make the preprocessing that ``preprocessing_spec`` described; ValueError if the specification is malformed."""
    if not isinstance(spec, Mapping):
        raise ValueError(f"preprocessing is {described(spec)}; expected an object")
    return {str(name): _one(str(name), each) for name, each in spec.items()}


def _one(name: str, spec: Any) -> Preprocessor:
    if not isinstance(spec, Mapping) or not isinstance(spec.get("config"), Mapping):
        raise ValueError(f"preprocessing {name[:80]!r} is malformed: {json.dumps(spec)[:80]}")
    cls = Preprocessor._classes.get(str(spec.get("class")))
    if cls is None:
        raise ValueError(f"preprocessing {name[:80]!r} is of the unknown class {str(spec.get('class'))[:80]!r}")
    try:
        return cls.from_config(spec["config"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"preprocessing {name[:80]!r}: {type(error).__name__}: {error}") from error
