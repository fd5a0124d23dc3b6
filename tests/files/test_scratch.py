"""Scratch folders: of dead writers none stays, of writers that are alive none goes."""

import os
import resource
import signal
import time
from multiprocessing import get_context

import numpy as np
import pytest
from safetensors.numpy import save_file

from circuit_toolkit.errors import InputError, WriteError
from circuit_toolkit.files.documents import write_file, write_text
from circuit_toolkit.files.folder import locked, replacing
from circuit_toolkit.files.scratch import clear_dead, is_scratch, scratch

FORKED = get_context("fork")


def in_a_child(work, *args):
    """Run something in a process of its own; return its exit code."""
    child = FORKED.Process(target=work, args=args)
    child.start()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def parts(folder):
    return [each for each in folder.iterdir() if is_scratch(each)]


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_while_it_writes(folder):
    def write(part):
        (part.parent / ".tmpabcdef").write_text("half")  # as safetensors does
        part.write_text("half")
        die()

    write_file(folder / "a.json", write)


def test_what_a_killed_writer_left_goes_when_its_name_is_written_next(tmp_path):
    write_text(tmp_path / "a.json", "old")
    assert in_a_child(dies_while_it_writes, tmp_path) == -signal.SIGKILL
    assert (tmp_path / "a.json").read_text() == "old" and len(parts(tmp_path)) == 1
    write_text(tmp_path / "b.json", "other")
    assert len(parts(tmp_path)) == 1  # of another name
    write_text(tmp_path / "a.json", "new")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.json", "b.json"]
    assert (tmp_path / "a.json").read_text() == "new"


def writes_slowly(folder, text, ready, go):
    def write(part):
        part.write_text(text[: len(text) // 2])
        ready.set()
        assert go.wait(60)
        part.write_text(text)

    write_file(folder / "a.json", write)


def test_two_writers_of_one_name_at_once_are_both_whole(tmp_path):
    ready, go = FORKED.Event(), FORKED.Event()
    slow = FORKED.Process(target=writes_slowly, args=(tmp_path, "slow" * 99, ready, go))
    slow.start()
    assert ready.wait(60)
    write_text(tmp_path / "a.json", "fast")
    clear_dead(tmp_path)
    assert (tmp_path / "a.json").read_text() == "fast" and len(parts(tmp_path)) == 1
    go.set()
    slow.join(60)
    assert slow.exitcode == 0
    assert (tmp_path / "a.json").read_text() == "slow" * 99
    assert parts(tmp_path) == []


def writes_often(folder, number, times):
    for _ in range(times):
        write_text(folder / "a.json", str(number) * 1000)
        clear_dead(folder)


def test_many_writers_that_clear_up_harm_none(tmp_path):
    children = [FORKED.Process(target=writes_often, args=(tmp_path, i, 150)) for i in range(4)]
    for each in children:
        each.start()
    whole = {str(i) * 1000 for i in range(4)}
    while any(each.is_alive() for each in children):
        if (tmp_path / "a.json").exists():
            assert (tmp_path / "a.json").read_text() in whole
        time.sleep(0.001)
    assert [each.exitcode for each in children] == [0] * 4  # none lost its scratch folder
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("at", ["before it is locked", "while it is locked"])
def test_a_scratch_folder_that_is_taken_for_a_dead_one_is_made_again(tmp_path, monkeypatch, at):
    """Whoever clears up may come between the making of a folder and its lock."""
    seen, original = [], os.open

    def opened(path, *args, **more):
        if not seen:
            seen.append(path)
            if at == "before it is locked":
                clear_dead(tmp_path)
                assert not parts(tmp_path)
        found = original(path, *args, **more)
        if at == "while it is locked" and len(seen) == 1:
            seen.append(path)
            clear_dead(tmp_path)
            assert not parts(tmp_path)
        return found

    monkeypatch.setattr(os, "open", opened)
    with scratch(tmp_path / "a") as folder:
        assert folder.is_dir() and len(seen) > 0
        clear_dead(tmp_path)
        assert folder.is_dir()
    assert parts(tmp_path) == []


def dies_between_the_names(folder):
    original, calls = os.replace, []

    def replace(one, two):
        calls.append(one)
        if len(calls) == 2:
            die()
        original(one, two)

    os.replace = replace
    with replacing(folder / "out", ["*.json"]) as new:
        (new / "a.json").write_text("new")


def test_a_folder_whose_writer_was_killed_between_two_names_comes_back(tmp_path):
    with replacing(tmp_path / "out") as new:
        (new / "a.json").write_text("old")
    assert in_a_child(dies_between_the_names, tmp_path) == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    clear_dead(tmp_path, "out")
    assert (tmp_path / "out" / "a.json").read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def small_files_only(work, path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        work(path)
    except WriteError as error:
        said = str(error)
        assert f"{path} could not be written" in said and "call again" in said, said
        os._exit(77)


def text(path):
    write_text(path, "x" * 10_000)


def tensors(path):
    write_file(path, lambda part: save_file({"x": np.zeros(10_000)}, part))


def folder(path):
    with replacing(path, ["*"]) as new:
        (new / "a.json").write_text("x" * 10_000)


@pytest.mark.parametrize("work", [text, tensors, folder])
def test_a_disk_that_is_full_is_named_and_nothing_is_lost(tmp_path, work):
    """The largest size of files stands for it: the write fails where it stands, as there."""
    path = tmp_path / "a"
    if work is folder:
        path.mkdir()
        (path / "a.json").write_text("old")
    else:
        path.write_text("old")
    assert in_a_child(small_files_only, work, path) == 77
    assert (path / "a.json" if work is folder else path).read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("number", [28, 30, 13])  # no space, read-only, not permitted
def test_faults_of_the_system_are_named(tmp_path, monkeypatch, number):
    def fails(*_, **__):
        raise OSError(number, os.strerror(number))

    write_text(tmp_path / "a", "old")
    for name in ("mkdir", "open", "fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fails)
            with pytest.raises(WriteError, match=os.strerror(number).lower()) as error:
                write_text(tmp_path / "a", "new")
        assert error.value.errno == number and isinstance(error.value, OSError)
        assert (tmp_path / "a").read_text() == "old" and parts(tmp_path) == []


def test_errors_of_what_is_written_keep_their_kind(tmp_path):
    for kind in (ZeroDivisionError, InputError, FileNotFoundError, KeyboardInterrupt):

        def fails(_, kind=kind):
            raise kind("mine")

        with pytest.raises(kind, match="mine"):
            write_file(tmp_path / "a", fails)
    assert list(tmp_path.iterdir()) == []


def test_where_files_cannot_be_locked_they_are_written_and_none_is_cleared(tmp_path, monkeypatch):
    from circuit_toolkit.files import scratch as module

    assert in_a_child(dies_while_it_writes, tmp_path) == -signal.SIGKILL
    monkeypatch.setattr(module, "fcntl", None)
    write_text(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "new" and len(parts(tmp_path)) == 1


def test_locks_of_a_folder_know_their_name(tmp_path):
    said = "Another process writes to .*new. Wait for it"
    with (
        locked(tmp_path / "new"),
        locked(tmp_path / "new", ".other"),
        pytest.raises(InputError, match=said),
        locked(tmp_path / "new"),
    ):
        pass
    with locked(tmp_path / "new"):
        pass


def test_a_folder_that_could_not_be_put_back_is_not_lost(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.json").write_text("old")
    original, calls = os.replace, []

    def replace(one, two):
        calls.append(one)
        if len(calls) > 1:
            raise OSError(5, os.strerror(5))
        original(one, two)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(WriteError), replacing(tmp_path / "out", ["*.json"]) as new:
            (new / "a.json").write_text("new")
    clear_dead(tmp_path)
    assert (tmp_path / "out" / "a.json").read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
