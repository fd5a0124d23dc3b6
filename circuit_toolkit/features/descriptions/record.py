"""All that is known of one feature, as a dictionary that JSON can hold."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.tables import rows_of
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions

_OF_THE_RUN = ("dictionaries", "n_tokens", "chance", "seed", "largest_group")


def record(descriptions: FeatureDescriptions, site: Site, feature: int) -> dict[str, Any]:
    """Tell all about one feature, see `FeatureDescriptions.of`."""
    n = descriptions.tables[site].n_features if site in descriptions.shown else 0
    if not isinstance(feature, Integral) or not 0 <= int(feature) < n:
        raise InputError(
            f"Feature {feature!r:.80} of {site} was not described. There are "
            + ", ".join(f"{descriptions.tables[s].n_features} of {s}" for s in descriptions.shown)
            + "."
        )
    table, found = descriptions.tables[site], descriptions.described[site]
    theta, total = descriptions.settings["theta_token"], float(table.totals[feature]) or 1.0
    tokens, outputs = rows_of(table.tokens, feature), rows_of(table.outputs, feature)
    links = rows_of(table.links, feature)
    links = links[links["z"] > descriptions.settings["theta_feature"]]
    links = links[np.argsort(-links["contribution"], kind="stable")]
    positive = tokens[tokens["z"] > theta]
    description = descriptions.tokens_of(site)[feature]
    soft = found.soft[[feature]].indices
    sources = list(descriptions.tables)
    active = int((positive["solo"] > 0).sum())

    def named(ids: list[int]) -> list[dict[str, Any]]:
        return [{"id": i, "token": descriptions.strings[i]} for i in ids]

    def token(row: np.void) -> dict[str, Any]:
        given = {"id": int(row["token"]), "token": descriptions.strings[int(row["token"])]}
        return given | {"contribution": float(row["contribution"])}

    def read(row: np.void) -> dict[str, Any]:
        relative = float(row["contribution"]) / total
        return token(row) | {"relative": relative, "solo": float(row["solo"])}

    def link(row: np.void) -> dict[str, Any]:
        source, index = sources[row["source"]], int(row["index"])
        return {
            "site": str(source),
            "index": index,
            "contribution": float(row["contribution"]),
            "relative": float(row["contribution"]) / total,
            "words": descriptions.words_of(source)[index],
        }

    return {
        "feature": {
            "site": str(site),
            "layer": site.layer,
            "index": int(feature),
            "kind": table.kind,
        },
        "tokens": {
            "positive": [read(row) for row in positive],
            "negative": [read(row) for row in tokens[tokens["z"] < -theta][::-1]],
        },
        "outputs": {
            "promoted": [token(row) for row in outputs[outputs["z"] > theta]],
            "suppressed": [token(row) for row in outputs[outputs["z"] < -theta][::-1]],
        },
        "upstream": [link(row) for row in links],
        "totals": {
            "embedding": float(table.embedding_total[feature]),
            "upstream": float(table.upstream_total[feature]),
        },
        "description": named(description),
        "description_soft": named(soft.tolist()),
        "words": descriptions.words_of(site)[feature],
        "validation": active / len(positive) if len(positive) else None,
        "validation_soft": len(description) / len(soft) if len(soft) else None,
        "validated": bool(len(description)),
        "concept": descriptions.concepts.get((str(site), int(feature))),
        "provenance": {
            name: value for name, value in descriptions.settings.items() if name not in _OF_THE_RUN
        }
        | {"dictionary": table.name},
    }
