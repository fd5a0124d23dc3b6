"""What ships: small enough, complete, and as good as its card says."""

import json
from pathlib import Path

import pytest

import circuit_toolkit
from benchmarks.demo.card import BEGIN, END, REQUIRED, tables, update
from benchmarks.demo.evaluate import evaluate_dictionaries, evaluate_model
from circuit_toolkit.errors import FileFormatError

PACKAGE = Path(circuit_toolkit.__file__).parent
CARDS = [PACKAGE / "demo" / "model" / "README.md", PACKAGE.parent / "README.md"]


def test_the_demo_folder_is_small():
    files = [path for path in (PACKAGE / "demo").rglob("*") if "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files if path.is_file()) < 16e6


def test_both_cards_hold_the_same_measured_tables():
    first, second = (
        page.read_text().split(BEGIN)[1].split(END)[0] for page in CARDS
    )  # fmt: skip
    assert first == second and "| ioi |" in first


def test_the_model_does_its_tasks_on_what_training_never_saw(demo):
    scores = evaluate_model(demo, n=300, seed=7)  # other prompts than the card's
    for task, required in REQUIRED.items():
        for name, least in required.items():
            # Two standard errors of a share over 300 prompts, where the card has 1,000.
            slack = 2 * (least * (1 - least) / 300) ** 0.5 if least < 1 else 0.2
            assert scores[task][name] >= least - slack, (task, name)


def test_dictionaries_are_faithful_sparse_and_alive(demo, demo_saes, demo_transcoders):
    chosen = [list(demo_saes.values())[3], list(demo_transcoders.values())[2]]
    for site, row in evaluate_dictionaries(demo, chosen, n=200, seed=7).items():
        assert row["ce_recovered"] >= 0.94, site
        assert row["l0"] <= 32 and row["explained_variance"] > 0.5, site
        assert row["dead"] <= 0.2, site  # rare features need more than 200 texts to fire


def test_tables_and_update(tmp_path):
    scores = {
        "model": {task: dict.fromkeys(required, 0.5) for task, required in REQUIRED.items()},
        "dictionaries": {
            "blocks.0.hook_resid_post": dict.fromkeys(
                ("ce_recovered", "l0", "dead", "explained_variance", "role_f1"), 0.25
            )
        },
        "needed": {
            "ioi": {
                "prompt, all tokens, corrupted": {"faithful": 71},
                "prompt, last token, corrupted": {"faithful": 34},
                "errors ablated": 0.625,
            }
        },
    }
    page = tmp_path / "card.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update(page, tables(scores))
    assert "old" not in page.read_text() and page.read_text().startswith("before")
    assert page.read_text().endswith("after\n") and "25.0%" in page.read_text()
    assert "| ioi | 71 | 34 | 0.62 |" in page.read_text()
    page.write_text("no markers")
    with pytest.raises(FileFormatError, match="lacks"):
        update(page, "x")
    assert page.read_text() == "no markers"


def test_configurations_name_the_model_they_are_of():
    folders = sorted((PACKAGE / "demo" / "dictionaries").glob("*/"))
    assert len(folders) == 13
    for folder in folders:
        metadata = json.loads((folder / "cfg.json").read_text())["metadata"]
        assert metadata["model_name"] == "demo" and metadata["hook_name"]
