"""Tables over all features: one row a feature, coverage by site, and what a token activates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from circuit_toolkit.features.descriptions.data import DescriptionData

if TYPE_CHECKING:
    import pandas as pd


def feature_table(data: DescriptionData) -> pd.DataFrame:
    """Return one row a feature, see `FeatureDescriptions.table`."""
    import pandas as pd

    parts = []
    for site in data.shown:
        held, found = data.tables[site], data.described[site]
        n = held.n_features
        tokens, links = data.standing_out(site)
        own = np.bincount(tokens["feature"], minlength=n)
        active = np.bincount(tokens["feature"][tokens["solo"] > 0], minlength=n)
        size, soft = np.diff(found.tokens.indptr), np.diff(found.soft.indptr)
        low = held.tokens["z"] < -data.settings["theta_token"]
        part = {
            "site": str(site),
            "layer": site.layer,
            "feature": np.arange(n),
            "kind": held.kind,
            "validated": size > 0,
            "words": [", ".join(words) for words in data.words_of(site)],
            "n_tokens": size,
            "own": own,
            "validation": _share(active, own),
            "validation_soft": _share(size, soft),
            "negative": np.bincount(held.tokens["feature"][low], minlength=n),
            "upstream": np.bincount(links["feature"], minlength=n),
            "concept": [data.concepts.get((str(site), i)) for i in range(n)],
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def coverage_table(data: DescriptionData) -> pd.DataFrame:
    """Return how many features have a description, see `FeatureDescriptions.coverage`."""
    import pandas as pd

    rows = []
    for site in data.shown:
        table, n = data.tables[site], data.tables[site].n_features
        tokens, links = data.standing_out(site)
        size = np.diff(data.described[site].tokens.indptr)
        null = table.null[table.null["z"] > data.settings["theta_token"]]
        null_links = table.null_links["z"] > data.settings["theta_feature"]
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
                "null_candidates": len(null) / sample,
                "null_own": len(np.unique(null["feature"][null["solo"] > 0])) / sample,
                "null_upstream": null_links.sum() / sample,
            }
        )
    return pd.DataFrame(rows)


def token_table(data: DescriptionData, token: str | int) -> pd.DataFrame:
    """Find the features that a token activates, see `FeatureDescriptions.search`."""
    import pandas as pd

    parts, ids = [], np.array(_ids(data, token), int)
    for site in data.shown:
        tokens, _ = data.standing_out(site)
        tokens = tokens[np.isin(tokens["token"], ids)]
        own = {name: tokens[name] for name in ("feature", "token", "z", "contribution")}
        found = data.described[site].tokens[:, ids].tocoo()
        active = {"feature": found.row, "token": ids[found.col], "solo": found.data}
        both = pd.DataFrame(own).merge(pd.DataFrame(active), "outer", ["feature", "token"])
        words = [", ".join(data.words_of(site)[i]) for i in both["feature"]]
        parts.append(both.assign(site=str(site), layer=site.layer, words=words))
    table = pd.concat(parts, ignore_index=True)
    table["text"] = [data.strings[i] for i in table["token"]]
    table["validated"] = table["solo"].notna()
    table["solo"] = table["solo"].fillna(0.0)
    columns = ["site", "layer", "feature", "token", "text", "solo", "z", "contribution"]
    table = table.loc[:, [*columns, "validated", "words"]]
    return table.sort_values(["solo", "z"], ascending=False, kind="stable", ignore_index=True)


def _ids(data: DescriptionData, token: str | int) -> list[int]:
    if not isinstance(token, str):
        return [int(token)] if token in data.strings else []
    exact = [i for i, text in data.strings.items() if text == token]
    plain = token.strip().casefold()
    return exact or [i for i, text in data.strings.items() if text.strip().casefold() == plain]


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
