"""The bytes of a model of ONNX: read whole, its functions and the files beside it judged before they are unfolded."""

from __future__ import annotations

import os
import stat
from pathlib import PurePath
from typing import Any, TypeAlias

import onnx
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor, uses_external_data
from onnx.inliner import inline_local_functions

from ..arrays.checks import described
from ..interop.bounds import Budget
from ..serialization.files import open_regular

Source: TypeAlias = str | os.PathLike[str] | bytes | onnx.ModelProto


def what_of(op: str, source: Any) -> str:
    """Return how messages name a model; TypeError for what is none."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, (bytes, onnx.ModelProto)):
        return f"{len(source)} bytes" if isinstance(source, bytes) else "path"
    raise TypeError(f"{op}: path is {described(source)}; expected a path, bytes or an onnx.ModelProto")


class File:
    """A model, where it lies, and what reading it may still take.

    Parameters
    ----------
    op : str
        Name of the caller, for messages.
    source : path, bytes or onnx.ModelProto
        The model. Functions of its own are inlined.
    """

    def __init__(self, op: str, source: Source) -> None:
        self._folder: str | None = None  # where the files beside it are; None where there are none
        if isinstance(source, onnx.ModelProto):
            model = onnx.ModelProto()
            model.CopyFrom(source)
        else:
            model = self._parsed(op, source)
        if not model.graph.node:
            raise ValueError(f"{op}: the model has no nodes")
        self.budget = Budget(op, model.ByteSize())
        self._charged: set[str] = set()  # files beside it
        if model.functions:
            _charge_functions(op, model, self.budget)
            model = inline_local_functions(model)
        self.proto = model

    def _parsed(self, op: str, source: str | bytes | os.PathLike[str]) -> onnx.ModelProto:
        if isinstance(source, bytes):
            content = source
        else:
            with open_regular(source) as file:
                content = file.read()
            self._folder = os.path.dirname(os.path.abspath(os.fsdecode(source)))
        try:
            return onnx.load_from_string(content)
        except Exception as error:  # of protobuf, which has no class of its own for all of them
            raise ValueError(f"{op}: {what_of(op, source)}: not a model of ONNX: {error}") from error

    def fetch(self, tensor: onnx.TensorProto) -> None:
        """Bring in the bytes of a tensor that are in a file beside the model; ValueError if they are elsewhere."""
        if not uses_external_data(tensor):
            return
        info: Any = ExternalDataInfo(tensor)
        parts = PurePath(info.location)
        if self._folder is None or parts.is_absolute() or ".." in parts.parts:
            raise ValueError(f"its bytes are in {info.location!r}; expected a file beside the model's")
        status = os.stat(os.path.join(self._folder, parts))
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"its bytes are in {info.location!r}, which is no regular file")
        if info.location not in self._charged:
            self._charged.add(info.location)
            self.budget.add(status.st_size)
        self.budget.charge(tensor.name, info.length or status.st_size)
        load_external_data_for_tensor(tensor, self._folder)


def _charge_functions(op: str, model: onnx.ModelProto, budget: Budget) -> None:
    """Charge what the functions of a model become where they are called: each may call others many times."""
    functions = {_key(each): each for each in model.functions}
    sizes: dict[Any, int | None] = {}

    def size_of(nodes: Any) -> int:
        total = 0
        for node in nodes:
            total += node.ByteSize() + called(_key(node, node.op_type))
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    total += size_of(graph.node)
        return total

    def called(key: Any) -> int:
        if key not in functions:
            return 0
        if key not in sizes:
            sizes[key] = None  # until it is known
            sizes[key] = size_of(functions[key].node)
        size = sizes[key]
        if size is None:
            raise ValueError(f"{op}: function {key[1]!r} calls itself")
        budget.charge(f"function {key[1]!r}", 0 if size < 2**50 else size)  # before the sum takes long
        return size

    budget.charge("its functions", size_of(model.graph.node))


def _key(each: Any, name: str | None = None) -> tuple[str, str, str]:
    domain = "" if each.domain == "ai.onnx" else each.domain
    return domain, name or each.name, getattr(each, "overload", "")
