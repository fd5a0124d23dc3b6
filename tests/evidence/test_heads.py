"""Evidence for sets of heads: against sets taken one by one, and where the answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.benchmark.heads.effects import head_effects
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import EDGE, NODE, TARGET
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.heads import head_evidence
from circuit_toolkit.sites import Site
from tests.tiny import task_it_does

TEXTS = [
    "when Mary and John went to the store, John gave a drink to",
    "the boys near the cabinet",
]
# The last word stays, so that all that its stream learns of the corrupted prompt comes through
# heads.
TWINS = [
    "when Tom and Anna went to the store, Anna gave a ring to",
    "the girl under the cabinet",
]


def of_heads(*heads: tuple[int, int]) -> Circuit:
    nodes = np.zeros(len(heads) + 1, dtype=NODE)
    for row, (layer, head) in enumerate(heads):
        nodes[row] = (str(Site("head_out", layer)), head, 0.0, 1.0, f"a{layer}.h{head}")
    nodes[-1] = (TARGET, 0, 0.0, 0.0, "target")
    return Circuit(nodes, np.zeros(0, dtype=EDGE), {})


@pytest.fixture(scope="module")
def task() -> ct.Task:
    return task_it_does(TEXTS, TWINS)


def outcome(model, task, *heads, draws=2, **options):
    found = head_evidence(model, task, of_heads(*heads), draws, **options)
    return found.evidence["ablation"]


def test_one_head_loses_what_replacing_it_alone_loses(tiny, task):
    effects = head_effects(tiny, task)
    for head in ((0, 1), (2, 3)):
        found = outcome(tiny, task, head)
        # Logits of some 10 in single precision, and a gap of about 1.
        assert found["loss"] == pytest.approx(effects.share()[head], abs=1e-3)
        assert found["full"] - found["corrupted"] == pytest.approx(effects.gap, abs=1e-4)
        assert found["full"] - found["ablated"] == pytest.approx(
            found["loss"] * effects.gap, abs=1e-3
        )


def test_all_heads_carry_all_that_the_last_token_knows(tiny, task):
    every = list(np.ndindex(3, 4))
    found = outcome(tiny, task, *every)
    assert found["loss"] == pytest.approx(1, abs=1e-3)  # nothing is left but the corrupted prompt
    assert found["kept"] == pytest.approx(1, abs=1e-3)  # no other head is replaced
    assert found["random_loss"] == pytest.approx([1, 1], abs=1e-3)
    assert found["random_kept"] == pytest.approx([1, 1], abs=1e-3)


def test_what_is_kept_is_what_losing_the_others_leaves(tiny, task):
    some = [(0, 0), (0, 1), (1, 3), (2, 0), (2, 2)]
    others = [head for head in np.ndindex(3, 4) if head not in some]
    first, second = outcome(tiny, task, *some), outcome(tiny, task, *others)
    assert first["kept"] == pytest.approx(1 - second["loss"], abs=1e-4)
    assert second["kept"] == pytest.approx(1 - first["loss"], abs=1e-4)


def test_the_seed_draws_the_sets_and_a_circuit_shows_the_outcome(tiny, task):
    one, again = (outcome(tiny, task, (0, 1), (1, 1)) for _ in range(2))
    other = outcome(tiny, task, (0, 1), (1, 1), seed=1)
    assert one == again and one["random_loss"] != other["random_loss"]
    assert one["random_loss_mean"] == pytest.approx(np.mean(one["random_loss"]))
    assert one["random_kept_mean"] == pytest.approx(np.mean(one["random_kept"]))
    circuit = head_evidence(tiny, task, of_heads((0, 1)), 2, n_prompts=1)
    assert circuit.evidence["ablation"]["n"] == 1
    assert "resample ablation removes" in " ".join(circuit.summary())
    assert circuit.nodes["label"].tolist() == ["a0.h1", "target"]


def test_the_head_that_reads_the_subject_is_what_agreement_needs(demo):
    task = ct.tasks.agreement(demo, n=24, seed=3, test=True)
    found = outcome(demo, task, (3, 3), (4, 3), (5, 2), draws=4)
    assert found["loss"] > 0.8 > 0.3 > found["random_loss_mean"]


def test_what_is_no_circuit_of_heads_is_refused(tiny, task):
    circuit = of_heads((0, 1))
    nodes = circuit.nodes.copy()
    nodes["site"][0] = str(Site("resid_post", 0))
    for wrong in (of_heads(), replace(circuit, nodes=nodes)):
        with pytest.raises(InputError, match="one of heads"):
            head_evidence(tiny, task, wrong)
    with pytest.raises(InputError, match="no head"):
        head_evidence(tiny, task, of_heads((0, 7)))
    with pytest.raises(InputError, match="at least 1"):
        head_evidence(tiny, task, circuit, 0)
    with pytest.raises(InputError, match="no corrupted prompts"):
        head_evidence(tiny, task_it_does(TEXTS), circuit)
    backwards = ct.Task("easy", tuple(TWINS), tuple(TEXTS), task.answers, task.wrong)
    with pytest.raises(InputError, match="no better than its corrupted prompts"):
        head_evidence(tiny, backwards, circuit)
