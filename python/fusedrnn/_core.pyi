from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

class Tape:
    def backward(
        self,
        dy: NDArray[Any] | None,
        dh: NDArray[Any] | None,
        dc: NDArray[Any] | None,
        gradients: Sequence[NDArray[Any]],
        want_dx: bool = True,
    ) -> tuple[Any, NDArray[Any], Any, Any, Any]: ...
    def gates(self, slab: int) -> NDArray[Any]: ...
    def cell_states(self, slab: int) -> NDArray[Any] | None: ...
    def outputs(self, layer: int) -> NDArray[Any]: ...

class Stream:
    def step(self, x: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]: ...
    def state(self) -> tuple[NDArray[Any], Any]: ...
    def reset(self, h: NDArray[Any] | None = None, c: NDArray[Any] | None = None) -> None: ...

class Stack:
    def __init__(
        self,
        cell: str,
        dtype: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        num_directions: int,
        reverse: bool,
        bias: bool,
        compute_dtype: str = "",
        options: tuple[Any, ...] | None = None,
        int8_planes: int = 0,
        proj_size: int = 0,
    ) -> None: ...
    def forward(
        self,
        weights: Sequence[NDArray[Any]],
        x: NDArray[Any],
        h0: NDArray[Any] | None,
        c0: NDArray[Any] | None,
        lengths: Any,
        batch_first: bool,
        training: bool,
        serial: int = 0,
        resets: Any = None,
        h_restart: NDArray[Any] | None = None,
        c_restart: NDArray[Any] | None = None,
        factors: tuple[NDArray[Any] | None, ...] | None = None,
    ) -> tuple[NDArray[Any], NDArray[Any], Any, Any]: ...
    def stream(self, weights: Sequence[NDArray[Any]], batch_size: int) -> Stream: ...
    def plan(self, time: int, batch: int) -> str: ...

def isa() -> str: ...
def available_isas(extensions: bool = False) -> list[str]: ...
def int8() -> str: ...
def bfloat16() -> str: ...
def available_threads() -> int: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def set_thread_source(openmp: bool) -> bool: ...
def thread_source() -> str: ...
def wait_for_workers(always: bool) -> None: ...
def fma_peak(dtype: str, seconds: float) -> float: ...
def empty(shape: tuple[int, ...], dtype: str) -> NDArray[Any]: ...
def update(rule: str, items: list[tuple[Any, ...]], **numbers: float) -> list[int]: ...
def fingerprint(arrays: list[NDArray[Any]]) -> int: ...
def square_sum(x: NDArray[Any]) -> float | None: ...
def row_products(x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]: ...

class Rows:
    @property
    def batch(self) -> int: ...

class AddressTape:
    @property
    def batch(self) -> int: ...
    def backward(
        self,
        x: tuple[int, int, int],
        y: tuple[int, int, int],
        states: tuple[int, ...],
        dy: tuple[int, int, int],
        dfinal: tuple[int, ...],
        dx: tuple[int, int, int],
        dstates: tuple[int, ...],
        gradients: tuple[int, ...],
        threads: int,
    ) -> None: ...

class AddressStack:
    def __init__(
        self,
        cell: str,
        dtype: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        num_directions: int,
        bias: bool,
        compute_dtype: str = "",
    ) -> None: ...
    @property
    def saved_per_row(self) -> int: ...
    def rows(self, time: int, batch: int, lengths: Any = None, resets: Any = None) -> Rows: ...
    def packed_rows(self, batch_sizes: list[int]) -> Rows: ...
    def forward(
        self,
        rows: Rows,
        weights: tuple[int, ...],
        x: tuple[int, int, int],
        y: tuple[int, int, int],
        states: tuple[int, ...],
        final: tuple[int, int],
        training: bool,
        keeps_y: bool,
        saved: int,
        threads: int,
    ) -> AddressTape | None: ...
    def tape(self, rows: Rows, weights: tuple[int, ...], keeps_y: bool, saved: int) -> AddressTape: ...
