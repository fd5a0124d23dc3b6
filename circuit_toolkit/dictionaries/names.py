"""Names of features, as circuits write them: `blocks.3.ln2.hook_normalized/17`."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping

from circuit_toolkit.arguments import whole
from circuit_toolkit.dictionaries.dictionary import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

FeatureName = str | tuple[Site | str | int, int]


def feature_at(
    feature: FeatureName, dictionaries: Mapping[Site, Dictionary] | None = None
) -> tuple[Site, int]:
    """Read the name of a feature."""
    try:
        # Where a node of a circuit stands (`@s2`) says nothing here.
        place, index = (
            feature.partition("@")[0].rpartition("/")[::2] if isinstance(feature, str) else feature
        )
        index = int(index) if isinstance(index, str) else operator.index(index)
        if place == "":
            raise ValueError("a number alone")
    except (TypeError, ValueError):
        raise InputError(
            f"{feature!r:.80} names no feature. Write 'blocks.3.ln2.hook_normalized/17', "
            "'mlp_in 3/17' or (3, 17)."
        ) from None
    if not isinstance(place, Site) and (not isinstance(place, str) or place.isdecimal()):
        place = whole(int(place) if isinstance(place, str) else place, "The layer of a feature")
    site = _at_layer(place, dictionaries or {}) if isinstance(place, int) else Site.parse(place)
    if dictionaries is None:
        return site, index
    if site not in dictionaries:
        raise InputError(
            f"No dictionary was given for {site}, only for {_listed_sites(dictionaries)}."
        )
    if not 0 <= index < dictionaries[site].n_features:
        raise InputError(
            f"{dictionaries[site].name!r} at {site} has features 0 to "
            f"{dictionaries[site].n_features - 1}, got {index}."
        )
    return site, index


def _at_layer(layer: int, dictionaries: Mapping[Site, Dictionary]) -> Site:
    """Return the site of the one dictionary of a layer, or of its one transcoder."""
    there = [site for site in dictionaries if site.layer == layer]
    transcoders = [site for site in there if dictionaries[site].kind == "transcoder"]
    for found in (there, transcoders):
        if len(found) == 1:
            return found[0]
    example = min(there or dictionaries, default=Site("mlp_in", layer))
    raise InputError(
        f"{len(transcoders)} transcoders were given at layer {layer}; there are dictionaries for "
        f"{_listed_sites(dictionaries)}. Name the site, as in '{example.short}/17'."
    )


def _listed_sites(sites: Iterable[Site], most: int = 8) -> str:
    """Name sites in a few words: the first and the last where there are many."""
    names = [site.short for site in sorted(sites)]
    if len(names) > most:
        names = [*names[: most - 2], "…", names[-1]]
    return ", ".join(names) or "none"
