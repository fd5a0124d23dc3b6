"""The rules of the format, as a JSON schema, and the sizes that Neuronpedia takes.

They are those of Neuronpedia's `graph-schema.json`, version 1.0.0, where keys of one's own are
allowed. What only circuit_toolkit writes, so that nothing is lost on the way out and back, stands
under `circuit_toolkit` in the metadata and in each node, and in each link as `score` and the rest.
"""

from __future__ import annotations

from typing import Any

from circuit_toolkit.circuit.tables import KINDS, STATUS
from circuit_toolkit.files.schema import record, schema_fault

FEATURE, ERROR, EMBEDDING, LOGIT = TYPES = (
    "cross layer transcoder",  # any transcoder's, by what the viewers know
    "mlp reconstruction error",
    "embedding",
    "logit",
)
OURS = "circuit_toolkit"  # key of what only this package writes
MIN_BYTES, MAX_BYTES = 1000, 100 * 2**20


_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_WHOLE = {"type": "integer"}
_INDEX = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_REAL = {"type": "number", "minimum": -3.4e38, "maximum": 3.4e38}
_SCORE = _REAL | {"minimum": 0}
_REAL_OR_NONE = _REAL | {"type": ["number", "null"]}
_OBJECT = {"type": "object"}

_METADATA = record(
    {"slug": _TEXT, "scan": _TEXT, "prompt_tokens": _TEXTS, "prompt": _TEXT},
    transcoder_list=_TEXTS,
    node_threshold={"type": ["number", "null"]},
    schema_version={"type": ["integer", "null"]},
    feature_details=record(
        feature_json_base_url=_TEXT,
        neuronpedia_source_set=_TEXT,
        neuronpedia_lorsa_source_set=_TEXT,
    ),
    info=record(
        description=_TEXT,
        creator_name=_TEXT,
        creator_url=_TEXT,
        source_urls={"type": "array"},
        generator=record(name=_TEXT, version=_TEXT, url=_TEXT, email=_TEXT),
        create_time_ms={"type": "number"},
    ),
    generation_settings=_OBJECT,
    pruning_settings=_OBJECT,
    **{OURS: record({"settings": _OBJECT, "evidence": _OBJECT}, sha256=_TEXT)},
)
_Q_PARAMS = record(
    pinnedIds=_TEXTS,
    supernodes={"type": "array", "items": _TEXTS | {"minItems": 1}},
    linkType=_TEXT,
    clickedId={"type": ["string", "null"]},
    sg_pos={"type": ["string", "null"]},
)
_NODE = record(
    {
        "node_id": _TEXT,
        "feature": {"type": ["integer", "null"]},
        "layer": {"type": ["string", "integer"]},
        "ctx_idx": _WHOLE,
        "feature_type": _TEXT,
        "jsNodeId": _TEXT,
        "clerp": _TEXT,
    },
    influence=_REAL_OR_NONE,
    activation=_REAL_OR_NONE,
    token_prob=_REAL_OR_NONE,
    is_target_logit={"type": "boolean"},
    **{
        OURS: record(
            {
                "kind": {"enum": list(KINDS)},
                "site": _TEXT,
                "position": _TEXT,
                "index": _INDEX,
                "score": _SCORE,
                "label": _TEXT,
            }
        )
    },
)
_OUR_NODE = {"type": "object", "required": [OURS]}
_LINK = record({"source": _TEXT, "target": _TEXT, "weight": _REAL})
_OUR_LINK = record({"score": _SCORE}, status={"enum": list(STATUS)}, low=_REAL, high=_REAL)


def _graph(node: dict[str, Any], link: dict[str, Any]) -> dict[str, Any]:
    return record(
        {
            "metadata": _METADATA,
            "qParams": _Q_PARAMS,
            "nodes": {"type": "array", "items": node, "minItems": 1},
            "links": {"type": "array", "items": link},
        }
    )


SCHEMA = _graph(_NODE, _LINK)
OUR_SCHEMA = _graph({"allOf": [_NODE, _OUR_NODE]}, {"allOf": [_LINK, _OUR_LINK]})


def fault(graph: Any, *, ours: bool = False) -> str | None:
    """Return where a graph breaks the rules and how, or None; `ours`: and those of what we add."""
    return schema_fault(graph, OUR_SCHEMA if ours else SCHEMA, ["nodes", "links"])
