import random
import re

import numpy as np
import pytest
import torch

from circuit_toolkit.errors import InputError, ToolkitError
from circuit_toolkit.sites import KINDS, Site

# A block as TransformerLens runs it, from its hook points.
BLOCK = [
    "hook_resid_pre",
    "attn.hook_pattern",
    "attn.hook_z",
    "attn.hook_result",
    "hook_attn_out",
    "hook_resid_mid",
    "ln2.hook_normalized",
    "mlp.hook_in",
    "hook_mlp_out",
    "hook_resid_post",
]
IN_ORDER = [
    "hook_embed",
    *(f"blocks.{n}.{hook}" for n in (0, 1, 9, 10) for hook in BLOCK),
    "logits",
]


def test_every_kind_has_its_place_in_the_order():
    assert {Site.parse(name).kind for name in IN_ORDER} == set(KINDS)


@pytest.mark.parametrize("name", IN_ORDER)
def test_names_and_short_forms_read_back(name):
    site = Site.parse(name)
    assert str(site) == name
    assert Site.parse(site.short) == site == Site.parse(site)


def test_what_transformer_lens_hooks_in_front_of_the_norm_is_the_stream():
    assert Site.parse("blocks.3.hook_mlp_in") == Site("resid_mid", 3)


def test_sites_sort_in_order_of_computation():
    sites = [Site.parse(name) for name in IN_ORDER]
    random.shuffle(sites)
    assert [str(site) for site in sorted(sites)] == IN_ORDER
    assert all(a <= b and b > a for a, b in zip(sorted(sites), sorted(sites)[1:], strict=False))


def test_equal_sites_are_one_key():
    assert len({Site("mlp_out", 3), Site.parse("blocks.3.hook_mlp_out"), Site("mlp_out", 4)}) == 2


@pytest.mark.parametrize(
    "name",
    ["", "resid", "blocks.3.hook_resid", "blocks.x.hook_mlp_out", "blocks.-1.hook_mlp_out"]
    + [
        "blocks.3.hook_mlp_out.more",
        "transformer.h.3",
        "mlp_out",
        "embed 0",
        "blocks.3xhook_mlp_out",
    ],
)
def test_a_foreign_name_is_refused_and_named(name):
    with pytest.raises(InputError, match=re.escape(repr(name)) + ".*TransformerLens"):
        Site.parse(name)


@pytest.mark.parametrize("kind, layer", [("resid_pre", -1), ("embed", 1), ("logits", 2)])
def test_a_layer_that_does_not_fit_is_refused(kind, layer):
    with pytest.raises(InputError, match=f"{kind}.*{layer}"):
        Site(kind, layer)


def test_an_unknown_kind_is_told_the_known_ones():
    with pytest.raises(InputError, match="'resid'.*resid_post"):
        Site("resid", 0)
    assert issubclass(InputError, ToolkitError) and issubclass(InputError, ValueError)


@pytest.mark.parametrize("wrong", [5, None, 1.5])
def test_what_is_no_name_is_refused(wrong):
    with pytest.raises(InputError, match="not "):
        Site.parse(wrong)


@pytest.mark.parametrize("layer", ["3", 1.0, None, True, np.float32(1), torch.ones(2)])
def test_a_layer_is_a_whole_number(layer):
    with pytest.raises(InputError, match="layer of site 'mlp_out' must be a whole number"):
        Site("mlp_out", layer)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array, torch.tensor])
def test_a_layer_is_of_whoever_counts(kind):
    assert Site("mlp_out", kind(2)) == Site("mlp_out", 2)
    assert type(Site("mlp_out", kind(2)).layer) is int and len({Site("embed", kind(0))}) == 1
