"""Learn, read and test circuits in language models, from a notebook.

The public names stand in `__init__.pyi`, by heading. Each is loaded when it is first used, so that
`import circuit_toolkit` stays cheap.
"""

from circuit_toolkit import display
from circuit_toolkit.lazy import lazy, read_contents

__version__ = "0.1.0"

CONTENTS = read_contents(__file__)  # heading -> public name -> module that defines it
__getattr__, __dir__, __all__ = lazy(
    __name__, {name: home for names in CONTENTS.values() for name, home in names.items()}
)

display.register(
    "Circuit",
    html="circuit_toolkit.views.graph.page:graph_page",
    svg="circuit_toolkit.views.graph.svg:graph_svg",
    png="circuit_toolkit.views.graph.svg:graph_png",
    live="circuit_toolkit.panels.graph_widget:GraphWidget",
)
display.register(
    "FeatureCard",
    html="circuit_toolkit.views.card.html:card_html",
    page="circuit_toolkit.views.card.html:card_page",
)
display.register("HeadCodesFit", figure="circuit_toolkit.views.figures.heads:codes_figure")
display.register(
    "HeadComparison", figure="circuit_toolkit.views.figures.heads:head_comparison_figure"
)
