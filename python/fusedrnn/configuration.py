"""Where the kernels run: instruction set, threads, devices."""

from __future__ import annotations

import operator
import os
from typing import Any

from . import _core
from .arrays.devices import summary as cuda_summary


def set_num_threads(n: int) -> None:
    """Use at most ``n`` threads in each call, the calling one included. Results do not depend on it.

    The default is FUSEDRNN_NUM_THREADS or, without it, the processors that the process may use (affinity and cgroup
    quota), of which OMP_NUM_THREADS may allow fewer, as it does in the worker processes of joblib. Small calls use
    fewer.

    Raises
    ------
    TypeError
        If ``n`` is not an integer.
    ValueError
        If ``n`` is not in [1, 1023].
    """
    if isinstance(n, bool):
        raise TypeError(f"set_num_threads: n is {n!r}; expected an integer")
    try:
        count = operator.index(n)
    except TypeError:
        raise TypeError(f"set_num_threads: n is {n!r}; expected an integer") from None
    if not 1 <= count <= 1023:
        raise ValueError(f"set_num_threads: n is {count}; expected 1 <= n <= 1023")
    _core.set_num_threads(count)


def get_num_threads() -> int:
    """Return the number of threads that a large call uses."""
    return _core.num_threads()


def set_thread_pool(name: str) -> None:
    """Choose whose threads the kernels run on. Results do not depend on it.

    A library that works with OpenMP (PyTorch) lets its threads spin for some time after each operation, and threads of
    our own would have to share the processors with them. On "openmp" both work with the same ones.

    Parameters
    ----------
    name : {"own", "openmp"}
        Our own workers, the default; or those of the OpenMP library that the process has loaded already, which
        ``fusedrnn.torch`` takes unless told otherwise here. A forked child keeps to our own.

    Raises
    ------
    ValueError
        If ``name`` is another.
    RuntimeError
        If no OpenMP library has been loaded.
    """
    if name not in ("own", "openmp"):
        raise ValueError(f"set_thread_pool: name is {name!r}; expected 'own' or 'openmp'")
    if not _core.set_thread_source(name == "openmp"):
        raise RuntimeError("set_thread_pool: name is 'openmp'; expected 'own', or a library that brings OpenMP (torch)")


def get_thread_pool() -> str:
    """Return "own" or "openmp": whose threads layers on NumPy arrays use."""
    return _core.thread_source()


def config() -> dict[str, Any]:
    """Return what decides where and how fast the kernels run.

    Returns
    -------
    dict
        version; isa (in use) and isa_available; bfloat16, how ``compute_dtype="bfloat16"`` multiplies: "hardware",
        "emulated" (by two float32 multiply-adds) or "none"; int8, the kernels of quantized layers; threads (in use)
        and threads_available; cuda, a dict of built (the architectures compiled in, None without CUDA), driver (its
        CUDA version), device (the name of the first) and reason: why no device can be used and what to do, None if
        one can.
    """
    from . import __version__

    return {
        "version": __version__,
        "isa": _core.isa(),
        "isa_available": _core.available_isas(),
        "bfloat16": _core.bfloat16(),
        "int8": _core.int8(),
        "threads": _core.num_threads(),
        "threads_available": _core.available_threads(),
        "cuda": cuda_summary(),
    }


def show_config() -> None:
    """Print :func:`config`, one line per entry."""
    values = config()
    cuda = values.pop("cuda")
    available = values.pop("isa_available"), values.pop("threads_available")
    print(f"fusedrnn  {values['version']}")
    print(f"isa       {values['isa']} (available: {', '.join(available[0])})")
    print(f"bfloat16  {values['bfloat16']}")
    print(f"int8      {values['int8']}")
    print(f"threads   {values['threads']} (available: {available[1]})")
    print(f"cuda      {'no: ' + cuda['reason'] if cuda['reason'] else cuda['device']}")


def read_environment() -> None:
    """Apply FUSEDRNN_NUM_THREADS or, without it, OMP_NUM_THREADS; called once, by the import."""
    text = os.environ.get("FUSEDRNN_NUM_THREADS", "").strip()
    if text:
        if not text.isdecimal() or not 1 <= int(text) <= 1023:
            raise ValueError(f"fusedrnn: FUSEDRNN_NUM_THREADS is {text!r}; expected an integer in [1, 1023]")
        _core.set_num_threads(int(text))
        return
    # A limit that is meant for all: what it cannot mean is OpenMP's to report, and it brings no more processors.
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()  # a list has a number a level of nesting
    if first.isdecimal() and 1 <= int(first) < _core.num_threads():
        _core.set_num_threads(int(first))
