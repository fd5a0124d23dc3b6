"""Words in place of tokens."""

from circuit_toolkit.features.descriptions.words import grouped_words, spelled


def test_forms_of_a_word_become_one():
    tokens = [" Officers", "officer", " officer's", "OFFICER"]
    assert grouped_words(tokens) == ["Officers"]
    assert grouped_words(tokens[::-1]) == ["OFFICER"], "the first is the strongest"


def test_what_is_shown_is_a_token():
    tokens = [" had", " is", " have", "be", " Häuser", "13", ' "word"', "mice", "MOUSE", ","]
    assert grouped_words(tokens) == ["had", "is", "Häuser", "13", '"word"', "mice", ","]


def test_signs_can_be_told_apart_in_a_list():
    assert [spelled(word) for word in [",", ")", "a,", "7"]] == ["“,”", "“)”", "a,", "7"]


def test_words_that_are_alike_are_shown_by_the_first():
    assert grouped_words(["colour", "color", "cat"]) == ["colour", "cat"]
    assert grouped_words(["dog", "dot"]) == ["dog", "dot"]  # ratio .67


def test_punctuation_stays_where_it_is_all_there_is():
    assert grouped_words(["(", ' "word"', "!!", "!!!"]) == ["(", '"word"', "!!"]


def test_nothing_left_gives_the_originals():
    assert grouped_words([" ", "\n"]) == [" ", "\n"]
    assert grouped_words([]) == []


def test_lemmas_are_a_setting():
    assert grouped_words(["went", "go"], "en") == ["went"]
    assert grouped_words(["went", "go"], None) == ["went", "go"]
    assert grouped_words(["Häuser", "Haus"], "de") == ["Häuser"]


def test_names_are_no_forms_of_other_words():
    assert grouped_words(["Maria", "maria"]) == ["Maria", "maria"]  # Latin seas


def test_numbers_and_mixed_tokens_are_left_alone():
    assert grouped_words([" 17", "x1"]) == ["17", "x1"]
