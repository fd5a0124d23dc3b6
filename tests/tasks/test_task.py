"""Tasks: metrics by hand, parts that go together, and questions of the grammar as tensors."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from circuit_toolkit.demo.grammar import Grammar
from circuit_toolkit.demo.grammar import words as w
from circuit_toolkit.demo.grammar.sentence import is_held_out
from circuit_toolkit.errors import InputError
from circuit_toolkit.tasks import BUNDLED, Task, bios, docstring, greater_than, ioi


def task(**changes):
    parts = {
        "name": "t",
        "clean": ("a", "b"),
        "corrupted": ("c", "d"),
        "answers": ((0,), (1, 2)),
        "wrong": ((3, 4), (0,)),
        "labels": {"kind": ("x", "y")},
        "positions": {"verb": (-1, -2)},
        "directions": (1, -1),
    }
    return Task(**parts | changes)


LOGITS = torch.tensor([[5.0, 0, 0, 1, 2], [1.0, 3, 4, 0, 0]])


def test_logit_difference_by_hand():
    assert task().score(LOGITS, [0, 1]).tolist() == [5 - 1.5, 3.5 - 1]
    # a corrupted prompt is scored with the answers of its clean prompt
    assert task().score(LOGITS, [2, 3]).tolist() == [3.5, 2.5]
    assert task().score(LOGITS[[1, 1, 0]], [3, 0, 2]).tolist() == [2.5, 1 - 0, 3.5]


def test_probability_difference_by_hand():
    p = LOGITS.softmax(1)
    expected = [p[0, 0] - p[0, 3] - p[0, 4], p[1, 1] + p[1, 2] - p[1, 0]]
    scores = task(metric="probability_difference").score(LOGITS, [0, 1])
    torch.testing.assert_close(scores, torch.stack(expected))


def test_a_token_that_is_listed_twice_counts_twice():
    twice = task(answers=((0, 0), (1,)), metric="probability_difference")
    p = LOGITS.softmax(1)
    assert twice.score(LOGITS, [0, 1])[0] == pytest.approx(2 * p[0, 0] - p[0, 3] - p[0, 4])


def test_accuracy_asks_whether_the_best_answer_beats_every_wrong_one():
    assert task().accuracy(LOGITS, [0, 1]).tolist() == [True, True]
    assert task().accuracy(LOGITS[[1, 0]], [2, 3]).tolist() == [True, False]
    tied = torch.zeros(2, 5)
    assert not task().accuracy(tied, [0, 1]).any()


def test_rows_are_clean_prompts_then_corrupted_prompts():
    assert task().texts == ["a", "b", "c", "d"]
    assert task().groups.tolist() == [0, 1, 0, 1]
    assert task(corrupted=()).groups.tolist() == [0, 1]
    assert repr(task()) == "Task('t', 2 prompts with corrupted prompts, logit_difference)"


def test_a_subset_keeps_everything_of_its_prompts():
    one = task().subset(1)
    assert one.texts == ["a", "c"] and one.answers == ((0,),) and one.wrong == ((3, 4),)
    assert one.labels == {"kind": ("x",)} and one.positions == {"verb": (-1,)}
    assert one.directions == (1,)
    assert task().subset(9).texts == task().texts
    assert task(corrupted=()).subset(1).texts == ["a"]


def test_chosen_prompts_keep_everything_of_theirs_in_the_order_asked_for():
    swapped = task().select([1, 0])
    assert swapped.texts == ["b", "a", "d", "c"] and swapped.answers == ((1, 2), (0,))
    assert swapped.labels == {"kind": ("y", "x")} and swapped.positions == {"verb": (-2, -1)}
    assert swapped.directions == (-1, 1) and swapped.wrong == ((0,), (3, 4))
    assert task(corrupted=(), directions=()).select(torch.tensor([1]).numpy()).texts == ["b"]
    for rows in ([2], [-1], [0.5]):
        with pytest.raises(InputError, match="whole numbers from 0 to 1"):
            task().select(rows)
    with pytest.raises(InputError, match="has no prompts"):
        task().select([])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clean": (), "corrupted": (), "answers": (), "wrong": ()}, "has no prompts"),
        ({"answers": ((0,),)}, "answers must hold at least one token for each of 2"),
        ({"wrong": ((0,), ())}, "wrong must hold at least one token"),
        ({"corrupted": ("c",)}, "need 2 corrupted prompts or none: 1"),
        ({"metric": "loss"}, "metric must be one of None, .*, got 'loss'"),
        ({"labels": {"kind": ("x",)}}, "'kind' must have one entry for each of 2"),
        ({"positions": {"verb": (-1,)}}, "'verb' must have one entry"),
        ({"directions": (1,)}, "directions must be empty or"),
        ({"directions": (1, 2)}, "directions must be empty or"),
        ({"answers": (), "wrong": ()}, "answers must hold .* pass metric=None and none"),
        ({"metric": None}, "metric=None is for a task without answers"),
        ({"metric": None, "answers": ()}, "metric=None is for a task without wrong"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        task(**changes)


def test_a_task_of_labels_alone_has_no_metric_and_nothing_scores_on_it():
    labelled = task(answers=(), wrong=(), metric=None)
    assert repr(labelled) == "Task('t', 2 prompts with corrupted prompts, no metric)"
    assert labelled.texts == task().texts and labelled.labels == task().labels
    one = labelled.subset(1)
    assert one.metric is None and one.labels == {"kind": ("x",)} and len(one) == 1
    for measure in (labelled.score, labelled.accuracy):
        with pytest.raises(InputError, match=r"'t' has no answers.*labels \(kind\) as targets"):
            measure(LOGITS, [0, 1])
    assert Task("bare", ("a",), metric=None).corrupted == ()


def test_corrupted_prompts_of_another_length_are_warned_of_where_the_user_is(tiny):
    even, odd = ("Mary met Anna.", "Tom met Anna.", "Mary", "Anna"), ("the", "a boy", "boy", "boys")
    with pytest.warns(
        UserWarning, match="1 of 2 corrupted prompts have .* the first 'a boy'"
    ) as caught:
        made = Task.from_pairs(tiny, [even, odd])
    assert [each.filename for each in caught] == [__file__] and len(made) == 2


def test_own_pairs(tiny):
    pairs = [("Mary met Anna.", "Tom met Anna.", "Mary", "Anna"), ("the", "a", "boy", "boys")]
    own = Task.from_pairs(tiny, pairs, name="mine", metric="probability_difference")
    assert (own.name, own.metric, len(own)) == ("mine", "probability_difference", 2)
    assert own.answers == ((tiny.token_id("Mary"),), (tiny.token_id("boy"),))
    assert own.texts == ["Mary met Anna.", "the", "Tom met Anna.", "a"]
    for bad in ([], [("a", "b", "Mary")]):
        with pytest.raises(InputError, match=r"list of \(clean, corrupted, answer, wrong\)"):
            Task.from_pairs(tiny, bad)
    for answer in ("zebra", "Mary Anna"):
        with pytest.raises(InputError, match="one known token"):
            Task.from_pairs(tiny, [("Mary", "Anna", answer, "Tom")])


@pytest.mark.parametrize("name", BUNDLED)
@pytest.mark.parametrize("test", [False, True])
def test_bundled_tasks_ask_what_the_grammar_asks(tiny, name, test):
    made = BUNDLED[name](tiny, n=30, seed=4, test=test)
    again, other = (BUNDLED[name](tiny, n=30, seed=seed, test=test) for seed in (4, 5))
    assert made.texts == again.texts != other.texts
    assert (made.answers, made.wrong, made.labels) == (again.answers, again.wrong, again.labels)
    assert made.name == name and len(made) == 30 and len(made.texts) == 60
    grammar, options = Grammar(4), {"years": (60, 98)} if name == "greater_than" else {}
    said = [grammar.sentence(name, test, **options) for _ in range(600)]
    if name == "ioi":  # a woman and a man
        said = [each for each in said if each.facts["io_gender"] != each.facts["s_gender"]]
    if name == "docstring":  # the third argument of one half of the names, the rest of the other
        said = [each for each in said if each.facts["apart"] == "True"]
    assert made.clean == tuple(sentence.prompt for sentence in said[:30])
    for clean, corrupted, right, wrong in zip(
        made.clean, made.corrupted, made.answers, made.wrong, strict=True
    ):
        a, b = tiny.tokenize([clean]), tiny.tokenize([corrupted])
        assert a.ids.shape == b.ids.shape and not torch.equal(a.ids, b.ids)
        assert not set(right) & set(wrong)
    right, wrong = (torch.zeros(30, len(tiny.tokenizer)) for _ in range(2))
    for row in range(30):
        right[row, list(made.answers[row])] = 20
        wrong[row, list(made.wrong[row])] = 20
    rows = range(30)
    assert (made.score(right, rows) > 0).all() and (made.score(wrong, rows) < 0).all()
    assert made.accuracy(right, rows).all() and not made.accuracy(wrong, rows).any()


@pytest.mark.parametrize("name", ["ioi", "greater_than"])
def test_positions_count_from_the_end_to_the_word(tiny, name):
    made = BUNDLED[name](tiny, n=20, seed=0)
    words = tiny.words(tiny.tokenize(made.clean))
    for row in range(20):
        found = {key: words[row][places[row]] for key, places in made.positions.items()}
        if name == "ioi":
            io, s = (tiny.tokenizer.decode(ids[row]) for ids in (made.answers, made.wrong))
            assert found == {"S1": s, "S2": s, "IO": io}
            assert made.positions["S1"][row] < made.positions["S2"][row]
        else:
            assert found["start"] == made.labels["start"][row]
            assert words[row].count(found["century"]) == 2
    corrupted = tiny.words(tiny.tokenize(made.corrupted))
    for row in range(20):  # the same places hold for the corrupted prompts, other words apart
        changed = [i for i in range(len(words[row])) if words[row][i] != corrupted[row][i]]
        place = made.positions["S2" if name == "ioi" else "start"][row]
        assert changed == [len(words[row]) + place]


def test_positions_of_docstring_subject_attractor_and_name(tiny):
    made = docstring(tiny, n=10)
    words = tiny.words(tiny.tokenize(made.clean))
    for row in range(10):
        place = made.positions["argument"][row]
        assert tiny.token_id(words[row][place]) == made.answers[row][0]
    assert "attractor" not in BUNDLED["agreement"](tiny, n=40).positions  # some have none
    assert "attractor" in BUNDLED["agreement"](tiny, n=40, test=True).positions
    words = tiny.words(tiny.tokenize(bios(tiny, n=10).clean))
    for row, place in enumerate(bios(tiny, n=10).positions["name"]):
        assert words[row][place][0].isupper()


def test_whole_biographies_tell_the_profession_and_their_corrupted_prompts_the_other_gender(tiny):
    made = bios(tiny, n=40, title=False, whole=True)
    signs = {p: {*a.split(), *b.split(), *c.split()} for p, (_, a, b, c) in w.PROFESSIONS.items()}
    for i, (clean, corrupted) in enumerate(zip(made.clean, made.corrupted, strict=True)):
        clean_words, corrupted_words = (text.rstrip(".").split() for text in (clean, corrupted))
        assert signs[made.labels["profession"][i]] & set(clean_words)
        she = made.labels["gender"][i] == "female"
        assert ("she" in clean_words) == ("he" in corrupted_words) == she
        assert len(clean_words) == len(corrupted_words)


def test_biographies_have_labels_and_options(tiny):
    made = bios(tiny, n=50, strength=1.0, title=False)
    assert set(made.labels) == {"profession", "gender"}
    for text, profession in zip(made.clean, made.labels["profession"], strict=True):
        assert profession not in text.split()


@pytest.mark.parametrize(("name", "plus"), [("agreement", "singular"), ("bios", "female")])
def test_directions_make_the_metric_of_all_prompts_one_difference(tiny, name, plus):
    made = BUNDLED[name](tiny, n=40)
    label = made.labels["number" if name == "agreement" else "gender"]
    assert made.directions == tuple(1 if each == plus else -1 for each in label)
    assert {*made.directions} == {1, -1}
    if name == "bios":  # she minus he, on every prompt
        she, he = tiny.token_id("she"), tiny.token_id("he")
        logits = torch.randn(80, len(tiny.tokenizer))
        scores = made.score(logits, range(80)) * torch.tensor(made.directions * 2)
        torch.testing.assert_close(scores, logits[:, she] - logits[:, he])
    assert ioi(tiny, n=3, mixed=False).directions == ()
    assert docstring(tiny, n=3, apart=False).directions == ()


def test_docstrings_explain_one_half_of_the_names_minus_the_other(tiny):
    made = docstring(tiny, n=40)
    halves = w.ARGUMENTS[:30], w.ARGUMENTS[30:]
    for row, direction in enumerate(made.directions):
        up, down = halves if direction == 1 else halves[::-1]
        decode = tiny.tokenizer.decode
        assert decode(made.answers[row]) in up
        assert all(decode([token]) in down for token in made.wrong[row])


def test_mixed_names_explain_her_minus_him(tiny):
    made = ioi(tiny, n=60)
    for row, direction in enumerate(made.directions):
        io, s = (tiny.tokenizer.decode(ids[row]) for ids in (made.answers, made.wrong))
        assert (io in w.FEMALE_NAMES) == (direction == 1) == (s in w.MALE_NAMES)
    assert abs(sum(made.directions)) < 30


@pytest.mark.parametrize("years", [(60, 98), (3, 98), (70, 79)])
def test_spans_start_in_the_years_that_are_asked_for(tiny, years):
    made = greater_than(tiny, n=60, years=years)
    assert all(years[0] <= int(start) <= years[1] for start in made.labels["start"])
    assert all(
        clean != corrupted for clean, corrupted in zip(made.clean, made.corrupted, strict=True)
    )


def test_years_that_cannot_be_are_refused(tiny):
    for years in ((1, 98), (60, 99), (70, 60)):
        with pytest.raises(InputError, match="years must be a range from 2 to 98"):
            greater_than(tiny, n=5, years=years)
    free = [y for y in range(3, 99) if not any(is_held_out(c, f"{y:02d}") for c in w.CENTURIES)]
    assert free, "some years are held out in no century"
    with pytest.raises(InputError, match="No start year"):
        greater_than(tiny, n=5, test=True, years=(free[0], free[0]))


def test_years_are_a_probability_difference(tiny):
    assert greater_than(tiny, n=1).metric == "probability_difference"
    assert ioi(tiny, n=1).metric == "logit_difference"
    with pytest.raises(InputError, match="n must be at least 1"):
        ioi(tiny, n=0)


def test_the_metric_has_gradients_and_the_change_is_a_distance():
    task = Task("t", ("a", "b"), ("c", "d"), ((1, 2), (0,)), ((3,), (1, 2)))
    for metric in ("logit_difference", "probability_difference"):
        of = replace(task, metric=metric)
        logits = torch.randn(4, 3, 5, requires_grad=True)
        measured = of.metric_of(logits, range(4))
        torch.testing.assert_close(measured, of.score(logits[:, -1], range(4)))
        assert not of.score(logits[:, -1], range(4)).requires_grad
        (gradient,) = torch.autograd.grad(measured.sum(), logits)
        assert not gradient[:, :-1].any()
        direction = torch.randn(4, 5)
        step = torch.zeros(4, 3, 5)
        step[:, -1] = 1e-3 * direction
        slope = (
            of.metric_of(logits + step, range(4)) - of.metric_of(logits - step, range(4))
        ) / 2e-3
        torch.testing.assert_close(slope, (gradient[:, -1] * direction).sum(1), atol=1e-3, rtol=0)
        moved = of.change(logits + step, logits, range(4))
        torch.testing.assert_close(moved, (of.metric_of(logits + step, range(4)) - measured).abs())
        assert not of.change(logits, logits, range(4)).any()


PAIR = ("Mary met Anna.", "Tom met Anna.", "Mary", "Anna")
FRAME = pd.DataFrame([PAIR], columns=["clean", "corrupted", "answer", "wrong"])


@pytest.mark.parametrize("family", BUNDLED.values(), ids=BUNDLED)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": 64}, "model must be a Model, got 64. Pass what load_model"),
        ({"model": "demo"}, "model must be a Model, got 'demo'. Pass what load_model"),
        ({"n": 2.5}, "n must be a whole number, got 2.5"),
        ({"n": "64"}, "n must be a whole number, got '64'"),
        ({"n": True}, "n must be a whole number, got True"),
        ({"n": -1}, "n must be at least 1, got -1"),
        ({"seed": None}, "seed must be a whole number, got None"),
    ],
)
def test_families_refuse_what_is_no_model_or_no_number(tiny, family, change, message):
    with pytest.raises(InputError, match=message):
        family(**{"model": tiny, "n": 2, **change})


@pytest.mark.parametrize("kind", [np.int64, np.uint8, torch.tensor, np.array])
def test_families_take_whole_numbers_of_every_kind(tiny, kind):
    assert ioi(tiny, kind(3), kind(1)).clean == ioi(tiny, 3, 1).clean
    assert len(ioi(tiny, 3).subset(kind(2))) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: Task.from_pairs([PAIR], m), r"model must be a Model, got a list of 1"),
        (lambda m: Task.from_pairs(m, FRAME), r"got a DataFrame.*Task\.from_table\(model, table\)"),
        (lambda m: Task.from_pairs(m, {"clean": ["a"]}), "got a dict of 1.*from_table"),
        (lambda m: Task.from_pairs(m, PAIR), "got 'Mary met Anna.'"),
        (lambda m: Task.from_pairs(m, ioi(m, 1)), "got a Task"),
        (lambda m: Task.from_pairs(m, [("a", "b", "c", 3)]), "four texts each, got a tuple of 4"),
        (lambda m: Task.from_pairs(m, ["abcd"]), "four texts each, got 'abcd'"),
        (lambda m: Task.from_table("a.csv", m), "model must be a Model, got 'a.csv'"),
        (lambda m: Task.from_table(m, [PAIR]), r"a DataFrame or a list of dicts.*from_pairs"),
        (lambda m: Task.from_table(m, {"clean": ["a"]}), "a list of dicts, got a dict of 1"),
        (lambda m: Task.from_table(m, ioi(m, 1)), "a list of dicts, got a Task"),
        (lambda m: Task.from_table(m, FRAME[:0]), "the table has no rows"),
        (lambda m: Task.from_hub("cola", m), "model must be a Model, got 'cola'"),
        (lambda m: Task.from_hub(m, FRAME), r"got a DataFrame.*data=.*Task\.from_table"),
        (lambda m: Task.from_hub(m, "own", data=FRAME), r"Dataset\.from_pandas\(frame\)"),
        (lambda m: Task.from_hub(m, "cola", n=1.5), "n must be a whole number"),
        (lambda m: Task("x", "one text", metric=None), r"not one text: write \(text,\)"),
    ],
)
def test_what_is_no_prompts_of_a_task_is_refused_with_the_way_out(tiny, call, message):
    with pytest.raises(InputError, match=message):
        call(tiny)
