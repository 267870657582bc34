"""The rules of the house: who includes whom in csrc, who imports whom in Python, and what an import may cost."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest

from scripts import run_python

CSRC = Path(__file__).parents[1] / "csrc"
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)

# Folders whose headers the files of a folder may include. bind is the only one that sees Python; it starts no kernel by
# itself, but reads the ISA and the threads of the CPU backend. core knows the list of cells, and their layouts.
MAY_INCLUDE = {
    "system": {"system"},
    "cells": {"cells"},
    "core": {"core", "cells", "system"},
    "cpu/kernels": {"cpu/kernels", "cpu", "core", "cells"},
    "cpu/threads": {"cpu/threads", "system"},
    "cpu": {"cpu", "cpu/threads", "core", "system"},
    "cuda/kernels": {"cuda/kernels", "cuda", "core", "cells"},
    "cuda/engine": {"cuda/engine", "cuda/kernels", "cuda", "core", "cells"},
    "cuda": {"cuda", "cuda/engine", "core"},
    "bind": {"bind", "core", "cpu", "cpu/threads", "cuda", "system"},
}
PYTHON = ("pybind11", "Python.h", "numpy/")
CUDA = ("cuda", "cublas", "cudnn", "nvrtc")
# What a file that is compiled once per ISA may take from the system: nothing with code of its own that the linker could
# merge with the baseline's.
PLAIN_C = {"stddef.h", "stdint.h", "immintrin.h", "arm_neon.h"}

GENERATED = {"isa_table.h": "cpu"}  # written by CMake, and the folder it counts to

SOURCES = sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"})


def includes(source: Path) -> list[tuple[bool, str]]:
    """Return (from the project, name) of every include in a file."""
    return [(quote == '"', name) for quote, name in INCLUDE.findall(source.read_text())]


def resolve(source: Path, name: str) -> Path:
    """Find an included file of the project: beside the file, or from the root of csrc."""
    found = [path.resolve() for path in (source.parent / name, CSRC / name) if path.is_file()]
    assert found, f"{source.relative_to(CSRC)} includes {name}, which is not in csrc"
    return found[0]


def folder(path: Path) -> str:
    """Return the part of the house that a file belongs to."""
    return path.parent.relative_to(CSRC.resolve()).as_posix()


def test_the_rules_see_the_sources() -> None:
    """The tests below look at real files."""
    assert {folder(path.resolve()) for path in SOURCES} >= {"core", "cells", "cpu/kernels", "bind"}


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(CSRC)))
def test_includes(source: Path) -> None:
    """Every include stays inside the rule for its folder."""
    here = folder(source.resolve())
    assert here in MAY_INCLUDE, f"csrc/{here} has no rule"
    for ours, name in includes(source):
        if ours:
            there = GENERATED.get(name) or folder(resolve(source, name))
            assert there in MAY_INCLUDE[here], f"{here} includes {name}"
        assert here == "bind" or not name.startswith(PYTHON), f"{here} includes {name}"
        assert here.startswith("cuda") or ours or not name.startswith(CUDA), f"{here} includes {name}"
        assert here != "cells" or ours, f"cells include nothing, but there is {name}"


MAP = (CSRC / "README.md").read_text()
THRESHOLDS = MAP.partition("## Thresholds")[2].partition("\n## ")[0]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(CSRC)))
def test_the_map_names_every_file(source: Path) -> None:
    """csrc/README.md does, at least without its ending: resident_*.h for several."""
    family = f"{source.stem.partition('_')[0]}_*"
    assert re.search(rf"\b{source.stem}\b", MAP) or family in MAP, "csrc/README.md does not say what is in it"


@pytest.mark.parametrize("answer", re.findall(r"\| ([^|]+) \|$", THRESHOLDS, re.MULTILINE)[1:])
def test_thresholds_are_where_the_map_says(answer: str) -> None:
    """Each name of an answer is in the file that follows it."""
    names: list[str] = []
    for word in re.findall("`([^`]+)`", answer):
        if not word.endswith((".h", ".cpp")):
            names.append(word.rpartition("::")[2])
            continue
        text = (CSRC / word).read_text()
        for name in names:
            assert re.search(rf"\b{name}\b", text), f"{word} has no {name}"
        names = []
    assert not names, f"no file is named for {names}"


def test_headers_have_an_order() -> None:
    """No headers include each other in a circle."""
    graph = {
        source.resolve(): {resolve(source, name) for ours, name in includes(source) if ours and name not in GENERATED}
        for source in SOURCES
    }
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def library_headers(source: Path) -> list[tuple[Path, str]]:
    """Return (who includes it, name) of every library header that a file gets, through other headers as well."""
    found, seen, waiting = [], set(), [source]
    while waiting:
        path = waiting.pop()
        seen.add(path)
        for ours, name in includes(path):
            if not ours:
                found.append((path, name))
            elif name not in GENERATED and (header := resolve(path, name)) not in seen:
                waiting.append(header)
    return found


@pytest.mark.parametrize("source", sorted(CSRC.glob("cpu/kernels/*.cpp")), ids=lambda path: path.name)
def test_what_is_compiled_per_isa_is_self_contained(source: Path) -> None:
    """No library header reaches a file that is compiled for one ISA, not even through another header."""
    for path, name in library_headers(source):
        assert name in PLAIN_C, f"{path.relative_to(CSRC)} includes <{name}>"


@pytest.mark.parametrize("source", sorted(CSRC.glob("bind/*.cpp")), ids=lambda path: path.name)
def test_bind_sees_no_cuda(source: Path) -> None:
    """What Python binds to is plain C++: no header of CUDA reaches it, not even through cuda/."""
    for path, name in library_headers(source):
        assert not name.startswith(CUDA), f"{path.relative_to(CSRC)} includes <{name}>"


NEEDS_NO_GPU = [*CSRC.glob("cuda/kernels/*.h"), *(CSRC / "cuda" / "engine" / f for f in ("engine.h", "host_device.h"))]


@pytest.mark.parametrize("header", NEEDS_NO_GPU, ids=lambda path: path.name)
def test_what_the_host_twin_runs_knows_no_device(header: Path) -> None:
    """The code that the host twin shares takes number types from CUDA's headers, and nothing that needs a GPU."""
    for path, name in library_headers(header):
        allowed = name in {"cuda_bf16.h", "cuda_fp16.h"} or not name.startswith(CUDA)
        assert allowed, f"{path.relative_to(CSRC)} includes <{name}>"


def test_only_one_folder_asks_the_system() -> None:
    """What a port to another operating system must provide stands in system/; CUDA loads its libraries itself."""
    unix = {"pthread.h", "unistd.h", "sched.h", "dlfcn.h"}
    for source in SOURCES:
        if folder(source.resolve()) not in {"system", "cuda/engine"}:
            found = {name for ours, name in includes(source) if not ours and (name in unix or name.startswith("sys/"))}
            assert not found, f"{source.relative_to(CSRC)} includes {found}"


PACKAGE = CSRC.parent / "python" / "fusedrnn"

# The floors of the Python package, from the ground up: what the modules of a part import from. Above its own floor
# nothing is imported, but for what is listed under LATER.
MAY_IMPORT: dict[str, set[str]] = {
    "arrays": set(),
    "cell_table": set(),
    "allocation": set(),
    "figure": set(),
    "configuration": {"arrays"},
    "threadpools": set(),
    "init": {"allocation", "arrays", "cell_table"},
    "cuda": {"arrays", "cell_table"},
    "functional": {"arrays", "cell_table", "cuda"},
    "data": {"arrays"},
    "layers": {"arrays", "cell_table", "allocation", "init", "functional", "cuda"},
    "models": {"arrays", "init", "layers"},
    "serialization": {"arrays", "allocation", "layers", "data"},
    "training": {"arrays", "figure", "layers", "serialization"},
    "diagnostics": {"arrays", "cell_table", "figure", "functional", "layers", "training"},
    "sklearn": {"arrays", "layers", "models", "training", "data", "serialization", "threadpools"},
    "interop": {"arrays", "allocation", "layers", "models"},
    "onnx": {"arrays", "layers", "models", "interop", "serialization"},  # whose files are regular, its JSON bounded
    "keras": {"arrays", "layers", "models", "interop", "serialization"},
    "torch": set(),
}
# What a function or an annotation may name of a higher floor: conveniences of a class for what is done with it.
LATER = {
    "configuration": {"fusedrnn"},  # the version
    "layers": {"serialization", "data"},  # layer.save, layer.preprocessing
    "models": {"training"},  # pretrain
    "serialization": {"fusedrnn"},  # the version
    "onnx": {"fusedrnn"},  # the version
    "threadpools": {"fusedrnn"},  # the version
    "torch": {"fusedrnn"},  # the namespace of its operators
}
COMPILED = {"_core", "_cuda"}
MODULES = {
    ".".join(("fusedrnn", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


class Imported(NamedTuple):
    name: str  # "fusedrnn.layers.base"
    later: bool  # only in a function, or for annotations


def imports_of(module: str) -> list[Imported]:
    """Return what a module imports of the package."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found = []

    def visit(node: ast.AST, later: bool) -> None:
        if isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.append(Imported(inner if inner in MODULES or alias.name in COMPILED else source, later))
        elif isinstance(node, ast.Import):
            found.extend(Imported(alias.name, later) for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            dots = len(node.value) - len(node.value.lstrip("."))  # import_module("fusedrnn.cuda.stack"), or ("..cuda")
            above = package.split(".")[: len(package.split(".")) - dots + 1] if dots else []
            if (name := ".".join((*above, node.value[dots:]))) in MODULES:
                found.append(Imported(name, True))
        later = later or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            later = True
        for child in ast.iter_child_nodes(node):
            visit(child, later)

    visit(ast.parse(MODULES[module].read_text()), False)
    return [each for each in found if each.name.partition(".")[0] == "fusedrnn"]


def part(module: str) -> str:
    """Return the folder, or the module outside folders, that a module belongs to."""
    return module.split(".")[1] if "." in module else module


@pytest.mark.parametrize("module", [module for module in MODULES if module != "fusedrnn"])
def test_python_imports(module: str) -> None:
    """Every import stays inside the rule for its part, those in functions and for annotations too."""
    here = part(module)
    assert here in MAY_IMPORT, f"python/fusedrnn/{here} has no rule: which parts may it import?"
    for name, later in imports_of(module):
        allowed = {here, *COMPILED, *MAY_IMPORT[here], *(LATER.get(here, set()) if later else ())}
        assert part(name) in allowed, f"{module} imports {name}"


def test_floors_have_an_order() -> None:
    """No part stands on one that stands on it."""
    list(TopologicalSorter(MAY_IMPORT).static_order())  # raises CycleError


def test_modules_have_an_order() -> None:
    """No modules import each other in a circle when they are imported."""
    graph = {
        module: {name for name, later in imports_of(module) if not later and name in MODULES and name != module}
        for module in MODULES
    }
    assert graph["fusedrnn.layers.base"] >= {"fusedrnn.layers.protocol", "fusedrnn.arrays.checks"}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("module", [module for module, path in MODULES.items() if path.name == "__init__.py"])
def test_folders_say_what_belongs_there(module: str) -> None:
    """The docstring of every package does, in a sentence or more."""
    text = ast.get_docstring(ast.parse(MODULES[module].read_text()))
    assert text is not None and text.split("\n\n")[0].endswith(".") and len(text.split()) >= 8, module


ROOT = CSRC.parent
NOT_OURS = {"build", "dist", "shared"}  # what is built, or lies beside the project


def has_code(path: Path) -> bool:
    """Return whether a folder belongs to the project and has files of its own."""
    parts = path.relative_to(ROOT).parts
    ours = not any(part.startswith((".", "_")) or part in NOT_OURS or part.endswith(".egg-info") for part in parts)
    return ours and path.is_dir() and any(each.is_file() for each in path.iterdir())


@pytest.mark.parametrize(
    "path", sorted(filter(has_code, ROOT.rglob("*"))), ids=lambda path: str(path.relative_to(ROOT))
)
def test_every_folder_says_what_belongs_there(path: Path) -> None:
    """Its README or docstring does, or a README above it or CONTRIBUTING.md, by its name."""
    parts = path.relative_to(ROOT).parts
    names = ["`" + "/".join(parts[start:]) + "/`" for start in range(len(parts))]
    above = [folder / "README.md" for folder in path.parents if folder.is_relative_to(ROOT) and folder != ROOT]
    text = "".join(each.read_text() for each in (*above, ROOT / "CONTRIBUTING.md") if each.is_file())
    told = any(name in text for name in names)
    assert told or (path / "README.md").is_file() or (path / "__init__.py").is_file(), "it has no README"


def test_import_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``import fusedrnn`` takes under 0.15 s of processor time more than ``import numpy``, once it is compiled."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path))
    run_python("import fusedrnn")
    code = """
        import time
        import numpy
        begin = time.thread_time()  # not of the process: the threads of NumPy's BLAS spin for a while after its import
        import fusedrnn
        print(time.thread_time() - begin)
    """
    seconds = median(float(run_python(code).stdout) for _ in range(5))
    assert seconds <= 0.15


def test_import_brings_in_no_optional_package() -> None:
    """What is only needed for training, plots or files is imported when it is used."""
    code = """
        import sys
        import fusedrnn
        heavy = {"torch", "matplotlib", "tqdm", "safetensors", "onnx", "h5py", "sklearn", "scipy", "pandas"}
        assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
    """
    run_python(code)


def test_every_public_name_is_there() -> None:
    """The package's folders are attributes after ``import fusedrnn`` alone, as the guide uses them."""
    code = """
        import fusedrnn as fr
        for name in fr.__all__:
            getattr(fr, name)
        assert fr.cuda.get_tf32() is False
        assert fr.models.GaussianNoise is fr.layers.GaussianNoise
    """
    run_python(code)


def test_completion_offers_what_is_public() -> None:
    """dir() of a module lists its public names, those that are imported when they are first asked for included."""
    code = """
        import fusedrnn as fr
        from importlib.util import find_spec
        needs = {"keras": "h5py", "onnx": "onnx", "sklearn": "sklearn", "torch": "torch"}
        there = [name for name, package in needs.items() if find_spec(package)]
        assert set(dir(fr)) == {*fr.__all__, *there}
        for name in ("data", "diagnostics", "functional", "init", "layers", "models", "training", *there):
            module = getattr(fr, name)
            assert dir(module) == sorted(module.__all__), name
    """
    run_python(code)
