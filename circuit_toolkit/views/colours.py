"""Every colour that is drawn with; style sheets, scripts and templates get them from here too."""

from __future__ import annotations

import numpy as np

INK = "#1f2933"
TEXT = "#323f4b"
MUTED = "#52606d"
QUIET = "#616e7c"
FAINT = "#66727f"
GREY = "#9aa5b1"
RULE = "#d5dae0"
WASH = "#eef1f4"
BAND = "#f6f8fa"
PAPER = "#ffffff"
POSITIVE, NEGATIVE = "#2b6cb0", "#dd6b20"  # blue and orange differ to colour-blind eyes too
NEGATIVE_INK = "#b4500f"  # for text, which wants more contrast
TEAL, TEAL_INK, TEAL_RULE, TEAL_WASH = "#21918c", "#12504d", "#9fd6cf", "#d8efed"
GOOD, GOOD_WASH = "#14573c", "#e6f4ee"
WARNING, WARNING_WASH = "#7a4b00", "#fdf0d5"
ERROR, ERROR_WASH = "#b3261e", "#fbe6e4"
RING = "#f2b705"  # round a node that is selected
BUTTON, BUTTON_OVER, BUTTON_INK = "#1f6f6b", "#175754", "#fffffe"  # of what to do next
GOLD, SLATE = "#c9a227", "#66788a"

# By name, for a style sheet (`var(--ct-teal-ink)`) and a script (`COLOURS.TEAL_INK`).
NAMED = {name: value for name, value in globals().items() if name.isupper()}
# Where JupyterLab has its own: surfaces, borders and text follow its theme.
OF_JUPYTER = {
    "PAPER": "--jp-layout-color0",
    "BAND": "--jp-layout-color1",
    "WASH": "--jp-layout-color2",
    "RULE": "--jp-border-color2",
    "INK": "--jp-content-font-color1",
    "TEXT": "--jp-content-font-color1",
}
DARK = {  # in a dark theme; contrast of text at least 4.5, of lines 3
    **{"INK": "#e8ecf0", "TEXT": "#dfe4e9", "MUTED": "#b4bec8", "QUIET": "#a9b4bf"},
    **{"FAINT": "#a3aeb9", "GREY": "#8b96a3", "RULE": "#4a535c", "WASH": "#2d3339"},
    **{"BAND": "#1d2125", "PAPER": "#111111", "POSITIVE": "#7ab8f5", "NEGATIVE": "#f5a05a"},
    **{"TEAL": "#4cc2bb", "TEAL_INK": "#b6ece7", "TEAL_RULE": "#2f7d78", "TEAL_WASH": "#123f3c"},
    **{"GOOD": "#8fd6b4", "GOOD_WASH": "#12352a", "WARNING": "#f2c879", "WARNING_WASH": "#40300f"},
    **{"ERROR": "#ff9c94", "ERROR_WASH": "#4a1d1a", "RING": "#ffd54a", "NEGATIVE_INK": "#f5a05a"},
}

# From dark to light and from violet to green, even to colour-blind eyes (after viridis, whose
# yellow end is too pale on white): early sites are dark.
RAMP = ("#46327e", "#3b528b", "#2c728e", TEAL, "#35a779", "#7bbf4a")
# What a figure in a dark theme is drawn in instead.
OF_FIGURES = {INK: DARK["INK"], RULE: DARK["RULE"], GREY: DARK["GREY"]}
OF_FIGURES |= {RAMP[0]: "#a99bd6", RAMP[1]: "#8fa3dd", "#1f2d3d": DARK["INK"]}
RISING = [[0, PAPER], [0.5, TEAL_RULE], [1, RAMP[2]]]
DIVERGING = [[0, NEGATIVE], [0.5, PAPER], [1, POSITIVE]]

# By kind of method: exact, gradients, ours, trivial baselines; others take turns.
METHODS = {
    "edge_patching": "#1f2d3d",
    "activation_patching": SLATE,
    "attribution_patching": GOLD,
    "eap": "#f0b27a",
    "eap_absolute": "#dd6b20",
    "eap_ig": "#e6a5a0",
    "eap_ig_absolute": "#b03a2e",
    "component_lasso": "#b9a3d6",
    "randomised_lasso": TEAL,
    "edge_lasso": "#2c5fa8",
    "random": "#b8c0c8",
    "empty": RULE,
}
OTHER_METHODS = ("#7b4ea3", "#3d9970", "#a35d4e", "#4e7ba3")


def channels(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue of `#rrggbb`, from 0 to 255."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def faded(colour: str, opacity: float) -> str:
    """Return a colour that lets through what is behind it."""
    red, green, blue = channels(colour)
    return f"rgba({red},{green},{blue},{opacity:.2f})"


def shaded(value: float, peak: float, least: float = 0.1, most: float = 0.75) -> str:
    """Return the background of a token by an activation, empty where it is next to nothing."""
    share = min(abs(value) / peak, 1.0) if peak > 0 else 0.0
    colour = TEAL if value > 0 else NEGATIVE
    return faded(colour, least + (most - least) * share) if share > 0.01 else ""


def of_sign(value: float) -> str:
    """Return the colour of a weight."""
    return NEGATIVE if value < 0 else POSITIVE


def site_colours(count: int) -> list[str]:
    """Return a colour for each of `count` sites, in order of computation."""
    stops = np.array(list(map(channels, RAMP)))  # (6, 3)
    at = np.linspace(0, len(RAMP) - 1, count) if count > 1 else np.array([2.0] * count)
    rgb = np.stack([np.interp(at, range(len(RAMP)), stops[:, i]) for i in range(3)], axis=1)
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rgb.round().astype(int).tolist()]
