"""Every public method on a model of which only the layout is here: refused, and nothing fetched.

A local run of such a model would load its weights, which of a model that NDIF hosts are 100 GB.
"""

from dataclasses import replace

import pytest

import circuit_toolkit as ct
from circuit_toolkit.dictionaries import bind_dictionary
from circuit_toolkit.errors import InputError
from tests.methods.cases import random_case
from tests.methods.table import METHODS, begin

RUN_NO_MODEL = {"capture", "attribution_graph written and read", "feature_card"}  # as called there


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    near = random_case("llama")
    folder = tmp_path_factory.mktemp("model")
    near.model.hf.save_pretrained(folder)
    near.model.tokenizer.save_pretrained(folder)
    near = replace(near, model=ct.load_model(folder))
    begin(near)
    model = ct.load_model(folder, remote=True)
    saes, transcoders = (
        {site: bind_dictionary(model, each.sae, check_model=False) for site, each in some.items()}
        for some in (near.saes, near.transcoders)
    )
    case = replace(near, model=model, saes=saes, transcoders=transcoders)
    vars(case)["acts"] = near.acts
    return case


@pytest.mark.parametrize("method", [m for m in METHODS if str(m) not in RUN_NO_MODEL], ids=str)
def test_what_needs_weights_is_refused(far, method):
    with pytest.raises(InputError, match="weights of .* are not here.*load_model"):
        method.call(far)
    assert far.model.remote, "its weights were loaded"


def test_a_card_has_all_that_needs_no_weights(far):
    card = ct.feature_card(far.model, far.saes, (far.first, far.unit), far.acts)
    assert card.logits is None and card.examples.maximum > 0
    assert "Next tokens" not in card.to_html() and far.model.remote
