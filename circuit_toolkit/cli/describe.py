"""`circuit-toolkit describe`: what the features of transcoders mean, read from weights."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from circuit_toolkit.errors import InputError

_EXAMPLES = 4  # of each site


def run_describe(args: argparse.Namespace) -> None:
    """Describe features and print how many have a description."""
    from circuit_toolkit.dictionaries import load_dictionaries
    from circuit_toolkit.features.descriptions.file import ENDINGS
    from circuit_toolkit.files.checks import check_ending, check_file, check_folder
    from circuit_toolkit.models import load_model
    from circuit_toolkit.weight_lens import WeightLens

    lens = WeightLens(args.preset)  # what cannot be is said before anything is loaded
    if args.out is not None:
        check_ending(args.out, ENDINGS)
        check_file(args.out)
    if args.store is not None:
        check_folder(args.store)
    model = load_model(args.model)
    if args.dictionaries is None and model.name != "demo":
        raise InputError(
            f"No transcoders ship for {model.name!r}: pass --dictionaries, a folder or a release "
            "of sae_lens."
        )
    transcoders = load_dictionaries(model, args.dictionaries, kind="transcoder")
    layers = None if args.layer is None else [args.layer]
    began, cpu = time.perf_counter(), time.process_time()
    found = lens.describe(model, transcoders, layers, store=args.store, progress=not args.json)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
    file = None if args.out is None else str(found.save(args.out))
    f1 = _role_f1(model, found) if model.name == "demo" else None
    result = {
        "model": model.name,
        "settings": dict(found.settings),
        "features": sum(found.tables[site].n_features for site in found.shown),
        "validated": len(found.validated()),
        "coverage": _rows(found.coverage()),
        "role_f1": f1,
        "examples": _examples(found),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "file": file,
    }
    if args.json:
        sys.stdout.write(json.dumps(result, indent=1, allow_nan=False) + "\n")
    else:
        sys.stdout.write("\n".join([*_lines(result), ""]))


def _role_f1(model: Any, found: Any) -> list[dict[str, Any]]:
    """Scores against the grammar, of the bundled model alone."""
    from circuit_toolkit.benchmark.feature_roles import lexical_scores

    return _rows(lexical_scores(model, found))


def _examples(found: Any) -> dict[str, dict[int, str]]:
    """Words of a few described features of each site, those with most tokens first."""
    table = found.table().query("validated").sort_values("n_tokens", ascending=False, kind="stable")
    return {
        site: dict(zip(rows["feature"].tolist(), rows["words"].tolist(), strict=True))
        for site, rows in table.groupby("site", sort=False).head(_EXAMPLES).groupby("site")
    }


def _rows(table: Any) -> list[dict[str, Any]]:
    """Rows of a table; null where nothing can be said."""
    return [
        {name: None if value != value else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def _lines(result: dict[str, Any]) -> list[str]:
    """Describe the result in words and a table."""
    settings, scores = result["settings"], result["role_f1"]
    f1 = {row["site"]: row for row in scores or []}
    own = f", own {', '.join(settings['own'])}" if settings["own"] else ""
    lines = [
        f"{result['validated']} of {result['features']} features of {result['model']} have a "
        f"validated description (preset {settings['preset']}{own}: z above "
        f"{settings['theta_token']:g} for tokens, {settings['theta_feature']:g} for features; "
        f"inherited from {settings['upstream']} layers)".replace("first layers", "the first layer"),
        "",
        "| site | features | validated | of its own tokens | tokens each | role F1 "
        "| stand out | by chance | active by chance |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["coverage"]:
        score = f1.get(row["site"], {}).get("f1")
        lines.append(
            f"| {row['site']} | {row['features']} | {row['validated']:.1%} | {row['own']:.1%} "
            f"| {_number(row['n_tokens'], '.1f')} | {_number(score, '.2f')} "
            f"| {row['candidates']:.2f} | {_number(row['null_candidates'], '.2f')} "
            f"| {_number(row['null_own'], '.1%')} |"
        )
    lines.append("")
    for site, words in sorted(result["examples"].items()):
        named = "; ".join(f"{feature}: {said}" for feature, said in words.items())
        lines.append(f"{site}, such as {named}")
    lines.append("")
    if f1:
        every = f1["all"]
        lines.append(
            f"Mean role F1 {_number(every['f1'], '.3f')}; {_number(every['several'], '.0%')} have "
            f"several tokens, and a mean role F1 of {_number(every['several_f1'], '.3f')}. One "
            "token fits the role that is this word by construction."
        )
    lines.append(
        "By chance: tokens that stand out when the encoder's entries are permuted, and share of "
        "features that one of them activates."
    )
    lines.append(
        f"Described in {result['seconds']:.1f} s, {result['cpu_seconds']:.1f} CPU s; loading and "
        "scores not counted"
    )
    return lines + ([f"Written to {result['file']}"] if result["file"] else [])


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
