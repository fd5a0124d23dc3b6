"""What the configuration of a dictionary says: of which model it is, where it reads, and how."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from circuit_toolkit.errors import InputError, MismatchError
from circuit_toolkit.models import Architecture, Conventions, Model, shift
from circuit_toolkit.sites import KINDS, Site

# What TransformerLens, and so many dictionaries, call a model -> its name on the hub.
ALIASES = {
    "gpt2-small": "gpt2",
    "distil-gpt2": "distilgpt2",
    "mistral-7b": "mistral-7b-v0.1",
    "llama-2-7b": "llama-2-7b-hf",
    "llama-2-13b": "llama-2-13b-hf",
    "llama-3.1-8b": "meta-llama-3.1-8b",
    "llama-3.1-8b-instruct": "meta-llama-3.1-8b-instruct",
}
READABLE = ("standard", "gated", "topk", "jumprelu") + (
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
PROCESSED = Conventions(*[True] * 4)  # what HookedTransformer.from_pretrained does
_PROCESSING = [each.name for each in fields(Conventions) if each.name != "prepend_bos"]
_CHECKPOINTS = ("revision", "checkpoint_index", "checkpoint_value")


@dataclass(frozen=True)
class Claims:
    """What the configuration of one dictionary says, its place in a model found."""

    site: Site
    out: Site
    conventions: Conventions
    n_weights: int
    silent: tuple[str, ...]

    @property
    def kind(self) -> str:
        """`sae` or `transcoder`."""
        return "sae" if self.site == self.out else "transcoder"


def claims_of(
    model: Model,
    name: str,
    config: dict[str, Any],
    conventions: Conventions | None = None,
    check_model: bool = True,
) -> Claims:
    """Read a configuration, and refuse it if it does not fit the model."""
    about = config.get("metadata") or {}
    silent = []
    if check_model:
        _check_name(model, name, about.get("model_name"))
    if not about.get("model_name"):
        silent.append(f"names no model: it is taken to be of {model.name!r}")
    _check_architecture(name, config)
    if about.get("hook_head_index") is not None:
        raise MismatchError(
            f"{name!r} reads head {about['hook_head_index']} alone. Use one that reads all heads "
            "of a layer."
        )
    site, out = _sites(model, name, config, about, silent)
    for place, width in [(site, config["d_in"]), (out, config.get("d_out", config["d_in"]))]:
        _check_width(model, name, place, width)
    found = _conventions(model, name, config, about, site, conventions, silent)
    n_weights = config["d_sae"] * (config["d_in"] + config.get("d_out", config["d_in"]))
    return Claims(site, out, found, n_weights, tuple(silent))


def names_of(model: Model) -> set[str]:
    """Return the names under which others may know a model, normalised by `normal_name`."""
    names = [model.name, getattr(model.hf.config, "_name_or_path", "")]
    config = Path(model.name) / "config.json"  # an older transformers wrote the name into it
    if config.is_file():
        names.append(json.loads(config.read_text(encoding="utf-8")).get("_name_or_path"))
    return {normal_name(name) for name in names if name}


def normal_name(name: str) -> str:
    """Return one name to all ways of writing the name of a model."""
    cached = re.search(r"models--(?:[^/\\]+--)?([^/\\]+)[/\\]snapshots", name)
    last = cached[1] if cached else re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    return ALIASES.get(last.lower(), last.lower())


def _check_name(model: Model, name: str, trained_on: str | None) -> None:
    if trained_on and normal_name(trained_on) not in names_of(model):
        raise MismatchError(
            f"{name!r} was trained on {trained_on!r}, the model is {model.name!r}. Load the "
            "dictionaries of this model; if it is that model under another name, say "
            "check_model=False."
        )


def _check_architecture(name: str, config: dict[str, Any]) -> None:
    architecture = config.get("architecture")
    if architecture in READABLE:
        return
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        raise MismatchError(
            f"{name!r} is a checkpoint of training ({architecture}): save it with sae_lens's "
            "save_inference_model and load that."
        )
    raise MismatchError(
        f"{name!r} is of the architecture {architecture!r}, which cannot be read token by token "
        f"into features that are not negative. Known: {', '.join(READABLE)}."
    )


def _check_width(model: Model, name: str, place: Site, width: int) -> None:
    try:
        shape = model.shape_at(place)
    except InputError as error:
        raise MismatchError(f"{name!r} does not fit {model.name!r}: {error}") from error
    if width != math.prod(shape):
        wanted = " x ".join(map(str, shape))
        raise MismatchError(
            f"{name!r} has width {width} at {place}, {model.name!r} has {wanted}. Load the "
            "dictionaries of this model."
        )


def _sites(
    model: Model, name: str, config: dict[str, Any], about: dict[str, Any], silent: list[str]
) -> tuple[Site, Site]:
    """Where it reads and what it reconstructs."""
    if not about.get("hook_name"):
        raise MismatchError(
            f"{name!r} does not say which site it reads: metadata.hook_name is missing "
            "from its cfg.json. Add it, for example 'blocks.3.hook_resid_post'."
        )
    found = []
    for suffix in ("", "_out"):
        hook, module = about.get(f"hook_name{suffix}"), about.get(f"hf_hook_name{suffix}")
        if not hook and not module:
            break
        is_module = about.get("model_class_name") == "AutoModelForCausalLM"
        site = module_site(model.architecture, module) if module else None
        if module and site is None:
            silent.append(f"was trained on the module {module!r}, which is no site: {hook} is read")
        found.append(site or _named_site(model.architecture, name, str(hook), is_module))
    if len(found) == 1 and "transcoder" in config["architecture"]:
        raise MismatchError(
            f"{name!r} does not say what it reconstructs: metadata.hook_name_out is missing from "
            f"its cfg.json. Add it, for example {str(Site('mlp_out', found[0].layer))!r}."
        )
    return found[0], found[-1]


def _named_site(row: Architecture, name: str, hook: str, is_module: bool) -> Site:
    site = module_site(row, hook)
    if site is None and not is_module:
        try:
            site = Site.parse(hook)
        except InputError:
            site = None
    if site is None:
        raise MismatchError(
            f"{name!r} reads {hook!r}, which is no site of the toolkit. It has {', '.join(KINDS)}."
        )
    return site


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
            before[row.mlp_norm] = "resid_mid"
        kind = before.get(inside)
    else:
        after = {"": "resid_post", row.attn_out: "attn_out", row.mlp_out: "mlp_out"}
        if row.attn_out == row.out_proj:  # nothing comes behind the map: the module's own output
            after[row.attention] = "attn_out"
        kind = {**after, row.mlp_norm: "mlp_norm"}.get(inside)
    return Site(kind, int(match[1])) if kind else None


def _conventions(
    model: Model,
    name: str,
    config: dict[str, Any],
    about: dict[str, Any],
    site: Site,
    given: Conventions | None,
    silent: list[str],
) -> Conventions:
    """How the model was processed, as sae_lens would have loaded it."""
    bos = about.get("prepend_bos")
    if given is not None and given.prepend_bos is not None:
        bos = given.prepend_bos
    if bos is None:
        silent.append(
            "does not say whether prompts began with the beginning-of-sequence token "
            "(prepend_bos): they begin as the tokenizer has it"
        )
    if given is not None:
        return replace(given, prepend_bos=bos)
    options = about.get("model_from_pretrained_kwargs")
    is_raw = about.get("hf_hook_name") or about.get("model_class_name") == "AutoModelForCausalLM"
    if options is None and not is_raw and _matters(model, site, config):
        silent.append(
            "does not say how its model was processed (model_from_pretrained_kwargs), which "
            "changes what it reads: it is read as unprocessed, as sae_lens does"
        )
    options = options or {}
    if checkpoint := {key: options[key] for key in _CHECKPOINTS if options.get(key) is not None}:
        silent.append(f"was trained on a checkpoint of its model, {checkpoint}: load that one")
    if options.get("refactor_factored_attn_matrices") and site.kind in ("attn_z", "head_out"):
        raise MismatchError(
            f"{name!r} reads {site} of a model with refactor_factored_attn_matrices, which mixes "
            "the entries of each head. Use one of another site."
        )
    return Conventions(
        **{flag: bool(options.get(flag, False)) for flag in _PROCESSING}, prepend_bos=bos
    )


def _matters(model: Model, site: Site, config: dict[str, Any]) -> bool:
    """Whether processing could change what is read."""
    try:
        change = shift(model, PROCESSED, site)
    except InputError:  # the weights that would tell are on another machine
        return True
    if config.get("normalize_activations") == "layer_norm" and change.offset is None:
        return False  # takes the mean away in any case
    return not change.is_identity
