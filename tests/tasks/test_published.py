"""Tables in the form in which others publish them; the sentences are ours."""

import json

import numpy as np
import pytest
import torch

import circuit_toolkit as ct
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.tasks import Task

NAMES = [("Mary", "John"), ("Anna", "Tom"), ("John", "Anna")]


def words(model, tokens):
    return [[model.tokenizer.decode([token]) for token in each] for each in tokens]


def ioi_of_mib():
    """Indirect objects: metadata, choices, and a column for each counterfactual."""

    def row(once, again, **more):
        prompt = f"When {once} and {again} went to the shop, {again} gave a book to"
        return {"prompt": prompt, "choices": [once, again], "answerKey": 0} | more

    return [
        row(once, again)
        | {
            "template": "When {name_A} and {name_B} went to the {place}, ...",
            "metadata": {"indirect_object": once, "subject": again, "object": "book"},
            "s2_io_flip_counterfactual": row(again, once),
            "abc_counterfactual": row("Jane", "Paul"),
        }
        for once, again in NAMES
    ]


def choices_of_mib():
    """Multiple choices: labels and texts, and the number of the right one."""

    def row(labels, right):
        texts = ["red", "blue"]
        listed = "".join(f"\n{a}. {b}" for a, b in zip(labels, texts, strict=True))
        prompt = f"A box is {texts[right]}. What colour is it?{listed}\nAnswer:"
        return {
            "prompt": prompt,
            "choices": {"label": list(labels), "text": texts},
            "answerKey": right,
        }

    return [
        row("AB", right)
        | {
            "symbol_counterfactual": row("CD", right),
            "answerPosition_counterfactual": row("AB", 1 - right),
        }
        for right in (0, 1, 1)
    ]


def sums_of_mib():
    def row(a, b):
        return {"prompt": f"The sum of {a} and {b} is", "label": a + b, "operator": "+"}

    return [row(3, b) | {"random_counterfactual": row(5, b)} for b in (1, 2, 4)]


def test_indirect_objects_of_mib(gpt2):
    rows = ioi_of_mib()
    made = Task.from_table(gpt2, rows)
    assert made.clean == tuple(row["prompt"] for row in rows)
    assert made.corrupted == tuple(row["s2_io_flip_counterfactual"]["prompt"] for row in rows)
    assert words(gpt2, made.answers) == [[f" {once}"] for once, _ in NAMES]
    assert words(gpt2, made.wrong) == [[f" {again}"] for _, again in NAMES]
    assert made.metric == "logit_difference"
    other = Task.from_table(gpt2, rows, corrupted="abc_counterfactual")
    assert other.corrupted[0].startswith("When Jane and Paul") and other.answers == made.answers
    same = Task.from_table(gpt2, rows, corrupted="abc_counterfactual.prompt")
    assert same.corrupted == other.corrupted
    labelled = Task.from_table(gpt2, rows, labels=["metadata.object"])
    assert labelled.labels == {"metadata.object": ("book",) * 3}


def test_multiple_choices_of_mib(gpt2):
    rows = choices_of_mib()
    made = Task.from_table(gpt2, rows)
    assert words(gpt2, made.answers) == [[" A"], [" B"], [" B"]]
    assert words(gpt2, made.wrong) == [[" C"], [" D"], [" D"]]
    assert made.corrupted[0].endswith("\nC. red\nD. blue\nAnswer:")
    moved = Task.from_table(gpt2, rows, corrupted="answerPosition_counterfactual")
    assert words(gpt2, moved.wrong) == [[" B"], [" A"], [" A"]]


def test_sums_of_mib_of_which_some_have_no_counterfactual(gpt2):
    rows = sums_of_mib()
    made = Task.from_table(gpt2, rows)
    assert words(gpt2, made.answers) == [[" 4"], [" 5"], [" 7"]]
    assert words(gpt2, made.wrong) == [[" 6"], [" 7"], [" 9"]]
    rows[1]["random_counterfactual"] = None
    with pytest.raises(InputError, match=r"row 2: 'random_counterfactual.prompt' must be a text"):
        Task.from_table(gpt2, rows)
    with pytest.warns(UserWarning, match="1 of 3 rows were dropped, the first is row 2: it has no"):
        left = Task.from_table(gpt2, rows, bad_rows="drop")
    assert left.clean == (made.clean[0], made.clean[2])


@pytest.mark.parametrize("make", [ioi_of_mib, choices_of_mib, sums_of_mib])
def test_mib_as_a_data_set_and_as_the_files_of_the_hub(gpt2, tmp_path, make):
    datasets = pytest.importorskip("datasets")
    rows = make()
    expected = Task.from_table(gpt2, rows)
    data = datasets.Dataset.from_list(rows)
    data.to_parquet(tmp_path / "train-00000-of-00001.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for given in (
        data,
        data.to_pandas(),
        tmp_path / "train-00000-of-00001.parquet",
        tmp_path / "a.jsonl",
    ):
        found = Task.from_table(gpt2, given)
        assert found.texts == expected.texts
        assert (found.answers, found.wrong) == (expected.answers, expected.wrong)
    assert found.name == "a"
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(FileFormatError, match="bad.parquet is no readable Parquet file"):
        Task.from_table(gpt2, tmp_path / "bad.parquet")


def test_years_of_mib_are_written_out(gpt2):
    start = "The war lasted from the year 17{} to the year 17"
    rows = [{"clean": start.format(y), "corrupted": start.format("01")} for y in (23, 41)]
    short = Task.from_table(
        gpt2, [row | {"label": y} for row, y in zip(rows, (23, 41), strict=True)]
    )
    whole = Task.from_table(
        gpt2, [row | {"year": f"17{y}"} for row, y in zip(rows, (23, 41), strict=True)]
    )
    assert whole.metric == "probability_difference"
    assert (whole.answers, whole.wrong) == (short.answers, short.wrong)


def test_capitals_and_stereotypes_of_eap_ig(gpt2, tmp_path):
    ids = {word: gpt2.token_id(word) for word in (" France", " Spain", " he", " she")}
    path = tmp_path / "capitals.csv"
    path.write_text(
        "clean,capital,country,country_idx,corrupted,corrupted_capital,corrupted_country,"
        'corrupted_country_idx\n"Paris, the capital of",Paris,France,1,"Madrid, the capital of",'
        "Madrid,Spain,2\n"  # ids of another tokenizer: the words beside them are read
    )
    made = Task.from_table(gpt2, path)
    assert (made.answers, made.wrong) == (((ids[" France"],),), ((ids[" Spain"],),))
    path = tmp_path / "gender.csv"
    path.write_text(
        "clean,corrupted,clean_answer_idx,corrupted_answer_idx\n"
        f"The doctor said that,The man said that,{ids[' he']},{ids[' she']}\n"
    )
    with pytest.raises(InputError, match="answers_as='ids' if the ids are right"):
        Task.from_table(gpt2, path)  # nothing in the file says whose ids they are
    made = Task.from_table(gpt2, path, answers_as="ids")
    assert (made.answers, made.wrong) == (((ids[" he"],),), ((ids[" she"],),))
    path.write_text(
        "clean,corrupted,answers_idx,corrupted_answers_idx\n"
        f'A rose is a,A cat is a,"[{ids[" he"]}, {ids[" she"]}]",[1]\n'
    )
    made = Task.from_table(gpt2, path, answers_as="ids")
    assert made.answers == ((ids[" he"], ids[" she"]),) and made.wrong == ((1,),)


def test_a_path_that_leads_nowhere_is_named(gpt2):
    with pytest.raises(InputError, match="nothing at 'metadata.place' in any row"):
        Task.from_table(gpt2, ioi_of_mib(), labels=["metadata.place"])
    with pytest.raises(InputError, match=r"nothing at 'choices\[number\]' in any row"):
        Task.from_table(gpt2, ioi_of_mib(), clean="prompt", answer="choices[number]", wrong="x")


def test_the_tensors_of_acdc(demo):
    task = ct.tasks.ioi(demo, n=48, seed=0)
    lengths = demo.tokenize(task.clean).mask.sum(1)
    rows = (lengths == lengths.mode().values).nonzero().flatten().tolist()
    clean, corrupted = (
        demo.tokenize([texts[i] for i in rows]).ids for texts in (task.clean, task.corrupted)
    )
    answers = torch.tensor([task.answers[i][0] for i in rows])
    wrong = torch.tensor([task.wrong[i] for i in rows])
    made = Task.from_tokens(demo, clean, corrupted, answers, wrong, name="ioi")
    part = task.select(rows)
    assert len(made) == len(rows) >= 2 and made.metric == part.metric
    found, expected = ct.eap(demo, made), ct.eap(demo, part)
    np.testing.assert_allclose(found.edges["weight"], expected.edges["weight"], rtol=0, atol=1e-6)
    saes = {site: each for site, each in ct.load_dictionaries(demo).items() if site.layer == 3}
    acts = ct.capture(demo, saes, made, progress=False)
    assert acts.tokens[0][-1] == demo.word(int(clean[0, -1])) and acts.n_prompts == 2 * len(made)
    heads = ct.find_heads(demo, made, made, max_heads=2, random_sets=2, progress=False)
    assert heads.evidence["ablation"]["evaluated_on"]["seen"] == len({*made.clean})
    alone = Task.from_tokens(demo, clean, None, answers, wrong)
    assert alone.corrupted == ()
    for bad, message in [
        ((clean.float(), None, answers, wrong), "clean must be token ids, whole numbers"),
        (
            (clean, corrupted[:, 1:], answers, wrong),
            "clean has shape .*, corrupted has",
        ),
        ((clean, None, answers[1:], wrong), "clean has shape .*, answers has"),
        ((clean + 10**6, None, answers, wrong), "has tokens 0 to"),
        ((answers, None, answers, wrong), "clean must be a table of token ids, got shape"),
        (([[1], [2, 3]], None, answers, wrong), "clean must be a table of token ids"),
    ]:
        with pytest.raises(InputError, match=message):
            Task.from_tokens(demo, *bad)
