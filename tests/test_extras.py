"""Without an extra the package works, and what needs it says what to type."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import circuit_toolkit
from circuit_toolkit.extras import EXTRAS, needed

PACKAGE = Path(circuit_toolkit.__file__).parent
ROOT = PACKAGE.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OTHER_NAMES = {
    "sklearn": "scikit-learn",
    "distributed": "dask",
    "yaml": "pyyaml",
}  # module -> package
HIDE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Nothing())
"""


def names(requirements):
    return {canonicalize_name(Requirement(each).name) for each in requirements}


def imported():
    """Every package of others that the package imports, and a file that does."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "needed":
                modules = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            else:
                continue
            found |= {module.partition(".")[0]: path.name for module in modules}
    return {m: f for m, f in found.items() if m not in (*sys.stdlib_module_names, PACKAGE.name)}


def test_everything_imported_is_declared_and_everything_declared_is_imported():
    extras = PROJECT["optional-dependencies"]
    users = [extra for extra in extras if extra not in ("dev", "docs", "all")]
    declared = names(PROJECT["dependencies"]).union(*(names(extras[extra]) for extra in users))
    used = {canonicalize_name(OTHER_NAMES.get(module, module)) for module in imported()}
    assert used - declared == set()
    assert declared - used == {"jupyterlab"}  # where panels are shown
    for module, extra in EXTRAS.items():
        assert canonicalize_name(OTHER_NAMES.get(module, module)) in names(extras[extra])


def test_an_import_that_fails_for_another_reason_is_not_hidden():
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        needed("no_such_module")


def test_the_core_finds_and_draws_a_circuit_and_says_what_panels_need(tmp_path):
    """In a process where what extras bring cannot be imported."""
    code = HIDE.format(hidden={"ipywidgets", "anywidget", "jupyterlab", "numba", "dask"})
    out = str(tmp_path / "out")
    code += f"""
import circuit_toolkit as ct
from circuit_toolkit.cli import main
from circuit_toolkit.errors import MissingExtra
command = ["find", "--task", "agreement", "--n", "32", "--sites", "resid_post 4"]
assert main([*command, "--out", {out!r}]) in (0, 1)
circuit = ct.Circuit.load({out!r} + "/circuit.json")
for call in (lambda: ct.explore, circuit.show):
    try:
        call()
    except MissingExtra as error:
        assert "pip install 'circuit_toolkit[lab]'" in str(error), error
    else:
        raise AssertionError("nothing was said")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out/circuit.html").is_file()
