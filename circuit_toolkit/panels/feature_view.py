"""What a clicked node does: its activations over the tokens of the prompts."""

from __future__ import annotations

import html

import ipywidgets
import numpy as np
import plotly.graph_objects as go

from circuit_toolkit.activations import Activations
from circuit_toolkit.circuits.circuit import Circuit
from circuit_toolkit.circuits.tables import TARGET
from circuit_toolkit.sites import Site
from circuit_toolkit.views.figures import activation_heatmap, highlighted_text_html


class FeatureView(ipywidgets.VBox):
    """Show one feature as a heat map of prompts x tokens and as highlighted text.

    One plotly widget is made once and then filled anew: each brings its own script.

    Parameters
    ----------
    n_prompts : int
        How many prompts to show, those on which the feature is strongest.
    """

    def __init__(self, n_prompts: int = 6) -> None:
        self.n_prompts = n_prompts
        self.title = ipywidgets.HTML()
        self.figure = go.FigureWidget(activation_heatmap([[""]], [np.zeros(1)], show_text=False))
        self.text = ipywidgets.HTML()
        super().__init__([self.title, self.text, self.figure])
        self.clear()

    def clear(self) -> None:
        """Show nothing but what to do."""
        self.title.value = "<i>Click a node to see where it fires.</i>"
        self.text.value = ""
        self.figure.layout.height = 10
        self.figure.data[0].visible = False

    def show(self, circuit: Circuit, node: str, acts: Activations) -> None:
        """Show a node of a circuit.

        Parameters
        ----------
        circuit : Circuit
            Where the node is.
        node : str
            Its id, such as `blocks.3.hook_resid_post/17`.
        acts : Activations
            Captured with `positions="all"`.
        """
        row = circuit.nodes[circuit.ids().index(node)]
        label = html.escape(str(row["label"]))
        if row["site"] == TARGET:
            self.clear()
            self.title.value = (
                f"<b>{label}</b>: what the circuit explains, {row['activation']:.2f} on average."
            )
            return
        site, feature = Site.parse(str(row["site"])), int(row["feature"])
        prompts = acts.examples(site, feature, self.n_prompts)
        tokens = [acts.tokens[prompt] for prompt in prompts]
        values = [acts.of_prompt(prompt, site, feature) for prompt in prompts]
        if not prompts:
            self.clear()
            self.title.value = f"<b>{label}</b> ({node}) does not fire on these prompts."
            return
        peak = max(float(each.max()) for each in values)
        self.title.value = f"<b>{label}</b> &nbsp; <code>{html.escape(node)}</code>"
        self.text.value = "".join(
            f"<div style='margin:2px 0'>{highlighted_text_html(words, numbers, peak)}</div>"
            for words, numbers in zip(tokens, values, strict=True)
        )
        drawn = activation_heatmap(tokens, values, show_text=False)
        with self.figure.batch_update():
            heat, new = self.figure.data[0], drawn.data[0]
            heat.visible = True
            heat.z, heat.text, heat.customdata = new.z, new.text, new.customdata
            self.figure.layout.height = drawn.layout["height"]
            self.figure.layout.width = drawn.layout["width"]
