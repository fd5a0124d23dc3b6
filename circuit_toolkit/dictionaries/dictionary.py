"""A dictionary of features, bound to the sites that it reads and writes."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from circuit_toolkit.arguments import described, whole
from circuit_toolkit.dictionaries.intact import CHECKSUMS, seal
from circuit_toolkit.dictionaries.neuronpedia import SITE, neuronpedia_id
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.files.folder import replacing
from circuit_toolkit.models import RAW, Conventions, Model, Shift, shift
from circuit_toolkit.models.identity import Identity
from circuit_toolkit.sites import Site

DEMO_DICTIONARIES = Path(__file__).parents[1] / "demo" / "dictionaries"
DICTIONARY_FILES = ("cfg.json", "sae_weights.safetensors", "sparsity.safetensors", CHECKSUMS)
_PER_HEAD = ("attn_z", "head_out")  # read by dictionaries with all heads in a row
BY_INPUT = ("layer_norm", "constant_norm_rescale")  # undone with statistics of each input


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse autoencoder or transcoder of sae_lens, and where in a model it belongs.

    Its methods take what `run` gives: they turn it into what the model showed that the dictionary
    was trained on, whose weights may have been processed.

    Parameters
    ----------
    sae : sae_lens.SAE
        The dictionary itself. It reads all heads in a row: its own handling of shapes at `hook_z`
        is switched off.
    site : Site
        Where it reads.
    out : Site
        What it reconstructs: the same site for an autoencoder, `mlp_out` for a transcoder.
    name : str
        Where it was loaded from.
    conventions : Conventions
        How the model was processed that it was trained on.
    reads, writes : Shift
        What these conventions change at `site` and at `out`.
    shape : tuple of int
        Of the activation of one token at `out`, where that is not one axis.
    source : str
        What it was loaded from, and its name there: `demo: transcoder-0`, `RELEASE: ID`,
        `folder NAME: ID` without the path; empty where it was made in memory.
    of : Identity, optional
        The model that it was bound to; used with one of other weights, it is refused.
    """

    sae: Any
    site: Site
    out: Site
    name: str
    conventions: Conventions = RAW
    reads: Shift = Shift()
    writes: Shift = Shift()
    shape: tuple[int, ...] = ()
    source: str = ""
    of: Identity | None = None

    def __post_init__(self) -> None:
        """Take the handling of shapes from sae_lens, whose own needs `encode` before `decode`."""
        self.sae.turn_off_forward_pass_hook_z_reshaping()

    def to_sae_lens(self) -> Any:
        """Return a copy of the dictionary as sae_lens would have loaded it, for its own tools.

        It reads what it was trained on, at the hook that its metadata name, not what `run` gives;
        at `hook_z` it takes heads apart. `save_dictionary` writes the folder that sae_lens reads.

        Returns
        -------
        sae_lens.SAE
        """
        sae = copy.deepcopy(self.sae)
        if sae.cfg.reshape_activations == "hook_z":
            sae.turn_on_forward_pass_hook_z_reshaping()
        return sae

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.sae.cfg.d_sae

    @property
    def kind(self) -> Literal["sae", "transcoder"]:
        """Whether it reconstructs what it reads, or what the MLP makes of it."""
        return "sae" if self.site == self.out else "transcoder"

    @property
    def metadata(self) -> dict[str, Any]:
        """What its `cfg.json` says of its training: `model_name`, `context_size`, ..."""
        return dict(self.sae.cfg.metadata.items())

    @property
    def neuronpedia_id(self) -> str | None:
        """Model and source on Neuronpedia, `gpt2-small/3-res-jb`; None where it is not known.

        Known of what sae_lens lists: of its releases, and of folders of Gemma Scope and of
        circuit-tracer's sets under the names that they have on the hub.
        """
        return neuronpedia_id(self)

    def neuronpedia_url(self, feature: int) -> str | None:
        """Return the address of a feature's page on Neuronpedia; nothing is fetched.

        Parameters
        ----------
        feature : int
            Which one.

        Returns
        -------
        str or None
            None where no page is known, see `neuronpedia_id`.

        Raises
        ------
        InputError
            If there is no such feature.
        """
        number = whole(feature, "feature", 0)
        if number >= self.n_features:
            raise InputError(f"{self.name!r} has features 0 to {self.n_features - 1}: {number}.")
        known = self.neuronpedia_id
        return f"{SITE}/{known}/{number}" if known else None

    @property
    def needs_input(self) -> bool:
        """Whether a reconstruction depends on the norm of what was read, not on features alone."""
        is_transcoder = hasattr(self.sae.cfg, "d_out")
        return self.sae.cfg.normalize_activations in BY_INPUT and not is_transcoder

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """Return the feature activations of activations at its site.

        Parameters
        ----------
        x : Tensor, shape (..., *`Model.shape_at(site)`)
            Activations at `site` as `run` gives them, any floating type.

        Returns
        -------
        Tensor, shape (..., F)
            Feature activations, in float32 and not negative, on the device of `x`.
        """
        return self.encode_for_gradients(x)

    def encode_for_gradients(self, x: Tensor) -> Tensor:
        """Do what `encode` does, keeping the graph where gradients are enabled.

        Parameters
        ----------
        x : Tensor, shape (..., *`Model.shape_at(site)`)
            As for `encode`.

        Returns
        -------
        Tensor, shape (..., F)
        """
        acts = self.sae.encode(self._seen(x))
        return (acts.to_dense() if acts.is_sparse else acts).to(x.device, torch.float32)

    @torch.no_grad()
    def decode(self, acts: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the reconstruction at `out` of feature activations, in its own conventions.

        Parameters
        ----------
        acts : Tensor, shape (..., F)
            Feature activations.
        x : Tensor, shape (..., *`Model.shape_at(site)`), optional
            Activations at `site` that they belong to; wanted where `needs_input`.

        Returns
        -------
        Tensor, shape (..., *`Model.shape_at(out)`)
            Reconstruction, float32, on the device of `acts`.

        Raises
        ------
        InputError
            If `x` is wanted and missing.
        """
        if self.needs_input:
            if x is None:
                raise InputError(
                    f"{self.name!r} scales each activation by its own norm: pass what it read too, "
                    "decode(acts, x)."
                )
            self.sae.run_time_activation_norm_fn_in(self._seen(x))  # what decoding undoes
        y = self.sae.decode(acts.to(self.sae.W_dec)).to(acts.device, torch.float32)
        return y.unflatten(-1, self.shape) if self.shape else y

    def difference(self, old: Tensor, new: Tensor, x: Tensor | None = None) -> Tensor:
        """Return what replacing features by others adds to the raw activation at `out`.

        Parameters
        ----------
        old, new : Tensor, shape (..., F)
            Feature activations before and after.
        x : Tensor, shape (..., *`Model.shape_at(site)`), optional
            Activations at `site` that the old ones belong to; wanted where `needs_input`.

        Returns
        -------
        Tensor, shape (..., *`Model.shape_at(out)`)
            Float32.
        """
        return self.writes.revert_difference(self.decode(new, x) - self.decode(old, x))

    def added(self, x: Tensor, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what editing the features of an activation adds to the raw activation at `out`.

        What the dictionary leaves unexplained stays as it is.

        Parameters
        ----------
        x : Tensor, shape (..., *`Model.shape_at(site)`)
            Activations at `site`.
        edit : callable
            From feature activations (..., F), which it may write into, to new ones.

        Returns
        -------
        Tensor, shape (..., *`Model.shape_at(out)`)
            Of the type of `x`.
        """
        old = self.encode(x)
        return self.difference(old, edit(old.clone()), x).to(x)

    @torch.no_grad()
    def reconstruct(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Rebuild the raw activation at `out` from what the dictionary reads.

        Parameters
        ----------
        x : Tensor, shape (..., *`Model.shape_at(site)`)
            Activations at `site` as `run` gives them.
        y : Tensor, shape (..., *`Model.shape_at(out)`), optional
            Raw activations at `out`, from which comes what the conventions took away, such as the
            mean over D. An autoencoder takes it from `x`.

        Returns
        -------
        Tensor, shape (..., *`Model.shape_at(out)`)
            Float32, skip connections included.

        Raises
        ------
        InputError
            If `y` is wanted and missing.
        """
        if y is None and self.kind == "sae":
            y = x
        elif y is None and self.writes.centre:
            raise InputError(
                f"{self.name!r} reconstructs {self.out} without its mean over D: pass the "
                "activation there too, reconstruct(x, y)."
            )
        rebuilt = self.decode(self.encode(x), x)
        skip = getattr(self.sae, "W_skip", None)  # (D_out, D_in)
        if skip is not None:
            rebuilt = rebuilt + (self._seen(x) @ skip.T).to(rebuilt)
        # A shift that does not centre takes nothing from y.
        return self.writes.revert(rebuilt, rebuilt if y is None else y.to(rebuilt))

    @property
    def directions(self) -> Tensor:
        """Decoder rows, shape (F, D): what one unit of a feature adds at `out`, heads in a row."""
        rows = self.sae.W_dec.detach().float()
        if getattr(self.sae.cfg, "rescale_acts_by_decoder_norm", False):
            return rows / rows.norm(dim=1, keepdim=True)  # activations carry the norms
        return rows

    def _seen(self, x: Tensor) -> Tensor:
        """Return what it was trained on in place of raw `x`, heads in a row, in its own type."""
        x = self.reads.apply(x.to(self.sae.W_dec.device).float())
        return (x.flatten(-2) if self.site.kind in _PER_HEAD else x).to(self.sae.W_dec.dtype)

    def __repr__(self) -> str:
        """Kind, site and size, without the tree of modules."""
        return f"Dictionary({self.name!r}, {self.kind} at {self.site}, {self.n_features} features)"


def under(model: Model, dictionary: Dictionary, conventions: Conventions) -> Dictionary:
    """Return a dictionary as it reads if the model that it was trained on was processed so."""
    return replace(
        dictionary,
        conventions=conventions,
        reads=shift(model, conventions, dictionary.site),
        writes=shift(model, conventions, dictionary.out),
    )


def shared_bos(dictionaries: Mapping[Site, Dictionary] | Iterable[Dictionary]) -> bool | None:
    """Whether prompts of all these dictionaries begin with the bos token; None: none says so."""
    each = dictionaries.values() if isinstance(dictionaries, Mapping) else dictionaries
    said = {dictionary.conventions.prepend_bos: dictionary.name for dictionary in each}
    said.pop(None, None)
    if len(said) > 1:
        raise MismatchError(
            f"{said[True]!r} was trained on prompts that begin with the beginning-of-sequence "
            f"token, {said[False]!r} on prompts without it. Use them one after the other."
        )
    return next(iter(said), None)


def save_dictionary(sae: Any, folder: str | os.PathLike, *, half: bool = True) -> None:
    """Write a dictionary in sae_lens format, with checksums beside it, whole or not at all.

    Parameters
    ----------
    sae : sae_lens.SAE or Dictionary
        What to write; its metadata must say where it belongs (`hook_name`).
    folder : path
        Replaced if it is empty or holds a dictionary and nothing else.
    half : bool
        Whether the weights are written in half precision.

    Raises
    ------
    InputError
        If the folder holds anything else, which is not touched.
    """
    from safetensors.torch import save_file

    sae = sae.sae if isinstance(sae, Dictionary) else sae
    if not hasattr(sae, "save_model"):
        raise InputError(
            f"Pass a Dictionary or an object of sae_lens to save, got {described(sae)}. Save "
            "several one by one, each to a folder of its own."
        )

    with replacing(folder, DICTIONARY_FILES) as new:
        path, _ = sae.save_model(new)
        if half:
            save_file({name: w.half().contiguous() for name, w in sae.state_dict().items()}, path)
        seal(new)
