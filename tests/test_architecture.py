"""Which way imports may point. The floors are data; one function walks the syntax trees."""

import ast
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import circuit_toolkit
from tests.circuit.made_up import made_up_circuit

PACKAGE = Path(circuit_toolkit.__file__).parent

# From the ground up. A room imports from rooms on lower floors and from itself; never from above,
# never from its own floor, not inside a function and not for type checkers. So there is no circle
# between rooms. The front door, `__init__`, stands on top and may import everything.
FLOORS = [
    {"errors", "texts"},
    {"extras"},
    {"display", "lazy", "arguments", "cluster", "progress"},
    {"files", "sites", "demo", "regression"},
    {"models"},
    {"dictionaries", "tasks", "circuit"},
    {"activations", "patching"},
    {"interventions", "attribution", "head_codes", "features"},
    {"weight_lens", "circuit_lens", "circuit_lasso"},
    {"evidence"},
    {"generalisation", "benchmark"},
    {"views"},
    {"panels", "cli"},
]
# Packages of others that only these rooms import: when nnsight changes, these files change.
EDGES = {"nnsight": {"models", "interventions"}}
# What costs seconds or megabytes is imported by the function that needs it.
HEAVY = ["torch", "sae_lens", "nnsight", "transformers", "sklearn", "pandas"]
HEAVY += ["pyvis", "matplotlib", "plotly", "ipywidgets"]


def is_in(module: str, places: set[str]) -> bool:
    return any(module == place or module.startswith(place + ".") for place in places)


def floor(room: str) -> int | None:
    return next((height for height, rooms in enumerate(FLOORS) if room in rooms), None)


def imports(tree: ast.AST) -> Iterator[ast.stmt]:
    """Every import in the tree: on top, inside functions, for type checkers."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


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


def fault(room: str, target: str) -> str | None:
    """What is wrong with a room's import of another module of the package."""
    other = target.partition(".")[0]
    if other in ("__version__", room):
        return None
    stands, reached = floor(room), floor(other)
    if stands is None or reached is None:
        return f"{target}, and one of the two stands on no floor: add it to FLOORS"
    if reached >= stands:
        return f"{target} from {'its own' if reached == stands else 'a higher'} floor"
    return None


def violations(package: Path) -> list[str]:
    """What breaks the rules above in a package called circuit_toolkit, a line each."""
    files = {}  # dotted name of a file, with __init__ -> path
    for path in sorted(package.rglob("*.py")):
        files[".".join(path.relative_to(package).with_suffix("").parts)] = path
    modules = {name.removesuffix(".__init__") for name in files}
    found = []
    for file, path in files.items():
        room = file.partition(".")[0]
        if file == "__init__":
            continue
        if floor(room) is None:
            found.append(f"{file} stands on no floor: add it to FLOORS")
            continue
        for node in imports(ast.parse(path.read_text(encoding="utf-8"))):
            for target in targets(node, file, modules):
                where = f"{file}:{node.lineno} imports "
                if target.startswith("."):
                    if wrong := fault(room, target[1:]):
                        found.append(where + wrong)
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
            "activations.store": "from ..tasks import Task\nfrom .. import views",
            "dictionaries.load": "class A:\n    def f(self):\n        import circuit_toolkit.views",
            "circuit.circuit": "from circuit_toolkit.views.page import page",
            "circuit.other": "if TYPE_CHECKING:\n    from ..panels.graph import Graph",
            "tasks.__init__": "from circuit_toolkit import load_model",
            "evidence.curves": "try:\n    from nnsight import save\nfinally:\n    pass",
            "demo.grammar.words": "from circuit_toolkit.sites import Site",
            "oddments": "",
        },
    )
    assert violations(package) == [
        "activations.store:2 imports views from a higher floor",
        "circuit.circuit:1 imports views.page from a higher floor",
        "circuit.other:2 imports panels.graph from a higher floor",
        "demo.grammar.words:1 imports sites from its own floor",
        "dictionaries.load:3 imports views from a higher floor",
        "evidence.curves:2 imports nnsight, which is for ['interventions', 'models']",
        "oddments stands on no floor: add it to FLOORS",
        "regression.lasso:2 imports models.model from a higher floor",
        "tasks.__init__:1 imports the package itself: import from the defining module",
    ]


def test_the_checker_allows_what_the_design_allows(tmp_path):
    package = write_tree(
        tmp_path,
        {
            "__init__": "from circuit_toolkit.panels import explore",
            "interventions.runs": "import nnsight\nfrom circuit_toolkit.models.model import Model",
            "circuit.circuit": "from circuit_toolkit.circuit.tables import NODE",
            "circuit.tables": "from circuit_toolkit.circuit.circuit import Circuit",
            "tasks.__init__": "from circuit_toolkit.demo.grammar import Grammar\nfrom . import ioi",
            "tasks.ioi": "from .. import errors\nfrom circuit_toolkit.sites import Site",
            "errors": "",
            "demo.__init__": "",
            "cli": "import nnsightful\nfrom circuit_toolkit import __version__, demo",
        },
    )
    assert violations(package) == []


def test_every_room_on_a_floor_is_there():
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set().union(*FLOORS) == rooms - {"__init__", "__pycache__", "py"}


def test_a_saved_circuit_is_shown_without_torch(tmp_path):
    made_up_circuit().save(tmp_path / "circuit.json")
    code = """
        import sys
        import circuit_toolkit as ct
        page = ct.Circuit.load(sys.argv[1]).to_html(sys.argv[2])
        assert page.stat().st_size > 100_000
        loaded = {"torch", "nnsight", "transformers", "sae_lens", "scipy"} & set(sys.modules)
        loaded |= {name for name in sys.modules if name.startswith("circuit_toolkit.models")}
        assert not loaded, f"showing a circuit loads {sorted(loaded)}"
    """
    paths = [str(tmp_path / "circuit.json"), str(tmp_path / "page.html")]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *paths],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_cheap():
    code = f"""
        import sys, time
        before, start = set(sys.modules), time.perf_counter()
        import circuit_toolkit
        seconds = time.perf_counter() - start
        assert seconds < 0.3, f"import circuit_toolkit took {{seconds:.2f}} s"
        loaded = set({HEAVY}) & (set(sys.modules) - before)
        assert not loaded, f"import circuit_toolkit loads {{sorted(loaded)}}"
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
