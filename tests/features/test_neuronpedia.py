"""Labels from Neuronpedia: a server on this machine stands for it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

import circuit_toolkit as ct
from circuit_toolkit.errors import FileFormatError, InputError
from circuit_toolkit.features import neuronpedia_labels
from circuit_toolkit.sites import Site
from tests.dictionaries.published import FEATURES, about, family_model, write

SITE = Site("resid_pre", 1)
QUIET = {"progress": False}
PAGES = {
    3: {"explanations": [{"description": "names of  cities"}, {"description": "towns"}]},
    5: {"explanations": []},
    6: {"index": "6"},
    8: {"explanations": [{"description": "x" * 10_000 + "\x1b[31m"}]},
    9: {"explanations": [{"description": "\x1b[31mred\u202e"}]},
}


class Stand(HTTPServer):
    """Serves pages by feature; `asked` is what was asked for, `answer` replaces all of it."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []
        self.answer: tuple[int, bytes] | None = None
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        stand: Stand = self.server  # pyright: ignore
        stand.asked.append(self.path)
        page = PAGES.get(int(self.path.rpartition("/")[2]))
        status, body = (404, b"") if page is None else (200, json.dumps(page).encode())
        status, body = stand.answer or (status, body)
        if status == 0:  # never answers
            threading.Event().wait(1.0)
            return
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Stand() as stand:
        thread = threading.Thread(target=stand.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield stand
        stand.shutdown()
        thread.join()


@pytest.fixture
def saes(tmp_path, monkeypatch):
    monkeypatch.setenv("CIRCUIT_TOOLKIT_CACHE", str(tmp_path / "cache"))
    model = family_model("gpt2")
    said = about(model, str(SITE), neuronpedia_id="gpt2-small/1-res-jb")
    return ct.load_dictionaries(model, write(tmp_path / "sae", "standard", model.width, said))


def test_labels_are_fetched_once_and_fit_where_labels_are_taken(saes, server):
    wanted = {"resid_pre 1": np.array([3, 5, 6, 3, 7])}
    found = neuronpedia_labels(saes, wanted, server=server.address, **QUIET)
    assert list(found) == [SITE] and len(found[SITE]) == FEATURES
    assert {i: label for i, label in enumerate(found[SITE]) if label} == {3: "names of cities"}
    paths = [f"/api/feature/gpt2-small/1-res-jb/{i}" for i in (3, 5, 6, 7)]
    assert server.asked == paths
    again = neuronpedia_labels(saes[SITE], {SITE: [3, 7, 9]}, server=server.address, **QUIET)
    assert server.asked[4:] == ["/api/feature/gpt2-small/1-res-jb/9"]  # also that there is none
    assert again[SITE][3] == "names of cities"
    neuronpedia_labels([*saes.values()], {SITE: [3]}, refresh=True, server=server.address, **QUIET)
    assert len(server.asked) == 6


def test_labels_are_bounded_and_print(saes, server):
    found = neuronpedia_labels(saes, {SITE: [8, 9]}, server=server.address, **QUIET)[SITE]
    assert found[8] == "x" * 400
    assert found[9].isprintable() and "red" in found[9]


def test_without_a_network_what_is_kept_is_there_and_the_rest_is_an_error(saes, server):
    neuronpedia_labels(saes, {SITE: [3]}, server=server.address, **QUIET)
    closed = "http://127.0.0.1:9"  # nobody listens
    assert neuronpedia_labels(saes, {SITE: [3]}, server=closed, **QUIET)[SITE][3]
    with pytest.raises(InputError, match="out of reach, so labels of 1 features .* Connect to the"):
        neuronpedia_labels(saes, {SITE: [3, 5]}, server=closed, **QUIET)


@pytest.mark.parametrize(
    "answer, error, message",
    [
        ((429, b""), InputError, "was refused: 429 .* what came so far is kept"),
        ((500, b""), InputError, "was refused: 500"),
        ((0, b""), InputError, "could not be fetched: .*timed out"),
        ((200, b"<html>"), FileFormatError, "is not readable JSON"),
        ((200, b'{"a": 1, "a": 2}'), FileFormatError, "the key 'a' is there twice"),
        ((200, b"[1]"), FileFormatError, "no explanations of a feature"),
        ((200, b'{"explanations": "x"}'), FileFormatError, "no explanations of a feature"),
        ((200, b'{"explanations": [1]}'), FileFormatError, "no explanations of a feature"),
        ((200, b"[" * 100_000), FileFormatError, "nested more than"),
        ((200, b" " * (2**24 + 1)), FileFormatError, "more than 16,777,216 bytes"),
    ],
)
def test_answers_that_are_none_are_named_and_not_kept(saes, server, answer, error, message):
    neuronpedia_labels(saes, {SITE: [3]}, server=server.address, **QUIET)
    server.answer = answer
    with pytest.raises(error, match=message):
        neuronpedia_labels(saes, {SITE: [3, 5]}, timeout=0.2, server=server.address, **QUIET)
    server.answer = None
    found = neuronpedia_labels(saes, {SITE: [3, 5]}, server=server.address, **QUIET)
    assert found[SITE][3] == "names of cities" and len(server.asked) == 3  # 3, 5 failed, 5


def test_a_damaged_cache_is_named(saes, server, tmp_path):
    file = tmp_path / "cache" / "neuronpedia" / "gpt2-small" / "1-res-jb.json"
    neuronpedia_labels(saes, {SITE: [3]}, server=server.address, **QUIET)
    assert json.loads(file.read_text()) == {"3": "names of cities"}
    for content in ('{"3": 4}', "[]", "{"):
        file.write_text(content)
        with pytest.raises(FileFormatError, match=r"1-res-jb.json .*Delete it"):
            neuronpedia_labels(saes, {SITE: [3]}, server=server.address, **QUIET)


def test_what_cannot_be_asked_for_is_refused_before(saes, demo_saes, server):
    for given, message in [
        ((saes, [3]), "features must be a dict of sites to numbers"),
        ((saes, {"resid_pre 2": [3]}), "No dictionary was given for blocks.2"),
        ((saes, {SITE: [FEATURES]}), f"has features 0 to {FEATURES - 1}"),
        ((saes, {SITE: [0.5]}), "must be whole numbers"),
        ((3, {SITE: [0]}), "dictionaries must be dictionaries, got 3"),
        (({SITE: 3}, {SITE: [0]}), "dictionaries must be a Dictionary"),
        ((demo_saes, {"resid_post 3": [0]}), "has no pages on Neuronpedia that are known"),
    ]:
        with pytest.raises(InputError, match=message):
            neuronpedia_labels(*given, server=server.address, **QUIET)
    for address in ("http://example.org", "file:///etc/passwd", "ftp://127.0.0.1", 7):
        with pytest.raises(InputError, match="server must be an address that begins with https"):
            neuronpedia_labels(saes, {SITE: [3]}, server=address, **QUIET)  # pyright: ignore
    assert not server.asked


def test_a_card_links_to_the_page_and_nothing_is_fetched(demo, demo_saes, server, monkeypatch):
    acts = ct.capture(demo, demo_saes, ["the boys near the cabinet"], progress=False)
    plain = ct.feature_card(demo, demo_saes, "resid_post 3/7", acts, n_neighbours=0)
    assert "neuronpedia" not in plain.to_html().lower()
    sae = demo_saes[Site("resid_post", 3)].sae
    monkeypatch.setitem(sae.cfg.metadata.__dict__, "neuronpedia_id", "demo/3-res")
    card = ct.feature_card(demo, demo_saes, "resid_post 3/7", acts, n_neighbours=0)
    link = (
        '<a href="https://www.neuronpedia.org/demo/3-res/7" target="_blank" '
        'rel="noopener noreferrer">on Neuronpedia</a>'
    )
    assert link in card.to_html() and link in card._repr_html_()
    card.settings["neuronpedia"] = "javascript:alert(1)"
    assert "javascript" not in card.to_html()
