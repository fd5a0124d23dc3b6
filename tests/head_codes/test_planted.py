"""Head codes through capture: a model whose heads are known by construction, and a trained one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import circuit_toolkit as ct
from benchmarks.demo.head_effects import head_effects
from circuit_toolkit.attribution.heads import head_outputs
from circuit_toolkit.benchmark.heads.comparison import differences
from circuit_toolkit.benchmark.metrics import roc_auc
from circuit_toolkit.head_codes import HeadCodes
from circuit_toolkit.models import Model, load_model
from tests.families import SPECIAL, WORDS, word_tokenizer

LAYERS, HEADS, D_HEAD, WIDTH = 3, 4, 16, 64
PLANTED = [(0, 1), (1, 2), (2, 3)]
KEYS, NEUTRAL, ANSWERS = ("cat", "dog"), "bird", ("sat", "sang")
OTHERS = [word for word in WORDS if word not in {*KEYS, NEUTRAL, *ANSWERS}]
# Parts of the stream: what a key is, what other words are, what is answered, what others write.
KEY, WORD, ANSWER, REST = slice(0, 8), slice(8, 24), slice(24, 32), slice(32, 64)


def planted_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """Heads that attend to all tokens alike and copy: three from key to answer, the others noise.

    The LayerNorms' epsilon is so large that they only centre, so a head that does not read the key
    writes the same on a prompt and its corrupted prompt.
    """
    rng = torch.Generator().manual_seed(seed)
    vocabulary = [*SPECIAL, *WORDS]
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=16,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=1,
        eos_token_id=2,
        layer_norm_epsilon=1e6,
    )
    module = GPT2LMHeadModel(config).eval()

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng)

    def centred(rows: torch.Tensor, length: float) -> torch.Tensor:
        rows = rows - rows.mean(1, keepdim=True)
        return length * rows / rows.norm(dim=1, keepdim=True)

    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.fill_(2e3 if "ln_" in name and name.endswith("weight") else 0.0)
        words = module.transformer.wte.weight
        words[:, WORD] = centred(random(len(vocabulary), 16), 4.0)
        key_rows = [vocabulary.index(word) for word in (*KEYS, NEUTRAL)]
        answer_rows = [vocabulary.index(word) for word in ANSWERS]
        words[key_rows + answer_rows] = 0
        words[key_rows, KEY] = centred(random(3, 8), 4.0)
        words[answer_rows, ANSWER] = centred(random(2, 8), 4.0)
        keys, answers = words[key_rows, KEY], words[answer_rows, ANSWER]
        says = torch.linalg.pinv(keys) @ torch.cat([answers, 0 * answers[:1]])  # (8, 8)
        for layer, block in enumerate(module.transformer.h):
            for head in range(HEADS):
                own = slice(head * D_HEAD, (head + 1) * D_HEAD)
                values = block.attn.c_attn.weight[:, 2 * WIDTH + own.start : 2 * WIDTH + own.stop]
                writes = block.attn.c_proj.weight[own]  # (d_head, D)
                if (layer, head) in PLANTED:
                    values[KEY, :8] = torch.eye(8)
                    writes[:8, ANSWER] = 3 * says
                else:
                    values[WORD] = torch.linalg.qr(random(16, 16))[0]
                    writes[:, REST] = centred(random(16, 32), 0.5)
    return module


@pytest.fixture(scope="module")
def planted() -> Model:
    return load_model(planted_gpt2(), word_tokenizer())


@pytest.fixture(scope="module")
def task(planted) -> ct.Task:
    rng = np.random.default_rng(0)
    clean, twins, answers, wrong = [], [], [], []
    says = [planted.token_id(word) for word in ANSWERS]
    for number in range(40):
        around = rng.choice(OTHERS, 6).tolist()
        place, which = int(rng.integers(0, 6)), number % 2
        for into, key in ((clean, KEYS[which]), (twins, NEUTRAL)):
            into.append(" ".join([*around[:place], key, *around[place:]]))
        answers.append((says[which],))
        wrong.append((says[1 - which],))
    return ct.Task("planted", tuple(clean), tuple(twins), tuple(answers), tuple(wrong))


def mask(shape: tuple[int, int], heads: list[tuple[int, int]]) -> np.ndarray:
    found = np.zeros(shape, dtype=bool)
    found[tuple(np.transpose(heads))] = True
    return found


def test_the_planted_heads_are_what_the_task_needs(planted, task):
    effects = head_effects(planted, task)
    assert np.argwhere(effects.reference()).tolist() == [list(head) for head in PLANTED]
    # Each of the three writes straight to the logits, and nothing else does.
    for kind in ("resample", "direct"):
        assert effects.share(kind)[effects.reference()].min() > 0.3


@pytest.mark.parametrize(
    "codes",
    [
        HeadCodes(n_features=40, n_seeds=2, steps=300),
        HeadCodes(n_features=40, n_seeds=2, steps=300, positions="mean"),
        HeadCodes(n_features=40, n_seeds=2, steps=300, score="unique"),
        HeadCodes.published(n_features=40, n_seeds=2),
    ],
    ids=["default", "mean over tokens", "unique codes", "published"],
)
def test_the_planted_heads_are_recovered(planted, task, codes):
    bos = codes.positions == "mean"
    where = codes.positions_of(task)
    acts = ct.capture(planted, "head_out", task, where, bos=bos, progress=False)
    fit = codes.fit(acts, task)
    truth = mask((LAYERS, HEADS), PLANTED).ravel()
    assert roc_auc(truth, fit.scores.ravel()) == 1.0
    three = fit.predict(n_heads=3)
    assert three.nodes["label"].tolist()[:-1] == ["a0.h1", "a1.h2", "a2.h3"]


@pytest.fixture(scope="module")
def induction(shared_data) -> Model:
    """The trained heads, one a layer, each with three random ones beside it that write little."""
    from safetensors.torch import load_file

    from circuit_toolkit.benchmark.interpbench.model import LAYOUT, small_transformer

    weights = load_file(shared_data / "models" / "induction_gbmi26.safetensors")
    rng = torch.Generator().manual_seed(0)
    for layer in range(2):
        for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"):
            key = f"blocks.{layer}.attn.{name}"
            trained = weights[key]
            size = 0.02 if name == "W_O" else 1.0
            others = torch.randn(3, *trained.shape[1:], generator=rng)
            others = others * trained.pow(2).mean().sqrt() * size
            weights[key] = torch.cat([trained, others])
        for name, shape in (("W_in", (64, 1)), ("b_in", 1), ("W_out", (1, 64)), ("b_out", 64)):
            weights[f"blocks.{layer}.mlp.{name}"] = torch.zeros(shape)  # it has attention alone
    module = small_transformer(weights, "induction", act_fn="relu", causal=True)
    tokenizer = letters_tokenizer()
    return load_model(module, tokenizer, architecture=LAYOUT)


def letters_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {chr(ord("a") + number): number for number in range(26)}
    tokenizer = Tokenizer(models.WordLevel(letters))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="a")


@pytest.fixture(scope="module")
def repeats(induction) -> ct.Task:
    """`. . A B . . . A` asks for B; corrupted, another letter stands where A was first."""
    rng = np.random.default_rng(0)
    clean, twins, answers, wrong, after = [], [], [], [], []
    for _ in range(60):
        letters = rng.permutation(26)
        row, place = letters[:8].copy(), int(rng.integers(1, 5))
        row[7] = row[place]
        other = row.copy()
        other[place] = letters[9]
        for into, each in ((clean, row), (twins, other)):
            into.append(" ".join(chr(ord("a") + number) for number in each.tolist()))
        answers.append((int(row[place + 1]),))
        wrong.append((int(row[place + 2]),))
        after.append(place + 1 - 8)
    return ct.Task(
        "induction",
        tuple(clean),
        tuple(twins),
        tuple(answers),
        tuple(wrong),
        positions={"after": tuple(after)},
    )


def test_the_induction_model_shows_its_two_heads(induction, repeats):
    truth = mask((2, 4), [(0, 0), (1, 0)])
    effects = head_effects(induction, repeats)
    assert (effects.reference(0.1) == truth).all()
    acts = ct.capture(induction, "head_out", repeats, progress=False)
    small: dict = {"n_features": 40, "n_seeds": 2}
    for codes in (HeadCodes(positions="mean", **small), HeadCodes.published(**small)):
        fit = codes.fit(acts, repeats)
        assert roc_auc(truth.ravel(), fit.scores.ravel()) == 1.0
        assert fit.predict(n_heads=2).nodes["label"].tolist()[:-1] == ["a0.h0", "a1.h0"]


def test_a_head_is_seen_only_where_it_acts(induction, repeats):
    # The head that looks one token back acts behind the first A, the other at the last token.
    acts = ct.capture(induction, "head_out", repeats, progress=False)
    small: dict = {"n_features": 40, "n_seeds": 2}
    last = HeadCodes(positions="last", **small).fit(acts, repeats).scores
    after = HeadCodes(positions="after", **small).fit(acts, repeats).scores
    assert last[0, 0] < 1e-3 * last[1, 0]
    assert after[0, 0] > 0.1 * after[1, 0]
    # Of all tokens, the last and those that the task names are taken: both are seen.
    both = HeadCodes(**small).fit(acts, repeats)
    assert both.settings["positions"] == ["last", "after"]
    assert both.predict(n_heads=2).nodes["label"].tolist()[:-1] == ["a0.h0", "a1.h0"]
    # What stands before the change is no news: with it codes are trained on the same rows.
    first = HeadCodes(positions=["last", "after", "first"], **small)
    named = {**repeats.positions, "first": tuple(-8 for _ in repeats.clean)}
    task = replace(repeats, positions=named)
    more = first.fit(ct.capture(induction, "head_out", task, progress=False), task)
    np.testing.assert_allclose(more.scores, both.scores, rtol=1e-5)
    same = ct.capture(induction, "head_out", repeats, ["last", "after"], progress=False)
    np.testing.assert_allclose(HeadCodes(**small).fit(same, repeats).scores, both.scores, rtol=1e-5)


def test_differences_and_unique_codes_count_every_position(induction, repeats):
    where = ["last", "after"]
    acts = ct.capture(induction, "head_out", repeats, where, progress=False)
    outputs, n = head_outputs(acts, 4), len(repeats)
    assert outputs.shape[:4] == (2 * n, 2, 2, 4)
    each = [
        head_outputs(ct.capture(induction, "head_out", repeats, at, progress=False), 4)[:, 0]
        for at in where
    ]
    for position, values in enumerate(each):
        np.testing.assert_allclose(outputs[:, position], values, atol=1e-6)
    moved = np.stack([x[:n] - x[n:] for x in each])  # (positions, n, L, H, D)
    norm = np.sqrt(np.square(moved).sum((0, 4)))
    np.testing.assert_allclose(differences(outputs)[1], norm.mean(0), rtol=1e-5)
    whole = np.sqrt(np.square(moved.mean(1)).sum((0, 3)))
    np.testing.assert_allclose(differences(outputs)[0], whole, rtol=1e-5)
    # The head that looks one token back has new states at "after" alone.
    codes = HeadCodes(n_features=40, n_seeds=2, score="unique")
    last = replace(codes, positions="last")
    everywhere = ct.capture(induction, "head_out", repeats, progress=False)
    assert codes.fit(acts, repeats).scores[0, 0] > last.fit(everywhere, repeats).scores[0, 0] == 0
