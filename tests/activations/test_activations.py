"""Tables of activations: pooled, averaged and looked into, on numbers made by hand."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from circuit_toolkit import capture
from circuit_toolkit.activations.activations import MEAN, TOKEN_BYTES, Activations, joined
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site
from tests.same import assert_same
from tests.tiny import TEXTS

SITE = Site("resid_post", 0)
TOKENS = [["<bos>", "a", "b"], ["<bos>", "c"], ["<bos>", "a", "b"], ["<bos>", "d", "d", "e"]]
VALUES = np.array(
    # feature 0, 1, 2 of every token but <bos>
    [[1, 0, 0], [3, 2, 0], [0, 5, 0], [2, 0, 0], [9, 0, 0], [0, 1, 0], [0, 1, 0], [4, 4, 0]],
    dtype=np.float32,
)


@pytest.fixture
def acts():
    return Activations(
        features={SITE: sp.csr_array(VALUES)},
        prompt=np.array([0, 0, 1, 2, 2, 3, 3, 3]),
        position=np.array([1, 2, 1, 1, 2, 1, 2, 3]),
        tokens=TOKENS,
        groups=np.array([0, 1, 0, 1]),
        named={"verb": np.array([1, 1, 2, 3])},
    )


def test_pooling_by_hand(acts):
    mean = acts.pooled("mean").features[SITE].toarray()
    np.testing.assert_allclose(mean, [[2, 1, 0], [0, 5, 0], [5.5, 0, 0], [4 / 3, 2, 0]])
    last = acts.pooled("last").features[SITE].toarray()
    np.testing.assert_array_equal(last, VALUES[[1, 2, 4, 7]])
    verb = acts.pooled("verb")
    np.testing.assert_array_equal(verb.features[SITE].toarray(), VALUES[[0, 2, 4, 7]])
    np.testing.assert_array_equal(verb.position, acts.named["verb"])
    assert acts.pooled("all") is acts
    assert acts.pooled("mean").pooled("mean").settings["positions"] == "mean"


def test_a_place_that_was_not_captured_is_zero(acts):
    at_bos = replace(acts, named={"bos": np.zeros(4, int)}).pooled("bos")
    assert not at_bos.features[SITE].toarray().any()


@pytest.mark.parametrize("first", ["mean", "last", "verb"])
def test_rows_that_were_pooled_are_not_pooled_again(acts, first):
    once = acts.pooled(first)
    for other in {"mean", "last", "verb", "all"} - {first}:
        with pytest.raises(InputError, match=f"captured as positions='{first}'"):
            once.pooled(other)


def test_unknown_positions_are_refused_with_what_there_is(acts):
    with pytest.raises(InputError, match="one of 'verb', 'mean', 'last', got 'noun'"):
        acts.pooled("noun")


def test_means_are_over_rows(acts):
    np.testing.assert_allclose(acts.means()[SITE], VALUES.mean(axis=0))
    pooled = acts.pooled("mean")
    np.testing.assert_allclose(pooled.means()[SITE], pooled.features[SITE].toarray().mean(axis=0))


def test_a_feature_on_a_prompt_is_zero_at_bos(acts):
    assert acts.of_prompt(0, SITE, 0).tolist() == [0, 1, 3]
    assert acts.of_prompt(3, SITE, 1).tolist() == [0, 1, 1, 4]
    assert acts.pooled("last").of_prompt(0, SITE, 0).tolist() == [0, 0, 3]
    for prompt in (-1, 4):
        with pytest.raises(InputError, match="they are 0 to 3"):
            acts.of_prompt(prompt, SITE, 0)
    with pytest.raises(InputError, match="Means have no tokens"):
        acts.pooled("mean").of_prompt(0, SITE, 0)


def test_examples_are_the_strongest_prompts_no_text_twice(acts):
    assert acts.examples(SITE, 0) == [2, 3]  # prompt 0 has the text of prompt 2
    assert acts.examples(SITE, 1) == [1, 3, 0]
    assert acts.examples(SITE, 1, n=1) == [1]
    assert acts.examples(SITE, 1, n=0) == []
    assert acts.examples(SITE, 2) == []
    assert acts.pooled("mean").examples(SITE, 1) == [1, 3, 0]


def test_tables_that_do_not_go_together_are_refused(acts):
    with pytest.raises(InputError, match="has 7 rows, expected 8"):
        replace(acts, features={SITE: sp.csr_array(VALUES[:7])})
    with pytest.raises(InputError, match="metric has 8 entries for 4 prompts"):
        replace(acts, metric=np.zeros(8))
    with pytest.raises(InputError, match="groups has 3 entries for 4 prompts"):
        replace(acts, groups=np.zeros(3))


def full(acts):
    """With every optional table."""
    return replace(
        acts,
        metric=np.array([0.5, -1, 2, 0], dtype=np.float32),
        directions=np.array([1, -1, 1, -1]),
        labels={"class": np.array(["a", "b", "a", "long"])},
    )


@pytest.mark.parametrize("cuts", [[0, 4], [0, 1, 4], [0, 1, 2, 3, 4]])
@pytest.mark.parametrize("make", [full, lambda acts: acts, lambda acts: acts.pooled("last")])
def test_parts_join_to_the_whole(acts, make, cuts):
    whole = make(acts)
    parts = [whole.part(*ends) for ends in zip(cuts, cuts[1:], strict=False)]
    assert [part.n_prompts for part in parts] == np.diff(cuts).tolist()
    for part in parts:
        assert part.prompt.min() == 0 and part.prompt.max() == part.n_prompts - 1
    assert_same(joined(parts), whole)
    assert parts == []  # so that what was joined is let go of


def test_a_part_is_the_rows_of_its_prompts(acts):
    part = full(acts).part(1, 3)
    np.testing.assert_array_equal(part.features[SITE].toarray(), VALUES[[2, 3, 4]])
    assert part.prompt.tolist() == [0, 1, 1] and part.tokens == TOKENS[1:3]
    assert part.groups.tolist() == [1, 0] and part.metric.tolist() == [-1, 2]
    assert part.directions.tolist() == [-1, 1] and part.labels["class"].tolist() == ["b", "a"]
    assert part.named["verb"].tolist() == [1, 2]


def test_it_is_its_own_shard(acts):
    assert list(acts.shards()) == [acts]


def test_its_bytes_are_counted(acts):
    rows, fired, tokens = len(VALUES), np.count_nonzero(VALUES), sum(map(len, TOKENS))
    csr = 4 * fired + 4 * fired + 4 * (rows + 1)  # float32, int32, int32
    assert acts.nbytes == csr + 2 * 8 * rows + TOKEN_BYTES * tokens


def test_it_prints_its_size(acts):
    assert repr(acts) == "Activations(8 rows of 4 prompts at resid_post 0)"
    assert MEAN not in acts.position


def test_a_token_of_outlying_size_is_told_by_the_sum_of_its_activations(acts):
    """Sums are 1, 5, 5, 2, 9, 1, 1, 8, of which the lower middle one is 2: from 40 on it shows."""
    assert acts.inlying(SITE).all()
    for size, usual in ((40, True), (41, False)):
        values = VALUES.copy()
        values[2] = [size - 5, 5, 0]  # the 5 was the fifth in order, so the middle stays
        loud = replace(acts, features={SITE: sp.csr_array(values)})
        assert loud.inlying(str(SITE)).tolist() == [True, True, usual, *[True] * 5]
        assert loud.examples(SITE, 0, 1) == [1 if usual else 2]  # else the 9 of the third prompt


def test_the_sign_and_silent_tokens_do_not_matter_to_the_usual_size(acts):
    values = np.zeros((8, 3), np.float32)
    assert replace(acts, features={SITE: sp.csr_array(values)}).inlying(SITE).all()
    values[0], values[1], values[2, 0] = -100, 100, 1  # 300, 300, 1, and five that are silent
    values[3, 0] = values[4, 0] = 1
    loud = replace(acts, features={SITE: sp.csr_array(values)})
    assert loud.inlying(SITE).tolist() == [False, False, *[True] * 6]


def test_a_sink_that_is_half_of_a_prompt_is_outlying():
    values = sp.csr_array(np.array([[900.0, 900], [0, 3]]))
    two = Activations({SITE: values}, np.zeros(2, int), np.arange(2), [["The", "cat"]], np.zeros(1))
    assert two.inlying(SITE).tolist() == [False, True]


@pytest.mark.parametrize("positions", ["last", "mean"])
def test_rows_that_are_not_all_tokens_are_of_usual_size(acts, positions):
    values = VALUES.copy()
    values[2] = 1000
    loud = replace(acts, features={SITE: sp.csr_array(values)})
    assert not loud.inlying(SITE).all()
    assert loud.pooled(positions).inlying(SITE).all()


def test_a_site_that_was_not_captured_has_no_sizes(acts):
    with pytest.raises(InputError, match="was not captured"):
        acts.inlying("mlp_in 3")


@pytest.mark.parametrize("positions", [7, [], None])
def test_positions_are_one_or_several(tiny, tiny_saes, positions):
    acts = capture(tiny, tiny_saes, TEXTS, progress=False)
    for verb in (
        acts.pooled,
        lambda where: capture(tiny, tiny_saes, TEXTS, where, progress=False),
    ):
        with pytest.raises(InputError, match="'last', or a list of some, got"):
            verb(positions)


def test_a_prompt_stands_as_it_was_given(tiny, tiny_saes, tmp_path):
    texts = ["the boys  near the cabinet", "Anna went to the store"]
    acts = capture(tiny, tiny_saes, texts, progress=False)
    assert [acts.text(i) for i in range(2)] == texts
    assert acts.part(1, 2).text(0) == acts.pooled("last").text(1) == texts[1]
    stored = capture(tiny, tiny_saes, texts, store=tmp_path / "store", batch_size=1, progress=False)
    assert stored.load().texts == texts
    ids = [tiny.tokenizer(text)["input_ids"] for text in texts]
    assert "boys near" in capture(tiny, tiny_saes, ids, progress=False).text(0)


def test_without_its_text_a_prompt_is_its_tokens_put_together(acts):
    bare = replace(acts, texts=None)
    assert bare.text(0) == " ".join(acts.tokens[0])
    spaced = replace(bare, tokens=[["The", " cat", "s"]] * acts.n_prompts)
    assert spaced.text(0) == "The cats"
    with pytest.raises(InputError, match="no prompt 99999"):
        acts.text(99999)
