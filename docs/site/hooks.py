"""What MkDocs asks while it builds the site: pages from elsewhere, links, notebooks, buttons."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs.site import gallery, notebook_pages, notebooks, reference, sources  # noqa: E402

CODE = re.compile(r"(?<!</span><code>)(?<=<code>)[^<>]+(?=</code>)")  # in a line
LONG = re.compile(CODE.pattern.replace("[^<>]+", "[^<>&]{18,}"))
OUTPUTS: dict[str, list[str]] = {}  # of pages that are notebooks


def on_config(config):
    """Complete the navigation by the pages of the reference, and the address of the project."""
    if project := config.extra.get("project"):
        config.repo_url = config.repo_url or f"https://github.com/{project}"
    for section in config.nav:
        for title, items in section.items():
            if title == "Reference":
                made = [{title: page} for page, (title, _) in reference.pages().items()]
                packages = [each for each in made if "packages" in next(iter(each.values()))]
                items += [each for each in made if each not in packages]
                items.append({"Sub-packages": packages})
    return config


def on_files(files, config):
    """Add the pages that are written elsewhere, or made."""
    for existing in list(files):
        if existing.src_uri.startswith("site/") and not existing.src_uri.endswith((".css", ".js")):
            files.remove(existing)

    def add(page, content, **options):
        files.append(File.generated(config, page, content=content, **options))

    texts = {}
    for file, page in sources.INCLUDED.items():
        path = ROOT / file
        if path.suffix == ".ipynb":
            run = notebooks.kept(path)
            real = path.stem == notebooks.REAL
            texts[page], OUTPUTS[page] = notebook_pages.page(run if run.exists() else path, real)
            add(f"tutorials/{path.name}", path.read_bytes())
        else:
            texts[page] = path.read_text(encoding="utf-8")
    texts |= {page: text for page, (_, text) in reference.pages().items()}
    for page, text in texts.items():
        add(page, text)
    for name, content in gallery.shown()[1].items():
        add(name, content)
    own = {
        page.src_uri: page.content_string
        for page in files.documentation_pages()
        if page.src_uri not in texts
    }
    for page, text in sources.shown_sources(texts | own).items():
        add(page, text, inclusion=InclusionLevel.NOT_IN_NAV)
    if any("nb-plotly" in each for shown in OUTPUTS.values() for each in shown):
        from plotly.offline import get_plotlyjs

        add("site/plotly.min.js", get_plotlyjs())
    return files


def on_page_markdown(markdown, page, config, files):
    """Lead links to pages, and give tutorials their buttons."""
    address = page.file.src_uri
    if address == "api.md":
        return reference.linked(markdown)
    if address == "gallery.md":
        return markdown + gallery.shown()[0]
    text = sources.relinked(markdown, address)
    if address == "start.md":
        return f"{text}{panel_button(config.extra)}"
    if address in OUTPUTS:
        title, _, rest = text.partition("\n")
        text = f"{title}\n\n{buttons(Path(address).stem, config.extra)}\n{rest}"
    return text


def buttons(name: str, extra: dict) -> str:
    """Return what opens a notebook elsewhere; without an address of the project, the file alone."""
    links = [f"[Download the notebook]({name}.ipynb){{ .md-button }}"]
    if project := extra.get("project"):
        file, branch = f"notebooks/{name}.ipynb", extra.get("branch") or "main"
        binder = binder_address(file, extra)
        colab = f"https://colab.research.google.com/github/{project}/blob/{branch}/{file}"
        links += [f"[Open in Binder]({binder}){{ .md-button }}"]
        links += [f"[Open in Colab]({colab}){{ .md-button }}"]
        links += [f"<br>In Colab run `!pip install git+https://github.com/{project}` first."]
    return " ".join(links) + "\n"


def panel_button(extra: dict) -> str:
    """Return what opens the panel with nothing installed, where the project has an address."""
    if not extra.get("project"):
        return ""
    address = binder_address("binder/explore.ipynb", extra)
    return f"\n[Open the panel in Binder]({address}){{ .md-button .md-button--primary }}\n"


def binder_address(file: str, extra: dict) -> str:
    """Return the address at which Binder opens a file of the project."""
    branch = extra.get("branch") or "main"
    return f"https://mybinder.org/v2/gh/{extra['project']}/{branch}?urlpath=lab/tree/{file}"


def on_page_content(content, page, config, files):
    """Let long names in tables break, and put in what the cells of a notebook showed."""
    if page.file.src_uri.startswith("api/"):
        content = reference.types(content)
    content = CODE.sub(lambda found: found[0].replace("\\|", "|"), content)  # as tables write it
    content = LONG.sub(lambda found: re.sub(r"(?<=[/_.:(,])(?=\w)", "<wbr>", found[0]), content)
    outputs = OUTPUTS.get(page.file.src_uri)
    if not outputs:
        return content
    content = notebook_pages.filled(content, outputs)
    if any("nb-plotly" in each for each in outputs):
        up = os.path.relpath("site", os.path.dirname(page.file.src_uri) or ".")
        content += f'\n<script src="{up}/plotly.min.js"></script>'
        content += f'\n<script src="{up}/figures.js"></script>'
    return content
