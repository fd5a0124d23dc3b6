"""Dictionaries: what is written is what sae_lens reads, and what does not fit is refused."""

import json
import shutil

import pytest
import torch
from sae_lens import SAE
from safetensors.torch import load, save

from circuit_toolkit.dictionaries import bind_dictionary, load_dictionaries, save_dictionary
from circuit_toolkit.dictionaries.loading import load_sources
from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.sites import Site
from tests.tiny import FEATURES, LAYERS, WIDTH, random_sae, random_transcoder, residual_sites

SITE = Site("resid_post", 1)


@pytest.fixture
def folder(tiny, tmp_path):
    save_dictionary(random_sae(tiny.name, SITE), tmp_path / "sae")
    return tmp_path / "sae"


def edit(folder, **metadata):
    (folder / "checksums.json").unlink(missing_ok=True)  # else a changed file is refused
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"] |= metadata
    (folder / "cfg.json").write_text(json.dumps(config))


def test_autoencoders_and_transcoders_of_a_folder_load_in_order(tiny, tiny_folder):
    saes = load_dictionaries(tiny, tiny_folder)
    assert list(saes) == residual_sites()
    assert all(d.kind == "sae" and d.out == site == d.site for site, d in saes.items())
    transcoders = load_dictionaries(tiny, tiny_folder, kind="transcoder")
    assert list(transcoders) == [Site("mlp_in", i) for i in range(LAYERS)]
    for i, each in enumerate(transcoders.values()):
        assert each.kind == "transcoder" and each.out == Site("mlp_out", i)
    some = load_dictionaries(tiny, tiny_folder, sites=["resid_post 2", Site("resid_pre", 0)])
    assert list(some) == [Site("resid_pre", 0), Site("resid_post", 2)]


def test_one_dictionary_can_be_named_by_its_own_folder(tiny, folder):
    assert list(load_dictionaries(tiny, folder)) == [SITE]
    assert list(load_dictionaries(tiny, str(folder.parent))) == [SITE]


@pytest.mark.parametrize("make", [random_sae, random_transcoder], ids=["sae", "transcoder"])
def test_what_is_saved_is_what_sae_lens_reads(tiny, tmp_path, make):
    place = SITE if make is random_sae else 1
    original = make(tiny.name, place, seed=3)
    save_dictionary(original, tmp_path / "it")
    read = SAE.load_from_disk(tmp_path / "it", dtype="float32")
    for name, weight in original.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], weight, rtol=1e-3, atol=1e-6)
    x = torch.randn(400, WIDTH)
    ours, theirs = original.encode(x), read.encode(x)
    same = ((ours > 0) == (theirs > 0)).all(1)  # half precision may turn a near tie
    assert same.float().mean() > 0.95 and (ours > 0).any(1).all()
    torch.testing.assert_close(ours[same], theirs[same], rtol=5e-3, atol=5e-3)
    assert read.cfg.metadata.hook_name == original.cfg.metadata.hook_name


def test_the_weights_take_half_the_space(folder):
    assert (folder / "sae_weights.safetensors").stat().st_size < 2.5 * (2 * WIDTH * FEATURES)


def test_features_are_those_of_sae_lens_in_float32_and_not_negative(tiny, folder):
    dictionary = load_dictionaries(tiny, folder)[SITE]
    x = torch.randn(3, 5, WIDTH)
    acts = dictionary.encode(x)
    assert acts.shape == (3, 5, FEATURES) and acts.dtype == torch.float32 and (acts >= 0).all()
    torch.testing.assert_close(acts, dictionary.sae.encode(x).to_dense())
    slow = acts @ dictionary.directions + dictionary.sae.b_dec  # (3, 5, D)
    torch.testing.assert_close(dictionary.decode(acts), slow)
    assert dictionary.encode(x.double()).dtype == torch.float32
    assert dictionary.n_features == FEATURES and not dictionary.encode(x).requires_grad


def test_saving_replaces_a_dictionary_and_leaves_nothing_behind(tiny, folder):
    (folder / "sparsity.safetensors").write_text("from sae_lens")
    new = random_sae(tiny.name, SITE, seed=9)
    save_dictionary(new, folder)
    assert {path.name for path in folder.iterdir()} == {
        *("cfg.json", "sae_weights.safetensors", "checksums.json")
    }
    assert [path.name for path in folder.parent.iterdir()] == ["sae"]
    loaded = load_dictionaries(tiny, folder)[SITE]
    torch.testing.assert_close(loaded.sae.W_enc, new.W_enc.half().float())
    save_dictionary(loaded, folder.parent / "again", half=False)  # a Dictionary is as good
    assert torch.equal(
        load_dictionaries(tiny, folder.parent / "again")[SITE].sae.W_enc, loaded.sae.W_enc
    )


@pytest.mark.parametrize("place", [".", "my_results", "my_results/deep", "link"])
def test_saving_never_removes_what_is_not_a_dictionary(tiny, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_results/deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("my_results")
    for folder in (".", "my_results", "my_results/deep"):
        (tmp_path / folder / "thesis.txt").write_text("years of work")
        save_dictionary(random_sae(tiny.name, SITE), tmp_path / "sae")
        for file in (tmp_path / "sae").iterdir():
            shutil.copy(file, tmp_path / folder)
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    with pytest.raises(
        InputError, match=r"is the working directory|(thesis.txt|deep)', and is not replaced"
    ):
        save_dictionary(random_sae(tiny.name, SITE, seed=9), place)
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("what", [{}, None, "sae", torch.nn.Linear(2, 2)])
def test_only_a_dictionary_is_saved(tmp_path, what):
    with pytest.raises(InputError, match="Pass a Dictionary or an object of sae_lens"):
        save_dictionary(what, tmp_path / "it")
    assert not list(tmp_path.iterdir())


def test_a_save_that_fails_leaves_the_old_dictionary_whole(tiny, folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        save_dictionary(random_sae(tiny.name, SITE, seed=9), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["sae"]


def test_a_dictionary_of_another_model_is_refused(tiny, folder):
    edit(folder, model_name="gpt2")
    with pytest.raises(MismatchError, match="trained on 'gpt2', the model is 'GPT2LMHeadModel'"):
        load_dictionaries(tiny, folder)


def test_a_dictionary_that_names_no_site_is_refused(tiny, folder):
    edit(folder, hook_name=None)
    with pytest.raises(MismatchError, match="metadata.hook_name is missing"):
        load_dictionaries(tiny, folder)


def test_a_dictionary_of_a_site_that_the_model_lacks_is_refused(tiny, folder):
    edit(folder, hook_name="blocks.7.hook_resid_post", hook_name_out="blocks.7.hook_resid_post")
    with pytest.raises(MismatchError, match="'sae' does not fit.*has layers 0 to 2"):
        load_dictionaries(tiny, folder)
    edit(folder, hook_name="somewhere")
    with pytest.raises(MismatchError, match="'somewhere', which is no site of the toolkit"):
        load_dictionaries(tiny, folder)


def test_a_dictionary_of_another_width_is_refused(tiny, tmp_path):
    save_dictionary(random_sae(tiny.name, SITE, width=16), tmp_path / "narrow")
    with pytest.raises(MismatchError, match=r"width 16 at blocks.1.hook_resid_post.*has 32"):
        load_dictionaries(tiny, tmp_path / "narrow")
    save_dictionary(random_transcoder(tiny.name, 0, d_out=16), tmp_path / "out")
    with pytest.raises(MismatchError, match=r"width 16 at blocks.0.hook_mlp_out"):
        load_dictionaries(tiny, tmp_path / "out", kind="transcoder")


def test_a_damaged_config_is_refused(tiny, folder):
    (folder / "cfg.json").write_text('{"metadata": ')
    with pytest.raises(FileFormatError, match=r"cfg.json is not readable JSON"):
        load_dictionaries(tiny, folder)


def test_a_file_that_was_changed_is_refused(tiny, folder):
    config, weights = folder / "cfg.json", folder / "sae_weights.safetensors"
    for path, change in ((config, config.read_bytes() + b" "), (weights, scaled(weights))):
        before = path.read_bytes()
        path.write_bytes(change)
        with pytest.raises(FileFormatError, match=f"{path.name} is damaged, or was changed"):
            load_dictionaries(tiny, folder)
        (folder / "checksums.json").rename(folder.parent / "kept.json")
        assert len(load_dictionaries(tiny, folder)) == 1  # as files of others
        (folder.parent / "kept.json").rename(folder / "checksums.json")
        path.write_bytes(before)


def scaled(weights):
    return save({name: 2 * each for name, each in load(weights.read_bytes()).items()})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"d_in": None}, "d_in: None is not of type 'integer'"),
        ({"d_sae": "64"}, "d_sae: '64'"),
        ({"k": None}, "k: None is not"),
        ({"k": FEATURES + 1}, f"k = {FEATURES + 1}"),
        ({"metadata": {"hook_name": 3}}, "metadata/hook_name"),
        ({"apply_b_dec_to_input": "yes"}, "apply_b_dec_to_input"),
    ],
)
def test_settings_of_another_kind_are_refused(tiny, folder, settings, words):
    (folder / "checksums.json").unlink()
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps(config | settings))
    with pytest.raises(FileFormatError, match=words):
        load_dictionaries(tiny, folder)
    for name in settings.keys() - {"metadata"}:
        (folder / "cfg.json").write_text(json.dumps({k: config[k] for k in config if k != name}))
        if name in ("d_in", "d_sae", "k"):
            with pytest.raises(FileFormatError, match=name):
                load_dictionaries(tiny, folder)


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("nan"), "NaN or infinity in 1 of"), (float("inf"), "NaN or infinity"), (0, "W_dec of")],
)
def test_weights_that_are_no_numbers_or_nothing_are_refused(tiny, folder, value, words):
    (folder / "checksums.json").unlink()
    tensors = load((folder / "sae_weights.safetensors").read_bytes())
    if value == 0:
        tensors["W_dec"].zero_()
    else:
        tensors["b_enc"][3] = value
    (folder / "sae_weights.safetensors").write_bytes(save(tensors))
    with pytest.raises(FileFormatError, match=words):
        load_dictionaries(tiny, folder)


def test_what_is_not_there_is_refused(tiny, tiny_folder, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(InputError, match="No dictionary lies in"):
            load_dictionaries(tiny, nothing)
    with pytest.raises(InputError, match=r"No dictionary for blocks.0.hook_resid_mid lies"):
        load_dictionaries(tiny, tiny_folder, sites=["resid_post 0", "resid_mid 0"])
    with pytest.raises(InputError, match=r"No sae for blocks.0.ln2.hook_normalized lies"):
        load_dictionaries(tiny, tiny_folder, sites=["mlp_in 0"], kind="sae")
    with pytest.raises(InputError, match="No dictionary for any site"):
        load_dictionaries(tiny, tiny_folder, sites=[])
    with pytest.raises(InputError, match="No transcoder for any site"):
        load_dictionaries(tiny, folder, kind="transcoder")
    with pytest.raises(InputError, match="only for 'demo'"):
        load_dictionaries(tiny)


def test_two_dictionaries_at_one_site_are_refused(tiny, folder):
    shutil.copytree(folder, folder.parent / "other")
    with pytest.raises(
        InputError, match="2 dictionaries .* read blocks.1.hook_resid_post: 'other', 'sae'"
    ):
        load_dictionaries(tiny, folder.parent)
    (chosen,) = load_dictionaries(tiny, folder.parent, ids=["other"]).values()
    assert chosen.name == "other"
    with pytest.raises(InputError, match="'others' is not in .* Nearest: other"):
        load_dictionaries(tiny, folder.parent, ids=["others"])


def test_autoencoders_go_before_transcoders_unless_one_asks(tiny, tiny_folder):
    some = load_dictionaries(tiny, tiny_folder, sites=["mlp_in 1", "resid_post 1"])
    assert [each.kind for each in some.values()] == ["transcoder", "sae"]
    transcoders = [f"tc-{layer}" for layer in range(LAYERS)]
    assert list(load_dictionaries(tiny, tiny_folder, ids=transcoders)) == [
        Site("mlp_in", layer) for layer in range(LAYERS)
    ]


def test_lists_are_wanted_where_lists_are_meant(tiny, folder):
    with pytest.raises(InputError, match=r"write sites=\['resid_post 1'\]"):
        load_dictionaries(tiny, folder, sites="resid_post 1")
    with pytest.raises(InputError, match=r"write ids=\['sae'\]"):
        load_dictionaries(tiny, folder, ids="sae")
    with pytest.raises(InputError, match="kind must be one of None, 'sae', 'transcoder'"):
        load_dictionaries(tiny, folder, kind="saes")


def test_dictionaries_say_what_loads_them_again(tiny, tiny_folder, demo, demo_transcoders):
    saes = load_dictionaries(tiny, tiny_folder)
    transcoders = load_dictionaries(tiny, tiny_folder, kind="transcoder")
    assert saes[SITE].source == f"folder {tiny_folder.name}: sae-2"  # no path of this machine
    both = dict([*list(saes.items())[2:], *transcoders.items()])
    with pytest.raises(InputError, match="does not say where the dictionary of"):
        load_sources(tiny, {site: each.source for site, each in both.items()})
    (first, bundled), *_ = demo_transcoders.items()
    assert bundled.source == "demo: transcoder-0"
    again = load_sources(demo, {first: bundled.source})
    assert list(again) == [first] and again[first].out == bundled.out
    assert bind_dictionary(tiny, random_sae(tiny.name, SITE)).source == ""
    with pytest.raises(InputError, match="does not say where the dictionary of blocks.1"):
        load_sources(tiny, {SITE: ""})
    with pytest.raises(InputError, match="is not in"):
        load_sources(demo, {first: "demo: other"})
