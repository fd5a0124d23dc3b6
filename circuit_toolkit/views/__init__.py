"""Views: pictures of circuits and activations that need no network; they compute nothing."""

from circuit_toolkit.lazy import lazy

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "attention_figure": "figures.heads",
        "compare_figure": "figures.methods",
        "evidence_figure": "figures.fit",
        "generalisation_figure": "figures.generalisation",
        "graph_page": "graph.page",
        "head_comparison_figure": "figures.heads",
        "head_figure": "figures.heads",
        "highlighted_text_html": "card.html",
        "neighbours_figure": "figures.neighbours",
        "path_figure": "figures.fit",
    },
)
