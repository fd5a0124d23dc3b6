"""Every block of docs/troubleshooting.md: the wrong ones raise what is said, the others run."""

import re
import warnings
from pathlib import Path

import pytest

from circuit_toolkit.errors import ToolkitError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "troubleshooting.md"


def blocks(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_what_is_wrong_raises_what_is_said_and_what_is_right_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    known: dict = {}
    head, *sections = PAGE.read_text(encoding="utf-8").split("\n### ")
    for section in [head, *sections]:
        title, found = section.partition("\n")[0], blocks(section)
        said = [" ".join(text.split()) for kind, text in found if kind == "text"]
        for i, code in enumerate(text for kind, text in found if kind == "python"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if said and i == 0:
                    with pytest.raises(ToolkitError) as raised:
                        exec(code, known)
                    assert said[0] in " ".join(str(raised.value).split()), title
                else:
                    exec(code, known)
    assert len(sections) > 15 and len(known) > 5
