"""Known circuits are read as they are, and what is damaged is refused in words."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import gelu, log_softmax

from benchmarks.interpbench import read_interpbench
from circuit_toolkit.benchmark.interpbench.cases import read_case, read_cases
from circuit_toolkit.circuit.components import component_circuit
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.models.components import run_components
from circuit_toolkit.tasks.prompt_pairs import PromptPairs
from tests.small_case import OUT, TRUE, T, data, universe, weights, write_case

TOL = 1e-5  # float32 through two layers


def written_out(tensors, ids, *, causal, act):
    """Logits of one prompt, head by head in the convention of the format."""
    x = tensors["embed.W_E"][ids] + tensors["pos_embed.W_pos"][: len(ids)]
    for i in range(2):

        def w(name, i=i):
            return tensors[f"blocks.{i}.{name}"]

        total = w("attn.b_O")
        for h in range(len(w("attn.W_Q"))):
            q, k, v = (x @ w(f"attn.W_{c}")[h] + w(f"attn.b_{c}")[h] for c in "QKV")
            scores = q @ k.T / q.shape[1] ** 0.5
            if causal:
                scores[torch.ones(len(ids), len(ids)).triu(1).bool()] = -torch.inf
            total = total + scores.softmax(-1) @ v @ w("attn.W_O")[h]
        x = x + total
        x = x + act(x @ w("mlp.W_in") + w("mlp.b_in")) @ w("mlp.W_out") + w("mlp.b_out")
    return x @ tensors["unembed.W_U"] + tensors["unembed.b_U"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_case(tmp_path_factory.mktemp("cases") / "made" / "7")


@pytest.fixture(scope="module")
def case(folder):
    return read_case(folder)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("act_fn", "act"), [("gelu", gelu), ("relu", torch.relu)])
def test_the_model_is_that_of_the_weights(tmp_path, causal, act_fn, act):
    folder = write_case(tmp_path / "case", causal=causal, act_fn=act_fn)
    model, tensors = read_case(folder).model, load_file(folder / "model.safetensors")
    ids = data()["clean"][:3].astype(int)
    got = run_components(model, model.tokenize(ids.tolist())).logits
    for row, logits in zip(ids, got, strict=True):
        want = written_out(tensors, torch.tensor(row), causal=causal, act=act)
        assert (logits - want).abs().max() <= TOL
    other = written_out(tensors, torch.tensor(ids[0]), causal=not causal, act=act)
    assert (got[0] - other).abs().max() > 0.01  # the mask matters


def test_a_padded_prompt_gives_what_it_gives_alone(case):
    prompts = [[0, 2, 3, 4, 2, 3], [0, 4, 2]]
    together = run_components(case.model, case.model.tokenize(prompts)).logits
    alone = run_components(case.model, case.model.tokenize(prompts[1:])).logits
    assert (together[1, -3:] - alone[0]).abs().max() <= TOL


def test_a_case_holds_what_the_folder_says(case):
    assert case.name == "made/7" and isinstance(case.task, PromptPairs)
    assert case.true_edges == tuple(map(tuple, TRUE)) and len(case.universe) == len(universe())
    assert case.truth.mask.sum() == 3 and case.truth.edges == case.true_edges
    assert case.model.tokenizer("BOS a c")["input_ids"] == [0, 2, 4]
    assert "3 of 25 edges, 20 prompts" in repr(case)
    scores = torch.zeros(len(case.graph.writers), len(case.graph.readers))
    scores[case.graph.writer("m0"), case.graph.reader("a1.h1")] = 2
    found = component_circuit(case.graph, scores, {})
    named = dict(zip(case.universe, case.truth.scores(found), strict=True))
    assert named.pop(("m0", "a1.h1")) == 2 and not any(named.values())


def test_measures_of_classes(case):
    task, rows = case.task, [4, 1]
    logits = torch.randn(2, T, OUT)
    right, other = task.labels[rows], task.other_labels[rows]
    loss, difference = [], []
    for b in range(2):
        p = log_softmax(logits[b], -1)
        loss.append(np.mean([float(p[t, right[b, t]]) for t in range(1, T)]))
        difference.append(
            np.mean([float(logits[b, t, right[b, t]] - logits[b, t, other[b, t]])
                     for t in range(1, T)])
        )  # fmt: skip
    assert task.metric_of(logits, rows).tolist() == pytest.approx(loss, rel=1e-5)
    form = task.with_metric("difference")
    assert form.metric_of(logits, rows).tolist() == pytest.approx(difference, rel=1e-5)
    assert task.change(logits, logits, rows).tolist() == [0, 0]
    far = 100 * torch.nn.functional.one_hot(right, OUT)
    wrong = 100 * torch.nn.functional.one_hot((right + 1) % OUT, OUT)
    assert task.change(far.float(), wrong.float(), rows).tolist() == pytest.approx([2, 2])
    assert task.correct(far, rows).tolist() == [1, 1]
    far[0, 1], far[0, 0] = wrong[0, 1], wrong[0, 0]  # position 0 does not count
    assert task.correct(far, rows).tolist() == pytest.approx([1 - 1 / (T - 1), 1])


def test_measures_of_values(tmp_path):
    task = read_case(write_case(tmp_path / "case", numerical=True)).task
    rows = [0, 3]
    labels, others = task.labels[rows], task.other_labels[rows]
    logits = (labels + 0.25)[..., None]
    assert task.metric_of(logits, rows).tolist() == pytest.approx([-0.25, -0.25])
    assert task.correct(logits, rows).tolist() == [0, 0]
    assert task.change(logits, labels[..., None], rows).tolist() == pytest.approx([0.25, 0.25])
    way = torch.where(labels > others, 1.0, -1.0)
    want = (way * logits[..., 0])[:, 1:].mean(1)
    got = task.with_metric("difference").metric_of(logits, rows)
    assert got.tolist() == pytest.approx(want.tolist())


def test_folders_are_read_in_order(tmp_path):
    for name in ("10", "2", "b/1"):
        write_case(tmp_path / name)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "config.json").write_text("{}")  # of something else
    names = [case.name for case in read_cases(tmp_path)]
    assert names == [f"{tmp_path.name}/2", f"{tmp_path.name}/10", "b/1"]
    with pytest.raises(InputError, match="No known circuit lies in"):
        read_cases(tmp_path / "notes")
    with pytest.raises(InputError, match="There is no folder"):
        read_case(tmp_path / "none")


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_data(folder, **changes):
    np.savez(folder / "data.npz", **(data() | changes))


def edit_weights(folder, **changes):
    tensors = weights() | {name.replace("__", "."): x for name, x in changes.items()}
    tensors = {name: x for name, x in tensors.items() if x is not None}
    save_file(tensors, folder / "model.safetensors")


def edges(true, counted=None):
    return {"edges": true, "universe_edges": counted or universe()}


CLEAN, LABELS = data()["clean"], data()["clean_labels"]
DAMAGE = {
    "lacks data.npz": lambda f: (f / "data.npz").unlink(),
    "is not readable JSON": lambda f: (f / "config.json").write_text("{"),
    "n_layers must be int, got nothing": lambda f: (f / "config.json").write_text("{}"),
    "causal must be bool, got 'yes'": lambda f: edit_config(f, causal="yes"),
    "activation 'silu' is unknown": lambda f: edit_config(f, act_fn="silu"),
    "only models without norms": lambda f: edit_config(f, normalization="LN"),
    "n_heads = 3, the weights say 2": lambda f: edit_config(f, n_heads=3),
    "scored_positions must be the first and the last": lambda f: edit_config(
        f, scored_positions=[1, 9]
    ),
    "must be a list of pairs": lambda f: edit_config(f, circuit=edges(["embed"])),
    "is no edge of this model": lambda f: edit_config(f, circuit=edges([["m0", "a0.h0"]])),
    "an edge is there twice": lambda f: edit_config(f, circuit=edges([TRUE[0], TRUE[0]])),
    "is not among universe_edges": lambda f: edit_config(f, circuit=edges(TRUE, TRUE[:2])),
    "no whole safetensors": lambda f: (f / "model.safetensors").write_bytes(b"x" * 40),
    "hold no 'blocks.1.mlp.b_in'": lambda f: edit_weights(f, blocks__1__mlp__b_in=None),
    "holds NaN": lambda f: edit_weights(f, unembed__b_U=torch.tensor([0, 1, torch.nan])),
    "do not fit each other": lambda f: edit_weights(f, blocks__1__mlp__b_in=torch.zeros(9)),
    "weights of other shapes": lambda f: edit_weights(f, blocks__1__attn__W_Q=torch.ones(9)),
    "damaged, or no npz": lambda f: (f / "data.npz").write_bytes(b"PK\3\4 cut off"),
    "of one shape": lambda f: edit_data(f, corrupted=CLEAN[:5]),
    "clean must hold integers from 0 to 4": lambda f: edit_data(f, clean=CLEAN + 4),
    "clean_labels must hold integers from 0 to 2": lambda f: edit_data(
        f, clean_labels=LABELS * 1.0
    ),
}


@pytest.mark.parametrize("message", DAMAGE)
def test_what_is_damaged_is_refused(tmp_path, message):
    folder = write_case(tmp_path / "case")
    DAMAGE[message](folder)
    with pytest.raises(FileFormatError, match=message) as caught:
        read_case(folder)
    assert "\n" not in str(caught.value)


HUB_EDGES = [
    ("hook_embed", "blocks.0.hook_mlp_in"),
    ("hook_pos_embed", "blocks.0.hook_mlp_in"),
    ("blocks.0.hook_mlp_in", "blocks.0.hook_mlp_out"),
    ("blocks.0.hook_mlp_out", "blocks.1.hook_v_input[1]"),
    ("blocks.1.hook_v_input[1]", "blocks.1.attn.hook_v[1]"),
    ("blocks.1.attn.hook_v[1]", "blocks.1.attn.hook_result[1]"),
    ("blocks.1.attn.hook_result[1]", "blocks.1.hook_resid_post"),
]


def write_hub(folder, edges=HUB_EDGES, settings=None):
    folder.mkdir()
    torch.save(weights() | {"blocks.0.attn.mask": torch.ones(6, 6) > 0}, folder / "ll_model.pth")
    settings = settings or {
        "act_fn": "gelu", "attention_dir": "causal", "d_model": np.int64(8),
        "initializer_range": np.float64(0.3), "dtype": torch.float32, "normalization_type": None,
    }  # fmt: skip
    (folder / "ll_model_cfg.pkl").write_bytes(pickle.dumps(settings))
    (folder / "edges.pkl").write_bytes(pickle.dumps(edges))
    return folder


def test_interpbenchs_own_files_are_read(tmp_path, case):
    prompts = [data()[name].astype(int) for name in ("clean", "corrupted")]
    found = read_interpbench(write_hub(tmp_path / "7"), *prompts)
    assert set(found.true_edges) == set(map(tuple, TRUE))
    assert set(found.universe) == set(case.universe) and found.config["d_model"] == 8
    mine, theirs = (
        run_components(each.model, each.model.tokenize(each.task.clean)).logits
        for each in (case, found)
    )
    assert torch.equal(mine, theirs)
    assert found.task.correct(theirs, range(20)).tolist() == [1] * 20
    with pytest.raises(MismatchError, match="one shape"):
        read_interpbench(tmp_path / "7", prompts[0], prompts[1][:3])


class Bomb:
    """What would run code if it were unpickled."""

    def __reduce__(self):
        return os.system, ("touch exploded",)


def test_pickles_run_no_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prompts = [data()[name].astype(int) for name in ("clean", "corrupted")]
    bad = [
        ("more than plain values", write_hub(tmp_path / "1", edges=[Bomb()])),
        ("more than plain values", write_hub(tmp_path / "2", settings={"act_fn": Bomb()})),
        ("no component that is known", write_hub(tmp_path / "3", edges=[("embed", "m0")])),
    ]
    bad.append(("more than weights", write_hub(tmp_path / "4")))
    torch.save({"embed.W_E": Bomb()}, tmp_path / "4" / "ll_model.pth")
    for message, folder in bad:
        with pytest.raises(FileFormatError, match=message):
            read_interpbench(folder, *prompts)
    assert not (tmp_path / "exploded").exists()
    (tmp_path / "2" / "ll_model_cfg.pkl").unlink()
    read_interpbench(tmp_path / "2", *prompts, act_fn="gelu", causal=True)


@pytest.mark.parametrize("kind", ["siit", "siit_recorded", "tracr"])
def test_rebuilt_models_are_as_accurate_as_the_benchmark_says(shared_data, kind):
    for folder in sorted((shared_data / "known_circuits" / kind).iterdir()):
        case = read_case(folder)
        logits = run_components(case.model, case.model.tokenize(case.task.clean)).logits
        accuracy = 100 * float(case.task.correct(logits, range(len(logits))).mean())
        stated = case.config["metrics"].get("data_npz_accuracy")
        if stated is None:  # compiled: where the program says nothing, classes may tie
            with np.load(folder / "data.npz") as file:
                valid = file["clean_rasp_valid"][:, 1:]
            if not case.task.numerical:
                same = (logits.argmax(-1) == case.task.labels)[:, 1:].numpy()
                accuracy, stated = 100 * same[valid].mean(), {"clean": 100.0}
            else:
                stated = {"clean": 100.0}
        assert accuracy == pytest.approx(stated["clean"], abs=1e-3), case.name
