"""What an explainer is asked about a feature, and what it must be; never needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from circuit_toolkit.errors import InputError
from circuit_toolkit.features.descriptions.explainer import Explainer

_PROMPT = """\
A feature inside a language model responds to some input tokens and changes the odds of some next \
tokens. In one or two sentences, say the concept that they have in common. Say only the concept.
Input tokens that switch it on: {important}
Next tokens that it makes likelier: {promoted}
Next tokens that it makes less likely: {suppressed}
"""


def prompt_for(description: Mapping[str, Any], n: int = 20) -> str:
    """Write what an explainer is asked about a feature.

    Parameters
    ----------
    description : mapping
        From `FeatureDescriptions.of`.
    n : int
        At most so many tokens in each list.

    Returns
    -------
    str
    """
    lists = {
        "important": description["description"],
        "promoted": description["outputs"]["promoted"],
        "suppressed": description["outputs"]["suppressed"],
    }
    texts = {
        name: ", ".join(repr(row["token"]) for row in rows[:n]) or "none stand out"
        for name, rows in lists.items()
    }
    return _PROMPT.format(**texts)


def check_before_a_run(explainer: Explainer) -> None:
    """Refuse, before features are described, an explainer that could not be called after it."""
    limit = getattr(explainer, "max_calls", None)
    if not isinstance(explainer, Explainer) or limit is None:
        raise InputError(
            "What explanations cost is known only when all is described, so describe(explain=) "
            "takes an Explainer with max_calls. Pass Explainer(call, max_calls=...), or describe "
            "first: found.explained(Explainer(call)) then shows the cost."
        )
