"""What settings and evidence of a circuit may say: kinds and ends of what is shown and used.

Both may hold more than is named here; a value that is named may be None.
"""

from __future__ import annotations

from typing import Any

from circuit_toolkit.errors import InputError
from circuit_toolkit.files.schema import record, schema_fault, sound_if


def _or_none(kind: str, **ends: float) -> dict[str, Any]:
    return {"type": [kind, "null"], **ends}


def _list(items: dict[str, Any], **sizes: int) -> dict[str, Any]:
    return {"type": ["array", "null"], "items": items, **sizes}


_TEXT, _REAL, _TRUTH = _or_none("string"), _or_none("number"), _or_none("boolean")
_COUNT = _or_none("integer", minimum=0)
_SHARE = _or_none("number", minimum=-1e-6, maximum=1 + 1e-6)  # within rounding
_SIZE = _or_none("number", minimum=0)
_TEXTS = {"type": ["array", "string", "null"], "items": {"type": "string"}}
_ON = record(n=_COUNT, seen=_COUNT, split=_TEXT, task=_TEXT, model=_TEXT)
_EVIDENCE = {
    "size": record(
        size=_COUNT,
        reached=_TRUTH,
        n=_COUNT,
        unit=_TEXT,
        sizes=_list(_COUNT),
        faithfulness=_list(_REAL),
        completeness=_list(_REAL),
    ),
    "fit": record(
        held_out_r2=_or_none("number", maximum=1 + 1e-6),
        held_out_auroc=_SHARE,
        held_out_accuracy=_SHARE,
    ),
    "attribution": record(replacement=_SHARE, completeness=_SHARE, largest_error=_SIZE, n=_COUNT),
    "interventions": record(
        {"mean_change": {"type": "number", "minimum": 0}},
        n=_COUNT,
        random=_COUNT,
        random_change=_SIZE,
        rank_correlation=_or_none("number", minimum=-1 - 1e-6, maximum=1 + 1e-6),
        same_sign=_SHARE,
    ),
    "ablation": record(
        faithfulness=_REAL,
        completeness=_REAL,
        random_faithfulness=_list(_REAL),
        random_completeness=_list(_REAL),
        faithfulness_interval=_list(_REAL, minItems=2, maxItems=2),
        completeness_interval=_list(_REAL, minItems=2, maxItems=2),
        trivial_faithfulness=_REAL,
        trivial_completeness=_REAL,
        dictionaries_keep=_REAL,
        faithfulness_errors_ablated=_REAL,
        ablation=_TEXT,
        ablated_positions=_TEXT,
        errors=_TEXT,
        evaluated_on=_ON,
    ),
    "edges": record(
        confirmed=_COUNT,
        refuted=_COUNT,
        untested=_COUNT,
        level=_SHARE,
        ablation=_TEXT,
        evaluated_on=_ON,
    ),
}
_SETTINGS = {
    **dict.fromkeys(("method", "model", "task", "level", "scope", "prompt"), _TEXT),
    **dict.fromkeys(("target", "positions"), _TEXTS),
    **dict.fromkeys(("tokens", "pinned"), _list({"type": "string"})),
    **dict.fromkeys(("token_ids",), _list({"type": "integer"})),
    "strength": _SIZE,
    "position": _or_none("integer"),
    "n_prompts": _COUNT,
    "probabilities": _list(_SIZE),  # or other weights of the targets
    "activations": {  # of a feature, by token
        "type": ["object", "null"],
        "additionalProperties": {"type": "object", "additionalProperties": _REAL},
    },
    "trained_on": {"type": ["object", "null"]},
}
_KNOWN = {key: schema | {"type": ["object", "null"]} for key, schema in _EVIDENCE.items()}
_WHOLE = {"evidence": record(**_KNOWN), "settings": record(**_SETTINGS)}
_SOUND = {name: sound_if(schema) for name, schema in _WHOLE.items()}


def check_dict(name: str, value: dict[str, Any]) -> None:
    """Refuse settings or evidence with a value of another kind, or that nothing measures."""
    if not _SOUND[name](value) and (wrong := schema_fault(value, _WHOLE[name])):
        raise InputError(f"{name} cannot be as given at {wrong}")
