"""A classifier of professions that learnt gender, mended by taking features away.

The protocol of SHIFT on the bundled biographies: male professors and female nurses to train on,
all four groups to test on, with names and forms that neither model nor classifier was trained on,
or with `--same` other texts of the training language. Features are judged to be about gender by the
words that they go with in biographies of other professions, or (`label`) by the gender of these
itself. Prints rows for RESULTS.md; the options change what is measured.
"""

import argparse

import circuit_toolkit as ct
from circuit_toolkit.demo.grammar import LEXICON
from circuit_toolkit.demo.grammar.words import PROFESSIONS
from circuit_toolkit.generalisation.groups import groups_of
from circuit_toolkit.generalisation.spurious import features_with
from circuit_toolkit.generalisation.study import generalise


def named_by_weights(model, saes, preset, *lists):
    """Features at the first site half of whose words, by WeightLens, are of one of the lists."""
    first = min(saes)
    table = ct.WeightLens(preset).describe(model, {first: saes[first]}).table()
    found = []
    for feature, words in zip(table["feature"], table["words"], strict=True):
        said = [word.strip() for word in words.split(",") if word.strip()]
        if said and max(sum(word in each for word in said) for each in lists) >= len(said) / 2:
            found.append(feature)
    return {first: found}


def main() -> None:
    """Print one row a method."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", default="resid_post 2")
    parser.add_argument("--ranked", type=int, default=100, help="features that are looked at")
    parser.add_argument("--shift-at", nargs="*", help="sites that SHIFT ranks; by default all")
    parser.add_argument("--same", action="store_true", help="test on the training language")
    parser.add_argument("--title", action="store_true", help="let texts name the profession")
    parser.add_argument("--professions", nargs=2, default=["professor", "nurse"], metavar="WHO")
    parser.add_argument("--weight-lens", help="judge by weights alone: paper, code or robust")
    parser.add_argument("--methods", nargs="*", help="by default all")
    given = parser.parse_args()
    pair = {name: PROFESSIONS[name][0] for name in given.professions}  # and its usual gender
    model = ct.load_model("demo")
    saes = ct.load_dictionaries(model)
    site = ct.Site.parse(given.site)

    def bios(n, seed, **options):
        options = {"title": given.title, "whole": True, "strength": 0.5, **options}
        return ct.tasks.bios(model, n=n, seed=seed, **options)

    tied = [{"profession": p, "gender": g} for p, g in pair.items()]
    four = [{"profession": p, "gender": g} for p in pair for g in pair.values()]
    texts, others = bios(7000, 0), bios(7000, 1, test=not given.same)
    ambiguous, balanced = groups_of(texts, tied, 200), groups_of(texts, four, 100)
    test = groups_of(others, four, 200, unlike=texts)
    elsewhere = [i for i, p in enumerate(texts.labels["profession"]) if p not in pair]
    known = {where: sae for where, sae in saes.items() if where <= site}
    neutral = texts.select(elsewhere[:1500])
    acts = ct.capture(model, known, neutral.clean, "mean", progress=False)
    women, men = ({w for w, roles in LEXICON.items() if g in roles} for g in ("female", "male"))
    _, *signs = zip(*(PROFESSIONS[p] for p in pair), strict=True)
    judged = features_with(acts, women, men)
    if given.weight_lens:
        judged = named_by_weights(model, known, given.weight_lens, women - men, men - women)
    result = generalise(
        model,
        saes,
        ambiguous,
        balanced,
        test,
        site=site,
        judged=judged,
        neutral=neutral,
        concepts=[word for sign in signs for words in sign for word in words.split()],
        n_ranked=given.ranked,
        shift_sites=given.shift_at,
        methods=given.methods,
    )
    print("| method | profession | gender | worst group | features | s to rank |")
    print("|---|---|---|---|---|---|")
    for each in result.scores:
        shares = [
            f"{100 * v:.1f} ({100 * low:.1f} to {100 * high:.1f})"
            for v, low, high in (each.target, each.spurious, each.worst)
        ]
        seconds = "" if each.seconds is None else f"{each.seconds:.2f}"
        print(f"| {each.method} | {' | '.join(shares)} | {each.n_features} | {seconds} |")


if __name__ == "__main__":
    main()
