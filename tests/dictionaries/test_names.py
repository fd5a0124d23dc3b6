"""Names of features: what people type, and what is refused."""

from __future__ import annotations

import pytest

from circuit_toolkit.dictionaries.names import feature_at
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

MLP = Site("mlp_in", 3)


@pytest.mark.parametrize(
    "name", [f"{MLP}/17", "mlp_in 3/17", "3/17", (3, 17), (MLP, 17), ("mlp_in 3", 17)]
)
def test_all_forms_name_the_same_feature(demo_transcoders, name):
    assert feature_at(name, demo_transcoders) == (MLP, 17)


def test_a_layer_stands_for_its_one_dictionary_or_its_one_transcoder(demo_saes, demo_transcoders):
    post = Site("resid_post", 3)
    assert feature_at("3/17", {post: demo_saes[post]}) == (post, 17)
    assert feature_at("3/17", {**demo_saes, **demo_transcoders}) == (MLP, 17)
    two = {Site("resid_pre", 3): demo_saes[post], post: demo_saes[post]}
    with pytest.raises(InputError, match="0 transcoders .* at layer 3.*as in 'resid_pre 3/17'"):
        feature_at("3/17", two)


@pytest.mark.parametrize("name", ["59", "/59", "mlp_in 3/", "mlp_in 3/x", (3, 1.5), (3,), 7, None])
def test_what_is_no_name_is_refused_in_one_line(demo_transcoders, name):
    with pytest.raises(InputError, match=r"names no feature. Write .* or \(3, 17\)") as found:
        feature_at(name, demo_transcoders)
    assert len(str(found.value)) < 200


def test_what_is_there_is_said_in_short(demo_transcoders):
    with pytest.raises(InputError, match="for blocks.9.ln2.hook_normalized, only for mlp_in 0, "):
        feature_at("mlp_in 9/3", demo_transcoders)
    many = {Site("mlp_in", layer): demo_transcoders[MLP] for layer in range(26)}
    with pytest.raises(InputError, match=r"mlp_in 5, …, mlp_in 25\."):
        feature_at("mlp_in 30/3", many)
