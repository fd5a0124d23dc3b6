"""Every public name has a docstring that names its parameters and says what comes back."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import circuit_toolkit

PACKAGE = "circuit_toolkit"


def sections(doc: str) -> dict[str, list[str]]:
    """Lines of each NumPy section, by its title."""
    parts = re.split(r"^(\w[\w ]*)\n-{3,}$", doc, flags=re.MULTILINE)
    return {title: text.splitlines() for title, text in zip(parts[1::2], parts[2::2], strict=True)}


def documented(doc: str) -> set[str]:
    """Names in the Parameters sections; one line may hold several, such as `X, Y : Tensor`."""
    found = sections(doc)
    lines = found.get("Parameters", []) + found.get("Other Parameters", [])
    heads = [line.partition(" :")[0] for line in lines if line[:1].strip()]
    return {name.strip().lstrip("*") for head in heads for name in head.split(",")}


def returns_something(function: Callable) -> bool:
    """Whether a call gives a value: what the annotation says, else what the source does."""
    annotation = inspect.signature(function).return_annotation
    if annotation is not inspect.Signature.empty:
        return annotation not in (None, "None", "NoReturn", "Never")
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Return) and node.value for node in ast.walk(tree))


def function_faults(name: str, function: Callable) -> Iterator[str]:
    doc = inspect.getdoc(function) or ""
    if not doc:
        yield f"{name} has no docstring"
        return
    parameters = set(inspect.signature(function).parameters) - {"self", "cls"}
    if missing := parameters - documented(doc):
        yield f"{name} does not document {', '.join(sorted(missing))}"
    if returns_something(function) and not {"Returns", "Yields"} & set(sections(doc)):
        yield f"{name} returns something and has no Returns section"


def class_faults(name: str, cls: type) -> Iterator[str]:
    doc = inspect.getdoc(cls) if cls.__doc__ else ""
    if not doc:
        yield f"{name} has no docstring"
        return
    # A dataclass has an __init__ of ours, a named tuple a __new__ of nobody's.
    if is_ours(cls.__init__) or is_ours(cls.__new__) or hasattr(cls, "_fields"):
        doc += "\n\n" + (inspect.getdoc(cls.__init__) or "")
        if missing := set(inspect.signature(cls).parameters) - documented(doc):
            yield f"{name} does not document {', '.join(sorted(missing))}"
    for base in filter(is_ours, cls.__mro__):
        for key, member in vars(base).items():
            if key.startswith("_"):
                continue
            value = getattr(cls, key, None)
            if isinstance(member, property | cached_property) and not inspect.getdoc(member):
                yield f"{name}.{key} has no docstring"
            elif inspect.isroutine(value) and is_ours(value):
                yield from function_faults(f"{name}.{key}", value)


def is_ours(thing: Any) -> bool:
    return (getattr(thing, "__module__", None) or "").split(".")[0] == PACKAGE


def faults(name: str, thing: Any) -> list[str]:
    """What the documentation of a public name lacks; constants and types of others have none."""
    if isinstance(thing, ModuleType):
        return [] if inspect.getdoc(thing) else [f"{name} has no docstring"]
    if inspect.isclass(thing) and is_ours(thing):
        return list(class_faults(name, thing))
    return list(function_faults(name, thing)) if inspect.isfunction(thing) else []


def public_names() -> Iterator[tuple[str, Any]]:
    modules = [circuit_toolkit]
    for info in pkgutil.walk_packages(circuit_toolkit.__path__, f"{PACKAGE}."):
        if not info.name.endswith("__main__"):
            modules.append(importlib.import_module(info.name))
    for module in modules:
        for name in getattr(module, "__all__", []):
            yield f"{module.__name__}.{name}", getattr(module, name)


def test_every_public_name_is_documented():
    once = {id(thing): (name, thing) for name, thing in public_names()}
    found = [fault for name, thing in once.values() for fault in faults(name, thing)]
    assert not found, "\n".join(found)


FAKE = '''
from dataclasses import dataclass
from typing import NamedTuple

def documented(x, *more):
    """Do a thing.

    Parameters
    ----------
    x, *more : int
        Numbers.

    Returns
    -------
    int
    """
    return x

def silent(x) -> None: pass

def half(x, y):
    """Do.

    Parameters
    ----------
    x : int
        A number, and y is only mentioned.
    """
    if x:
        return y

@dataclass
class Table:
    """A table.

    Parameters
    ----------
    rows : int
        Rows.
    """

    rows: int
    columns: int = 0

    @property
    def size(self): return 0

    def add(self, more: int) -> int:
        """Add."""

    @classmethod
    def read(cls) -> None: pass

    def _private(self, z): return z

class Pair(NamedTuple):
    """A pair."""

    left: int

class Kept(Table):
    """Says nothing of what it inherits."""

class Panel(dict):
    """A class whose parameters are somebody else's."""
'''


def test_the_checker_sees_what_is_missing(tmp_path):
    path = tmp_path / "fake.py"
    path.write_text(FAKE)
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}.fake", path)
    assert spec and spec.loader
    sys.modules[spec.name] = fake = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fake)
    del sys.modules[spec.name]

    def of(name):
        return faults(name, getattr(fake, name))

    assert of("documented") == of("Panel") == []
    assert of("Pair") == ["Pair does not document left"]
    assert of("silent") == ["silent has no docstring"]
    assert of("half") == [
        "half does not document y",
        "half returns something and has no Returns section",
    ]
    methods = [
        "{}.size has no docstring",
        "{}.add does not document more",
        "{}.add returns something and has no Returns section",
        "{}.read has no docstring",
    ]
    assert of("Table") == ["Table does not document columns", *(m.format("Table") for m in methods)]
    assert of("Kept") == [
        "Kept does not document columns, rows",
        *(m.format("Kept") for m in methods),
    ]


def test_the_stub_that_type_checkers_read_lists_what_there_is():
    stub = ast.parse(Path(circuit_toolkit.__file__).with_suffix(".pyi").read_text("utf-8"))
    nodes = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    told = [alias.name for node in nodes for alias in node.names]
    assert told == circuit_toolkit.__all__ and len(set(told)) == len(told)
    for node in nodes:
        (alias,) = node.names
        assert alias.asname == alias.name, "`import x as x` is what re-exports a name"
        home = importlib.import_module(f"{node.module}")
        assert getattr(circuit_toolkit, alias.name) is getattr(home, alias.name)
    assert sorted(told) == dir(circuit_toolkit)
