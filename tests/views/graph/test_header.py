from dataclasses import replace

from circuit_toolkit.views.graph.header import header
from tests.circuit.made_up import PROMPT, made_up_attribution


def test_an_attribution_graph_is_named_by_prompt_and_target():
    circuit = made_up_attribution()
    told = header(circuit)
    assert told["title"] == f"“{' '.join(PROMPT[1:])}” → Mary"
    assert told["size"].startswith("40 features and ") and " errors at " in told["size"]
    assert told["evidence"] == [
        "attribution: graph replacement score 0.31, graph completeness score 0.62; "
        "sums exact to 2e-07"
    ]
    scores = {"replacement": None, "completeness": 0.5, "n": 8}
    assert header(circuit.with_evidence({"attribution": scores}))["evidence"] == [
        "attribution on 8 prompts: graph completeness score 0.50"
    ]
    assert told["tone"] == "warning", "features explain little of it"
    assert told["score"] == "influence"
    assert ["active features", "812"] in told["settings"] and len(told["settings"]) <= 5
    assert not any("token" in key for key, _ in told["settings"])


def test_the_end_of_a_long_prompt_and_the_first_targets_are_told():
    circuit = made_up_attribution(targets=[f"name {i}" for i in range(9)])
    prompt = "once upon a time " * 20 + "she gave it to"
    told = header(replace(circuit, settings=circuit.settings | {"prompt": prompt}))
    assert told["title"].startswith("“…") and "she gave it to” → name 0, " in told["title"]
    assert told["title"].endswith("name 2 and 6 more") and len(told["title"]) < 120


def test_a_difference_names_both_prompts():
    circuit = made_up_attribution()
    corrupted = circuit.settings["prompt"].replace("John gave", "Tom gave")
    told = header(replace(circuit, settings=circuit.settings | {"corrupted": corrupted}))
    assert told["title"].endswith("drink to”, John minus Tom → Mary")


def test_a_prompt_is_told_up_to_where_the_target_follows():
    circuit = made_up_attribution()
    told = header(replace(circuit, settings=circuit.settings | {"position": 2}))
    assert told["title"] == "“<s> When Mary” → Mary"
    told = header(replace(circuit, settings=circuit.settings | {"position": -1}))
    assert told["title"].endswith("a drink to” → Mary")
