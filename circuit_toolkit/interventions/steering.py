"""Steering: what a model says of a circuit's prompt when some of its features are changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from circuit_toolkit.arguments import described, expect, expect_known, number, one_of, whole
from circuit_toolkit.circuit.circuit import Circuit
from circuit_toolkit.circuit.tables import TARGET
from circuit_toolkit.dictionaries import Dictionary
from circuit_toolkit.dictionaries.given import as_dictionaries
from circuit_toolkit.dictionaries.loading import load_sources
from circuit_toolkit.dictionaries.metadata import names_of, normal_name
from circuit_toolkit.errors import InputError, MismatchError, ToolkitError
from circuit_toolkit.interventions.changes import Change, How
from circuit_toolkit.interventions.runs import intervene_each, intervened
from circuit_toolkit.models import Batch, Model, run, token_mask
from circuit_toolkit.models.continuation import continued
from circuit_toolkit.models.logits import plain_logits
from circuit_toolkit.sites import Site

if TYPE_CHECKING:
    import pandas as pd

_TOP = 5  # tokens of each run in the table of top tokens
_NEAR = (
    0.05  # by which activations may differ from the circuit's, as a share of the token's largest
)


@dataclass(frozen=True, eq=False)
class Steering:
    """What a model says of a circuit's prompt, by itself and with features changed.

    Parameters
    ----------
    prompt : str
        The prompt.
    changes : DataFrame
        A row for each feature that was changed: `id`, `how`, `value`, its `activation` before.
    logits_before, logits_after : Tensor, shape (V,)
        After the token that the circuit explains, mostly the last.
    top_tokens : DataFrame
        The likeliest tokens of either run, with their probability `before` and `after`.
    targets : DataFrame
        For each target of the circuit its value `before` and `after`, and with random sets their
        mean, `random`, and `random_low` and `random_high`, the least and the most. As in the
        circuit, a logit is without the mean over the vocabulary.
    random_targets : ndarray, shape (random sets, targets)
        Values with random sets in place of the changed features.
    before, after : str
        What the model writes after the prompt, by itself and with the changes.
    """

    prompt: str
    changes: pd.DataFrame
    logits_before: Tensor
    logits_after: Tensor
    top_tokens: pd.DataFrame
    targets: pd.DataFrame
    random_targets: np.ndarray
    before: str
    after: str

    def __repr__(self) -> str:
        """Say in one line what changed."""
        n, sets = len(self.changes), len(self.random_targets)
        said = []
        for row in self.targets.to_dict("records"):
            chance = f" ({sets} random sets: {row['random']:+.2f})" if sets else ""
            said.append(f"{row['target']} {row['before']:+.2f} -> {row['after']:+.2f}{chance}")
        what = f"{n} feature{'s' * (n != 1)}: {', '.join(said)}"
        written = f"; {self.before!r:.60} -> {self.after!r:.60}" if self.before else ""
        return f"<Steering of {what}{written}>"


def steer(
    model: Model,
    circuit: Circuit,
    changes: Mapping[str, Any],
    *,
    dictionaries: Any = None,
    random_sets: int = 10,
    max_new_tokens: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> Steering:
    """Change features of one prompt's circuit in the model itself, and see what it then says.

    Attention is free, and what the dictionaries leave unexplained is kept: the difference that a
    change makes to the reconstruction is added. Where one changed feature drives another, the
    later one is changed from what the earlier one made of it.

    Parameters
    ----------
    model : Model
        The circuit's.
    circuit : Circuit
        Of one prompt, with features at the numbers of tokens, such as `attribution_graph` draws.
    changes : dict of str to number or (str, number)
        What is done to a feature, by its id, or to each feature of a supernode, by its name. A
        number is a factor: 0 ablates, 2 doubles, -1 turns round, 1 changes nothing. A value is
        `("put", 3.0)`, and `("add", 1.0)` adds, in the units of the activation.
    dictionaries : dict of Site to Dictionary, optional
        Those of the circuit. By default they are loaded from where `settings["transcoders"]` says.
    random_sets : int
        How many random sets of as many other features to compare with: active on the prompt, at the
        same sites, changed alike.
    max_new_tokens : int
        How far the model goes on; 0: not at all.
    seed : int
        Of the random sets.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Steering

    Raises
    ------
    InputError
        If the circuit is of a data set, a node is unknown or no feature, a change is no number,
        the dictionaries cannot be loaded again, or there are too few features for random sets.
    MismatchError
        If the circuit is of another model, or its features are active otherwise here.

    Examples
    --------
    >>> import circuit_toolkit as ct
    >>> model = ct.load_model("demo")
    >>> transcoders = ct.load_dictionaries(model, kind="transcoder")
    >>> prompt = ct.tasks.ioi(model, n=1).clean[0]
    >>> graph = ct.attribution_graph(model, transcoders, prompt, progress=False)
    >>> features = graph.node_table().query("kind == 'feature'")["id"]
    >>> graph = graph.group("some", features[:3])
    >>> found = ct.steer(model, graph, {"some": 0}, progress=False)
    >>> len(found.changes), list(found.top_tokens)
    (3, ['token', 'id', 'before', 'after'])
    """
    expect(model, "model", "Model")
    expect(circuit, "circuit", "Circuit")
    sets, count = whole(random_sets, "random_sets", 0), whole(max_new_tokens, "max_new_tokens", 0)
    batch, last = circuit_prompt(model, circuit)
    rows = _rows(circuit, changes)
    nodes = circuit.nodes[list(rows)]
    known = dictionaries_of(model, circuit, dictionaries, sorted({*nodes["site"]}, key=Site.parse))
    cut = Batch(batch.ids[:, : last + 1], batch.mask[:, : last + 1])
    values = run(model, cut, list(known))
    acts = {site: each.encode(values[site])[0].cpu() for site, each in known.items()}  # (T, F)
    active = _activations(circuit, nodes, acts)
    wanted = [_change(node, *how) for node, how in zip(nodes, rows.values(), strict=True)]
    counted = token_mask(model, cut)[0].cpu()
    drawn = _random(wanted, acts, counted, sets, seed)
    outcomes = intervene_each(
        model, cut.ids.tolist(), [[], wanted, *drawn], dictionaries=known, progress=progress
    )
    logits = torch.stack([each.logits[0].float().cpu() for each in outcomes])  # (2 + sets, V)
    targets = target_values(model, circuit, logits)
    with intervened(model, wanted, dictionaries=known) as changed:
        texts = [_goes_on(each, batch, count, progress) for each in (model, changed)]
    return Steering(
        str(circuit.settings.get("prompt", "")),
        _change_table(circuit, rows, active),
        logits[0],
        logits[1],
        _top_tokens(model, logits[:2]),
        _target_table(circuit, targets),
        targets[2:],
        *texts,
    )


def circuit_prompt(model: Model, circuit: Circuit) -> tuple[Batch, int]:
    """Return the circuit's prompt, and the number of the token that it explains."""
    settings = circuit.settings
    ids = settings.get("token_ids")
    if settings.get("scope") != "prompt" or not isinstance(ids, list) or not ids:
        raise InputError(
            "This circuit is not one of a single prompt with its token ids, so there is nothing to "
            "steer. Pass a graph of one prompt: ct.attribution_graph(model, transcoders, prompt)."
        )
    name = settings.get("model")
    if isinstance(name, str) and normal_name(name) not in names_of(model):
        raise MismatchError(f"The circuit is of {name!r}, the model is {model.name!r}.")
    batch = model.tokenize([ids])
    words, tokens = model.words(batch)[0], settings.get("tokens")
    if isinstance(tokens, list) and not _same_words(model, ids, words, tokens):
        raise MismatchError(
            f"The circuit's tokens are other words in {model.name!r}: is it of another model?"
        )
    at = settings.get("position", -1)
    at = at if isinstance(at, int) else -1
    return batch, at % len(ids)


def _same_words(model: Model, ids: Sequence[int], words: Sequence[str], given: Sequence) -> bool:
    """Whether a circuit's tokens are these words, as we or as other tools write them."""
    plain = [str(model.tokenizer.decode([token])) for token in ids]
    pairs = zip(words, plain, map(str, given), strict=False)
    return len(given) == len(words) and all(word in (ours, bare) for ours, bare, word in pairs)


def _rows(circuit: Circuit, changes: Any) -> dict[int, tuple[How, float]]:
    """Return what is done to which rows of the nodes, in order of computation."""
    if not isinstance(changes, Mapping) or not changes:
        raise InputError(
            "changes must be a dict of ids or supernodes to factors or values, such as "
            f"{{'names': 0}}; got {described(changes)}."
        )
    row_of = {name: row for row, name in enumerate(circuit.ids())}
    found: dict[int, tuple[How, float]] = {}
    for name, given in changes.items():
        how = _how(name, given)
        if name not in row_of and name not in circuit.groups:
            near = get_close_matches(str(name), [*circuit.groups, *row_of], n=3, cutoff=0.3)
            raise InputError(
                f"There is no node or supernode {name!r}. Nearest: {', '.join(near) or 'none'}."
            )
        for node in circuit.groups.get(name, [name]):
            row = row_of[node]
            _check_feature(circuit, row, node)
            if row in found:
                raise InputError(f"{node} is changed twice: by itself and in a supernode.")
            found[row] = how
    return dict(sorted(found.items()))


def _how(name: Any, given: Any) -> tuple[How, float]:
    """Return how a node is changed, and by what: a bare number is a factor."""
    what = f"changes[{name!r}]"
    if isinstance(given, tuple | list) and len(given) == 2 and isinstance(given[0], str):
        how, value = given
        one_of(how, f"{what}[0]", "put", "add", "scale")
        return how, number(value, f"{what}[1]", -np.inf, np.inf)
    try:
        return "scale", number(given, what, -np.inf, np.inf)
    except InputError as error:
        raise InputError(
            f"{what} must be a factor, such as 0, or a value, ('put', 3.0); got {described(given)}."
        ) from error


def _check_feature(circuit: Circuit, row: int, node: str) -> None:
    """Refuse a node that no dictionary can change."""
    kind, position = circuit.nodes["kind"][row], circuit.nodes["position"][row]
    if kind == "feature" and position.isdecimal():
        return
    ids, kinds = circuit.ids(), circuit.nodes["kind"].tolist()
    features = [name for name, each in zip(ids, kinds, strict=True) if each == "feature"]
    what = f"is of kind {kind}" if kind != "feature" else f"is at {position!r}, no token's number"
    raise InputError(
        f"{node} {what}: only features at tokens can be steered, {len(features)} here, such as "
        f"{', '.join(features[:3]) or 'none'}."
    )


def dictionaries_of(
    model: Model, circuit: Circuit, given: Any, sites: Iterable[str]
) -> dict[Site, Dictionary]:
    """Return the dictionaries of some sites, loaded again where none are given."""
    wanted = [Site.parse(site) for site in sites]
    if given is not None:
        known = as_dictionaries(model, given)
        for site in wanted:
            expect_known(site, known, f"No dictionary was given for {site} of the circuit")
        return {site: known[site] for site in wanted}
    said = circuit.settings.get("transcoders")
    said = said if isinstance(said, dict) else {}
    try:
        return load_sources(model, {site: str(said.get(str(site), "")) for site in wanted})
    except ToolkitError as error:
        raise InputError(
            f"The circuit's dictionaries cannot be loaded again: {error} Pass them: "
            "steer(model, circuit, changes, dictionaries=...)."
        ) from error


def _activations(circuit: Circuit, nodes: np.ndarray, acts: Mapping[Site, Tensor]) -> list[float]:
    """Return the activation of each node here; refuse one that is not the circuit's."""
    found = []
    for site, position, index, there in nodes[["site", "position", "index", "activation"]].tolist():
        of_site = acts[Site.parse(site)]
        if int(position) >= len(of_site) or index >= of_site.shape[1]:
            raise MismatchError(
                f"The circuit has feature {index} at token {position} of {site}, and there are "
                f"{of_site.shape[1]} features and {len(of_site)} tokens: pass its dictionaries."
            )
        here = float(of_site[int(position), index])
        is_known = there and "corrupted" not in circuit.settings  # else it is a difference
        largest = max(abs(there), float(of_site[int(position)].abs().max()))
        if is_known and abs(here - there) > _NEAR * largest:
            raise MismatchError(
                f"Feature {index} of {site} has activation {here:.3g} at token {position}, in the "
                f"circuit {there:.3g}: are model and dictionaries the circuit's?"
            )
        found.append(here)
    return found


def _change(node: Any, how: How, value: float) -> Change:
    site, position, index = node["site"], int(node["position"]), int(node["index"])
    return Change(Site.parse(site), how, value, np.array([index]), positions=position)


def _random(
    wanted: Sequence[Change],
    acts: Mapping[Site, Tensor],
    counted: Tensor,
    sets: int,
    seed: int,
) -> list[list[Change]]:
    """Return random sets of features that are active, as many at each site, changed alike."""
    rng, drawn = np.random.default_rng(seed), [[] for _ in range(sets)]
    for site in acts:
        mine = [each for each in wanted if each.site == site]
        free = (acts[site] > 0) & counted[:, None]  # (T, F)
        for each in mine:
            free[each.positions, each.features] = False  # pyright: ignore
        places = free.nonzero().numpy()
        if sets and len(places) < len(mine):
            raise InputError(
                f"{site} has {len(places)} other active features, too few for random sets of "
                f"{len(mine)}. Pass random_sets=0."
            )
        for found in drawn:
            chosen = places[rng.choice(len(places), len(mine), replace=False)]
            for each, (position, index) in zip(mine, chosen.tolist(), strict=True):
                units = np.array([index])
                found.append(Change(site, each.how, each.value, units, positions=position))
    return drawn


def target_values(
    model: Model, circuit: Circuit, logits: Tensor, *, check: bool = True
) -> np.ndarray:
    """Return the value of each target (runs, targets): logits without their cap and mean.

    The first run, if it is checked, is that of the circuit.
    """
    plain = plain_logits(model, logits)
    nodes = circuit.nodes[circuit.nodes["kind"] == TARGET]
    said = circuit.settings.get("directions")  # of each target its tokens and their factors
    said = said if isinstance(said, list) and len(said) == len(nodes) else [None] * len(nodes)
    values = []
    for node, direction in zip(nodes, said, strict=True):
        try:
            tokens, factors = direction or ([int(node["index"])], [1.0])
            values.append(plain[:, tokens] @ torch.tensor(factors, dtype=plain.dtype))
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            raise MismatchError(
                f"Target {node['label']!r} is made of logits that {model.name!r} lacks: {error}."
            ) from error
        there, here = float(node["activation"]), float(values[-1][0])
        is_known = check and there and "corrupted" not in circuit.settings
        if is_known and abs(here - there) > _NEAR * max(abs(there), 1):
            raise MismatchError(
                f"Target {node['label']!r} is {here:.3g} here, in the circuit {there:.3g}: is the "
                "model the circuit's, and does settings['directions'] say which logits make it?"
            )
    return torch.stack(values, 1).numpy()


def _goes_on(model: Model, batch: Batch, count: int, progress: bool) -> str:
    if not count:
        return ""
    ids = continued(model, batch, count, progress=progress)[0]
    return str(model.tokenizer.decode(ids[ids >= 0]))


def _change_table(
    circuit: Circuit, rows: Mapping[int, tuple[How, float]], active: list[float]
) -> pd.DataFrame:
    import pandas as pd

    ids = circuit.ids()
    return pd.DataFrame(
        {
            "id": [ids[row] for row in rows],
            "how": [how for how, _ in rows.values()],
            "value": [value for _, value in rows.values()],
            "activation": active,
        }
    )


def _top_tokens(model: Model, logits: Tensor) -> pd.DataFrame:
    """Return the likeliest tokens of two runs, logits (2, V), the likeliest of the later first."""
    import pandas as pd

    p = logits.softmax(1)
    ids = p.topk(min(_TOP, p.shape[1])).indices.flatten().unique()
    ids = ids[p[1, ids].argsort(descending=True)]
    words = [model.word(token) for token in ids.tolist()]
    chances = {"before": p[0, ids].tolist(), "after": p[1, ids].tolist()}
    return pd.DataFrame({"token": words, "id": ids.tolist(), **chances})


def _target_table(circuit: Circuit, values: np.ndarray) -> pd.DataFrame:
    import pandas as pd

    labels = circuit.nodes["label"][circuit.nodes["kind"] == TARGET].tolist()
    table = pd.DataFrame({"target": labels, "before": values[0], "after": values[1]})
    if len(drawn := values[2:]):
        table["random"] = drawn.mean(0)
        table["random_low"], table["random_high"] = drawn.min(0), drawn.max(0)
    return table
