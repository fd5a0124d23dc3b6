"""What the browser is told of heads: texts stay texts, and what is drawn is what was computed."""

import numpy as np

from circuit_toolkit.panels.head_view import map_of, patterns_of

WORDS = ["<bos>", "Anna", " met", "<img src=x onerror=alert(1)>", "\n", " to"]


def test_patterns_are_cells_and_a_sentence():
    pattern = np.tril(np.ones((6, 6))) / np.arange(1, 7)[:, None]
    found = patterns_of(WORDS, {"a1.h0": pattern, "a4.h2": np.eye(6)})
    assert found["words"][1:3] == ["Anna", "met"] and found["words"][4] == "↵"
    even, own = found["heads"]
    assert own["cells"] == [[i, i, 1.0] for i in range(6)] and own["last"] == "to looks at to 100%"
    assert len(even["cells"]) == 21 and even["last"].count("17%") == 3
    assert patterns_of(WORDS, {str(i): pattern for i in range(8)})["more"] == 2


def test_a_map_has_a_number_for_every_head():
    scores = np.array([[0.1, -0.2, 0.0], [0.4, 0.05, 0.3]])
    found = map_of(scores, np.array([[0, 0, 0], [0, 0, 1]], bool), "effect")
    assert found["scores"] == scores.tolist() and found["rings"] == [[1, 2]]
    assert found["layers"] == [0, 1] and not map_of(scores, None, "effect")["rings"]
