"""Which way imports may point. The floors are data; one function walks the syntax trees."""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import circuit_toolkit

PACKAGE = Path(circuit_toolkit.__file__).parent

# From the ground up; a module stands where its longest dotted prefix stands, and imports nothing
# from above. `__init__` is the file of that name alone.
FLOORS = [
    # The grammar is plain text, so tasks read it; importing it runs demo/__init__.py.
    {"__init__", "errors", "sites", "demo.__init__", "demo.grammar"},
    {"models", "dictionaries", "regression"},
    {"activations", "capture", "estimate", "reader", "store"},
    {"circuits", "interpret", "interventions", "tasks"},
    {"evaluation", "demo"},  # the bundled model is trained on the tasks and measured by them
    {"views"},
    {"panels", "cli", "__main__"},
]
# Imports from above, allowed inside a function: (module, floor it reaches) -> reason.
DOORS = {
    ("circuits.circuit", "views"): "Circuit.to_html() is where a reader looks for the page",
    ("circuits.circuit", "panels"): "Circuit.show() is where a reader looks for the graph",
    ("circuits.head_codes.fit", "views"): "HeadCodesFit.figure() is the map of its scores",
    ("evaluation.head_scores", "views"): "HeadComparison.figure() is its table as bars",
    ("interpret.feature_card", "views"): "a FeatureCard shows itself in a notebook",
}
# These import nothing else of the package.
ONLY = {"regression": {"regression", "errors"}, "demo.grammar": {"demo", "errors"}}
# Packages of others that only these modules import: when nnsight changes, these files change.
EDGES = {"nnsight": {"models", "capture", "interventions"}}
# What costs seconds or megabytes is imported by the function that needs it.
HEAVY = ["sae_lens", "nnsight", "transformers", "sklearn", "pandas"]
HEAVY += ["pyvis", "matplotlib", "plotly", "ipywidgets"]


def is_in(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def floor(module: str) -> int | None:
    for end in range(module.count(".") + 1, 0, -1):
        prefix = ".".join(module.split(".")[:end])
        for height, places in enumerate(FLOORS):
            if prefix in places:
                return height
    return None


def imports(tree: ast.AST, deferred: bool = False) -> Iterator[tuple[ast.stmt, bool]]:
    """Import statements, and whether they wait for a call or are read by type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, deferred
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports(ast.Module(node.body, []), True)
            yield from imports(ast.Module(node.orelse, []), deferred)
        else:
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from imports(node, deferred or is_function)


def targets(node: ast.stmt, file: str, modules: set[str]) -> Iterator[str]:
    """Dotted names that a statement imports; `circuit_toolkit.x` is written `.x`."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    else:
        assert isinstance(node, ast.ImportFrom)
        base = node.module or ""
        if node.level:
            folder = ["circuit_toolkit", *file.split(".")][: -node.level]
            base = ".".join([*folder, *([base] if base else [])])
        inside = {f"{base}.{alias.name}" for alias in node.names}
        known = {f"circuit_toolkit.{module}" for module in modules}
        names = [name if name in known or name.endswith("__version__") else base for name in inside]
    for name in sorted(set(names)):
        yield name.removeprefix("circuit_toolkit") if is_in(name, {"circuit_toolkit"}) else name


def faults(file: str, target: str, deferred: bool) -> Iterator[str]:
    """What is wrong with a file's import of another module of the package."""
    if target == "__version__":
        return
    for place, allowed in ONLY.items():
        if is_in(file, {place}) and not is_in(target, allowed):
            yield f"{target}; {place} may import only {sorted(allowed)}"
    stands, reached = floor(file), floor(f"{target}.__init__")  # a package runs its __init__
    if stands is None or reached is None:
        yield f"{target}, and one of the two stands on no floor: add it to FLOORS"
    elif reached > stands:
        door = file == "__init__" or any((file, place) in DOORS for place in FLOORS[reached])
        if not (deferred and door):
            yield f"{target} from a higher floor" + (", and no door is listed" if deferred else "")


def violations(package: Path) -> list[str]:
    """Say, a line each, what breaks the rules above in a package called circuit_toolkit."""
    files = {}  # dotted name of a file, with __init__ -> path
    for path in sorted(package.rglob("*.py")):
        files[".".join(path.relative_to(package).with_suffix("").parts)] = path
    modules = {name.removesuffix(".__init__") for name in files}
    found = []
    for file, path in files.items():
        if floor(file) is None:
            found.append(f"{file} stands on no floor: add it to FLOORS")
            continue
        for node, deferred in imports(ast.parse(path.read_text(encoding="utf-8"))):
            for target in targets(node, file, modules):
                where = f"{file}:{node.lineno} imports "
                if target.startswith("."):
                    found += [where + fault for fault in faults(file, target[1:], deferred)]
                elif not target:
                    found.append(where + "the package itself: import from the defining module")
                elif not is_in(file, EDGES.get(outside := target.partition(".")[0], {file})):
                    found.append(where + f"{target}, which is for {sorted(EDGES[outside])}")
    return found


def write_tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return folder


def test_imports_point_down():
    assert not (found := violations(PACKAGE)), "\n".join(found)


def test_the_checker_sees_each_kind_of_violation(tmp_path):
    package = write_tree(
        tmp_path,
        {
            "__init__": "from circuit_toolkit.panels import x",
            "models.__init__": "",
            "models.model": "import nnsight.intervention",
            "views.__init__": "",
            "regression.lasso": "def f():\n    import circuit_toolkit.models.model",
            "activations": "from .tasks import Task",
            "capture": "class A:\n    def f(self):\n        from circuit_toolkit import views",
            "circuits.circuit": "from circuit_toolkit.views.page import page",
            "circuits.other": "if TYPE_CHECKING:\n    from ..panels.graph import Graph",
            "tasks.__init__": "from circuit_toolkit import load_model",
            "evaluation.curves": "try:\n    from nnsight import save\nfinally:\n    pass",
            "demo.grammar.words": "from circuit_toolkit.sites import Site",
            "oddments": "",
        },
    )
    assert violations(package) == [
        "__init__:1 imports panels from a higher floor",
        "activations:1 imports tasks from a higher floor",
        "capture:3 imports views from a higher floor, and no door is listed",
        "circuits.circuit:1 imports views.page from a higher floor",
        "circuits.other:2 imports panels.graph from a higher floor, and no door is listed",
        "demo.grammar.words:1 imports sites; demo.grammar may import only ['demo', 'errors']",
        "evaluation.curves:2 imports nnsight, which is for ['capture', 'interventions', 'models']",
        "oddments stands on no floor: add it to FLOORS",
        "regression.lasso:2 imports models.model; "
        "regression may import only ['errors', 'regression']",
        "tasks.__init__:1 imports the package itself: import from the defining module",
    ]


def test_the_checker_allows_what_the_design_allows(tmp_path):
    package = write_tree(
        tmp_path,
        {
            "__init__": "if TYPE_CHECKING:\n    from circuit_toolkit.panels import explore",
            "capture": "import nnsight\nfrom circuit_toolkit.models.model import Model",
            "circuits.circuit": "def show(self):\n    from circuit_toolkit.panels.graph import G",
            "demo.__init__": "",
            "demo.grammar.__init__": "from circuit_toolkit.demo.grammar.words import WORDS",
            "demo.train": "from circuit_toolkit.tasks import ioi",
            "tasks.__init__": "from circuit_toolkit.demo.grammar import Grammar\nfrom . import ioi",
            "tasks.ioi": "from .. import errors\nfrom circuit_toolkit.sites import Site",
            "errors": "",
            "cli": "import nnsightful\nfrom circuit_toolkit import __version__, demo",
        },
    )
    assert violations(package) == []


def test_every_door_is_used_and_has_a_reason():
    for (module, place), reason in DOORS.items():
        assert reason
        path = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
        assert f"circuit_toolkit.{place}" in path.read_text(encoding="utf-8"), (module, place)


def test_importing_the_package_is_cheap():
    code = f"""
        import sys, time, torch
        before, start = set(sys.modules), time.perf_counter()
        import circuit_toolkit
        seconds = time.perf_counter() - start
        assert seconds < 0.3, f"import circuit_toolkit took {{seconds:.2f}} s beyond torch"
        loaded = set({HEAVY}) & (set(sys.modules) - before)
        assert not loaded, f"import circuit_toolkit loads {{sorted(loaded)}}"
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
