"""Dictionaries as users pass them: by site or its name, one alone, a list, sae_lens objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from circuit_toolkit.arguments import described, expect, is_a
from circuit_toolkit.dictionaries.dictionary import Dictionary
from circuit_toolkit.dictionaries.loading import bind_dictionary
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site


def as_dictionaries(model: Model, given: Any) -> dict[Site, Dictionary]:
    """Return dictionaries by the site that they read, in order of computation.

    Parameters
    ----------
    model : Model
        The model that they belong to; sae_lens objects are bound to it.
    given : dict, Dictionary, sae_lens object, or iterable of these
        Keys may be sites or their names, `resid_post 3` or `blocks.3.hook_resid_post`.

    Returns
    -------
    dict of Site to Dictionary

    Raises
    ------
    InputError
        If something else is given, nothing is, or two are of one site.
    MismatchError
        If a key names another site than its dictionary reads.
    """
    expect(model, "model", "Model")
    if isinstance(given, Mapping):
        pairs = [(Site.parse(key), _bound(model, each, str(key))) for key, each in given.items()]
    elif isinstance(given, Iterable) and not isinstance(given, str) and not is_a(given, *_OTHERS):
        found = [_bound(model, each, f"dictionary {i}") for i, each in enumerate(given)]
        pairs = [(each.site, each) for each in found]
    else:
        one = _bound(model, given, "dictionary")
        pairs = [(one.site, one)]
    if not pairs:
        raise InputError("No dictionaries were given: pass load_dictionaries(model).")
    by_site: dict[Site, Dictionary] = {}
    for site, each in sorted(pairs, key=lambda pair: pair[0]):
        if site in by_site:
            raise InputError(f"Two dictionaries read {site}. Pass one for each site.")
        if each.site != site:
            raise MismatchError(
                f"The dictionary under {site} reads {each.site}. Use that as its key."
            )
        by_site[site] = each
    return by_site


_OTHERS = (
    "Task",
    "Activations",
    "ActivationStore",
    "Circuit",
    "LassoFit",
    "Model",
    "SAE",
    "Module",
)


def _bound(model: Model, value: Any, name: str) -> Dictionary:
    if is_a(value, "Dictionary"):
        return value
    if hasattr(value, "cfg") and hasattr(value, "encode"):  # of sae_lens
        return bind_dictionary(model, value, name)
    raise InputError(
        f"{name} must be a Dictionary or an object of sae_lens, got {described(value)}. Pass what "
        "load_dictionaries(model) returns."
    )
