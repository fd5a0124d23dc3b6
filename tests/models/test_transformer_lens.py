"""Every site of every family is what TransformerLens shows, processed or not, read or written.

`python -m tests.models.test_transformer_lens` prints the table of docs/conventions.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Conventions, Model, load_model, run, shift
from circuit_toolkit.sites import Site
from tests.families import (
    CONFIGS,
    PROCESSINGS,
    PROMPTS,
    REAL,
    WINDOW,
    Edit,
    lens_model,
    lens_run,
    letter_tokenizer,
    random_model,
    real_model,
    sites_of,
    word_tokenizer,
)

FAMILIES = (*CONFIGS, *REAL)
STORIES = ("Once upon a time there was a girl", "The dog", "She saw a big tree and")
LETTERS = ([0, 2, 1, 2, 1, 2, 0, 1, 1, 2], [2, 2, 1, 0, 1, 1], [0, 2, 1, 1, 0, 2, 0, 0])
LOGITS = Site("logits")
WRITTEN = {"embed", "resid_pre", "head_out", "attn_out", "resid_mid", "mlp_out", "resid_post"}
Values = dict[Site, Tensor]


def far(ours: Tensor, theirs: Tensor) -> float:
    return (ours - theirs).abs().max().item()


def rows_of(value: Tensor, site: Site, row: int, length: int) -> Tensor:
    """One prompt of a batch that is padded on the left, as a batch of its own."""
    one = value[row : row + 1]
    return one[..., -length:, -length:] if site.kind == "attn_pattern" else one[:, -length:]


@dataclass(eq=False)
class Case:
    """A model with its prompts, what `run` reads of them, and TransformerLens's models of it."""

    name: str
    model: Model
    prompts: tuple
    lenses: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sites = sites_of(self.lens("unprocessed"))
        self.batch = self.model.tokenize(self.prompts)
        self.ids = [self.model.tokenize([prompt]).ids for prompt in self.prompts]
        self.padded = run(self.model, self.batch, self.sites)
        self.alone = [
            run(self.model, self.model.tokenize([prompt]), self.sites) for prompt in self.prompts
        ]

    def tolerance(self, site: Site) -> float:
        """1e-5, but for logits of stories260k, whose terms and sums are large (up to 26).

        There TransformerLens differs from itself in float64 by 1.3e-5, and so do we from either.
        """
        return 2e-5 if self.name == "stories260k" and site == LOGITS else 1e-5

    def lens(self, processing: str) -> Any:
        if processing not in self.lenses:
            self.lenses[processing] = lens_model(self.model.hf, PROCESSINGS[processing])
        return self.lenses[processing]

    def conventional(self, values: Values, processing: str) -> Values:
        flags = Conventions(**PROCESSINGS[processing])
        return {site: shift(self.model, flags, site).apply(x) for site, x in values.items()}

    def edited(self, site: Site, edit: Edit, processing: str) -> Values:
        """Values of the first two prompts, padded, where a conventional value was edited."""
        s = shift(self.model, Conventions(**PROCESSINGS[processing]), site)
        batch = self.model.tokenize(self.prompts[:2])
        edits = {site: lambda x: s.revert(edit(s.apply(x)), x)}
        return self.conventional(run(self.model, batch, self.sites, edits), processing)


def make_case(name: str, data: Path | None) -> Case:
    if name in CONFIGS:
        return Case(name, load_model(random_model(name), word_tokenizer()), PROMPTS)
    assert data is not None
    if name == "stories260k":
        return Case(name, load_model(data / REAL[name]), STORIES)
    return Case(name, load_model(real_model(name, data), letter_tokenizer()), LETTERS)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads wait for one another longer than these small matrices take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest) -> Case:
    name = request.param
    return make_case(name, request.getfixturevalue("shared_data") if name in REAL else None)


def shifted_kinds(case: Case, processing: str) -> set[str]:
    """Kinds of site at which processing must show, by TransformerLens's configuration alone."""
    flags, lens = PROCESSINGS[processing], case.lens("unprocessed")
    kinds = {"mlp_norm"} if flags["fold_ln"] else set()
    if flags["center_writing_weights"] and lens.cfg.normalization_type == "LN":
        kinds |= WRITTEN & {site.kind for site in case.sites}
    folded = flags["fold_ln"] and lens.cfg.normalization_type == "LN"  # the norm's bias becomes one
    if flags["fold_value_biases"] and (lens.b_V.any() or folded):
        kinds |= {"attn_z", "head_out"}
    if flags["center_unembed"] and lens.cfg.output_logits_soft_cap <= 0:
        kinds.add("logits")
    return kinds


@pytest.mark.parametrize("processing", PROCESSINGS)
def test_every_site_is_what_transformer_lens_shows(case, processing):
    differ = set()
    for ids, raw in zip(case.ids, case.alone, strict=True):
        theirs, ours = lens_run(case.lens(processing), ids), case.conventional(raw, processing)
        assert ours.keys() == theirs.keys()
        for site in case.sites:
            assert far(ours[site], theirs[site]) <= case.tolerance(site), site
            if far(raw[site], theirs[site]) > 1e-3:  # a hundred times the tolerance
                differ.add(site.kind)
    assert differ == shifted_kinds(case, processing)  # so without `shift` the test would fail


def test_a_prompt_gives_the_same_rows_alone_and_padded(case):
    assert (case.batch.mask.sum(1) < case.batch.mask.shape[1]).any()
    for i, raw in enumerate(case.alone):
        for site in case.sites:
            padded = rows_of(case.padded[site], site, i, case.ids[i].shape[1])
            # matrices of another shape are added up in another order
            assert far(padded, raw[site]) <= case.tolerance(site), (site, i)


def test_the_models_have_what_sets_their_families_apart(case):
    """So that agreement is no accident: nothing is near zero, local attention is cut off."""
    lens, values = case.lens("unprocessed"), case.alone[0]
    for site in case.sites if case.name in CONFIGS else ():  # trained models are what they are
        assert values[site].std() > 0.05, f"{site} is trivial: the test would see nothing"
    for layer, block in enumerate(lens.blocks):
        far_back = values[Site("attn_pattern", layer)].tril(-WINDOW)
        assert (far_back.abs().max() > 1e-3) == (block.attn.attn_type == "global"), layer
    assert (Site("resid_mid", 0) in case.sites) != lens.cfg.parallel_attn_mlp
    if lens.cfg.parallel_attn_mlp:
        with pytest.raises(InputError, match="resid_mid"):
            run(case.model, case.batch, [Site("resid_mid", 0)])


def changed(kind: str, mean: float = 0.0) -> Edit:
    """An edit that matters; rows of patterns go on adding up to 1."""
    if kind == "attn_pattern":
        return lambda p: 0.5 * p + 0.5 * torch.eye(p.shape[-1], dtype=p.dtype)
    return lambda x: 0.5 * x + torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype) + mean


def writable(case: Case) -> list[Site]:
    return [site for site in case.sites if site.layer == 1 or site.kind in ("embed", "logits")]


def compare_edit(case: Case, processing: str, site: Site, edit: Edit, look_at: list[Site]) -> float:
    """Edit a site in both libraries and give the largest difference that follows."""
    ids, worst = case.ids[1], 0.0
    theirs = lens_run(case.lens(processing), ids, {site: edit})
    ours = case.edited(site, edit, processing)
    for other in look_at:
        difference = far(rows_of(ours[other], other, 1, ids.shape[1]), theirs[other])
        assert difference <= case.tolerance(other), f"{other} after an edit of {site}"
        worst = max(worst, difference)
    plain = case.conventional(case.alone[1], processing)[LOGITS]
    assert far(theirs[LOGITS], plain) > 1e-3, f"the edit of {site} does nothing"
    return worst


@pytest.mark.parametrize("processing", PROCESSINGS)
def test_a_conventional_value_is_written_as_a_transformer_lens_hook_does(case, processing):
    for site in writable(case):
        compare_edit(case, processing, site, changed(site.kind), case.sites)


@pytest.mark.parametrize("processing", ["unprocessed", "all"])
def test_a_written_mean_has_the_effect_that_it_has_in_transformer_lens(case, processing):
    # With center_unembed logits have none: see "What cannot be written" in docs/conventions.md.
    for site in writable(case):
        if processing == "unprocessed" or site.kind != "logits":
            compare_edit(case, processing, site, changed(site.kind, mean=0.5), [LOGITS])


TOKENIZERS = ("words with bos", "words without", "gpt2", "pythia", "stories260k")
ENGLISH = ("The dog sat", " Mary", "When Mary and John went home,")


@pytest.fixture(params=TOKENIZERS)
def tokenizer_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder from which both libraries load the same tokenizer."""
    name = request.param
    if name.startswith("words"):
        tokenizer = word_tokenizer(bos=name == "words with bos")
    else:
        data = request.getfixturevalue("shared_data")
        if name in REAL:
            return data / REAL[name]
        if name == "gpt2":
            tokenizer = hf.GPT2TokenizerFast.from_pretrained(data / "tokenizers/gpt2")
        else:
            end = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
            file = str(data / "tokenizers/pythia/tokenizer.json")
            tokenizer = hf.PreTrainedTokenizerFast(tokenizer_file=file, **end)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
def test_prompts_begin_as_transformer_lens_begins_them(tokenizer_folder):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    tokenizer, again = (hf.AutoTokenizer.from_pretrained(tokenizer_folder) for _ in "12")
    texts = PROMPTS if len(tokenizer) < 100 else ENGLISH
    plain = {text: tokenizer(text)["input_ids"] for text in texts}
    size = {"n_positions": 64, "n_embd": 4, "n_layer": 1, "n_head": 1}
    module = hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=len(tokenizer), **size))
    model = load_model(module, tokenizer)
    shape = {"n_layers": 1, "d_model": 4, "d_head": 4, "n_ctx": 64, "attn_only": True}
    config = HookedTransformerConfig(**shape, d_vocab=len(tokenizer), init_weights=False)
    lens = HookedTransformer(config, again)
    for bos in (True, False):
        batch = model.tokenize(texts, bos=bos)
        for text, ids, mask in zip(texts, batch.ids, batch.mask, strict=True):
            expected = lens.to_tokens(text, prepend_bos=bos)
            assert torch.equal(model.tokenize([text], bos=bos).ids, expected), (bos, text)
            assert torch.equal(ids[mask.bool()], expected[0]), (bos, text)
    for text in texts:
        assert model.tokenize([text]).ids.tolist() == [plain[text]]  # bos=None
    begun = lens.to_tokens(texts[0], prepend_bos=True)[0]
    assert begun[0] == model.bos_id != begun[1]


def test_gpt2_gets_a_beginning_only_where_it_is_asked_for(tmp_path, shared_data):
    tokenizer = hf.GPT2TokenizerFast.from_pretrained(shared_data / "tokenizers/gpt2")
    config = hf.GPT2Config(n_embd=4, n_layer=1, n_head=1, n_positions=64)
    model = load_model(hf.GPT2LMHeadModel(config), tokenizer)
    with_bos = model.tokenize([" Mary"], bos=True).ids.tolist()
    assert with_bos == [[50256, 5335]]
    assert model.tokenize([" Mary"]).ids.tolist() == [[5335]]
    assert model.tokenize(["<|endoftext|> Mary"], bos=True).ids.tolist() == with_bos  # once


def worst(pairs: list[tuple[Values, Values]], leave_out: str = "") -> float:
    return max(far(a[site], b[site]) for a, b in pairs for site in b if site.kind != leave_out)


def table_row(case: Case) -> list[float]:
    cells, pairs = [], {}
    for processing in PROCESSINGS:
        theirs = [lens_run(case.lens(processing), ids) for ids in case.ids]
        ours = [case.conventional(raw, processing) for raw in case.alone]
        pairs[processing] = list(zip(ours, theirs, strict=True))
        cells.append(worst(pairs[processing]))
    theirs = [values for _, values in pairs["all"]]
    plain = [values for _, values in pairs["unprocessed"]]
    double = lens_model(case.model.hf, PROCESSINGS["unprocessed"], torch.float64)
    exact = [lens_run(double, ids) for ids in case.ids]
    edits = [(p, site, changed(site.kind)) for site in writable(case) for p in PROCESSINGS]
    return [
        *cells,
        worst(pairs["all"], leave_out="logits"),
        max(compare_edit(case, *edit, case.sites) for edit in edits),
        worst(list(zip(case.alone, theirs, strict=True))),
        worst(list(zip(plain, exact, strict=True))),
        max(values[site].abs().max().item() for values in theirs for site in values),
    ]


def table(data: Path) -> str:
    """Largest difference over all sites and prompts, family by processing, as Markdown."""
    extra = ("all, but logits", "written", "uncorrected", "float64", "largest value")
    heads = ["family", *PROCESSINGS, *extra]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for name in FAMILIES:
        *small, largest = table_row(make_case(name, data))
        lines.append([name, *(f"{cell:.1e}" for cell in small), f"{largest:.0f}"])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(table(Path(os.environ.get("CIRCUIT_TOOLKIT_SHARED_DATA", "../shared/data"))))
