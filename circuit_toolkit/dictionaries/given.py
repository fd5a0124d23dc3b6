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


def as_dictionaries(model: Model, given: Any, *, optional: bool = False) -> dict[Site, Dictionary]:
    """Return dictionaries by the site that they read, in order of computation.

    Parameters
    ----------
    model : Model
        The model that they belong to; sae_lens objects are bound to it.
    given : dict, Dictionary, sae_lens object, or iterable of these
        Keys may be sites or their names, `resid_post 3` or `blocks.3.hook_resid_post`.
    optional : bool
        Whether there may be none: None, or nothing in it.

    Returns
    -------
    dict of Site to Dictionary

    Raises
    ------
    InputError
        If something else is given, nothing is, or two are of one site.
    MismatchError
        If a key names another site than its dictionary reads, or a dictionary was bound to a model
        of other weights.
    """
    expect(model, "model", "Model")
    if optional and given is None:
        return {}
    if isinstance(given, Mapping):
        named = [(Site.parse(key), each) for key, each in given.items()]
    else:
        one = isinstance(given, str) or hasattr(given, "encode")  # objects of sae_lens iterate
        several = isinstance(given, Iterable) and not one
        named = [(None, each) for each in (given if several else [given])]
    if not named and not optional:
        raise InputError("No dictionaries were given: pass load_dictionaries(model).")
    by_site: dict[Site, Dictionary] = {}
    for site, value in named:
        each = _dictionary(model, value)
        if site not in (None, each.site):
            raise MismatchError(
                f"The dictionary under {site} reads {each.site}. Use that as its key."
            )
        if each.site in by_site:
            raise InputError(f"Two dictionaries read {each.site}. Pass one for each site.")
        by_site[each.site] = each
    return dict(sorted(by_site.items()))


def _dictionary(model: Model, value: Any) -> Dictionary:
    if is_a(value, "Dictionary"):
        _expect_bound_to(model, value)
        return value
    if is_a(value, "Coordinates"):
        return value
    if hasattr(value, "cfg") and hasattr(value, "encode"):  # of sae_lens
        return bind_dictionary(model, value)
    raise InputError(
        f"dictionaries must be what load_dictionaries(model) returns, or objects of sae_lens, got "
        f"{described(value)}.{_FOREIGN if hasattr(value, 'encode') else ''}"
    )


_FOREIGN = (
    " Copy the weights of an autoencoder of your own into one of sae_lens (StandardSAE, TopKSAE, "
    "JumpReLUSAE, ...), whose configuration names its site."
)


def _expect_bound_to(model: Model, dictionary: Dictionary) -> None:
    if dictionary.of is not None and not dictionary.of.fits(model):
        raise MismatchError(
            f"{dictionary.name!r} is bound to another model ({dictionary.of.name}) than the one "
            f"given ({model.name}): their weights differ. Load it for this one: "
            "load_dictionaries(model, ..., check_model=False), or bind_dictionary(model, it.sae)."
        )
