"""Panels that are closed leave nothing behind: no widget, no capture, no memory."""

import ctypes
import gc
import resource
import weakref
from contextlib import suppress
from pathlib import Path

import pytest
from ipywidgets.widgets import widget

import circuit_toolkit as ct
from circuit_toolkit.head_codes import HeadCodes
from circuit_toolkit.panels.features import explore_features
from circuit_toolkit.panels.heads import explore_heads
from tests.tiny import random_transcoder

PANELS = 50


@pytest.fixture(scope="module")
def heads(tiny):
    task = ct.tasks.ioi(tiny, n=8)
    codes = HeadCodes(n_features=8, n_seeds=1, steps=2, n_train=4)
    return lambda: explore_heads(tiny, task, codes=codes)


@pytest.fixture(scope="module")
def features(demo, demo_transcoders):
    few = dict(list(demo_transcoders.items())[:2])
    described = ct.WeightLens("paper").describe(demo, few, progress=False)
    texts = ["Anna went to the store", "the boys near the cabinet"] * 4
    return lambda: explore_features(demo, few, texts, descriptions=described, progress=False)


@pytest.fixture(scope="module")
def explorer(tiny):
    made = [random_transcoder(tiny.name, layer) for layer in range(2)]
    few = [ct.dictionaries.bind_dictionary(tiny, each) for each in made]
    return lambda: ct.explore(tiny, few, "the boys near the cabinet")


KINDS = {"heads": 1, "features": 30, "explorer": 1}  # and how many widgets each has at least


def widgets() -> int:
    return len(widget._instances)


def memory() -> int:
    """Pages that this process holds now, without those that the allocator keeps for later."""
    with suppress(OSError, AttributeError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


@pytest.mark.parametrize("kind", KINDS)
def test_fifty_panels_opened_and_closed_leave_nothing(kind, request):
    """Memory within 5 %, as Python's own arenas are not all given back."""
    make = request.getfixturevalue(kind)
    for _ in range(8):  # what is made once, and what the allocator keeps
        make().close()
    gc.collect()
    before, used = widgets(), memory()
    kept, seen = [], []
    for _ in range(PANELS):
        panel = make()
        seen.append(weakref.ref(panel._scored if kind == "heads" else panel.acts))
        assert widgets() > before + KINDS[kind]
        panel.close()
        kept.append(panel)  # as a notebook's `Out` does
        assert widgets() == before
    gc.collect()
    assert not any(each() is not None for each in seen), "a capture is alive"
    assert memory() < 1.05 * used, f"{(memory() - used) / 2**20:.0f} MB more"


@pytest.mark.parametrize("kind", KINDS)
def test_closing_twice_is_closing_once(kind, request):
    panel = request.getfixturevalue(kind)()
    panel.close()
    panel.close()
    assert kind.removesuffix("s").capitalize() in repr(panel)
