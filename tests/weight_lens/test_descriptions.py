"""Tables, search, thresholds that move, files, and explanations, on the bundled transcoders."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.features.descriptions.settings import _validator, check_settings
from circuit_toolkit.features.descriptions.tables import TABLES
from circuit_toolkit.files.documents import digest
from circuit_toolkit.weight_lens import (
    PRESETS,
    Explainer,
    FeatureDescriptions,
    WeightLens,
    prompt_for,
)

LENS = WeightLens("paper", upstream="all")


@pytest.fixture(scope="module")
def found(demo, demo_transcoders):
    return LENS.describe(demo, demo_transcoders, progress=False)


def records(found):
    """All features, without what says which run they are of."""
    every = [
        found.of(site, i) for site in found.shown for i in range(found.tables[site].n_features)
    ]
    return [{key: value for key, value in each.items() if key != "provenance"} for each in every]


def test_the_table_counts_what_the_records_hold(found):
    table, every = found.table(), records(found)
    assert len(table) == len(every) == 2304
    assert table["validated"].tolist() == [each["validated"] for each in every]
    assert table["n_tokens"].tolist() == [len(each["description"]) for each in every]
    assert table["own"].tolist() == [len(each["tokens"]["positive"]) for each in every]
    assert table["negative"].tolist() == [len(each["tokens"]["negative"]) for each in every]
    assert table["upstream"].tolist() == [len(each["upstream"]) for each in every]
    for name in ("validation", "validation_soft"):
        expected = [np.nan if each[name] is None else each[name] for each in every]
        np.testing.assert_allclose(table[name], expected)
    coverage = found.coverage()
    np.testing.assert_allclose(coverage["validated"], table.groupby("layer")["validated"].mean())
    assert len(found.validated()) == table["validated"].sum() > 300
    assert json.loads(json.dumps(every[0])) == every[0]


def test_every_token_of_a_description_activates_its_feature_alone(found):
    for site, i in found.validated():
        alone = found.described[site].tokens[[i]]
        assert (alone.data > 0).all()
        ids = [row["id"] for row in found.of(site, i)["description"]]
        assert sorted(ids) == sorted(alone.indices)
        values = dict(zip(alone.indices, alone.data, strict=True))
        assert [values[t] for t in ids] == sorted(values.values(), reverse=True)


def test_labels_are_short_and_empty_where_nothing_is_validated(found):
    labels = found.labels()
    table = found.table()
    assert [bool(label) for site in found.shown for label in labels[site]] == table[
        "validated"
    ].tolist()
    assert max(label.count(",") for site in found.shown for label in labels[site]) == 3


def test_search_finds_the_features_that_a_token_activates(found):
    token = next(t for t, text in found.strings.items() if text == "year")
    hits = found.search("year")
    expected = {
        (str(site), i)
        for site, i in found.validated()
        if token in [row["id"] for row in found.of(site, i)["description"]]
    }
    validated = hits[hits["validated"]]
    assert set(zip(validated["site"], validated["feature"], strict=True)) == expected
    assert hits["solo"].tolist() == sorted(hits["solo"], reverse=True) and len(hits) > 1
    for _, row in hits[hits["z"].notna()].iterrows():
        own = found.of(row["site"], row["feature"])["tokens"]["positive"]
        assert row["contribution"] in [each["contribution"] for each in own]
    assert found.search(" YEAR").equals(hits) and found.search(token).equals(hits)
    assert not len(found.search("no such word")) and not len(found.search(-1))


@pytest.mark.parametrize(
    ("theta_token", "theta_feature"), [(3.0, 2.0), (3.3, 3.9), (6.0, 2.5), (4.0, 3.0)]
)
def test_moved_thresholds_give_what_describing_with_them_gives(
    found, demo, demo_transcoders, theta_token, theta_feature
):
    options = {"theta_token": theta_token, "theta_feature": theta_feature}
    moved = found.at(**options)
    lens = WeightLens("paper", **options, upstream="all")
    made = lens.describe(demo, demo_transcoders, progress=False)
    assert records(moved) == records(made)
    assert moved.coverage().equals(made.coverage())
    assert moved.settings["own"] == made.settings["own"]


def test_thresholds_do_not_move_below_the_floor(found):
    with pytest.raises(InputError, match="theta_token=2.9 is below 3"):
        found.at(theta_token=2.9)
    with pytest.raises(InputError, match="larger slack"):
        found.at(theta_feature=1.9)
    for wrong in ("a", float("nan")):
        with pytest.raises(InputError, match="theta_token must be a number"):
            found.at(theta_token=wrong)
    assert found.at(theta_token=5).at(theta_token=4).table().equals(found.table())


@pytest.mark.parametrize("ending", ["parquet", "json"])
def test_a_saved_file_holds_everything(found, tmp_path, ending):
    said = found.explained(Explainer(lambda prompt: f" about {len(prompt)}", max_calls=10_000))
    path = said.save(tmp_path / f"features.{ending}")
    again = FeatureDescriptions.load(path)
    for site, tables in found.tables.items():
        for name in (*TABLES, "embedding_total", "upstream_total", "sampled"):
            assert np.array_equal(getattr(tables, name), getattr(again.tables[site], name))
        assert (tables.kind, tables.name) == (again.tables[site].kind, again.tables[site].name)
    assert again.settings == found.settings and again.strings == found.strings
    assert again.concepts == said.concepts and records(again) == records(said)
    assert again.at(theta_token=3.2).table().equals(found.at(theta_token=3.2).table())
    assert again.save(tmp_path / f"copy.{ending}").read_bytes() == path.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == [f"copy.{ending}", path.name]


def test_a_file_of_before_tells_that_it_is_by_embeddings(found, tmp_path):
    settings = {name: value for name, value in found.settings.items() if name != "inputs"}
    path = replace(found, settings=settings).save(tmp_path / "old.json")
    assert FeatureDescriptions.load(path).settings == {**settings, "inputs": "embedding"}


@pytest.mark.parametrize("ending", ["parquet", "json"])
def test_damaged_files_are_refused(found, tmp_path, ending):
    path = found.save(tmp_path / f"features.{ending}")
    whole = path.read_bytes()
    middle = len(whole) // 2
    flipped = bytes([whole[middle] ^ 1])
    for damaged in (whole[:-100], b"", whole[:middle] + flipped + whole[middle + 1 :]):
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError, match="damaged"):
            FeatureDescriptions.load(path)


def first(content, table):
    return next(row for row in content["features"] if row[table])[table][0]


@pytest.mark.parametrize(
    "forge",
    [
        lambda content: first(content, "tokens").update(token=10**6),
        lambda content: first(content, "links").update(source=9),
        lambda content: first(content, "outputs").update(contribution=None),
        lambda content: content["strings"].popitem(),
        lambda content: content.update(shown=["embed"]),
        lambda content: content["settings"].pop("n_tokens"),
    ],
)
def test_forged_files_are_refused(found, tmp_path, forge):
    path = found.save(tmp_path / "features.json")
    document = json.loads(path.read_text())
    forge(document["content"])
    document["sha256"] = digest(document["content"])
    path.write_text(json.dumps(document))
    with pytest.raises(FileFormatError, match="or holds no descriptions"):
        FeatureDescriptions.load(path)


def test_foreign_files_are_refused(found, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a.json").write_text('{"format": "circuit"}')
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    for name in ("a.json", "b.parquet"):
        with pytest.raises(FileFormatError, match="holds no weight_lens: its `format`"):
            FeatureDescriptions.load(tmp_path / name)
    with pytest.raises(InputError, match="no file"):
        FeatureDescriptions.load(tmp_path / "c.json")
    with pytest.raises(InputError, match=r"\.parquet or \.json"):
        found.save(tmp_path / "d.csv")
    with pytest.raises(InputError, match="no folder"):
        found.save(tmp_path / "none" / "d.json")


def test_explanations_are_counted_before_anything_is_called(found):
    asked = []

    def answer(prompt):
        asked.append(prompt)
        return "a concept\n"

    wanted = found.cost()
    prompts = list(dict.fromkeys(prompt_for(found.of(*each)) for each in found.validated()))
    assert 300 < wanted.calls == len(prompts) < len(found.validated())  # equal ones are one call
    with pytest.raises(InputError, match=f"{wanted.calls} calls with {wanted.characters:,} char"):
        found.explained(Explainer(answer, max_calls=wanted.calls - 1))
    assert not asked
    said = found.explained(Explainer(answer, max_calls=wanted.calls))
    assert asked == prompts and sum(map(len, asked)) == wanted.characters
    site, i = found.validated()[0]
    for row in found.of(site, i)["description"]:
        assert repr(row["token"]) in asked[0]
    assert said.of(site, i)["concept"] == "a concept"
    assert found.of(site, i)["concept"] is None
    assert not said.at(theta_token=5).concepts  # said of other descriptions


def test_a_failing_client_costs_no_answer(found):
    site, third = found.validated()[2]
    asked = []

    def flaky(prompt):
        asked.append(prompt)
        if len(asked) == 3:
            raise ConnectionError("too many\nrequests")
        return prompt.upper()

    explainer = Explainer(flaky, max_calls=10_000)
    with pytest.raises(InputError, match=rf"{site}/{third} \(ConnectionError: too many requests"):
        found.explained(explainer)
    assert list(explainer.answers) == asked[:2]
    said = found.explained(explainer)
    prompts = [prompt_for(found.of(site, i)) for site, i in found.validated()]
    once = list(dict.fromkeys(prompts))
    assert asked == once[:3] + once[2:]  # only the one that failed was asked twice
    assert list(said.concepts.values()) == [prompt.upper().strip() for prompt in prompts]
    with pytest.raises(InputError, match=rf"gave NoneType for {found.shown[0]}/"):
        found.explained(Explainer(lambda prompt: None, max_calls=10_000))


def test_describe_takes_an_explainer(demo, demo_transcoders):
    explainer = Explainer(str.upper, max_calls=400)
    found = WeightLens().describe(
        demo, demo_transcoders, layers=[0], explain=explainer, progress=False
    )
    assert found.table()["concept"].notna().sum() == len(found.validated())
    assert len(explainer.answers) == found.cost().calls


def test_answers_are_kept_in_the_store_of_the_descriptions(demo, demo_transcoders, tmp_path):
    def described(explain):
        return WeightLens().describe(
            demo, demo_transcoders, [0], store=tmp_path, explain=explain, progress=False
        )

    asked = []

    def dies(prompt):
        asked.append(prompt)
        if len(asked) == 3:
            raise KeyboardInterrupt  # of the process: what it held is gone
        return prompt.upper()

    with pytest.raises(KeyboardInterrupt):
        described(Explainer(dies, max_calls=400))
    found = described(Explainer(dies, max_calls=400))
    assert len(found.concepts) == len(found.validated())
    assert len(asked) == len(set(asked)) + 1  # the one that was under way


def test_descriptions_are_not_lost_with_their_explanations(demo, demo_transcoders):
    def described(explain):
        return WeightLens().describe(
            demo, demo_transcoders, layers=[0], explain=explain, progress=False
        )

    small = Explainer(str.upper, max_calls=3)
    with pytest.warns(UserWarning, match="not explained: .* 3 are allowed; nothing was called"):
        found = described(small)
    assert found.validated() and not found.concepts and not small.answers
    answers = iter(["a", "b"])
    short = Explainer(lambda prompt: next(answers), max_calls=400)
    with pytest.warns(UserWarning, match="StopIteration"):
        assert not described(short).concepts
    assert list(short.answers.values()) == ["a", "b"]


@pytest.mark.parametrize("explain", [Explainer(str.upper), str.upper])
def test_a_run_with_an_explainer_without_limit_is_refused_before_it(explain):
    with pytest.raises(InputError, match="takes an Explainer with max_calls"):
        WeightLens().describe(None, {}, explain=explain)  # neither is looked at


def test_an_unknown_feature_is_refused(found):
    for site, feature in (("resid_pre 0", 0), (found.shown[0], 384), (found.shown[0], -1)):
        with pytest.raises(InputError, match="was not described"):
            found.of(site, feature)
    with pytest.raises(InputError, match="feature must be a whole number"):
        found.of(found.shown[0], 1.5)
    for lists in (found.words_of, found.tokens_of):
        with pytest.raises(InputError, match="blocks.0.hook_resid_pre was not described, only"):
            lists("resid_pre 0")


def test_repr_says_how_many(found):
    assert repr(found).startswith(f"FeatureDescriptions({len(found.validated())} of 2304")


SCRIPT = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": SCRIPT}, "preset"),
        ({"preset": ["paper"]}, "preset"),
        ({"upstream": SCRIPT}, "upstream"),
        ({"theta_token": SCRIPT}, "theta_token"),
        ({"theta_feature": float("inf")}, "theta_feature"),
        ({"robust": 1}, "robust"),
        ({"n_tokens": True}, "n_tokens"),
        ({"pool_tokens": SCRIPT}, "pool_tokens"),
        ({"floors": {"theta_token": SCRIPT, "theta_feature": 2.0}}, "floors.theta_token"),
        ({"floors": {"theta_token": 3.0}}, "floors.theta_feature"),
        ({"floors": [3.0, 2.0]}, "floors"),
        ({"own": {SCRIPT: 1}}, "own"),
        ({"own": {"theta_token": SCRIPT}}, "own.theta_token"),
        ({"language": SCRIPT}, "language"),
        ({"dictionaries": {"blocks.0": 3}}, "dictionaries"),
        ({SCRIPT: 1}, "settings"),
    ],
)
def test_settings_that_no_run_has_are_refused(found, change, said):
    check_settings(dict(found.settings), Path("a.json"))
    with pytest.raises(FileFormatError, match=f"its {said} is not what WeightLens writes") as error:
        check_settings({**found.settings, **change}, Path("a.json"))
    assert SCRIPT not in str(error.value)
    for name in found.settings:
        with pytest.raises(FileFormatError):
            check_settings({k: v for k, v in found.settings.items() if k != name}, Path("a.json"))


def test_presets_in_files_are_those_there_are():
    known = _validator().schema["properties"]["preset"]["enum"]
    assert set(known) == set(PRESETS)


@pytest.mark.parametrize("ending", ["parquet", "json"])
def test_a_forged_file_is_refused_although_its_checksum_fits(found, tmp_path, ending):
    import pyarrow.parquet as pq

    few = replace(found, tables=dict([next(iter(found.tables.items()))]), shown=found.shown[:1])
    path = few.save(tmp_path / f"features.{ending}")
    assert FeatureDescriptions.load(path).settings == found.settings

    def forged(text):
        document = json.loads(text)
        content = document["content"]
        content = {**content, "settings": {**content["settings"], "preset": SCRIPT}}
        return json.dumps({**document, "content": content, "sha256": digest(content)})

    if ending == "json":
        path.write_text(forged(path.read_text()))
    else:
        table = pq.read_table(path)
        text = forged(table.schema.metadata[b"circuit_toolkit"])
        table = table.replace_schema_metadata({b"circuit_toolkit": text.encode()})
        pq.write_table(table, path, write_page_checksum=True)
    with pytest.raises(FileFormatError, match="its preset is not what WeightLens writes"):
        FeatureDescriptions.load(path)


def test_objects_of_another_kind_are_refused(demo, demo_transcoders):
    with pytest.raises(InputError, match=r"pass it to WeightLens\(\)\.describe"):
        WeightLens(demo, demo_transcoders)
    for model, dictionaries in ((demo_transcoders, demo), (demo, None), (demo, demo), (None, {})):
        with pytest.raises(InputError, match=r"must be an? |dictionaries must be"):
            WeightLens().describe(model, dictionaries)
    for layers in ("first", [0.5], {0: 1}, [9], (), range(9)):
        with pytest.raises(InputError, match="layers"):
            WeightLens().describe(demo, demo_transcoders, layers)
    site = next(iter(demo_transcoders))
    lens = WeightLens("paper", theta_token=np.float32(4.5), n_permuted=np.int64(0))
    assert json.loads(json.dumps(lens.own)) == {"theta_token": 4.5}
    by_name = lens.describe(demo, {site.short: demo_transcoders[site]}, progress=False)
    alone = lens.describe(demo, demo_transcoders[site], np.int64(site.layer), progress=False)
    listed = lens.describe(demo, demo_transcoders, torch.tensor([0]), progress=False)
    assert by_name.table().equals(alone.table()) and by_name.table().equals(listed.table())
    for wrong in (None, 1.5, demo):
        with pytest.raises(InputError, match="token must be a whole number"):
            alone.search(wrong)


def test_a_row_of_a_parquet_file_that_was_changed_is_refused(found, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = found.save(tmp_path / "found.parquet")
    table = pq.read_table(path)
    totals = table["embedding_total"].to_pylist()
    changed = pa.array([totals[0] + 1, *totals[1:]], table.schema.field("embedding_total").type)
    at = table.column_names.index("embedding_total")
    pq.write_table(table.set_column(at, "embedding_total", changed), path)  # its header as it was
    with pytest.raises(FileFormatError, match="rows are not those that were written"):
        FeatureDescriptions.load(path)
