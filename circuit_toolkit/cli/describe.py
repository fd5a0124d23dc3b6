"""`circuit-toolkit describe`: what the features of transcoders mean, read from weights."""

from __future__ import annotations

import argparse
import time
from typing import Any

from circuit_toolkit.cli.model import asked_model
from circuit_toolkit.cli.output import markdown, number, write, write_json
from circuit_toolkit.errors import InputError
from circuit_toolkit.files.documents import plain

_EXAMPLES = 4  # of each site


def run_describe(args: argparse.Namespace) -> None:
    """Describe features and print how many have a description."""
    from circuit_toolkit.dictionaries import load_dictionaries
    from circuit_toolkit.features.descriptions.file import ENDINGS
    from circuit_toolkit.files.checks import check_ending, check_file, check_folder
    from circuit_toolkit.weight_lens import WeightLens

    lens = WeightLens(args.preset)  # what cannot be is said before anything is loaded
    if args.out is not None:
        check_ending(args.out, ENDINGS)
        check_file(args.out)
    if args.store is not None:
        check_folder(args.store)
    model = asked_model(args)
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
    result = {
        "model": model.name,
        "settings": dict(found.settings),
        "features": sum(found.tables[site].n_features for site in found.shown),
        "validated": len(found.validated()),
        "coverage": found.coverage().to_dict("records"),
        "examples": _examples(found),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "file": file,
    }
    if args.json:
        write_json(result)
    else:
        write(*_lines(plain(result, "result")))


def _examples(found: Any) -> dict[str, dict[str, str]]:
    """Words of a few described features of each site, those with most tokens first."""
    table = found.table().query("validated").sort_values("n_tokens", ascending=False, kind="stable")
    return {
        site: dict(zip(map(str, rows["feature"]), rows["words"].tolist(), strict=True))
        for site, rows in table.groupby("site", sort=False).head(_EXAMPLES).groupby("site")
    }


def _lines(result: dict[str, Any]) -> list[str]:
    """Describe the result in words and a table."""
    settings = result["settings"]
    own = f", own {', '.join(settings['own'])}" if settings["own"] else ""
    lines = [
        f"{result['validated']} of {result['features']} features of {result['model']} have a "
        f"validated description (preset {settings['preset']}{own}: z above "
        f"{settings['theta_token']:g} for tokens, {settings['theta_feature']:g} for features; "
        f"inherited from {settings['upstream']} layers)".replace("first layers", "the first layer"),
        "",
    ]
    heads = ["site", "features", "validated", "of its own tokens", "tokens each"]
    heads += ["stand out", "by chance", "active by chance"]
    rows = [
        [
            *(row["site"], row["features"], f"{row['validated']:.1%}", f"{row['own']:.1%}"),
            number(row["n_tokens"], ".1f"),
            f"{row['candidates']:.2f}",
            number(row["null_candidates"], ".2f"),
            number(row["null_own"], ".1%"),
        ]
        for row in result["coverage"]
    ]
    lines += [*markdown(heads, rows), ""]
    for site, words in sorted(result["examples"].items()):
        named = "; ".join(f"{feature}: {said}" for feature, said in words.items())
        lines.append(f"{site}, such as {named}")
    lines.append("")
    lines.append(
        "By chance: tokens that stand out when the encoder's entries are permuted, and share of "
        "features that one of them activates."
    )
    lines.append(
        f"Described in {result['seconds']:.1f} s, {result['cpu_seconds']:.1f} CPU s; loading not "
        "counted"
    )
    return lines + ([f"Written to {result['file']}"] if result["file"] else [])
