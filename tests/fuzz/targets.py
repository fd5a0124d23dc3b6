"""Files that others can hand to the toolkit: made once, damaged in copies, and read again."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

import circuit_toolkit as ct
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.benchmark.heads.effects import HeadEffects
from circuit_toolkit.benchmark.interpbench.cases import read_case
from circuit_toolkit.circuit import Circuit
from circuit_toolkit.circuit_lasso import LassoFit
from circuit_toolkit.dictionaries.dictionary import save_dictionary
from circuit_toolkit.dictionaries.training.checkpoints import TrainingRun
from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions
from circuit_toolkit.panels.explorer import saving
from circuit_toolkit.panels.explorer.dial import Dial
from circuit_toolkit.panels.explorer.view import View
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task
from tests.circuit.made_up import made_up_attribution, made_up_circuit
from tests.fuzz import damage
from tests.fuzz.damage import Damage
from tests.small_case import write_case
from tests.tiny import TEXTS, random_sae, task_it_does, tiny_hf, write_dictionaries


@dataclasses.dataclass(frozen=True)
class Target:
    """A kind of file or folder.

    `make` writes it, `read` reads all of it, `use` does with what was read what a user would.
    `sealed`: whether a checksum says that it is what was written. `damages` are those of each file
    by its pattern, besides those of bytes.
    """

    kind: str
    share: float  # of all attacks
    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    damages: Mapping[str, list[Damage]]
    sealed: bool = True
    use: Callable[[Any], Any] = lambda value: None
    says: Callable[[Path], Any] | None = None  # what the file says, read by another program


def print_of(value: Any) -> str:
    """A fingerprint of anything that was read: the same bits, the same print."""
    found = hashlib.sha256()
    _feed(found.update, value)
    return found.hexdigest()


def _feed(add: Callable[[bytes], Any], value: Any) -> None:
    add(type(value).__name__.encode())
    if isinstance(value, torch.Tensor):
        value = value.detach().float().numpy()
    if sp.issparse(value):
        value = [value.shape, value.data, value.indices, value.indptr]
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        value = value.tolist()
    if isinstance(value, np.ndarray):
        add(f"{value.dtype}{value.shape}".encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _feed(add, key)
            _feed(add, item)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type | Site):
        for each in dataclasses.fields(value):
            _feed(add, getattr(value, each.name))
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(add, item)
    else:
        add(repr(value).encode("utf-8", "surrogatepass"))


class Stock:
    """What the files are made of, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hf = tiny_hf()
        self.model_folder = folder / "tiny-model"
        from benchmarks.demo.tokenizer import build_tokenizer

        self.hf.save_pretrained(self.model_folder)
        build_tokenizer().save_pretrained(self.model_folder)
        self.model = ct.load_model(self.hf, build_tokenizer())
        dictionaries = write_dictionaries(self.model, folder / "tiny-dictionaries")
        self.saes = ct.load_dictionaries(self.model, dictionaries, kind="sae")
        self.transcoders = ct.load_dictionaries(self.model, dictionaries, kind="transcoder")
        self.task = task_it_does([*TEXTS[:3]] * 4, [*TEXTS[:3]] * 4)  # pairs of equal length
        self.acts = ct.capture(self.model, self.saes, self.task, progress=False)

    def store(self, place: Path) -> Path:
        return self.acts.save(place)

    def described(self, place: Path | None = None) -> FeatureDescriptions:
        lens = ct.WeightLens("robust")
        return lens.describe(self.model, self.transcoders, store=place, progress=False)

    def described_in(self, place: Path) -> Path:
        self.described(place)
        return place

    def fit(self, place: Path) -> Path:
        lasso = ct.CircuitLasso(min_active=2, folds=0)
        return lasso.fit(self.acts, self.task, progress=False).save(place)

    def effects(self, place: Path) -> Path:
        rng = np.random.default_rng(0)
        mean = {kind: rng.normal(size=(2, 4)) for kind in ("resample", "direct", "mean")}
        low, high = ({k: v + d for k, v in mean.items()} for d in (-0.1, 0.1))
        return HeadEffects(mean, low, high, 2.5, {"task": "ioi", "metric": "m"}).save(place)

    def session(self, place: Path) -> Path:
        view = View("Mary and John", answers=("Mary", "John"), sites=(Site("resid_post", 0),))
        session = saving.Session(
            model="demo",
            dictionaries={"blocks.0.hook_resid_post": "sae-0"},
            view=view,
            task=self.task,
            n=8,
            selected=(),
            dial=Dial("scale", 2.0),
            circuit=made_up_circuit(6, 9),
        )
        return saving.write_session(place, session)

    def checkpointless_sae(self, place: Path) -> Path:
        """A dictionary of others: without a checksum."""
        random_sae(self.model.name, Site("resid_post", 0)).save_model(place)
        return place

    def train(self, place: Path) -> Any:
        """Train a dictionary in a folder, or go on with what lies there."""
        sizes: dict[str, Any] = {"n_features": 24, "k": 4, "steps": 12, "batch": 32}
        found = ct.train_dictionaries(
            self.model,
            ["resid_post 0"],
            [*TEXTS] * 8,
            folder=place,
            checkpoint_every=3,
            progress=False,
            **sizes,
        )
        return [(site, _weights(each)) for site, each in found.items()]

    def checkpoint(self, place: Path) -> Path:
        """A folder of training that was interrupted after its second checkpoint."""
        save, saved = TrainingRun.save_checkpoint, []

        def interrupted(run: TrainingRun, training: Any) -> None:
            save(run, training)
            saved.append(training.step)
            if len(saved) == 2:
                raise KeyboardInterrupt

        TrainingRun.save_checkpoint = interrupted  # type: ignore[method-assign]
        try:
            self.train(place)
        except KeyboardInterrupt:
            return place
        finally:
            TrainingRun.save_checkpoint = save  # type: ignore[method-assign]
        raise AssertionError("training was not interrupted")

    def own_sae(self, place: Path) -> Path:
        save_dictionary(random_sae(self.model.name, Site("resid_post", 0)), place)
        return place

    def loaded_weights(self, place: Path) -> Any:
        found = ct.load_dictionaries(self.model, place)
        return [(site, each.name, _weights(each)) for site, each in found.items()]

    def model_of(self, place: Path) -> Any:
        model = ct.load_model(place)
        with torch.no_grad():
            logits = model.hf(torch.tensor([[1, 5, 7]])).logits
        return model, logits, model.tokenize([*TEXTS]).ids

    def table(self, place: Path) -> Path:
        rows = [(*pair, "Mary", "John") for pair in _prompts(self.task)]
        with place.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["clean", "corrupted", "answer", "wrong"])
            writer.writerows(rows)
        return place

    def lines(self, place: Path) -> Path:
        texts = [
            json.dumps({"clean": clean, "corrupted": other, "answer": "Mary", "wrong": "John"})
            for clean, other in _prompts(self.task)
        ]
        place.write_text("\n".join(texts) + "\n", encoding="utf-8")
        return place


def _weights(dictionary: Any) -> Any:
    return {name: value for name, value in dictionary.sae.state_dict().items()}


def _shown(circuit: Circuit) -> None:
    """What a notebook does with a circuit."""
    circuit.summary()
    repr(circuit)
    circuit.node_table(), circuit.edge_table(), circuit.to_svg(), circuit.to_networkx()


def _describe(found: FeatureDescriptions) -> None:
    repr(found), found.table(), found.coverage()
    for site in found.shown:
        found.of(site, 0)


def _csv(path: Path) -> Any:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [*csv.DictReader(file, strict=True)]
    return [(row["clean"], row.get("corrupted")) for row in rows]


def _jsonl(path: Path) -> Any:
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line.strip()]
    return [(row["clean"], row.get("corrupted")) for row in rows]


def _prompts(task: Task) -> Any:
    return [*zip(task.clean, task.corrupted or [None] * len(task.clean), strict=True)]


def targets(stock: Stock) -> list[Target]:
    document = [damage.of_json, damage.forged_json, damage.literal, damage.deep]
    plain_json = [damage.of_json, damage.literal, damage.deep]
    tensors = [damage.of_tensors]

    def graph(path: Path) -> Path:
        return Path(made_up_attribution(8, 16).to_neuronpedia(path))

    return [
        Target(
            "circuit", 0.16, lambda at: made_up_circuit(12, 30).save(at / "circuit.json"),
            Circuit.load, {"*": document}, use=_shown,
        ),
        Target(
            "Neuronpedia graph", 0.1, lambda at: graph(at / "graph.json"),
            Circuit.from_neuronpedia, {"*": plain_json}, sealed=False, use=_shown,
        ),
        Target(
            "head effects", 0.06, lambda at: stock.effects(at / "effects.json"),
            HeadEffects.load, {"*": document}, use=lambda found: found.circuit(),
        ),
        Target(
            "session", 0.08, lambda at: stock.session(at / "session.json"),
            saving.read_session, {"*": document}, use=lambda found: _shown(found.circuit),
        ),
        Target(
            "activation store", 0.12, lambda at: stock.store(at / "store"),
            lambda at: ActivationStore.open(at).load(),
            {"*.json": document, "*.safetensors": tensors},
            use=lambda acts: (acts.pooled("last"), repr(acts)),
        ),
        Target(
            "descriptions, Parquet", 0.06, lambda at: stock.described().save(at / "found.parquet"),
            FeatureDescriptions.load, {"*": [damage.of_parquet]}, use=_describe,
        ),
        Target(
            "descriptions, JSON", 0.06, lambda at: stock.described().save(at / "found.json"),
            FeatureDescriptions.load, {"*": document}, use=_describe,
        ),
        Target(
            "descriptions, folder", 0.05, lambda at: stock.described_in(at / "lens"),
            stock.described, {"*.json": document},
        ),
        Target(
            "fit", 0.06, lambda at: stock.fit(at / "fit.safetensors"),
            LassoFit.load, {"*": tensors}, use=lambda fit: repr(fit),
        ),
        Target(
            "dictionary", 0.07, lambda at: stock.own_sae(at / "sae"), stock.loaded_weights,
            {"*.json": plain_json, "*.safetensors": tensors},
        ),
        Target(
            "checkpoint of training", 0.04, lambda at: stock.checkpoint(at / "run"), stock.train,
            {"*.json": document, "*.safetensors": tensors},
        ),
        Target(
            "dictionary of others", 0.04, lambda at: stock.checkpointless_sae(at / "sae"),
            stock.loaded_weights, {"*.json": plain_json, "*.safetensors": tensors}, sealed=False,
        ),
        Target(
            "model folder", 0.04, lambda at: damage.copied(stock.model_folder, at / "model"),
            stock.model_of, {"*.json": plain_json, "*.safetensors": tensors}, sealed=False,
        ),
        Target(
            "InterpBench case", 0.03, lambda at: write_case(at / "case"), read_case,
            {"*.json": plain_json, "*.safetensors": tensors}, sealed=False,
        ),
        Target(
            "task, CSV", 0.02, lambda at: stock.table(at / "task.csv"),
            lambda at: _prompts(Task.from_table(stock.model, at)), {"*": [damage.of_table]},
            sealed=False, says=_csv,
        ),
        Target(
            "task, JSON lines", 0.01, lambda at: stock.lines(at / "task.jsonl"),
            lambda at: _prompts(Task.from_table(stock.model, at)), {"*": []}, sealed=False,
            says=_jsonl,
        ),
    ]  # fmt: skip
