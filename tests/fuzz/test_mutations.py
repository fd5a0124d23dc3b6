"""A few hundred damaged files; `make fuzz` makes ten thousand."""

from tests.fuzz.mutations import attacks
from tests.fuzz.outcomes import NAMED, VALID, faults


def test_damaged_files_are_refused_by_name_or_are_what_was_written():
    outcomes = [*attacks(250, seed=0)]
    assert not faults(outcomes), faults(outcomes)
    counts = {result: sum(each.result == result for each in outcomes) for result in (NAMED, VALID)}
    assert counts[NAMED] > 150 and counts[VALID] < 50  # damage that does none is no attack
