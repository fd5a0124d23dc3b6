"""Folders are gone on with on the same inputs only, and none of a user's files is ever removed."""

import os
from pathlib import Path

import pytest

from circuit_toolkit.errors import FileFormatError, InputError, MismatchError
from circuit_toolkit.files.folder import (
    FolderKind,
    ResumableFolder,
    check_replaceable,
    differences,
    remove_files,
    replacing,
)

KIND = FolderKind("sums", "circuit_toolkit.sums", 1, "Add them up again.")
INPUTS = {"model": "demo", "weights": "a" * 64, "layers": {"0": [1, 2], "1": [3]}}


def opened(folder, inputs=INPUTS, **more):
    n_files = more.pop("n_files", None)
    return ResumableFolder.opened(folder, KIND, {"inputs": inputs, **more}, n_files=n_files)


def fill(folder, names=("a", "b"), **more):
    with opened(folder, **more) as files:
        for name in names:
            files.write(name, lambda part, name=name: part.write_text(name), n=1)
    return folder


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_it_is_gone_on_with_and_ends_at_the_same_bytes(tmp_path):
    whole = fill(tmp_path / "whole", ["b", "a", "cc"])
    fill(tmp_path / "cut", ["cc"])
    with opened(tmp_path / "cut") as files:
        assert list(files.files) == ["cc"]
    fill(tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(whole)
    there = ResumableFolder.read(whole, KIND)
    assert list(there.files) == ["a", "b", "cc"] and there.files["a"]["n"] == 1
    assert there.checked("a").read_text() == "a"


def test_a_home_folder_is_one(home):
    fill("~/sums")
    assert (home / "sums" / "a").is_file() and ResumableFolder.read("~/sums", KIND).files


def test_what_differs_is_said(tmp_path):
    fill(tmp_path)
    before = contents(tmp_path)
    other = {"model": "other", "weights": "b" * 64, "layers": {"0": [1, 3]}}
    with pytest.raises(MismatchError) as error, opened(tmp_path, other):
        pass
    said = (
        "holds sums of other inputs: model 'demo' there, 'other' here; other weights; "
        "layers 0 [1, 2] there, [1, 3] here; layers 1 only there. Pass the same inputs"
    )
    assert said in str(error.value)
    assert contents(tmp_path) == before
    many = {str(n): n for n in range(9)}
    assert differences(many, dict(reversed(many.items()))) == ["in another order"]
    with pytest.raises(MismatchError, match="and 7 more"), opened(tmp_path, many):
        pass


def test_other_versions_read_what_is_complete_and_do_not_go_on(tmp_path):
    fill(tmp_path, made_with={"torch": "2"})
    with opened(tmp_path, made_with={"torch": "3"}, n_files=2):
        pass
    with (
        pytest.raises(MismatchError, match="torch '2' there, '3' here"),
        opened(tmp_path, made_with={"torch": "3"}, n_files=3),
    ):
        pass
    (tmp_path / "b").unlink()
    with (
        pytest.raises(MismatchError, match="torch"),
        opened(tmp_path, made_with={"torch": "3"}, n_files=2),
    ):
        pass


def test_what_was_saved_without_inputs_is_not_gone_on_with(tmp_path):
    fill(tmp_path, inputs={})
    with pytest.raises(MismatchError, match="holds sums that were saved"), opened(tmp_path):
        pass


def test_parts_of_dead_processes_are_removed_and_no_others(tmp_path):
    fill(tmp_path)
    dead = tmp_path / f".a.{'0' * 32}.part"
    dead.mkdir()
    (dead / ".tmpt3aZ5l").write_bytes(b"half")  # of safetensors
    (tmp_path / ".notes.part").write_text("mine")
    with opened(tmp_path):
        pass
    assert set(contents(tmp_path)) == {"a", "b", "manifest.json", ".lock", ".notes.part"}


@pytest.mark.parametrize("name", ["thesis.txt", ".tmpt3aZ5l", ".thesis.part"])
def test_a_folder_of_something_else_is_left_as_it_is(tmp_path, name):
    (tmp_path / name).write_text("words")
    with pytest.raises(InputError, match=f"holds '{name}' and no sums"), opened(tmp_path):
        pass
    assert contents(tmp_path) == {name: b"words"}


def test_a_dead_process_that_wrote_no_manifest_leaves_no_foreign_folder(tmp_path):
    (tmp_path / f".manifest.json.{'f' * 32}.part").mkdir()
    (tmp_path / ".lock").touch()
    assert set(contents(fill(tmp_path))) == {"a", "b", "manifest.json", ".lock"}


def test_one_process_at_a_time(tmp_path):
    with opened(tmp_path), pytest.raises(InputError, match="Another process"), opened(tmp_path):
        pass


def test_damage_is_named(tmp_path):
    fill(tmp_path)
    (tmp_path / "a").write_text("c")
    with pytest.raises(FileFormatError, match=r"a is damaged.*Add them up again"), opened(tmp_path):
        pass
    (tmp_path / "a").unlink()
    with pytest.raises(FileFormatError, match="a is missing. Add them"):
        ResumableFolder.read(tmp_path, KIND).checked("a")
    with opened(tmp_path) as files:  # which is made anew
        assert list(files.files) == ["b"]
    with pytest.raises(FileFormatError, match=r"holds no sums: it has no manifest\.json"):
        ResumableFolder.read(tmp_path / "none", KIND)


def write(folder, ours=("*.json",), text="new"):
    with replacing(folder, ours) as new:
        (new / "a.json").write_text(text)


def test_a_folder_of_our_files_is_replaced_whole_or_not_at_all(home):
    write("~/out")
    write(home / "out", text="newer")
    assert contents(home / "out") == {"a.json": b"newer"}
    (home / "empty").mkdir()
    write(home / "empty", ours=())
    with pytest.raises(ZeroDivisionError), replacing(home / "out", ["*.json"]) as new:
        (new / "a.json").write_text("half")
        raise ZeroDivisionError
    assert contents(home / "out") == {"a.json": b"newer"}
    assert sorted(path.name for path in home.iterdir()) == ["empty", "out"]


def test_no_folder_of_a_user_is_replaced(tmp_path, monkeypatch):
    mine = tmp_path / "my_results"
    mine.mkdir()
    (mine / "a.json").write_text("old")
    (mine / "thesis.txt").write_text("words")
    (tmp_path / "nested" / "a.json").mkdir(parents=True)
    (tmp_path / "file").write_text("words")
    os.symlink(mine, tmp_path / "link")
    monkeypatch.chdir(tmp_path / "nested" / "a.json")
    for folder in (mine, tmp_path / "link", tmp_path / "nested", tmp_path / "file", Path(".")):
        for refused in (write, lambda each: remove_files(each, ["*.json"]), check_replaceable):
            with pytest.raises(InputError, match="Pass"):
                refused(folder)
    assert contents(mine) == {"a.json": b"old", "thesis.txt": b"words"}


def test_what_comes_in_while_it_is_written_is_not_lost(tmp_path):
    write(tmp_path / "out")
    with (
        pytest.raises(InputError, match="'thesis.txt', and is not replaced"),
        replacing(tmp_path / "out", ["*.json"]),
    ):
        (tmp_path / "out" / "thesis.txt").write_text("words")
    assert contents(tmp_path / "out") == {"a.json": b"new", "thesis.txt": b"words"}


@pytest.mark.parametrize("at", [1, 2])
def test_an_interruption_while_folders_change_places_leaves_the_old_one(tmp_path, monkeypatch, at):
    write(tmp_path / "out")
    calls, replace = [], os.replace

    def stop(*args):
        calls.append(args)
        if len(calls) == at:
            raise KeyboardInterrupt
        replace(*args)

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out", text="newer")
    assert contents(tmp_path / "out") == {"a.json": b"new"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_links_stay_links_and_only_what_they_point_to_is_replaced(tmp_path):
    write(tmp_path / "out")
    (tmp_path / "thesis.json").write_text("words")
    (tmp_path / "out" / "b.json").symlink_to("../thesis.json")
    (tmp_path / "link").symlink_to("out")
    write(tmp_path / "link", text="newer")
    assert (tmp_path / "link").is_symlink() and contents(tmp_path / "out") == {"a.json": b"newer"}
    assert (tmp_path / "thesis.json").read_text() == "words"
