"""Cards of features of the bundled model against what their parts say by themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.circuit import new_edges, new_nodes
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.dictionaries.directions import decoder_rows, unembedding_rows
from circuit_toolkit.errors import InputError
from circuit_toolkit.features.card import feature_at, feature_card
from circuit_toolkit.features.virtual import virtual_weights
from circuit_toolkit.models import LOGITS, run
from circuit_toolkit.sites import Site

SITE = Site("mlp_in", 2)
NAME = f"{SITE}/5"


class FeatureDescriptions:
    """What the card asks of descriptions."""

    def labels(self):
        return {SITE: [f"label {i}" for i in range(384)]}

    def of(self, site, feature):
        return {"feature": {"site": str(site), "index": feature}, "words": [f"word {feature}"]}


@pytest.fixture(scope="module")
def acts(demo, demo_saes, demo_transcoders):
    texts = [each.text for each in Grammar(5).sentences(60)]
    return ct.capture(demo, {**demo_transcoders, **demo_saes}, texts, progress=False)


def circuit_of() -> Circuit:
    nodes = new_nodes(
        3,
        kind=["feature", "feature", "target"],
        site=[str(Site("mlp_in", 0)), str(SITE), "target"],
        position=["", "last", ""],
        index=[3, 5, 0],
        label=["first", "mine", "logit difference"],
    )
    weight = np.array([0.5, -2.0, 1.0])
    edges = new_edges(3, source=[0, 1, 0], target=[1, 2, 2], weight=weight, score=np.abs(weight))
    return Circuit(nodes, edges)


def test_a_card_of_a_transcoder_feature(demo, demo_transcoders, acts):
    analysis = {"feature": NAME, "n_examples": 3, "clusters": []}
    card = feature_card(
        demo,
        demo_transcoders,
        NAME,
        acts,
        descriptions=FeatureDescriptions(),
        circuits=analysis,
        circuit=circuit_of(),
        n_examples=4,
        n_neighbours=6,
    )
    assert (card.name, card.kind, card.label) == (NAME, "transcoder", "label 5")
    assert card.weight_lens["words"] == ["word 5"] and card.circuit_lens == analysis
    found = [acts.tokens[p] for p in acts.examples(SITE, 5, 4)]
    for line, example in zip(found, card.examples.top, strict=True):
        assert " ".join(example.tokens) in " ".join(line)
    upstream = virtual_weights(demo, demo_transcoders, targets={SITE: [5]}, top=None).top(6)
    assert [each["feature"] for each in card.upstream] == upstream.names("source")
    downstream = virtual_weights(demo, demo_transcoders, sources={SITE: [5]}, top=None).top(6)
    assert [each["feature"] for each in card.downstream] == downstream.names("target")
    assert card.edges == (
        {
            **{"feature": "target:logit difference", "weight": -2.0},
            **{"label": "logit difference", "direction": "out"},
        },
        {"feature": f"{Site('mlp_in', 0)}/3", "weight": 0.5, "label": "first", "direction": "in"},
    )
    assert json.loads(json.dumps(card.to_dict())) == card.to_dict()
    assert "label 5" in repr(card) and card.name in card._repr_html_()


def test_what_tokens_do_alone_and_no_start_in_examples_of_clusters(demo, demo_transcoders, acts):
    some = {site: demo_transcoders[site] for site in list(demo_transcoders)[:1]}
    described = ct.WeightLens("paper").describe(demo, some, progress=False)
    site, index = described.validated()[0]
    example = {"tokens": ["<bos>", "a", "b"], "values": [9.0, 1.0, 2.0], "position": 2}
    analysis = {"n_examples": 1, "clusters": [{"label": 0, "examples": [example]}]}
    card = feature_card(
        *(demo, some, (site, index), acts),
        descriptions=described,
        circuits=analysis,
        circuit=Circuit(circuit_of().nodes, circuit_of().edges, {"method": "CircuitLasso"}),
    )
    first = card.weight_lens["description"][0]
    alone = ct.capture(demo, some, [[demo.bos_id, first["id"]]], "last", progress=False)
    assert first["solo"] == pytest.approx(alone.features[site].toarray()[0, index], rel=1e-5)
    assert first["token"].strip() == card.weight_lens["words"][0]
    assert card.circuit_lens["clusters"][0]["examples"][0]["values"] == [0.0, 1.0, 2.0]
    assert example["values"][0] == 9.0 and card.settings["circuit"] == "CircuitLasso"


def test_logit_effects_are_what_the_decoder_does_to_logits(demo, demo_transcoders, acts):
    card = feature_card(demo, demo_transcoders, NAME, acts, n_neighbours=0)
    effects = unembedding_rows(demo) @ decoder_rows(demo, demo_transcoders[SITE])[5]
    effects = effects - effects.mean()
    ids = effects.argsort(descending=True)[:10].tolist()
    assert [each["id"] for each in card.logits["promoted"]] == ids
    assert card.logits["suppressed"][0]["value"] == pytest.approx(effects.min().item(), rel=1e-5)
    # a small step along the decoder at the last stream moves these logits in this order
    last = Site("resid_post", demo.n_layers - 1)
    batch = demo.tokenize(["Mary went to the"])
    step = 1e-2 * decoder_rows(demo, demo_transcoders[SITE])[5]
    before = run(demo, batch, [LOGITS])[LOGITS][0, -1]
    after = run(demo, batch, [LOGITS], {last: lambda x: x + step})[LOGITS][0, -1]
    moved = after - before
    correlation = torch.corrcoef(torch.stack([moved, effects]))[0, 1]
    assert correlation > 0.9  # the norm's factor moves too
    assert card.upstream == card.downstream == ()


def test_a_card_of_an_autoencoder_feature_among_all(demo, demo_saes, demo_transcoders, acts):
    every = {**demo_saes, **demo_transcoders}
    around = {site: each for site, each in every.items() if 1 <= site.layer <= 3}
    card = feature_card(demo, around, "resid_post 2/9", acts, descriptions=FeatureDescriptions())
    assert card.kind == "sae" and card.weight_lens is None and card.label == ""
    near = {feature_at(each["feature"])[0].layer for each in (*card.upstream, *card.downstream)}
    assert near <= {1, 2, 3} and card.upstream and card.downstream
    assert not card.edges and card.circuit_lens is None


def test_tokens_that_nobody_says_are_no_effects(demo, demo_transcoders, acts):
    unsaid = set(demo.tokenizer.all_special_ids) - {demo.tokenizer.eos_token_id}
    site = Site("mlp_in", 3)
    effects = decoder_rows(demo, demo_transcoders[site]) @ unembedding_rows(demo).T  # (F, V)
    best = effects.topk(10, dim=1).indices
    feature = next(i for i, ids in enumerate(best.tolist()) if unsaid & set(ids))
    card = feature_card(demo, demo_transcoders, (site, feature), acts)
    assert not unsaid & {row["id"] for row in card.logits["promoted"]}
    assert len(card.logits["promoted"]) == 10


def test_a_page_is_written_whole(demo, demo_transcoders, acts, tmp_path):
    card = feature_card(demo, demo_transcoders, (SITE, 5), acts)
    path = card.to_html(tmp_path / "card.html")
    assert path.read_text(encoding="utf-8") == card.to_html()


def test_what_cannot_be_is_refused(demo, demo_transcoders, acts):
    def card(feature=NAME, dictionaries=demo_transcoders, with_acts=acts, **more):
        return feature_card(demo, dictionaries, feature, with_acts, **more)

    with pytest.raises(InputError, match="names no feature"):
        card("mlp_in 2/x")
    with pytest.raises(InputError, match="names no feature"):
        card((SITE, 5.5))
    for n in (-1, 1.5):
        with pytest.raises(InputError, match="n_neighbours must be"):
            card(n_neighbours=n)
    with pytest.raises(InputError, match="not a site"):
        card("somewhere/3")
    with pytest.raises(InputError, match="features 0 to 383, got 384"):
        card("mlp_in 2/384")
    with pytest.raises(InputError, match="No dictionary was given for blocks.2.hook_resid_post"):
        card("resid_post 2/3")
    few = ct.capture(demo, {Site("mlp_in", 0): demo_transcoders[Site("mlp_in", 0)]}, ["the dog"])
    with pytest.raises(InputError, match="was not captured"):
        card(with_acts=few)
    with pytest.raises(InputError, match="not every token"):
        card(with_acts=acts.pooled("last"))
    with pytest.raises(InputError, match="circuits is of blocks.2.ln2.hook_normalized/6"):
        card(circuits={"feature": f"{SITE}/6", "clusters": []})
