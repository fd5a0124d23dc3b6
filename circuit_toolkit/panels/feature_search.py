"""What the panel of features lists: features of a layer, of a token, or of a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from circuit_toolkit.activations.activations import Activations
from circuit_toolkit.arguments import refuse_surrogates
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site
from circuit_toolkit.views.rendering import render
from circuit_toolkit.weight_lens import FeatureDescriptions, single_token_activations
from circuit_toolkit.weight_lens.single_token import first_token

Labels = Mapping[Site, Sequence[str]]


class Entry(NamedTuple):
    """A feature in the list."""

    name: str
    label: str
    what: str = ""  # of it here

    @property
    def line(self) -> str:
        """All of it."""
        return " · ".join(part for part in self if part)


class Listed(NamedTuple):
    """What is listed, and a caption."""

    entries: list[Entry]
    said: str  # from a template

    def about(self, text: str) -> Listed:
        """Keep features whose label or name has a text in it, whatever its capitals."""
        wanted = text.strip().lower()
        kept = [e for e in self.entries if wanted in e.label.lower() or wanted in e.name]
        return Listed(kept, self.said)


class Activated(NamedTuple):
    """A feature that a token activates alone, and what happens in the prompts."""

    site: Site
    index: int
    alone: float
    largest: float  # of the feature in the prompts
    active: int  # on so many of the places of the token in the prompts

    @property
    def share(self) -> float:
        """Activation alone, as a share of the largest in the prompts; -1 if it is never active."""
        return self.alone / self.largest if self.largest > 0 else -1.0


class OfToken(NamedTuple):
    """What a token activates, the strongest first; `places` is how often it is in the prompts."""

    word: str
    begin: str  # what stood before the token when it was run alone
    places: int
    features: list[Activated]


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
    refuse_surrogates(text, "The word")
    try:
        return model.token_id(text)
    except InputError:
        pass
    shown = repr(text if len(text) <= 40 else f"{text[:39]}…")
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    parts = [model.word(i) for i in ids if i != model.tokenizer.unk_token_id]
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


def activated_by(
    model: Model, dictionaries: Mapping[Site, Dictionary], acts: Activations, token: int
) -> OfToken:
    """Run one token alone, and return the features that it activates."""
    word = model.word(token)
    begin = first_token(model, dictionaries)
    rows = zip(acts.prompt.tolist(), acts.position.tolist(), strict=True)
    places = [i for i, (p, t) in enumerate(rows) if acts.tokens[p][t] == word]
    found = []
    for site, values in single_token_activations(model, dictionaries, token).items():
        active = np.flatnonzero(values)
        usual = acts.inlying(site)
        largest = acts.features[site][np.flatnonzero(usual)].max(axis=0).toarray().ravel()[active]
        here = acts.features[site][[place for place in places if usual[place]]]
        active_in = np.asarray((here > 0).sum(axis=0)).ravel()[active]
        columns = values[active].tolist(), largest.tolist(), active_in.tolist()
        found += [Activated(site, *each) for each in zip(active.tolist(), *columns, strict=True)]
    found.sort(key=lambda each: (-each.share, each.site, each.index))
    before = "" if begin is None else model.word(begin)
    return OfToken(word, before, len(places), found)


def list_activated(found: OfToken, site: Site | None, labels: Labels) -> Listed:
    """List what a token activates."""
    these = [each for each in found.features if site in (None, each.site)]
    entries = []
    for each in these:
        name = f"{each.site.short}/{each.index}"
        if each.largest > 0:
            strength = f"{each.share:.0%} of the largest in these prompts"
        else:
            strength = f"{each.alone:.2g}, never active in these prompts"
        if found.places and each.largest > 0:
            strength += f", active on {each.active} of {found.places} {found.word!r} there"
        entries.append(Entry(name, labels[each.site][each.index], strength))
    said = {"found": found, "n": len(these), "where": site.short if site else "all layers"}
    return Listed(entries, render("panels/templates/of_token.html", **said))


def list_described(
    descriptions: FeatureDescriptions,
    coverage: Sequence[Mapping[str, Any]],
    sites: Sequence[Site],
    acts: Activations,
    labels: Labels,
) -> Listed:
    """List all features of some layers: those that have a description, then the most active."""
    shown = [site for site in sites if site in descriptions.shown]
    words = {site: descriptions.words_of(site) for site in shown}
    described = [
        Entry(f"{site.short}/{i}", ", ".join(each))
        for site, of_site in words.items()
        for i, each in enumerate(of_site)
        if each
    ]
    others = [
        (share, site, i)
        for site in sites
        for i, share in enumerate(_densities(acts, site))
        if site not in words or not words[site][i]
    ]
    others.sort(key=lambda row: -row[0])
    entries = described + [
        Entry(
            f"{site.short}/{i}",
            labels[site][i],
            f"active on {share:.1%} of tokens" if share else "never active in these prompts",
        )
        for share, site, i in others
    ]
    rows = [row for row in coverage if row["site"] in {str(site) for site in shown}]
    total = sum(row["features"] for row in rows)
    said = {
        "where": sites[0].short if len(sites) == 1 else "all layers",
        "total": total,
        "validated": len(described),
        "own": round(sum(row["own"] * row["features"] for row in rows)),
        # NaN where it was left out
        "chance": sum(row["null_own"] * row["features"] for row in rows) / max(total, 1),
        "preset": descriptions.settings["preset"],
        "others": len(others),
    }
    return Listed(entries, render("panels/templates/described.html", **said))


def _densities(acts: Activations, site: Site) -> list[float]:
    """Return the share of tokens, of usual size, on which each feature is active."""
    usual = acts.features[site][np.flatnonzero(acts.inlying(site))]
    return (np.asarray((usual > 0).sum(axis=0)).ravel() / usual.shape[0]).tolist()
