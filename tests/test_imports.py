"""The levels of docs/design.md, section 2: who may import whom, read from the sources.

Imports inside functions count too; imports for annotations alone (`if TYPE_CHECKING:`) do not.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("nas", "compress", "search_spaces")
FOLDERS = (*PACKAGES, "tests", "benchmarks")
MOST_LINES = 320

VALUES = ("nas.errors", "nas.numbers", "nas.architecture", "nas.plan", "nas.budget", "nas.trial", "nas.seeding", "nas.accuracy")
FILES = (
    "nas.failures",
    "nas.files",
    "nas.fields",
    "nas.kinds",
    "nas.records",
    "nas.rundir",
    "nas.weights",
    "nas.torch_seeding",
)
# a unit imports units of lower levels, and of its own level as long as no two import each other, directly or not
LEVELS = (
    VALUES,
    (
        *FILES,
        "nas.apart",
        "nas.onnx_values",
        "nas.onnx_io",
        "nas.data",
        "nas.cost",
        "nas.runtimes",
        "nas.latency",
        "nas.supernet",
    ),
    ("nas.training",),
    ("nas.evaluation", "nas.search", "nas.report"),
    ("nas.cli",),
    ("nas.__main__",),
)
LEVEL = {unit: level for level, units in enumerate(LEVELS) for unit in units}
OUTSIDE = {
    "search_spaces": (*VALUES, "nas.supernet", "nas.cost"),
    "compress": (*VALUES, *FILES, "nas.onnx_values", "nas.onnx_io", "nas.cost", "nas.runtimes", "nas.data", "nas.training"),
}
WITHOUT_TORCH = (
    *VALUES,
    "nas.failures",
    "nas.files",
    "nas.fields",
    "nas.kinds",
    "nas.records",
    "nas.rundir",
    "nas.search",
    "nas.report",
)
ONE_FILE_EACH = (
    *("fvcore", "optuna", "sklearn", "onnx", "onnxruntime", "onnxscript", "matplotlib", "pandas"),
    *("scipy.stats", "scipy.optimize"),
    *("torchvision.datasets", "safetensors", "torch_pruning", "torchao", "lightning", "lightning_fabric"),
    *("nni", "timm", "ray", "openvino", "executorch", "tensorboard", "torch.utils.tensorboard", "optuna_dashboard"),
)


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(tree: ast.AST, inside_functions: bool) -> Iterator[ast.AST]:
    """All nodes that run, those for annotations aside."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and is_type_checking(node.test):
            for other in node.orelse:
                yield other
                yield from statements(other, inside_functions)
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield node
            yield from statements(node, inside_functions)


def imported(source: str, module: str, is_package: bool = False, inside_functions: bool = True) -> set[str]:
    """Dotted names that `source` imports; `from a import b` gives a.b, for b may be a module."""
    found = set()
    for node in statements(ast.parse(source), inside_functions):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            origin = parts[: len(parts) - node.level + is_package] if node.level else []
            origin += node.module.split(".") if node.module else []
            found |= {".".join([*origin, alias.name]) for alias in node.names}
    return found


@cache
def imports_of(path: Path, inside_functions: bool = True) -> set[str]:
    return imported(path.read_text(), module_name(path), path.name == "__init__.py", inside_functions)


def is_under(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def unit_of(name: str) -> str | None:
    """The part of the house that a dotted name belongs to: nas.trial, nas.cost, compress; None for third parties."""
    parts = name.split(".")
    if parts[0] not in PACKAGES:
        return None
    return ".".join(parts[:2]) if parts[0] == "nas" else parts[0]


# -- the reader itself


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch", {"torch"}),
        ("import torch.nn as nn, numpy", {"torch.nn", "numpy"}),
        ("from nas import trial, budget", {"nas.trial", "nas.budget"}),
        ("from nas.trial import Trial", {"nas.trial.Trial"}),
        ("def f():\n    if x:\n        import torch", {"torch"}),
        ("class A:\n    async def f(self):\n        from a.b import c", {"a.b.c"}),
        ("try:\n    import a\nexcept ImportError:\n    import b", {"a", "b"}),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    import b\nimport c", {"b", "c"}),
        ("def f():\n    if typing.TYPE_CHECKING:\n        import torch", set()),
        ("if not TYPE_CHECKING:\n    import torch", {"torch"}),
        ("from . import a", {"nas.cost.a"}),
        ("from .a import b", {"nas.cost.a.b"}),
        ("from .. import trial", {"nas.trial"}),
        ("from ..trial import Trial", {"nas.trial.Trial"}),
        ("'import torch'  # import torch", set()),
    ],
)
def test_reader_finds_what_is_imported(source, expected):
    assert imported(source, "nas.cost.table") == expected


def test_reader_knows_packages_and_functions():
    assert imported("from . import a\nfrom .. import b", "nas.cost", is_package=True) == {"nas.cost.a", "nas.b"}
    source = "import a\ndef f():\n    import b\nclass C:\n    import c\n    def g(self):\n        import d\nif x:\n    import e"
    assert imported(source, "nas.a", inside_functions=False) == {"a", "c", "e"}


def test_reader_sees_this_house():
    assert {module_name(p) for p in sources("nas")} >= {"nas", *VALUES, "nas.rundir"}
    assert is_under("nas.errors.CorruptRun", "nas.errors")
    assert any(is_under(name, "nas.errors") for name in imports_of(ROOT / "nas/rundir.py"))
    assert not any(is_under(name, "torch") for name in imports_of(ROOT / "nas/architecture.py"))


# -- the levels


def allowed(importer: str, unit: str) -> bool:
    """Tell whether a unit may import another one."""
    if importer == unit or importer in ("nas.cli", "nas.__main__"):
        return True
    if importer in OUTSIDE:
        return unit in OUTSIDE[importer]
    return unit in LEVEL and LEVEL[unit] <= LEVEL[importer] and unit != "nas.cli"


@pytest.mark.parametrize("path", sources(*PACKAGES), ids=module_name)
def test_imports_go_one_way(path):
    importer = unit_of(module_name(path))
    if importer == "nas":
        return  # see test_nas_re_exports_nothing
    assert importer in LEVEL or importer in OUTSIDE, f"{importer} has no level; give it one here and in docs/design.md"
    wrong = {name for name in imports_of(path) if (unit := unit_of(name)) and unit != "nas" and not allowed(importer, unit)}
    assert not wrong, f"{importer} may not import {', '.join(sorted(wrong))}"


def test_rules_forbid_what_they_are_for():
    assert not allowed("nas.trial", "nas.rundir")
    assert not allowed("nas.cost", "nas.training")
    assert not allowed("nas.training", "nas.evaluation")
    assert not allowed("nas.search", "nas.cli")
    assert not allowed("nas.evaluation", "compress")
    assert not allowed("nas.data", "search_spaces")
    assert not allowed("compress", "search_spaces")
    assert not allowed("compress", "nas.cli")
    assert not allowed("search_spaces", "nas.training")
    assert allowed("nas.cli", "compress") and allowed("nas.training", "nas.rundir")


def test_no_two_units_import_each_other():
    graph: dict[str, set[str]] = {}
    for path in sources(*PACKAGES):
        unit = unit_of(module_name(path))
        graph.setdefault(unit, set()).update(
            {u for name in imports_of(path) if (u := unit_of(name)) and u not in (unit, "nas")}
        )
    done: set[str] = set()
    for _ in range(len(graph) + 1):  # peel off the units all of whose imports are done
        done |= {unit for unit, needs in graph.items() if needs & set(graph) <= done}
    assert set(graph) == done, f"these import each other: {sorted(set(graph) - done)}"


def test_nas_re_exports_nothing():
    body = ast.parse((ROOT / "nas/__init__.py").read_text()).body
    assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


# -- third parties


def reached(path: Path) -> set[Path]:
    """The files of ours that importing `path` runs: those of its imports and of all packages around them."""
    found, new = set(), {path}
    while new:
        found |= new
        names = {name for p in new for name in imports_of(p, inside_functions=False)} | {module_name(p) for p in new}
        prefixes = {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}
        files = {ROOT / p.replace(".", "/") / "__init__.py" for p in prefixes} | {
            ROOT / (p.replace(".", "/") + ".py") for p in prefixes
        }
        new = {p for p in files if p.is_file()} - found
    return found


@pytest.mark.parametrize("unit", WITHOUT_TORCH)
def test_light_units_do_not_load_torch(unit):
    for path in sources("nas"):
        if is_under(module_name(path), unit):
            assert not any(is_under(name, "torch") for name in imports_of(path)), f"{path} imports torch"
            for other in reached(path):
                heavy = any(is_under(name, "torch") for name in imports_of(other, inside_functions=False))
                assert not heavy, f"importing {path} loads torch through {other}"


def test_values_and_run_directories_start_without_torch():
    code = f"import sys, {', '.join((*VALUES, 'nas.rundir'))}; assert not {{'torch', 'pandas', 'rich'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("package", ONE_FILE_EACH)
def test_heavy_and_optional_packages_have_one_file(package):
    users = [
        str(p.relative_to(ROOT))
        for p in sources(*PACKAGES)
        if p != ROOT / "compress/predict.py"  # a copy of which runs where there is nothing of ours
        and any(is_under(name, package) for name in imports_of(p))
    ]
    assert len(users) <= 1, f"{package} is imported in {', '.join(users)}"


# -- sizes


@pytest.mark.parametrize("folder", FOLDERS)
def test_files_are_short(folder):
    long = {str(p.relative_to(ROOT)): n for p in sources(folder) if (n := len(p.read_text().splitlines())) > MOST_LINES}
    assert not long
