"""A notebook as a page of Markdown, with what its cells showed.

mkdocs-jupyter would insert the HTML of nbconvert with styles and scripts of its own: its links are
not checked, its code looks different from that of other pages, and it ignores the dark theme. Here
text and code become Markdown like that of any page; marks stand for outputs until the page is HTML.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from urllib.parse import quote

import nbformat

STILL = "data-ct-still"  # what a panel shows without a kernel: an output before the widget's own
VIEW = "application/vnd.jupyter.widget-view+json"
STATE = "application/vnd.jupyter.widget-state+json"
COLOURED = re.compile(r"#T_[^{]*\{[^}]*background")  # cells of a table of pandas
MARK = '<div data-output="{}"></div>'
UNRUN = (
    '!!! note "Shown without outputs"\n'
    "    This notebook was not run when the site was built. `make docs` runs it{}.\n"
)


def page(notebook: Path, real: bool) -> tuple[str, list[str]]:
    """Return a notebook as Markdown with marks, and the HTML that belongs in their places."""
    book = nbformat.read(notebook, as_version=4)
    parts: list[str] = []
    outputs: list[str] = []
    widgets = book.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    ran = any(cell.get("outputs") for cell in book.cells)
    for cell in book.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        shown = [each for each in map(as_html, cell.outputs) if each]
        stills = any(STILL in each for each in shown)
        shown += [] if stills else [each for each in panels(cell.outputs, widgets) if each]
        if shown:
            parts.append(MARK.format(len(outputs)))
            outputs.append(f'<div class="nb-outputs jp-OutputArea">{"".join(shown)}</div>')
    if not ran:
        first, _, rest = parts[0].partition("\n")
        where = ", where `make real` has fetched the weights" if real else ""
        parts[0] = f"{first}\n\n{UNRUN.format(where)}\n{rest}"
    return "\n\n".join(parts) + "\n", outputs


def as_html(output: nbformat.NotebookNode) -> str:
    """Return an output as HTML; progress that is over is empty."""
    if output.output_type == "stream":
        kept = re.sub(r"[^\n]*\r(?!\n)", "", output.text)  # bars that were drawn over
        warned = " nb-stderr" if output.name == "stderr" else ""
        return kept.strip() and wrapped(f"<pre>{html.escape(kept)}</pre>", "nb-text" + warned)
    if output.output_type == "error":
        raise ValueError(f"a cell ended in {output.ename}: {output.evalue}")
    data = output.data
    if "application/vnd.plotly.v1+json" in data:
        figure = json.dumps(data["application/vnd.plotly.v1+json"]).replace("</", "<\\/")
        script = f'<script type="application/json">{figure}</script>'
        return wrapped(f'<div class="nb-plotly">{script}</div>', "nb-figure")
    if "image/svg+xml" in data:
        return wrapped(data["image/svg+xml"], "nb-figure")
    if "image/png" in data:
        picture = quote("".join(data["image/png"].split()), safe="+/=")
        return wrapped(f'<img alt="" src="data:image/png;base64,{picture}">', "nb-figure")
    if "text/html" in data:
        kind = "nb-figure" if STILL in data["text/html"] else "nb-html"
        kind += " nb-paper" * bool(COLOURED.search(data["text/html"]))
        return data["text/html"].strip() and wrapped(data["text/html"], kind)
    if VIEW in data:
        return ""  # see panels
    return wrapped(f"<pre>{html.escape(data.get('text/plain', ''))}</pre>", "nb-text")


def panels(outputs: list[nbformat.NotebookNode], widgets: dict) -> list[str]:
    """Return what panels of ipywidgets say, without their controls, which need a kernel."""

    def said(model: str) -> list[str]:
        state = widgets.get(model, {}).get("state", {})
        own = [state.get("value")] if state.get("_model_name") == "HTMLModel" else []
        inner = [each.removeprefix("IPY_MODEL_") for each in state.get("children", [])]
        return [each for each in own if each] + [text for each in inner for text in said(each)]

    views = [each.data[VIEW]["model_id"] for each in outputs if VIEW in each.get("data", {})]
    return [wrapped("".join(said(model)), "nb-html ct-panel") for model in views if said(model)]


def wrapped(content: str, kind: str) -> str:
    """Return an output in the boxes that JupyterLab has, to which the toolkit's styles refer."""
    inner = f'<div class="jp-OutputArea-output {kind}">{content}</div>'
    return f'<div class="jp-OutputArea-child">{inner}</div>'


def filled(content: str, outputs: list[str]) -> str:
    """Put the outputs of a page into the places that its marks keep."""
    for i, output in enumerate(outputs):
        content = content.replace(MARK.format(i), output, 1)
    return content
