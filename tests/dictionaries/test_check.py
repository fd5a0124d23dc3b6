"""The check tells a dictionary that reads what it was trained on from one that does not."""

from types import SimpleNamespace

import pytest
import torch

from circuit_toolkit.dictionaries import check_dictionaries, load_dictionaries
from circuit_toolkit.dictionaries.check import _disagreements, _oddities
from circuit_toolkit.dictionaries.dictionary import under
from circuit_toolkit.dictionaries.fidelity import (
    ce_recovered,
    explained_typical,
    explained_variance,
    next_token_loss,
    splice,
)
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import LOGITS, RAW, Batch, Conventions, run, token_mask
from circuit_toolkit.sites import Site
from tests.dictionaries.published import FEATURES, about, edit, family_model, fresh, write
from tests.families import PLAIN, PROMPTS, WORDS

pytestmark = pytest.mark.filterwarnings(r"ignore:\s*This SAE has non-empty")
HOOK = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model():
    return family_model("gpt2")


@pytest.fixture(scope="module")
def prompts():
    rng = torch.Generator().manual_seed(0)
    picks = torch.randint(len(WORDS), (16, 20), generator=rng).tolist()
    return [" ".join(WORDS[i] for i in row) for row in picks]


def seen(model, dictionary, prompts, bos=True):
    """What a dictionary reads, (n, D)."""
    batch = model.tokenize(prompts, bos=bos)
    x = run(model, batch, [dictionary.site])[dictionary.site][token_mask(model, batch)]
    return dictionary._seen(x)


def faithful(folder, model, prompts, hook=HOOK, truth=RAW, wrong=RAW, scale=1.0, bos=True):
    """Write a dictionary that rebuilds what its model showed, and answers else with noise.

    As a trained one does. A quarter of its features look past the activations that it knows, where
    the `wrong` reading lies.
    """
    kwargs = {flag: getattr(truth, flag) for flag in PLAIN}
    said = about(model, hook, model_from_pretrained_kwargs=kwargs, prepend_bos=bos)
    write(folder, "standard", model.width, said)
    (dictionary,) = load_dictionaries(model, folder).values()
    x = scale * seen(model, dictionary, prompts, bos)
    if wrong != truth:
        foreign = seen(model, under(model, dictionary, wrong), prompts, bos)
    else:
        foreign = torch.cat([seen(model, dictionary, prompts, each) for each in (True, False)])
    mean, width = x.mean(0), model.width
    past = foreign - mean  # (m, D) directions; the one in which most lies past what is known
    excess = (past * past).sum(1) - ((x - mean) @ past.T).amax(0)
    aside = past[excess.argmax()] / past[excess.argmax()].norm()
    assert excess.max() > 0
    sae, n = fresh(folder), FEATURES - 2 * width
    eye = torch.eye(width)
    sae.W_dec.copy_(torch.cat([eye, -eye, torch.randn(n, width)]))
    sae.W_enc.copy_(torch.cat([eye, -eye, 100 * aside.expand(n, -1)]).T)
    sae.b_enc.copy_(-mean @ sae.W_enc)
    sae.b_enc[-n:] -= 100 * ((x - mean) @ aside).max() + 1e-3
    sae.b_dec.copy_(mean)
    sae.cfg.apply_b_dec_to_input = False
    sae.save_model(folder)
    return folder


CENTRED = Conventions(center_writing_weights=True)


def test_a_dictionary_that_fits_passes(tmp_path, model, prompts):
    folder = faithful(tmp_path / "it", model, prompts, truth=CENTRED)
    dictionaries = load_dictionaries(model, folder)
    check = check_dictionaries(model, dictionaries, prompts)
    row = check.figures[Site("resid_post", 1)]
    assert check.ok and row["explained_variance"] > 0.99 and row["ce_recovered"] > 0.95
    assert 1 < row["l0"] < FEATURES / 2 and "Nothing looks wrong" in repr(check)
    table = check.table()
    assert list(table.index) == [HOOK] and table.loc[HOOK, "l0"] == row["l0"]
    assert "<table" in check._repr_html_() and "Nothing looks wrong" in check._repr_html_()


def test_wrong_centring_is_found_and_named(tmp_path, model, prompts):
    folder = faithful(tmp_path / "it", model, prompts, truth=CENTRED)
    wrong = load_dictionaries(model, folder, conventions=RAW)
    check = check_dictionaries(model, wrong, prompts)
    (site,) = wrong
    assert not check.ok and check.figures[site]["explained_variance"] < 0
    text = "\n".join(check.findings[site])
    assert "is below 0: it reads activations unlike those" in text
    assert "if its model was loaded with Conventions(center_writing_weights=True)" in text
    assert text in repr(check).replace(f"{site}: ", "") and "<li>" in check._repr_html_()
    fits = under(model, wrong[site], CENTRED)
    assert check_dictionaries(model, [fits], prompts).ok


def test_folded_value_biases_are_found_and_named(tmp_path, model, prompts):
    truth = Conventions(fold_ln=True, fold_value_biases=True)
    folder = faithful(tmp_path / "z", model, prompts, "blocks.2.attn.hook_z", truth)
    assert check_dictionaries(model, load_dictionaries(model, folder), prompts).ok
    wrong = load_dictionaries(model, folder, conventions=RAW)
    check = check_dictionaries(model, wrong, prompts)
    assert "Conventions(fold_ln=True, fold_value_biases=True)" in repr(check)


def test_a_missing_first_token_is_found_and_named(tmp_path, model, prompts):
    folder = faithful(tmp_path / "it", model, prompts, bos=False)
    assert check_dictionaries(model, load_dictionaries(model, folder), prompts).ok
    edit(folder, prepend_bos=True)
    check = check_dictionaries(model, load_dictionaries(model, folder), prompts)
    assert "on prompts with Conventions(prepend_bos=False)" in repr(check)
    ids = [model.tokenize([text], bos=True).ids[0].tolist() for text in prompts]
    check = check_dictionaries(model, load_dictionaries(model, folder), ids)
    assert not check.ok and "prepend_bos" not in repr(check)  # ids are taken as they are


def test_a_scale_that_was_not_folded_is_found_and_named(tmp_path, model, prompts):
    write(tmp_path / "it", "standard", model.width, about(model, HOOK))
    (dictionary,) = load_dictionaries(model, tmp_path / "it").values()
    factor = float(model.width**0.5 / seen(model, dictionary, prompts).norm(dim=1).mean())
    folder = faithful(tmp_path / "it", model, prompts, scale=factor)
    dictionaries = load_dictionaries(model, folder)
    check = check_dictionaries(model, dictionaries, prompts)
    call = f"dictionary.sae.fold_activation_norm_scaling_factor({factor:.4g})"
    assert not check.ok and call in repr(check), (factor, check)
    (dictionary,) = dictionaries.values()
    dictionary.sae.fold_activation_norm_scaling_factor(factor)
    assert check_dictionaries(model, dictionaries, prompts).ok


def test_a_dictionary_of_other_weights_fits_under_no_convention(tmp_path, model, prompts):
    write(tmp_path / "it", "jumprelu", model.width, about(model, HOOK))
    check = check_dictionaries(model, load_dictionaries(model, tmp_path / "it"), prompts)
    assert "no other convention fits better: check that model, revision and hook" in repr(check)


def test_odd_numbers_of_active_features_are_named(tmp_path, model, prompts):
    for name, threshold, said in [("few", 1e6, "hardly a feature"), ("many", -1, "more than")]:
        sae = fresh(write(tmp_path / name, "jumprelu", model.width, about(model, HOOK)))
        sae.threshold.fill_(threshold)
        sae.b_enc.fill_(10.0 if name == "many" else 0)
        sae.save_model(tmp_path / name)
        check = check_dictionaries(model, load_dictionaries(model, tmp_path / name), prompts)
        assert any(text.startswith(said) for text in check.findings[Site("resid_post", 1)])


def test_prompts_longer_than_those_of_training_are_named(tmp_path, model, prompts):
    folder = faithful(tmp_path / "it", model, prompts)
    edit(folder, context_size=8)
    check = check_dictionaries(model, load_dictionaries(model, folder), prompts)
    assert "a prompt has 21 tokens; it was trained on prompts of 8" in repr(check)


def test_transcoders_are_checked_at_what_they_write(tmp_path, model, prompts):
    hooks = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"
    write(tmp_path / "it", "skip_transcoder", model.width, about(model, *hooks))
    sae = fresh(tmp_path / "it")
    sae.W_dec.fill_(1e-20)  # zeros are refused; its skip connection is the best linear map
    batch = model.tokenize(prompts, bos=True)
    sites = [Site("mlp_in", 1), Site("mlp_out", 1)]
    values = run(model, batch, sites)
    x, y = (values[site][batch.mask.bool()] for site in sites)
    ones = torch.ones(len(x), 1)
    solution = torch.linalg.lstsq(torch.cat([x, ones], 1), y).solution
    sae.W_skip.copy_(solution[:-1].T)
    sae.b_dec.copy_(solution[-1])
    sae.save_model(tmp_path / "it")
    (dictionary,) = load_dictionaries(model, tmp_path / "it").values()
    fit = torch.cat([x, ones], 1) @ solution
    expected = float(1 - (y - fit).pow(2).sum() / (y - y.mean(0)).pow(2).sum())
    assert explained_variance(dictionary, x, y) == pytest.approx(expected, abs=1e-4)
    row = check_dictionaries(model, [dictionary], prompts).figures[Site("mlp_in", 1)]
    assert 0 < row["explained_variance"] < 1 and row["l0"] > 0


def test_losses_are_those_of_hugging_face(model):
    """By hand: one prompt at a time, unpadded, <bos> predicts but is not predicted."""
    total, count = 0.0, 0
    for text in PROMPTS:
        ids = model.tokenize([text], bos=True).ids
        with torch.no_grad():
            logits = model.hf(ids).logits[0]
        losses = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:], reduction="none")
        total, count = total + float(losses.sum()), count + len(losses)
    batch = model.tokenize(PROMPTS, bos=True)
    assert next_token_loss(model, [batch]) == pytest.approx(total / count, rel=1e-5)
    halves = [model.tokenize(PROMPTS[:1], bos=True), model.tokenize(PROMPTS[1:], bos=True)]
    assert next_token_loss(model, halves) == pytest.approx(total / count, rel=1e-5)
    # Without <bos> the first word is predicted from nothing, and so not counted.
    bare = model.tokenize(PROMPTS, bos=False)
    assert next_token_loss(model, [bare]) == pytest.approx(
        next_token_loss(model, [bare], lambda mask: {}), rel=1e-6
    )


def test_perfect_and_empty_reconstructions_recover_all_and_nothing(tmp_path, model, prompts):
    folder = faithful(tmp_path / "it", model, prompts)
    (dictionary,) = load_dictionaries(model, folder).values()
    batch = model.tokenize(prompts, bos=True)
    assert ce_recovered(model, [batch], dictionary) == pytest.approx(1, abs=0.02)
    nothing = fresh(folder)
    nothing.W_dec.fill_(1e-20)  # zeros are refused
    nothing.b_dec.zero_()
    nothing.save_model(folder)
    (empty,) = load_dictionaries(model, folder).values()
    assert ce_recovered(model, [batch], empty) == pytest.approx(0, abs=1e-6)


def test_a_splice_leaves_padding_and_the_first_token_alone(tmp_path, model):
    folder = write(tmp_path / "it", "topk", model.width, about(model, HOOK))
    (dictionary,) = load_dictionaries(model, folder).values()
    batch = model.tokenize(PROMPTS, bos=True)
    where = torch.zeros_like(batch.mask).bool()
    where[:, -1] = True
    site = dictionary.site
    before = run(model, batch, [site])[site]
    after = run(model, batch, [site], splice(dictionary, where))[site]
    assert torch.equal(before[:, :-1], after[:, :-1])
    torch.testing.assert_close(after[:, -1], dictionary.reconstruct(before[:, -1]))
    zeroed = run(model, batch, [site, LOGITS], splice(dictionary, where, zero=True))[site]
    assert not zeroed[:, -1].any()


def test_what_cannot_be_checked_is_refused(tmp_path, model):
    with pytest.raises(InputError, match="No dictionaries were given"):
        check_dictionaries(model, {}, PROMPTS)
    for i, bos in enumerate([True, False]):
        said = about(model, f"blocks.{i}.hook_resid_post", prepend_bos=bos)
        write(tmp_path / str(i), "topk", model.width, said)
    dictionaries = load_dictionaries(model, tmp_path)
    with pytest.raises(MismatchError, match="one after the other"):
        check_dictionaries(model, dictionaries, PROMPTS)
    with pytest.raises(InputError, match="too few tokens"):
        check_dictionaries(model, list(dictionaries.values())[:1], ["cat"])


def planted_outlier(tmp_path, model, prompts):
    """One coordinate is made huge, and a dictionary that rebuilds it and nothing else."""
    embedding = model.hf.get_input_embeddings()
    old = embedding.weight.data.clone()
    with torch.no_grad():
        embedding.weight[:, 0] = 300 * torch.linspace(-1, 1, len(old)).roll(7)
    write(tmp_path / "it", "standard", model.width, about(model, HOOK))
    (dictionary,) = load_dictionaries(model, tmp_path / "it").values()
    x = seen(model, dictionary, prompts)
    sae = fresh(tmp_path / "it")
    for weights in (sae.W_enc, sae.W_dec, sae.b_enc):
        weights.zero_()
    sae.cfg.apply_b_dec_to_input = False
    sae.b_dec.copy_(x.mean(0))
    for row, sign in enumerate((1, -1)):
        sae.W_enc[0, row] = sae.W_dec[row, 0] = sign
        sae.b_enc[row] = -sign * x[:, 0].mean()
    sae.save_model(tmp_path / "it")
    return embedding, old


def test_a_huge_coordinate_does_not_make_a_good_dictionary(tmp_path, model, prompts):
    embedding, old = planted_outlier(tmp_path, model, prompts)
    try:
        (dictionary,) = load_dictionaries(model, tmp_path / "it").values()
        check = check_dictionaries(model, [dictionary], prompts)
    finally:
        embedding.weight.data.copy_(old)
    (row,) = check.figures.values()
    assert row["explained_variance"] > 0.99 and abs(row["explained_typical"]) < 0.05
    assert row["silent"] == pytest.approx(1 - 2 / FEATURES)
    assert not check.ok and "is made by a few tokens or coordinates of outlying size" in repr(check)


def test_tokens_of_outlying_norm_are_neither_judged_nor_replaced(tmp_path, model):
    folder = write(tmp_path / "it", "topk", model.width, about(model, HOOK))
    (dictionary,) = load_dictionaries(model, folder).values()
    x = torch.randn(60, model.width, generator=torch.Generator().manual_seed(0))
    few = explained_typical(dictionary, x, x)
    sinks = torch.cat([x, 1000 * torch.ones(3, model.width)])
    assert explained_typical(dictionary, sinks, sinks) == pytest.approx(few, abs=1e-6)
    batch = model.tokenize(PROMPTS[:1], bos=True)
    where, site = batch.mask.bool(), dictionary.site

    def huge(y):
        y = y.clone()
        y[:, 1] *= 1000
        return splice(dictionary, where)[site](y)

    plain, found = run(model, batch, [site])[site], run(model, batch, [site], {site: huge})[site]
    assert torch.equal(found[:, 1], 1000 * plain[:, 1])
    assert not torch.isclose(found[:, 2:], plain[:, 2:]).all()


def test_what_a_task_keeps_is_the_metric_with_the_reconstruction_in_place(demo, demo_saes):
    import circuit_toolkit as ct

    task = ct.tasks.ioi(demo, n=24, seed=3)
    (dictionary,) = [demo_saes[Site("resid_post", 2)]]
    check = check_dictionaries(demo, [dictionary], task, progress=False)
    batch = demo.tokenize(task.clean, bos=dictionary.conventions.prepend_bos)
    mask = token_mask(demo, batch)
    full = run(demo, batch, [LOGITS])[LOGITS][:, -1]
    site = dictionary.site

    def rebuilt(x):
        return torch.where(mask[..., None], dictionary.reconstruct(x), x)

    kept = run(demo, batch, [LOGITS], {site: rebuilt})[LOGITS][:, -1]
    wanted = task.score(kept, range(24)).mean() / task.score(full, range(24)).mean()
    assert check.figures[site]["metric_kept"] == pytest.approx(float(wanted), abs=1e-5)


def test_a_metric_that_contradicts_the_variance_is_named():
    row = {"explained_variance": 0.99, "explained_typical": 0.97, "ce_recovered": 0.97}
    assert not [*_disagreements(row)]
    said = "\n".join(_disagreements({**row, "metric_kept": 0.63}))
    assert "0.63 of the task's metric is kept though 0.990 of the variance is explained" in said
    assert "0.50 is cross-entropy recovered" in "\n".join(
        _disagreements({**row, "ce_recovered": 0.5})
    )


def test_a_dictionary_that_fails_on_outlying_tokens_alone_is_not_called_foreign():
    row = {"explained_variance": -5.4, "explained_typical": 0.73, "l0": 9.0, "ce_recovered": 1.0}
    batch = Batch(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.long))
    dictionary = SimpleNamespace(n_features=100, metadata={})
    (said,) = _oddities(row, dictionary, batch)
    assert "-5.40 is that of a few tokens of outlying size" in said and "0.73 is explained" in said
    (said,) = _oddities(row | {"explained_typical": 0.2}, dictionary, batch)
    assert "unlike those that it was trained on" in said
