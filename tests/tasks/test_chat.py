"""Chats break off at the answer: one beginning, the same positions, tokens that follow there."""

import copy
from dataclasses import replace

import pytest

from circuit_toolkit.activations.capturing import capture
from circuit_toolkit.errors import InputError
from circuit_toolkit.interventions import generate, zero
from circuit_toolkit.models import load_model
from circuit_toolkit.sites import Site
from circuit_toolkit.tasks import BUNDLED, Task

LLAMA = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}"
    "{% if not loop.last %} </s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} </s>[assistant] It:{% endif %}"
)
TASKS = ("ioi", "greater_than", "docstring", "agreement")


def ids(model, text):
    return model.tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def chatty(request):
    """A model whose tokenizer has a chat template that begins with the beginning of a sequence."""
    given = request.getfixturevalue(request.param)
    tokenizer = copy.deepcopy(given.tokenizer)
    tokenizer.chat_template = LLAMA
    return load_model(given.hf, tokenizer)


@pytest.mark.parametrize("name", TASKS)
def test_by_default_the_answer_begins_with_the_prompt(chatty, name):
    task = BUNDLED[name](chatty, n=20)
    chat = task.as_chat(chatty, system="Be short.")
    assert chat.name == f"{name}-chat"
    assert (chat.answers, chat.wrong, chat.labels) == (task.answers, task.wrong, task.labels)
    for text, made in zip(task.texts, chat.texts, strict=True):
        assert made.endswith(
            f"[system] Be short. </s>[user] Complete the text. </s>[assistant] {text}"
        )
        batch = chatty.tokenize([made], bos=True)
        assert batch.ids[0].tolist().count(chatty.tokenizer.bos_token_id) == 1
        assert batch.ids[0, 0] == chatty.tokenizer.bos_token_id
        assert ids(chatty, made)[-len(ids(chatty, text)) + 1 :] == ids(chatty, text)[1:]
    assert chat.positions == task.positions  # counted from the end, where nothing changes
    if name != "greater_than":
        for made, (token,) in zip(chat.clean, chat.answers, strict=True):
            said = chatty.tokenizer.decode([*ids(chatty, made), token])
            assert ids(chatty, said)[-1] == token


def test_positions_are_found_again_in_what_the_user_says(chatty):
    task = BUNDLED["ioi"](chatty, n=20)
    chat = task.as_chat(chatty, user="{prompt} whom? Say a name.", answer="It is")
    for i, (text, made) in enumerate(zip(task.clean, chat.clean, strict=True)):
        before, after = ids(chatty, text), ids(chatty, made)
        for name, places in task.positions.items():
            assert after[chat.positions[name][i]] == before[places[i]]
            assert chat.positions[name][i] < places[i]
        name = chatty.tokenizer.decode(task.answers[i]).strip()
        assert ids(chatty, f"{made} {name}") == [*after, *chat.answers[i]]
        assert made.endswith("[assistant] It is")


def test_answers_are_tokens_of_the_place_where_they_follow(chatty):
    """Behind a bracket the first word has no space: another token, or several."""
    pair = ("When Mary and John left, John gave it to", "When Mary and John left, Tom gave it to")
    task = Task.from_pairs(chatty, [(*pair, " Mary", " John")])
    if "llama" in type(chatty.hf).__name__.lower():  # whose small vocabulary has no bare names
        with pytest.raises(InputError, match="cannot follow there: 'Mary' is not one token after"):
            task.as_chat(chatty, user="Complete: {prompt}", answer="Sure, it is (")
        return
    chat = task.as_chat(chatty, user="Complete: {prompt}", answer="Sure, it is (")
    for side in (chat.answers, chat.wrong):
        ((token,),) = side
        said = chatty.tokenizer.decode([*ids(chatty, chat.clean[0]), token])
        assert said.endswith("(Mary" if side is chat.answers else "(John")
    begun = task.as_chat(chatty, user="Complete: {prompt}", answer="")
    assert begun.answers == task.answers  # after a letter: with its space again
    assert begun.clean[0].endswith(f"{pair[0]} </s>[assistant] It:")


def test_what_cannot_be_a_chat_is_refused(chatty, gpt2):
    task = BUNDLED["ioi"](chatty, n=3)
    with pytest.raises(InputError, match="has no chat template"):
        task.as_chat(gpt2)
    with pytest.raises(InputError, match=r"must hold '{prompt}', got 'Hello' and ''"):
        task.as_chat(chatty, user="Hello", answer="")
    tokenizer = copy.deepcopy(chatty.tokenizer)
    tokenizer.chat_template = LLAMA.replace("m['content']", "m['content'] | upper")
    with pytest.raises(InputError, match="The chat template of .* changes"):
        task.as_chat(load_model(chatty.hf, tokenizer), user="{prompt}", answer="")
    longer = replace(task, corrupted=tuple(f"{text} the" for text in task.corrupted))
    with pytest.raises(InputError, match="of different length"):
        longer.as_chat(chatty)


def test_a_chat_is_a_prompt_wherever_a_text_is(chatty):
    """Hugging Face's own way from messages to tokens is the oracle."""
    asked = [{"role": "user", "content": "Who is there?"}]
    gone_on = [*asked, {"role": "assistant", "content": "It is"}]
    for chat, options in [
        (asked, {"add_generation_prompt": True}),
        (gone_on, {"continue_final_message": True}),
    ]:
        text = chatty.tokenizer.apply_chat_template(chat, tokenize=False, **options)
        expected = ids(chatty, text)
        assert chatty.chat_text(chat) == text
        assert chatty.tokenize([chat]).ids[0].tolist() == expected
        assert chatty.tokenize(chat).ids[0].tolist() == expected  # one chat by itself
        assert chatty.tokenize([chat], bos=False).ids[0].tolist() == expected[1:]
        acts = capture(chatty, ["resid_post 0"], [chat, text], progress=False)
        assert acts.texts == [text, text]
        first, second = (acts.features[Site("resid_post", 0)][acts.prompt == i] for i in (0, 1))
        assert abs(first - second).max() == 0
        said = generate(chatty, chat, zero("attn_out 0"), max_new_tokens=2, progress=False)
        assert said.prompt == text


def test_a_chat_that_no_template_takes_is_refused(chatty):
    chat = [{"role": "user", "content": "Who is there?"}]
    plain = copy.deepcopy(chatty.tokenizer)
    plain.chat_template = None
    with pytest.raises(InputError, match="has no chat template. Pass texts, or set"):
        load_model(chatty.hf, plain).tokenize([chat])
    plain.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match=r"refuses these messages: roles must alternate"):
        load_model(chatty.hf, plain).tokenize([chat])
    with pytest.raises(InputError, match=r"prompts\[1\] is one message, beside prompts of other"):
        chatty.tokenize(["Who is there?", chat[0]])
