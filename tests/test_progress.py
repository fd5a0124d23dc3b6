"""Bars tell a listener of each step, shown or not, and what a listener raises ends the work."""

import pytest

from circuit_toolkit.progress import Bar, Stopped, reported


@pytest.mark.parametrize("shown", [False, True])
def test_a_listener_hears_of_each_step(shown):
    heard = []
    with reported(lambda *step: heard.append(step)):
        assert list(Bar("abc", "letters", shown=shown)) == ["a", "b", "c"]
        with Bar(total=5, initial=2, label="rows", shown=shown) as bar:
            bar.update(3)
    assert heard == [("letters", n, 3) for n in range(4)] + [("rows", 2, 5), ("rows", 5, 5)]
    list(Bar("abc", shown=shown))
    assert len(heard) == 6, "who no longer listens hears nothing"


def test_who_listens_may_stop_the_work():
    done = []

    def stop(label, n, total):
        if n == 2:
            raise Stopped("enough")

    with reported(stop), pytest.raises(Stopped, match="enough"):
        for each in Bar(range(9), shown=False):
            done.append(each)
    assert done == [0, 1]


def test_a_bar_of_unknown_length_counts():
    with Bar(label="growing", shown=False) as bar:
        bar.update()
        bar.tell("further", size=3)
    assert (bar.done, bar.total, bar.label) == (1, None, "further")
