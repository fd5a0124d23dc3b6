"""Words in place of tokens."""

from circuit_toolkit.interpret.weight_lens.words import grouped_words


def test_forms_of_a_word_become_one():
    tokens = [" Officers", "officer", " officer's", "OFFICER"]
    assert grouped_words(tokens) == ["officer"]


def test_words_that_are_alike_are_shown_by_the_first():
    assert grouped_words(["colour", "color", "cat"]) == ["colour", "cat"]
    assert grouped_words(["dog", "dot"]) == ["dog", "dot"]  # ratio .67


def test_punctuation_stays_where_it_is_all_there_is():
    assert grouped_words(["(", ' "word"', "!!", "!!!"]) == ["(", "word", "!!"]


def test_nothing_left_gives_the_originals():
    assert grouped_words([" ", "\n"]) == [" ", "\n"]
    assert grouped_words([]) == []


def test_lemmas_are_a_setting():
    assert grouped_words(["went"], "en") == ["go"]
    assert grouped_words(["went"], None) == ["went"]
    assert grouped_words(["Häuser"], "de") == ["haus"]


def test_names_keep_their_form():
    assert grouped_words(["Maria", "maria"]) == ["maria", "mare"]  # Latin seas


def test_numbers_and_mixed_tokens_are_left_alone():
    assert grouped_words([" 17", "x1"]) == ["17", "x1"]
