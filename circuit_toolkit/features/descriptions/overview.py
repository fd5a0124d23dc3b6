"""Tables over all features: one row a feature, coverage by site, and what a token feeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from circuit_toolkit.features.descriptions.tables import SiteTables

if TYPE_CHECKING:
    import pandas as pd

    from circuit_toolkit.features.descriptions.descriptions import FeatureDescriptions


def table(descriptions: FeatureDescriptions) -> pd.DataFrame:
    """Return one row a feature, see `FeatureDescriptions.table`."""
    import pandas as pd

    parts = []
    for site in descriptions.shown:
        held, found = descriptions.tables[site], descriptions.described[site]
        n = held.n_features
        tokens, links = standing(descriptions, held)
        own = np.bincount(tokens["feature"], minlength=n)
        active = np.bincount(tokens["feature"][tokens["solo"] > 0], minlength=n)
        size, soft = np.diff(found.tokens.indptr), np.diff(found.soft.indptr)
        low = held.tokens["z"] < -descriptions.settings["theta_token"]
        part = {
            "site": str(site),
            "layer": site.layer,
            "feature": np.arange(n),
            "kind": held.kind,
            "validated": size > 0,
            "words": [", ".join(words) for words in descriptions.words_of(site)],
            "n_tokens": size,
            "own": own,
            "validation": _share(active, own),
            "validation_soft": _share(size, soft),
            "negative": np.bincount(held.tokens["feature"][low], minlength=n),
            "upstream": np.bincount(links["feature"], minlength=n),
            "concept": [descriptions.concepts.get((str(site), i)) for i in range(n)],
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def coverage(descriptions: FeatureDescriptions) -> pd.DataFrame:
    """Return how many features have a description, see `FeatureDescriptions.coverage`."""
    import pandas as pd

    rows = []
    for site in descriptions.shown:
        table, n = descriptions.tables[site], descriptions.tables[site].n_features
        tokens, links = standing(descriptions, table)
        size = np.diff(descriptions.described[site].tokens.indptr)
        lots = table.chance[table.chance["z"] > descriptions.settings["theta_token"]]
        chance_links = table.chance_links["z"] > descriptions.settings["theta_feature"]
        sample = float(table.sampled.sum()) or np.nan
        rows.append(
            {
                "site": str(site),
                "layer": site.layer,
                "kind": table.kind,
                "features": n,
                "validated": (size > 0).mean(),
                "own": len(np.unique(tokens["feature"][tokens["solo"] > 0])) / n,
                "n_tokens": size[size > 0].mean() if size.any() else np.nan,
                "candidates": len(tokens) / n,
                "upstream": len(links) / n,
                "chance_candidates": len(lots) / sample,
                "chance_own": len(np.unique(lots["feature"][lots["solo"] > 0])) / sample,
                "chance_upstream": chance_links.sum() / sample,
            }
        )
    return pd.DataFrame(rows)


def search(descriptions: FeatureDescriptions, token: str | int) -> pd.DataFrame:
    """Find the features that a token feeds, see `FeatureDescriptions.search`."""
    import pandas as pd

    columns = ["site", "layer", "feature", "token", "text", "solo", "z", "contribution"]
    rows = []
    for site in descriptions.shown:
        tokens, _ = standing(descriptions, descriptions.tables[site])
        found = descriptions.described[site].tokens
        for each in _ids(descriptions, token):
            own = {int(r["feature"]): r for r in tokens[tokens["token"] == each]}
            column = found[:, [each]].tocoo()
            active = dict(zip(column.row.tolist(), column.data.tolist(), strict=True))
            for i in sorted({*own, *active}):
                row = {"site": str(site), "layer": site.layer, "feature": i, "token": each}
                row |= {"text": descriptions.strings[each], "solo": active.get(i, 0.0)}
                if i in own:
                    row |= {name: float(own[i][name]) for name in ("z", "contribution")}
                words = ", ".join(descriptions.words_of(site)[i])
                rows.append(row | {"validated": i in active, "words": words})
    table = pd.DataFrame(rows, columns=[*columns, "validated", "words"])
    return table.sort_values(["solo", "z"], ascending=False, kind="stable", ignore_index=True)


def standing(descriptions: FeatureDescriptions, table: SiteTables) -> tuple[np.ndarray, np.ndarray]:
    """Return the tokens and the features that stand out at the thresholds, at the high end."""
    settings = descriptions.settings
    tokens = table.tokens[table.tokens["z"] > settings["theta_token"]]
    return tokens, table.links[table.links["z"] > settings["theta_feature"]]


def _ids(descriptions: FeatureDescriptions, token: str | int) -> list[int]:
    strings = descriptions.strings
    if not isinstance(token, str):
        return [int(token)] if token in strings else []
    exact = [i for i, text in strings.items() if text == token]
    plain = token.strip().casefold()
    return exact or [i for i, text in strings.items() if text.strip().casefold() == plain]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
