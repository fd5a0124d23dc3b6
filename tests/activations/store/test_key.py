"""A store answers for the model and the inputs that it was captured from, and for no other."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from circuit_toolkit import add, capture, zero
from circuit_toolkit.activations.store import ActivationStore
from circuit_toolkit.activations.store.fingerprints import model_inputs
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.files.documents import digest
from circuit_toolkit.interventions import intervened
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.weight_lens import WeightLens
from tests.activations.store.small_store import contents
from tests.same import assert_same
from tests.tiny import TEXTS, random_transcoder, tiny_model

SITE = Site("resid_post", 1)


@pytest.fixture(scope="module")
def store(tiny, tiny_saes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("key")
    return capture(tiny, {SITE: tiny_saes[SITE]}, TEXTS, store=folder, progress=False)


@pytest.fixture
def again(tiny_saes, store):
    """Capture into the store with another model."""

    def run(model, **changes):
        given = {"store": store.folder, "progress": False} | changes
        unbound = replace(tiny_saes[SITE], of=None)  # else other weights are refused before
        return capture(model, {SITE: unbound}, TEXTS, **given)

    return run


def last_weight(model: Model):
    *_, parameter = model.hf.parameters()
    parameter.view(-1)[-1] += 1e-3


def last_weight_of_many(model: Model):
    parameter = max(model.hf.parameters(), key=len)
    parameter.view(-1)[-1] += 1e-3


def one_neuron(model: Model):
    model.hf.transformer.h[1].mlp.c_proj.weight[17] = 0


def one_embedding_row(model: Model):
    model.hf.transformer.wte.weight[100] = 0


def one_buffer(model: Model):
    model.hf.transformer.h[0].attn.register_buffer("extra", torch.ones(2))


def activation_module(model: Model):
    model.hf.transformer.h[0].mlp.act = torch.nn.ReLU()


def epsilon(model: Model):
    model.hf.transformer.ln_f.eps = 1e-3


def training(model: Model):
    model.hf.transformer.drop.train()


def configuration(model: Model):
    model.hf.config.scale_attn_weights = False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (last_weight, "other model weights"),
        (last_weight_of_many, "other model weights"),
        (one_neuron, "other model weights"),
        (one_embedding_row, "other model weights"),
        (one_buffer, "other model weights"),
        (activation_module, "other model modules"),
        (epsilon, "other model modules"),
        (training, "other model modules"),
        (configuration, "configuration scale_attn_weights True there, False here"),
    ],
)
def test_any_change_of_the_model_is_noticed(store, again, change, said):
    before, model = contents(store.folder), tiny_model()
    with torch.no_grad():
        change(model)
    with pytest.raises(MismatchError, match=said):
        again(model)
    assert contents(store.folder) == before


def test_the_same_model_loaded_again_is_the_same(store, again):
    model = tiny_model()
    model.tokenizer(list(TEXTS), padding=True, truncation=True)  # which a tokenizer remembers
    assert_same(again(model).load(), store.load())


def test_another_tokenizer_is_noticed(again):
    model = tiny_model()
    model.tokenizer.add_tokens(["store, John"])
    with pytest.raises(MismatchError, match="other tokenizer"):
        again(model)


def test_whether_the_first_token_makes_a_row_is_noticed(tiny, again):
    with pytest.raises(MismatchError, match="bos False there, True here"):
        again(tiny, bos=True)


def test_interventions_are_noticed(tiny, tiny_saes, store, again, tmp_path):
    one = {SITE: tiny_saes[SITE]}
    with intervened(tiny, zero("attn_out 0")) as changed:
        with pytest.raises(MismatchError, match="edits 0 only here"):
            again(changed)
        theirs = capture(changed, one, TEXTS, store=tmp_path, progress=False)
        assert_same(theirs.load(), capture(changed, one, TEXTS, progress=False))
        assert (theirs.load().features[SITE] != store.load().features[SITE]).nnz
    for others, said in [
        ([], "edits 0 only there"),
        ([zero("attn_out 1")], "edits 0 site 'attn_out 0' there, 'attn_out 1' here"),
        ([add("attn_out 0", 0.0)], "edits 0 how 'put' there, 'add' here"),
        ([zero("attn_out 0", positions="last")], "positions 'all' there, 'last' here"),
        ([zero("attn_out 0"), zero("attn_out 0")], "edits 1 only here"),
        ([zero(SITE, features=[3])], "dictionary None there"),
    ]:
        with (
            intervened(tiny, others, dictionaries=one) as changed,
            pytest.raises(MismatchError, match=said),
        ):
            capture(changed, one, TEXTS, store=tmp_path, progress=False)
    with intervened(tiny, zero("attn_out 0")) as changed:  # the same once more
        capture(changed, one, TEXTS, store=tmp_path, progress=False)
        with (
            intervened(changed, zero("attn_out 1")) as twice,
            pytest.raises(MismatchError, match="edits 1 only here"),
        ):
            capture(twice, one, TEXTS, store=tmp_path, progress=False)


def test_units_and_values_of_interventions_are_noticed(tiny, tiny_saes):
    def described(*changes):
        with intervened(tiny, changes, dictionaries=tiny_saes) as changed:
            return model_inputs(changed)["edits"]

    several = [
        zero(SITE, features=[3]),
        zero(SITE, features=[4]),
        add(SITE, 1.0, features=[3]),
        add(SITE, 2.0, features=[3]),
        zero("attn_z 0", heads=[1]),
        zero("attn_z 0", heads=[2]),
    ]
    assert len({str(described(each)) for each in several}) == len(several)
    assert described(several[0]) == described(zero(SITE, features=[3]))


def test_edits_that_say_nothing_of_themselves_are_refused(tiny, again):
    model = replace(tiny, edits=lambda batch: {})
    with pytest.raises(InputError, match="has edits that no file can describe. Leave store= out"):
        again(model)


def test_descriptions_notice_another_model(tmp_path):
    from circuit_toolkit.dictionaries import Dictionary

    def transcoders(model):
        site, out = Site("mlp_in", 0), Site("mlp_out", 0)
        return {site: Dictionary(random_transcoder(model.name, 0), site, out, "random")}

    def describe(model):
        lens = WeightLens("robust", n_permuted=0)
        return lens.describe(model, transcoders(model), store=tmp_path, progress=False)

    first = describe(tiny_model())
    assert describe(tiny_model()).table().equals(first.table())
    with torch.no_grad():
        model = tiny_model()
        last_weight(model)
    with pytest.raises(MismatchError, match="other model weights"):
        describe(model)
    with (
        intervened(tiny_model(), zero("attn_out 0")) as changed,
        pytest.raises(MismatchError, match="edits 0 only here"),
    ):
        describe(changed)


def test_a_store_of_an_earlier_release_is_read_and_not_gone_on_with(tiny, again, store, tmp_path):
    copy = shutil.copytree(store.folder, tmp_path / "earlier")
    manifest = copy / "manifest.json"
    document = json.loads(manifest.read_text())
    for name in ("edits", "bos", "tokenizer", "configuration", "model_modules"):
        del document["content"]["inputs"][name]
    document["sha256"] = digest(document["content"])
    manifest.write_text(json.dumps(document))
    assert_same(ActivationStore.open(copy).load(), store.load())
    with pytest.raises(MismatchError, match="tokenizer only here; edits only here"):
        again(tiny, store=copy)
