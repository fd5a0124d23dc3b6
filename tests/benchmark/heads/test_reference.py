"""The reference heads that ship: of this model, by causation, and on its card."""

import numpy as np
import pytest

from benchmarks.demo.reference_heads import compute, main, table
from circuit_toolkit.benchmark.heads.reference import FOLDER, known_heads, reference_heads
from circuit_toolkit.benchmark.published_circuits import canonical_circuit
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import edges_out_of, patching_effects
from circuit_toolkit.tasks import BUNDLED

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))


def test_the_tasks_that_are_promised_are_there():
    assert {"ioi", "greater_than", "docstring", "agreement"} <= set(NAMES) <= set(BUNDLED)
    with pytest.raises(InputError, match="greater_than"):
        reference_heads("chess")
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 60_000


@pytest.mark.parametrize("name", NAMES)
def test_stored_effects_are_those_of_patching(demo, name):
    """The strongest head and one of no account, replaced anew on some of the same prompts."""
    effects = reference_heads(name)
    assert effects.settings["held_out"] and effects.settings["metric"]
    order = np.argsort(-np.abs(effects.mean["resample"]), axis=None)
    chosen = [np.unravel_index(order[i], (6, 8)) for i in (0, -1)]
    graph, have = graph_of(demo), effects.settings
    sets = [edges_out_of(graph, f"a{layer}.h{head}") for layer, head in chosen]
    task = BUNDLED[name](demo, n=have["n_prompts"], seed=have["task_seed"], test=True)
    found = patching_effects(demo, task, sets, n_prompts=16).numpy()
    for head, effect in zip(chosen, found.T, strict=True):
        # 16 of the prompts: five standard errors of their mean.
        slack = 5 * effect.std() / 4 + 0.001 * effects.gap
        assert abs(effect.mean() - effects.mean["resample"][head]) <= slack
    assert effects.reference().sum() >= 4
    assert effects.reference()[chosen[0]] and not effects.reference()[chosen[1]]


def test_the_card_holds_the_table_of_what_is_stored(tmp_path):
    card = FOLDER.parent / "model" / "README.md"
    begin, end = "<!-- reference heads: begin -->\n", "\n<!-- reference heads: end -->"
    page = card.read_text(encoding="utf-8")
    written = page.split(begin)[1].split(end)[0]
    names = [line.split("|")[1].strip() for line in written.splitlines()[2:]]
    assert sorted(names) == NAMES
    assert written == table([reference_heads(name) for name in names])
    assert "at least 2 % of the gap" in " ".join(page.split())
    copy = tmp_path / "card.md"
    copy.write_text(f"before\n{begin}old{end}\nafter")
    main(["--card", str(copy), "--tasks", ",".join(names)])
    assert copy.read_text() == f"before\n{begin}{written}{end}\nafter"
    copy.write_text("no markers")
    with pytest.raises(FileFormatError, match="reference heads"):
        main(["--card", str(copy), "--tasks", names[0]])


def test_effects_are_computed_and_written(tmp_path, monkeypatch, demo, capsys):
    monkeypatch.setattr("benchmarks.demo.reference_heads.load_model", lambda name: demo)
    assert compute("agreement", 3).settings["n_prompts"] == 3
    main(["--tasks", "agreement", "--prompts", "2", "--out", str(tmp_path)])
    assert (tmp_path / "agreement.json").exists() and "| agreement | 2 |" in capsys.readouterr().out


def test_what_is_known_of_a_model(demo, tiny, monkeypatch):
    known = known_heads(demo, "ioi")
    assert known is not None and known.edges is not None
    np.testing.assert_array_equal(known.mask, reference_heads("ioi").reference())
    layer = np.repeat(range(6), 8)
    assert known.edges.sum() == 20 and (layer[:, None] < layer)[known.edges].all()
    assert known_heads(demo, "chess") is None and known_heads(tiny, "ioi") is None

    class Named:
        name, n_layers, n_heads = "gpt2", 12, 12

    circuit = canonical_circuit("ioi")
    known = known_heads(Named(), "ioi")  # pyright: ignore[reportArgumentType]
    assert known is not None and known.edges is not None
    np.testing.assert_array_equal(known.mask, circuit.mask())
    assert known.edges.sum() == len(circuit.head_edges()) and known.edges[26, 5 * 12 + 5]
