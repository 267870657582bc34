"""What a layer accepts: real arrays, dtypes, devices, sizes and lengths, checked once and with one wording."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable
from contextlib import suppress
from reprlib import Repr
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import devices
from .namespace import device_array, from_host, on_gpu, take_host, to_host

_shortener = Repr()
_shortener.maxstring = _shortener.maxother = _shortener.maxlong = 80

_LARGE_BYTES = 1 << 30

Array: TypeAlias = NDArray[Any]  # on cuda: CuPy's, which has the same attributes and methods

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))
# A text is looked up, not given to NumPy, which evaluates it: it may come from a file.
_DTYPE_NAMES = {
    name: dtype
    for dtype in DTYPES
    for letter in (dtype.char, dtype.str[1:], dtype.str)
    for name in (dtype.name, letter, f"={dtype.str[1:]}")
} | {"single": DTYPES[0], "double": DTYPES[1], "float": DTYPES[1]}


# What is spelled otherwise elsewhere, in small letters and without what is between them.
_ELSEWHERE = {
    "acc": "accuracy",
    "meansquarederror": "mse",
    "l2": "mse",
    "meanabsoluteerror": "mae",
    "l1": "mae",
    "smoothl1": "huber",
    "nll": "crossentropy",
    "bce": "binarycrossentropy",
    "bcewithlogits": "binarycrossentropy",
}


def one_of(given: Any, known: Iterable[str]) -> str:
    """Return the known names for a message, and which of them Keras or torch spell as one that is not known."""
    names = list(known)
    plain = {name.replace("_", ""): name for name in sorted(names, key=len, reverse=True)}
    wanted = str(given).lower().replace("_", "").removesuffix("loss")
    wanted = _ELSEWHERE.get(wanted, wanted)
    meant = next((name for each, name in plain.items() if wanted.endswith(each)), None)
    return f"one of {', '.join(names)}" + (f" (that is {meant!r} here)" if meant else "")


def parse_dtype(op: str, dtype: Any) -> np.dtype[Any]:
    """Return the NumPy dtype of a layer: float32 or float64, in native byte order.

    Raises
    ------
    TypeError
        For any other dtype, None included (NumPy would read it as float64).
    """
    parsed: np.dtype[Any] | None = None
    if isinstance(dtype, str):
        parsed = _DTYPE_NAMES.get(dtype)
    elif not isinstance(dtype, (type(None), list, tuple, dict)):  # which would describe structures
        with suppress(TypeError):
            parsed = np.dtype(dtype)
    if parsed is None or parsed not in DTYPES:  # None is equal to float64
        raise TypeError(f"{op}: dtype is {brief(dtype)}; expected float32 or float64")
    return np.dtype(parsed.type)  # not a copy, which would only be equal


def parse_device(op: str, device: Any) -> str:
    """Return the device of a layer, "cpu" or "cuda".

    Raises
    ------
    RuntimeError
        For any other device, or where there is no GPU to compute on; the message says what to do.
    """
    if not isinstance(device, str) or device not in ("cpu", "cuda"):
        raise RuntimeError(f"{op}: device is {brief(device)}, which is not known; use device='cpu' or device='cuda'")
    if device == "cpu":
        return "cpu"
    try:
        devices.require_device()
        devices.cupy_namespace()
    except RuntimeError as error:
        raise RuntimeError(f"{op}: {error}") from error
    return "cuda"


def brief(value: Any) -> str:
    """Return the repr of an argument for a message, which may be of any length, cut."""
    return _shortener.repr(value)


def described(value: Any) -> str:
    """Return what a value is, for a message: "a Linear", "an LSTM", or "the class Linear"."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    spelt = name.isupper() or name == "ndarray"
    vowel = name[0].upper() in ("AEFHILMNORSX" if spelt else "AEIO")
    return f"{'an' if vowel else 'a'} {name}"


def check_takes(op: str, name: str, function: Any, form: str) -> None:
    """Raise a TypeError if a user's function cannot be called as in ``form``, such as "schedule(epoch)"."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of what is not written in Python
        return
    try:
        signature.bind(*[None] * (form.count(",") + 1))
    except TypeError:
        raise TypeError(f"{op}: {name} takes {signature}; expected {form}") from None


def positive_int(op: str, name: str, value: Any) -> int:
    """Return a size as a Python int of at least 1.

    Raises
    ------
    TypeError
        If the value is not an integer (bool is not one).
    ValueError
        If it is 0 or negative.
    """
    result = integer(op, name, value)
    if result < 1:
        raise ValueError(f"{op}: {name} is {result}; expected a positive integer")
    return result


def integer(op: str, name: str, value: Any) -> int:
    """Return an argument as a Python int; TypeError if it is not an integer (bool is not one)."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{op}: {name} is {brief(value)}; expected an integer") from None


def number(op: str, name: str, value: Any) -> float:
    """Return an argument as a Python float; TypeError if it is not a number (text is not one)."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{op}: {name} is {brief(value)}; expected a number") from None


def positive(op: str, name: str, value: Any) -> float:
    """Return an argument as a Python float above 0; ValueError for any other number, NaN included."""
    result = number(op, name, value)
    if not result > 0:
        raise ValueError(f"{op}: {name} is {value}; expected a positive number")
    return result


def flag(op: str, name: str, value: Any) -> bool:
    """Return an argument as a Python bool; TypeError if it is not one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{op}: {name} is {brief(value)}; expected True or False")
    return bool(value)


def seed_sequence(op: str, seed: Any) -> np.random.SeedSequence:
    """Return what the seeds of the parts of a layer come from; ValueError or TypeError if ``seed`` cannot be one."""
    try:
        return np.random.SeedSequence(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{op}: seed is {seed!r}; expected an integer >= 0 or None") from None


def random_generator(op: str, seed: Any) -> np.random.Generator:
    """Return the generator of a seed; ValueError or TypeError if ``seed`` cannot be one."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{op}: seed is {seed!r}; expected an integer >= 0 or None") from None


def probability(op: str, name: str, value: Any) -> float:
    """Return a dropout probability as a float in [0, 1]; ValueError outside, NaN included."""
    result = number(op, name, value)
    if not 0.0 <= result <= 1.0:
        raise ValueError(f"{op}: {name} is {value!r}; expected a probability in [0, 1]")
    return result


def check_plain(op: str, name: str, x: Any) -> None:
    """Raise TypeError for arrays that say themselves which elements count: NumPy would read the elements alone."""
    if isinstance(x, np.ndarray) and np.ma.is_masked(x):
        raise TypeError(
            f"{op}: {name} is a MaskedArray with masked elements; expected an array without: {name}.filled(0), and "
            "mask= or lengths= for what does not count"
        )
    if type(x).__name__ == "PackedSequence":
        raise TypeError(
            f"{op}: {name} is a PackedSequence; expected a padded array, and lengths=: both are what "
            "torch.nn.utils.rnn.pad_packed_sequence returns"
        )


def as_array(op: str, name: str, x: Any, xp: Any = np) -> Array:
    """Return ``x`` as an array of the namespace, whatever its dtype; the errors are those of ``as_real``."""
    if type(x) is not np.ndarray:
        check_plain(op, name, x)
    if xp is not np:
        array: Array = device_array(op, name, x, xp)
        return array
    if on_gpu(x):
        raise RuntimeError(
            f"{op}: {name} is a {type(x).__module__}.{type(x).__name__} on cuda; the layer is on cpu: "
            "pass a NumPy array, or layer.to('cuda')"
        )
    try:
        return np.asarray(x)
    except ValueError as error:
        got = str(error)
        if isinstance(x, (list, tuple)):
            got = "its parts have unlike shapes; fusedrnn.pad_sequences makes one of sequences of unequal length"
        raise ValueError(f"{op}: {name} is not an array: {got}") from None
    except (TypeError, RuntimeError) as error:  # of a tensor that needs a gradient, has another dtype, or no memory
        expected = "what NumPy can read; of a tensor, tensor.detach().float().numpy()"
        raise TypeError(f"{op}: {name} is {described(x)}: {error}; expected {expected}") from None


def as_real(op: str, name: str, x: Any, dtype: np.dtype[Any] | None, xp: Any = np) -> Array:
    """Return ``x`` as an aligned array of ``dtype`` in native byte order.

    An array that already is one comes back as it is, whatever its strides and whether or not it may be written to.

    Parameters
    ----------
    op, name : str
        Operation and argument, for the message.
    x : array_like
        Any real dtype: integers, any float, bfloat16 of ml_dtypes, any byte order.
    dtype : dtype or None
        float32 or float64. None keeps the input's own dtype if it is one of them and else converts to float32.
    xp : module
        The namespace that computes with it: NumPy, or CuPy for an array that is in the memory of a GPU already.

    Raises
    ------
    TypeError
        If the dtype of ``x`` is not real (complex, object, bool, text, dates), or ``x`` has masked elements.
    ValueError
        If ``x`` is a ragged nest of sequences.
    RuntimeError
        If ``x`` is on another device than the namespace.
    """
    usual = xp is np and type(x) is np.ndarray  # what follows would say the same, but not as fast
    if usual and (x.dtype is dtype or (dtype is None and x.dtype in DTYPES)) and x.flags.aligned:
        if x.nbytes >= _LARGE_BYTES:
            _refuse_repetition(op, name, x)
        return x  # type: ignore[no-any-return]
    array = as_array(op, name, x, xp)
    if xp is np and array.nbytes >= _LARGE_BYTES:
        _refuse_repetition(op, name, array)
    # NumPy does not know bfloat16, which comes from ml_dtypes and JAX.
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise TypeError(f"{op}: {name} has dtype {array.dtype}; expected a real dtype such as {dtype or 'float32'}")
    if dtype is None:
        native = array.dtype.newbyteorder("=")
        dtype = native if native in DTYPES else DTYPES[0]
    if xp is not np:
        return array.astype(dtype, copy=False)
    if array.dtype == dtype and array.flags.aligned:
        return array
    # A broadcast axis is converted once: a stride-0 view may have more elements than there is memory.
    once = tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)
    converted = np.asarray(array[once]).astype(dtype, order="C")  # asarray: of no axes, an element is no array
    return converted if converted.shape == array.shape else np.broadcast_to(converted, array.shape)


def _refuse_repetition(op: str, name: str, array: Array) -> None:
    """Raise ValueError for a large view that repeats few elements: it promises more than there is memory or time for.

    The kernels refuse the same (csrc/bind/arrays.h); here it is about what is computed without them.
    """
    held = array.itemsize + sum(
        abs(stride) * max(length - 1, 0) for stride, length in zip(array.strides, array.shape, strict=True)
    )
    if array.nbytes > 64 * held:
        raise ValueError(
            f"{op}: {name} has shape {array.shape} and repeats the elements of {held} bytes; expected an array with "
            "memory of its own"
        )


def as_integer(op: str, name: str, x: Any, xp: Any = np) -> Array:
    """Return ``x`` as an array of an integer dtype; TypeError for any other dtype (bool is not one).

    NumPy's stay unconverted; others become int64, as not every CuPy compares unsigned integers with negative ones.
    """
    array = as_array(op, name, x, xp)
    if array.size == 0 and array.dtype.kind == "f" and xp is np and not isinstance(x, np.ndarray):
        array = array.astype(np.int64)  # an empty list has no dtype of its own
    if array.dtype.kind not in "iu":
        raise TypeError(f"{op}: {name} has dtype {array.dtype}; expected an integer dtype")
    return array if xp is np else array.astype(np.int64, copy=False)


def as_lengths(op: str, lengths: Any, batch: int, steps: int) -> NDArray[np.int64]:
    """Return ``lengths``, of any device, as a new contiguous int64 NumPy array (B,) with values in [0, T].

    Raises
    ------
    TypeError
        If the dtype is not an integer.
    ValueError
        If the shape is not (B,) or a value is outside [0, T].
    """
    array = as_integer(op, "lengths", take_host(lengths))
    if array.shape != (batch,):
        raise ValueError(f"{op}: lengths has shape {array.shape}; expected (batch,) = ({batch},)")
    wrong = (array < 0) | (array > steps)
    if wrong.any():
        at = int(wrong.argmax())
        raise ValueError(f"{op}: lengths[{at}] is {array[at]}; expected 0 <= length <= {steps} (time steps)")
    return array.astype(np.int64)


def check_shape(op: str, name: str, array: Array, names: str, expected: tuple[int, ...]) -> None:
    """Raise the ValueError of a wrong shape: got, the names of the axes, and expected."""
    if array.shape != expected:
        raise ValueError(f"{op}: {name} has shape {array.shape}; expected ({names}) = {expected}")


def as_mask(op: str, mask: Any, xp: Any) -> NDArray[np.bool_]:
    """Return a mask, of any device, as a boolean array of the namespace; TypeError for another dtype."""
    array: NDArray[Any]
    if xp is np and type(mask) is np.ndarray:
        array = mask
    elif xp is np or not on_gpu(mask):
        array = from_host(xp, to_host(mask))
    else:
        array = device_array(op, "mask", mask, xp)
    if array.dtype != np.bool_:
        raise TypeError(f"{op}: mask has dtype {array.dtype}; expected bool")
    return array
