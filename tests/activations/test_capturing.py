"""Capture: rows are what Hugging Face and sae_lens give for each token, batched or not."""

import sys
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict

from benchmarks.demo.tokenizer import build_tokenizer
from circuit_toolkit import capture as package_capture
from circuit_toolkit.activations.activations import MEAN
from circuit_toolkit.activations.budget import estimate_capture
from circuit_toolkit.activations.capture_plan import CapturePlan
from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import Batch, Conventions, load_model, run, token_mask
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import Task, agreement, greater_than, ioi
from circuit_toolkit.tasks.task import trained_on
from tests.same import ROUNDED, assert_same
from tests.tiny import FEATURES, LAYERS, TEXTS, last_logits, residual_sites, tiny_hf

TOL = {"rtol": 1e-4, "atol": 1e-5}


def dense(acts, site, prompt=None):
    matrix = acts.features[site].toarray()
    return matrix if prompt is None else matrix[acts.prompt == prompt]


@pytest.fixture(scope="module")
def acts(tiny, tiny_saes):
    return capture(tiny, tiny_saes, list(TEXTS), progress=False)


@pytest.fixture(scope="module")
def task(tiny):
    return ioi(tiny, n=6, seed=3)


@pytest.fixture(scope="module")
def of_task(tiny, tiny_saes, task):
    return capture(tiny, tiny_saes, task, batch_size=5, progress=False)


def test_features_are_those_of_hugging_faces_hidden_states(tiny, tiny_saes, acts):
    module = tiny_hf()
    for prompt, text in enumerate(TEXTS):
        ids = tiny.tokenize([text]).ids
        with torch.no_grad():
            hidden = module(ids, output_hidden_states=True).hidden_states
        for i in range(LAYERS):  # the last of the hidden states has gone through the final norm
            site = residual_sites()[i]
            expected = tiny_saes[site].sae.encode(hidden[i][0, 1:]).to_dense()  # without <bos>
            np.testing.assert_allclose(dense(acts, site, prompt), expected.numpy(), **TOL)
            assert (expected > 0).any()


def test_rows_are_the_tokens_but_bos_in_order(tiny, acts):
    assert acts.tokens == tiny.words(tiny.tokenize(TEXTS))
    for prompt, words in enumerate(acts.tokens):
        here = acts.position[acts.prompt == prompt]
        assert here.tolist() == list(range(1, len(words)))
    assert len(acts.prompt) == sum(len(words) - 1 for words in acts.tokens)
    assert (np.diff(acts.prompt) >= 0).all()


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_padding_and_the_size_of_batches_do_not_matter(tiny, tiny_saes, acts, batch_size):
    again = capture(tiny, tiny_saes, TEXTS, batch_size=batch_size, progress=False)
    assert again.tokens == acts.tokens
    for name in ("prompt", "position", "groups"):
        np.testing.assert_array_equal(getattr(again, name), getattr(acts, name))
    for site in acts.sites:
        assert (dense(again, site) > 0).tolist() == (dense(acts, site) > 0).tolist()
        np.testing.assert_allclose(dense(again, site), dense(acts, site), **TOL)


def test_batches_of_a_task_join_as_one(tiny, tiny_saes, task, of_task):
    whole = capture(tiny, tiny_saes, task, batch_size=100, progress=False)
    assert set(of_task.named) == set(task.positions) and set(of_task.labels) == set(task.labels)
    for name in ("prompt", "position", "groups"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(of_task, name))
    np.testing.assert_allclose(whole.metric, of_task.metric, **TOL)
    np.testing.assert_array_equal(whole.directions, of_task.directions)
    np.testing.assert_array_equal(whole.directions, [*task.directions] * 2)
    for key in whole.named:
        np.testing.assert_array_equal(whole.named[key], of_task.named[key])
    for key in whole.labels:
        np.testing.assert_array_equal(whole.labels[key], of_task.labels[key])


@pytest.mark.parametrize("positions", ["mean", "last", "S2", "IO"])
def test_capturing_at_positions_equals_pooling_all_tokens(
    tiny, tiny_saes, task, of_task, positions
):
    there = capture(tiny, tiny_saes, task, positions, batch_size=5, progress=False)
    later = of_task.pooled(positions)
    np.testing.assert_array_equal(there.prompt, np.arange(12))
    np.testing.assert_array_equal(later.prompt, there.prompt)
    np.testing.assert_array_equal(later.position, there.position)
    for site in of_task.sites:
        np.testing.assert_allclose(dense(there, site), dense(later, site), **TOL)
    assert there.settings == later.settings
    assert there.settings["positions"] == positions


def test_only_tokens_that_are_kept_are_encoded(tiny, tiny_saes, task, monkeypatch):
    seen, kind = [], type(next(iter(tiny_saes.values())))
    encode = kind.encode
    monkeypatch.setattr(kind, "encode", lambda self, x: seen.append(len(x)) or encode(self, x))
    one = dict(list(tiny_saes.items())[:1])
    capture(tiny, one, task, "last", progress=False)
    assert sum(seen) == len(task.texts), "a token of each prompt"


def test_the_mean_is_taken_after_encoding_and_without_bos(acts):
    pooled = acts.pooled("mean")
    assert (pooled.position == MEAN).all()
    for site in acts.sites:
        for prompt in range(len(TEXTS)):
            expected = dense(acts, site, prompt).mean(axis=0)
            np.testing.assert_allclose(dense(pooled, site)[prompt], expected, **TOL)


def test_last_is_the_last_token(acts):
    pooled = acts.pooled("last")
    for prompt, words in enumerate(acts.tokens):
        assert pooled.position[prompt] == len(words) - 1
        row = dense(acts, acts.sites[1], prompt)[-1]
        np.testing.assert_allclose(dense(pooled, acts.sites[1])[prompt], row)


@pytest.mark.parametrize("position", ["IO", "S1", "S2"])
def test_named_positions_hold_the_word_that_they_name(tiny, of_task, task, position):
    names = task.answers if position == "IO" else task.wrong
    names = [tiny.tokenizer.decode(ids) for ids in names] * 2
    rows = of_task.pooled(position)
    for prompt in range(len(task)):  # clean prompts
        word = rows.tokens[prompt][rows.position[prompt]]
        assert word == names[prompt]
        everywhere = np.flatnonzero(np.array(rows.tokens[prompt]) == word)
        assert rows.position[prompt] == everywhere[-1 if position == "S2" else 0]
    for twin in range(len(task), 2 * len(task)):
        word = rows.tokens[twin][rows.position[twin]]
        assert (word == names[twin]) == (position != "S2")  # a third person gives
        site = rows.sites[0]
        place = dense(of_task, site, twin)[rows.position[twin] - 1]  # -1: no row for <bos>
        np.testing.assert_allclose(dense(rows, site)[twin], place)


def test_named_positions_of_years(tiny, tiny_saes):
    task = greater_than(tiny, n=8, seed=0)
    acts = capture(tiny, tiny_saes, task, "start", progress=False)
    words = [acts.tokens[i][acts.position[i]] for i in range(16)]
    starts = task.labels["start"]
    assert words[:8] == list(starts)
    assert all(early < start for early, start in zip(words[8:], starts, strict=True))


@pytest.mark.parametrize("make", [ioi, greater_than, agreement])
def test_the_metric_is_that_of_hugging_faces_logits(tiny, tiny_saes, make):
    task = make(tiny, n=4, seed=1)
    acts = capture(tiny, tiny_saes, task, batch_size=3, progress=False)
    module = tiny_hf()
    for row, text in enumerate([*task.clean, *task.corrupted]):
        logits = last_logits(module, text)
        right, wrong = list(task.answers[row % 4]), list(task.wrong[row % 4])
        if task.metric == "logit_difference":
            expected = logits[right].mean() - logits[wrong].mean()
        else:
            expected = logits.softmax(0)[right].sum() - logits.softmax(0)[wrong].sum()
        assert acts.metric[row] == pytest.approx(float(expected), abs=2e-5)
    assert acts.groups.tolist() == [0, 1, 2, 3] * 2
    assert np.std(acts.metric) > 1e-4


def test_plain_texts_have_no_metric_and_each_its_own_group(acts):
    assert acts.metric is None and not acts.labels and not acts.named
    assert acts.groups.tolist() == [0, 1, 2, 3]
    assert acts.settings["task"] is None and acts.settings["n_prompts"] == len(TEXTS)


def test_settings_say_where_it_comes_from(of_task, task, tiny_saes):
    assert of_task.settings == {
        "model": "GPT2LMHeadModel",
        "task": task.name,
        "positions": "all",
        "bos": False,
        "dictionaries": {str(site): each.name for site, each in tiny_saes.items()},
        "n_prompts": 12,
        "trained_on": trained_on(task),
    }


def test_special_tokens_make_no_rows_but_for_the_one_before_the_answer(tiny):
    bos, mask = tiny.tokenizer.bos_token_id, [0, 0, 1, 1, 1]
    batch = Batch(torch.tensor([[0, 0, bos, 7, bos], [9, 8, 7, bos, 6]]), torch.tensor([mask] * 2))
    batch.mask[1] = 1
    expected = [[0, 0, 0, 1, 1], [1, 1, 1, 0, 1]]  # the last one counts, packed ones do not
    assert token_mask(tiny, batch).int().tolist() == expected
    alone = Batch(torch.tensor([[0, bos]]), torch.tensor([[0, 1]]))
    assert not token_mask(tiny, alone).any()


def test_the_front_door_is_the_same_function():
    assert package_capture is capture


def test_prompts_can_be_token_ids(tiny, tiny_saes, acts):
    ids = [tiny.tokenizer(text)["input_ids"] for text in TEXTS]
    given = capture(tiny, tiny_saes, ids, progress=False)
    assert_same(given, acts)
    assert_same(capture(tiny, tiny_saes, [tuple(row) for row in ids], progress=False), acts)


def test_dictionaries_say_whether_prompts_begin_with_bos(tiny, tiny_saes, acts):
    texts, site = list(TEXTS), residual_sites()[1]
    bare = Conventions(prepend_bos=False)
    given = {site: replace(tiny_saes[site], conventions=bare)}
    without = capture(tiny, given, texts, progress=False)
    assert without.tokens == [words[1:] for words in acts.tokens]
    assert without.position[0] == 0 and len(without.prompt) == len(acts.prompt)
    value = run(tiny, tiny.tokenize(texts[:1], bos=False), read=[site])[site][0]
    expected = tiny_saes[site].encode(value).numpy()
    np.testing.assert_allclose(dense(without, site, 0), expected, **TOL)
    with pytest.raises(MismatchError):
        capture(tiny, {**tiny_saes, **given}, texts, progress=False)


@pytest.mark.parametrize("positions", ["all", "last"])
def test_a_far_model_gives_the_same(tiny, tiny_saes, task, of_task, positions):
    far = capture(tiny, tiny_saes, task, positions, batch_size=5, remote="local", progress=False)
    assert_same(far, of_task.pooled(positions), ROUNDED)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_float32_features_near_the_exact_ones(tiny_saes, acts, dtype):
    half = load_model(tiny_hf().to(dtype), build_tokenizer(), dtype=dtype)
    assert half.dtype == dtype
    rough = capture(half, tiny_saes, TEXTS, progress=False)
    for site in acts.sites:
        assert rough.features[site].dtype == np.float32
        exact, given = dense(acts, site), dense(rough, site)
        both = (exact > 0) & (given > 0)  # rounding can change which features are the k largest
        assert both.sum() > 0.9 * (exact > 0).sum()
        error = np.linalg.norm((given - exact)[both]) / np.linalg.norm(exact[both])
        assert 0 < error < 3 * torch.finfo(dtype).eps  # one rounding; seen: up to 0.6 of it
        value = run(half, half.tokenize([TEXTS[0]]), read=[site])[site][0, 1:]
        expected = tiny_saes[site].encode(value.float()).numpy()  # no rounding in the encoder
        np.testing.assert_allclose(dense(rough, site, 0), expected, rtol=0.02, atol=0.02)


def test_a_task_of_labels_alone_has_no_metric_and_no_logits(tiny, tiny_saes, monkeypatch):
    seen = []

    def noted(model, batch, read, **options):
        seen.append(set(read))
        return run(model, batch, read, **options)

    monkeypatch.setattr(sys.modules[CapturePlan.__module__], "run", noted)
    labels = {"place": ("store", "cabinet", "time", "none")}
    task = Task("labels", TEXTS, metric=None, labels=labels)
    acts = capture(tiny, tiny_saes, task, batch_size=3, progress=False)
    assert acts.metric is None and seen == [set(tiny_saes)] * 2
    assert acts.labels["place"].tolist() == list(labels["place"])
    assert acts.settings["task"] == "labels" and acts.groups.tolist() == [0, 1, 2, 3]


def test_logits_and_raw_values_of_a_batch_are_let_go(tiny, tiny_saes, task, monkeypatch):
    alive = []

    def noted(*args, **options):
        assert not any(reference() is not None for reference in alive)
        values = run(*args, **options)
        alive.extend(weakref.ref(value) for value in values.values())
        return values

    monkeypatch.setattr(sys.modules[CapturePlan.__module__], "run", noted)
    acts = capture(tiny, tiny_saes, task, batch_size=3, progress=False)
    assert len(alive) == 4 * (len(tiny_saes) + 1) and len(acts.metric) == 12


@pytest.mark.parametrize("rows", [1, 3, 1000])
def test_many_features_are_encoded_piece_by_piece(tiny, tiny_saes, acts, monkeypatch, rows):
    monkeypatch.setattr(sys.modules[CapturePlan.__module__], "DENSE", rows * FEATURES)
    pieces = capture(tiny, tiny_saes, TEXTS, progress=False)
    for site in acts.sites:
        np.testing.assert_allclose(dense(pieces, site), dense(acts, site), **TOL)
        assert pieces.features[site].has_canonical_format  # sorted, and nothing twice
        assert pieces.features[site].indices.dtype == np.int32


def test_what_cannot_be_captured_is_refused(tiny, tiny_saes, task):
    with pytest.raises(InputError, match="No dictionaries"):
        capture(tiny, {}, TEXTS, progress=False)
    with pytest.raises(InputError, match="not one text"):
        capture(tiny, tiny_saes, "Anna", progress=False)
    with pytest.raises(InputError, match="No prompts"):
        capture(tiny, tiny_saes, [], progress=False)
    with pytest.raises(InputError, match="batch_size must be at least 1, got 0"):
        capture(tiny, tiny_saes, TEXTS, batch_size=0, progress=False)
    with pytest.raises(InputError, match="does not know 'zebra'"):
        capture(tiny, tiny_saes, ["the zebra"], progress=False)
    with pytest.raises(InputError, match="positions must be one of 'all', 'mean', 'last', 'S1'"):
        capture(tiny, tiny_saes, task, "S9", progress=False)
    with pytest.raises(InputError, match="one of 'all', 'mean', 'last', got 'S1'"):
        capture(tiny, tiny_saes, TEXTS, "S1", progress=False)


TABLES = {
    "a DataFrame": lambda model: pd.DataFrame({"text": TEXTS}),
    "a dict of lists": lambda model: {"text": list(TEXTS)},
    "what a tokenizer returns": lambda model: model.tokenizer(list(TEXTS)),
    "a dict of splits": lambda model: DatasetDict(train=Dataset.from_dict({"text": list(TEXTS)})),
}
OTHERS = {
    "a model": lambda model, saes, task: (model, saes, model),
    "dictionaries": lambda model, saes, task: (model, saes, saes),
    "texts and dictionaries swapped": lambda model, saes, task: (model, list(TEXTS), saes),
    "a task and dictionaries swapped": lambda model, saes, task: (model, task, saes),
    "a model and dictionaries swapped": lambda model, saes, task: (saes, model, task),
    "a module for a model": lambda model, saes, task: (model.hf, saes, task),
    "numbers for texts": lambda model, saes, task: (model, saes, [1, 2]),
    "nothing": lambda model, saes, task: (model, saes, None),
    "a number for dictionaries": lambda model, saes, task: (model, 3, task),
    "an unknown site": lambda model, saes, task: (model, "resid", task),
}


@pytest.mark.parametrize("verb", [capture, estimate_capture])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_a_table_is_refused_with_the_column_to_pass(tiny, tiny_saes, verb, table):
    with pytest.raises(InputError, match=r"one column of it: data\['(text|input_ids|train)'\]"):
        verb(tiny, tiny_saes, table(tiny), progress=False)


@pytest.mark.parametrize("verb", [capture, estimate_capture])
@pytest.mark.parametrize("given", OTHERS.values(), ids=OTHERS)
def test_other_objects_are_refused(tiny, tiny_saes, task, verb, given):
    with pytest.raises(InputError):
        verb(*given(tiny, tiny_saes, task), progress=False)


def test_columns_arrays_and_iterators_are_texts(tiny, tiny_saes, acts):
    frame = pd.DataFrame({"text": TEXTS})
    column = Dataset.from_pandas(frame)["text"]
    for given in (frame["text"], frame["text"].to_numpy(), iter(TEXTS), column):
        assert_same(capture(tiny, tiny_saes, given, progress=False), acts)


def test_dictionaries_are_taken_as_users_hold_them(tiny, tiny_saes, acts):
    names = {site.short: each for site, each in tiny_saes.items()}
    hooks = {str(site): each for site, each in reversed(tiny_saes.items())}
    for given in (names, hooks, list(tiny_saes.values()), iter(tiny_saes.values())):
        assert_same(capture(tiny, given, TEXTS, progress=False), acts)
    one = capture(tiny, tiny_saes[acts.sites[1]], TEXTS, progress=False)
    assert one.sites == [acts.sites[1]]


def test_features_and_prompts_are_named_or_refused(acts):
    site = acts.sites[1]
    feature = int(acts.features[site].indices[0])
    values = acts.of_prompt(0, site, feature)
    for other in (np.int64(feature), torch.tensor(feature)):
        np.testing.assert_array_equal(acts.of_prompt(np.int32(0), site.short, other), values)
    assert acts.examples(str(site), np.int64(feature)) == acts.examples(site, feature)
    for wrong, said in [
        ((4, site, feature), "no prompt 4: they are 0 to 3"),
        ((0, site, FEATURES), f"no feature {FEATURES}: they are 0 to {FEATURES - 1}"),
        ((0, site, -1), "no feature -1"),
        ((0, "mlp_out 0", 0), "was not captured, only resid_pre 0"),
        ((0.5, site, feature), "prompt must be a whole number, got 0.5"),
    ]:
        with pytest.raises(InputError, match=said):
            acts.of_prompt(*wrong)
    with pytest.raises(InputError, match="was not captured"):
        acts.examples("mlp_out 0", 0)


def test_own_tasks_are_captured_too(tiny, tiny_saes):
    pairs = [
        ("Mary met Anna near the store. Mary gave a ring to", "Anna went home to", "Anna", "Mary")
    ]
    with pytest.warns(UserWarning, match="corrupted prompts have another number of tokens"):
        task = Task.from_pairs(tiny, pairs)
    acts = capture(tiny, tiny_saes, task, progress=False)
    assert acts.n_prompts == 2 and acts.groups.tolist() == [0, 0] and not acts.labels
    assert set(acts.sites) == set(tiny_saes) and Site("resid_pre", 0) in acts.sites
