"""What every command shares: its help, its exit codes, and a run that the user stops."""

import shlex

import pytest

import circuit_toolkit
from circuit_toolkit.cli import COMMANDS, EXAMPLES, _parser, main


def test_the_version_is_the_package_s(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"circuit-toolkit {circuit_toolkit.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_that_parse(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "examples:" in said
    for example in EXAMPLES[name]:
        assert f"circuit-toolkit {example}" in said
        assert _parser().parse_args(shlex.split(example.partition(" >")[0])).command == name


def test_what_cannot_be_asked_for_is_2_and_what_failed_is_1(capsys, tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        main(["chess"])
    assert ended.value.code == 2
    assert main(["demo", "--task", "chess", "--out", str(tmp_path)]) == 2

    def full(_):
        raise OSError("the disk is full")

    monkeypatch.setattr("circuit_toolkit.cli.tasks.run_tasks", full)
    assert main(["tasks"]) == 1 and not capsys.readouterr().out


@pytest.mark.parametrize(("command", "hint"), [("train", " Run it again to go on."), ("tasks", "")])
def test_an_interrupted_command_says_so_in_one_line(monkeypatch, capsys, command, hint):
    def stopped(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"circuit_toolkit.cli.{command}.run_{command}", stopped)
    assert main([command]) == 130
    said = capsys.readouterr()
    assert said.err == f"circuit-toolkit: {command} was interrupted.{hint}\n" and not said.out
