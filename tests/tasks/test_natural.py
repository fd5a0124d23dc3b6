"""The tasks on tokenizers of real models: single tokens, equal lengths, places, held-out parts."""

import dataclasses
import re

import pytest
import torch
import transformers as hf
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from circuit_toolkit.errors import InputError
from circuit_toolkit.models import load_model
from circuit_toolkit.tasks import BUNDLED, Task, agreement, bios, docstring, greater_than, ioi
from circuit_toolkit.tasks.bundled import speaks_grammar
from circuit_toolkit.tasks.natural import words as w
from circuit_toolkit.tasks.natural.draft import Draft, fill, to_task
from circuit_toolkit.tasks.tokens import next_tokens, single_tokens, splitting_years, year_ends

NAMES = set(w.FEMALE_NAMES + w.MALE_NAMES)


def ids(model, text):
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


def tokens(model, text):
    return [model.tokenizer.decode([token]) for token in ids(model, text)]


def word_at(model, text, place):
    """The word whose last token is at a place, by its letters: the tokens up to it, decoded."""
    upto = model.tokenizer.decode(ids(model, text)[: len(ids(model, text)) + place + 1])
    return re.findall(r"[A-Za-z_]+|\d\d", upto)[-1]


@pytest.mark.parametrize("name", ["ioi", "greater_than", "docstring", "agreement"])
@pytest.mark.parametrize("test", [False, True])
def test_prompts_have_corrupted_prompts_of_equal_length_and_answers_of_one_token(real, name, test):
    made, again, other = (BUNDLED[name](real, n=40, seed=seed, test=test) for seed in (3, 3, 4))
    assert made.texts == again.texts != other.texts
    assert (made.answers, made.positions, made.labels) == (
        again.answers,
        again.positions,
        again.labels,
    )
    assert made.name == name and len(made) == 40 and len(made.corrupted) == 40
    begins = str(real.tokenizer.bos_token)
    for i, (clean, corrupted) in enumerate(zip(made.clean, made.corrupted, strict=True)):
        assert clean != corrupted and begins not in clean and clean == clean.strip()
        batch = real.tokenize([clean, corrupted])
        assert batch.mask.all(), "a corrupted prompt of another length would be padded"
        right, wrong = made.answers[i], made.wrong[i]
        assert right and wrong and not set(right) & set(wrong)
        for token in (right[0], wrong[0]):  # said after the prompt it is this token and no other
            said = real.tokenizer.decode([*ids(real, clean), token])
            assert ids(real, said) == [*ids(real, clean), token] or name == "greater_than"
        for places in made.positions.values():
            assert -len(ids(real, clean)) <= places[i] < 0


def test_a_model_is_asked_in_the_grammar_by_its_vocabulary_not_by_its_name(tiny, gpt2):
    assert speaks_grammar(tiny) and not speaks_grammar(gpt2)
    called_gpt2 = dataclasses.replace(tiny, name="gpt2")
    assert ioi(called_gpt2, n=5).texts == ioi(tiny, n=5).texts
    called_demo = dataclasses.replace(gpt2, name="demo")
    assert ioi(called_demo, n=5).texts == ioi(gpt2, n=5).texts != ioi(tiny, n=5).texts


@pytest.mark.parametrize("mixed", [True, False])
def test_indirect_objects_are_named_once_and_subjects_again(real, mixed):
    made = ioi(real, n=80, mixed=mixed)
    for i, clean in enumerate(made.clean):
        io, s = (real.tokenizer.decode(side[i]).strip() for side in (made.answers, made.wrong))
        names = [name for name in re.findall(r"[A-Z][a-z]+", clean) if name in NAMES]
        third = [n for n in re.findall(r"[A-Z][a-z]+", made.corrupted[i]) if n in NAMES][2]
        assert names == ([io, s, s] if made.labels["form"][i] == "ABBA" else [s, io, s])
        assert made.corrupted[i] == f"{third}".join(clean.rsplit(s, 1)) and third not in names
        found = {key: word_at(real, clean, places[i]) for key, places in made.positions.items()}
        assert found == {"S1": s, "S2": s, "IO": io}
        assert made.positions["S1"][i] < made.positions["S2"][i]
        assert word_at(real, made.corrupted[i], made.positions["S2"][i]) == third
        if mixed:
            assert (io in w.FEMALE_NAMES) == (made.directions[i] == 1) == (s in w.MALE_NAMES)
    assert {*made.labels["form"]} == {"ABBA", "BABA"}
    assert bool(made.directions) == mixed


@pytest.mark.parametrize("family", ["gpt2", "pythia"])
@pytest.mark.parametrize("years", [(60, 98), (2, 98)])
def test_spans_start_in_two_tokens_and_end_in_any_later_year(request, family, years):
    model = request.getfixturevalue(family)
    made = greater_than(model, n=120, years=years)
    assert made.metric == "probability_difference"
    ends = year_ends(model, splitting_years(model))
    assert list(ends) == [f"{i:02d}" for i in range(100)] and len({*ends.values()}) == 100
    for i, clean in enumerate(made.clean):
        century, start = re.search(r"from the year (\d\d)(\d\d) to", clean).groups()
        early = re.search(r"from the year \d\d(\d\d) to", made.corrupted[i])[1]
        assert made.labels["start"][i] == start and years[0] <= int(start) <= years[1]
        assert 1 <= int(early) < int(start) and int(early) <= max(int(start) // 3, 9)
        assert clean.endswith(f"to the year {century}")
        split = tokens(model, clean)
        assert split[made.positions["start"][i]] == start
        assert split[made.positions["century"][i]] == split[-1] == f" {century}"
        assert tokens(model, made.corrupted[i])[made.positions["start"][i]] == early
        later, rest = (
            [model.tokenizer.decode([t]) for t in side[i]] for side in (made.answers, made.wrong)
        )
        assert later == [f"{y:02d}" for y in range(int(start) + 1, 100)]
        assert rest == [f"{y:02d}" for y in range(int(start) + 1)]
    with pytest.raises(InputError, match="years must be a range"):
        greater_than(model, n=5, years=(60, 99))
    if years == (2, 98):
        assert min(made.labels["start"]) < "10"


@pytest.mark.parametrize("test", [False, True])
def test_spans_digit_by_digit_ask_for_the_tens_of_the_end(llama, test):
    made = greater_than(llama, n=120, years=(2, 98), test=test)
    digits = {str(i): llama.tokenizer.convert_tokens_to_ids(str(i)) for i in range(10)}
    for i, (clean, corrupted) in enumerate(zip(made.clean, made.corrupted, strict=True)):
        century, start = re.search(r"from the year (\d\d)(\d\d) to", clean).groups()
        assert made.labels["start"][i] == start and "10" <= start <= "89"
        assert corrupted == clean.replace(f"{century}{start}", f"{century}01")
        assert clean.endswith(f"to the year {century}")
        split, tens = tokens(llama, clean), int(start[0])
        named = {name: split[places[i]] for name, places in made.positions.items()}
        assert named == {"start": start[0], "ones": start[1], "century": century[1]}
        assert made.positions["ones"][i] == made.positions["start"][i] + 1
        # 17[5-9]x lies after 174x and 17[0-3]x before, whatever x is; 174x may do either.
        assert [*made.answers[i]] == [digits[str(d)] for d in range(tens + 1, 10)]
        assert [*made.wrong[i]] == [digits[str(d)] for d in range(tens)]
        for year in range(100):
            after = digits[str(year // 10)]
            assert (after in made.answers[i]) <= (year > int(start))
            assert (after in made.wrong[i]) <= (year < int(start))
    assert {start[0] for start in made.labels["start"]} == {*"12345678"}
    copying = torch.zeros(120, len(llama.tokenizer))  # a model that says the start's digit again
    for line, start in zip(copying, made.labels["start"], strict=True):
        line[digits[start[0]]] = 50
    torch.testing.assert_close(made.score(copying, range(120)), torch.zeros(120))


def test_start_years_without_a_clear_digit_are_refused(llama):
    for years in ((2, 9), (90, 98)):
        with pytest.raises(InputError, match=r"from 10 to 89.*digit by digit"):
            greater_than(llama, n=5, years=years)
    assert {s[0] for s in greater_than(llama, n=30).labels["start"]} == {*"678"}  # the default
    table = [{"clean": f"from the year 17{y} to the year 17", "label": y} for y in (41, 89, 90, 7)]
    made = Task.from_table(llama, table[:2])
    assert [len(side) for side in made.answers] == [5, 1]
    assert [len(side) for side in made.wrong] == [4, 8]
    for bad, reason in ((2, "no tens digit is clearly right"), (3, "clearly wrong")):
        spans = [{**table[bad], "clean": table[bad]["clean"].replace("177 ", "1707 ")}]
        with pytest.raises(InputError, match=reason):
            Task.from_table(llama, spans, answers_as="start_year")


def by_threes():
    """Words and digits in threes, as Llama-3's tokenizer cuts numbers: "173" and "2"."""
    numbers = [str(i) for i in range(1000)]
    words = ["the", "year", *numbers, "<unk>"]
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"\d{1,3}"), behavior="isolated"),
        ]
    )
    fast = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="the"
    )
    config = hf.GPT2Config(vocab_size=len(words), n_embd=8, n_layer=1, n_head=2)
    return load_model(hf.GPT2LMHeadModel(config), fast)


def test_a_tokenizer_that_cannot_do_it_is_refused_in_a_line(llama, stories, gpt2):
    assert not splitting_years(llama)  # it is asked digit by digit
    with pytest.raises(InputError, match="events that are one token each"):
        greater_than(stories, n=5)
    with pytest.raises(InputError, match="neither as a century and two digits nor digit by digit"):
        greater_than(by_threes(), n=5)
    for make in (ioi, docstring, agreement):
        with pytest.raises(InputError, match=r"that are one token each.*from_pairs"):
            make(stories, n=5)
    for model in (stories, gpt2):
        with pytest.raises(InputError, match=r"Task.from_hub\(model, 'bias_in_bios'\)"):
            bios(model, n=5)
    with pytest.raises(InputError, match="n must be at least 1, got 0"):
        ioi(gpt2, n=0)


@pytest.mark.parametrize("apart", [True, False])
def test_docstrings_ask_for_the_argument_after_those_that_are_documented(real, apart):
    made = docstring(real, n=60, apart=apart)
    half = set(w.ARGUMENTS[: len(w.ARGUMENTS) // 2])
    for i, clean in enumerate(made.clean):
        answer = real.tokenizer.decode(made.answers[i]).strip()
        signature = re.search(r"\(self, (.*)\):", clean)[1].split(", ")
        documented = re.findall(r":param (\w+):", clean)
        assert len({*signature}) == 6 and clean.endswith("\n    :param")
        assert [*documented, answer] == signature[2:5]
        wrong = {real.tokenizer.decode([token]).strip() for token in made.wrong[i]}
        assert wrong == {*signature} - {answer}
        other = re.search(r"\(self, (.*)\):", made.corrupted[i])[1].split(", ")
        assert not {*other} & {*signature} and len({*other}) == 6
        assert clean.split("\n")[1:] == made.corrupted[i].split("\n")[1:]
        assert word_at(real, clean, made.positions["argument"][i]) == answer
        is_apart = all((name in half) != (answer in half) for name in wrong)
        assert made.labels["apart"][i] == str(is_apart)
        if apart:
            assert is_apart and made.directions[i] == (1 if answer in half else -1)
    assert bool(made.directions) == apart and {*made.labels["half"]} == {"first", "second"}


@pytest.mark.parametrize("test", [False, True])
def test_verbs_agree_with_the_subject_whatever_the_attractor(real, test):
    made = agreement(real, n=120, test=test)
    forms = {one: many for one, many in (*w.PEOPLE, *w.THINGS)}
    forms |= {many: one for one, many in forms.items()}
    singular = {one for one, _ in (*w.AUXILIARIES, *w.TRANSITIVE)}
    for i, clean in enumerate(made.clean):
        subject = word_at(real, clean, made.positions["subject"][i])
        corrupted = word_at(real, made.corrupted[i], made.positions["subject"][i])
        assert forms[subject] == corrupted
        one = subject in {each for each, _ in w.PEOPLE}
        assert made.labels["number"][i] == ("singular" if one else "plural")
        assert made.directions[i] == (1 if one else -1)
        right, wrong = (real.tokenizer.decode(s[i]).strip() for s in (made.answers, made.wrong))
        assert (right in singular) == one != (wrong in singular)
    attractor = made.labels["attractor"]
    if test:
        assert all(
            {a, b} == {"singular", "plural"}
            for a, b in zip(attractor, made.labels["number"], strict=True)
        )
        assert {*made.labels["form"]} == {"nounpp", "within_rc", "across_rc"}
        for i, clean in enumerate(made.clean):
            noun = word_at(real, clean, made.positions["attractor"][i])
            assert (noun in {one for one, _ in w.PEOPLE + w.THINGS}) == (attractor[i] == "singular")
    else:
        assert {*attractor} == {"singular", "plural", "none"} and "attractor" not in made.positions
    logits = torch.randn(len(made), len(real.tokenizer))
    scores = made.score(logits, range(len(made))) * torch.tensor(made.directions)
    sides = zip(made.answers, made.wrong, made.directions, strict=True)
    pairs = [(*right, *wrong)[::direction] for right, wrong, direction in sides]
    one, many = (logits[range(len(made)), list(side)] for side in zip(*pairs, strict=True))
    torch.testing.assert_close(scores, one - many)  # singular minus plural on every prompt


def held_out_parts(name, made, i):
    """What must not occur in both halves of a task: a pair or set of words, and the frame."""
    clean = made.clean[i]
    if name == "ioi":
        pair = frozenset(n for n in re.findall(r"[A-Z][a-z]+", clean) if n in NAMES)
        filled = NAMES | {*w.PLACES, *w.OBJECTS}
        frame = " ".join("_" if word in filled else word for word in re.findall(r"\w+", clean))
        return {pair, frame}
    if name == "greater_than":
        return {clean.split()[1], re.search(r"year (\d{4})", clean)[1]}
    if name == "docstring":
        return {frozenset(re.search(r"\(self, (.*)\):", clean)[1].split(", ")[2:5])}
    words = clean.split()
    return {(made.labels["form"][i], words[0], words[1])} if words[0] != "The" else set()


@pytest.mark.parametrize("name", ["ioi", "greater_than", "docstring", "agreement"])
@pytest.mark.parametrize("family", ["gpt2", "pythia", "llama"])
def test_held_out_prompts_share_nothing_with_the_others(request, family, name):
    model = request.getfixturevalue(family)
    train, test = (BUNDLED[name](model, n=200, seed=0, test=held) for held in (False, True))
    assert not {*train.clean} & {*test.clean}
    seen, unseen = (
        {part for i in range(len(made)) for part in held_out_parts(name, made, i)}
        for made in (train, test)
    )
    assert seen and unseen and not seen & unseen
    if name == "agreement":
        subjects = [
            {word_at(model, t, p) for t, p in zip(m.clean, m.positions["subject"], strict=True)}
            for m in (train, test)
        ]
        assert not subjects[0] & subjects[1]


def test_templates_are_filled_and_places_are_ends_of_words():
    text, ends = fill("{A} saw {B}, and {C}", {"A": "Ann", "B": "Bob", "C": "Cy"})
    assert text == "Ann saw Bob, and Cy"
    assert {slot: text[:end].split()[-1] for slot, end in ends.items()} == {
        "A": "Ann",
        "B": "Bob",
        "C": "Cy",
    }


def draft(**changes):
    parts = {
        "template": "The {N} near the {M}",
        "words": {"N": "boy", "M": "car"},
        "corrupted": {"N": "boys"},
        "answers": (318,),  # " is" for GPT-2
        "wrong": (389,),
        "says": " is",
        "places": {"subject": "N"},
    }
    return Draft(**parts | changes)


def test_drafts_that_the_tokenizer_does_not_split_alike_are_passed_over(gpt2):
    longer = draft(corrupted={"N": "antelopes"})  # three tokens
    other = draft(says=" unbelievably")  # no single token
    wrong = draft(answers=(389,), wrong=(318,))  # " is" is another token
    drafts = iter([longer, other, draft(), wrong, draft()])
    made = to_task("own", gpt2, drafts, 2, "logit_difference", test=True, seed=3)
    assert (made.split, made.seed) == ("held-out", 3)
    assert made.clean == ("The boy near the car",) * 2 and made.positions["subject"] == (-4, -4)
    with pytest.raises(InputError, match=r"Only 0 of 90 prompts of 'own'"):
        to_task("own", gpt2, iter([longer] * 200), 2, "logit_difference", test=True, seed=3)


def test_single_tokens_are_found_as_they_follow_a_word(gpt2, llama):
    assert next_tokens(gpt2, "the", [" Mary", " sheepdog"]) == {" Mary": 5335}
    assert next_tokens(gpt2, "year 17", ["32", " 32"]).keys() == {"32", " 32"}
    found = single_tokens(llama, ["Mary", "sheepdogs", "zebra"], "words", 1)
    assert list(found) == ["Mary"]
    assert llama.tokenizer.convert_ids_to_tokens(found["Mary"]) == "▁Mary"
    with pytest.raises(InputError, match="needs 3 words that are one token each"):
        single_tokens(llama, ["Mary", "sheepdogs", "zebra"], "words", 3)
