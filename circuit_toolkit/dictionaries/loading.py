"""Load dictionaries that others published, or that one trained, and bind them to a model."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from circuit_toolkit.arguments import described, expect, is_a, one_of
from circuit_toolkit.dictionaries.dictionary import BY_INPUT, DEMO_DICTIONARIES, Dictionary, under
from circuit_toolkit.dictionaries.entry import Entry, Said
from circuit_toolkit.dictionaries.locations import (
    folder_entries,
    may_read,
    nearest,
    release_entries,
)
from circuit_toolkit.dictionaries.metadata import Claims
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.files.cache import cache_folder
from circuit_toolkit.files.documents import resolved
from circuit_toolkit.models import Conventions, Model
from circuit_toolkit.models.identity import identity_of
from circuit_toolkit.sites import Site

Kind = Literal["sae", "transcoder"]
MANY = 40  # dictionaries whose small configurations are fetched without being asked for
TRAINED_HERE = ("smollm2",)  # models that `circuit-toolkit train` knows
DEMO = "demo"  # where the bundled dictionaries are loaded from
_FOLDER = "folder "
LARGE = 4 * 2**30  # bytes of weights, likewise


def load_dictionaries(
    model: Model,
    source: str | Path | None = None,
    *,
    sites: Iterable[Site | str] | None = None,
    ids: Iterable[str] | None = None,
    kind: Kind | None = None,
    conventions: Conventions | None = None,
    check_model: bool = True,
) -> dict[Site, Dictionary]:
    """Load the dictionaries of a model, in order of computation.

    Most published dictionaries were trained on the activations of a TransformerLens model. What
    their metadata says of it (how its weights were processed, whether prompts began with the
    beginning-of-sequence token) is held by each dictionary, which takes raw activations and reads
    them as its authors did.

    Parameters
    ----------
    model : Model
        The model that they were trained on.
    source : str or path, optional
        A release that sae_lens knows, such as `gpt2-small-res-jb`, fetched from the Hugging Face
        hub; a folder in sae_lens format (`cfg.json`, `sae_weights.safetensors`) or a folder of
        such folders; a `.safetensors` file with its `cfg.json` beside it; a file or folder of
        EleutherAI's `sparsify`, of `dictionary_learning`, Gemma Scope or a set of transcoders of
        circuit-tracer, as it was downloaded (docs/interop.md lists the formats); or, with `ids`, a
        repository of the hub in sae_lens format. By default those that ship with the bundled model,
        or that `circuit-toolkit train` left in the cache.
    sites : iterable of Site or str, optional
        Only the dictionaries that read here, such as `blocks.8.hook_resid_pre` or `resid_pre 8`.
        Large releases ask for it. One alone also says where a dictionary belongs whose files do
        not tell, as those of Gemma Scope outside of their folders.
    ids : iterable of str, optional
        Only these: ids of a release, or names of folders. Needed where several read one site.
    kind : {"sae", "transcoder"}, optional
        Only these; by default autoencoders, and transcoders where there is none.
    conventions : Conventions, optional
        How the model was processed, in place of what the metadata says or leaves out.
    check_model : bool
        Whether to refuse a dictionary whose metadata name another model.

    Returns
    -------
    dict of Site to Dictionary

    Raises
    ------
    InputError
        If there is no such source, site or id (the nearest names are given), several dictionaries
        read one site, the release is too large to be fetched whole, or nothing tells where a
        dictionary belongs; or it is of a kind that has no one site, such as a crosscoder or a
        cross-layer transcoder.
    MismatchError
        If a dictionary is of another model, of a site that the model lacks, or of another width.
    FileFormatError
        If a `cfg.json` or a file of weights is damaged, or holds more than weights: no code of a
        pickle is run.

    Warns
    -----
    UserWarning
        If metadata are silent on something that matters.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> saes = ct.load_dictionaries(ct.load_model("demo"))
    >>> [site.short for site in saes][:2]
    ['resid_pre 0', 'resid_post 0']
    """
    expect(model, "model", "Model")
    source = _default(model.name) if source is None else source
    _check_types(source, sites, ids, kind)
    wanted = None if sites is None else {Site.parse(site) for site in sites}
    ids = None if ids is None else list(ids)
    place = resolved(source)
    is_here = place.exists() or not isinstance(source, str)
    one = next(iter(wanted)) if wanted is not None and len(wanted) == 1 else None
    said = Said(one, kind)
    entries = folder_entries(place, said) if is_here else release_entries(str(source), ids)
    if ids is not None:
        entries = _with_ids(entries, ids, source)
    elif not is_here:
        entries = _not_too_many(entries, wanted, source)

    found, refused = [], []
    for each in entries:
        try:
            claims = Claims(model, each, conventions, check_model)
        except MismatchError as error:
            if wanted is None or ids is not None:
                raise
            refused.append(error)  # it may be of none of the wanted sites
        else:
            found.append(claims)
    try:
        chosen = _chosen(found, wanted, kind, source)
    except InputError as error:
        raise (refused or [error])[0] from None
    if not is_here and wanted is None and ids is None:
        _not_too_large(chosen, source)

    origin = _name_of(place, model.name) if is_here else str(source)
    return _bound(sorted(chosen, key=lambda claims: claims.site), origin)


def _name_of(place: Path, model: str) -> str:
    """Return what to call a local place: circuits are shared, so no path of a user's machine."""
    if place == DEMO_DICTIONARIES:
        return DEMO
    if model in TRAINED_HERE and place == cache_folder(model):
        return model
    return f"{_FOLDER}{place.absolute().name}"


def _default(name: str) -> Path:
    """Return where the dictionaries of a model lie that ship with it, or were trained here."""
    if name == "demo":
        return DEMO_DICTIONARIES
    if name in TRAINED_HERE:
        folder = cache_folder(name)
        if any(folder.glob("*/cfg.json")):
            return folder
        raise InputError(
            f"No dictionaries of {name!r} lie in {str(folder)!r} yet. Train them, in under an "
            f"hour: circuit-toolkit train --model {name}"
        )
    raise InputError(
        f"No dictionaries ship for {name!r}, only for 'demo'. Pass a release of "
        "sae_lens or a folder in its format: load_dictionaries(model, source)."
    )


def load_sources(model: Model, sources: Mapping[Site, str]) -> dict[Site, Dictionary]:
    """Load dictionaries again from what `Dictionary.source` says of them; not those of a folder."""
    by_origin: dict[str, dict[Site, str]] = {}
    for site, source in sources.items():
        origin, _, name = source.rpartition(": ")
        if not origin or origin.startswith(_FOLDER):
            raise InputError(f"{source!r} does not say where the dictionary of {site} lies.")
        by_origin.setdefault(origin, {})[site] = name
    found: dict[Site, Dictionary] = {}
    for origin, names in by_origin.items():
        source = None if origin in (DEMO, *TRAINED_HERE) else origin
        found |= load_dictionaries(model, source, sites=names, ids=names.values())
    return dict(sorted(found.items()))


def bind_dictionary(
    model: Model,
    sae: Any,
    name: str | None = None,
    *,
    conventions: Conventions | None = None,
    check_model: bool = True,
) -> Dictionary:
    """Bind an sae_lens object in memory to a model, by its metadata.

    Parameters
    ----------
    model : Model
        The model that it was trained on.
    sae : sae_lens.SAE
        An autoencoder or transcoder; its metadata say where it belongs.
    name : str, optional
        What to call it; by default the hook that its metadata name.
    conventions, check_model
        As in `load_dictionaries`.

    Returns
    -------
    Dictionary

    Raises
    ------
    InputError
        If it is no object of sae_lens.
    MismatchError
        If it does not fit the model.

    Warns
    -----
    UserWarning
        If metadata are silent on something that matters.
    """
    expect(model, "model", "Model")
    if not hasattr(sae, "cfg") or not hasattr(sae, "encode"):
        raise InputError(
            f"sae must be an object of sae_lens, got {described(sae)}. What load_dictionaries or "
            "train_dictionaries returns is bound already."
        )
    config = sae.cfg.to_dict()
    name = name or str((config.get("metadata") or {}).get("hook_name") or "dictionary")
    entry = Entry(name, lambda: config, lambda device: sae)
    (dictionary,) = _bound([Claims(model, entry, conventions, check_model)]).values()
    return dictionary


def _check_types(source: Any, sites: Any, ids: Any, kind: Any) -> None:
    if is_a(source, "Dictionary") or hasattr(source, "values"):
        raise InputError(f"{described(source)} is loaded already: use it as it is.")
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"source must be a name or a path, got {described(source)}. Bind an object of sae_lens "
            "with bind_dictionary(model, sae); several, with dictionaries.as_dictionaries."
        )
    one_of(kind, "kind", None, "sae", "transcoder")
    for name, value in [("sites", sites), ("ids", ids)]:
        if isinstance(value, str | Site):
            raise InputError(f"{name} must be a list, not one name: write {name}=[{str(value)!r}].")


def _bound(claims: Iterable[Claims], origin: str = "") -> dict[Site, Dictionary]:
    """Load dictionaries, and warn once of all that leave out the same that matters."""
    found, silent, of = {}, {}, None  # all of one model
    for each in claims:
        sae = each.entry.load(str(each.model.device)).eval().requires_grad_(False)
        shape = each.model.shape_at(each.out)
        shape = shape if len(shape) > 1 else ()
        source = f"{origin}: {each.entry.id}" if origin else ""
        of = of or identity_of(each.model)
        dictionary = Dictionary(
            sae, each.site, each.out, each.entry.id, shape=shape, source=source, of=of
        )
        found[each.site] = under(each.model, dictionary, each.conventions)
        faults = [*each.silent]
        if sae.cfg.normalize_activations not in ("none", *BY_INPUT):
            faults.append(
                "was trained on scaled activations (expected_average_only_in), and the factor is "
                "not in its files: activations are read unscaled, as sae_lens does"
            )
        for fault in faults:
            silent.setdefault(fault, []).append(each.entry.id)
    for fault, names in silent.items():
        several = f" and {len(names) - 1} more" if len(names) > 1 else ""
        warnings.warn(
            f"{names[0]!r}{several}: its metadata {fault}. check_dictionaries(...) tells what "
            "fits; load_dictionaries(..., conventions=Conventions(...)) sets it.",
            UserWarning,
            stacklevel=3,
        )
    return found


def _with_ids(entries: list[Entry], ids: list[str], source: Any) -> list[Entry]:
    known = {entry.id: entry for entry in entries}
    for each in ids:
        if each not in known:
            raise InputError(
                f"{each!r} is not in {str(source)!r}. Nearest: {nearest(each, known)}."
            )
    return [known[each] for each in dict.fromkeys(ids)]


def _not_too_many(entries: list[Entry], wanted: set[Site] | None, source: Any) -> list[Entry]:
    """Leave out what cannot read the wanted sites, before anything is fetched."""
    if wanted is not None:
        near = [entry for entry in entries if may_read(entry, wanted)]
        if not near:
            names = ", ".join(str(site) for site in sorted(wanted))
            raise InputError(f"{str(source)!r} has nothing for {names}: {_listed(entries)}.")
        return near
    if len(entries) > MANY:
        raise InputError(
            f"{str(source)!r} holds {len(entries)} dictionaries. Choose with "
            f"sites=['blocks.8.hook_resid_post', ...] or ids=[...]: {_listed(entries)}."
        )
    return entries


def _not_too_large(chosen: list[Claims], source: Any) -> None:
    size = 4 * sum(claims.n_weights for claims in chosen)
    if size > LARGE:
        raise InputError(
            f"{str(source)!r} takes {size / 2**30:.0f} GiB of memory whole. Choose with sites: "
            f"sites={[claims.site.short for claims in chosen[:3]]} ..."
        )


def _chosen(
    found: list[Claims], wanted: set[Site] | None, kind: Kind | None, source: Any
) -> list[Claims]:
    """One dictionary a site."""
    here = [each for each in found if wanted is None or each.site in wanted]
    if kind is None and wanted is None and any(each.kind == "sae" for each in here):
        kind = "sae"
    by_site: dict[Site, list[Claims]] = {}
    for each in here:
        if kind in (None, each.kind):
            by_site.setdefault(each.site, []).append(each)
    missing = sorted(set(by_site) ^ wanted) if wanted is not None else []
    if missing or not by_site:
        names = ", ".join(map(str, missing)) or "any site"
        known = dict.fromkeys(str(each.site) for each in found)
        raise InputError(
            f"No {kind or 'dictionary'} for {names} lies in {str(source)!r}. Nearest: "
            f"{nearest(names, known)}."
        )
    chosen = []
    for site, several in by_site.items():
        first = [each for each in several if each.kind == "sae"] or several
        if len(first) > 1:
            raise InputError(
                f"{len(first)} dictionaries of {str(source)!r} read {site}: "
                f"{_listed([each.entry for each in first])}. Choose with ids=[...]."
            )
        chosen += first
    return chosen


def _listed(entries: Sequence[Entry], most: int = 12) -> str:
    names = ", ".join(repr(entry.id) for entry in entries[:most])
    return names + (f" and {len(entries) - most} more" if len(entries) > most else "")
