"""A path is what hooks of plain PyTorch make of it, alone and added up with all others."""

import pytest
import torch

from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import intervene, resample
from circuit_toolkit.models.graph import graph_of
from circuit_toolkit.patching.effects import edges_out_of, patching_effects
from circuit_toolkit.patching.paths import path_patching
from circuit_toolkit.sites import Site
from tests.attribution.prompt_pairs import CLEAN, TwoTokens
from tests.circuit_lasso.linear import linear_model, values
from tests.models.test_components import head_by_head
from tests.tiny import WIDTH, task_it_does, tiny_hf

TOL = 2e-4  # float32: logits of size 100, differences of them times up to 4
HEAD = WIDTH // 4
EARLY, LATE = Site("resid_post", 0), Site("resid_post", 1)


@pytest.fixture(scope="module")
def saes(tiny_saes):
    return {site: each for site, each in tiny_saes.items() if site.kind != "mlp_in"}


class Hooked:
    """A GPT-2 of Hugging Face with hooks: it knows nothing of components."""

    def __init__(self, ids):
        self.module, self.ids, self.handles = tiny_hf(), ids, []

    def before(self, module, edit):
        self.handles.append(module.register_forward_pre_hook(lambda _, args: edit(args)))

    def after(self, module, edit):
        self.handles.append(module.register_forward_hook(lambda _, args, out: edit(args, out)))

    def logits(self):
        with torch.no_grad():
            out = self.module(self.ids[None]).logits[0]
        for handle in self.handles:
            handle.remove()
        return out

    def stream(self, layer):
        """The stream before a block."""
        seen = []
        self.before(self.module.transformer.h[layer], lambda args: seen.append(args[0].clone()))
        self.logits()
        return seen[0][0]

    def written(self, layer, head):
        """What a head adds to the stream."""
        projection, seen = self.module.transformer.h[layer].attn.c_proj, []
        self.before(projection, lambda args: seen.append(args[0].clone()))
        self.logits()
        rows = slice(head * HEAD, (head + 1) * HEAD)
        with torch.no_grad():
            return seen[0][0, :, rows] @ projection.weight[rows]

    def give_head(self, layer, head, added):
        """Let one head alone read the stream plus something."""
        block = self.module.transformer.h[layer]
        seen = []
        self.before(block.ln_1, lambda args: seen.append(args[0]))

        def edit(args, out):
            out = out.clone()
            own = block.attn.c_attn.weight, block.attn.c_attn.bias
            x = torch.nn.functional.layer_norm(
                seen[-1] + added, (WIDTH,), block.ln_1.weight, block.ln_1.bias, block.ln_1.eps
            )
            for third in range(3):
                columns = slice(third * WIDTH + head * HEAD, third * WIDTH + (head + 1) * HEAD)
                out[..., columns] = x @ own[0][:, columns] + own[1][columns]
            return out

        self.after(block.attn.c_attn, edit)

    def give_mlp(self, layer, added):
        self.before(self.module.transformer.h[layer].ln_2, lambda args: (args[0] + added,))

    def give_stream(self, layer, added):
        """Add to the stream before a block, for all that comes after."""
        block = self.module.transformer.h[layer]
        self.before(block, lambda args: (args[0] + added, *args[1:]))


def ids_of(tiny, number):
    task = TwoTokens()
    return [tiny.tokenize([texts[number]]).ids[0] for texts in (task.clean, task.corrupted)]


def measured(logits, number):
    return float(TwoTokens().metric_of(logits[None], [number]))


def by_hooks(tiny, saes, number, sender, receiver):
    """Effect on one prompt, and the change of a receiver that is a feature."""
    here, there = ids_of(tiny, number)
    if isinstance(sender[0], Site):
        site, feature = sender
        acts = [saes[site].encode(Hooked(ids).stream(1)) for ids in (here, there)]
        row = saes[site].directions[feature]
        given = (acts[1] - acts[0])[:, [feature]] * row
    else:
        given = Hooked(there).written(*sender) - Hooked(here).written(*sender)
    run, moved = Hooked(here), None
    if isinstance(receiver[0], Site):
        site, feature = receiver
        stream = Hooked(here).stream(2)
        moved = (saes[site].encode(stream + given) - saes[site].encode(stream))[:, feature]
        run.give_stream(2, moved[:, None] * saes[site].directions[feature])
    elif len(receiver) == 2:
        run.give_head(*receiver, given)
    else:
        run.give_mlp(*receiver, given)
    return measured(run.logits(), number) - measured(Hooked(here).logits(), number), moved


def feature_that_moves(tiny, saes, site, sender=None):
    """A feature that differs most from clean to corrupted; or that a sender moves most."""
    layer, totals = {EARLY: 1, LATE: 2}[site], 0
    for number in range(len(CLEAN)):
        here, there = (Hooked(ids).stream(layer) for ids in ids_of(tiny, number))
        if sender is not None:
            here, there = (Hooked(ids) for ids in ids_of(tiny, number))
            given = there.written(*sender) - here.written(*sender)
            here = here.stream(layer)
            there = here + given
        totals = totals + (saes[site].encode(there) - saes[site].encode(here)).abs().sum(0)
    return int(totals.argmax())


def test_paths_between_components_and_features_are_those_of_hooks(tiny, saes):
    sends = feature_that_moves(tiny, saes, EARLY)
    gets = feature_that_moves(tiny, saes, LATE, (0, 1))
    paths = [
        ("a0.h1", "a2.h3", (0, 1), (2, 3)),
        ("a0.h1", "m1", (0, 1), (1,)),
        ("a0.h1", (LATE, gets), (0, 1), (LATE, gets)),
        ((EARLY, sends), "a1.h2", (EARLY, sends), (1, 2)),
        ((EARLY, sends), "m2", (EARLY, sends), (2,)),
        ((str(EARLY), sends), (LATE, sends), (EARLY, sends), (LATE, sends)),
    ]
    for sender, receiver, *hooks in paths:
        got = path_patching(tiny, TwoTokens(), sender, receiver, dictionaries=saes)
        want = [by_hooks(tiny, saes, number, *hooks) for number in range(len(CLEAN))]
        effects = torch.tensor([effect for effect, _ in want])
        assert (got.effect - effects).abs().max() <= TOL, (sender, receiver)
        if got.change is None:
            assert effects.abs().max() > 5 * TOL
            continue
        for row, (_, moved) in zip(got.change, want, strict=True):
            assert (row[-len(moved) :] - moved).abs().max() <= 1e-5
            assert not row[: -len(moved)].any()
    got = path_patching(tiny, TwoTokens(), "a0.h1", (LATE, gets), dictionaries=saes)
    assert got.change.abs().max() > 0.01 and got.effect.abs().max() > 5 * TOL


def test_between_components_the_direct_path_is_the_edge_and_logits_are_those_patched(tiny):
    edges = [("embed", "a0.h1"), ("a0.h0", "m0"), ("m1", "logits")]
    want = patching_effects(tiny, TwoTokens(), [[edge] for edge in edges])
    for number, edge in enumerate(edges):
        for batch_size in (None, 3):
            got = path_patching(tiny, TwoTokens(), *edge, batch_size=batch_size)
            assert (got.effect - want[:, number]).abs().max() <= TOL
    measure = TwoTokens().metric_of(got.logits[:, None], range(4))
    assert (measure - got.clean - got.effect).abs().max() <= TOL
    assert "m1 -> logits: " in repr(got) and "4 prompts" in repr(got)


def test_through_all_that_lies_between_it_is_the_whole_effect(tiny, saes):
    """Of a head: patch all its edges. Of a feature: resample it in the running model."""
    graph = graph_of(tiny)
    whole = patching_effects(tiny, TwoTokens(), [edges_out_of(graph, "a0.h1")])[:, 0]
    got = path_patching(tiny, TwoTokens(), "a0.h1", "logits", through=graph.readers[:-1])
    assert (got.effect - whole).abs().max() <= TOL and whole.abs().max() > 5 * TOL
    alone = path_patching(tiny, TwoTokens(), "a0.h1", "logits")
    one = path_patching(tiny, TwoTokens(), "a0.h1", "logits", through=["m0"])
    assert (alone.effect - got.effect).abs().max() > 5 * TOL
    assert (alone.effect - one.effect).abs().max() > 5 * TOL and one.through == ("m0",)

    sends = feature_that_moves(tiny, saes, EARLY)
    task = task_it_does(list(TwoTokens().clean), list(TwoTokens().corrupted))
    resampled = resample(EARLY, features=[sends])
    metric = [intervene(tiny, task, each, dictionaries=saes).metric for each in ([resampled], [])]
    options = {"dictionaries": saes, "through": graph.readers[:-1]}
    got = path_patching(tiny, task, (EARLY, sends), "logits", **options)
    assert (got.effect - (metric[0] - metric[1])).abs().max() <= TOL
    assert got.effect.abs().max() > 5 * TOL


def test_what_passes_on_through_one_component_is_what_that_alone_would_write(tiny):
    """By the GPT-2 that is written out: a1.h2 sees a0.h1 corrupted, and what m0 makes of it.

    Nobody else does, and neither does m1, which comes after a1.h2.
    """
    got = path_patching(tiny, TwoTokens(), "a0.h1", "a1.h2", through=["m0", "m1"])
    for number in range(len(CLEAN)):
        module, (here, there) = tiny_hf(), ids_of(tiny, number)
        with torch.no_grad():
            mine, before = head_by_head(module, here, {})
            given = head_by_head(module, there, {})[0]["a0.h1"] - mine["a0.h1"]
            passed = head_by_head(module, here, {"m0": given})[0]["m0"] - mine["m0"]
            _, after = head_by_head(module, here, {"a1.h2": given + passed})
        want = measured(after, number) - measured(before, number)
        assert got.effect[number] == pytest.approx(want, abs=TOL)
    direct = path_patching(tiny, TwoTokens(), "a0.h1", "a1.h2")
    assert (got.effect - direct.effect).abs().max() > 5 * TOL


def test_in_a_linear_model_direct_paths_add_up_to_the_whole_effect():
    model = linear_model()
    graph, task = graph_of(model), values(20)
    for sender in ("embed", "a0.h0"):
        whole = patching_effects(model, task, [edges_out_of(graph, sender)])[:, 0]
        parts = [path_patching(model, task, sender, r).effect for r in graph.readers]
        # float32, of size 10, through an MLP whose bias is 50
        assert (torch.stack(parts).sum(0) - whole).abs().max() <= 1e-4
        assert whole.abs().max() > 0.1


def test_zero_and_mean_are_those_of_hooks_and_need_no_corrupted_prompts(tiny, saes):
    alone = TwoTokens(corrupted=())
    tokens = [tiny.tokenize([text]).ids[0] for text in CLEAN]
    written = [Hooked(ids).written(0, 1) for ids in tokens]
    assert all(ids[0] == tiny.bos_id for ids in tokens)  # which is left as it is, and out of means

    def but_first(given):
        return torch.cat([torch.zeros_like(given[:1]), given[1:]])

    mean = torch.cat([each[1:] for each in written]).mean(0)
    for value, target in (("zero", torch.zeros(WIDTH)), ("mean", mean)):
        got = path_patching(tiny, alone, "a0.h1", "m1", value=value, batch_size=3)
        for number, (ids, mine) in enumerate(zip(tokens, written, strict=True)):
            run = Hooked(ids)
            run.give_mlp(1, but_first(target - mine))
            want = measured(run.logits(), number) - measured(Hooked(ids).logits(), number)
            assert got.effect[number] == pytest.approx(want, abs=TOL)
        assert got.effect.abs().max() > 5 * TOL

    sends = feature_that_moves(tiny, saes, EARLY)
    acts = [saes[EARLY].encode(Hooked(ids).stream(1))[:, sends] for ids in tokens]
    row = saes[EARLY].directions[sends]
    options = {"dictionaries": saes, "value": "mean"}
    got = path_patching(tiny, alone, (EARLY, sends), "m2", **options)
    for number, (ids, mine) in enumerate(zip(tokens, acts, strict=True)):
        run = Hooked(ids)
        usual = torch.cat([each[1:] for each in acts]).mean()
        run.give_mlp(2, but_first((usual - mine)[:, None] * row))
        want = measured(run.logits(), number) - measured(Hooked(ids).logits(), number)
        assert got.effect[number] == pytest.approx(want, abs=TOL)
    assert got.effect.abs().max() > 5 * TOL


def test_an_unknown_value_is_refused(tiny):
    with pytest.raises(InputError, match="value must be"):
        path_patching(tiny, TwoTokens(), "a0.h1", "m1", value="other")


def test_no_path_and_no_difference_give_exactly_nothing(tiny, saes):
    same = TwoTokens(corrupted=CLEAN)
    first, last = (EARLY, 5), (LATE, 5)
    ends = [("a0.h1", "a2.h3"), ("a0.h1", last), (first, "m2"), (first, last)]
    for sender, receiver in ends:
        for through in ((), ("m1", "a1.h0")):
            options = {"through": through, "dictionaries": saes}
            got = path_patching(tiny, same, sender, receiver, **options)
            assert not got.effect.any() and (got.change is None or not got.change.any())
            back = path_patching(tiny, TwoTokens(), receiver, sender, **options)
            assert not back.effect.any() and (back.change is None or not back.change.any())
    no_reader = linear_model("a0.h1")  # nobody reads a0.h0
    assert path_patching(no_reader, values(8), "a0.h0", "m0").effect.abs().max() == 0


@pytest.mark.parametrize(
    ("sender", "receiver", "message"),
    [
        ("a9.h1", "m0", "no component"),
        ("m0", "embed", "no component"),
        ((LATE, 4000), "m2", "has features 0 to"),
        ((Site("resid_mid", 0), 1), "m2", "No dictionary was given"),
        ((Site("mlp_in", 0), 1), "m2", "no autoencoder of the residual stream"),
    ],
)
def test_what_cannot_be_is_refused(tiny, tiny_saes, tiny_folder, sender, receiver, message):
    from circuit_toolkit.dictionaries import load_dictionaries

    both = {**tiny_saes, **load_dictionaries(tiny, tiny_folder, kind="transcoder")}
    with pytest.raises(InputError, match=message):
        path_patching(tiny, TwoTokens(), sender, receiver, dictionaries=both)
