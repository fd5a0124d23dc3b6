"""The panel of features in JupyterLab in a browser: every gesture, both themes, three widths."""

import re

import pytest

from tests.lab import in_theme, open_notebook, report, run_all, served, written
from tests.panels.screen import faint

CELL = """
import circuit_toolkit as ct
model = ct.load_model("demo")
few = dict(list(ct.load_dictionaries(model, kind="transcoder").items())[2:4])
described = ct.WeightLens("paper").describe(model, few, progress=False)
texts = ct.tasks.ioi(model, n=24).clean + ct.tasks.agreement(model, n=24).clean
panel = ct.explore_features(model, few, texts, descriptions=described, progress=False)
panel
"""
REPORT = """
import json
print("<<" + json.dumps({
    "selected": panel.selected, "card": panel.card.name,
    "listed": [each.name for each in panel._listing.entries],
    "shares": [-1.0 if "never" in each.what else float(each.what.rpartition(", ")[2].split("%")[0])
               for each in panel._listing.entries if "%" in each.what and panel._sentence],
    "values": [float(each.what.split(" on ")[0]) for each in panel._listing.entries
               if panel._sentence],
    "labels": [each.label for each in panel._listing.entries],
}) + ">>")
"""
SENTENCE = "Mary and Tom went to the store"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    written(folder / "features.ipynb", [CELL, REPORT])
    with served(folder) as address:
        yield address("features.ipynb")


@pytest.fixture
def panel(lab, page):
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    open_notebook(page, lab, 1100, 1000)
    run_all(page)
    page.evaluate("window.jupyterapp.shell.collapseLeft()")
    found = page.locator(".ct-features")
    found.locator(".ct-fc h3").wait_for()
    found.scroll_into_view_if_needed()
    yield found
    assert not errors


def listed(panel):
    return panel.locator(".ct-body select option")


def line(panel, row):
    return listed(panel).nth(row).inner_text().replace("\xa0", " ")


def box(panel, label):
    return panel.locator(".widget-text", has_text=re.compile(f"^{label}$")).locator("input")


def menu(panel, label):
    return panel.locator(".widget-dropdown", has_text=label).locator("select")


def settled(page):
    """Wait until the kernel has done what was asked: it takes messages one after another."""
    for _ in range(2):  # a widget holds a second message back until the first is done
        page.wait_for_timeout(150)
        report(page)


@pytest.mark.browser
def test_a_sentence_is_typed_sorted_filtered_and_paged(panel, page):
    total = 2 * 384
    assert "features of" in panel.inner_text() and listed(panel).count() == 100

    text = box(panel, "Text")
    text.fill(SENTENCE)
    text.press("Enter")
    panel.get_by_text("This sentence activates").wait_for()
    settled(page)
    found = report(page)
    assert 100 < len(found["listed"]) < total and found["shares"] == sorted(found["shares"])[::-1]
    first = line(panel, 0)
    assert re.fullmatch(r"mlp_in \d/\d+ · .+ · [\d.]+ on “.+”, \d+%(; on \d tokens)?", first)

    text.press_sequentially(" .")  # live: no Enter, as it took no longer than a moment
    panel.locator(".widget-toggle-buttons button", has_text=re.compile(r"^\.$")).wait_for()
    text.press("Backspace")
    text.press("Backspace")
    settled(page)

    menu(panel, "Sort").select_option(label="by activation")
    settled(page)
    by_value = report(page)
    assert by_value["values"] == sorted(by_value["values"])[::-1]
    assert sorted(by_value["listed"]) == sorted(found["listed"])

    assert panel.get_by_text(f"1 to 100 of {len(found['listed'])}").is_visible()
    panel.get_by_role("button", name="Next").click()
    panel.get_by_text(re.compile("^101 to ")).wait_for()
    on_page = listed(panel).count()
    assert on_page == min(len(found["listed"]) - 100, 100)
    panel.get_by_role("button", name="Previous").click()
    panel.get_by_text(re.compile("^1 to 100")).wait_for()

    menu(panel, "Layer").select_option(label="mlp_in 3")
    settled(page)
    there = report(page)["listed"]
    assert there and all(name.startswith("mlp_in 3/") for name in there)
    panel.locator(".widget-toggle-buttons button", has_text="Tom").click()
    panel.get_by_text("At Tom this sentence activates").wait_for()
    settled(page)
    at_tom = report(page)["listed"]
    assert {*at_tom} < {*there}

    menu(panel, "Layer").select_option(label="all layers")
    settled(page)
    panel.locator(".widget-toggle-buttons button", has_text="all tokens").click()
    settled(page)
    box(panel, "Label").fill("THE")
    box(panel, "Label").press("Enter")
    settled(page)
    kept = report(page)
    assert kept["labels"] and all("the" in each.lower() for each in kept["labels"])
    assert len(kept["labels"]) < len(found["labels"])


@pytest.mark.browser
def test_a_click_shows_the_card_and_where_in_the_sentence(panel, page):
    text = box(panel, "Text")
    text.fill(SENTENCE)
    text.press("Enter")
    panel.get_by_text("This sentence activates").wait_for()
    settled(page)
    name = line(panel, 4).split(" · ")[0]
    listed(panel).nth(4).click()
    settled(page)
    told = report(page)
    site, index = told["selected"].rsplit("/", 1)
    assert f"mlp_in {site.split('.')[1]}/{index}" == name
    assert panel.locator(".ct-fc code").first.inner_text() == told["selected"] == told["card"]
    shown = panel.locator(".ct-body > :first-child").inner_text()
    assert "Mary and Tom went to the store" in shown.replace("\n", " ")
    box(panel, "Feature").fill("mlp_in 2/7")
    box(panel, "Feature").press("Enter")
    settled(page)
    assert panel.locator(".ct-fc code").first.inner_text() == "blocks.2.ln2.hook_normalized/7"


@pytest.mark.browser
def test_list_and_card_are_on_one_screen_and_can_be_read(panel, page):
    """In both themes, at three widths; contrast by WCAG AA."""
    for width, dark in [(w, d) for w in (800, 1100, 1600) for d in (False, True)]:
        page.set_viewport_size({"width": width, "height": 1000})
        in_theme(page, dark)
        panel.scroll_into_view_if_needed()
        assert panel.bounding_box()["height"] <= 800, (width, dark)
        card, choices = panel.locator(".ct-fc"), panel.locator(".ct-body select")
        assert card.is_visible() and choices.is_visible()
        inside, body = choices.bounding_box(), panel.bounding_box()
        assert inside["height"] >= 100 and inside["width"] >= 250
        assert inside["x"] + inside["width"] <= body["x"] + body["width"] + 1
        assert panel.evaluate("(e) => e.scrollWidth <= e.clientWidth + 1"), (width, dark)
        assert not faint(page, ".ct-features"), (width, dark)
    in_theme(page, False)
    panel.get_by_text("Thresholds of descriptions").click()
    panel.get_by_text("Least share").wait_for()
    for slider in panel.locator(".widget-slider .slider-container").all():
        assert slider.bounding_box()["width"] > 60, "sliders do not collapse"
