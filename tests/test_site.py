"""The site is built without a warning, every link in it leads somewhere, and nothing is fetched."""

import html.parser
import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urldefrag

import nbformat
import pytest

pytest.importorskip("mkdocs", reason="needs the extra `docs`", exc_type=ModuleNotFoundError)

ROOT = Path(__file__).resolve().parents[1]
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


class Read(html.parser.HTMLParser):
    """What a page fetches, where it leads, and which anchors it has."""

    def __init__(self, path):
        super().__init__()
        self.fetched, self.links, self.anchors = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        have = dict(attrs)
        self.anchors |= {have.get("id"), have.get("name")}
        address = have.get(FETCHED.get(tag, ""))
        if address and have.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(address)
        if tag == "a" and have.get("href"):
            self.links.append(have["href"])


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site as it is, without running a notebook."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {page: Read(page) for page in folder.rglob("*.html") if page.name != "404.html"}


def test_it_is_built_and_fetches_nothing(site):
    assert len(site) > 50
    outside = [
        (page.name, address)
        for page, read in site.items()
        for address in read.fetched
        if re.match(r"(\w+:)?//", address)
    ]
    assert not outside


def test_the_reference_says_what_the_docstrings_say(site):
    (page,) = [
        each for each in site if each.name == "evidence.html" and "packages" not in each.parts
    ]
    text = page.read_text(encoding="utf-8")
    assert "random_sets" in text and "<th>Default</th>" not in text
    assert "SUFFICIENT</code></td>" not in text  # completeness is documented with faithfulness
    assert re.search(r"<td>\s*<code>&#39;corrupted&#39;, &#39;mean&#39;</code>", text)


def test_every_link_leads_to_a_page_and_a_place_in_it(site):
    broken, followed = [], 0
    for page, read in site.items():
        for link in [*read.links, *read.fetched]:
            if re.match(r"\w+:", link):
                continue
            path, anchor = map(unquote, urldefrag(link))
            to = (page.parent / path).resolve() if path else page
            there = to.exists() and (not anchor or to not in site or anchor in site[to].anchors)
            broken += [] if there else [(page.name, link)]
            followed += 1
    assert not broken and followed > 1000


@pytest.mark.browser
def test_pages_fit_a_narrow_screen_and_raise_nothing(site, page):
    folder = next(each.parent for each in site if each.name == "start.html")
    said: list[str] = []
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("response", lambda got: said.extend([got.url] if got.status >= 400 else []))
    page.set_viewport_size({"width": 420, "height": 800})
    quiet = partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), quiet) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for name in ("index", "comparison", "api/models", "tutorials/00_quickstart", "results"):
            page.goto(f"http://127.0.0.1:{server.server_port}/{name}.html")
            page.locator(".md-content h1").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 420, name
        server.shutdown()
    assert not said


def test_what_cells_showed_is_on_the_page(tmp_path):
    from docs.site.notebook_pages import filled, page

    figure = {"data": [{"y": [1, 2], "name": "</script>"}], "layout": {}}
    still = '<div data-ct-still="1"><svg></svg></div>'
    cell = nbformat.v4.new_code_cell("tested.show()")
    outputs = [
        ("stream", {"name": "stdout", "text": "10%\r20%\rdone <b>\n"}),
        ("display_data", {"data": {"text/html": ""}}),  # a bar that is gone
        ("display_data", {"data": {"text/html": still, "text/plain": "<Circuit>"}}),
        ("display_data", {"data": {"application/vnd.jupyter.widget-view+json": {}}}),
        ("display_data", {"data": {"application/vnd.plotly.v1+json": figure}}),
        ("display_data", {"data": {"image/png": "aGk=\n", "text/plain": "<Figure>"}}),
        ("execute_result", {"data": {"text/plain": "<Task>"}, "execution_count": 1}),
    ]
    cell.outputs = [nbformat.v4.new_output(kind, **fields) for kind, fields in outputs]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title\ntext"), cell])
    nbformat.write(book, tmp_path / "run.ipynb")
    text, shown = page(tmp_path / "run.ipynb", real=False)
    assert text.startswith("# Title\ntext") and "```python\ntested.show()\n```" in text
    content = filled(text, shown)
    assert "done &lt;b&gt;" in content and "20%" not in content
    assert still in content and content.count('class="jp-OutputArea-child"') == 5
    assert '"name": "<\\/script>"' in content and content.count("</script>") == 1
    assert "data:image/png;base64,aGk=" in content and "<pre>&lt;Task&gt;</pre>" in content

    states = {
        "a": {"_model_name": "VBoxModel", "children": ["IPY_MODEL_b", "IPY_MODEL_c"]},
        "b": {"_model_name": "ButtonModel", "description": "Next"},
        "c": {"_model_name": "HTMLModel", "value": "<p>the card</p>"},
    }
    state = {"state": {name: {"state": each} for name, each in states.items()}}
    book.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": state}
    view = {"data": {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}}}
    cell.outputs = [nbformat.v4.new_output("display_data", **view)]
    nbformat.write(book, tmp_path / "panel.ipynb")
    (shown,) = page(tmp_path / "panel.ipynb", real=False)[1]
    assert "<p>the card</p>" in shown and "Next" not in shown

    cell.outputs = []
    nbformat.write(book, tmp_path / "not_run.ipynb")
    text, shown = page(tmp_path / "not_run.ipynb", real=False)
    assert shown == [] and "was not run when the site was built" in text

    cell.outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="x", traceback=[])]
    nbformat.write(book, tmp_path / "failed.ipynb")
    with pytest.raises(ValueError, match="a cell ended in ValueError: x"):
        page(tmp_path / "failed.ipynb", real=False)


def test_what_a_notebook_showed_names_no_folder_of_the_machine(monkeypatch):
    from docs.site.notebooks import ROOT, without_home

    monkeypatch.setenv("HOME", "/home/anybody")
    said = f"lie in '/home/anybody/.cache/smollm2', not in '{ROOT}/out'"
    assert without_home(said) == "lie in '~/.cache/smollm2', not in 'out'"


def test_buttons_stand_where_the_project_has_an_address():
    from docs.site.hooks import buttons, panel_button

    assert panel_button({"project": ""}) == ""
    landing = panel_button({"project": "owner/name", "branch": "dev"})
    assert "/v2/gh/owner/name/dev?urlpath=lab/tree/binder/explore.ipynb)" in landing
    assert "binder" not in buttons("00_quickstart", {"project": ""}).lower()
    shown = buttons("00_quickstart", {"project": "owner/name", "branch": "main"})
    assert "/v2/gh/owner/name/main?urlpath=lab/tree/notebooks/00_quickstart.ipynb" in shown
    assert "/github/owner/name/blob/main/notebooks/00_quickstart.ipynb" in shown


def test_links_of_the_repository_lead_to_pages():
    from docs.site.sources import relinked, shown_sources

    text = "[a](docs/conventions.md#components) [b](notebooks/08_real_model.ipynb) `[c](README.md)`"
    assert relinked(text, "readme.md").startswith(
        "[a](conventions.md#components) [b](tutorials/08_real_model.md)"
    )
    code = "```\n[a](docs/api.md)\n```"
    assert relinked(code, "readme.md") == code
    link = "[rows](../circuit_toolkit/models/architectures.py)"
    source = "source/circuit_toolkit/models/architectures.py.md"
    assert relinked(link, "adding_a_family.md") == f"[rows]({source})"
    assert [*shown_sources({"adding_a_family.md": link})] == [source]
