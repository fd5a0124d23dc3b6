"""Effects of replacing heads, against Hugging Face's own modules with hooks written here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks.demo.head_effects import head_effects
from benchmarks.demo.tokenizer import build_tokenizer
from circuit_toolkit.benchmark.heads.effects import KINDS, HeadEffects
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.tasks import Task
from tests.resealed import resealed
from tests.tiny import LAYERS, task_it_does, tiny_hf

HEADS, D_HEAD = 4, 8
TEXTS = [
    "when Mary and John went to the store, John gave a drink to",
    "the boys near the cabinet",
    "the war lasted from the year 1732 to the year 17",
]
TWINS = [
    "when Mary and John went to the store, Tom gave a ring the",
    "the boys under the doctor",
    "the war lasted from the year 1701 to the year to",
]


@pytest.fixture(scope="module")
def task() -> Task:
    return task_it_does(TEXTS, TWINS)


@pytest.fixture(scope="module")
def effects(tiny, task) -> HeadEffects:
    return head_effects(tiny, task)


class Oracle:
    """One prompt at a time through Hugging Face's model; nothing of the toolkit."""

    def __init__(self):
        self.module, self.tokenizer = tiny_hf(), build_tokenizer()

    def run(self, text, layer=None, edit=None):
        """Logits at the last token, z of every layer (T, H * d) and the stream before `ln_f`.

        `edit` maps z of a layer and what it writes to what shall be written.
        """
        z, stream, handles = {}, [], []
        blocks = self.module.transformer.h
        for number, block in enumerate(blocks):

            def hook(module, args, out, number=number):
                z[number] = args[0][0]
                return edit(args[0][0], out[0])[None] if number == layer else out

            handles.append(block.attn.c_proj.register_forward_hook(hook))
        final = self.module.transformer.ln_f
        handles.append(final.register_forward_pre_hook(lambda _, args: stream.append(args[0][0])))
        try:
            with torch.no_grad():
                ids = self.tokenizer([text], return_tensors="pt")["input_ids"]
                logits = self.module(ids).logits[0, -1]
        finally:
            for handle in handles:
                handle.remove()
        return logits, z, stream[0]

    def written(self, z, layer, head):
        """What a head writes, (T, D): its part of z through its rows of W_O, without the bias."""
        rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
        return z[:, rows] @ self.module.transformer.h[layer].attn.c_proj.weight[rows]


@pytest.fixture(scope="module")
def expected(task) -> dict[str, np.ndarray]:
    """Mean change of the metric by kind, (L, H) each, and the gap."""
    oracle = Oracle()
    with torch.no_grad():
        clean = [oracle.run(text) for text in TEXTS]
        twins = [oracle.run(text) for text in TWINS]

        def metric(logits, i):
            return float(logits[task.answers[i][0]] - logits[task.wrong[i][0]])

        before = np.array([metric(logits, i) for i, (logits, *_) in enumerate(clean)])
        after = np.array([metric(logits, i) for i, (logits, *_) in enumerate(twins)])
        found = {kind: np.zeros((LAYERS, HEADS)) for kind in KINDS}
        for layer, head in np.ndindex(LAYERS, HEADS):
            # mean over the tokens of a prompt but the first, <bos>; then over prompts
            mean = torch.stack(
                [oracle.written(z[layer], layer, head)[1:].mean(0) for _, z, _ in clean]
            ).mean(0)
            for i, text in enumerate(TEXTS):
                theirs = oracle.written(twins[i][1][layer], layer, head)

                def resampled(z, out, layer=layer, head=head, theirs=theirs):
                    return out - oracle.written(z, layer, head) + theirs

                def to_mean(z, out, layer=layer, head=head, mean=mean):
                    changed = out - oracle.written(z, layer, head) + mean
                    return torch.cat([out[:1], changed[1:]])

                for kind, edit in (("resample", resampled), ("mean", to_mean)):
                    logits = oracle.run(text, layer, edit)[0]
                    found[kind][layer, head] += (metric(logits, i) - before[i]) / len(TEXTS)
                _, z, stream = clean[i]
                read = stream - oracle.written(z[layer], layer, head) + theirs
                logits = oracle.module.lm_head(oracle.module.transformer.ln_f(read))[-1]
                found["direct"][layer, head] += (metric(logits, i) - before[i]) / len(TEXTS)
    return {**found, "gap": (before - after).mean()}


@pytest.mark.parametrize("kind", KINDS)
def test_effects_are_those_of_hooks_on_the_plain_model(effects, expected, kind):
    assert np.abs(expected[kind]).max() > 0.05, "an oracle of zeros would show nothing"
    # Logits of some 10 in single precision, run in batches of other sizes.
    np.testing.assert_allclose(effects.mean[kind], expected[kind], atol=2e-4)


def test_the_gap_is_what_the_twins_lose(effects, expected):
    assert effects.gap == pytest.approx(expected["gap"], abs=2e-4)
    share = -expected["resample"] / expected["gap"]
    np.testing.assert_allclose(effects.share(), share, atol=2e-4 / expected["gap"])


def test_intervals_hold_the_mean_and_close_where_prompts_are_the_same(tiny, effects):
    for kind in KINDS:
        assert (effects.low[kind] <= effects.mean[kind] + 1e-9).all()
        assert (effects.high[kind] >= effects.mean[kind] - 1e-9).all()
        assert (effects.high[kind] > effects.low[kind]).any()
    same = head_effects(tiny, task_it_does(TEXTS[:1] * 3, TWINS[:1] * 3))
    np.testing.assert_allclose(same.low["resample"], same.high["resample"], atol=2e-4)


def test_the_first_prompts_are_used(tiny, task, effects):
    one = head_effects(tiny, task, n_prompts=1)
    assert one.settings["n_prompts"] == 1 and effects.settings["n_prompts"] == 3
    alone = head_effects(tiny, task.subset(1))
    np.testing.assert_allclose(one.mean["mean"], alone.mean["mean"], atol=1e-5)


def test_the_last_layer_has_its_mlp_between_it_and_the_logits(effects):
    # What the logits read of a head directly is not all that it does.
    assert np.abs(effects.mean["resample"] - effects.mean["direct"])[-1].max() > 1e-3


def test_reference_heads_by_hand():
    mean = np.array([[-0.5, -0.01], [0.3, -0.5]])
    low, high = mean - 0.1, mean + np.array([[0.1, 0.005], [0.1, 0.6]])
    tables = [{kind: values for kind in KINDS} for values in (mean, low, high)]
    effects = HeadEffects(*tables, gap=1.0, settings={})
    # 0.1 makes too little, 1.1 might as well make nothing, 1.0 works against the task
    assert effects.reference().tolist() == [[True, False], [True, False]]
    assert effects.reference(0.005).tolist() == [[True, True], [True, False]]
    assert effects.share("direct").tolist() == [[0.5, 0.01], [-0.3, 0.5]]
    circuit = effects.circuit()
    assert circuit.nodes["label"].tolist() == ["a0.h0", "a1.h0", "target"]
    np.testing.assert_allclose(circuit.nodes["score"], [0.5, 0.3, 0.0], rtol=1e-6)
    with pytest.raises(InputError, match="resample, direct, mean"):
        effects.reference(kind="zero")


def test_what_is_saved_is_read_back_to_four_digits(effects, tmp_path):
    path = effects.save(tmp_path / "effects.json")
    read = HeadEffects.load(path)
    for name in ("mean", "low", "high"):
        for kind in KINDS:
            before, after = getattr(effects, name)[kind], getattr(read, name)[kind]
            np.testing.assert_allclose(after, before, rtol=1e-3)
    assert read.settings == effects.settings and read.gap == pytest.approx(effects.gap, rel=1e-3)
    np.testing.assert_array_equal(read.reference(0.0), effects.reference(0.0))
    assert [each.name for each in tmp_path.iterdir()] == ["effects.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("low"),
        lambda document: document["mean"].pop("direct"),
        lambda document: document["mean"].update(direct=[[1.0]]),
        lambda document: document["high"].update(mean=[[1.0, 2.0], [3.0]]),
        lambda document: document["high"].update(mean=[1.0, 2.0]),
        lambda document: document.update(gap=0),
        lambda document: document.update(gap="wide"),
        lambda document: document.update(settings=[]),
        lambda document: document["low"]["mean"][0].__setitem__(0, float("nan")),
    ],
)
def test_a_damaged_file_is_refused(effects, tmp_path, damage):
    path = effects.save(tmp_path / "effects.json")
    document = json.loads(path.read_text())
    damage(document)
    path.write_text(json.dumps(resealed(document)))
    with pytest.raises(FileFormatError, match="no head effects|NaN is not JSON"):
        HeadEffects.load(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "effects.json"
    path.write_text(text)
    with pytest.raises(FileFormatError, match="holds no head_effects|not readable JSON"):
        HeadEffects.load(path)


def test_a_task_without_metric_or_twins_or_gap_is_refused(tiny):
    labels = Task("labels", tuple(TEXTS), tuple(TWINS), metric=None, labels={"x": ("a",) * 3})
    with pytest.raises(InputError, match="labels alone"):
        head_effects(tiny, labels)
    with pytest.raises(InputError, match="corrupted"):
        head_effects(tiny, task_it_does(TEXTS))
    swapped = task_it_does(TEXTS, TWINS)
    backwards = Task("easy", tuple(TWINS), tuple(TEXTS), swapped.answers, swapped.wrong)
    with pytest.raises(InputError, match="no better than its corrupted prompts"):
        head_effects(tiny, backwards)
