"""The parameters of a layer: values loaded into them, and whether anyone but the layer may have written to them."""

from __future__ import annotations

import itertools
import sys
import weakref
from collections.abc import Iterable, Mapping
from sys import getrefcount
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from ..arrays.checks import Array, as_real, described
from ..arrays.namespace import assign, take_host

_LISTED_NAMES = 20  # an error message lists so many names and counts the rest
_serials = itertools.count(1)
_COUNTS = "t" not in sys.abiflags  # whether reference counts say who holds what: not in a free-threaded build


class Parameters(dict[str, Array]):
    """Arrays by name, with a serial number for their contents.

    The kernels read weights in an order of their own. A copy in that order is good as long as the weights are what
    they were; to look at all of them before every call takes three quarters of the time of a call at
    T, B, I, H = 1, 1, 1024, 1024, and a quarter at 10, 1, 512, 512. So a layer notes when it hands its arrays out, and
    asks afterwards whether somebody still holds the dictionary, an array or a view (a view keeps its array alive).
    While nobody does, nobody can write. What this cannot see is a bare memory address, kept for longer than the array
    that it was taken from. Nor does it work without a GIL, where another thread may be about to take hold: there the
    weights are looked at.
    """

    __slots__ = ("handed_out", "serial", "witness")

    def __init__(self, arrays: Mapping[str, Array] | None = None) -> None:
        super().__init__(arrays or {})
        self.handed_out = True
        self.serial = 0
        self.witness = (0, 0)  # of which serial number, and the fingerprint then

    def __reduce__(self) -> tuple[Any, ...]:
        return Parameters, (dict(self),)


class ReadOnly(dict[str, Array]):
    """The arrays of a composite by name, which are its children's: one assigned here would reach none of them."""

    def __init__(self, op: str, what: str, arrays: Mapping[str, Array]) -> None:
        super().__init__(arrays)
        self._op, self._what = op, what

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __setitem__(self, name: Any, value: Any) -> None:
        # The last step of ``params[name] *= 2``, which has changed the child's array, assigns that same array.
        if name not in self or value is not self[name]:
            self._refuse(name)

    def __delitem__(self, name: Any) -> None:
        self._refuse(name)

    def _refuse(self, name: Any = "name", *_: Any, **__: Any) -> Any:
        name = name if isinstance(name, str) else "name"
        raise TypeError(
            f"{self._op}: {self._what} is read-only; expected a change in place, {self._what}[{name!r}][...] = value, "
            "or load_state_dict"
        )

    __ior__ = clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]


class LoadedNames(NamedTuple):
    """The names that ``load_state_dict`` did not find in the state, and those in the state that are not parameters."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def load_values(op: str, params: Mapping[str, Array], state: Mapping[str, Any], strict: bool) -> LoadedNames:
    """Copy the values of ``state`` into the parameters; see ``Layer.load_state_dict``."""
    if not isinstance(state, Mapping):
        raise TypeError(f"{op}: state is {described(state)}; expected a mapping from names to arrays")
    problems = []
    names = LoadedNames([name for name in params if name not in state], [name for name in state if name not in params])
    if strict:
        problems += _listed("missing", names.missing_keys)
        problems += _listed("unexpected", names.unexpected_keys)
    for name, array in params.items():
        if name in state and array.dtype == np.int8 and getattr(state[name], "dtype", None) != np.int8:
            raise TypeError(
                f"{op}: {name} has dtype {getattr(state[name], 'dtype', type(state[name]).__name__)}; expected int8, "
                "as in the state of a quantized layer"
            )
        if name in state and array.dtype == np.int8 and np.min(state[name], initial=0) < -127:
            raise ValueError(f"{op}: {name} has values below -127; expected integers from -127 to 127")
    values = {
        name: as_real(op, name, take_host(state[name]), array.dtype) for name, array in params.items() if name in state
    }
    problems += _listed(
        "wrong shapes",
        [
            f"{name} has shape {value.shape}, expected {params[name].shape}"
            for name, value in values.items()
            if value.shape != params[name].shape
        ],
    )
    if problems:
        raise ValueError(f"{op}: the state does not fit; {'; '.join(problems)}")
    check_writeable(op, {name: params[name] for name in values})
    for name, value in copied_where_shared(params, values).items():
        assign(params[name], value)
    return names


def renamed(op: str, state: Any, rename: Mapping[str, str | None]) -> Any:
    """Return a state under other names; see ``Layer.load_state_dict``."""
    if not isinstance(state, Mapping):
        return state  # which load_values refuses
    if not isinstance(rename, Mapping):
        raise TypeError(f"{op}: rename is {described(rename)}; expected a mapping from names to names")
    unused = set(rename)
    result: dict[str, Any] = {}
    for name, value in state.items():
        parts = str(name).split(".")
        prefixes = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        found = next((prefix for prefix in prefixes if prefix in rename), None)
        new: str | None = str(name)
        if found is not None:
            unused.discard(found)
            to, rest = rename[found], str(name)[len(found) :]
            new = None if to is None else (to + rest).removeprefix(".")
        if new in result:
            raise ValueError(f"{op}: rename gives {new} to two values; expected one for each name")
        if new is not None:
            result[new] = value
    if unused:
        raise ValueError(f"{op}: rename has {', '.join(sorted(unused))}; the state has no such names")
    return result


def check_writeable(op: str, params: Mapping[str, Array]) -> None:
    """Raise ValueError if one of the arrays is read-only, which only NumPy's can be."""
    for name, array in params.items():
        if isinstance(array, np.ndarray) and not array.flags.writeable:
            raise ValueError(f"{op}: {name} is read-only; expected an array that may be written to")


def copied_where_shared(params: Mapping[str, Array], values: Mapping[str, Array]) -> dict[str, Array]:
    """Return the values, with copies of those that are a parameter or a view of one, which may change before them."""
    own = {id(each) for array in params.values() if isinstance(array, np.ndarray) for each in (array, array.base)}
    own.discard(id(None))  # the base of an array that owns its memory
    return {name: value.copy() if {id(value), id(value.base)} & own else value for name, value in values.items()}


def _listed(what: str, names: Iterable[str]) -> list[str]:
    names = list(names)
    more = f" and {len(names) - _LISTED_NAMES} more" if len(names) > _LISTED_NAMES else ""
    return [f"{what}: {', '.join(map(str, names[:_LISTED_NAMES]))}{more}"] if names else []


def serial_of(owner: Any) -> int:
    """Return a number that stands for the contents of ``owner._params``, or 0 if they may change at any time."""
    if not _COUNTS:
        return 0
    # No name for the dictionary before _is_alone: it would be one more reference. A fresh number and the cleared note
    # come before the look, so that of threads that do this at once none takes the old number for the new contents, and
    # one that is handed the arrays in the meantime is seen by its note or by what it holds.
    if owner._params.handed_out:
        owner._params.serial = next(_serials)
        owner._params.handed_out = False
        if not _is_alone(owner):
            owner._params.handed_out = True
            return 0
    serial: int = owner._params.serial
    return serial


def witness_of(owner: Any) -> int:
    """Return the fingerprint of the contents of ``owner._params``, which is taken only if they may have changed."""
    serial = serial_of(owner)
    known: int
    witness: int
    known, witness = owner._params.witness
    if serial == 0 or known != serial:
        witness = _core.fingerprint(list(owner._params.values()))
        owner._params.witness = serial, witness
    return witness


def _references(owner: Any) -> tuple[int, set[int]]:
    """Return the reference counts of the dictionary and of its arrays, as seen from here."""
    params = owner._params
    return getrefcount(params), {getrefcount(array) for array in params.values()}


# What one holder looks like depends on the interpreter, so it is measured.
_ALONE = _references(SimpleNamespace(_params={"weight": np.zeros(1), "bias": np.zeros(1)}))


def _is_alone(owner: Any) -> bool:
    return _references(owner) == _ALONE and all(
        type(array) is np.ndarray and array.flags.owndata and not weakref.getweakrefcount(array)
        for array in owner._params.values()
    )
