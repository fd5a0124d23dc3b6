"""Every block of every page: Python runs, or says what it needs; commands are those there are."""

import contextlib
import re
import shlex
import warnings

import pytest

from circuit_toolkit.cli import _parser
from tests.pages import ROOT, blocks, misused, pages

SMALLER = [  # what takes long on a page is short here
    (r"\bn=(\d{2,})", "n=24"),
    (r"sentences\(\d+\)", "sentences(400)"),
    (r"steps=\d+", "steps=10"),
    (r"n_features=\d+", "n_features=64"),
]
OWN_TEST = {"troubleshooting.md"}  # test_troubleshooting.py
PAGES = [page for page in pages() if page.name not in OWN_TEST]


def name(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_block_runs_or_is_right(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known: dict = {"__name__": "page"}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.kind == "python" and block.runs:
            code = block.text
            for pattern, small in SMALLER:
                code = re.sub(pattern, small, code)
            with warnings.catch_warnings(), contextlib.redirect_stdout(None):
                warnings.simplefilter("ignore")
                exec(compile(code, name(page), "exec"), known)
        elif block.kind == "python":
            compile(block.text, name(page), "exec")
            assert not misused(block.text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_each_command_is_one_that_there_is(page):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for block in blocks(page.read_text(encoding="utf-8")):
        for line in block.text.splitlines() if block.kind == "sh" else ():
            words = shlex.split(line, comments=True)
            if words[:1] == ["circuit-toolkit"]:
                _parser().parse_args(words[1:])
            elif words[:1] == ["make"]:
                assert {word for word in words[1:] if "=" not in word} <= {*targets}, line


def test_what_is_not_there_is_found():
    wrong = "ct.capture(model, saes, task, shards=3)\nct.no_such_name(1)\nct.tasks.ioi(model, n=3)"
    assert [each.partition(":")[0] for each in misused(wrong)] == [
        "ct.capture(model, saes, task, shards=3)",
        "ct.no_such_name",
    ]
    imported = "from circuit_toolkit.models import Conventions\nConventions(fold=True)"
    assert misused(imported) and not misused(imported.replace("fold", "fold_ln"))
