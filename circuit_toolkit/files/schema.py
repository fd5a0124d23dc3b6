"""Documents held against a JSON schema, quickly also where they have 100,000 rows.

jsonschema takes some 100 microseconds a row, and a second to be imported. So a document is first
held against plain tests of types and bounds, made from the schema itself, and jsonschema judges
what fails one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, Any] = MappingProxyType({})
Test = Callable[[Any], bool]
_TYPES: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
}
_TOLD = {"type", "minimum", "maximum"}  # what a test of a plain value looks at
_OF_LISTS = {"type", "items", "minItems", "maxItems"}
_OF_OBJECTS = {"type", "required", "properties", "additionalProperties"}


def record(required: Mapping[str, Any] = _NONE, **optional: Any) -> dict[str, Any]:
    """Return the schema of an object that may have more keys: what it must have, and may have."""
    made = {"type": "object", "properties": {**required, **optional}}
    return made | {"required": [*required]} if required else made


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of an object that has no other keys."""
    return schema | {"additionalProperties": False}


def schema_fault(document: Any, schema: dict[str, Any], tables: Sequence[str] = ()) -> str | None:
    """Return where a document breaks a schema and how, or None; `tables` are its lists of rows."""
    if sound_if(schema)(document):
        return None
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    judged: dict[str, list[int]] = {}
    for name in tables:
        rows = document.get(name) if isinstance(document, dict) else None
        if isinstance(rows, list) and rows:
            sound = sound_if(schema["properties"][name]["items"])
            judged[name] = [i for i, row in enumerate(rows) if not sound(row)] or [0]
    if judged:
        document = document | {name: [document[name][i] for i in judged[name]] for name in judged}
    if not (error := best_match(Draft202012Validator(schema).iter_errors(document))):
        return None
    path: list[Any] = list(error.absolute_path)
    if len(path) > 1 and path[0] in judged:
        path[1] = judged[path[0]][path[1]]
    return f"{'/'.join(map(str, path)) or 'its top level'}: {error.message[:200]}"


def sound_if(schema: dict[str, Any]) -> Test:
    """Return a test that a value passes only if it keeps a schema; it may fail others too."""
    if set(schema) == {"allOf"}:
        tests = [sound_if(each) for each in schema["allOf"]]
        return lambda value: all(test(value) for test in tests)
    if set(schema) == {"enum"}:
        words = {each for each in schema["enum"] if isinstance(each, str)}
        return lambda value: type(value) is str and value in words
    if "object" in schema.get("type", ()) and set(schema) <= _OF_OBJECTS:
        return _object_test(schema)
    if "array" in schema.get("type", ()) and "items" in schema and set(schema) <= _OF_LISTS:
        return _list_test(schema)
    if "type" in schema and set(schema) <= _TOLD:
        return _value_test(schema)
    return lambda value: False


def _object_test(schema: dict[str, Any]) -> Test:
    required = set(schema.get("required", ()))
    tests = {name: sound_if(each) for name, each in schema.get("properties", {}).items()}
    further = schema.get("additionalProperties", True)
    others = sound_if(further) if isinstance(further, dict) else lambda value: further is True
    types = _types(schema)

    def sound(value: Any) -> bool:
        if type(value) is not dict:
            return type(value) in types
        if not required <= value.keys():
            return False
        return all(tests.get(key, others)(each) for key, each in value.items())

    return sound


def _types(schema: dict[str, Any]) -> set[type]:
    """Return Python's types of the plain values that a schema takes."""
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return {each for name in names for each in _TYPES.get(name, ())}


def _list_test(schema: dict[str, Any]) -> Test:
    types = _types(schema)
    each, low, high = sound_if(schema["items"]), schema.get("minItems", 0), schema.get("maxItems")

    def sound(value: Any) -> bool:
        if type(value) is not list:
            return type(value) in types
        return low <= len(value) <= (len(value) if high is None else high) and all(
            each(item) for item in value
        )

    return sound


def _value_test(schema: dict[str, Any]) -> Test:
    types = _types(schema)
    low, high = schema.get("minimum"), schema.get("maximum")

    def sound(value: Any) -> bool:
        if type(value) not in types:  # so a bool is no number
            return False
        if type(value) not in (int, float):
            return True
        return (low is None or low <= value) and (high is None or value <= high)

    return sound
