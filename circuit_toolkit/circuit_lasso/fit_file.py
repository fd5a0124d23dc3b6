"""The file of a fit: arrays as safetensors and a document, checked in full when it is read.

A fit of a cluster keeps no second moments, and neither does a file: circuits do not need them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from circuit_toolkit.activations.store.shards import packed, require, sparse, unpacked, within
from circuit_toolkit.circuit_lasso.regressions import Absent
from circuit_toolkit.errors import FileFormatError
from circuit_toolkit.files.documents import content_of, document, resolved, write_file
from circuit_toolkit.files.reading import parsed_json, read_arrays
from circuit_toolkit.regression import GramStatistics, LassoPath, LogisticPath, Screening
from circuit_toolkit.regression.solvers.all_targets import Penalty
from circuit_toolkit.sites import Site

FORMAT = "circuit_toolkit.lasso_fit"
SCHEMA_VERSION = 1
_REMEDY = "Pass a file that `LassoFit.save` wrote."
_SPARSE = ("data", "indices", "indptr")
_OF_ALL = ("strengths", "alphas", "gap", "kkt", "converged")
_OF_LASSO = ("r2",)
_OF_LOGISTIC = ("constants", "train_accuracy", "scale_x")
_OF_STATISTICS = ("mean_x", "mean_y", "yy", "active_x")
_NUMBERS = ("tol", "max_iter")
# Settings that circuits are read off by, and what they may be; other settings are only shown.
_SETTINGS = {
    "target": lambda value: isinstance(value, str),
    "positions": lambda value: isinstance(value, str) or _are_texts(value),
    "reads": lambda value: value in ("last", "all", "jointly"),
    "adaptive": lambda value: isinstance(value, bool),
    "objective": lambda value: value in ("squared error", "cross-entropy"),
}


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)


def write(path: str | PathLike, fields: Mapping[str, Any]) -> Path:
    """Write the fields of a fit, whole or not at all."""
    from safetensors.numpy import save_file

    arrays, words = packed(fields["rows"])
    arrays = {f"rows/{name}": values for name, values in arrays.items()}
    arrays["held_out"] = fields["held_out"]
    if fields["folds"] is not None:
        arrays["folds"] = fields["folds"]
    content = {
        "settings": dict(fields["settings"]),
        "labels": {str(site): names for site, names in fields["labels"].items()},
        "rows": words | {"settings": dict(fields["rows"].settings)},
        "sites": [str(site) for site in fields["screening"]],
        "chain": {},
        "readout": {},
    }
    for site, screening in fields["screening"].items():
        arrays[f"{site}/kept"] = screening.kept
        arrays[f"{site}/representative"] = screening.representative
        arrays[f"{site}/scale"] = fields["scales"][site]
        if fields["references"] is not None:
            arrays[f"{site}/reference"] = fields["references"][site]
    if fields["gradient"] is not None:
        arrays["gradient"] = fields["gradient"]
    for part in ("chain", "readout"):
        for site, fitted in fields[part].items():
            packed_path, content[part][str(site)] = _packed_path(fitted)
            arrays |= {f"{part}/{site}/{name}": each for name, each in packed_path.items()}
    arrays = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    content["arrays"] = _digest(arrays)
    text = json.dumps(document(FORMAT, SCHEMA_VERSION, content))
    # As an array: a header of safetensors has a largest size.
    arrays["json"] = np.frombuffer(text.encode(), np.uint8)
    return write_file(path, lambda part: save_file(arrays, part))


def read(path: str | PathLike) -> dict[str, Any]:
    """Return the fields of a fit; FileFormatError where anything in the file is not as written."""
    path = resolved(path)
    arrays = read_arrays(path, _REMEDY)
    if "json" not in arrays:
        raise FileFormatError(f"{path} holds no fit: its document is missing. {_REMEDY}")
    found = parsed_json(arrays.pop("json").tobytes(), f"{path}", _REMEDY)
    content = content_of(found, FORMAT, SCHEMA_VERSION, f"{path}", _REMEDY)
    try:
        require(content["arrays"] == _digest(arrays), "its checksum differs")
        return _fields(arrays, content)
    # InputError is a ValueError.
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise FileFormatError(
            f"{path} is damaged ({type(error).__name__}: {error}). {_REMEDY}"
        ) from error


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    found = hashlib.sha256()
    for name in sorted(arrays):
        values = arrays[name]
        found.update(f"{name} {values.dtype} {values.shape}\n".encode())
        found.update(values.tobytes())
    return found.hexdigest()


def _packed_path(path: LassoPath | LogisticPath) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and numbers of a path, but for its second moments."""
    every: Any = sp.hstack(path.coefficients, format="csc")  # (p, k q)
    arrays = {f"coefficients.{part}": getattr(every, part) for part in _SPARSE}
    names = _OF_ALL + (_OF_LASSO if isinstance(path, LassoPath) else _OF_LOGISTIC)
    arrays |= {name: getattr(path, name) for name in names}
    if isinstance(path, LogisticPath):
        return arrays, {}
    arrays |= {name: getattr(path.stats, name) for name in _OF_STATISTICS}
    arrays["diagonal"] = path.stats.xx.diagonal()
    numbers = {name: getattr(path, name) for name in _NUMBERS}
    return arrays, numbers | {"n": path.stats.n}


def _fields(arrays: Mapping[str, np.ndarray], content: Mapping[str, Any]) -> dict[str, Any]:
    """Put together what was written; ValueError and its kin where parts do not fit."""
    settings, words = content["settings"], content["rows"]
    for key, is_known in _SETTINGS.items():
        require(is_known(settings[key]), f"the setting {key} is {settings[key]!r:.40}")
    is_label = settings["objective"] == "cross-entropy"
    named = "rows/"
    rows = unpacked(
        {name.removeprefix(named): a for name, a in arrays.items() if name.startswith(named)},
        words,
        words["settings"],
    )
    require(len(rows.prompt) == rows.n_prompts, "rows must be one a prompt")
    require((rows.prompt == np.arange(rows.n_prompts)).all(), "rows are not in order of prompts")
    sites = [Site.parse(name) for name in content["sites"]]
    require(sites and sites == sorted(set(sites)) == rows.sites, "sites are not those of the rows")
    n = {site: matrix.shape[1] for site, matrix in rows.features.items()}  # type: ignore[misc]
    screening, scales = {}, {}
    for site in sites:
        kept, stands = arrays[f"{site}/kept"], arrays[f"{site}/representative"]
        m = len(kept)
        _check(kept, "i", (m,), f"{site}/kept")
        _check(stands, "i", (n[site],), f"{site}/representative")
        require(within(kept, 0, n[site]) and (np.diff(kept) > 0).all(), f"{site}/kept is no choice")
        require(within(stands, -1, n[site]), f"{site}/representative is out of range")
        _check(arrays[f"{site}/scale"], "f", (m,), f"{site}/scale", least=0)
        screening[site], scales[site] = Screening(kept, stands), arrays[f"{site}/scale"]
    gradient, references, q = _answers(arrays, settings, rows.n_prompts, n)
    labels = {Site.parse(name): names for name, names in content["labels"].items()}
    several = len(settings["positions"]) if isinstance(settings["positions"], list) else 1
    for site, names in labels.items():
        require(isinstance(names, list), f"the labels of {site} are no list")
        require(all(isinstance(name, str) for name in names), f"a label of {site} is no text")
        width = n.get(site, several * len(names))
        require(several * len(names) == width, f"{site} has another number of labels")
    p_of = {site: len(each.kept) for site, each in screening.items()}
    k = len(arrays["held_out"])
    chain = {
        site: _lasso(_Part(arrays, f"chain/{site}"), content["chain"][str(site)], k, p, p_of[site])
        for site, p in zip(sites[1:], p_of.values(), strict=False)
    }
    reading = [Site.parse(name) for name in content["readout"]]
    require(reading == (sites if settings["reads"] == "all" else sites[-1:]), "readout differs")
    readout: dict[Site, Any] = {}
    for site in reading:
        part = _Part(arrays, f"readout/{site}")
        if is_label:
            readout[site] = _logistic(part, k, p_of[site])
        else:
            p = sum(p_of.values()) if settings["reads"] == "jointly" else p_of[site]
            readout[site] = _lasso(part, content["readout"][str(site)], k, p, q)
    grid = readout[sites[-1]].strengths
    for path in (*chain.values(), *readout.values()):
        require((path.strengths == grid).all(), "paths have other strengths")
    _check(arrays["held_out"], "f", (k,), "held_out", finite=False)
    folds = arrays.get("folds")
    if folds is not None:
        require(folds.ndim == 2 and len(folds) > 1, "folds has another shape")
        _check(folds, "f", (len(folds), k), "folds")
    return {
        "screening": screening,
        "chain": chain,
        "readout": readout,
        "held_out": arrays["held_out"],
        "folds": folds,
        "rows": rows,
        "scales": scales,
        "labels": labels,
        "settings": settings,
        "gradient": gradient,
        "references": references,
    }


def _answers(
    arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any], rows: int, n: Mapping[Site, int]
) -> tuple[np.ndarray | None, dict[Site, np.ndarray] | None, int]:
    """Return what answers count, what ablations set features to, and the width of the target."""
    tokens = settings.get("answers")
    if tokens is None:
        require(settings.get("design") != "randomised", "a randomised fit has answers")
        return None, None, 1
    require(all(type(each) is int for each in tokens), "answers are no tokens")
    require(settings["ablation"] in ("corrupted", "mean"), "the ablation is unknown")
    _check(arrays["gradient"], "f", (rows, len(tokens)), "gradient")
    references = {site: arrays[f"{site}/reference"] for site in n}
    for site, each in references.items():
        _check(each, "f", (n[site],), f"{site}/reference")
    return arrays["gradient"], references, len(tokens)


class _Part:
    """Arrays of one path, by name."""

    def __init__(self, arrays: Mapping[str, np.ndarray], name: str) -> None:
        self.arrays, self.name = arrays, name

    def get(self, name: str, shape: tuple[int, ...], kind: str = "f", **how: Any) -> np.ndarray:
        """Return one of them, checked."""
        whole = f"{self.name}/{name}"
        _check(self.arrays[whole], kind, shape, whole, **how)
        return self.arrays[whole]

    def common(self, k: int, p: int, q: int, shape: tuple[int, ...]) -> dict[str, Any]:
        """Return what all paths have; alphas and certificates have a shape."""
        parts = [self.arrays[f"{self.name}/coefficients.{part}"] for part in _SPARSE]
        _check(parts[0], "f", parts[0].shape, f"{self.name}/coefficients")
        every: Any = sparse(parts, k * q, p)  # of the transpose
        strengths = self.get("strengths", (k,), least=0)
        require(
            k > 0 and strengths[-1] > 0 and strengths[0] <= 1 and (np.diff(strengths) < 0).all(),
            f"{self.name}/strengths must fall within (0, 1]",
        )
        return {
            "strengths": strengths,
            "alphas": self.get("alphas", shape, least=0),
            "coefficients": tuple(sp.csc_array(every[i * q : (i + 1) * q].T) for i in range(k)),
            "gap": self.get("gap", shape, finite=False),
            "kkt": self.get("kkt", shape, finite=False),
            "converged": self.get("converged", shape, "b"),
        }


def _lasso(part: _Part, numbers: Mapping[str, Any], k: int, p: int, q: int) -> LassoPath:
    for name in (*_NUMBERS, "n"):
        require(type(numbers[name]) in (int, float) and numbers[name] > 0, f"{name} is no size")
    xx: Any = Absent((p, p), part.get("diagonal", (p,), least=0))
    absent: Any = Absent((p, q))
    stats = GramStatistics(
        n=numbers["n"],
        mean_x=part.get("mean_x", (p,)),
        mean_y=part.get("mean_y", (q,)),
        xx=xx,
        xy=absent,
        yy=part.get("yy", (q,), least=0),
        active_x=part.get("active_x", (p,), "i", least=0),
        form="standardised",
    )
    return LassoPath(
        **part.common(k, p, q, (k, q)),
        r2=part.get("r2", (k, q), finite=False),
        stats=stats,
        penalty=Penalty(absent),
        **{name: numbers[name] for name in _NUMBERS},
    )


def _logistic(part: _Part, k: int, p: int) -> LogisticPath:
    return LogisticPath(
        **part.common(k, p, 1, (k,)),
        constants=part.get("constants", (k, 1)),
        train_accuracy=part.get("train_accuracy", (k,), least=0),
        scale_x=part.get("scale_x", (p,), least=0),
    )


def _check(
    values: np.ndarray,
    kind: str,
    shape: tuple[int, ...],
    name: str,
    *,
    finite: bool = True,
    least: float = -np.inf,
) -> None:
    """Raise ValueError for an array of another kind or shape, or with values out of range."""
    require(values.dtype.kind == kind, f"{name} holds {values.dtype}")
    require(values.shape == shape, f"{name} has shape {values.shape}, not {shape}")
    if kind == "f" and finite:
        require(np.isfinite(values).all(), f"{name} holds NaN or infinity")
    if kind != "b" and finite:
        require((values >= least).all(), f"{name} holds values below {least:g}")
