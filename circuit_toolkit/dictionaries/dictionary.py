"""A dictionary of features, bound to the sites that it reads and writes, and its loading."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.models import Model
from circuit_toolkit.sites import Site

DEMO_DICTIONARIES = Path(__file__).parents[1] / "demo" / "dictionaries"


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse autoencoder or transcoder of sae_lens, and where in a model it belongs.

    Parameters
    ----------
    sae : sae_lens.SAE
        The dictionary itself.
    site : Site
        Where it reads.
    out : Site
        What it reconstructs: the same site for an autoencoder, `mlp_out` for a transcoder.
    name : str
        Where it was loaded from.
    """

    sae: Any
    site: Site
    out: Site
    name: str

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.sae.cfg.d_sae

    @property
    def kind(self) -> Literal["sae", "transcoder"]:
        """Whether it reconstructs what it reads, or what the MLP makes of it."""
        return "sae" if self.site == self.out else "transcoder"

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Give the feature activations of activations at its site.

        Parameters
        ----------
        x : Tensor, shape (..., D)
            Activations at `site`, any floating type.

        Returns
        -------
        Tensor, shape (..., F)
            Feature activations, in float32 and not negative.
        """
        acts = self.sae.encode(x.to(self.sae.dtype))
        return (acts.to_dense() if acts.is_sparse else acts).float()

    @torch.no_grad()
    def decode(self, acts: Tensor) -> Tensor:
        """Give the reconstruction at `out` of feature activations.

        Parameters
        ----------
        acts : Tensor, shape (..., F)
            Feature activations.

        Returns
        -------
        Tensor, shape (..., D)
            Reconstruction, float32.
        """
        return self.sae.decode(acts.to(self.sae.dtype)).float()

    @property
    def directions(self) -> Tensor:
        """Decoder rows, shape (F, D): what one unit of a feature adds at `out`."""
        return self.sae.W_dec.detach().float()

    def __repr__(self) -> str:
        """Kind, site and size, without the tree of modules."""
        return f"Dictionary({self.name!r}, {self.kind} at {self.site}, {self.n_features} features)"


def load_dictionaries(
    model: Model,
    source: str | Path | None = None,
    *,
    kind: Literal["sae", "transcoder"] = "sae",
    sites: Iterable[Site | str] | None = None,
) -> dict[Site, Dictionary]:
    """Load the dictionaries of a model, in order of computation.

    Parameters
    ----------
    model : Model
        The model that they were trained on.
    source : path, optional
        A folder in sae_lens format (`cfg.json`, `sae_weights.safetensors`) or a folder of such
        folders. By default those that ship with the bundled model.
    kind : {"sae", "transcoder"}
        Which of those in the folder.
    sites : iterable of Site or str, optional
        Only the dictionaries that read at these sites.

    Returns
    -------
    dict of Site to Dictionary

    Raises
    ------
    InputError
        If nothing fitting lies in the folder, or a site has no dictionary.
    MismatchError
        If a dictionary is of another model, of a site that the model lacks, or of another width.
    FileFormatError
        If a `cfg.json` is not JSON.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> saes = ct.load_dictionaries(ct.load_model("demo"))
    >>> [site.short for site in saes][:2]
    ['resid_pre 0', 'resid_post 0']
    """
    if source is None:
        if model.name != "demo":
            raise InputError(
                f"No dictionaries ship for {model.name!r}, only for 'demo'. Pass a folder in "
                "sae_lens format: load_dictionaries(model, folder)."
            )
        source = DEMO_DICTIONARIES
    source = Path(source)
    folders = [source] if (source / "cfg.json").is_file() else sorted(source.glob("*/"))
    folders = [folder for folder in folders if (folder / "cfg.json").is_file()]
    if not folders:
        raise InputError(
            f"No dictionary lies in {str(source)!r}: expected cfg.json and sae_weights.safetensors "
            "there or one folder below."
        )
    wanted = None if sites is None else {Site.parse(site) for site in sites}
    found: dict[Site, Dictionary] = {}
    for folder in folders:
        site, out = _sites_of(folder)
        is_kind = kind == ("sae" if site == out else "transcoder")
        if not is_kind or (wanted is not None and site not in wanted):
            continue
        if site in found:
            raise InputError(f"Two dictionaries read {site}: {found[site].name!r} and {folder}.")
        found[site] = _load(model, folder, site, out)
    missing = sorted((wanted or set()) - set(found))
    if missing or not found:
        names = ", ".join(map(str, missing)) or "any site"
        raise InputError(f"No {kind} for {names} lies in {str(source)!r}.")
    return dict(sorted(found.items()))


def save_dictionary(sae: Any, folder: str | Path) -> None:
    """Write a dictionary in sae_lens format, the weights in half precision.

    Parameters
    ----------
    sae : sae_lens.SAE
        What to write; its metadata must say where it belongs (`hook_name`).
    folder : path
        Replaced if it is there; written whole or not at all.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        new = Path(scratch) / folder.name
        weights, _ = sae.save_model(new)
        save_file({name: w.half().contiguous() for name, w in sae.state_dict().items()}, weights)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(new, folder)


def _sites_of(folder: Path) -> tuple[Site, Site]:
    """Read where a dictionary belongs without loading its weights."""
    try:
        config = json.loads((folder / "cfg.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileFormatError(f"{folder / 'cfg.json'} is not JSON: {error}") from error
    metadata = config.get("metadata") or {}
    if not metadata.get("hook_name"):
        raise MismatchError(
            f"{folder.name!r} does not say which site it reads: metadata.hook_name is missing "
            "from its cfg.json. Add it, for example 'blocks.3.hook_resid_post'."
        )
    site = Site.parse(metadata["hook_name"])
    return site, Site.parse(metadata.get("hook_name_out") or site)


def _load(model: Model, folder: Path, site: Site, out: Site) -> Dictionary:
    """Load one dictionary and refuse it if it does not fit the model."""
    from sae_lens import SAE

    sae = SAE.load_from_disk(folder, device=str(model.device), dtype="float32")
    sae.eval().requires_grad_(False)
    trained_on = sae.cfg.metadata.get("model_name")
    if trained_on and trained_on != model.name:
        raise MismatchError(
            f"{folder.name!r} was trained on {trained_on!r}, the model is {model.name!r}. Load the "
            "dictionaries of this model."
        )
    for place, width in [(site, sae.cfg.d_in), (out, sae.W_dec.shape[1])]:
        try:
            model.check_site(place)
        except InputError as error:
            raise MismatchError(f"{folder.name!r} does not fit {model.name!r}: {error}") from error
        if width != model.width:
            raise MismatchError(
                f"{folder.name!r} has width {width} at {place}, {model.name!r} has {model.width}. "
                "Load the dictionaries of this model."
            )
    return Dictionary(sae, site, out, folder.name)
