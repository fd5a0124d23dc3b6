"""What is shown before a call, what is allowed, and what is kept."""

from dataclasses import replace

import pytest

from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.features.descriptions.explainer import Cost, Explainer

PROMPTS = {"a": "one two", "b": "three", "c": "one two", "d": "four"}


def test_cost_and_first_prompt_are_shown_before_the_first_call():
    events = []
    explainer = Explainer(lambda text: events.append(text) or f" {text}! ", 3, events.append)
    assert explainer.ask(PROMPTS) == {name: f"{text}!" for name, text in PROMPTS.items()}
    shown, *asked = events
    assert asked == ["one two", "three", "four"]  # equal prompts are one call
    assert shown == Cost(calls=3, characters=16, tokens=4, first="one two")
    explainer.ask(PROMPTS)
    assert len(events) == 4  # nothing to ask, nothing to show


def test_by_default_it_is_displayed(capsys):
    with pytest.raises(InputError, match="none is allowed; nothing was called"):
        Explainer(lambda text: pytest.fail("called")).ask(PROMPTS)
    said = capsys.readouterr().out
    assert said.startswith("3 calls with 16 characters (roughly 4 tokens)")
    assert "first prompt:\none two\n" in said


def test_a_larger_limit_or_another_client_keeps_the_answers():
    asked = []
    explainer = Explainer(lambda text: asked.append(text) or len(asked), 3)  # no text
    with pytest.raises(InputError, match="gave int for a"):
        explainer.ask(PROMPTS)
    assert not explainer.answers
    explainer = replace(explainer, call=lambda text: asked.append(text) or "said")
    explainer.ask({"b": "three"})
    with pytest.raises(InputError, match="2 calls .* 1 are allowed"):
        replace(explainer, max_calls=1).ask(PROMPTS)
    replace(explainer, max_calls=2).ask(PROMPTS)
    assert asked == ["one two", "three", "one two", "four"]
    assert repr(explainer) == "Explainer(max_calls=3, 3 answers)"


def test_an_interruption_costs_no_answer():
    def call(text):
        if text == "four":
            raise KeyboardInterrupt
        return text

    explainer = Explainer(call, 3)
    with pytest.raises(KeyboardInterrupt):
        explainer.ask(PROMPTS)
    assert explainer.answers == {"one two": "one two", "three": "three"}


@pytest.mark.parametrize(
    ("call", "limit"), [(None, 3), ("a model", 3), (str, -1), (str, 2.5), (str, float("nan"))]
)
def test_what_is_no_explainer_is_refused(call, limit):
    with pytest.raises(InputError, match="must be"):
        Explainer(call, limit)


def test_answers_are_kept_in_a_folder_as_they_come(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    def call(text):
        if text == "four" and len(asked) == 2:
            raise ConnectionError
        asked.append(text)
        return text.upper()

    asked = []
    with pytest.raises(InputError, match="failed on d"):
        Explainer(call, 3, store="~/answers").ask(PROMPTS)
    assert asked == ["one two", "three"]
    asked.append("another session")
    shown = []
    again = Explainer(call, 1, shown.append, store=tmp_path / "answers")
    assert again.ask(PROMPTS) == {name: text.upper() for name, text in PROMPTS.items()}
    assert asked[3:] == ["four"] and shown[0].calls == 1
    assert len(list((tmp_path / "answers").glob("answer-*.json"))) == 3
    Explainer(call, 0, store=tmp_path / "answers").ask(PROMPTS)  # none is left to ask


def test_answers_of_others_and_damaged_ones_are_refused(tmp_path):
    Explainer(str.upper, 3, store=tmp_path).ask(PROMPTS)
    with pytest.raises(MismatchError, match="explainer 'str.upper' there, 'str.lower' here"):
        Explainer(str.lower, 3, store=tmp_path).ask(PROMPTS)
    path = min(tmp_path.glob("answer-*.json"))
    path.write_text(path.read_text().replace('"answer": "', '"answer": "not '))
    with pytest.raises(FileFormatError, match="damaged.*the explainer is asked again"):
        Explainer(str.upper, 3, store=tmp_path).ask(PROMPTS)
    path.unlink()
    assert Explainer(str.upper, 1, store=tmp_path).ask(PROMPTS)["d"] == "FOUR"


def test_earlier_answers_are_written_too(tmp_path):
    explainer = Explainer(str.upper, 3)
    explainer.ask(PROMPTS)
    replace(explainer, store=tmp_path).ask(PROMPTS)
    assert Explainer(str.upper, 0, store=tmp_path).ask(PROMPTS)["a"] == "ONE TWO"
