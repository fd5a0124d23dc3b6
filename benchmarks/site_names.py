"""Our sites beside interp-engine's points and nnterp's accessors, family by family.

`python -m benchmarks.site_names --peer PYTHON`: of an environment by `benchmarks/peers/sites.txt`.
Random models of three layers in float32, two prompts without padding. Prints a table for
RESULTS.md: the largest distance of any layer as a share of the largest value there.
"""

import argparse
import subprocess
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import circuit_toolkit as ct
from circuit_toolkit.models import Batch, run
from circuit_toolkit.sites import Site
from tests.families import CONFIGS, random_model, word_tokenizer

PEERS = ("interp-engine", "nnterp")
KINDS = (
    *("resid_pre", "attn_pattern", "attn_z", "attn_out", "resid_mid", "mlp_norm", "mlp_out"),
    *("resid_post", "logits"),
)
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [7, 3, 9, 11, 4, 6]])
SAME = 1e-5  # float32, sums in another order


def ours(module: Any) -> dict[str, torch.Tensor]:
    """Read our sites; one that a family does not have is not there."""
    model = ct.load_model(module, word_tokenizer())
    batch, found = Batch(IDS, torch.ones_like(IDS)), {}
    sites = [Site("logits")] + [Site(kind, i) for i in range(model.n_layers) for kind in KINDS[:-1]]
    for site in sites:
        try:
            model.check_site(site)
        except ct.InputError:
            continue
        name = "logits" if site.kind == "logits" else f"{site.kind} {site.layer}"
        found[name] = run(model, batch, [site])[site]
    return found


def theirs(peer: str, python: str, folder: Path) -> tuple[dict[str, torch.Tensor], str]:
    """Run a peer in its environment; return what it read and said."""
    out, script = folder / "out.pt", Path(__file__).parent / "peers" / "peer_sites.py"
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [python, "-W", "ignore", script, peer, folder, out],
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("refused")]
    if not out.exists():
        return {}, (done.stderr.strip().splitlines() or ["no reason"])[-1]
    return torch.load(out, weights_only=True), "\n".join(said)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest distance as a share of the largest value; infinite where shapes differ."""
    if a.numel() != b.numel():
        return float("inf")
    return float((a - b.reshape(a.shape)).abs().max() / a.abs().max())


def main() -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", help="Python of the peers' environment")
    parser.add_argument("--families", nargs="*", default=[*CONFIGS])
    parser.add_argument("--names", nargs="*", default=PEERS, choices=PEERS, help="which peers")
    given = parser.parse_args()
    if not given.peer:
        print("Nothing to compare with: pass --peer, see benchmarks/peers/README.md.")
        return 0
    warnings.simplefilter("ignore")
    for peer in given.names:
        print(f"\n| {peer} | " + " | ".join(KINDS) + " |\n|---|" + "---|" * len(KINDS))
        for family in given.families:
            with TemporaryDirectory() as temporary:
                folder = Path(temporary)
                module: Any = random_model(family)
                module.save_pretrained(folder)
                word_tokenizer().save_pretrained(folder)
                torch.save(IDS, folder / "ids.pt")
                found, said = theirs(peer, given.peer, folder)
            print(f"{family}, {peer}: {said}", file=sys.stderr, flush=True)
            apart: dict[str, list[float]] = defaultdict(list)
            mine = ours(module)
            for name, value in mine.items():
                if name in found:
                    apart[name.partition(" ")[0]].append(distance(value, found[name]))
            there = {name.partition(" ")[0] for name in mine}
            cells = []
            for kind in KINDS:
                most = max(apart[kind], default=None)
                if kind not in there:
                    cells.append("we have none")
                elif most is None:
                    cells.append("it has none")
                else:
                    cells.append("equal" if most < SAME else f"**{most:.2g}**")
            print(f"| {family} | " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
