"""The card as a page: every part that is there, nothing from the network, no text as code."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from circuit_toolkit.features.card import FeatureCard
from circuit_toolkit.features.examples import Example, FeatureExamples
from circuit_toolkit.sites import Site
from circuit_toolkit.views.card.html import alike, card_html, card_page

EVIL = '</p></script><script>window.evil=1</script><img src=x onerror="window.evil=1">'
SITE = Site("mlp_in", 3)


def made_up_card(text: str = "Mary") -> FeatureCard:
    """A card with every part, in which every text is the given one."""
    example = Example(("<bos>", text, "<|endoftext|>", '"q"'), (0.0, 4.0, 1.0, -0.5), 1)
    other = f"{Site('mlp_in', 2)}/4"
    examples = FeatureExamples(
        *(SITE, 17, 1000, 100, 20, 15, 4.0),
        (0.0, 2.0, 4.0),
        (15, 5),
        (example,),
        ((0.5, 1.0, (example,)), (1.0, 4.0, (example,))),
    )
    token = {"id": 5, "token": text, "contribution": 2.5, "relative": 0.1, "solo": 1.5}
    silent = token | {"solo": 0.0}
    share = {"token": text, "share": 0.5}
    return FeatureCard(
        f"{SITE}/17",
        "transcoder",
        text,
        examples,
        {"promoted": [{"id": 5, "token": text, "value": 0.5}], "suppressed": []},
        {
            "words": [text],
            "description": [{"id": 5, "token": f" {text}", "solo": 1.5}],
            "validated": True,
            "concept": text,
            "tokens": {"positive": [token, silent], "negative": [token]},
            "outputs": {"promoted": [token], "suppressed": [token]},
            "upstream": [
                {"site": str(Site("mlp_in", 1)), "index": 3, "contribution": 1.0, "words": [text]}
            ],
        },
        {
            "n_examples": 40,
            "clusters": [
                {
                    **{"label": 0, "size": 30, "share": 0.75, "description": text},
                    **{"tokens": [share], "outputs": [share]},
                    "offsets": [{"offset": -1, "share": 0.5}],
                    "heads": [{"head": "a1.h3", "share": 0.5, "reads": [text]}],
                    "upstream": [{"feature": other, "share": 0.25, "words": [text]}],
                    "examples": [{"tokens": ["a", text], "values": [0.0, 2.0], "position": 1}],
                }
            ],
        },
        ({"feature": other, "weight": 0.5, "label": text},),
        ({"feature": f"{Site('mlp_in', 4)}/6", "weight": -0.5, "label": text},),
        ({"feature": "target", "weight": 0.25, "label": text, "direction": "out"},),
        {"model": text},
    )


HEADINGS = [
    "By weights alone",
    "Where it activates",
    "Next tokens",
    "Strongest texts",
    "What activates it",
    "Upstream features",
    "Downstream features",
    "Edges out",
]


def test_every_part_is_there_and_missing_ones_are_not_shown():
    text = card_html(made_up_card())
    assert [h for h in HEADINGS if f"<h4>{h}" not in text] == []
    assert (
        'title="activation 4"' in text and "2.00% of 1,000 tokens" in text and "mlp_in 2/4" in text
    )
    assert text.count("ct-token ct-silent") == 1  # the token that does not fire it alone
    bare = replace(
        made_up_card(),
        **dict.fromkeys(("logits", "weight_lens", "circuit_lens")),
        **dict.fromkeys(("upstream", "downstream", "edges"), ()),
        label="",
    )
    found = re.findall(r"<h4>([^<]*)", card_html(bare))
    assert [each.strip() for each in found] == ["Where it activates", "Strongest texts"]
    assert "<h3>" not in card_html(bare)


def test_the_strongest_token_is_the_darkest():
    text = card_html(made_up_card())
    shades = re.findall(
        r'title="activation ([-\d.]+)" style="background:rgba\((\d+),\d+,\d+,([\d.]+)', text
    )
    by_value = {float(value): (red, float(shade)) for value, red, shade in shades}
    assert by_value[4.0] == ("33", 0.75) and by_value[1.0][1] < 0.3
    assert by_value[-0.5][0] == "221"  # below zero: another colour


def test_words_come_with_what_they_do_alone_and_how_many_texts_hold_one():
    card = made_up_card()
    text = card_html(card)
    assert "Mary <small>1.50 · 38%</small>" in text  # of the largest, 4
    assert "One is the strongest token in 1 of the 1 strongest texts." in text
    earlier = Example(("Mary", "and", "Mary"), (1.0, 4.0, 0.0), 1)
    later = Example(("Anna", "and", "Mary"), (1.0, 4.0, 0.0), 1)
    for top, said in (
        (
            (earlier, later),
            "in 0 of the 2 strongest texts, and stands before that token in 1 more.",
        ),
        ((later, later), "None of the 2 strongest texts has one up to its strongest token."),
    ):
        examples = replace(card.examples, top=top)
        assert said in card_html(replace(card, examples=examples))
    none = {**card.weight_lens, "words": [], "description": [], "validated": False}
    assert "no token that activates it alone" in card_html(replace(card, weight_lens=none))


def test_firings_that_are_in_no_cluster_are_told_of():
    card = made_up_card()
    counts = {"n_noise": 10, "n_empty": 4}
    some = card_html(replace(card, circuit_lens={**card.circuit_lens, **counts}))
    assert (
        "10 of 40 activating examples in no cluster (4 without anything that stands out)." in some
    )
    for analysis, said in (
        (
            {"n_examples": 40, "n_noise": 40, "n_empty": 40},
            "No cluster was found among 40 activating examples",
        ),
        (
            {"n_examples": 2, "settings": {"min_samples": 3}},
            "2 activating examples are too few to group",
        ),
    ):
        text = card_html(replace(card, circuit_lens={**analysis, "clusters": []}))
        assert "<h4>What activates it" in text and said in text


def test_examples_of_clusters_are_shaded_as_other_texts_and_say_where_they_go_on():
    card = made_up_card()
    example = {"tokens": ["a", "b"], "values": [0.0, 2.0], "position": 1, "after": True}
    clusters = [{**card.circuit_lens["clusters"][0], "examples": [example]}]
    text = card_html(replace(card, circuit_lens={"clusters": clusters}))
    shade = 'title="activation 2" style="background:rgba(33,145,140,0.43)"'  # half of the card's 4
    assert shade in text
    more = '<i class="ct-more">…</i>'
    assert f">b</span> {more}</p>" in text and text.count(more) == 1
    cut = replace(card.examples.top[0], before=True, after=True)
    examples = replace(card.examples, top=(cut,), quantiles=())
    assert card_html(replace(card, examples=examples, circuit_lens=None)).count(more) == 2


def test_numbers_of_a_column_have_as_many_digits():
    values = [1.0, -1.1, 0.4, 1.234]
    items = tuple({"feature": "target", "weight": value, "label": ""} for value in values)
    card = replace(made_up_card(), upstream=items, downstream=(), edges=(), logits=None)
    found = re.findall(r'ct-value">([^<]*)', card_html(card))
    assert found == ["+1.00", "−1.10", "+0.40", "+1.23"]
    assert alike([0.0]) == ["+0"] and alike([250.4, -3], "-") == ["250", "−3"]


def test_weights_of_a_circuit_are_named():
    card = made_up_card()
    assert "<small>of the circuit</small>" in card_html(card)
    for method, said in (("CircuitLasso", "regression weight, both"), ("x", "weight by x")):
        text = card_html(replace(card, settings={"circuit": method}))
        assert f"<small>of the circuit: {said}" in text


def test_the_page_names_no_address_and_runs_no_script():
    page = card_page(made_up_card())
    assert not re.search(
        r"(?i)https?:|<(?:script|link|iframe|img|base|object)\b|@import|url\(", page
    )
    assert len(card_html(made_up_card())) < 20_000


def test_text_of_others_is_escaped():
    page = card_page(made_up_card(EVIL))
    assert "<script" not in page and "<img" not in page
    assert "&lt;|endoftext|&gt;" in page and "&lt;bos&gt;" in page and "&#34;q&#34;" in page


def test_a_feature_that_never_fires_says_so():
    card = made_up_card()
    silent = replace(card.examples, maximum=0.0, n_fired_tokens=0, top=(), quantiles=())
    assert "is not active on these prompts" in card_html(replace(card, examples=silent))


# What JupyterLab's dark theme says of tables and code in outputs, in its own specificity.
LAB = """
.out:not(.other) tbody tr:nth-child(even) { background: #222; }
.out:not(.other) td, .out:not(.other) th { text-align: right; color: #eee; }
.out:not(.other) code { background: #333; color: #eee; }
.out h4, .out p, .out i { color: #eee; }
"""


@pytest.mark.browser
def test_it_reads_alike_on_a_dark_page_and_stays_in_its_width(page, tmp_path):
    path = tmp_path / "card.html"
    body = f'<div class="out">{card_html(made_up_card(EVIL))}</div></body>'
    dark = f'<style>{LAB}</style><body style="background:#111;color:#eee;margin:0">{body}'
    path.write_text(dark, encoding="utf-8")
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.set_viewport_size({"width": 900, "height": 700})
    page.goto(path.as_uri())
    assert page.evaluate("window.evil") is None and page.locator("img").count() == 0
    assert EVIL in page.locator(".ct-fc h3").inner_text()
    # every visible text is dark: luminance of its colour below .45, on the card's white
    light = page.evaluate(
        """() => [...document.querySelectorAll(".ct-fc *:not(style)")].filter((node) => {
            if (![...node.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) return false;
            const style = getComputedStyle(node);
            const colour = node.closest("svg") ? style.fill : style.color;
            const [r, g, b] = colour.match(/[\\d.]+/g).map(Number);
            return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.55 * 255;
        }).map((node) => node.outerHTML.slice(0, 80))"""
    )
    assert light == []
    assert page.evaluate("getComputedStyle(document.querySelector('.ct-fc')).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    striped = """[...document.querySelectorAll(".ct-fc :is(tr, td, th)")].filter((node) => {
        const style = getComputedStyle(node), right = node.className === "ct-value";
        return style.backgroundColor !== "rgba(0, 0, 0, 0)"
            || node.tagName !== "TR" && (style.textAlign === "right") !== right;
    }).length"""
    assert page.evaluate(striped) == 0
    page.set_viewport_size({"width": 420, "height": 700})  # a narrow column
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert not errors


@pytest.mark.browser
def test_words_are_not_broken_and_long_ones_stay_on_the_card(page, tmp_path):
    card, words = made_up_card("w" * 300), ["economy", "language", "restaurant"]
    tokens = [{"id": i, "token": word, "value": 0.5} for i, word in enumerate(words)]
    logits = {"promoted": tokens, "suppressed": [{**each, "value": -0.5} for each in tokens]}
    path = tmp_path / "card.html"
    path.write_text(card_page(replace(card, logits=logits)), encoding="utf-8")
    page.goto(path.as_uri())
    for width in (1400, 1000, 900, 420):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        wide = """[...document.querySelectorAll(".ct-fc *")].filter((node) =>
            node.getBoundingClientRect().right
                > document.querySelector(".ct-fc").getBoundingClientRect().right
        ).map((node) => node.outerHTML.slice(0, 80))"""
        assert page.evaluate(wide) == []
        for word in words:
            cell = page.locator(".ct-columns .ct-columns td", has_text=word).first
            lines = "(node) => { const r = document.createRange(); r.selectNodeContents(node);"
            assert cell.evaluate(lines + " return r.getClientRects().length }") == 1, word
