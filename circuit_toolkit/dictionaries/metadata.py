"""What the configuration of a dictionary says: of which model it is, where it reads, and how."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from circuit_toolkit.dictionaries.entry import Entry
from circuit_toolkit.dictionaries.topk_transcoder import ARCHITECTURE as TOPK_TRANSCODER
from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.files.reading import read_json
from circuit_toolkit.models import Architecture, Conventions, Model, shift
from circuit_toolkit.sites import KINDS, Site

READABLE = ("standard", "gated", "topk", "jumprelu") + (
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
    TOPK_TRANSCODER,
)
PROCESSED = Conventions(*[True] * 4)  # what HookedTransformer.from_pretrained does
_PROCESSING = [each.name for each in fields(Conventions) if each.name != "prepend_bos"]
_CHECKPOINTS = ("revision", "checkpoint_index", "checkpoint_value")


class Claims:
    """What the configuration of one dictionary says; refused if it does not fit the model."""

    def __init__(
        self, model: Model, entry: Entry, conventions: Conventions | None, check_model: bool
    ):
        self.model, self.entry = model, entry
        self.config = config = entry.config()
        self.about = config.get("metadata") or {}
        self.silent: list[str] = []  # what is not said, and matters
        if check_model:
            self._check_name(self.about.get("model_name"))
        if not self.about.get("model_name"):
            self.silent.append(f"names no model: it is taken to be of {model.name!r}")
        self._check_architecture(config.get("architecture"))
        if self.about.get("hook_head_index") is not None:
            self._refuse(
                f"reads head {self.about['hook_head_index']} alone. Use one that reads all heads "
                "of a layer."
            )
        self.site, self.out = self._sites()
        widths = config["d_in"], config.get("d_out", config["d_in"])
        for place, width in zip((self.site, self.out), widths, strict=True):
            self._check_width(place, width)
        self.n_weights = config["d_sae"] * sum(widths)
        self.conventions = self._conventions(conventions)

    @property
    def kind(self) -> str:
        """`sae` or `transcoder`."""
        return "sae" if self.site == self.out else "transcoder"

    def _refuse(self, why: str, error: Exception | None = None) -> NoReturn:
        raise MismatchError(f"{self.entry.id!r} {why}") from error

    def _check_name(self, trained_on: str | None) -> None:
        if trained_on and normal_name(trained_on) not in names_of(self.model):
            self._refuse(
                f"was trained on {trained_on!r}, the model is {self.model.name!r}. Load the "
                "dictionaries of this model; if it is that model under another name, say "
                "check_model=False."
            )

    def _check_architecture(self, architecture: str | None) -> None:
        if architecture in ("batchtopk", "matryoshka_batchtopk"):
            self._refuse(
                f"is a checkpoint of training ({architecture}): save it with sae_lens's "
                "save_inference_model and load that."
            )
        if architecture not in READABLE:
            self._refuse(
                f"is of the architecture {architecture!r}, which cannot be read token by token "
                f"into features that are not negative. Known: {', '.join(READABLE)}."
            )

    def _check_width(self, place: Site, width: int) -> None:
        try:
            shape = self.model.shape_at(place)
        except InputError as error:
            self._refuse(f"does not fit {self.model.name!r}: {error}", error)
        if width != math.prod(shape):
            wanted = " x ".join(map(str, shape))
            self._refuse(
                f"has width {width} at {place}, {self.model.name!r} has {wanted}. Load the "
                "dictionaries of this model."
            )

    def _sites(self) -> tuple[Site, Site]:
        """Where it reads and what it reconstructs."""
        if not self.about.get("hook_name"):
            self._refuse(
                "does not say which site it reads: metadata.hook_name is missing "
                "from its cfg.json. Add it, for example 'blocks.3.hook_resid_post'."
            )
        found = []
        for suffix in ("", "_out"):
            hook, module = (
                self.about.get(f"{key}{suffix}") for key in ("hook_name", "hf_hook_name")
            )
            if not hook and not module:
                break
            site = module_site(self.model.architecture, module) if module else None
            if module and site is None:
                self.silent.append(
                    f"was trained on the module {module!r}, which is no site: {hook} is read"
                )
            found.append(site or self._named_site(str(hook)))
        if len(found) == 1 and "transcoder" in self.config["architecture"]:
            self._refuse(
                "does not say what it reconstructs: metadata.hook_name_out is missing from "
                f"its cfg.json. Add it, for example {str(Site('mlp_out', found[0].layer))!r}."
            )
        return found[0], found[-1]

    def _named_site(self, hook: str) -> Site:
        site = module_site(self.model.architecture, hook)
        if site is None and self.about.get("model_class_name") != "AutoModelForCausalLM":
            with suppress(InputError):
                site = Site.parse(hook)
        known = ", ".join(KINDS)
        return site or self._refuse(
            f"reads {hook!r}, which is no site of the toolkit. It has {known}."
        )

    def _conventions(self, given: Conventions | None) -> Conventions:
        """How the model was processed, as sae_lens would have loaded it."""
        about = self.about
        bos = about.get("prepend_bos")
        if given is not None and given.prepend_bos is not None:
            bos = given.prepend_bos
        if bos is None:
            self.silent.append(
                "does not say whether prompts began with the beginning-of-sequence token "
                "(prepend_bos): they begin as the tokenizer has it"
            )
        if given is not None:
            return replace(given, prepend_bos=bos)
        options = about.get("model_from_pretrained_kwargs")
        is_module = about.get("model_class_name") == "AutoModelForCausalLM"
        if options is None and not (about.get("hf_hook_name") or is_module) and self._matters():
            self.silent.append(
                "does not say how its model was processed (model_from_pretrained_kwargs), which "
                "changes what it reads: it is read as unprocessed, as sae_lens does"
            )
        options = options or {}
        if there := {key: options[key] for key in _CHECKPOINTS if options.get(key) is not None}:
            self.silent.append(f"was trained on a checkpoint of its model, {there}: load that one")
        if options.get("refactor_factored_attn_matrices") and self.site.kind in (
            "attn_z",
            "head_out",
        ):
            self._refuse(
                f"reads {self.site} of a model with refactor_factored_attn_matrices, which mixes "
                "the entries of each head. Use one of another site."
            )
        flags = {flag: bool(options.get(flag, False)) for flag in _PROCESSING}
        return Conventions(**flags, prepend_bos=bos)

    def _matters(self) -> bool:
        """Whether processing could change what is read."""
        try:
            change = shift(self.model, PROCESSED, self.site)
        except InputError:  # the weights that would tell are on another machine
            return True
        if self.config.get("normalize_activations") == "layer_norm" and change.offset is None:
            return False  # takes the mean away in any case
        return not change.is_identity


def names_of(model: Model) -> set[str]:
    """Return the names under which others may know a model, normalised by `normal_name`."""
    place = str(getattr(model.hf.config, "_name_or_path", "") or "")
    names: list[Any] = [model.name, place]
    config = Path(place) / "config.json"  # an older transformers wrote the name into it
    if place and config.is_file():
        names.append(read_json(config, "Get the model again.").get("_name_or_path"))
    return {normal_name(name) for name in names if isinstance(name, str) and name}


def normal_name(name: str) -> str:
    """Return one name to all ways of writing the name of a model."""
    cached = re.search(r"models--(?:[^/\\]+--)?([^/\\]+)[/\\]snapshots", name)
    last = cached[1] if cached else re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    last = last.lower().removeprefix("meta-")  # of Llama 3.1, which the hub renamed
    return _aliases().get(last, last)


@cache
def _aliases() -> dict[str, str]:
    """Map what TransformerLens, and so many dictionaries, call models to names on the hub."""
    from transformer_lens.supported_models import MODEL_ALIASES

    return {
        alias.lower(): name.rpartition("/")[2].lower()
        for name, aliases in MODEL_ALIASES.items()
        for alias in aliases
    }


def module_site(row: Architecture, path: str) -> Site | None:
    """Find the site that the output, or the input, of a Hugging Face module is."""
    path, _, side = path.rpartition(".") if path.endswith((".input", ".output")) else (path, "", "")
    is_input = side == "input"
    if path.rpartition(".")[2] == row.embed.rpartition(".")[2]:
        return None if is_input else Site("embed")
    blocks = re.escape(row.blocks.rpartition(".")[2])
    match = re.fullmatch(rf"(?:.*\.)?{blocks}\.(\d+)(?:\.(.+))?", path)
    if match is None:
        return None
    inside = match[2] or ""
    if is_input:
        before = {"": "resid_pre", row.attn_norm: "resid_pre", row.out_proj: "attn_z"}
        if row.parallel is None:
            before[row.mlp_norm or row.mlp] = "resid_mid"
        if row.mlp_norm is not None:
            before[row.mlp or "mlp"] = "mlp_norm"  # what comes out of the norm
        kind = before.get(inside)
    else:
        after = {"": "resid_post", row.attn_out: "attn_out", row.mlp_out: "mlp_out"}
        if row.added_factor:  # the module's own output is not what joins the stream
            after = {"": "resid_post"}
        elif row.attn_out == row.out_proj:  # nothing comes behind the map: the module's own output
            after[row.attention] = "attn_out"
        kind = {**after, row.mlp_norm: "mlp_norm"}.get(inside)
    return Site(kind, int(match[1])) if kind else None
