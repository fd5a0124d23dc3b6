"""What every command shares: a run that the user stops ends in one line."""

import pytest

from circuit_toolkit.cli import main


@pytest.mark.parametrize(("command", "hint"), [("train", " Run it again to go on."), ("tasks", "")])
def test_an_interrupted_command_says_so_in_one_line(monkeypatch, capsys, command, hint):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"circuit_toolkit.cli.{command}.run_{command}", stopped)
    assert main([command]) == 130
    said = capsys.readouterr()
    assert said.err == f"circuit-toolkit: {command} was interrupted.{hint}\n" and not said.out
