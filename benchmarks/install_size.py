"""What the core of the package takes on the disk, without torch, and which packages take most.

`python benchmarks/install_size.py`: the files of the packages that are installed here and that the
core needs, as their records list them, with compiled caches; and the same without sae_lens.
"""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def key(name: str) -> str:
    """Return a name of a package as the index compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


INSTALLED = {key(each.metadata["Name"]): each for each in distributions() if each.metadata["Name"]}


def closure(wanted: Iterable[str]) -> set[str]:
    """Return all that requirements need, of what is installed."""
    found, left = set(), [Requirement(each) for each in wanted]
    while left:
        one = left.pop()
        name = key(one.name)
        if name not in INSTALLED or (name in found and not one.extras):
            continue
        found.add(name)
        for each in map(Requirement, INSTALLED[name].requires or ()):
            extras = ["", *one.extras]
            needed = not each.marker or any(each.marker.evaluate({"extra": e}) for e in extras)
            if needed and key(each.name) not in found:
                left.append(each)
    return found


def size(package: Distribution) -> int:
    """Bytes of the files of a package."""
    paths = [Path(str(package.locate_file(file))) for file in package.files or ()]
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> None:
    """Print both."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    core = tomllib.loads(text)["project"]["dependencies"]
    light = [each for each in core if not each.startswith(("sae_lens", "transformer_lens"))]
    for title, wanted in (("core", core), ("without sae_lens", light)):
        sizes = {name: size(INSTALLED[name]) for name in closure(wanted) - closure(["torch"])}
        print(f"{title}: {len(sizes)} packages without torch, {sum(sizes.values()) / 1e6:.0f} MB")
        for name, each in sorted(sizes.items(), key=lambda pair: -pair[1])[:8]:
            print(f"  {name} {each / 1e6:.0f}")


if __name__ == "__main__":
    main()
