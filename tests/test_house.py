"""The architecture, executable: who may import whom, what may be written where, and how large it may grow.

Every rule is a function from a module's name and syntax tree to a list of offences; each is also fed an offending
source below, so that none of them passes because it looks at nothing.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import esopt

ROOT = Path(__file__).resolve().parent.parent

# Imports point down or sideways. The longest prefix of a module's name counts; "" is the public face.
FLOORS = {
    "_archive": 0,
    "_blas": 0,
    "_kernels": 0,
    "_log": 0,
    "_describe": 0,
    "_inspect": 1,
    "_parts": 0,
    "_tree": 0,
    "errors": 0,
    "noise": 1,
    "_tiled": 1,
    "checkpoint": 1,
    "records": 2,
    "protocols": 2,
    "objective": 2,
    "least_squares": 2,
    "result": 2,
    "history": 2,
    "_panel": 2,
    "_progress": 2,
    "_repeated": 2,
    "_lagrangian": 2,
    "_open": 2,
    "timing": 2,
    "_told": 2,
    "maps": 2,
    "integers": 2,
    "problems": 2,
    "samplers": 3,
    "shaping": 3,
    "schedules": 3,
    "step_sizes": 3,
    "baselines": 4,
    "rules": 4,
    "tuning": 4,
    "estimators": 5,
    "strategies": 6,
    "evaluators": 6,
    "rl": 6,
    "_constrained": 7,
    "_injection": 7,
    "_late": 7,
    "_laps": 7,
    "_limits": 7,
    "optimizer": 7,
    "_defaults": 7,
    "_outcome": 7,
    "_saving": 7,
    "_signals": 7,
    "_streaming": 7,
    "_summary": 7,
    "_flight": 7,
    "_async": 7,
    "_generations": 7,
    "loop": 7,
    "comparison": 7,
    "smoothing": 7,
    "rl.outline": 8,
    "rl.training": 8,
    "rl.presets": 8,
    "rl.learning_table": 8,
    "_ascent": 8,
    "variational": 8,
    "adapters": 8,
    "": 9,
    "__main__": 9,
    "cli": 9,
    "testing": 9,
}
WINGS = {"strategies": "strategies", "evaluators": "evaluators", "rl": "evaluators"}

# Where users add parts: every class there is public, but for the records of its state.
PARTS = (
    "samplers",
    "baselines",
    "estimators",
    "rules",
    "strategies",
    "evaluators",
    "shaping",
    "schedules",
    "step_sizes",
    "tuning",
)

MODULE_LINES = 400
FUNCTION_LINES = 60

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[str, ast.Module], list[str]]


def sources() -> dict[str, Path]:
    """Name below esopt ("" for the package itself) -> file."""
    package = ROOT / "esopt"
    names = {path: ".".join(path.relative_to(package).with_suffix("").parts) for path in package.rglob("*.py")}
    return {re.sub(r"\.?__init__$", "", name): path for path, name in sorted(names.items())}


MODULES = sources()
TREES = {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in MODULES.items()}


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def prefix(name: str, table: dict[str, object]) -> str | None:
    """The longest key of the table that the dotted name starts with."""
    parts = name.split(".")
    return next((key for i in range(len(parts), 0, -1) if (key := ".".join(parts[:i])) in table), None)


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, except those in ``if TYPE_CHECKING:``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield other
                yield from executed(other)
        else:
            yield child
            yield from executed(child)


def absolute(name: str, node: ast.ImportFrom) -> str:
    """The module that ``from ... import`` names, with its dots resolved as seen from module ``name``."""
    if not node.level:
        return node.module or ""
    here = ["esopt", *filter(None, name.split("."))]
    package = here if MODULES.get(name, Path()).name == "__init__.py" else here[:-1]
    return ".".join(package[: len(package) - node.level + 1] + [node.module] * bool(node.module))


def imports(name: str, nodes: Iterator[ast.AST]) -> Iterator[tuple[str, int]]:
    """Imported modules with their line; ``from package import module`` counts as the module."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute(name, node)
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield (inner if inner.removeprefix("esopt.") in MODULES else module), node.lineno


def own_imports(name: str, tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Imports of esopt's own modules that are executed, named as in MODULES."""
    for module, line in imports(name, executed(tree)):
        if within(module, "esopt"):
            yield module.removeprefix("esopt").removeprefix("."), line


def direction(name: str, tree: ast.Module) -> list[str]:
    """Imports point down the floors or sideways, and neither wing imports the other."""
    home = prefix(name, FLOORS) if name else ""
    if home is None:
        return [f"{name} has no floor: give it one in FLOORS, after the design"]
    offences = []
    for module, line in own_imports(name, tree):
        target = prefix(module, FLOORS) if module else ""
        if target is None:
            offences.append(f"line {line}: imports {module}, which has no floor")
        elif FLOORS[target] > FLOORS[home]:
            offences.append(f"line {line}: floor {FLOORS[home]} imports {module or 'esopt'} on floor {FLOORS[target]}")
        elif {WINGS.get(home), WINGS.get(target)} == {"strategies", "evaluators"}:
            offences.append(f"line {line}: one wing imports the other, {module}")
    return offences


def numba_home(name: str, tree: ast.Module) -> list[str]:
    """Numba lives in _kernels."""
    if within(name, "_kernels"):
        return []
    found = [(module, line) for module, line in imports(name, ast.walk(tree)) if within(module, "numba", "llvmlite")]
    return [f"line {line}: imports {module} outside _kernels" for module, line in found]


def no_generators(name: str, tree: ast.Module) -> list[str]:
    """Noise comes from addresses: no generator of numpy's or of the standard library's."""
    found = [line for module, line in imports(name, ast.walk(tree)) if within(module, "numpy.random", "random")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("np.random", "numpy.random"):
            found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "numpy":
            found.extend(node.lineno for alias in node.names if alias.name == "random")
    return [f"line {line}: random numbers without an address; use esopt.noise" for line in found]


def no_pickle(name: str, tree: ast.Module) -> list[str]:
    """No pickle, and no numpy file that may contain one."""
    found = [line for module, line in imports(name, ast.walk(tree)) if within(module, "pickle", "_pickle", "shelve")]
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append(node.value.lineno)
    return [f"line {line}: pickle" for line in found]


def no_asserts(name: str, tree: ast.Module) -> list[str]:
    """Errors of users are exceptions with a message."""
    found = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    return [f"line {line}: assert; raise ValueError or TypeError" for line in found]


def no_prints(name: str, tree: ast.Module) -> list[str]:
    """The library does not print; the command line does."""
    if within(name, "cli"):
        return []
    found = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "print"]
    return [f"line {line}: print" for line in found]


def function_lines(name: str, tree: ast.Module) -> list[str]:
    """Functions are short, their docstring not counted; kernels may be long."""
    offences = []
    for node in ast.walk(tree):
        if isinstance(node, Function) and not within(name, "_kernels"):
            first = node.body[0]
            text = first.end_lineno - first.lineno + 1 if ast.get_docstring(node) is not None else 0
            lines = node.end_lineno - node.lineno + 1 - text
            if lines > FUNCTION_LINES:
                offences.append(f"line {node.lineno}: {node.name} has {lines} lines, of {FUNCTION_LINES}")
    return offences


def protocol_members() -> set[str]:
    """Names that a protocol documents once for all who implement it."""
    return {
        node.name
        for tree in TREES.values()
        for group in ast.walk(tree)
        if isinstance(group, ast.ClassDef) and any(ast.unparse(base).startswith("Protocol") for base in group.bases)
        for node in group.body
        if isinstance(node, Function)
    }


DOCUMENTED = protocol_members()


def docstrings(name: str, tree: ast.Module) -> list[str]:
    """Public modules, classes, functions and methods say what they do, in one line at least."""
    if any(part.startswith("_") for part in name.split(".")):
        return []
    offences = [] if ast.get_docstring(tree) else ["the module has no docstring"]
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_") or overloaded(node):
            continue
        if not ast.get_docstring(node):
            offences.append(f"line {node.lineno}: {node.name} has no docstring")
        for method in node.body if isinstance(node, ast.ClassDef) else []:
            public = isinstance(method, Function) and not method.name.startswith("_") and not overloaded(method)
            if public and method.name not in DOCUMENTED and not ast.get_docstring(method):
                offences.append(f"line {method.lineno}: {node.name}.{method.name} has no docstring")
    return offences


def overloaded(node: ast.AST) -> bool:
    return any(ast.unparse(d).endswith(("overload", ".setter")) for d in getattr(node, "decorator_list", []))


def unexported(name: str, tree: ast.Module) -> list[str]:
    """Every part that users may want is in the public face."""
    if not within(name, *PARTS) or any(part.startswith("_") for part in name.split(".")):
        return []
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    return [
        f"line {node.lineno}: add {node.name!r}: {name!r} to _HOMES in esopt/__init__.py, or underscore it"
        for node in classes
        if not node.name.endswith("State") and esopt._HOMES.get(node.name) != name
    ]


def cycles(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


MACHINE = re.compile(r"(?<![\w.])/(?:work|root|tmp/w)(?![\w.-])")
HOSTS = re.compile(r"pypi\.(?:org|python)|pythonhosted\.|npmjs\.|crates\.io/|deb\.debian|anaconda\.org")
WRONG_INSTALL = re.compile(r"pip3?\s+install\s+(?:-\S+\s+)*[\"']?esopt\b")


def words(text: str) -> list[str]:
    """Lines that name a place of one machine, the host of a package registry, or somebody else's package."""
    rules = {"a machine path": MACHINE, "a registry host": HOSTS, "the distribution is pyesopt": WRONG_INSTALL}
    return [
        f"line {number}: {what}: {line.strip()[:80]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in rules.items()
        if pattern.search(line)
    ]


def files() -> list[Path]:
    """Every text file that is in the repository, or will be with the next commit."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


RULES: list[Rule] = [
    direction,
    numba_home,
    no_generators,
    no_pickle,
    no_asserts,
    no_prints,
    function_lines,
    docstrings,
    unexported,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_keeps_the_rule(rule: Rule):
    offences = [f"esopt/{name.replace('.', '/')}: {what}" for name, tree in TREES.items() for what in rule(name, tree)]
    assert not offences, "\n".join([rule.__doc__, *dict.fromkeys(offences)])


def test_no_import_cycles():
    graph = {name: {module for module, _ in own_imports(name, tree)} for name, tree in TREES.items()}
    assert cycles(graph) == []


def test_modules_are_short():
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: count for name, count in lines.items() if count > MODULE_LINES} == {}


def test_public_face_is_sorted():
    assert list(esopt._HOMES) == sorted(esopt._HOMES) == esopt.__all__
    assert set(esopt.__all__) <= set(dir(esopt))


def test_public_face_tells_type_checkers_the_same():
    block = next(node for node in TREES[""].body if isinstance(node, ast.If))
    told = {alias.asname: node.module for node in block.body for alias in node.names if alias.name == alias.asname}
    assert told == esopt._HOMES


def test_no_public_name_is_hidden_by_a_module():
    assert set(esopt.__all__).isdisjoint(MODULES)


@pytest.mark.parametrize("name", esopt.__all__)
def test_public_name_resolves(name: str):
    found, home = getattr(esopt, name), f"esopt.{esopt._HOMES[name]}"
    assert found is getattr(importlib.import_module(home), name)
    assert found.__module__ == home


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Adm'"):
        esopt.Adm


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_files_name_no_machine_and_no_registry():
    offences = []
    for path in files():
        try:
            offences += [f"{path.relative_to(ROOT)}: {what}" for what in words(path.read_text("utf-8"))]
        except UnicodeDecodeError:
            continue
    assert not offences, "\n".join(offences)


OFFENDERS = [
    (direction, "samplers.new", "from ..rules.adam import Adam"),
    (direction, "samplers.new", "def f():\n    import esopt.optimizer"),
    (direction, "strategies.new", "from ..evaluators import serial"),
    (direction, "rl.new", "from esopt.strategies.named import ars"),
    (direction, "rl.new", "from .training import train"),
    (direction, "_kernels.new", "from ..errors import EsoptError\nfrom .. import noise"),
    (direction, "loop", "from esopt import Adam"),
    (direction, "cellar", ""),
    (direction, "records", "from .cellar import wine"),
    (numba_home, "rules.new", "from numba import njit"),
    (numba_home, "rules.new", "import numba.core as core"),
    (no_generators, "rules.new", "import numpy as np\nx = np.random.default_rng(0)"),
    (no_generators, "rules.new", "from numpy import random"),
    (no_generators, "rules.new", "from numpy.random import Generator"),
    (no_generators, "rules.new", "import random"),
    (no_pickle, "checkpoint", "def f():\n    import pickle"),
    (no_pickle, "checkpoint", "np.load(path, allow_pickle=True)"),
    (no_asserts, "rules.new", "assert n > 0, 'n'"),
    (no_prints, "loop", "print('generation')"),
    (function_lines, "loop", "def f():\n" + "    x = 1\n" * FUNCTION_LINES),
    (docstrings, "loop", "'''Doc.'''\ndef f():\n    return 1"),
    (docstrings, "loop", "'''Doc.'''\nclass A:\n    '''Doc.'''\n    def f(self):\n        return 1"),
    (docstrings, "loop", "x = 1"),
    (unexported, "rules.new", "class Sideways:\n    pass"),
]


@pytest.mark.parametrize(("rule", "name", "source"), OFFENDERS)
def test_rule_can_fail(rule: Rule, name: str, source: str):
    assert rule(name, ast.parse(source))


INNOCENTS = [
    (direction, "samplers.new", "from ..noise import Key\nfrom .gaussian import Gaussian"),
    (direction, "samplers.new", "if TYPE_CHECKING:\n    from ..rules.adam import Adam"),
    (direction, "rl.training", "from ..loop import minimize\nfrom .policies import Linear"),
    (direction, "cli", "import esopt\nfrom esopt.rl.training import train"),
    (numba_home, "_kernels.new", "from numba import njit"),
    (no_generators, "rl.new", "values = env.random(1)"),
    (no_pickle, "checkpoint", "np.load(path, allow_pickle=False)"),
    (no_prints, "cli", "print('generation')"),
    (function_lines, "loop", "def f():\n    '''" + "\n" * FUNCTION_LINES + "    Doc.'''\n    return 1"),
    (function_lines, "_kernels.new", "def f():\n" + "    x = 1\n" * FUNCTION_LINES),
    (docstrings, "rules.new", "'''Doc.'''\nclass A:\n    '''Doc.'''\n    def step(self):\n        return 1"),
    (unexported, "rules.adam", "class Adam:\n    pass\nclass AdamState:\n    pass\nclass _Helper:\n    pass"),
]


@pytest.mark.parametrize(("rule", "name", "source"), INNOCENTS)
def test_rule_can_pass(rule: Rule, name: str, source: str):
    assert rule(name, ast.parse(source)) == []


def test_cycles_are_found():
    assert set(cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}
    assert cycles({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.parametrize(
    "line",
    [
        "cd /" + "work/main",
        "path = '/" + "root'",
        "/" + "tmp/w/run.npz",
        "https://" + "pypi." + "org/simple",
        "pip " + "install esopt",
        "python -m pip " + 'install -U "esopt[cli]"',
    ],
)
def test_words_are_found(line: str):
    assert words(f"first\n{line}\nlast")


@pytest.mark.parametrize("line", ["frame/" + "work/x", "/" + "rootless", "pip " + "install pyesopt", "sum/" + "work"])
def test_words_are_let_pass(line: str):
    assert words(line) == []
