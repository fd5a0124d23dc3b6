"""The explorer in Chromium: every gesture, in both themes and at three widths."""

import json
import re
import time

import pytest

import circuit_toolkit as ct
from circuit_toolkit.circuit.circuit import Circuit
from tests.panels.screen import Screen, faint, features_of

pytestmark = pytest.mark.browser
VIEW = 'document.querySelector(".ct-stage").circuitView'
NETWORK = f"{VIEW}.network"
STORE = "Mary and Tom went to the store. Tom gave a ring to"


@pytest.fixture(scope="module")
def opened(demo, demo_saes):
    panel = ct.explore(demo, demo_saes, STORE)
    return panel, panel.view


@pytest.fixture
def explorer(opened):
    """A panel as it opens; it is the same one, which saves time."""
    panel, view = opened
    panel.turn("off")
    panel.selected = ()
    panel._draw(view)
    panel._done.clear()
    panel._undone.clear()
    panel._show_controls()
    panel._busy = {}
    return panel


@pytest.fixture
def screen(page, explorer):
    made = Screen(page, explorer)
    yield made
    assert not made.errors


@pytest.fixture(scope="module")
def fitted(demo, demo_saes):
    panel = ct.explore(demo, demo_saes, n=96)
    panel.learn()
    return panel


def spot(screen, name):
    """Where a node stands in the window."""
    return screen.page.evaluate(
        """(id) => {
            const { network } = document.querySelector(".ct-stage").circuitView;
            const box = network.canvas.frame.canvas.getBoundingClientRect();
            const at = network.canvasToDOM(network.getPosition(id));
            return [box.x + at.x, box.y + at.y];
        }""",
        name,
    )


def click(screen, name, **options):
    screen.page.mouse.move(*spot(screen, name))
    if options.get("shift"):
        screen.page.keyboard.down("Shift")
    screen.page.mouse.click(*spot(screen, name))
    if options.get("shift"):
        screen.page.keyboard.up("Shift")
    screen.page.wait_for_timeout(350)  # not a double click with the next one
    screen.settle()


def side(screen):
    return screen.page.locator(".ct-side").inner_text()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [800, 1100, 1600])
def test_graph_and_card_are_on_screen_together(page, explorer, width, dark):
    explorer.selected = features_of(explorer)[0]
    screen = Screen(page, explorer, width, 900, dark)
    box = page.locator(".ct-explorer").bounding_box()
    assert box["height"] <= min(0.8 * 900, 760) + 1
    inside = page.evaluate(
        """() => ["top", "bar", "centre", "foot"].map((n) => document.querySelector(`.ct-${n}`))
            .every((each) => { const b = each.getBoundingClientRect(),
                r = document.querySelector(".ct-explorer").getBoundingClientRect();
              return b.bottom <= r.bottom + 1 && b.right <= r.right + 1 && b.width > 50; })"""
    )
    assert inside and page.locator(".ct-stage canvas").is_visible()
    if width >= 924:
        assert page.locator(".ct-side").is_visible()
    else:  # a drawer
        assert not page.locator(".ct-side").is_visible()
        page.get_by_role("button", name="show the card").click()
        page.wait_for_timeout(250)
        assert page.locator(".ct-side").is_visible()
    named = explorer.circuit.node_table().set_index("id").loc[explorer.selected[0], "label"]
    assert named in side(screen)
    for slider in page.locator("input[type=range]:visible").all():
        assert slider.bounding_box()["width"] > 80, "sliders do not collapse"
    assert not screen.errors


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_texts_have_the_contrast_that_wcag_asks_for(page, explorer, dark):
    explorer.selected = features_of(explorer)[0]
    explorer.turn("ablate")
    Screen(page, explorer, 1100, 900, dark)
    page.locator(".ct-dials").get_by_text("ablate").click()
    assert not faint(page)


def test_a_click_shows_the_card_and_its_rows_are_links(screen, explorer):
    name = features_of(explorer)[-1]
    click(screen, name)
    assert explorer.selected == (name,) and "Where it activates" in side(screen)
    edges = explorer.circuit.edge_table()
    around = edges[(edges["source"] == name) | (edges["target"] == name)]
    links = screen.page.locator(".ct-link")
    assert links.count() == len(around), "the lists are complete"
    other = links.first.get_attribute("title").split(": ")[0]
    links.first.click()
    screen.settle()
    assert explorer.selected[0] in {*around["source"], *around["target"]} - {name}
    assert explorer.selected[0] == other or other.startswith(explorer.selected[0])


def test_a_click_shows_the_card_at_once(screen, explorer):
    name = features_of(explorer)[-1]
    title = explorer.circuit.node_table().set_index("id").loc[name, "label"]
    x, y = spot(screen, name)
    screen.page.mouse.move(x, y)
    screen.page.mouse.click(x, y)
    screen.page.wait_for_timeout(60)  # Python is not asked in this test before the next line
    assert title in side(screen), "what the graph knows is told without Python"
    screen.settle()


def test_shift_click_selects_several_and_g_groups_them(screen, explorer):
    first, second, *_ = features_of(explorer)[-6::3]
    click(screen, first)
    click(screen, second, shift=True)
    assert explorer.selected == (first, second)
    screen.page.locator(".ct-canvas").focus()
    screen.page.keyboard.press("g")
    screen.page.keyboard.type("my two")
    screen.page.keyboard.press("Enter")
    screen.settle()
    assert explorer.groups == {"my two": [first, second]} and explorer.selected == ("my two",)
    assert "supernode of 2" in side(screen)
    screen.page.get_by_role("button", name="take the supernode apart").click()
    screen.settle()
    assert explorer.groups == {}


def test_keys_pin_search_walk_and_clear(screen, explorer):
    page, ids = screen.page, explorer.circuit.ids()
    page.locator(".ct-canvas").focus()
    page.keyboard.press("ArrowUp")
    screen.settle()
    assert explorer.selected == (ids[-1],), "the target first"
    page.keyboard.press("ArrowDown")
    screen.settle()
    edges = explorer.circuit.edges
    into = edges[edges["target"] == len(ids) - 1]
    assert explorer.selected == (ids[int(into["source"][into["score"].argmax()])],)
    assert page.locator(".ct-card").is_visible(), "the tooltip is reached by the keyboard"
    page.keyboard.press("p")
    screen.settle()
    assert explorer.view.pinned == explorer.selected
    page.keyboard.press("/")
    wanted = features_of(explorer)[2]
    page.keyboard.type(wanted.partition("@")[0])
    page.keyboard.press("Enter")
    screen.settle()
    assert explorer.selected[0].startswith(wanted.partition("@")[0])
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    screen.settle()
    assert explorer.selected == () and page.locator(".ct-card").is_hidden()


def test_the_graph_is_told_to_a_screen_reader(screen, explorer):
    page = screen.page
    graph = page.get_by_role("listbox")
    assert re.search(r"\d+ nodes, \d+ edges", graph.get_attribute("aria-label"))
    options = graph.get_by_role("option")
    assert options.count() == len(explorer._scene["nodes"])
    graph.focus()
    page.keyboard.press("ArrowUp")
    chosen = graph.get_attribute("aria-activedescendant")
    assert page.locator(f"#{chosen}").get_attribute("aria-selected") == "true"
    said = page.locator(".ct-graph [aria-live]").inner_text()
    assert explorer.circuit.nodes["label"][-1] in said
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll(".ct-explorer :is(button, input, select)")]
            .filter((e) => !e.getAttribute("aria-label") && !e.textContent.trim())
            .filter((e) => !e.closest("label")).length"""
    )
    assert unnamed == 0
    shared = page.locator(
        ".ct-explorer :is(button, input, select, [tabindex]):not([data-lm-suppress-shortcuts])"
    )
    assert shared.count() == 0, "JupyterLab would take the keys for its own"


def test_a_double_click_renames(screen, explorer):
    name = features_of(explorer)[-1]
    screen.page.mouse.dblclick(*spot(screen, name))
    screen.settle()
    box = screen.page.get_by_label("New name")
    box.fill("the mover")
    box.press("Enter")
    screen.settle()
    assert explorer.view.names == {name: "the mover"}
    assert "the mover" in explorer.circuit.nodes["label"]


def test_a_prompt_is_typed_and_unknown_words_are_marked(screen, explorer):
    page = screen.page
    page.locator(".ct-chips").press("Enter")
    page.locator(".ct-typed").fill("mary and Tom went to the zoo. Tom gave a frobnicator to")
    page.locator(".ct-typed").press("Enter")
    screen.settle()
    assert page.locator(".ct-unknown").all_inner_texts() == ["frobnicator"]
    assert "does not know “frobnicator”" in page.locator(".ct-progress").inner_text()
    assert explorer.prompt == STORE
    page.locator(".ct-chips").press("Enter")
    page.locator(".ct-typed").fill("mary and Tom went to the zoo. Tom gave a ring to")
    page.locator(".ct-typed").press("Enter")
    screen.settle()
    assert explorer.prompt.startswith("Mary and Tom went to the zoo")
    assert page.locator(".ct-chip").all_inner_texts()[1:3] == ["Mary", "and"]
    assert page.locator(".ct-likely").count() == 5
    assert explorer._top["target"].split("= ")[1] == page.locator(".ct-value").inner_text()
    page.get_by_label("wrong answer").fill("Tom")
    page.get_by_label("wrong answer").press("Enter")
    page.locator(".ct-chips").focus()
    screen.settle()
    assert explorer.answers[1] == "Tom"


def test_the_dial_shows_before_after_and_random_sets(screen, explorer):
    page, name = screen.page, features_of(explorer)[-1]
    click(screen, name)
    page.locator(".ct-dials").get_by_text("ablate").click()
    screen.settle()
    assert explorer.dial.how == "ablate"
    assert (
        page.locator(".ct-random").count() == 1 and page.locator(".ct-dial tbody tr").count() == 5
    )
    told = page.locator(".ct-dial").inner_text()
    assert "20 random sets of equal size" in told
    page.locator(".ct-dials").get_by_text("scale").click()
    screen.settle()
    page.get_by_label("times").press("End")
    screen.settle()
    assert explorer.dial.how == "scale" and explorer.dial.value == 4
    page.get_by_role("button", name="Continue the prompt").click()
    screen.settle()
    assert "as it is:" in page.locator(".ct-said").inner_text()


def test_strength_keeps_zoom_and_places_and_agrees_with_python(page, fitted):
    screen = Screen(page, fitted)
    fitted.strength = 0.1
    screen.settle()
    page.get_by_role("button", name="zoom in").click()
    view = f"[{NETWORK}.getScale(), {NETWORK}.getViewPosition()]"
    zoom, before = page.evaluate(view), page.evaluate(f"{NETWORK}.getPositions()")
    slider = page.get_by_label("Strength")
    slider.focus()
    for _ in range(3):
        slider.press("ArrowRight")
        screen.settle()
    strengths = fitted._controls["strengths"]
    at = int(slider.input_value())
    assert fitted.strength == pytest.approx(strengths[at], rel=1e-3)
    assert float(page.locator(".ct-of-strength output").inner_text()) == pytest.approx(
        fitted.strength, rel=1e-2
    )
    after = page.evaluate(f"{NETWORK}.getPositions()")
    kept = set(before) & set(after)
    assert len(kept) > 20 and all(before[name] == after[name] for name in kept)
    assert page.evaluate(view) == zoom, "the zoom stays"
    assert set(after) == {node["id"] for node in fitted._scene["nodes"]}, "what is gone has gone"
    assert page.locator(".ct-of-strength polyline").count() == 1, "the held-out fit"
    assert strengths == sorted(strengths), "to the right stronger, as in the figure of the path"
    assert not screen.errors


def test_this_prompt_or_all_prompts(page, fitted):
    screen = Screen(page, fitted)
    page.get_by_role("button", name="this prompt").click()
    screen.settle()
    assert not fitted.view.everywhere and fitted.circuit.settings["scope"] == "prompt"
    page.get_by_role("button", name="all prompts").click()
    screen.settle()
    assert fitted.view.everywhere


def test_sites_are_chips_and_the_circuit_is_learnt_anew(page, demo, demo_saes):
    panel = ct.explore(demo, dict(list(demo_saes.items())[3:6]), n=64)
    screen = Screen(page, panel)
    page.get_by_role("button", name="Learn it with CircuitLasso").click()
    screen.settle()
    assert panel.method == "randomised" and "verdict" in " ".join(panel._foot["lines"])
    page.get_by_role("button", name="Which sites").click()
    chips = page.locator(".ct-sites button")
    assert chips.count() == 3
    chips.first.focus()
    page.keyboard.press("Space")
    screen.settle()
    assert len(panel.view.sites) == 2 and len(panel.fit.sites) == 2
    panel.close()


def test_undo_redo_and_every_file(screen, explorer, tmp_path):
    page = screen.page
    page.get_by_label("Size").fill("20")
    screen.settle()
    assert explorer.size == 20
    page.get_by_role("button", name="undo").click()
    screen.settle()
    assert explorer.size == 40
    page.get_by_role("button", name="redo").click()
    screen.settle()
    assert explorer.size == 20
    for words in ("session", "HTML", "SVG", "PNG", "circuit as JSON", "Neuronpedia"):
        page.get_by_role("button", name="Save what is shown").click()
        page.get_by_role("button", name=re.compile(f"save as {words}")).click()
        screen.settle()
    files = screen.files
    assert len(files) == 6 and files["circuit.png"].startswith(b"\x89PNG")
    assert b"<svg" in files["circuit.svg"] and b"<html" in files["circuit.html"]
    (tmp_path / "circuit.json").write_bytes(files["circuit.json"])
    assert Circuit.load(tmp_path / "circuit.json").ids() == explorer.circuit.ids()
    assert json.loads(files["circuit-neuronpedia.json"])["nodes"]
    (tmp_path / "session.json").write_bytes(files["session.json"])
    assert ct.explore(session=tmp_path / "session.json").view == explorer.view


def test_edges_say_how_they_fared(page, fitted):
    fitted.test()
    screen = Screen(page, fitted)
    edges = page.evaluate(
        f"{VIEW}.drawn().edges.map((e) => [e.status, Boolean(e.dashes), e.arrows.middle.enabled])"
    )
    weights = [edge["weight"] for edge in fitted._scene["edges"]]
    assert {status for status, *_ in edges} >= {"confirmed", "refuted"}
    for (status, dashed, tick), weight in zip(edges, weights, strict=True):
        assert dashed == (status == "refuted") and tick == (weight < 0)
    assert page.locator(".ct-foot").get_attribute("class").endswith(fitted._foot["tone"])
    assert page.locator(".ct-verdict").inner_text() == fitted._foot["words"]
    assert not screen.errors


def test_the_tooltip_goes_when_the_pointer_leaves(screen, explorer):
    page = screen.page
    page.mouse.move(*spot(screen, features_of(explorer)[0]))
    page.wait_for_timeout(120)
    assert page.locator(".ct-card").is_visible()
    page.mouse.move(5, 5)
    page.wait_for_timeout(120)
    assert page.locator(".ct-card").is_hidden()


def test_the_theme_may_change_while_it_is_open(screen, explorer):
    page = screen.page
    before = page.evaluate("getComputedStyle(document.querySelector('.ct-explorer')).color")
    page.evaluate(
        """() => { document.body.style.setProperty("--jp-layout-color0", "#111");
            document.body.style.setProperty("--jp-content-font-color1", "#fff");
            document.body.dataset.jpThemeLight = "false"; }"""
    )
    page.wait_for_timeout(150)
    assert page.evaluate("getComputedStyle(document.querySelector('.ct-explorer')).color") != before
    fonts = page.evaluate(f"Object.values({NETWORK}.body.nodes)[0].options.font.color")
    assert fonts != "#323f4b"


def test_a_strength_that_is_dragged_ends_where_it_was_left(page, fitted):
    screen = Screen(page, fitted)
    slider, began = page.get_by_label("Strength"), time.monotonic()
    for at in (2, 5, 9, 12, 7):
        slider.fill(str(at))
    screen.settle()
    assert fitted.strength == pytest.approx(fitted._controls["strengths"][7], rel=1e-3)
    assert time.monotonic() - began < 60


def test_long_work_has_a_bar_and_a_stop_and_takes_no_clicks(screen, explorer):
    page = screen.page
    explorer._busy = {"words": "capturing prompts", "step": "capture", "done": 3, "total": 12}
    screen.settle()
    bar = page.locator(".ct-progress")
    bar.wait_for()
    assert "capturing prompts … capture 3 of 12" in bar.inner_text()
    assert page.locator(".ct-done").evaluate("(e) => e.style.width") == "25%"
    held = page.get_by_role("button", name="Learn it with CircuitLasso")
    assert held.is_disabled() and page.get_by_label("Method").is_disabled()
    explorer._stop.clear()
    bar.get_by_role("button", name="stop").click()
    screen.settle()
    assert explorer._stop.is_set()
    explorer._busy = {}
    screen.settle()
    assert bar.is_hidden() and held.is_enabled()
