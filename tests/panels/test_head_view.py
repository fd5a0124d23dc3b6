"""The map of heads in a browser: mouse, keyboard, names for screen readers, both themes."""

import json

import numpy as np
import pytest

from circuit_toolkit.panels.head_view import HeadView

pytestmark = pytest.mark.browser
WORDS = ["<bos>", "Anna", " met", "<img src=x onerror=alert(1)>", "\n", " to"]
THEMES = {  # what JupyterLab sets
    "true": {
        "--jp-layout-color0": "#ffffff",
        "--jp-layout-color2": "#eeeeee",
        "--jp-content-font-color1": "rgba(0, 0, 0, 0.87)",
        "--jp-content-font-color2": "rgba(0, 0, 0, 0.54)",
    },
    "false": {
        "--jp-layout-color0": "#111111",
        "--jp-layout-color2": "#424242",
        "--jp-content-font-color1": "#ffffff",
        "--jp-content-font-color2": "rgba(255, 255, 255, 0.7)",
    },
}
HOST = """
<style>CSS
:root { VARIABLES } body { background: var(--jp-layout-color0); }</style>
<body data-jp-theme-light="LIGHT"><div id="here"></div></body>
<script type="module">
const state = STATE, listeners = {};
const model = {
  get: (name) => state[name],
  set: (name, value) => {
    state[name] = value;
    (listeners[`change:${name}`] ?? []).forEach((f) => f());
  },
  save_changes: () => { window.saved = (window.saved ?? 0) + 1; },
  on: (event, f) => (listeners[event] ??= []).push(f),
  off: (event, f) => { listeners[event] = listeners[event].filter((g) => g !== f); },
};
Object.assign(window, { state, model, listeners });
const module = await import(URL.createObjectURL(new Blob([SCRIPT], { type: "text/javascript" })));
window.cleanup = module.default.render({ model, el: document.getElementById("here") });
window.ready = true;
</script>
"""


def view():
    """Two layers of three heads, numbered 1 and 4; head 2 of layer 4 is known."""
    made = HeadView()
    scores = np.array([[0.1, -0.2, 0.0], [0.4, 0.05, 0.3]])
    made.show_scores(scores, [1, 4], np.array([[0, 0, 0], [0, 0, 1]], bool), "effect <b>")
    pattern = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
    made.show_patterns(WORDS, {"a1.h0": pattern, "a4.h2": np.eye(6)})
    return made


@pytest.fixture
def opened(page):
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("console", lambda message: errors.append(message.text))

    def open_(light="true", width=1100):
        page.set_viewport_size({"width": width, "height": 700})
        made = view()
        state = {name: getattr(made, name) for name in ("selected", "_map", "_patterns")}
        variables = " ".join(f"{name}: {value};" for name, value in THEMES[light].items())
        text = HOST.replace("CSS", made._css).replace("VARIABLES", variables)
        text = text.replace("LIGHT", light)
        for name, value in (("STATE", state), ("SCRIPT", made._esm)):
            text = text.replace(name, json.dumps(value).replace("<", "\\u003c"))
        page.set_content(text)
        page.wait_for_function("window.ready")
        return page

    yield open_
    assert not errors


def selected(page):
    return page.evaluate("state.selected")


def head(page, name):
    return page.get_by_role("gridcell", name=name)


def test_clicks_select_one_head_or_several(opened):
    page = opened()
    head(page, "a4.h0").click()
    assert selected(page) == [[4, 0]]
    head(page, "a1.h1").click(modifiers=["Shift"])
    assert selected(page) == [[4, 0], [1, 1]]
    assert head(page, "a1.h1").get_attribute("aria-selected") == "true"
    head(page, "a4.h0").click(modifiers=["Control"])
    assert selected(page) == [[1, 1]], "again with the key takes it out"
    head(page, "a4.h2").click()
    assert selected(page) == [[4, 2]]
    head(page, "a4.h2").click()
    assert selected(page) == [], "a click on the only one"


def test_the_keyboard_reaches_every_head(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.at") == "0,0"
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)  # it stops at the edges
    assert page.evaluate("document.activeElement.dataset.at") == "1,2"
    assert "a4.h2: 0.3 effect <b>, known" in page.locator(".ct-head-said").first.inner_text()
    page.keyboard.press("Enter")
    assert selected(page) == [[4, 2]]
    assert page.evaluate("document.activeElement.dataset.at") == "1,2", "focus stays"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Shift+Enter")
    assert selected(page) == [[4, 2], [1, 2]]
    page.keyboard.press("Escape")
    assert selected(page) == []
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('role')") == "img", "the patterns"


def test_what_is_drawn_has_a_name_and_texts_stay_texts(opened):
    page = opened()
    assert page.get_by_role("gridcell").count() == 6
    assert page.get_by_role("rowheader").all_inner_texts() == ["layer 1", "layer 4"]
    assert page.get_by_role("img", name="Attention of a4.h2: to looks at to 100%").count() == 1
    assert page.locator("img, b").count() == 0
    words = page.locator(".ct-pattern").first.locator(".ct-row").all_text_contents()
    assert words[1:3] == ["Anna", "met"] and words[4] == "↵" and words[3].startswith("<img")
    look = page.locator(".ct-pattern").first.locator("rect").nth(1)
    assert look.locator("title").text_content() == "Anna looks at <bos>: 50%"
    assert look.get_attribute("fill-opacity") == "0.5"


def test_python_selects_and_redraws(opened):
    page = opened()
    page.evaluate("model.set('selected', [[1, 0]])")
    assert head(page, "a1.h0").get_attribute("aria-selected") == "true"
    page.evaluate("model.set('_patterns', { words: [], heads: [], more: 0 })")
    assert page.locator(".ct-pattern").count() == 0
    page.evaluate("cleanup()")
    assert page.evaluate("Object.values(listeners).flat().length") == 0


CONTRAST = """() => {
    const parts = (text) => text.match(/[\\d.]+/g).map(Number);
    const over = (top, below) => [0, 1, 2].map((i) => top[i] * (top[3] ?? 1) + below[i] * (1 - (top[3] ?? 1)));
    const light = (rgb) => rgb.map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const paper = parts(getComputedStyle(document.body).backgroundColor);
    const ratio = (colour) => {
        const [a, b] = [light(over(parts(colour), paper)), light(paper)].sort((x, y) => y - x);
        return (a + 0.05) / (b + 0.05);
    };
    const texts = [...document.querySelectorAll(".ct-head-said, .ct-head-axis, .ct-last, figcaption")];
    const words = [...document.querySelectorAll(".ct-pattern text")];
    return [...texts.map((e) => ratio(getComputedStyle(e).color)), ...words.map((e) => ratio(getComputedStyle(e).fill))];
}"""  # noqa: E501


@pytest.mark.parametrize("light", THEMES)
@pytest.mark.parametrize("width", [800, 1100, 1600])
def test_texts_can_be_read_and_nothing_is_cut(opened, light, width):
    """By WCAG AA: contrast of 4.5 to 1."""
    page = opened(light, width)
    ratios = page.evaluate(CONTRAST)
    assert len(ratios) > 20 and min(ratios) >= 4.5
    assert page.evaluate("document.body.scrollWidth <= innerWidth")
    page.keyboard.press("Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid", "focus is seen"
