"""A disk that is full, or a folder that cannot be written to: one line, nothing lost, and on again.

It is planted: from some change of a file on, whatever takes room fails as the system lets it fail.
"""

import errno

import pytest

from circuit_toolkit.cli import main
from circuit_toolkit.errors import ToolkitError
from tests.fuzz.kills import contents, works
from tests.killed import full_at


@pytest.fixture(scope="module")
def every_work():
    return works()


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *((name, errno.ENOSPC) for name in ("capture", "descriptions", "circuits")),
        ("training of an autoencoder", errno.ENOSPC),
        ("training of transcoders", errno.ENOSPC),
        ("answers of an explainer", errno.ENOSPC),
        ("circuits", errno.EROFS),
    ],
)
def test_it_is_named_and_the_work_goes_on_when_there_is_room(every_work, tmp_path, name, fault):
    work = every_work[name]
    work(tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    for number in (2, 9):
        here = tmp_path / str(number)
        here.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            refused = full_at(patch, number, fault)
            with pytest.raises(ToolkitError, match="could not be written") as error:
                work(here)
        said = " ".join(str(error.value).split())
        assert refused and "call again" in said and len(said.splitlines()) == 1
        kept = contents(here)
        assert not [each for each in kept if each.endswith(".part")], kept.keys()
        work(here)
        assert contents(here) == whole


def test_a_command_says_so_in_one_line(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        full_at(patch, 1, errno.ENOSPC)
        out = tmp_path / "table.json"
        assert main(["describe", "--layer", "0", "--json", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{out} could not be written: no space left" in said
    assert list(tmp_path.iterdir()) == []
