"""The quick tests of rows pass nothing that jsonschema refuses, and errors say the right row."""

import itertools
import json
import math
import time

import pytest
from jsonschema import Draft202012Validator

from circuit_toolkit.circuit import file
from circuit_toolkit.circuit.neuronpedia import schema as neuronpedia
from circuit_toolkit.files.schema import schema_fault, sound_if
from tests.circuit.prompt_graph import prompt_graph

VALUES = [None, True, 0, -1, 2, 2**40, 0.5, 1.0, -3.5e38, 1e300, "", "a", "token", "untested"]
VALUES += [[], {}, {"a": 1}, math.nan, [1], [{}], [11], (1,)]
WHOLE = {"type": "integer", "minimum": 0, "maximum": 10}
SCHEMAS = [
    *(WHOLE, {"type": ["number", "null"], "minimum": -1.5}, {"type": "string"}, {"enum": ["a"]}),
    *({"enum": ["a", 2]}, {"type": "string", "minLength": 1}, {"type": "boolean"}, {}),
    {"type": "array", "items": WHOLE},
    {"type": "object", "required": ["a"], "properties": {"a": WHOLE, "b": {"enum": ["a"]}}},
    {"type": "object", "additionalProperties": False, "properties": {"a": WHOLE}},
    {"type": "object", "additionalProperties": WHOLE, "properties": {}},
    {"allOf": [WHOLE, {"type": "number", "maximum": 1}]},
    {"type": "array", "items": {"type": "object"}, "minItems": 1},
    {"type": ["array", "string"], "items": WHOLE, "maxItems": 0},
    {"type": ["object", "null"], "properties": {"a": {"type": "array", "items": WHOLE}}},
    {"type": ["object", "null"], "additionalProperties": {"type": "number"}},
]


@pytest.mark.parametrize("schema", SCHEMAS)
def test_what_is_passed_keeps_the_schema(schema):
    sound, strict = sound_if(schema), Draft202012Validator(schema)
    objects = [
        {key: value for key, value in zip("abc", each, strict=True) if value != "left out"}
        for each in itertools.product([*VALUES, "left out"], repeat=3)
    ]
    for value in [*VALUES, *objects]:
        assert not sound(value) or strict.is_valid(value), value


def test_rows_as_they_are_written_are_passed(tmp_path):
    circuit = prompt_graph()
    written, graph = json.loads(circuit.save(tmp_path / "a").read_text()), circuit.to_neuronpedia()
    schemas = [(file.SCHEMA, written), (neuronpedia.SCHEMA, graph), (neuronpedia.OUR_SCHEMA, graph)]
    assert sound_if(file.SCHEMA)({key: written[key] for key in file.SCHEMA["properties"]})
    for schema, document in schemas:
        for name in {"nodes", "edges", "links"} & document.keys():
            assert all(map(sound_if(schema["properties"][name]["items"]), document[name])), name


def test_a_fault_in_a_late_row_is_named():
    schema = {"type": "object", "properties": {"rows": {"type": "array", "items": SCHEMAS[9]}}}
    rows = [{"a": i % 10} for i in range(1000)]
    assert schema_fault({"rows": rows}, schema, ["rows"]) is None
    rows[700] = {"a": 11}
    for tables in ([], ["rows"]):
        assert schema_fault({"rows": rows}, schema, tables).startswith("rows/700/a: 11 is greater")
    rows[700] = {"a": 1.0}  # a whole number to jsonschema, which is asked
    assert schema_fault({"rows": rows}, schema, ["rows"]) is None
    for document, said in (({"rows": 3}, "rows: 3 is not"), ([], "its top level: [] is not")):
        assert schema_fault(document, schema, ["rows"]).startswith(said)


def test_a_hundred_thousand_rows_take_no_minute():
    rows = [{"a": i % 10, "b": "a", "more": None} for i in range(100_000)]
    schema = {"type": "object", "properties": {"rows": {"type": "array", "items": SCHEMAS[9]}}}
    start = time.perf_counter()
    assert schema_fault({"rows": rows}, schema, ["rows"]) is None
    assert time.perf_counter() - start < 3  # .2 s here; jsonschema alone takes 10 s
