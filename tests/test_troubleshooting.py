"""Every block of docs/troubleshooting.md: the wrong ones raise what is said, the others run."""

import warnings

import pytest

from circuit_toolkit.errors import ToolkitError
from tests.pages import ROOT, blocks

PAGE = ROOT / "docs" / "troubleshooting.md"


def test_what_is_wrong_raises_what_is_said_and_what_is_right_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known: dict = {}
    head, *sections = PAGE.read_text(encoding="utf-8").split("\n### ")
    for section in [head, *sections]:
        title, found = section.partition("\n")[0], blocks(section)
        said = [" ".join(each.text.split()) for each in found if each.kind == "text"]
        for i, code in enumerate(each.text for each in found if each.kind == "python"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if said and i == 0:
                    with pytest.raises(ToolkitError) as raised:
                        exec(code, known)
                    assert said[0] in " ".join(str(raised.value).split()), title
                else:
                    exec(code, known)
    assert len(sections) > 15 and len(known) > 5
