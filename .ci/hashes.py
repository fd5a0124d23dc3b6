"""Print requirements.lock with the checksums that the package index gives: `make lock` runs it.

Of each version those of all files that Python 3.11 can install, on any system.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from pip._internal.models.index import PyPI

LOCK = Path(__file__).parents[1] / "requirements.lock"
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


def main() -> None:
    """Print a line a package, and its checksums below it."""
    pins = [line for line in LOCK.read_text().splitlines() if line and not line.startswith("#")]
    print("# requirements.lock with the checksums of its files. Written by `make lock`.")
    with ThreadPoolExecutor(8) as pool:
        for pin, found in zip(pins, pool.map(checksums, pins), strict=True):
            print(" \\\n".join([pin, *(f"    --hash=sha256:{each}" for each in found)]))


if __name__ == "__main__":
    main()
