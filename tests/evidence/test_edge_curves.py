"""What an edge carries is taken out of its target: by hand in a linear chain, and at the ends."""

import numpy as np
import pytest
import torch

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.benchmark.interpbench.cases import case_model
from circuit_toolkit.circuit_lasso.estimator import CircuitLasso
from circuit_toolkit.dictionaries.dictionary import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.evidence.edge_curves import edge_faithfulness
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task

WIDE, WORDS = 3, 60  # features of a site; tokens
SITES = [Site("resid_pre", 0), Site("resid_post", 0), Site("resid_post", 1)]


class Chain:
    """Three sites of three features each, every one linear in the site before; and the answer.

    A site's features are dimensions of the stream of their own, and all stay above 0.
    """

    def __init__(self):
        rng = np.random.default_rng(0)
        self.weights = [  # 0: an edge that is not there
            np.array([[1.0, 0.0, 0.6], [0.7, -1.0, 0.5], [-0.6, 0.8, 1.0]]),
            np.array([[1.0, -0.6, 0.5], [0.5, 1.0, -0.7], [-0.6, 0.5, 1.0]]),
        ]
        self.readout = np.array([1.0, -0.5, 0.7])
        D = 3 * WIDE
        embed = np.zeros((WORDS, D))
        embed[:, :WIDE] = rng.uniform(1, 2, (WORDS, WIDE))
        tensors = {"embed.W_E": embed, "pos_embed.W_pos": np.zeros((2, D))}
        for layer, W in enumerate(self.weights):
            none = np.zeros((1, D, 2))
            tensors |= {f"blocks.{layer}.attn.W_{name}": none for name in "QKV"}
            tensors |= {f"blocks.{layer}.attn.b_{name}": none[:, 0] for name in "QKV"}
            tensors |= {f"blocks.{layer}.attn.W_O": none.transpose(0, 2, 1)}
            tensors |= {f"blocks.{layer}.attn.b_O": np.zeros(D)}
            reads, writes = np.zeros((D, WIDE)), np.zeros((WIDE, D))
            reads[layer * WIDE : (layer + 1) * WIDE] = W
            writes[:, (layer + 1) * WIDE : (layer + 2) * WIDE] = np.eye(WIDE)
            tensors |= {f"blocks.{layer}.mlp.W_in": reads, f"blocks.{layer}.mlp.W_out": writes}
            tensors |= {f"blocks.{layer}.mlp.b_in": np.full(WIDE, 5.0)}  # the ReLU stays open
            tensors |= {f"blocks.{layer}.mlp.b_out": np.zeros(D)}
        z = [embed[1:, :WIDE]]
        for W in self.weights:
            z.append(z[-1] @ W + 5)
        self.z, said = z, z[-1] @ self.readout
        # The answer is whether it is above its mean: else means would say what the model says.
        self.middle, self.sign = said.mean(), np.where(said > said.mean(), 1, -1)
        unembed = np.zeros((D, 2))
        unembed[2 * WIDE :, 0] = self.readout
        tensors |= {"unembed.W_U": unembed, "unembed.b_U": np.array([-self.middle, 0])}
        self.model = case_model(
            {name: torch.tensor(x.copy(), dtype=torch.float32) for name, x in tensors.items()},
            "chain",
            act_fn="relu",
            causal=True,
            vocabulary=["begin", *(f"w{i}" for i in range(1, WORDS))],
            bos=0,
        )
        self.saes = {site: self._reads(number) for number, site in enumerate(SITES)}
        texts = tuple(f"begin w{i}" for i in range(1, WORDS))
        right = tuple((int(sign < 0),) for sign in self.sign)
        wrong = tuple((int(sign > 0),) for sign in self.sign)
        self.task = Task("chain", texts, (), right, wrong, directions=tuple(self.sign.tolist()))
        acts = capture(self.model, self.saes, self.task, progress=False)
        self.fit = CircuitLasso(strengths=(0.5, 0.001), held_out=0.02).fit(acts, target=self.task)

    def _reads(self, number):
        from sae_lens.saes.sae import SAEMetadata
        from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

        name = str(SITES[number])
        metadata = SAEMetadata(model_name="chain", hook_name=name, hook_name_out=name)
        sae = StandardSAE(StandardSAEConfig(d_in=3 * WIDE, d_sae=WIDE, metadata=metadata))
        rows = torch.zeros(WIDE, 3 * WIDE)
        rows[:, number * WIDE : (number + 1) * WIDE] = torch.eye(WIDE)
        with torch.no_grad():
            sae.W_dec.copy_(rows)
            sae.W_enc.copy_(rows.T)
            sae.b_enc.zero_()
            sae.b_dec.zero_()
        return Dictionary(sae.eval().requires_grad_(False), SITES[number], SITES[number], name)

    def by_hand(self, removed):
        """Metric of each prompt without edges (end, u, v); end 3 is the target."""
        mean = [each.mean(0) for each in self.z]
        now = self.z[0]
        for end, W in enumerate(self.weights, 1):
            cut = np.zeros_like(W)
            for _, u, v in (edge for edge in removed if edge[0] == end):
                cut[u, v] = W[u, v]
            now = np.maximum(now @ W + 5 - (now - mean[end - 1]) @ cut, 0)
        now = now.copy()
        for _, u, _ in (edge for edge in removed if edge[0] == 3):
            now[:, u] = mean[2][u]
        return self.metric(now)

    def metric(self, z):
        return self.sign * (z @ self.readout - self.middle)


@pytest.fixture(scope="module")
def chain():
    return Chain()


def all_edges(chain):
    into = [(end, u, v) for end in (1, 2) for u in range(3) for v in range(3)]
    return [edge for edge in into if edge != (1, 0, 1)] + [(3, u, 0) for u in range(3)]


def whole(chain):
    return chain.fit.circuit(0.001, max_features=None, max_edges=None)


def circuit_with(chain, kept):
    """The fit's circuit with the edges `kept` ranked first."""
    full = whole(chain)
    assert len(full.edges) == len(all_edges(chain))
    edges = full.edges.copy()
    ends = {str(site): number for number, site in enumerate(SITES)} | {"target": 3}
    for row, (source, target, *_) in enumerate(edges.tolist()):
        key = ends[full.nodes["site"][target]], full.nodes["index"][source]
        edges["score"][row] = (*key, full.nodes["index"][target]) in kept
    from dataclasses import replace

    return replace(full, edges=edges)


@pytest.mark.parametrize(
    "removed",
    [
        [(1, 0, 0)],
        [(2, 2, 1)],
        [(3, 1, 0)],
        [(1, 0, 0), (1, 2, 1), (2, 0, 0), (2, 1, 0)],  # the second site sees what the first lost
        [(1, 1, 2), (2, 2, 2), (3, 0, 0)],
    ],
)
def test_a_planted_chain_loses_what_its_edges_carry(chain, removed):
    kept = set(all_edges(chain)) - set(removed)
    circuit = circuit_with(chain, kept)
    curve = edge_faithfulness(
        circuit, chain.model, chain.saes, chain.task, chain.fit, sizes=[len(kept)], draws=0,
    )  # fmt: skip
    # float32, metrics of size 30; the ridge of the refit leaves its own share of the weights
    np.testing.assert_allclose(curve.inside[0], chain.by_hand(removed), atol=2e-4)
    np.testing.assert_allclose(curve.outside[0], chain.by_hand(sorted(kept)), atol=2e-4)
    np.testing.assert_allclose(curve.full, chain.by_hand([]), atol=1e-4)
    np.testing.assert_allclose(curve.empty, chain.by_hand(all_edges(chain)), atol=2e-4)
    assert np.abs(curve.inside[0] - curve.full).max() > 0.05


def test_the_ends_are_0_and_1_and_no_edge_removed_is_the_model(chain):
    total = len(all_edges(chain))
    curve = edge_faithfulness(
        whole(chain), chain.model, chain.saes, chain.task, chain.fit, sizes=[0, 5, total], draws=2
    )
    assert curve.faithfulness[[0, -1]].tolist() == [0, 1]
    assert curve.completeness[[0, -1]].tolist() == [1, 0]
    assert curve.random_faithfulness[:, [0, -1]].tolist() == [[0, 1]] * 2
    assert (curve.inside[-1] == curve.full).all()
    text = repr(curve)
    assert "edges at last positions" in text and text.endswith(f"0 to {total} edges)")
    assert curve.table()["size"].tolist() == [0, 5, total]


def test_what_would_fall_below_nothing_is_nothing(chain):
    """A site far below its mean: features have no negative values."""
    from dataclasses import replace

    features = {site: matrix.copy() for site, matrix in chain.fit.rows.features.items()}
    features[SITES[0]].data -= 40.0  # means of the first site fall by 40
    low = replace(chain.fit.rows, features=features)
    fit = replace(chain.fit, rows=low)
    kept = set(all_edges(chain)) - {(1, 0, 0)}
    circuit = circuit_with(chain, kept)
    curve = edge_faithfulness(
        circuit, chain.model, chain.saes, chain.task, fit, sizes=[len(kept)], draws=0
    )
    z1 = chain.z[1].copy()
    lost = chain.weights[0][0, 0] * (chain.z[0][:, 0] - (chain.z[0][:, 0].mean() - 40))
    assert (lost > z1[:, 0]).all()  # so the feature would fall below 0
    z1[:, 0] = 0
    want = chain.metric(z1 @ chain.weights[1] + 5)
    np.testing.assert_allclose(curve.inside[0], want, atol=2e-4)


def test_what_cannot_be_is_refused(chain):
    from dataclasses import replace

    parts = chain.model, chain.saes, chain.task, chain.fit
    with pytest.raises(InputError, match="sizes must be from 0"):
        edge_faithfulness(whole(chain), *parts, sizes=[99])
    other = replace(chain.fit.circuit(0.001), settings={"strength": 0.5})
    with pytest.raises(InputError, match="which this fit has not"):
        edge_faithfulness(other, *parts)
    with pytest.raises(InputError, match="has no strength"):
        edge_faithfulness(replace(other, settings={}), *parts)
    with pytest.raises(InputError, match="Pass the autoencoder"):
        first = {SITES[0]: chain.saes[SITES[0]]}
        edge_faithfulness(whole(chain), chain.model, first, chain.task, chain.fit)
    several = replace(chain.fit, readout={site: chain.fit.readout[SITES[-1]] for site in SITES})
    with pytest.raises(InputError, match="reads='last'"):
        edge_faithfulness(whole(chain), chain.model, chain.saes, chain.task, several)
    with pytest.raises(InputError, match="circuit must be a Circuit"):
        edge_faithfulness(chain.fit, *parts)
