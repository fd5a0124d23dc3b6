"""The command that trains holds its folder before it loads anything."""

from circuit_toolkit import models
from circuit_toolkit.cli import main
from circuit_toolkit.cli.train import LOCK
from circuit_toolkit.files.folder import locked


def test_a_second_process_is_refused_before_anything_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(models, "load_model", None)
    with locked(tmp_path, LOCK):
        assert main(["train", "--folder", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said == (
        f"circuit-toolkit: Another process writes to {tmp_path}. Wait for it, or pass another "
        "folder.\n"
    )
