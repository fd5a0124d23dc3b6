"""The attribution graph of a prompt, beside circuit-tracer's: equal numbers, time and memory.

    python -m benchmarks.attribution_graph [--peer ENVIRONMENT/bin/python] [--json FILE]

`benchmarks/peers/README.md` makes the peer's environment; without it only our side runs. Every run
is a process of its own with one number of threads: a call to warm up, then the median of
`--repeats`, or one more of a text. The peer runs with its default batches of 512, and with smaller
ones and rankings of features as often as ours; of these the fastest counts. Prompts of three tasks
and a text of 64 tokens are given to the bundled model; longer texts to the same model with 2,048
positions, whose embeddings repeat. CPU seconds are those of the process, which other work on the
machine disturbs less than wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import circuit_toolkit as ct
from benchmarks.peers.exported import export, with_positions
from benchmarks.peers.graphs import Graph, compare
from circuit_toolkit.attribution.graph.sources import ROWS
from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.models import Model

ROOT = Path(__file__).parents[1]
TASKS = ("ioi", "greater_than", "docstring")
LONG = 2048  # positions of the longer model
EVERY = 2**20  # edges into a node: all, as the peer has it; of long texts our default
THRESHOLDS = ((0.8, 0.98), (0.5, 0.9))  # shares of influence that nodes and edges keep
DEFAULT = 512  # the peer's batch size
PEER = ROOT / "benchmarks" / "peers" / "circuit_tracer_graph.py"
OURS = [sys.executable, "-m", "benchmarks.peers.our_graph"]


@dataclass(frozen=True)
class Case:
    """A prompt, limits of features (None: all) and of edges into one, the peer's batch sizes."""

    name: str
    ids: list[int]
    max_features: int | None
    batch_sizes: tuple[int, ...]
    positions: int
    max_inputs: int | None


def cases(model: Model) -> Iterator[Case]:
    """Every case, of the shortest prompt first."""
    prompts = {name: ct.tasks.BUNDLED[name](model, n=1, seed=0).clean[0] for name in TASKS}
    ids = {name: model.tokenize([prompt]).ids[0].tolist() for name, prompt in prompts.items()}
    text = _text(model, LONG)
    for name, tokens in ids.items():
        for limit in (100, None):
            yield Case(name, tokens, limit, (16, 64, DEFAULT), model.context, EVERY)
    for limit, sizes in ((100, (16, 64, DEFAULT)), (None, (64,))):
        yield Case("text", text[:64], limit, sizes, model.context, EVERY)
    for n, limit, sizes in ((500, 1000, (2, 4)), (1000, 500, (1, 2)), (2000, 64, (1,))):
        yield Case(f"text of {n:,}", text[:n], limit, sizes, LONG, None)


def _text(model: Model, n: int) -> list[int]:
    """Sentences of all families of the bundled language, one after the other, as n token ids."""
    grammar, ids = Grammar(0), [model.bos_id or 0]
    while len(ids) < n:
        for name in (*TASKS, "agreement", "bios"):
            words = model.tokenize([grammar.sentence(name).text]).ids[0].tolist()
            ids += words[words[0] == model.bos_id :]
    return ids[:n]


def run(command: list[str], job: dict[str, Any], folder: Path) -> Graph:
    """Run one side on a job in a process of its own."""
    path, out = folder / "job.json", folder / "graph.npz"
    path.write_text(json.dumps(job))
    threads = str(job["threads"])
    where = {"PYTHONPATH": str(ROOT)} if command[:1] == OURS[:1] else {}
    done = subprocess.run(
        [*command, str(path), str(out)],
        cwd=ROOT,
        env=os.environ | where | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed on {job['name']}:\n{done.stderr[-3000:]}")
    return Graph.read(out)


def batches(size: int) -> dict[str, int]:
    """Return the peer's settings: its own defaults, or rankings as often as ours."""
    return {"batch_size": size, "update_interval": 4 if size == DEFAULT else max(1, ROWS // size)}


def beside(
    case: Case, threads: int, repeats: int, peer: str | None, exported: Path, folder: Path
) -> dict[str, Any]:
    """Run a case on both sides, and lay them beside each other."""
    job = asdict(case) | {"thresholds": THRESHOLDS, "threads": threads, "repeats": repeats}
    ours = run(OURS, job, folder)
    found: dict[str, Any] = {
        "case": case.name,
        "tokens": len(case.ids),
        "max_features": case.max_features,
        "threads": threads,
        "n_nodes": len(ours.keys),
        "n_active": ours.n_active,
        "ours": ours.costs,
        "peer": {},
    }
    best: Graph | None = None
    for size in case.batch_sizes if peer else ():
        wanted = job | batches(size) | ({"repeats": 1} if size == DEFAULT else {})
        theirs = run([peer or "", str(PEER), str(exported)], wanted, folder)
        found["peer"][str(size)] = theirs.costs
        if best is None or theirs.costs["attribute"]["cpu"] < best.costs["attribute"]["cpu"]:
            best = theirs
            found |= {"fastest": str(size)} | compare(ours, theirs)
    return found


def _limit(row: dict[str, Any]) -> str:
    return "all" if row["max_features"] is None else f"{row['max_features']:,}"


def agreement(rows: list[dict[str, Any]]) -> str:
    """Return how far the two sides agree, as a table."""
    head = (
        "| prompt | tokens | features | nodes (of one side) | edges, by the row's largest | "
        "edges > 1 %, relative | activations | probabilities | pruned .8, .98: nodes, edges "
        "(of one side) | pruned .5, .9 | scores | left out |"
    )
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for row in rows:
        if "row_error" not in row:
            continue
        cut = [
            f"{each['nodes']} ({each['nodes_of_one']}), {each['edges']:,} ({each['edges_of_one']})"
            for each in row["pruned"]
        ]
        lines.append(
            f"| {row['case']} | {row['tokens']:,} | {_limit(row)} of {row['n_active']:,} "
            f"| {row['nodes']:,} ({row['nodes_of_one']}) | {row['row_error']:.0e} "
            f"| {row['edge_error']:.0e} | {row['activation_error']:.0e} "
            f"| {row['probability_error']:.0e} | {' | '.join(cut)} | {row['score_error']:.0e} "
            f"| {row['ours']['left_out']:.0%} |"
        )
    return "\n".join(lines)


def costs(rows: list[dict[str, Any]]) -> str:
    """Return what attribution costs either side, as a table."""
    head = (
        "| prompt | tokens | features | threads | ours, CPU s (wall) | peer, fastest batch | "
        "peer, batch 512 | times faster | ours, peak MB (added) | peer, fastest batch | "
        "peer, batch 512 | share of its peak (of added) |"
    )
    lines = [head, "|" + "---|" * (head.count("|") - 1)]
    for row in rows:
        mine = row["ours"]["attribute"]
        best = row["peer"].get(row.get("fastest", ""), {}).get("attribute")
        usual = row["peer"].get("512", {}).get("attribute")
        cells = [row["case"], f"{row['tokens']:,}", f"{_limit(row)} of {row['n_active']:,}"]
        cells += [str(row["threads"]), _seconds(mine)]
        cells += [f"{_seconds(best)}, batch {row['fastest']}" if best else "", _seconds(usual)]
        cells += [f"{best['cpu'] / mine['cpu']:.1f}" if best else ""]
        cells += [_megabytes(mine), _megabytes(best), _megabytes(usual)]
        share = added = ""
        if best:
            share = f"{mine['peak'] / best['peak']:.2f}"
            added = f" ({_added(mine) / max(_added(best), 1e-9):.2f})"
        lines.append(f"| {' | '.join([*cells, share + added])} |")
    return "\n".join(lines)


def _seconds(cost: dict[str, float] | None) -> str:
    return f"{cost['cpu']:.2f} ({cost['wall']:.2f})" if cost else ""


def _added(cost: dict[str, float]) -> float:
    return cost["peak"] - cost["before"]


def _megabytes(cost: dict[str, float] | None) -> str:
    return f"{cost['peak']:,.0f} ({_added(cost):,.0f})" if cost else ""


def main() -> None:
    """Run the cases and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer", help="python of circuit-tracer's environment")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--case", nargs="+", help="names of cases, instead of all")
    parser.add_argument("--json", type=Path, help="write every number to this file")
    given = parser.parse_args()
    model = ct.load_model("demo")
    transcoders = ct.load_dictionaries(model, kind="transcoder")
    rows = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for positions in (model.context, LONG) if given.peer else ():
            longer = with_positions(model, positions)
            export(longer, transcoders.values(), folder / str(positions))
        for case in cases(model):
            if given.case and case.name not in given.case:
                continue
            exported = folder / str(case.positions)
            repeats = given.repeats if case.name in TASKS else 1
            for threads in given.threads:
                rows.append(beside(case, threads, repeats, given.peer, exported, folder))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
                if given.json:
                    given.json.write_text(json.dumps(rows, indent=1))
    print(agreement(rows), costs(rows), sep="\n\n")


if __name__ == "__main__":
    main()
