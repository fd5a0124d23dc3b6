"""Dictionaries as users pass them, and what is passed in their place by mistake."""

import numpy as np
import pandas as pd
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.dictionaries import (
    as_dictionaries,
    bind_dictionary,
    check_dictionaries,
    coordinates,
    load_dictionaries,
    train_dictionaries,
)
from circuit_toolkit.errors import InputError, MismatchError, ToolkitError
from circuit_toolkit.models import load_model
from circuit_toolkit.sites import Site
from tests.tiny import TEXTS, random_sae

FIRST, SECOND = Site("resid_post", 0), Site("resid_post", 1)


@pytest.fixture(scope="module")
def two(tiny, tiny_folder):
    return load_dictionaries(tiny, tiny_folder, sites=[FIRST, SECOND])


@pytest.mark.parametrize(
    "form",
    [
        dict,
        lambda two: {site.short: each for site, each in two.items()},
        lambda two: {str(site): each for site, each in reversed(two.items())},
        lambda two: [*reversed(two.values())],
        lambda two: iter(two.values()),
        lambda two: np.array([*two.values()], dtype=object),
        lambda two: [each.sae for each in two.values()],
        lambda two: {site.short: each.sae for site, each in two.items()},
    ],
    ids=["by site", "short", "hooks", "list", "iterator", "array", "sae_lens", "named sae_lens"],
)
def test_every_form_gives_the_same_dictionaries_in_order(tiny, two, form):
    found = as_dictionaries(tiny, form(two))
    assert list(found) == [FIRST, SECOND] and {type(each) for each in found.values()} == {
        ct.dictionaries.Dictionary
    }
    for site, each in found.items():
        x = torch.randn(3, tiny.width)
        assert torch.equal(each.encode(x), two[site].encode(x)) and each.site == site


def test_one_alone_and_sites_as_they_are(tiny, two):
    assert list(as_dictionaries(tiny, two[SECOND])) == [SECOND]
    bound = as_dictionaries(tiny, two[SECOND].sae)[SECOND]
    assert bound.name == str(SECOND) and bound.sae is two[SECOND].sae
    raw = coordinates(tiny, FIRST)
    assert as_dictionaries(tiny, raw) == raw


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda m, two: {SECOND: two[FIRST]}, MismatchError, "under blocks.1.* reads blocks.0"),
        (lambda m, two: [two[FIRST]] * 2, InputError, "Two dictionaries read blocks.0"),
        (lambda m, two: {}, InputError, "No dictionaries were given: pass load_dictionaries"),
        (lambda m, two: [], InputError, "No dictionaries were given"),
        (lambda m, two: None, InputError, "got None"),
        (lambda m, two: "resid_post 1", InputError, "got 'resid_post 1'"),
        (lambda m, two: ["resid_post 1"], InputError, "load_dictionaries.* got 'resid_post 1'"),
        (lambda m, two: m, InputError, "got a Model"),
        (lambda m, two: ct.tasks.ioi(m, 2), InputError, "got a Task"),
        (lambda m, two: {FIRST: ct.tasks.ioi(m, 2)}, InputError, "got a Task"),
        (lambda m, two: {"layer 1": two[FIRST]}, InputError, "'layer 1' is not a site"),
        (lambda m, two: {1: two[FIRST]}, InputError, "A site is a name or a Site, not 1"),
        (lambda m, two: torch.nn.Linear(2, 2), InputError, "got a Linear"),
        (lambda m, two: torch.ones(2), InputError, "got a Tensor"),
        (lambda m, two: pd.DataFrame({"a": [1]}), InputError, "got 'a'"),
        (lambda m, two: random_sae("gpt2", FIRST), MismatchError, "trained on 'gpt2'"),
    ],
)
def test_what_is_no_dictionary_is_refused_with_the_way_out(tiny, two, given, error, message):
    wrong = given(tiny, two)
    with pytest.raises(error, match=message):
        as_dictionaries(tiny, wrong)
    with pytest.raises(error, match=message):
        check_dictionaries(tiny, wrong, TEXTS, progress=False)


def test_a_check_takes_names_one_dictionary_and_a_task_and_shows_how_far_it_is(tiny, two, capfd):
    task = ct.tasks.ioi(tiny, 4)
    plain = check_dictionaries(tiny, two, task.texts, progress=False)
    assert capfd.readouterr().err == ""
    named = {site.short: each.sae for site, each in two.items()}
    for given in (two, named, [*two.values()]):
        found = check_dictionaries(tiny, given, task, progress=False).figures
        assert all(row.pop("metric_kept") is not None for row in found.values())  # pyright: ignore
        assert found == plain.figures
    assert list(check_dictionaries(tiny, two[FIRST], task).figures) == [FIRST]
    assert "check" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m, two: check_dictionaries(two, m, TEXTS),
            "must be a Model, got a dict of 2",
        ),
        (lambda m, two: check_dictionaries(m, TEXTS, two), "load_dictionaries.*got 'when Mary"),
        (lambda m, two: check_dictionaries(m, two, "a text"), r"write \[text\]"),
        (lambda m, two: check_dictionaries(m, two, {"text": TEXTS}), r"data\['text'\]"),
        (lambda m, two: check_dictionaries(m, two, two), "prompts must be"),
        (lambda m, two: check_dictionaries(m, two, m), "got a Model"),
        (lambda m, two: load_dictionaries("gpt2-small-res-jb", m), "model must be a Model"),
        (lambda m, two: load_dictionaries(m, m), "source must be a name or a path, got a Model"),
        (lambda m, two: load_dictionaries(m, ct.tasks.ioi(m, 2)), "got a Task"),
        (lambda m, two: load_dictionaries(m, two), "loaded already"),
        (lambda m, two: load_dictionaries(m, two[FIRST]), "loaded already"),
        (lambda m, two: load_dictionaries(m, two[FIRST].sae), "bind_dictionary.*as_dictionaries"),
        (lambda m, two: load_dictionaries(m, "~/none"), "'~/none' is no folder"),
        (lambda m, two: bind_dictionary(two[FIRST].sae, m), "model must be a Model"),
        (lambda m, two: bind_dictionary(m, two[FIRST]), "got a Dictionary.*bound already"),
        (lambda m, two: bind_dictionary(m, "sae"), "sae must be an object of sae_lens, got 'sae'"),
        (lambda m, two: coordinates("resid_post", m), "model must be a Model"),
        (lambda m, two: train_dictionaries(TEXTS, m, ["embed"]), "model must be a Model"),
        (lambda m, two: train_dictionaries(m, TEXTS, ["embed"]), "'when Mary .* is not a site"),
        (lambda m, two: train_dictionaries(m, ["embed"], {"text": TEXTS}), r"data\['text'\]"),
        (lambda m, two: train_dictionaries(m, ["embed"], TEXTS, steps=2.5), "steps must be a who"),
        (lambda m, two: train_dictionaries(m, ["embed"], TEXTS, seed="0"), "seed must be a whole"),
        (lambda m, two: load_model(m), "got a Model. What load_model returned is loaded already"),
        (lambda m, two: load_model(m.tokenizer), "name must be a name or folder of a model"),
        (lambda m, two: load_model(None), "got None"),
        (lambda m, two: load_model(torch.nn.Linear(2, 2), m.tokenizer), "got a Linear"),
        (lambda m, two: load_model("demo", "cuda"), r"got 'cuda'.*load_model\(name, device='cuda'"),
        (lambda m, two: load_model(m.tokenizer, m.hf), "tokenizer must be one of transformers"),
        (lambda m, two: m.tokenize("a text"), r"write \[text\]"),
        (lambda m, two: m.tokenize({"text": TEXTS}), r"data\['text'\]"),
        (lambda m, two: m.tokenize([3, 4]), r"prompts\[0\] must be a text or a list of token ids"),
    ],
)
def test_swapped_and_foreign_arguments_are_refused_with_the_way_out(tiny, two, call, message):
    with pytest.raises(ToolkitError, match=message):
        call(tiny, two)


def test_the_home_folder_is_one(tiny, tiny_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(tiny_folder))
    assert list(load_dictionaries(tiny, "~/sae-1")) == [FIRST]


def test_dictionaries_that_are_not_trained_yet_are_one_line_away(tiny, tmp_path, monkeypatch):
    from dataclasses import replace

    from circuit_toolkit.dictionaries import load_dictionaries, save_dictionary

    monkeypatch.setenv("CIRCUIT_TOOLKIT_CACHE", str(tmp_path))
    known = replace(tiny, name="smollm2")
    with pytest.raises(InputError, match="circuit-toolkit train --model smollm2$"):
        load_dictionaries(known)
    sae = random_sae("smollm2", FIRST)
    save_dictionary(sae, tmp_path / "smollm2" / "sae-first")
    assert list(load_dictionaries(known)) == [FIRST]
