from collections.abc import Callable
from typing import Any

class View:
    def __init__(
        self,
        pointer: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: str,
        device: int,
        read_only: bool = False,
    ) -> None: ...
    @staticmethod
    def from_dlpack(capsule: Any) -> View: ...
    @property
    def pointer(self) -> int: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def device(self) -> int: ...
    @property
    def read_only(self) -> bool: ...

class Tape:
    def backward(
        self,
        dy: View | None,
        dh: View | None,
        dc: View | None,
        gradients: list[View | None],
        dx: View | None,
        dh0: View | None,
        dc0: View | None,
        stream: int,
    ) -> None: ...

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
    ) -> None: ...
    def outputs(self, x: tuple[int, ...], batch_first: bool) -> tuple[tuple[int, ...], tuple[int, ...], bool]: ...
    def forward(
        self,
        weights: list[View | None],
        x: View,
        h0: View | None,
        c0: View | None,
        lengths: Any,
        batch_first: bool,
        y: View,
        h: View | None,
        c: View | None,
        training: bool,
        stream: int,
        tf32: bool,
        chunk_bytes: int = 0,
        path: str = "auto",
    ) -> Tape | None: ...
    def convert(self, source: View, target: View, stream: int) -> None: ...
    def plan(self, time: int, batch: int, path: str = "auto") -> str: ...

def host_stack(
    cell: str,
    dtype: str,
    input_size: int,
    hidden_size: int,
    num_layers: int,
    num_directions: int,
    reverse: bool,
    bias: bool,
) -> Stack: ...
def refuse_on_host(after: int) -> None: ...
def forget_loops_on_host() -> None: ...
def plan_for(
    cell: str,
    dtype: str,
    hidden_size: int,
    batch: int,
    num_directions: int,
    multiprocessors: int,
    shared_bytes: int,
) -> str: ...
def status() -> dict[str, Any]: ...
def device_of(address: int) -> int: ...
def mark(device: int, stream: int) -> Callable[[], bool] | None: ...
def release_memory() -> None: ...
def set_cublas_candidates(paths: list[str]) -> None: ...
