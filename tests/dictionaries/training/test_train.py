"""Dictionaries from texts: what is read, in which order, interrupted, saved, refused."""

import json
import warnings

import numpy as np
import pytest
import torch

from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.dictionaries import load_dictionaries, train_dictionaries
from circuit_toolkit.dictionaries.check import check_dictionaries
from circuit_toolkit.dictionaries.training import checkpoints
from circuit_toolkit.dictionaries.training.batches import ActivationReader, shuffled, token_rows
from circuit_toolkit.dictionaries.training.checkpoints import TrainingRun
from circuit_toolkit.dictionaries.training.trainers import BatchTopKTraining, SaeTraining
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import load_model
from circuit_toolkit.sites import Site
from tests.tiny import WIDTH

TEXTS = [sentence.text for sentence in Grammar(0).sentences(60)]
SITE, MLP = Site("resid_post", 1), Site("mlp_in", 1)
SHORT = {"n_features": 48, "k": 4, "steps": 40, "batch": 64, "progress": False}


def weights(dictionary):
    return dictionary.sae.state_dict()


def equal(one, two):
    assert weights(one).keys() == weights(two).keys()
    return all(torch.equal(value, weights(two)[name]) for name, value in weights(one).items())


# What is read


def test_activations_are_those_of_every_token_but_bos(tiny):
    tokens = token_rows(tiny, TEXTS)
    sites = (SITE, Site("attn_z", 0))
    source = ActivationReader(tiny, tokens, [sites], memory=1e9, progress=False)
    x, y = source.read(sites, np.arange(len(TEXTS)))
    wanted = []
    for row in sorted(tokens.rows, key=len):  # as they are read
        with torch.no_grad():
            states = tiny.hf(torch.tensor([row]), output_hidden_states=True).hidden_states
        wanted.append(states[2][0, 1:])
    assert tokens.total == len(x) == len(y) == sum(map(len, tokens.rows)) - len(TEXTS)
    assert y.shape[1] == WIDTH  # heads in a row
    # Padding moves no sum by more than rounding: 1e-5 of activations near 10.
    torch.testing.assert_close(x, torch.cat(wanted), rtol=1e-5, atol=1e-4)


def test_texts_are_cut_or_packed_and_tokens_taken_as_they_are(tiny):
    bos, eos = tiny.bos_id, tiny.tokenizer.eos_token_id
    whole = [tiny.tokenizer(text)["input_ids"] for text in TEXTS]
    assert token_rows(tiny, TEXTS).rows == whole
    cut = token_rows(tiny, TEXTS, context=6)
    assert cut.rows == [row[:6] for row in whole] and cut.longest == 6
    bare = token_rows(tiny, TEXTS, bos=False)
    assert bare.rows == [row[1:] for row in whole] and not bare.begin
    packed = token_rows(tiny, TEXTS, context=6, packed=True)
    assert {len(row) for row in packed.rows[:-1]} == {6} and packed.begin
    assert sum((row[1:] for row in packed.rows), []) == sum((row[1:] + [eos] for row in whole), [])
    given = torch.tensor([[5, 6, 7], [bos, 6, 7]])
    for form in (given, given.numpy(), given.tolist()):
        kept = token_rows(tiny, form)
        assert kept.rows == given.tolist() and not kept.begin and kept.total == 5
    assert token_rows(tiny, given[1:]).begin
    checksums = {c.sha256 for c in (cut, bare, packed, kept, token_rows(tiny, [[5, 6], [7, bos]]))}
    assert len(checksums) == 5


# In which order

COUNTS = np.array([3, 5, 2, 4, 6, 1, 3, 5])


def numbered(block):
    """One "activation" a token, which says which token it is."""
    starts = np.concatenate([[0], np.cumsum(COUNTS)])
    return (torch.cat([torch.arange(starts[i], starts[i + 1]) for i in block]),)


@pytest.mark.parametrize("capacity", [10, 17, 1000])
def test_an_epoch_gives_every_token_at_most_once_and_drops_less_than_a_batch_a_block(capacity):
    size, blocks, seen = 4, [], []
    stream = shuffled(lambda b: blocks.append(b) or numbered(b), COUNTS, capacity, size, seed=0)
    while sum(map(len, blocks)) <= len(COUNTS):  # until the second epoch begins
        (batch,) = next(stream)
        assert len(batch) == size
        seen.append(batch)
    epoch = torch.cat(seen[:-1])
    first = blocks[:-1]
    assert len(set(epoch.tolist())) == len(epoch)
    assert sorted(np.concatenate(first)) == list(range(len(COUNTS)))
    assert all(COUNTS[block].sum() <= capacity for block in first)
    assert len(epoch) == sum(COUNTS[block].sum() // size * size for block in first)
    assert epoch.tolist() != sorted(epoch.tolist())
    if capacity > COUNTS.sum():
        assert not torch.equal(epoch[:4], seen[-1])  # another order in the next epoch


@pytest.mark.parametrize("capacity", [10, 17, 1000])
def test_a_stream_goes_on_from_any_batch_without_reading_what_came_before(capacity):
    def take(start, n):
        read = []
        stream = shuffled(
            lambda b: read.append(b) or numbered(b), COUNTS, capacity, 4, seed=1, start=start
        )
        return [next(stream)[0].tolist() for _ in range(n)], read

    whole, all_read = take(0, 40)
    assert len(set(map(tuple, whole))) > 30
    for start in (1, 5, 17, 30):
        rest, read = take(start, 40 - start)
        assert rest == whole[start:]
        assert len(read) <= len(all_read) - (start > 9)  # an epoch has at most 7 batches


def test_the_model_runs_once_if_all_fits_and_else_streams_the_same_tokens(tiny, monkeypatch):
    passes = []
    original = ActivationReader._gathered
    monkeypatch.setattr(
        ActivationReader, "_gathered", lambda *args: passes.append(args[1:]) or original(*args)
    )
    tokens = token_rows(tiny, TEXTS)
    sites = [SITE, Site("resid_pre", 0)]
    one = 4 * WIDTH * tokens.total
    found = {
        memory: train_dictionaries(tiny, sites, TEXTS, **SHORT, memory=memory)
        for memory in (2 * one, one, one // 3)
    }
    everything, each, streamed = found.values()
    assert [len(p[0]) for p in passes[:3]] == [2, 1, 1] and len(passes) > 6
    assert all(len(rows) < len(TEXTS) / 2 for _, rows in passes[3:])
    assert all(equal(everything[site], each[site]) for site in sites)
    assert not equal(each[SITE], streamed[SITE])


# Interrupted


class Stop(Exception):
    """Stands for a signal, a full disk, a power cut."""


def stopping(monkeypatch, owner, name, at):
    """Let call number `at` of a method fail; return a list that counts the calls."""
    calls, original = [], getattr(owner, name)

    def call(*args, **kwargs):
        calls.append(args)
        if len(calls) == at:
            raise Stop
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.mark.parametrize("memory", [1e9, 20_000])  # in memory; through a buffer
@pytest.mark.parametrize(
    ("kind", "site", "training"),
    [("sae", SITE, SaeTraining), ("transcoder", MLP, BatchTopKTraining)],
)
def test_interrupted_training_ends_as_if_it_had_not_been(
    tiny, tmp_path, monkeypatch, kind, site, training, memory
):
    settings = {**SHORT, "memory": memory, "checkpoint_every": 7}
    if kind == "transcoder":
        settings["memory"] = 2 * memory
    whole = train_dictionaries(tiny, [site], TEXTS, kind, **settings)[site]
    with monkeypatch.context() as patch:
        stopping(patch, training, "update", at=25)
        with pytest.raises(Stop):
            train_dictionaries(tiny, [site], TEXTS, kind, **settings, folder=tmp_path)
    assert [each.name for each in tmp_path.glob("checkpoints/*/[0-9]*")] == ["000000021"]
    assert not list(tmp_path.glob("*/cfg.json"))  # nothing half-trained can be loaded
    torch.rand(5)  # the global generator is elsewhere now
    with monkeypatch.context() as patch:
        steps = stopping(patch, training, "update", at=0)
        resumed = train_dictionaries(tiny, [site], TEXTS, kind, **settings, folder=tmp_path)[site]
    assert len(steps) == 40 - 21
    assert equal(resumed, whole)
    assert not (tmp_path / "checkpoints").exists()


def test_an_interruption_while_a_checkpoint_is_written_leaves_the_one_before(
    tiny, tmp_path, monkeypatch
):
    settings = {**SHORT, "checkpoint_every": 7, "folder": tmp_path}
    whole = train_dictionaries(tiny, [SITE], TEXTS, **SHORT)[SITE]
    with monkeypatch.context() as patch:
        stopping(patch, SaeTraining, "save", at=3)
        with pytest.raises(Stop):
            train_dictionaries(tiny, [SITE], TEXTS, **settings)
    with monkeypatch.context() as patch:  # interrupted again, when the old one is let go
        stopping(patch, checkpoints, "_remove", at=1)
        with pytest.raises(Stop):
            train_dictionaries(tiny, [SITE], TEXTS, **settings)
    assert equal(train_dictionaries(tiny, [SITE], TEXTS, **settings)[SITE], whole)


def test_a_cell_that_is_run_again_loads_what_is_finished(tiny, tmp_path, monkeypatch):
    sites = [SITE, Site("resid_post", 0)]
    first = train_dictionaries(tiny, sites, TEXTS, **SHORT, folder=tmp_path)
    steps = stopping(monkeypatch, SaeTraining, "update", at=0)
    monkeypatch.setattr(
        ActivationReader, "_gathered", lambda *_: pytest.fail("nothing is to be read")
    )
    again = train_dictionaries(tiny, sites, TEXTS, **SHORT, folder=tmp_path)
    assert list(again) == list(first) and not steps
    assert all(equal(again[site], first[site]) for site in sites)


def test_a_folder_of_something_else_is_refused_before_training(tiny, tmp_path, monkeypatch):
    mine = tmp_path / "sae-resid_post-1" / "thesis.txt"
    other = tmp_path / "checkpoints" / "sae-resid_post-1" / "0001" / "mine.txt"
    for file in (mine, other):
        file.parent.mkdir(parents=True)
        file.write_text("years of work")
    steps = stopping(monkeypatch, SaeTraining, "update", at=0)
    for resume in (True, False):
        with pytest.raises(InputError, match="'thesis.txt', and is not replaced"):
            train_dictionaries(tiny, [SITE], TEXTS, **SHORT, folder=tmp_path, resume=resume)
    assert not steps
    mine.rename(tmp_path / "thesis.txt")
    train_dictionaries(tiny, [SITE], TEXTS, **SHORT, folder=tmp_path, resume=False)
    assert other.read_text() == (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_is_finished_is_not_trained_again(tiny, tmp_path, monkeypatch):
    first = train_dictionaries(tiny, [SITE], TEXTS, **SHORT, folder=tmp_path)
    other = Site("resid_post", 0)
    with monkeypatch.context() as patch:
        steps = stopping(patch, SaeTraining, "update", at=0)
        both = train_dictionaries(tiny, [SITE, other], TEXTS, **SHORT, folder=tmp_path)
        assert list(both) == [other, SITE] and len(steps) == 40
        train_dictionaries(tiny, [SITE], TEXTS, **SHORT, folder=tmp_path, resume=False)
        assert len(steps) == 80
    assert equal(both[SITE], first[SITE])
    assert equal(load_dictionaries(tiny, tmp_path)[SITE], first[SITE])


def test_a_run_with_other_settings_is_refused_and_named(tiny, tmp_path, monkeypatch):
    train_dictionaries(tiny, [SITE], TEXTS, **SHORT, folder=tmp_path)
    with pytest.raises(MismatchError, match=r"'.*sae-resid_post-1'.*: k=4 \(now 5\)\. Pass"):
        train_dictionaries(tiny, [SITE], TEXTS, **{**SHORT, "k": 5}, folder=tmp_path)
    with pytest.raises(MismatchError, match="dataset_sha256"):
        train_dictionaries(tiny, [SITE], [*TEXTS, TEXTS[0]], **SHORT, folder=tmp_path)
    settings = {**SHORT, "steps": 30}
    with monkeypatch.context() as patch:  # checkpoints are as particular
        stopping(patch, SaeTraining, "update", at=25)
        with pytest.raises(Stop):
            train_dictionaries(
                tiny, ["embed"], TEXTS, **SHORT, folder=tmp_path, checkpoint_every=10
            )
    with pytest.raises(MismatchError, match=r"steps=40 \(now 30\)"):
        train_dictionaries(tiny, ["embed"], TEXTS, **settings, folder=tmp_path)
    again = train_dictionaries(tiny, ["embed"], TEXTS, **settings, folder=tmp_path, resume=False)
    assert again[Site("embed")].metadata["training"]["steps"] == 30


# Saved


@pytest.mark.parametrize(
    ("kind", "site", "out"),
    [
        ("sae", SITE, SITE),
        ("sae", Site("attn_z", 2), Site("attn_z", 2)),
        ("transcoder", MLP, Site("mlp_out", 1)),
        ("transcoder", Site("mlp_norm", 0), Site("mlp_out", 0)),
    ],
)
def test_what_is_saved_says_all_and_loads_everywhere(tiny, tmp_path, kind, site, out):
    from sae_lens import SAE, __version__

    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trained = train_dictionaries(tiny, [site], TEXTS, kind, **SHORT, folder=tmp_path)[site]
        loaded = load_dictionaries(tiny, tmp_path, kind=kind)[site]
    (folder,) = tmp_path.glob("*/")
    theirs = SAE.load_from_disk(folder)
    x = torch.randn(7, *tiny.shape_at(site))
    assert trained.site == loaded.site == site and trained.out == loaded.out == out
    assert torch.equal(trained.encode(x), loaded.encode(x))
    assert torch.equal(theirs.encode(x).to_dense(), trained.encode(x))
    assert trained.reconstruct(x, x).shape == x.shape
    said = json.loads((folder / "cfg.json").read_text())["metadata"]
    assert said["model_name"] == tiny.name
    assert (said["hook_name"], said["hook_name_out"]) == (str(site), str(out))
    assert said["prepend_bos"] is True and said["model_from_pretrained_kwargs"] == {}
    assert said["context_size"] == max(len(tiny.tokenizer(t)["input_ids"]) for t in TEXTS)
    assert said["sae_lens_version"] == __version__ and said["training_tokens"] == 40 * 64
    assert said["training"]["dataset_tokens"] == token_rows(tiny, TEXTS).total


def test_weights_are_saved_in_full_or_half_precision(tiny, tmp_path):
    full = train_dictionaries(tiny, [SITE], TEXTS, **SHORT, folder=tmp_path / "full")[SITE]
    memory = train_dictionaries(tiny, [SITE], TEXTS, **SHORT)[SITE]
    half = train_dictionaries(tiny, [SITE], TEXTS, **SHORT, folder=tmp_path / "half", half=True)
    assert equal(full, memory)
    assert all(
        torch.equal(value.half().float(), weights(half[SITE])[name])
        for name, value in weights(full).items()
    )


def test_training_is_seeded_and_leaves_the_global_generator_and_the_screen_alone(tiny, capfd):
    state = torch.get_rng_state()
    one = train_dictionaries(tiny, [SITE], TEXTS, **SHORT)[SITE]
    torch.manual_seed(99)
    two = train_dictionaries(tiny, [SITE], TEXTS, **SHORT)[SITE]
    three = train_dictionaries(tiny, [SITE], TEXTS, **SHORT, seed=1)[SITE]
    assert equal(one, two) and not equal(one, three)
    torch.manual_seed(99)
    assert not torch.equal(state, after := torch.get_rng_state())
    train_dictionaries(tiny, [MLP], TEXTS, "transcoder", **SHORT)
    assert torch.equal(after, torch.get_rng_state())
    assert capfd.readouterr() == ("", "")
    train_dictionaries(tiny, [SITE], TEXTS, **{**SHORT, "progress": True})
    assert "resid_post 1" in capfd.readouterr().err


# Refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "No prompts"),
        ({"prompts": "when Mary"}, r"write \[text\]"),
        ({"prompts": ["", ""]}, "all empty"),
        ({"prompts": [[3, 10**6]]}, "token ids from 0 to"),
        ({"prompts": np.zeros((3, 65), int)}, "65 tokens, .* takes at most 64"),
        ({"prompts": [[3, 4]], "prepend_bos": True}, "as they are"),
        ({"prompts": TEXTS[:2]}, "fewer than one batch of 64"),
        ({"context": 65}, "from 2 to 64"),
        ({"sites": []}, "No sites"),
        ({"sites": "resid_post 1"}, r"write \['resid_post 1'\]"),
        ({"sites": ["resid_post 3"]}, "layers 0 to 2"),
        ({"sites": ["attn_pattern 0"]}, "no activation of one token"),
        ({"sites": ["logits"]}, "not logits"),
        ({"kind": "crosscoder"}, "kind must be one of 'sae', 'transcoder', got"),
        ({"kind": "transcoder"}, r"reads what an MLP reads.*Pass \['mlp_in 1'\]"),
        ({"k": 49}, "n_features must be at least 49, got 48"),
        ({"n_features": 0}, "n_features must be at least 4"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"memory": 1000}, "pass at least"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny, change, message):
    given = {"prompts": TEXTS, "sites": [SITE], **SHORT, **change}
    with pytest.raises(InputError, match=message):
        train_dictionaries(tiny, **given)


def test_unused_runs_are_not_touched(tmp_path):
    nothing = TrainingRun("sae-x", (SITE,), None, {}, None, False)  # type: ignore[arg-type]
    assert not nothing.is_finished()
    nothing.forget()


# On a real model


def test_an_autoencoder_of_a_small_language_model_keeps_nine_tenths_of_its_loss(shared_data):
    model = load_model(shared_data / "models/stories260k")
    stories = json.loads((shared_data / "text/tinystories_1000.json").read_text())
    settings = {"n_features": 512, "k": 16, "steps": 300, "batch": 512, "context": 128}
    saes = train_dictionaries(model, ["resid_post 2"], stories[:400], **settings, progress=False)
    held_out = [model.tokenizer(story)["input_ids"][:128] for story in stories[900:940]]
    figures = check_dictionaries(model, saes, held_out).figures[Site("resid_post", 2)]
    assert figures["ce_recovered"] >= 0.9, figures
    assert figures["l0"] <= 16 + 1e-4, figures
