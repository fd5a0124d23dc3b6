"""Models whose circuit is known, read from folders: weights, prompts, and the true edges.

The format is that of InterpBench's cases (Gupta et al., 2024, arXiv 2407.14494) rebuilt as data: a
folder holds `model.safetensors` (weights under TransformerLens's names), `config.json` (sizes,
vocabulary, circuit) and `data.npz` (clean and corrupted prompts with labels).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from circuit_toolkit.benchmark.interpbench.case_prompts import CasePrompts
from circuit_toolkit.benchmark.interpbench.files import (
    AGAIN,
    Edge,
    check_edges,
    check_sizes,
    read_config,
    read_data,
)
from circuit_toolkit.benchmark.truth import Truth
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.files.reading import first_line, read_tensors
from circuit_toolkit.models.graph import Graph, graph_of
from circuit_toolkit.models.loading import load_model
from circuit_toolkit.models.model import Model

FILES = ("model.safetensors", "config.json", "data.npz")


@dataclass(frozen=True, eq=False)
class KnownCase:
    """A model, prompts for it, and the circuit that it is known to have.

    Parameters
    ----------
    name : str
        Folder of the case and the folder around it, such as `siit/13`.
    model : Model
        The transformer; prompts are token ids.
    task : CasePrompts
        Clean and corrupted prompts.
    universe : tuple of (str, str)
        All edges that count, such as `("embed", "a0.h1")`.
    true_edges : tuple of (str, str)
        Those of the circuit, in the order of the universe.
    config : dict
        The rest of what the folder says.
    """

    name: str
    model: Model
    task: CasePrompts
    universe: tuple[Edge, ...]
    true_edges: tuple[Edge, ...]
    config: Mapping[str, Any]

    def __repr__(self) -> str:
        """Name and sizes."""
        return (
            f"KnownCase({self.name!r}, {self.model.n_layers} layers of {self.model.n_heads} heads, "
            f"{len(self.true_edges)} of {len(self.universe)} edges, "
            f"{len(self.task.clean)} prompts)"
        )

    @cached_property
    def graph(self) -> Graph:
        """The components of the model."""
        return graph_of(self.model)

    @cached_property
    def truth(self) -> Truth:
        """The edges that are true, to hold circuits against."""
        return Truth(self.graph, self.universe, self.true_edges)


def read_cases(folder: str | Path) -> list[KnownCase]:
    """Read all cases in a folder, however deep.

    Parameters
    ----------
    folder : str or Path
        A folder of cases, of folders of cases, or one case.

    Returns
    -------
    list of KnownCase
        Sorted by name, numbers as numbers.

    Raises
    ------
    InputError
        If there is no such folder or no case in it.
    FileFormatError
        If a case is damaged.
    """
    folder = resolved(folder)
    weights, config, data = FILES
    found = [
        path.parent
        for path in folder.rglob(config)
        if (path.parent / weights).exists() or (path.parent / data).exists()
    ]
    if not found:
        raise InputError(
            f"No known circuit lies in {str(folder)!r}: expected folders with {', '.join(FILES)}."
        )
    return [read_case(path) for path in sorted(found, key=_by_number)]


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in path.parts]


def read_case(folder: str | Path) -> KnownCase:
    """Read one case of `read_cases`, whose files are all there and fit each other."""
    folder = resolved(folder)
    if not folder.is_dir():
        raise InputError(f"There is no folder {str(folder)!r}. Pass one with {', '.join(FILES)}.")
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileFormatError(
            f"{str(folder)!r} is no known circuit: it lacks {', '.join(missing)}. Pass a folder "
            f"with {', '.join(FILES)}, or to read_cases a folder of such folders."
        )
    config = read_config(folder / "config.json")
    tensors = read_tensors(folder / "model.safetensors", AGAIN)
    name = "/".join(folder.resolve().parts[-2:])
    check_sizes(config, tensors, folder / "config.json")
    sizes = {"act_fn": config["act_fn"], "causal": config["causal"]}
    words = {"bos": config.get("bos_id", 0), "pad": config.get("pad_id")}
    try:
        model = case_model(tensors, name, vocabulary=config["input_vocab"], **sizes, **words)
    except (RuntimeError, IndexError, KeyError) as error:
        raise FileFormatError(
            f"{str(folder / 'model.safetensors')!r} holds weights of other shapes or names "
            f"({first_line(error)}). {AGAIN}"
        ) from error
    task = read_data(folder / "data.npz", name, config)
    circuit = config["circuit"]
    universe, true = check_edges(
        graph_of(model), circuit["universe_edges"], circuit["edges"], folder / "config.json"
    )
    return KnownCase(name, model, task, universe, true, config)


def case_model(
    tensors: Mapping[str, Tensor],
    name: str,
    *,
    act_fn: str,
    causal: bool,
    vocabulary: Sequence[Any],
    bos: int | None = None,
    pad: int | None = None,
) -> Model:
    """Make a `Model` of weights under TransformerLens's names."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    from circuit_toolkit.benchmark.interpbench.model import LAYOUT, small_transformer

    module = small_transformer(tensors, name, act_fn=act_fn, causal=causal)
    words = [str(word) for word in vocabulary]
    words = [w if words.count(w) == 1 else f"{w}#{i}" for i, w in enumerate(words)]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}))  # pyright: ignore
    tokenizer.pre_tokenizer = WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    special = {"bos_token": bos, "pad_token": bos if pad is None else pad}
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{kind: words[token] for kind, token in special.items() if token is not None},
    )
    return load_model(module, wrapped, architecture=LAYOUT)
