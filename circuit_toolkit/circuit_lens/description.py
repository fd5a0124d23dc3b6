"""A cluster of firings in plain words, without a language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    from circuit_toolkit.circuit_lens.circuits import FeatureCircuits

MOST = 10  # entries of each list of a card
TOLD = 3  # heads, features and tokens that a description names
NOTABLE = 0.25  # share of a cluster's firings from which a description tells of something


def cluster_card(circuits: FeatureCircuits, label: int) -> dict[str, Any]:
    """Sum up a cluster."""
    firings = np.flatnonzero(circuits.labels == label)
    n = len(firings)
    at = circuits.table["position"].to_numpy()
    chosen = circuits.chosen
    columns = (chosen[name] for name in ("firing", "element", "layer", "head", "offset"))
    heads: dict[str, set[int]] = {}  # the firings that each is in
    upstream: dict[str, set[int]] = {}
    offsets: dict[int, set[int]] = {}
    tokens: dict[str, set[int]] = {}
    for firing in firings:
        tokens.setdefault(circuits.table["token"].iloc[firing], set()).add(int(firing))
    reads: dict[str, Counter] = {}
    back: dict[str, Counter] = {}
    for firing, element, layer, head, offset in zip(*columns, strict=True):
        if circuits.labels[firing] != label or element not in circuits.sets[firing]:
            continue
        if head < 0:
            upstream.setdefault(element, set()).add(firing)
            continue
        name = f"a{layer}.h{head}"
        heads.setdefault(name, set()).add(firing)
        offsets.setdefault(int(offset), set()).add(firing)
        reads.setdefault(name, Counter())[circuits.words[firing][at[firing] + offset]] += 1
        back.setdefault(name, Counter())[int(offset)] += 1
    outputs: dict[str, set[int]] = {}
    influence = (circuits.outputs[name] for name in ("firing", "token", "contribution", "z"))
    for firing, token, contribution, z in zip(*influence, strict=True):
        promoted = contribution > 0 and z > circuits.lens.theta_output
        if circuits.labels[firing] == label and promoted:
            outputs.setdefault(token, set()).add(firing)
    card: dict[str, Any] = {
        "label": int(label),
        "size": n,
        "share": n / len(circuits.labels),
        "tokens": _shares("token", tokens, n),
        "offsets": _shares("offset", offsets, n),
        "heads": [
            {
                **each,
                "reads": _most(reads[each["head"]]),
                "offsets": _most(back[each["head"]]),
                "often_reads": _often(reads[each["head"]]),
                "often_offsets": _often(back[each["head"]]),
            }
            for each in _shares("head", heads, n)
        ],
        "upstream": [
            {**each, "words": _words(circuits.descriptions, each["feature"])}
            for each in _shares("feature", upstream, n)
        ],
        "outputs": _shares("token", outputs, n),
        "examples": _examples(circuits, firings),
    }
    return {**card, "description": described(card)}


def described(card: dict[str, Any]) -> str:
    """Put a cluster into a sentence."""
    told = _told(card["tokens"])
    where = "on " if told else "on words such as "
    where += _quoted(each["token"] for each in told or card["tokens"][:TOLD])
    clauses = [
        f"{each['head']} reads {_quoted(each['often_reads'][:TOLD]) or 'various words'} "
        f"{_distance(each['often_offsets'])}"
        for each in _told(card["heads"])
    ]
    if features := _told(card["upstream"]):
        named = dict.fromkeys(map(_feature, features))  # two may have the same words
        clauses.append(f"reads features {', '.join(named)}")
    if outputs := _told(card["outputs"]):
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


def _told(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries that a description names: the first of those that many firings share."""
    return [each for each in entries if each["share"] >= NOTABLE][:TOLD]


def _shares(name: str, having: Mapping[Any, set[int]], n: int) -> list[dict[str, Any]]:
    """Return the keys that most of n firings have, and the share that does."""
    counts = Counter({key: len(firings) for key, firings in having.items()})
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


def _words(descriptions: Any, feature: str) -> list[str]:
    """Return words for an upstream feature; none where it was not described."""
    if descriptions is None:
        return []
    site, _, index = feature.rpartition("/")
    try:
        return list(descriptions.of(site, int(index))["words"])
    except InputError:  # descriptions of some layers only: it is called by its name
        return []


def _examples(circuits: FeatureCircuits, firings: np.ndarray, n: int = 5) -> list[dict[str, Any]]:
    """Return the strongest firings of a cluster."""
    strength = circuits.table["activation"].to_numpy()[firings]
    at, n_outputs = circuits.table["position"].to_numpy(), circuits.lens.n_outputs
    found = []
    for i in firings[np.argsort(-strength, kind="stable")][:n]:
        # whether a text goes on is known of all but the last token that was looked at
        stop = int(at[i]) + max(1, n_outputs)
        found.append(
            {
                "tokens": list(circuits.words[i][:stop]),
                "values": [float(value) for value in circuits.values[i][:stop]],
                "position": int(at[i]),
                "after": not n_outputs or len(circuits.words[i]) > stop,
            }
        )
    return found
