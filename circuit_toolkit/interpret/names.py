"""Names of features, as circuits write them: `blocks.3.ln2.hook_normalized/17`."""

from __future__ import annotations

from collections.abc import Mapping

from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.errors import InputError
from circuit_toolkit.sites import Site

FeatureName = str | tuple[Site | str | int, int]


def feature_at(
    feature: FeatureName, dictionaries: Mapping[Site, Dictionary] | None = None
) -> tuple[Site, int]:
    """Read the name of a feature.

    Parameters
    ----------
    feature : str or tuple
        `"blocks.3.ln2.hook_normalized/17"`, `"mlp_in 3/17"`, or a site (or the layer of a
        transcoder) and a number.
    dictionaries : dict of Site to Dictionary, optional
        Those that were given: the feature must be one of theirs.

    Returns
    -------
    Site
        Where it is.
    int
        Which.

    Raises
    ------
    InputError
        If it is not the name of a feature, or there is no such feature.
    """
    try:
        place, index = feature.rpartition("/")[::2] if isinstance(feature, str) else feature
        index = int(index)
    except (TypeError, ValueError):
        raise InputError(
            f"{feature!r} names no feature. Write 'blocks.3.ln2.hook_normalized/17', "
            "'mlp_in 3/17' or (3, 17)."
        ) from None
    site = _at_layer(place, dictionaries or {}) if isinstance(place, int) else Site.parse(place)
    if dictionaries is None:
        return site, index
    if site not in dictionaries:
        known = ", ".join(map(str, dictionaries)) or "none"
        raise InputError(f"No dictionary was given for {site}, only for {known}.")
    if not 0 <= index < dictionaries[site].n_features:
        raise InputError(
            f"{dictionaries[site].name!r} at {site} has features 0 to "
            f"{dictionaries[site].n_features - 1}, got {index}."
        )
    return site, index


def _at_layer(layer: int, dictionaries: Mapping[Site, Dictionary]) -> Site:
    """Give the site of the one transcoder of a layer."""
    found = [s for s, d in dictionaries.items() if d.kind == "transcoder" and s.layer == layer]
    if len(found) != 1:
        raise InputError(
            f"{len(found)} transcoders were given at layer {layer}: name the site, as in "
            f"'blocks.{layer}.ln2.hook_normalized/17'."
        )
    return found[0]
