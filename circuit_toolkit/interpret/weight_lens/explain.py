"""A sentence for each feature, by any callable that takes text and gives text; never needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuit_toolkit.errors import InputError

if TYPE_CHECKING:
    from circuit_toolkit.interpret.weight_lens.descriptions import FeatureDescriptions

CHARACTERS_A_TOKEN = 4  # about, of English
_PROMPT = """\
A feature inside a language model responds to some input tokens and changes the odds of some next \
tokens. In one or two sentences, say the concept that they have in common. Say only the concept.
Input tokens that switch it on: {important}
Next tokens that it makes likelier: {promoted}
Next tokens that it makes less likely: {suppressed}
"""


@dataclass(frozen=True)
class Explainer:
    """What turns a prompt into a sentence, and how often it may be called.

    Parameters
    ----------
    call : callable
        From text to text: a local pipeline, or a client of an API.
    max_calls : int
        Nothing is called if there would be more calls than this; `cost` counts them beforehand.
    """

    call: Callable[[str], str]
    max_calls: int


@dataclass(frozen=True)
class Cost:
    """What explanations would take.

    Parameters
    ----------
    calls : int
        Prompts: one for each validated feature.
    characters : int
        Of all prompts together; answers are not counted.
    tokens : int
        About, at four characters each.
    """

    calls: int
    characters: int
    tokens: int


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


def cost(descriptions: FeatureDescriptions) -> Cost:
    """Count what explaining the validated features would take, without calling anything.

    Parameters
    ----------
    descriptions : FeatureDescriptions
        Which.

    Returns
    -------
    Cost
    """
    sizes = [
        len(prompt_for(descriptions.of(site, feature)))
        for site, feature in descriptions.validated()
    ]
    return Cost(len(sizes), sum(sizes), round(sum(sizes) / CHARACTERS_A_TOKEN))


def concepts(descriptions: FeatureDescriptions, explainer: Explainer) -> dict[tuple[str, int], str]:
    """Explain the validated features, if that is not dearer than was allowed.

    Parameters
    ----------
    descriptions : FeatureDescriptions
        Which.
    explainer : Explainer
        What is called, once for each.

    Returns
    -------
    dict of (str, int) to str
        Site and number of a feature -> what was said.

    Raises
    ------
    InputError
        If there would be more calls than are allowed; nothing was called then.
    """
    wanted = cost(descriptions)
    if wanted.calls > explainer.max_calls:
        raise InputError(
            f"Explanations would take {wanted.calls} calls with {wanted.characters} characters "
            f"(about {wanted.tokens} tokens), {explainer.max_calls} are allowed. Pass a larger "
            "max_calls, or fewer layers."
        )
    return {
        (str(site), feature): explainer.call(prompt_for(descriptions.of(site, feature))).strip()
        for site, feature in descriptions.validated()
    }
