"""The reference circuits that ship: of this model, by exact patching, and stable."""

import numpy as np
import pytest

from benchmarks.demo.reference_circuits import BUDGETS, compute, main, table
from circuit_toolkit.benchmark.reference_circuits import FOLDER, reference_circuit
from circuit_toolkit.circuit.components import edge_scores
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import patching_effects
from circuit_toolkit.tasks import BUNDLED

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def test_the_tasks_that_are_promised_are_there():
    assert {"ioi", "greater_than", "agreement"} <= set(NAMES) <= set(BUNDLED)
    with pytest.raises(InputError, match="greater_than"):
        reference_circuit("chess")


@pytest.mark.parametrize("name", NAMES)
def test_stored_scores_are_those_of_exact_patching(demo, name):
    """The strongest edges, patched anew on some of the same prompts, are about as strong."""
    circuit, graph = reference_circuit(name), graph_of(demo)
    stored = edge_scores(circuit, graph)
    order = np.argsort(-stored, axis=None)
    chosen = [np.unravel_index(i, stored.shape) for i in (*order[:3], order[300])]
    edges = [(graph.writers[i], graph.readers[j]) for i, j in chosen]
    have = circuit.settings
    task = BUNDLED[name](demo, n=have["n_prompts"], seed=have["task_seed"])
    effects = patching_effects(demo, task, [[edge] for edge in edges], n_prompts=16).numpy()
    for (i, j), effect in zip(chosen, np.abs(effects).T, strict=True):
        # 16 of the prompts: five standard errors of their mean.
        assert abs(effect.mean() - stored[i, j]) <= 5 * effect.std() / 4 + 0.01 * stored[i, j]
    assert (abs(circuit.edges["weight"]) <= circuit.edges["score"] * 1.01).all()
    assert circuit.nodes["label"][-1] == task.metric.replace("_", " ")


@pytest.mark.parametrize("name", NAMES)
def test_half_of_the_prompts_finds_what_the_other_half_does(name):
    halves = reference_circuit(name).settings["halves"]
    assert min(halves[str(budget)] for budget in BUDGETS) > 0.9


def test_the_card_holds_the_table_of_what_is_stored(tmp_path):
    card = FOLDER.parent / "model" / "README.md"
    begin, end = "<!-- reference circuits: begin -->\n", "\n<!-- reference circuits: end -->"
    written = card.read_text(encoding="utf-8").split(begin)[1].split(end)[0]
    names = [line.split("|")[1].strip() for line in written.splitlines()[2:]]
    assert sorted(names) == NAMES
    assert written == table([reference_circuit(name) for name in names])
    copy = tmp_path / "card.md"
    copy.write_text(f"before\n{begin}old{end}\nafter")
    main(["--card", str(copy), "--tasks", ",".join(names)])
    assert copy.read_text() == f"before\n{begin}{written}{end}\nafter"
    copy.write_text("no markers")
    with pytest.raises(FileFormatError, match="reference circuits"):
        main(["--card", str(copy), "--tasks", names[0]])


def test_a_circuit_is_computed_and_written(tmp_path, monkeypatch, tiny, capsys):
    """On the tiny model, which has the same words and far fewer edges."""
    monkeypatch.setattr("benchmarks.demo.reference_circuits.load_model", lambda name: tiny)
    found = compute("agreement", 3)
    assert len(found.edges) <= len(graph_of(tiny).edges) and found.settings["n_prompts"] == 3
    main(["--tasks", "agreement", "--prompts", "2", "--out", str(tmp_path)])
    assert (tmp_path / "agreement.json").exists() and "| agreement | 2 |" in capsys.readouterr().out
