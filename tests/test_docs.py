"""The pages for readers agree with the code."""

import re
import runpy
from pathlib import Path

import yaml

import circuit_toolkit as ct
from tests.test_architecture import FLOORS

ROOT = Path(__file__).resolve().parent.parent
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "binder/README.md"]


def test_the_api_page_lists_what_there_is():
    page = runpy.run_path(str(ROOT / "docs/make_api.py"))["page"]()
    assert (ROOT / "docs/api.md").read_text(encoding="utf-8") == page, "run docs/make_api.py"
    assert all(f"`ct.{name}`" in page for name in ct.__all__)


def test_the_page_of_the_architecture_has_the_floors():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", text, re.MULTILINE)
    told = [(int(floor), re.findall(r"`(\w+)`", names)) for floor, names in rows]
    assert {(floor, name) for floor, names in told for name in names} == {
        (floor, name) for floor, names in enumerate(FLOORS, 1) for name in names
    }


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in PAGES:
        prose = FENCED.sub("", page.read_text(encoding="utf-8"))
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
            if "://" not in link and not (page.parent / link).exists():
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken


def test_files_named_in_the_pages_exist():
    named = {
        path
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for path in re.findall(
            r"`((?:circuit_toolkit|tests|benchmarks|notebooks|docs)/[\w./]+)`",
            page.read_text(encoding="utf-8"),
        )
    }
    assert not [path for path in sorted(named) if not (ROOT / path).exists()]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == ct.__version__ and citation["cff-version"] == "1.2.0"
    assert all({"title", "authors", "url"} <= set(each) for each in citation["references"])


def test_each_row_of_the_interop_page_names_a_test_that_is_there():
    page = (ROOT / "docs/interop.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    rows = [line for line in rows if not line.startswith("| what ")]
    assert len(rows) > 40
    for row in rows:
        named = re.search(r"\| `(tests/[\w/]+\.py)::(test_\w+)` \|$", row)
        assert named, row
        source = (ROOT / named[1]).read_text(encoding="utf-8")
        assert f"\ndef {named[2]}(" in source, row
