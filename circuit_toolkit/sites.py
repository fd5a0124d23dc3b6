"""Sites: the named places in a transformer where an activation is read or written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

from circuit_toolkit.arguments import whole
from circuit_toolkit.errors import InputError

# kind -> TransformerLens hook name, in order of computation inside a block.
_HOOKS = {
    "resid_pre": "blocks.{}.hook_resid_pre",
    "attn_pattern": "blocks.{}.attn.hook_pattern",
    "attn_z": "blocks.{}.attn.hook_z",
    "head_out": "blocks.{}.attn.hook_result",
    "attn_out": "blocks.{}.hook_attn_out",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "mlp_in": "blocks.{}.ln2.hook_normalized",
    "mlp_norm": "blocks.{}.mlp.hook_in",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "resid_post": "blocks.{}.hook_resid_post",
}
_UNLAYERED = {"embed": "hook_embed", "logits": "logits"}
KINDS = ("embed", *_HOOKS, "logits")
_ALIASES = {"blocks.{}.hook_mlp_in": "resid_mid"}  # TransformerLens: the stream before the norm
_PATTERNS = [
    (kind, re.compile(re.escape(hook).replace(r"\{\}", r"(\d+)")))
    for kind, hook in [*_HOOKS.items(), *((kind, hook) for hook, kind in _ALIASES.items())]
]


@total_ordering
@dataclass(frozen=True)
class Site:
    """A place in a transformer where an activation is read or written.

    Sites sort in order of computation, and print as TransformerLens hook names.

    Parameters
    ----------
    kind : str
        One of `KINDS`. `embed` is the token embedding alone; the embedding output (token plus
        position) is `resid_pre` of layer 0. Per head: `attn_pattern`, `attn_z`, and `head_out`,
        which is z times its slice of W_O: what the head adds to the stream. `mlp_in` is the
        stream normalised, without weight and bias of the norm; `mlp_norm` with these, which is
        what the MLP reads.
    layer : int, default 0
        Block, counted from 0; must be 0 for `embed` and `logits`, which have no block.

    Raises
    ------
    InputError
        If the kind is unknown or the layer does not fit it.

    Examples
    --------
    >>> Site.parse("blocks.3.hook_resid_post") == Site("resid_post", 3)
    True
    >>> sorted([Site("resid_post", 0), Site("embed"), Site("mlp_in", 0)])[0].short
    'embed'
    """

    kind: str
    layer: int = 0

    def __post_init__(self) -> None:
        """Refuse kinds that do not exist."""
        if self.kind not in KINDS:
            raise InputError(f"Unknown kind of site {self.kind!r}. Use one of {', '.join(KINDS)}.")
        layer = whole(self.layer, f"The layer of site {self.kind!r}", 0)
        if layer and self.kind in _UNLAYERED:
            raise InputError(f"Site {self.kind!r} has no layer {layer}.")
        object.__setattr__(self, "layer", layer)  # Python's, whoever's integer was given

    @classmethod
    def parse(cls, name: str | Site) -> Site:
        """Read a site from its TransformerLens hook name or its short form.

        Parameters
        ----------
        name : str or Site
            For example `blocks.3.hook_resid_post`, `hook_embed`, `resid_post 3`, `embed`.

        Returns
        -------
        Site

        Raises
        ------
        InputError
            If the name is not that of a known site.
        """
        if isinstance(name, Site):
            return name
        if not isinstance(name, str):
            raise InputError(f"A site is a name or a Site, not {name!r}.")
        for kind, hook in _UNLAYERED.items():
            if name in (kind, hook):
                return cls(kind)
        for kind, pattern in _PATTERNS:
            match = pattern.fullmatch(name) or re.fullmatch(rf"{kind}[ .](\d+)", name)
            if match:
                return cls(kind, int(match[1]))
        raise InputError(
            f"{name!r} is not a site. Write it as TransformerLens does "
            "(`blocks.3.hook_resid_post`) or in short (`resid_post 3`)."
        )

    @property
    def short(self) -> str:
        """Kind and layer in words, for labels."""
        return self.kind if self.kind in _UNLAYERED else f"{self.kind} {self.layer}"

    def __str__(self) -> str:
        """Return the TransformerLens hook name."""
        return _UNLAYERED.get(self.kind) or _HOOKS[self.kind].format(self.layer)

    def __lt__(self, other: Site) -> bool:
        """Return whether this site is computed before the other."""
        return self._order() < other._order()

    def _order(self) -> tuple[int, int, int]:
        rank = KINDS.index(self.kind)
        part = {"embed": 0, "logits": 2}.get(self.kind, 1)
        return part, self.layer, rank
