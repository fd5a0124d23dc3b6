"""What the panel of features lists: features of a layer that have a description, or of a token."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.weight_lens import FeatureDescriptions, single_token_activations
from circuit_toolkit.weight_lens.single_token import first_token

MOST = 200  # features in the list: a dictionary may have many thousands

Labels = Mapping[Site, Sequence[str]]


class Listed(NamedTuple):
    """What is listed: lines, each with the name of its feature, and a caption in HTML."""

    lines: list[tuple[str, str]]
    said: str


class Fed(NamedTuple):
    """A feature that a token feeds: what the token does alone, and what happens in the texts."""

    site: Site
    index: int
    alone: float
    largest: float  # of the feature in the texts
    fires: int  # on so many of the places of the token in the texts

    @property
    def share(self) -> float:
        """Activation alone, as a share of the largest in the texts; -1 where it never fires."""
        return self.alone / self.largest if self.largest > 0 else -1.0


class FedBy(NamedTuple):
    """What a token feeds, the hardest driven first; `places` is how often it is in the texts."""

    word: str
    begin: str  # what stood before the token when it was run alone
    places: int
    features: list[Fed]


def check_described(
    descriptions: FeatureDescriptions, dictionaries: Mapping[Site, Dictionary]
) -> None:
    """Refuse descriptions of other dictionaries."""
    ours = {site.short: each.n_features for site, each in dictionaries.items()}
    theirs = {site.short: descriptions.tables[site].n_features for site in descriptions.shown}
    both = ours.keys() & theirs.keys()
    if not both or any(ours[name] != theirs[name] for name in both):
        raise InputError(
            f"descriptions are of other dictionaries ({_sizes(theirs)}) than those given "
            f"({_sizes(ours)}). Pass WeightLens().describe(model, dictionaries), or none."
        )


def _sizes(n_features: Mapping[str, int]) -> str:
    few = [f"{n} features at {name}" for name, n in list(n_features.items())[:2]]
    return ", ".join([*few, "…"] if len(n_features) > 2 else few) or "none"


def token_named(model: Model, text: str) -> int:
    """Return the id of a token that a user typed."""
    try:
        return model.token_id(text)
    except InputError:
        pass
    shown = repr(text if len(text) <= 40 else f"{text[:39]}…")
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    parts = [str(model.tokenizer.decode([i])) for i in ids if i != model.tokenizer.unk_token_id]
    near = list(_variants(model, text.strip()))
    if near:
        hint = f"; did you mean {_either(near)}?"
    elif len(ids) > 1 and parts:
        hint = f"; look up one token: {_either(list(dict.fromkeys(parts))[:4])}?"
    else:
        hint = "; look up another."
    if len(ids) > 1:
        raise InputError(f"{shown} is {len(ids)} tokens for {model.name}{hint}")
    raise InputError(f"{model.name} has no token {shown}{hint}")


def _variants(model: Model, text: str) -> Iterator[str]:
    """Tokens that differ from a text in case or a leading space."""
    seen = set()
    words = dict.fromkeys([text, text.lower(), text.capitalize(), text.upper()])
    for each in [space + word for word in words for space in ("", " ")]:
        try:
            token = model.token_id(each)
        except InputError:
            continue
        if token not in seen:
            seen.add(token)
            yield each


def _either(texts: Sequence[str]) -> str:
    return " or ".join(map(repr, texts))


def fed_by(
    model: Model, dictionaries: Mapping[Site, Dictionary], acts: Activations, token: int
) -> FedBy:
    """Run one token alone, and give the features that it activates."""
    word = str(model.tokenizer.decode([token]))
    begin = first_token(model, dictionaries)
    rows = zip(acts.prompt.tolist(), acts.position.tolist(), strict=True)
    places = [i for i, (p, t) in enumerate(rows) if acts.tokens[p][t] == word]
    found = []
    for site, values in single_token_activations(model, dictionaries, token).items():
        active = np.flatnonzero(values)
        largest = acts.features[site].max(axis=0).toarray().ravel()[active]
        fires = np.asarray((acts.features[site][places] > 0).sum(axis=0)).ravel()[active]
        columns = values[active].tolist(), largest.tolist(), fires.tolist()
        found += [Fed(site, *each) for each in zip(active.tolist(), *columns, strict=True)]
    found.sort(key=lambda each: (-each.share, each.site, each.index))
    before = "" if begin is None else str(model.tokenizer.decode([begin]))
    return FedBy(word, before, len(places), found)


def list_fed(fed: FedBy, site: Site | None, labels: Labels) -> Listed:
    """List what a token feeds."""
    these = [each for each in fed.features if site in (None, each.site)]
    lines = []
    for each in these[:MOST]:
        name = f"{each.site.short}/{each.index}"
        if each.largest > 0:
            strength = f"{each.share:.0%} of the largest in these texts"
        else:
            strength = f"{each.alone:.2g}, never fires in these texts"
        if fed.places and each.largest > 0:
            strength += f", fires on {each.fires} of {fed.places} {fed.word!r} there"
        lines.append((_line(name, labels[each.site][each.index], strength), name))
    word = f"<b>{html.escape(fed.word)}</b>"
    after = f"right after {html.escape(fed.begin)}" if fed.begin else "as first token"
    said = f"{word} alone, {after}, activates <b>{_count(len(these), 'feature')}</b>"
    said += f" of {site.short}" if site else " of all layers"
    if these:
        said += ", listed by activation as a share of the feature's largest in these texts"
        said += "" if fed.places else f", where {word} does not occur"
    return Listed(lines, said + _cut(these))


def list_described(
    descriptions: FeatureDescriptions,
    coverage: Sequence[Mapping[str, Any]],
    sites: Sequence[Site],
    acts: Activations,
    labels: Labels,
) -> Listed:
    """List the features of some layers that have a description; without any, those that fire."""
    where = sites[0].short if len(sites) == 1 else "all layers"
    shown = [site for site in sites if site in descriptions.shown]
    rows = [
        (f"{site.short}/{i}", ", ".join(words))
        for site in shown
        for i, words in enumerate(descriptions.words_of(site))
        if words
    ]
    said = _covered(descriptions, coverage, shown, len(rows), where)
    if rows:
        return Listed([(_line(*row), row[0]) for row in rows[:MOST]], said + _cut(rows))
    fired = [
        (count, site, i)
        for site in sites
        for i, count in enumerate(np.diff(acts.features[site].tocsc().indptr).tolist())
        if count
    ]
    fired.sort(key=lambda row: -row[0])
    total = len(acts.prompt)
    lines = []
    for count, site, i in fired[:MOST]:
        name = f"{site.short}/{i}"
        lines.append(
            (_line(name, labels[site][i], f"fires on {count / total:.1%} of tokens"), name)
        )
    said += ". Listed are those that fire in these texts, the most often first"
    return Listed(lines, said + _cut(fired))


def _covered(
    descriptions: FeatureDescriptions,
    coverage: Sequence[Mapping[str, Any]],
    shown: Sequence[Site],
    validated: int,
    where: str,
) -> str:
    """Return how many features have a description, by own tokens and only by inheritance."""
    if not shown:
        return f"<b>{where}</b> was not described"
    rows = [row for row in coverage if row["site"] in {str(site) for site in shown}]
    n = sum(row["features"] for row in rows)
    own = round(sum(row["own"] * row["features"] for row in rows))
    chance = sum(row["null_own"] * row["features"] for row in rows) / n  # NaN where left out
    said = (
        f"<b>{validated}</b> of {n} features of {where} have a description that holds in the "
        f"running model (WeightLens, preset {descriptions.settings['preset']!r})"
    )
    if validated:
        said += f": <b>{own}</b> ({own / n:.1%}) by tokens of their own"
        said += "" if np.isnan(chance) else f", where chance gives {chance:.1%}"
        if inherited := validated - own:
            said += f"; <b>{inherited}</b> only by tokens inherited from earlier layers"
    return said


def _line(*parts: str) -> str:
    return " · ".join(part for part in parts if part)


def _cut(rows: Sequence) -> str:
    return f"; the first {MOST} are listed" if len(rows) > MOST else ""


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
