"""Programs that models are trained to be: what they compute, and that their circuits branch."""

import pytest
import torch

from benchmarks.known_circuits.programs import (
    MATTERS,
    OUTPUT,
    Program,
    Variable,
    random_program,
    sampled_tokens,
    universe,
)
from benchmarks.known_circuits.train import Net, components, trained, write
from circuit_toolkit.benchmark.interpbench.cases import read_case
from circuit_toolkit.models.components import run_components


def test_variables_are_what_they_say():
    tokens = torch.tensor([[2, 0, 2, 1]])
    program = Program(2, 4, (
        Variable("a0.h0", "previous", ("embed",), 4), Variable("a0.h1", "first", ("embed",), 4),
        Variable("a0.h2", "seen", ("embed",), 2, 0), Variable("a0.h3", "share", ("embed",), 0, 2),
        Variable("m0", "table", ("embed", "a0.h2"), 8, torch.arange(8).reshape(4, 2)),
    ))  # fmt: skip
    got = {name: values[0].tolist() for name, values in program.run(tokens).items()}
    assert got["a0.h0"] == [0, 2, 0, 2] and got["a0.h1"] == [2, 2, 2, 2]
    assert got["a0.h2"] == [0, 1, 1, 1] and got["m0"] == [4, 1, 5, 3]
    assert got["a0.h3"] == pytest.approx([1, 1 / 2, 2 / 3, 1 / 2])


@pytest.mark.parametrize("seed", [0, 5, 7])
def test_programs_branch_and_need_every_edge(seed):
    program = random_program(seed)
    assert program.branches and set(program.edges) <= set(universe(program.n_layers, 4))
    clean, other = (program.run(sampled_tokens(500, s)) for s in (1, 2))
    for edge in program.edges:
        got = program.run(clean["embed"], {edge: other[edge[0]]})[OUTPUT]
        assert float(((got - clean[OUTPUT]).abs() > 0.05).float().mean()) >= MATTERS
    assert random_program(seed).edges == program.edges
    assert not random_program(seed, chain=True).branches


def test_a_written_case_is_the_network_that_was_trained(tmp_path):
    program = random_program(1)
    ((_, net, scores),) = trained(program, 1, loose=True, steps=2)
    write(tmp_path / "set" / "1", program, net, scores)
    case = read_case(tmp_path / "set" / "1")
    assert set(case.true_edges) == set(program.edges)
    tokens = torch.tensor(case.task.clean[:5])[:, 1:] - 1
    with torch.no_grad():
        logits, out = net(tokens)
        got = run_components(case.model, case.model.tokenize(case.task.clean[:5])).logits[:, 1:]
    torch.testing.assert_close(got, logits, rtol=1e-4, atol=1e-5)
    swapped = torch.zeros(5, len(components(program)), dtype=torch.bool)
    torch.testing.assert_close(net(tokens, out, ~swapped)[0], logits)  # its own outputs
    assert isinstance(net, Net)
