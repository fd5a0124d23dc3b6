"""The grammar: seeded, split into its words, and nothing held out is ever said in training."""

import re
from collections import Counter
from itertools import combinations

import pytest

from circuit_toolkit.demo.grammar import (
    LEXICON,
    SHARES,
    VOCABULARY,
    Grammar,
    spans,
)
from circuit_toolkit.demo.grammar import words as w
from circuit_toolkit.demo.grammar.agreement import HELD_OUT_NOUNS
from circuit_toolkit.errors import InputError

N, SAID = 1500, w.TEMPLATES
FAMILIES = ("ioi", "greater_than", "docstring", "agreement", "bios")


@pytest.fixture(scope="module")
def training():
    return {kind: list(Grammar(0).sentences(N, kind)) for kind in FAMILIES}


@pytest.fixture(scope="module")
def test():
    return {kind: list(Grammar(1).sentences(N, kind, test=True)) for kind in FAMILIES}


def with_part(sentence, part):
    return [word.text for word in sentence.words if part in word.parts]


def pattern(template):
    """Regular expression of the texts of a template, any word in its slots."""
    return re.compile(re.sub(r"\\{\w+\\}", r"\\w+", re.escape(template)))


def words_of(sentence):
    return " ".join(word.text for word in sentence.words)


# family -> what is held out as a combination of words
COMBINATIONS = {
    "ioi": lambda s: frozenset([s.facts["io"], *with_part(s, "repeated name")]),
    "greater_than": lambda s: (*with_part(s, "start century"), *with_part(s, "start year")),
    "docstring": lambda s: frozenset(
        s.words[i].text
        for i, word in enumerate(s.words)
        if "in signature" in word.parts and word.parts[1] != "argument 4"
    ),
    "agreement": lambda s: frozenset(
        next(pair for pair in w.NOUN_PAIRS if with_part(s, "agreeing subject")[0] in pair)
    ),
    "bios": lambda s: (with_part(s, "person of the biography")[0], s.facts["profession"]),
}
# family -> templates that are held out, and where in a text they stand
HELD_OUT = {
    "ioi": [SAID["ioi"]["held_out_openings"], SAID["ioi"]["held_out_givings"]],
    "greater_than": [SAID["greater_than"]["held_out"]],
    "agreement": [SAID["agreement"]["held_out"]],
    "bios": [SAID["bios"]["held_out_openings"]],
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_training_never_says_a_held_out_combination(training, test, kind):
    seen = {COMBINATIONS[kind](sentence) for sentence in training[kind]}
    asked = {COMBINATIONS[kind](sentence) for sentence in test[kind]}
    assert seen and asked and not seen & asked
    assert all(combination for combination in seen | asked)


@pytest.mark.parametrize("kind", HELD_OUT)
def test_training_never_uses_a_held_out_template_and_tests_always_do(training, test, kind):
    for templates in HELD_OUT[kind]:
        patterns = [pattern(template) for template in templates]
        for sentence in training[kind]:
            text = words_of(sentence)
            assert not any(each.search(text) for each in patterns), text
        for sentence in test[kind]:
            assert any(each.search(words_of(sentence)) for each in patterns)


def test_lengths_of_docstrings_are_held_out(training, test):
    def lengths(sentence):
        counts, place = Counter(), 0
        for word in sentence.words:
            place += word.text == ":param"
            counts[place] += "description" in word.parts
        return " ".join(str(counts[i]) for i in range(4))

    assert {lengths(s) for s in training["docstring"]} == set(SAID["docstring"]["lengths"])
    assert {lengths(s) for s in test["docstring"]} == set(SAID["docstring"]["held_out_lengths"])
    assert not set(SAID["docstring"]["lengths"]) & set(SAID["docstring"]["held_out_lengths"])


def test_topics_of_spans_are_held_out(training, test):
    seen = {word for s in training["greater_than"] for word in with_part(s, "topic")}
    asked = {word for s in test["greater_than"] for word in with_part(s, "topic")}
    assert asked == set(spans.HELD_OUT_EVENTS) and not seen & asked


def test_held_out_subjects_are_attractors_in_training(training):
    held_out = {word for pair in HELD_OUT_NOUNS for word in pair}
    attractors = {word for s in training["agreement"] for word in with_part(s, "attractor")}
    assert held_out <= attractors  # the model knows the words


@pytest.mark.parametrize("kind", Grammar.kinds)
def test_a_seed_says_the_same_and_another_seed_something_else(kind):
    one, two, other = ([s.text for s in Grammar(seed).sentences(20, kind)] for seed in (5, 5, 6))
    assert one == two != other
    assert len(set(one)) > 15


def test_families_occur_by_their_shares():
    counts = Counter(sentence.kind for sentence in Grammar(0).sentences(4000))
    assert sum(SHARES.values()) == pytest.approx(1)
    for kind, share in SHARES.items():
        assert counts[kind] / 4000 == pytest.approx(share, abs=0.03)


def test_there_are_enough_words():
    assert len(VOCABULARY) >= 1000 and len(set(VOCABULARY)) == len(VOCABULARY)
    names = w.FEMALE_NAMES + w.MALE_NAMES
    assert len(set(names)) == len(names) >= 100
    for first, second in combinations([w.FEMALE_NAMES, w.CITIES, w.NUMBERS], 2):
        assert not set(first) & set(second)
    assert set(VOCABULARY) == set(LEXICON)


def test_every_word_that_is_said_is_in_the_vocabulary(training, test):
    vocabulary = set(VOCABULARY)
    every = [s for kind in Grammar.kinds for s in Grammar(3).sentences(200, kind)]
    every += [s for part in (training, test) for sentences in part.values() for s in sentences]
    for sentence in every:
        said = {word.text for word in sentence.words}
        if sentence.question:
            question = sentence.question
            said |= {*question.answers, *question.wrong, *question.corrupted}
        assert said <= vocabulary, said - vocabulary


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_question_asks_for_a_word_of_the_text(training, test, kind):
    for sentence in [*training[kind], *test[kind]]:
        question = sentence.question
        assert sentence.words[question.at].text in question.answers
        assert not set(question.answers) & set(question.wrong)
        assert question.answers and question.wrong
        before = [word.text for word in sentence.words[: question.at]]
        assert len(question.corrupted) == len(before)
        earliest = (
            kind == "greater_than" and sentence.facts["start"] == "02"
        )  # is its own corrupted prompt
        assert (list(question.corrupted) == before) == earliest
        assert sentence.text.startswith(sentence.prompt)


def test_roles_of_ioi(training, test):
    for sentence in training["ioi"] + test["ioi"]:
        io, (s,) = sentence.facts["io"], sentence.question.wrong
        for name, fact in ((io, "io_gender"), (s, "s_gender")):
            assert (name in w.FEMALE_NAMES) == (sentence.facts[fact] == "female")
        assert with_part(sentence, "indirect object") == [io, io]
        assert with_part(sentence, "subject") == [s, s] and s != io
        assert with_part(sentence, "repeated name") == [s]
        before = [word.text for word in sentence.words[: sentence.question.at]]
        assert before.count(io) == 1 and before.count(s) == 2
        twin = sentence.question.corrupted
        changed = [i for i in range(len(before)) if before[i] != twin[i]]
        assert len(changed) == 1 and "repeated name" in sentence.words[changed[0]].parts
        assert twin[changed[0]] not in before  # a third person


def test_roles_of_spans(training, test):
    for sentence in training["greater_than"] + test["greater_than"]:
        (start,), (end,) = with_part(sentence, "start year"), with_part(sentence, "end year")
        assert start == sentence.facts["start"] and start < end
        assert with_part(sentence, "start century") == with_part(sentence, "end century")
        assert all(year > start for year in sentence.question.answers)
        assert all(year <= start for year in sentence.question.wrong)
        assert len(sentence.question.answers) + len(sentence.question.wrong) == 100
        place = next(i for i, word in enumerate(sentence.words) if "start year" in word.parts)
        assert 2 <= int(sentence.question.corrupted[place]) <= max(2, int(start) // 3)


def test_roles_of_docstrings(training, test):
    for sentence in training["docstring"] + test["docstring"]:
        for place in (1, 2, 3):
            said = with_part(sentence, f"argument {place}")
            assert len(said) == 2 and said[0] == said[1]
        signature = with_part(sentence, "in signature")
        assert sentence.question.answers == (signature[2],)
        assert sorted((*sentence.question.wrong, signature[2])) == sorted(signature)
        assert not set(signature) & set(sentence.question.corrupted[: len(signature) * 2 + 4])


def test_roles_of_agreement(training, test):
    number = {word: i for pair in w.NOUN_PAIRS for i, word in enumerate(pair)}
    forms = w.AUXILIARIES + w.INTRANSITIVE + w.TRANSITIVE
    form = {word: i for pair in forms for i, word in enumerate(pair)}
    for sentence in training["agreement"] + test["agreement"]:
        (subject,), (verb,) = (with_part(sentence, p) for p in ("agreeing subject", "answer"))
        assert (
            number[subject] == form[verb] == ["singular", "plural"].index(sentence.facts["number"])
        )
        for word in sentence.words:
            if "verb of the relative clause" in word.parts:  # it agrees with who does it
                of_subject = "verb of the subject" in word.parts
                expected = sentence.facts["number" if of_subject else "attractor"]
                assert form[word.text] == ["singular", "plural"].index(expected)
        place = next(i for i, x in enumerate(sentence.words) if "agreeing subject" in x.parts)
        twin = sentence.question.corrupted[place]
        assert number[twin] == 1 - number[subject]
        assert [form[wrong] for wrong in sentence.question.wrong] == [1 - form[verb]]
    assert all(with_part(s, "attractor") for s in test["agreement"])
    for sentence in test["agreement"]:
        assert sentence.facts["attractor"] != sentence.facts["number"]
        assert ["singular", "plural"][number[with_part(sentence, "attractor")[0]]] == (
            sentence.facts["attractor"]
        )


def test_roles_of_biographies(training, test):
    for sentence in training["bios"] + test["bios"]:
        gender, profession = sentence.facts["gender"], sentence.facts["profession"]
        (name,) = with_part(sentence, "person of the biography")
        assert name in (w.FEMALE_NAMES if gender == "female" else w.MALE_NAMES)
        assert set(with_part(sentence, "named profession")) <= {profession}
        pronouns = set(with_part(sentence, "pronoun of the biography"))
        assert pronouns == set(sentence.question.answers) == {"she" if gender == "female" else "he"}
        assert f"sign of {profession}" in {role for roles in sentence.roles() for role in roles}
        other = w.MALE_NAMES if gender == "female" else w.FEMALE_NAMES
        assert set(sentence.question.corrupted) & set(other)


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("strength", [0.5, 0.8, 1.0])
def test_strength_is_how_often_gender_and_profession_go_together(held_out, strength):
    grammar, usual, total = Grammar(0), Counter(), Counter()
    for _ in range(4000):
        facts = grammar.sentence("bios", test=held_out, strength=strength).facts
        profession = facts["profession"]
        usual[profession] += facts["gender"] == w.PROFESSIONS[profession][0]
        total[profession] += 1
    assert set(total) == set(w.PROFESSIONS)
    assert sum(usual.values()) / 4000 == pytest.approx(strength, abs=0.025)
    for profession in total:  # about 286 each: .1 is more than three standard deviations
        assert usual[profession] / total[profession] == pytest.approx(strength, abs=0.1)


def test_biographies_do_as_they_are_told():
    grammar = Grammar(0)
    for _ in range(100):
        sentence = grammar.sentence("bios", profession="nurse", gender="male", title=False)
        assert sentence.facts == {"profession": "nurse", "gender": "male"}
        assert not with_part(sentence, "named profession")
    for profession in w.PROFESSIONS:  # each has held-out names of both genders
        for gender in ("female", "male"):
            grammar.sentence("bios", test=True, profession=profession, gender=gender)


def test_repeated_words_say_the_same_twice():
    for sentence in Grammar(0).sentences(50, "repeated"):
        words = [word.text for word in sentence.words]
        half = len(words) // 2
        assert words[:half] == words[half:] and len(set(words)) == half


def test_roles_name_class_part_family_and_word():
    sentence = Grammar(0).sentence("ioi")
    roles = sentence.roles()[sentence.question.at]
    assert {"name", "indirect object", "answer", "in ioi"} < roles
    assert f"word {sentence.facts['io']}" in roles and "singular" not in roles


def test_unknown_families_are_refused():
    with pytest.raises(InputError, match="Unknown family 'poem'"):
        Grammar().sentence("poem")
    with pytest.raises(InputError, match="Nothing of family 'filler' is held out"):
        Grammar().sentence("filler", test=True)
