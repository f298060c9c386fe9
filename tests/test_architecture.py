"""Who may import whom, and what may be called nowhere."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.tracked import ROOT, files

FLOORS = {  # a file imports those of its own folder, and of lower floors, wherever it does so
    "bench": 9,
    "tools": 8,
    "train": 7,
    "evaluate": 7,
    "runtime": 6,
    "storage": 5,
    "agents": 4,
    "envs": 4,
    "configs": 3,
    "data": 3,
    "audit": 2,
    "networks": 1,
    "policies": 1,
    "common": 0,
}
OUTSIDE = ("tools", "bench")
DOORS = ("train", "evaluate")
PACKAGES = tuple(name for name in FLOORS if name not in (*OUTSIDE, *DOORS))
GALLERY = ("tools/verify.py", "tools/gallery/")
FILES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.py", *(f"{package}/**/*.py" for package in (*PACKAGES, *OUTSIDE)))
    for path in files(pattern)
)
MODULES = {file[:-3].removesuffix("/__init__").replace("/", "."): file for file in FILES}
ONLY_IN = {
    "gymnasium": {
        *("envs/make.py", "envs/checked.py", "runtime/deploy/film.py", "envs/spaces.py"),
        *("envs/workers.py", "envs/native.py", "envs/masks.py"),
    },
    "tensorboard": {"runtime/curves.py", "runtime/logger.py"},
    "torch.utils.tensorboard": {"runtime/logger.py"},
    "PIL": {"runtime/logger.py", "audit/picture.py"},
    "matplotlib": set(),
    "moviepy": {"runtime/deploy/film.py"},
    "hydra": {"configs/compose.py", "configs/files.py", "configs/sweep.py"},
    "omegaconf": {"configs/files.py", "configs/sweep.py"},
}
UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}
UNSAFE_NAMES = {"eval", "exec", "compile"}
UNSAFE_CALLS = {
    *("torch.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "joblib.load"),
    *("os.system", "os.popen", "hydra.utils.instantiate", "hydra.utils.call", "utils.instantiate"),
    *("instantiate", "builtins.eval", "builtins.exec"),
}


@dataclass(frozen=True)
class Import:
    """One imported module, or a name taken from it."""

    name: str
    line: int
    in_function: bool

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    def is_of(self, module: str) -> bool:
        return self.name == module or self.name.startswith(f"{module}.")


@cache
def imports(file: str) -> list[Import]:
    """Every import of a file except those for the type checker."""
    return list(found(ast.parse((ROOT / file).read_text()), file, False))


def found(node: ast.AST, file: str, in_function: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, node.lineno, in_function)
    elif isinstance(node, ast.ImportFrom):
        package = ".".join(Path(file).parts[: len(Path(file).parts) - node.level])
        module = ".".join(filter(None, [package if node.level else "", node.module]))
        for alias in node.names:
            yield Import(f"{module}.{alias.name}", node.lineno, in_function)
    elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for otherwise in node.orelse:
            yield from found(otherwise, file, in_function)
    else:
        inside = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from found(child, file, inside)


def package_of(file: str) -> str:
    return file.partition("/")[0]


def test_the_walk_sees_what_it_should() -> None:
    source = (
        "import a.b\nfrom c import d\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import hidden\nelse:\n    import shown\n"
        "def f():\n    import inner\nclass C:\n    import outer\n"
        "try:\n    from .sibling import x\nexcept ImportError:\n    pass\n"
    )
    seen = {i.name: i.in_function for i in found(ast.parse(source), "package/module.py", False)}
    assert seen.pop("typing.TYPE_CHECKING") is False
    assert seen == {
        "a.b": False,
        "c.d": False,
        "shown": False,
        "inner": True,
        "outer": False,
        "package.sibling.x": False,
    }


def test_every_package_is_there() -> None:
    assert {package_of(file) for file in FILES} >= {*PACKAGES, "train.py", "evaluate.py"}


@pytest.mark.parametrize("file", FILES)
def test_nothing_imports_upwards(file: str) -> None:
    own = package_of(file).removesuffix(".py")
    for found_import in imports(file):
        other = found_import.top
        if other in FLOORS and other != own:
            assert FLOORS[other] < FLOORS[own], f"{file}:{found_import.line} {found_import.name}"


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """The sets of modules that can reach each other."""
    reached = {module: {module} for module in edges}
    for _ in edges:
        before = sum(map(len, reached.values()))
        for others in reached.values():
            others.update(*(reached[far] for near in [*others] for far in edges[near]))
        if sum(map(len, reached.values())) == before:
            break
    found = [{b for b in reached[a] if a in reached[b]} for a in edges]
    return [circle for circle in found if len(circle) > 1]


def test_no_module_imports_itself_by_way_of_others() -> None:
    edges: dict[str, set[str]] = {}
    for module, file in MODULES.items():
        names = {name for i in imports(file) for name in (i.name, i.name.rpartition(".")[0])}
        edges[module] = {name for name in names if name in MODULES and name != module}
    assert len(edges["train"]) > 3
    assert circles(edges) == []


def test_a_circle_is_seen() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set[str]()}
    assert {"a", "b", "c"} in circles(edges)
    assert circles({**edges, "c": {"d"}}) == []


@pytest.mark.parametrize("file", FILES)
def test_nobody_imports_a_door(file: str) -> None:
    for found_import in imports(file):
        assert found_import.top not in DOORS, f"{file}:{found_import.line}"


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith(GALLERY)])
def test_the_gallery_needs_only_the_core_dependencies(file: str) -> None:
    core = {"torch", "mpmath", "numpy", "matplotlib"}  # mpmath comes with torch
    allowed = {*sys.stdlib_module_names, *PACKAGES, "tools", *core}
    for found_import in imports(file):
        assert found_import.top in allowed, f"{file}:{found_import.line} {found_import.name}"


@pytest.mark.parametrize("file", [file for file in FILES if package_of(file) == "audit"])
def test_the_audit_can_be_copied_alone(file: str) -> None:
    allowed = {*sys.stdlib_module_names, "audit", "torch", "numpy", "PIL"}
    for found_import in imports(file):
        assert found_import.top in allowed, f"{file}:{found_import.line} {found_import.name}"


@pytest.mark.parametrize("module", ONLY_IN)
def test_libraries_stay_where_they_belong(module: str) -> None:
    for file in FILES:
        if package_of(file) in OUTSIDE or file in ONLY_IN[module]:
            continue
        for found_import in imports(file):
            assert not found_import.is_of(module), f"{file}:{found_import.line}"


@pytest.mark.parametrize("file", [file for file in FILES if package_of(file) == "configs"])
def test_the_schema_is_free_of_torch(file: str) -> None:
    for found_import in imports(file):
        assert found_import.in_function or found_import.top != "torch"


def test_composing_and_help_load_neither_torch_nor_hydra() -> None:
    code = (
        "import sys, runtime.launch.door, configs.compose, configs.help;"
        "print(sorted({'torch', 'hydra', 'omegaconf', 'gymnasium', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def unsafe(source: str, file: str) -> Iterator[str]:
    """Where a file could execute what it reads, under whatever name."""
    tree = ast.parse(source)
    for found_import in found(tree, file, False):
        if found_import.top in UNSAFE_MODULES or found_import.name in UNSAFE_CALLS:
            yield f"{file}:{found_import.line} {found_import.name}"
    known = {
        alias.asname: alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.asname
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, dot, rest = ast.unparse(node.func).partition(".")
        called = f"{known.get(first, first)}{dot}{rest}"
        risky = any(
            keyword.arg in ("shell", "allow_pickle") and ast.unparse(keyword.value) != "False"
            for keyword in node.keywords
        )
        if risky or called in UNSAFE_NAMES | UNSAFE_CALLS:
            yield f"{file}:{node.lineno} {called}"


@pytest.mark.parametrize("file", FILES)
def test_nothing_executes_data(file: str) -> None:
    assert list(unsafe((ROOT / file).read_text(), file)) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from _pickle import loads",
        "import torch\ntorch.load('x')",
        "import torch as t\nt.load('x', weights_only=False)",
        "from torch import load",
        "eval('1')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import hydra.utils as u\nu.instantiate({})",
        "import yaml\nyaml.load('x', Loader=yaml.Loader)",
    ],
)
def test_what_would_execute_data_is_seen(source: str) -> None:
    assert len(list(unsafe(source, "runtime/planted.py"))) == 1
