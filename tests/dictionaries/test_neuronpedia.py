"""Pages of features on Neuronpedia: where they are known, and nothing else becomes an address."""

from dataclasses import replace

import pytest

import circuit_toolkit as ct
from circuit_toolkit.dictionaries import load_dictionaries
from circuit_toolkit.errors import InputError
from tests.dictionaries.published import FEATURES, about, edit, family_model, write


@pytest.fixture(scope="module")
def model():
    return family_model("gpt2")


@pytest.fixture
def folder(model, tmp_path):
    return write(tmp_path / "sae", "standard", model.width, about(model, "blocks.1.hook_resid_pre"))


def loaded(model, folder):
    (dictionary,) = load_dictionaries(model, folder).values()
    return dictionary


def test_metadata_of_sae_lens_say_the_page(model, folder):
    edit(folder, neuronpedia_id="gpt2-small/1-res-jb")
    dictionary = loaded(model, folder)
    assert dictionary.neuronpedia_id == "gpt2-small/1-res-jb"
    page = "https://www.neuronpedia.org/gpt2-small/1-res-jb/7"
    assert dictionary.neuronpedia_url(7) == page
    with pytest.raises(InputError, match=f"has features 0 to {FEATURES - 1}: {FEATURES}"):
        dictionary.neuronpedia_url(FEATURES)
    with pytest.raises(InputError, match="feature must be"):
        dictionary.neuronpedia_url(-1)


@pytest.mark.parametrize(
    "said", ["a", "a/b/c", "../b", "a/..", "a/b?x", "a /b", 'a/"onclick', "/", "", 7, ["a/b"]]
)
def test_what_is_no_name_of_a_source_gives_no_address(model, folder, said):
    edit(folder, neuronpedia_id=said)
    dictionary = loaded(model, folder)
    assert dictionary.neuronpedia_id is None and dictionary.neuronpedia_url(0) is None


@pytest.mark.parametrize(
    "source, expected",
    [
        ("gpt2-small-res-jb: blocks.3.hook_resid_pre", "gpt2-small/3-res-jb"),
        ("folder gemma-scope-2b-pt-res: layer_20/width_16k/average_l0_71", "20-gemmascope-res-16k"),
        ("folder qwen3-4b-transcoders: layer_5", "qwen3-4b/5-transcoder-hp"),
        ("folder gemma-scope-2b-pt-res: layer_20/width_16k/average_l0_1", None),
        ("folder of_my_own: layer_5", None),
        ("demo: sae-resid_post-3", None),
        ("", None),
    ],
)
def test_the_list_of_sae_lens_knows_releases_and_folders_of_the_hub(
    model, folder, source, expected
):
    found = replace(loaded(model, folder), source=source).neuronpedia_id
    assert found == expected or (expected and str(found).endswith(f"/{expected}"))


def test_the_bundled_ones_have_no_page(demo_saes):
    assert {each.neuronpedia_url(0) for each in demo_saes.values()} == {None}
    assert ct.features.neuronpedia_labels
