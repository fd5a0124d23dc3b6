"""Examples with alike circuits: distances between sets, DBSCAN, and each cluster in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pandas as pd

MOST = 10  # entries of each list of a card
TOLD = 3  # heads, features and tokens that a description names
NOTABLE = 0.25  # share of a cluster's examples from which a description tells of something


def common_elements(sets: Sequence[frozenset], rho: float) -> list[frozenset]:
    """Drop what is in too few sets."""
    counts: Counter[Hashable] = Counter(element for each in sets for element in each)
    kept = {element for element, count in counts.items() if count >= rho * len(sets)}
    return [each & kept for each in sets]


def jaccard_distances(sets: Sequence[frozenset]) -> np.ndarray:
    """Measure how little sets share: 1 minus common elements over all elements."""
    columns: dict[Hashable, int] = {}
    pairs = [(i, columns.setdefault(e, len(columns))) for i, each in enumerate(sets) for e in each]
    present = np.zeros((len(sets), len(columns)), dtype=np.float32)
    if pairs:
        present[tuple(np.array(pairs).T)] = 1
    both = (present @ present.T).astype(float)
    sizes = present.sum(1)
    either = sizes[:, None] + sizes - both
    distances = 1 - np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    np.fill_diagonal(distances, 0)
    return distances


def cluster_labels(
    sets: Sequence[frozenset], distances: np.ndarray, *, eps: float, min_samples: int
) -> np.ndarray:
    """Group examples by DBSCAN; the largest group is 0."""
    from sklearn.cluster import DBSCAN

    labels = np.full(len(sets), -1)
    full = np.flatnonzero([bool(each) for each in sets])
    if not len(full):
        return labels
    model = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed")
    found = model.fit_predict(distances[np.ix_(full, full)])
    by_size = [label for label, _ in Counter(found[found >= 0].tolist()).most_common()]
    names = {-1: -1} | {label: rank for rank, label in enumerate(by_size)}
    labels[full] = [names[label] for label in found.tolist()]
    return labels


def cluster_card(
    examples: pd.DataFrame,
    elements: pd.DataFrame,
    outputs: pd.DataFrame,
    words: Callable[[str], list[str]],
) -> dict[str, Any]:
    """Sum up a cluster by its examples, what stands out in them and what they promote."""
    n = len(examples)
    is_head = elements["head"] >= 0
    heads, upstream = elements.loc[is_head], elements.loc[~is_head]
    told = []
    for each in _shares("head", heads, "name", n):
        mine = heads.loc[heads["name"] == each["head"]]
        reads, back = Counter(mine["reads"]), Counter(mine["offset"].tolist())
        often = {"often_reads": _often(reads), "often_offsets": _often(back)}
        told.append({**each, "reads": _most(reads), "offsets": _most(back), **often})
    features = _shares("feature", upstream, "element", n)
    card = {
        "tokens": _shares("token", examples, "token", n),
        "offsets": _shares("offset", heads, "offset", n),
        "heads": told,
        "upstream": [{**each, "words": words(each["feature"])} for each in features],
        "outputs": _shares("token", outputs, "token", n),
    }
    return {**card, "description": cluster_sentence(card)}


def cluster_sentence(card: dict[str, Any]) -> str:
    """Put a cluster into a sentence."""
    told = _notable(card["tokens"])
    where = "on " if told else "on words such as "
    where += _quoted(each["token"] for each in told or card["tokens"][:TOLD])
    clauses = [
        f"{each['head']} reads {_quoted(each['often_reads'][:TOLD]) or 'various words'} "
        f"{_distance(each['often_offsets'])}"
        for each in _notable(card["heads"])
    ]
    if features := _notable(card["upstream"]):
        named = dict.fromkeys(map(_feature, features))  # two may have the same words
        clauses.append(f"reads features {', '.join(named)}")
    if outputs := _notable(card["outputs"]):
        clauses.append(f"promotes {_quoted(each['token'] for each in outputs)}")
    nothing = f"nothing {'else ' if told else ''}that they share"
    return "; ".join([where, *(clauses or [nothing])])


def explanation_prompt(card: dict[str, Any]) -> str:
    """Ask for an explanation of a cluster."""
    texts = []
    for example in card["examples"]:
        words = list(example["tokens"])
        words[example["position"]] = f"<<{words[example['position']].strip()}>>"
        texts.append("- " + " ".join(word.strip() for word in words))
    return (
        "A feature of a language model fires at the tokens marked << >> in these texts, always for "
        "like reasons. Say in one sentence what it stands for.\n"
        f"How it comes about: {card['description']}\n" + "\n".join(texts)
    )


def _feature(entry: dict[str, Any]) -> str:
    """Name an upstream feature by its words, or in short."""
    if entry["words"]:
        return f"“{', '.join(entry['words'][:TOLD])}”"
    site, _, index = entry["feature"].rpartition("/")
    return f"{Site.parse(site).short}/{index}"


def _notable(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries that a description names: the first of those that many examples share."""
    return [each for each in entries if each["share"] >= NOTABLE][:TOLD]


def _shares(name: str, rows: pd.DataFrame, column: str, n: int) -> list[dict[str, Any]]:
    """Return the values that most of n examples have, and the share that does."""
    counts = Counter(rows.groupby(column)["example"].nunique().to_dict())
    return [{name: key, "share": counts[key] / n} for key in _most(counts)]


def _most(counts: Counter) -> list:
    """Return the most common keys of a counter, the most common first."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return [key for key, _ in ordered[:MOST]]


def _often(counts: Counter) -> list:
    """Return the keys of a counter that make up a notable share of it, the most common first."""
    return [key for key in _most(counts) if counts[key] >= NOTABLE * counts.total()]


def _quoted(words: Iterable[str]) -> str:
    return ", ".join(f"“{word.strip() or word}”" for word in words)


def _distance(offsets: list[int]) -> str:
    """Return how far back a head reads, by the offsets that are common."""
    if not offsets:
        return "at various distances"
    *rest, last = map(str, sorted(-offset for offset in offsets[:TOLD]))
    if last == "0":
        return "right there"
    return f"{', '.join(rest)} or {last} back" if rest else f"{last} back"
