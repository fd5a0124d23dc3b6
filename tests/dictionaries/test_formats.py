"""Dictionaries of other programs give the features that these programs define.

Each oracle is the forward pass of the format's own source, in its own names and shapes of weights.
"""

import json
import pickle

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

import circuit_toolkit as ct
from circuit_toolkit.dictionaries import load_dictionaries, save_dictionary
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.sites import Site
from tests.dictionaries.published import family_model
from tests.families import PROMPTS

D, F, K = 32, 72, 6
TOLERANCE = {"rtol": 1e-5, "atol": 1e-4}  # float32, other order of sums, values of up to 100
SILENT = pytest.mark.filterwarnings("ignore:.*its metadata:UserWarning")
POST = Site("resid_post", 1)


@pytest.fixture(scope="module")
def model():
    return family_model("llama")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def topk(pre: Tensor, k: int = K) -> Tensor:
    values, index = pre.relu().topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, index, values)


def assert_defined(found, features: Tensor, rebuilt: Tensor, x: Tensor) -> None:
    """Features as the format defines them, some active and some not, and their reconstruction."""
    y = torch.zeros_like(rebuilt)
    torch.testing.assert_close(found.encode(x), features, **TOLERANCE)
    torch.testing.assert_close(found.reconstruct(x, y), rebuilt, **TOLERANCE)
    assert 0.02 < (features > 0).float().mean() < 0.9
    total = found.encode(x) @ found.directions  # what the graph and the lens read
    expected = found.decode(found.encode(x)) - found.decode(torch.zeros_like(features))
    torch.testing.assert_close(total, expected, **TOLERANCE)


def only(found, site: Site, out: Site | None = None):
    assert list(found) == [site] and found[site].out == (out or site)
    return found[site]


# EleutherAI sparsify


def write_sparsify(folder, module: str, d: int = D, weights=(), **config):
    given = {
        "encoder.weight": noise(F, d) / d**0.5,
        "encoder.bias": 0.3 * noise(F),
        "W_dec": noise(F, d, seed=1),
        "b_dec": 0.3 * noise(d),
    } | dict(weights)
    place = folder / module
    place.mkdir(parents=True)
    save_file(
        {name: weight.contiguous() for name, weight in given.items()}, place / "sae.safetensors"
    )
    settings = {"activation": "topk", "expansion_factor": 2, "num_latents": F, "k": K, "d_in": d}
    settings |= {"normalize_decoder": True, "transcode": False, "skip_connection": False}
    (place / "cfg.json").write_text(json.dumps(settings | config))
    (folder / "config.json").write_text(json.dumps({"model": config.get("model", "")}))
    return given


@SILENT
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_sparsify_autoencoders(family, tmp_path):
    model, blocks = family_model(family), {"gpt2": "h", "llama": "layers"}[family]
    w = write_sparsify(tmp_path, f"{blocks}.1", model=model.name)
    found = only(load_dictionaries(model, tmp_path), POST)
    x = 3 * noise(20, D)
    acts = topk(functional.linear(x - w["b_dec"], w["encoder.weight"], w["encoder.bias"]))
    assert_defined(found, acts, acts @ w["W_dec"] + w["b_dec"], x)
    for source in (tmp_path / f"{blocks}.1", tmp_path / f"{blocks}.1" / "sae.safetensors"):
        again = only(load_dictionaries(model, source), POST)
        assert torch.equal(again.encode(x), found.encode(x))
    acts = ct.capture(model, load_dictionaries(model, tmp_path), list(PROMPTS), progress=False)
    assert (np.diff(acts.features[POST].tocsr().indptr) <= K).all()


@SILENT
@pytest.mark.parametrize("skips", [False, True])
def test_sparsify_transcoders(model, skips, tmp_path):
    skip = {"W_skip": noise(D, D, seed=2) / D} if skips else {}
    w = write_sparsify(
        tmp_path, "layers.1.mlp", weights=skip, transcode=True, skip_connection=skips
    )
    reads, writes = Site("mlp_norm", 1), Site("mlp_out", 1)
    found = only(load_dictionaries(model, tmp_path), reads, writes)
    x = 3 * noise(20, D)
    acts = topk(functional.linear(x, w["encoder.weight"], w["encoder.bias"]))
    rebuilt = acts @ w["W_dec"] + w["b_dec"]
    assert_defined(found, acts, rebuilt + (x @ w["W_skip"].mT if skips else 0), x)
    save_dictionary(found, tmp_path / "ours", half=False)  # a folder of sae_lens holds it too
    again = only(load_dictionaries(model, tmp_path / "ours"), reads, writes)
    assert torch.equal(again.encode(x), found.encode(x))
    assert torch.equal(again.reconstruct(x), found.reconstruct(x))


@SILENT
@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"activation": "groupmax"}, InputError, "chooses features by 'groupmax'"),
        ({"signed": True}, InputError, "trained with signed"),
        ({"skip_connection": True}, InputError, "autoencoder with a skip connection"),
        ({"d_in": 0}, FileFormatError, "no size 'd_in' above 0, but 0"),
        ({"k": F + 1}, FileFormatError, f"k = {F + 1}"),
        ({"num_latents": F + 1}, FileFormatError, "weights and settings differ.*size mismatch"),
        ({"model": "EleutherAI/pythia-160m"}, MismatchError, "trained on 'EleutherAI/pythia-160m'"),
    ],
)
def test_sparsify_that_is_read_otherwise_is_refused(model, config, error, message, tmp_path):
    write_sparsify(tmp_path, "layers.1", **config)
    with pytest.raises(error, match=message):
        load_dictionaries(model, tmp_path)


@SILENT
def test_sparsify_at_a_module_that_is_no_site_is_refused(model, tmp_path):
    write_sparsify(tmp_path, "layers.1.mlp.act_fn")
    with pytest.raises(MismatchError, match="reads 'layers.1.mlp.act_fn', which is no site"):
        load_dictionaries(model, tmp_path)


# dictionary_learning


def relu_class():
    w = {"encoder.weight": noise(F, D) / D**0.5, "encoder.bias": 0.3 * noise(F)}
    w |= {"decoder.weight": noise(D, F, seed=1), "bias": 0.3 * noise(D)}

    def encode(x):
        return (functional.linear(x - w["bias"], w["encoder.weight"], w["encoder.bias"])).relu()

    return w, encode, lambda f: functional.linear(f, w["decoder.weight"]) + w["bias"]


def new_class():
    w, _, _ = relu_class()
    w["decoder.bias"] = w.pop("bias")
    return (
        w,
        lambda x: functional.linear(x, w["encoder.weight"], w["encoder.bias"]).relu(),
        lambda f: functional.linear(f, w["decoder.weight"], w["decoder.bias"]),
    )


def gated_class():
    w, _, _ = relu_class()
    w["decoder_bias"] = w.pop("bias")
    del w["encoder.bias"]
    w |= {"r_mag": 0.3 * noise(F, seed=3), "gate_bias": 0.3 * noise(F, seed=4)}
    w |= {"mag_bias": 0.3 * noise(F, seed=5)}
    norms = w["decoder.weight"].norm(dim=0, keepdim=True)

    def encode(x):
        x_enc = functional.linear(x - w["decoder_bias"], w["encoder.weight"])
        gate = (x_enc + w["gate_bias"] > 0).float()
        return gate * (w["r_mag"].exp() * x_enc + w["mag_bias"]).relu() * norms

    def decode(f):
        return functional.linear(f / norms, w["decoder.weight"]) + w["decoder_bias"]

    return w, encode, decode


def jump_class():
    w = {"W_enc": noise(D, F) / D**0.5, "b_enc": 0.3 * noise(F), "W_dec": noise(F, D, seed=1)}
    w |= {"b_dec": 0.3 * noise(D), "threshold": noise(F, seed=2).abs()}
    norms = w["W_dec"].norm(dim=1)

    def encode(x):
        pre = x @ w["W_enc"] + w["b_enc"]
        return (pre * (pre > w["threshold"])).relu() * norms

    return w, encode, lambda f: (f / norms) @ w["W_dec"] + w["b_dec"]


def topk_class():
    w, _, _ = relu_class()
    w["b_dec"] = w.pop("bias")
    w |= {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(0.4)}

    def encode(x):
        return topk(functional.linear(x - w["b_dec"], w["encoder.weight"], w["encoder.bias"]))

    return w, encode, lambda f: functional.linear(f, w["decoder.weight"]) + w["b_dec"]


def batch_topk_class(threshold=0.7):
    w, _, decode = topk_class()
    w["threshold"] = torch.tensor(threshold)

    def encode(x):
        acts = functional.linear(x - w["b_dec"], w["encoder.weight"], w["encoder.bias"]).relu()
        return acts * (acts > w["threshold"])

    return w, encode, decode


def matryoshka_class():
    w, _, _ = jump_class()
    w |= {
        "threshold": torch.tensor(0.7),
        "k": torch.tensor(K),
        "group_sizes": torch.tensor([8, 64]),
    }

    def encode(x):
        acts = ((x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
        return acts * (acts > w["threshold"])

    return w, encode, lambda f: f @ w["W_dec"] + w["b_dec"]


CLASSES = {
    "AutoEncoder": relu_class,
    "AutoEncoderNew": new_class,
    "GatedAutoEncoder": gated_class,
    "JumpReluAutoEncoder": jump_class,
    "AutoEncoderTopK": topk_class,
    "BatchTopKSAE": batch_topk_class,
    "MatryoshkaBatchTopKSAE": matryoshka_class,
}


def write_ae(folder, weights, kind: str, *, buffer=None, **trainer):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "ae.pt")
    said = {"dict_class": kind, "activation_dim": D, "dict_size": F, "k": K, "layer": 1}
    said |= {"submodule_name": "resid_post_layer_1"}
    config = {"trainer": said | trainer, "buffer": {"io": "out"} | (buffer or {})}
    (folder / "config.json").write_text(json.dumps(config))


@SILENT
@pytest.mark.parametrize("kind", CLASSES)
def test_dictionary_learning(model, kind, tmp_path):
    weights, encode, decode = CLASSES[kind]()
    write_ae(tmp_path / "resid_post_layer_1" / "trainer_0", weights, kind, lm_name=model.name)
    x = 3 * noise(20, D)
    found = only(load_dictionaries(model, tmp_path), POST)
    assert_defined(found, encode(x), decode(encode(x)), x)
    assert found.name == "resid_post_layer_1/trainer_0"
    compiled = {f"_orig_mod.{name}": weight for name, weight in weights.items()}
    write_ae(tmp_path / "compiled", compiled, kind)
    again = only(load_dictionaries(model, tmp_path / "compiled" / "ae.pt"), POST)
    assert torch.equal(again.encode(x), found.encode(x))


@SILENT
def test_a_threshold_that_was_never_set_takes_nothing(model, tmp_path):
    weights, encode, decode = batch_topk_class(-1.0)
    write_ae(tmp_path, weights, "BatchTopKSAE")
    x = 3 * noise(20, D)
    assert_defined(only(load_dictionaries(model, tmp_path), POST), encode(x), decode(encode(x)), x)


@SILENT
@pytest.mark.parametrize(
    ("place", "site"),
    [
        ("mlp_out_layer_2", Site("mlp_out", 2)),
        ("attention_out_layer0", Site("attn_out", 0)),
        ("resid_out_layer2", Site("resid_post", 2)),
        ("resid_pre_1", Site("resid_pre", 1)),
    ],
)
def test_names_of_folders_and_submodules_say_the_site(model, place, site, tmp_path):
    weights, _, _ = relu_class()
    write_ae(tmp_path / place, weights, "AutoEncoder", submodule_name=None)
    write_ae(tmp_path / "other", weights, "AutoEncoder", submodule_name=place)
    for folder in (place, "other"):
        only(load_dictionaries(model, tmp_path / folder), site)


@SILENT
def test_where_nothing_says_the_site_the_user_does(model, tmp_path):
    weights, encode, _ = relu_class()
    write_ae(tmp_path / "it", weights, "AutoEncoder", submodule_name=None)
    with pytest.raises(InputError, match=r"Nothing tells where .*sites=\['resid_post 3'\]"):
        load_dictionaries(model, tmp_path / "it")
    found = only(load_dictionaries(model, tmp_path / "it", sites=["mlp_out 2"]), Site("mlp_out", 2))
    torch.testing.assert_close(found.encode(noise(4, D)), encode(noise(4, D)), **TOLERANCE)


@SILENT
@pytest.mark.parametrize(
    ("kind", "more", "error", "message"),
    [
        ("CrossCoder", {}, InputError, "is a crosscoder .*autoencoder of one layer"),
        ("IdentityDict", {}, InputError, "class 'IdentityDict'. Known: AutoEncoder, "),
        ("AutoEncoder", {"buffer": {"io": "in"}}, InputError, "reads 'in' of a module"),
        ("AutoEncoder", {"lm_name": "gpt2"}, MismatchError, "trained on 'gpt2'"),
        ("AutoEncoder", {"activation_dim": None}, FileFormatError, "no size 'activation_dim'"),
        ("AutoEncoder", {"dict_size": F + 1}, FileFormatError, "weights and settings differ"),
        ("GatedAutoEncoder", {}, FileFormatError, "no weight gate_bias"),
        ("AutoEncoder", {"submodule_name": "resid_post_layer_7"}, MismatchError, "does not fit"),
    ],
)
def test_dictionary_learning_that_cannot_be_read_is_refused(
    model, kind, more, error, message, tmp_path
):
    write_ae(tmp_path, relu_class()[0], kind, **more)
    with pytest.raises(error, match=message):
        load_dictionaries(model, tmp_path)


@SILENT
def test_the_two_numbers_of_active_features_must_agree(model, tmp_path):
    write_ae(tmp_path, topk_class()[0], "AutoEncoderTopK", k=K + 1)
    with pytest.raises(FileFormatError, match=f"k = {K}, its config.json says {K + 1}"):
        load_dictionaries(model, tmp_path)


class Trap:
    """What would run code if it were unpickled."""

    ran = False

    def __reduce__(self):
        return exec, ("from tests.dictionaries.test_formats import Trap; Trap.ran = True",)


@SILENT
def test_a_pickle_with_more_than_weights_runs_no_code(model, tmp_path):
    write_ae(tmp_path, {}, "AutoEncoder")
    trap = pickle.dumps(Trap())
    for save in (lambda path: path.write_bytes(trap), lambda path: torch.save(Trap(), path)):
        save(tmp_path / "ae.pt")
        with pytest.raises(FileFormatError, match="ae.pt is damaged, or holds more than weights"):
            load_dictionaries(model, tmp_path)
    assert not Trap.ran


# Gemma Scope


def jump_arrays(d_in: int = D, d_out: int = D) -> dict[str, np.ndarray]:
    made = {
        "W_enc": noise(d_in, F) / d_in**0.5,
        "b_enc": 0.3 * noise(F),
        "W_dec": noise(F, d_out, seed=1),
        "b_dec": 0.3 * noise(d_out),
        "threshold": noise(F, seed=2).abs(),
    }
    return {name: weight.numpy() for name, weight in made.items()}


def jump(w, x: Tensor) -> tuple[Tensor, Tensor]:
    pre = x @ w["W_enc"] + w["b_enc"]
    acts = (pre > w["threshold"]) * pre.relu()
    return acts, acts @ w["W_dec"] + w["b_dec"]


@pytest.mark.parametrize(
    ("kind", "site", "out"),
    [
        ("res", POST, POST),
        ("mlp", Site("mlp_out", 1), Site("mlp_out", 1)),
        ("att", Site("attn_z", 1), Site("attn_z", 1)),
        ("transcoders", Site("mlp_in", 1), Site("mlp_out", 1)),
    ],
)
def test_gemma_scope(kind, site, out, tmp_path):
    model = family_model("gemma2")
    shape = model.shape_at(site)
    width = int(np.prod(shape))
    folder = tmp_path / f"gemma-scope-2b-pt-{kind}" / "layer_1" / "width_72" / "average_l0_20"
    folder.mkdir(parents=True)
    arrays = jump_arrays(width, width if site == out else D)
    np.savez(folder / "params.npz", **arrays)
    source = tmp_path / f"gemma-scope-2b-pt-{kind}"
    with pytest.raises(MismatchError, match="trained on 'google/gemma-2-2b'"):
        load_dictionaries(model, source)
    found = only(load_dictionaries(model, source, check_model=False), site, out)
    assert found.conventions.prepend_bos is True and not found.reads.centre
    w = {name: torch.from_numpy(value) for name, value in arrays.items()}
    x = 3 * noise(20, width)
    acts, rebuilt = jump(w, x)
    torch.testing.assert_close(found.encode(x.view(-1, *shape)), acts, **TOLERANCE)
    torch.testing.assert_close(found.decode(acts).flatten(1), rebuilt, **TOLERANCE)
    assert 0.02 < (acts > 0).float().mean() < 0.9


@SILENT
def test_gemma_scope_elsewhere_wants_its_site_said(model, tmp_path):
    np.savez(tmp_path / "params.npz", **jump_arrays())
    with pytest.raises(InputError, match="Nothing tells where .*params.npz belongs"):
        load_dictionaries(model, tmp_path)
    only(load_dictionaries(model, tmp_path / "params.npz", sites=["resid_post 1"]), POST)
    found = load_dictionaries(model, tmp_path, sites=["mlp_in 1"], kind="transcoder")
    only(found, Site("mlp_in", 1), Site("mlp_out", 1))


@SILENT
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("threshold"), "does not hold W_enc, W_dec and threshold"),
        (lambda w: w.update(threshold=-w["threshold"]), "thresholds below 0"),
        (lambda w: w.update(b_enc=w["b_enc"][1:]), "weights and settings differ"),
        (lambda w: w.update(W_enc=w["W_enc"] * np.nan), "W_enc of .* holds NaN"),
        (lambda w: w.update(b_dec=np.array([Trap()], dtype=object)), "params.npz is damaged"),
    ],
)
def test_damaged_files_of_gemma_scope_are_refused(model, change, message, tmp_path):
    arrays = jump_arrays()
    change(arrays)
    np.savez(tmp_path / "params.npz", **arrays)
    with pytest.raises(FileFormatError, match=message):
        load_dictionaries(model, tmp_path, sites=[POST])
    assert not Trap.ran


def test_its_embeddings_are_refused(tmp_path):
    folder = tmp_path / "gemma-scope-2b-pt-res" / "embedding" / "width_4k" / "average_l0_6"
    folder.mkdir(parents=True)
    np.savez(folder / "params.npz", **jump_arrays())
    with pytest.raises(InputError, match="before Gemma scales them.*release of sae_lens"):
        load_dictionaries(family_model("gemma2"), tmp_path / "gemma-scope-2b-pt-res")


@pytest.mark.parametrize("skips", [False, True])
def test_gemma_scope_2(skips, tmp_path):
    model = family_model("gemma3")
    w = {name.lower(): torch.from_numpy(value) for name, value in jump_arrays().items()}
    if skips:
        w["affine_skip_connection"] = noise(D, D, seed=3) / D
    save_file(w, tmp_path / "params.safetensors")
    layer = "model.layers.1"
    config = {
        "architecture": "jump_relu",
        "model_name": "gemma-v3-270m-pt",
        "hf_hook_point_in": f"{layer}.pre_feedforward_layernorm.output",
        "hf_hook_point_out": f"{layer}.post_feedforward_layernorm.output",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MismatchError, match="trained on 'gemma-3-270m'"):
        load_dictionaries(model, tmp_path)
    found = load_dictionaries(model, tmp_path, check_model=False)
    found = only(found, Site("mlp_norm", 1), Site("mlp_out", 1))
    x = 3 * noise(20, D)
    acts, rebuilt = jump({name.replace("w_", "W_"): each for name, each in w.items()}, x)
    skip = x @ w["affine_skip_connection"] if skips else 0
    assert_defined(found, acts, rebuilt + skip, x)
    config |= {"hf_hook_point_in": f"{layer}.output", "hf_hook_point_out": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    if not skips:
        only(load_dictionaries(model, tmp_path, check_model=False), POST)


# circuit-tracer


def write_set(folder, layers=(0, 1, 2), more=None, **config):
    written = {}
    for layer in layers:
        w = {"W_enc": noise(F, D, seed=layer) / D**0.5, "b_enc": 0.3 * noise(F, seed=layer)}
        w |= {"W_dec": noise(F, D, seed=layer + 9), "b_dec": 0.3 * noise(D, seed=layer)}
        written[layer] = w | (more or {})
        save_file(written[layer], folder / f"layer_{layer}.safetensors")
    given = {"model_name": "it", "model_kind": "transcoder_set"}
    given |= {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"} | config
    (folder / "config.yaml").write_text(yaml.safe_dump(given))
    return written


THRESHOLD = {"activation_function.threshold": noise(F, seed=5).abs()}
SKIP = {"W_skip": noise(D, D, seed=6) / D}


@pytest.mark.parametrize("more", [{}, THRESHOLD, SKIP, THRESHOLD | SKIP])
@pytest.mark.parametrize(
    ("hooks", "kind"),
    [
        (("mlp.hook_in", "hook_mlp_out"), "mlp_norm"),
        (("hook_resid_mid", "mlp.hook_out"), "resid_mid"),
        (("ln2.hook_normalized", "hook_mlp_out"), "mlp_in"),
    ],
)
def test_sets_of_circuit_tracer(model, more, hooks, kind, tmp_path):
    said = dict(zip(("feature_input_hook", "feature_output_hook"), hooks, strict=True))
    written = write_set(tmp_path, more=more, model_name=model.name, **said)
    found = load_dictionaries(model, tmp_path)
    assert list(found) == [Site(kind, layer) for layer in range(3)]
    x = 3 * noise(20, D)
    for layer, w in written.items():
        each = found[Site(kind, layer)]
        assert each.out == Site("mlp_out", layer) and each.kind == "transcoder"
        acts = functional.linear(x, w["W_enc"], w["b_enc"])
        limit = w.get("activation_function.threshold")
        acts = acts.relu() if limit is None else acts * (acts > limit)
        rebuilt = acts @ w["W_dec"] + w["b_dec"]
        assert_defined(each, acts, rebuilt + (x @ w["W_skip"].T if "W_skip" in w else 0), x)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"model_kind": "cross_layer_transcoder"}, InputError, "cross-layer transcoder: its fea"),
        ({"model_kind": "other"}, InputError, "of the kind 'other'"),
        ({"activation": "topk", "k": 4}, InputError, "'topk', under which features may be neg"),
        ({"feature_input_hook": None}, FileFormatError, "does not say feature_input_hook"),
        ({"feature_input_hook": "hook_what"}, MismatchError, "reads 'blocks.0.hook_what'"),
        ({"model_name": "Qwen/Qwen3-0.6B"}, MismatchError, "trained on 'Qwen/Qwen3-0.6B'"),
    ],
)
def test_sets_that_cannot_be_read_are_refused(model, config, error, message, tmp_path):
    write_set(tmp_path, **{"model_name": model.name} | config)
    with pytest.raises(error, match=message):
        load_dictionaries(model, tmp_path)


def test_a_set_without_its_files_says_what_to_get(model, tmp_path):
    write_set(tmp_path, layers=(), transcoders=["hf://google/gemma-scope-2b-pt-transcoders/x.npz"])
    with pytest.raises(InputError, match="beside no layer_0.safetensors. Get the files"):
        load_dictionaries(model, tmp_path / "config.yaml")


def test_cross_layer_transcoders_without_settings_are_named(model, tmp_path):
    save_file({"W_enc_0": noise(F, D)}, tmp_path / "W_enc_0.safetensors")
    with pytest.raises(InputError, match="is a cross-layer transcoder"):
        load_dictionaries(model, tmp_path)


def test_yaml_makes_no_objects(model, tmp_path):
    (tmp_path / "config.yaml").write_text("model_kind: !!python/object/apply:os.getcwd []")
    with pytest.raises(FileFormatError, match="config.yaml is no YAML"):
        load_dictionaries(model, tmp_path)


def test_a_folder_without_any_of_them_lists_what_is_read(model, tmp_path):
    with pytest.raises(InputError, match=r"ae.pt \(dictionary_learning\); params.npz \(Gemma"):
        load_dictionaries(model, tmp_path)
