"""Tasks from tables: published files as they are, columns, token ids, and rows that are bad."""

import csv
import json
import random
import re
import warnings

import pytest

from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.tasks import Task
from circuit_toolkit.tasks.tokens import splitting_years, year_ends


def write(path, rows, columns=None):
    """Rows as CSV, or as JSON lines by the ending."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns or list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def csv_rows(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def of_json(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def length(model, text):
    return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("family", ["gpt2", "pythia"])
def test_the_years_of_hanna_et_al_are_read_as_they_are(request, shared_data, family):
    model = request.getfixturevalue(family)
    path = shared_data / "prompts" / "eap-ig" / "greater_than_data.csv"
    made, rows = Task.from_table(model, path), csv_rows(path)
    assert made.name == "greater_than_data" and made.metric == "probability_difference"
    assert made.clean == tuple(row["clean"] for row in rows) and len(made) == 1000
    assert made.corrupted == tuple(row["corrupted"] for row in rows)
    ends = [model.tokenizer.convert_tokens_to_ids(f"{year:02d}") for year in range(100)]
    assert ends == list(year_ends(model, splitting_years(model)).values())
    for row, right, wrong in zip(rows, made.answers, made.wrong, strict=True):
        start = int(row["label"])  # the file says 2 for the year 1402
        assert [*right] == ends[start + 1 :] and [*wrong] == ends[: start + 1]


@pytest.mark.parametrize("kind", ["simple", "nounpp", "within_rc"])
@pytest.mark.parametrize("family", ["gpt2", "pythia"])
def test_the_verbs_of_marks_et_al_are_read_as_they_are(request, shared_data, family, kind):
    model = request.getfixturevalue(family)
    path = shared_data / "prompts" / "feature-circuits" / "data" / f"{kind}_test.json"
    rows = of_json(path)
    uneven = [
        i
        for i, row in enumerate(rows)
        if length(model, row["clean_prefix"]) != length(model, row["patch_prefix"])
    ]
    assert bool(uneven) == (kind != "within_rc")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = Task.from_table(model, path, labels=["case"], name=kind)
    said = f"{len(uneven)} of {len(rows)} corrupted prompts have another number of tokens"
    assert [said in str(each.message) for each in caught] == [True] * bool(uneven)
    assert all(each.filename == __file__ for each in caught)
    assert made.name == kind and made.metric == "logit_difference" and len(made) == len(rows)
    assert made.texts == [row[part] for part in ("clean_prefix", "patch_prefix") for row in rows]
    for part, tokens in [("clean_answer", made.answers), ("patch_answer", made.wrong)]:
        assert [model.tokenizer.decode(each) for each in tokens] == [row[part] for row in rows]
    assert made.labels == {"case": tuple(row["case"] for row in rows)}
    if uneven:
        with pytest.warns(UserWarning, match=rf"{len(uneven)} of {len(rows)} rows were dropped"):
            kept = Task.from_table(model, path, bad_rows="drop")
        left = [row["clean_prefix"] for i, row in enumerate(rows) if i not in uneven]
        assert [*kept.clean] == left
        batch = model.tokenize([kept.clean[0], kept.corrupted[0]])
        assert batch.mask.all()


def test_ids_of_another_tokenizer_are_not_used_and_names_are_read_from_the_text(
    gpt2, pythia, shared_data
):
    path = shared_data / "prompts" / "eap-ig" / "ioi_llama.csv"
    rows = csv_rows(path)
    with pytest.warns(UserWarning, match="47764 is ' df', which is not in the prompt") as caught:
        made = Task.from_table(gpt2, path)
    assert [each.filename for each in caught] == [__file__] and len(made) == len(rows)
    assert made.texts == [row[part] for part in ("clean", "corrupted") for row in rows]
    for clean, right, wrong in zip(made.clean, made.answers, made.wrong, strict=True):
        names = re.search(r"([A-Z]\w+) and ([A-Z]\w+)", clean).groups()
        again = re.findall(r"[A-Z]\w+", clean)[-1]  # it is the last word with a capital
        (once,) = {*names} - {again}
        assert gpt2.tokenizer.decode(right) == f" {once}"
        assert gpt2.tokenizer.decode(wrong) == f" {again}"
    # Pythia has not all of the names as one token: rows are refused by number, or dropped.
    with (
        pytest.warns(UserWarning, match="not of the tokenizer"),
        pytest.raises(InputError, match=r"row 3: ' Kimberly' is not one token.*drop"),
    ):
        Task.from_table(pythia, path)
    with pytest.warns(UserWarning) as caught:
        kept = Task.from_table(pythia, path, bad_rows="drop")
    assert ["rows were dropped" in str(each.message) for each in caught] == [False, True]
    assert 0 < len(kept) < len(rows) and "Kimberly" not in " ".join(kept.clean)


@pytest.fixture
def with_ids(gpt2, shared_data, tmp_path):
    """The same file with the ids of the tokenizer in hand, and what it means."""
    path = shared_data / "prompts" / "eap-ig" / "ioi_llama.csv"
    with pytest.warns(UserWarning, match="not of the tokenizer"):
        made = Task.from_table(gpt2, path)
    rows = csv_rows(path)
    for row, right, wrong in zip(rows, made.answers, made.wrong, strict=True):
        row["correct_idx"], row["incorrect_idx"] = right[0], wrong[0]
    return rows, made, tmp_path / "ioi.csv"


def test_ids_that_fit_are_used_and_a_foreign_one_among_them_is_named(gpt2, with_ids):
    rows, made, path = with_ids
    mine = Task.from_table(gpt2, write(path, rows))
    assert (mine.answers, mine.wrong) == (made.answers, made.wrong)
    rows[6]["correct_idx"] = 11  # a comma: the prompt says it, but not as a word
    with pytest.raises(InputError, match=r"row 7: 11 is ',', which is not in the prompt. 1 of 499"):
        Task.from_table(gpt2, write(path, rows))
    with pytest.warns(UserWarning, match="1 of 499 rows were dropped, the first is row 7: 11 is"):
        dropped = Task.from_table(gpt2, path, bad_rows="drop")
    assert dropped.clean == made.clean[:6] + made.clean[7:]
    trusted = Task.from_table(gpt2, path, answers_as="ids")
    assert trusted.answers[6] == (11,)
    rows[6]["correct_idx"] = 50257
    with pytest.raises(InputError, match="row 7: 50257 is no token, there are 50257"):
        Task.from_table(gpt2, write(path, rows), answers_as="ids")
    rows[6]["correct_idx"] = "x"
    with pytest.raises(InputError, match="row 7: 'x' is no token id"):
        Task.from_table(gpt2, write(path, rows))


def test_foreign_ids_without_names_in_the_text_are_refused(gpt2, tmp_path):
    rows = [{"clean": "the sky is", "correct_idx": 1, "incorrect_idx": 2}]
    with pytest.raises(InputError, match=r"row 1: 1 is '\"', .*Pass answer= and wrong="):
        Task.from_table(gpt2, write(tmp_path / "a.csv", rows))
    right = Task.from_table(gpt2, tmp_path / "a.csv", answers_as="ids")
    assert (right.answers, right.wrong) == (((1,),), ((2,),))


PAIRS = [
    {"good": "Mary gave it to", "bad": "Anna gave it to", "yes": "John", "no": " Mary", "way": "a"},
    {"good": "It is 17", "bad": "It is 18", "yes": "32", "no": "01", "way": "b"},
    {"good": 'He said "', "bad": 'He says "', "yes": "Yes", "no": "No", "way": "a"},
]
COLUMNS = {"clean": "good", "corrupted": "bad", "answer": "yes", "wrong": "no"}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_columns_that_are_named_and_the_space_in_front_of_an_answer(gpt2, tmp_path, ending):
    path = write(tmp_path / f"own.{ending}", PAIRS)
    read = Task.from_table
    made = read(gpt2, path, **COLUMNS, labels=["way"], upwards=lambda row: row["way"] == "a")
    said = [[gpt2.tokenizer.decode(t) for t in side] for side in (made.answers, made.wrong)]
    assert said == [[" John", "32", "Yes"], [" Mary", "01", "No"]]
    assert made.corrupted == tuple(row["bad"] for row in PAIRS)
    assert made.labels == {"way": ("a", "b", "a")} and made.directions == (1, -1, 1)
    assert made.name == "own"
    other = read(gpt2, path, **COLUMNS, metric="probability_difference", name="mine")
    assert (other.metric, other.name) == ("probability_difference", "mine")
    with pytest.raises(InputError, match=r"known as 'clean': pass clean=, one of \['good'"):
        read(gpt2, path)
    with pytest.raises(InputError, match="row 1: there is no column 'nice' among"):
        read(gpt2, path, **COLUMNS | {"clean": "nice"})
    with pytest.raises(InputError, match="there is no column 'colour' among"):
        read(gpt2, path, **COLUMNS, labels=["colour"])
    for what in ("bad_rows", "answers_as"):
        with pytest.raises(InputError, match=f"{what} must be one of .*, got 'guess'"):
            read(gpt2, path, **COLUMNS, **{what: "guess"})


def test_files_without_corrupted_prompts_lists_of_answers_and_tables_with_tabs(gpt2, tmp_path):
    rows = [{"prompt": "She is", "answer": [" old", " young"], "wrong": " the"}] * 2
    made = Task.from_table(gpt2, write(tmp_path / "a.jsonl", rows))
    assert made.corrupted == () and gpt2.tokenizer.decode(made.answers[1]) == " old young"
    path = tmp_path / "a.tsv"
    path.write_text("\ufeffclean\tcorrupted\tanswer\twrong\nShe, is\tHe, is\told\tyoung\n")
    assert Task.from_table(gpt2, path).texts == ["She, is", "He, is"]


@pytest.mark.parametrize("form", ["frame", "rows", "data set", "home"])
def test_rows_in_hand_are_as_good_as_a_file(tiny, tmp_path, monkeypatch, form):
    pd, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    monkeypatch.setenv("HOME", str(tmp_path))
    rows = [
        {"clean": "Mary met Anna and", "corrupted": "Tom met Anna and", "answer": "a", "wrong": "b"}
    ]
    rows[0] |= {"answer": "Anna", "wrong": "Tom"}
    write(tmp_path / "own.csv", rows)
    table = {
        "frame": pd.DataFrame(rows),
        "rows": iter(rows),
        "data set": datasets.Dataset.from_list(rows),
        "home": "~/own.csv",
    }[form]
    made = Task.from_table(tiny, table)
    assert made.name == "own" and made.texts == [rows[0]["clean"], rows[0]["corrupted"]]
    assert (made.answers, made.wrong) == (((tiny.token_id("Anna"),),), ((tiny.token_id("Tom"),),))


def test_rows_are_refused_by_number_or_dropped_with_a_count(gpt2, tmp_path):
    rows = [{"clean": "It is", "answer": word, "wrong": " a"} for word in ("my", "antelope", "an")]
    path = write(tmp_path / "a.csv", rows)
    with pytest.raises(InputError, match=r"a.csv, row 2: ' antelope' is not one token after"):
        Task.from_table(gpt2, path)
    with pytest.warns(UserWarning, match="a.csv: 1 of 3 rows were dropped, the first is row 2"):
        assert len(Task.from_table(gpt2, path, bad_rows="drop")) == 2
    with pytest.raises(InputError, match="3 of 3 rows are bad. None is left"):
        Task.from_table(gpt2, write(path, [rows[1]] * 3), bad_rows="drop")
    with pytest.raises(InputError, match="row 1: it has no answer, or no wrong one"):
        Task.from_table(
            gpt2, write(tmp_path / "a.json", [{"clean": "a", "answer": [], "wrong": "b"}])
        )
    with pytest.raises(InputError, match="row 2: 'clean' must be a text, got ''"):
        Task.from_table(gpt2, write(path, [rows[0], rows[0] | {"clean": ""}]))


def test_start_years_that_no_span_has_are_bad_rows(gpt2, llama, tmp_path):
    spans = [
        {"clean": f"from the year 17{year} to the year 17", "label": label}
        for year, label in [("32", 32), ("05", 5), ("40", 41), ("50", 99), ("50", "x")]
    ]
    path = tmp_path / "a.csv"
    assert len(Task.from_table(gpt2, write(path, spans[:2]))) == 2
    for bad, reason in zip(
        spans[2:],
        ["does not start in a year that ends in 41", "'99' is no start year", "'x' is no start"],
        strict=True,
    ):
        with pytest.raises(InputError, match=f"a.csv, row 3: .*{reason}"):
            Task.from_table(gpt2, write(path, [*spans[:2], bad]))
    with pytest.raises(InputError, match="row 2: no tens digit is clearly wrong"):
        Task.from_table(llama, write(path, spans[:2]))
    with pytest.raises(InputError, match="pass wrong=, the column of wrong answers"):
        Task.from_table(gpt2, path, answers_as="text")
    with pytest.raises(InputError, match="pass wrong="):  # a label that is no year
        Task.from_table(gpt2, write(path, [{"clean": "It is fine.", "label": 1}]))


PAIRS_OF_NAMES = [
    ("When Mary and John went , John gave it to", "When Mary and John went , Tom gave it to")
    + ("Mary", "John"),
    ("When Anna and Tom went , Tom gave it to", "When Anna and Tom went , John gave it to")
    + ("Anna", "Tom"),
]


def test_a_document_of_auto_circuit_is_read(tiny, tmp_path):
    names = ("clean", "corrupt", "answers", "wrong_answers")
    rows = [
        dict(zip(names, (clean, other, [f" {right}"], [f" {wrong}"]), strict=True))
        for clean, other, right, wrong in PAIRS_OF_NAMES
    ]
    lines = Task.from_table(tiny, rows)
    for content in ({"prompts": rows, "word_idxs": {}}, rows):
        (tmp_path / "ioi.json").write_text(json.dumps(content, indent=2))
        made = Task.from_table(tiny, tmp_path / "ioi.json")
        assert (made.clean, made.answers, made.wrong) == (lines.clean, lines.answers, lines.wrong)
    (tmp_path / "ioi.json").write_text("\n".join(map(json.dumps, rows)))  # lines, by that name
    assert Task.from_table(tiny, tmp_path / "ioi.json").clean == lines.clean
    (tmp_path / "ioi.json").write_text(json.dumps([1, 2]))
    with pytest.raises(FileFormatError, match="one JSON document, not JSON lines"):
        Task.from_table(tiny, tmp_path / "ioi.json")


def test_damaged_foreign_and_missing_files_are_named(gpt2, tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        Task.from_table(gpt2, tmp_path / "none.csv")
    path = write(tmp_path / "a.jsonl", PAIRS)
    table = write(tmp_path / "a.csv", PAIRS)
    other = tmp_path / "a.txt"
    other.write_bytes(table.read_bytes())
    with pytest.raises(FileFormatError, match="a.txt, line 1 is not readable JSON.* .csv or .tsv"):
        Task.from_table(gpt2, other)
    for text, message in [
        ("clean,answer,wrong\na,b\n", "row 1: it has not as many cells as the header"),
        ("clean,answer,wrong\na,b,c\nx, y,b,c\n", "row 2: it has not as many cells"),
        ('clean,answer,wrong\n"a,b,c\n', "no CSV file"),
    ]:
        table.write_text(text)
        with pytest.raises(FileFormatError, match=message):
            Task.from_table(gpt2, table)
    table.write_bytes(b"clean,answer,wrong\n\xff\xfe,b,c\n")
    with pytest.raises(FileFormatError, match="no CSV file in UTF-8"):
        Task.from_table(gpt2, table)
    other.write_bytes(table.read_bytes())
    with pytest.raises(FileFormatError, match="no text in UTF-8"):
        Task.from_table(gpt2, other)
    for text, message in [
        ('{"a": 1}\n[1]\n', "line 2 is no JSON object"),
        ("{'a'", "line 1 is no"),
    ]:
        path.write_text(text)
        with pytest.raises(FileFormatError, match=message):
            Task.from_table(gpt2, path)
    for empty in ("clean,answer,wrong\n", ""):
        table.write_text(empty)
        with pytest.raises(InputError, match="a.csv has no rows"):
            Task.from_table(gpt2, table)


def test_what_the_bundled_model_is_asked_can_be_read_from_a_file(tiny, tmp_path):
    """Words of a vocabulary without spaces: the same answers with a space and without."""
    rows = [
        {"clean": "Mary met Anna and", "corrupted": "Tom met Anna and", "answer": a, "wrong": "Tom"}
        for a in ("Anna", " Anna")
    ]
    random.Random(0).shuffle(rows)
    made = Task.from_table(tiny, write(tmp_path / "a.csv", rows))
    assert made.answers == ((tiny.token_id("Anna"),),) * 2
    with pytest.raises(InputError, match="' zebra' is not one token after"):
        Task.from_table(tiny, write(tmp_path / "a.csv", [rows[0] | {"answer": "zebra"}]))
