"""Work that is killed and finished is work that nobody killed; the long form is `make fuzz`."""

from tests.fuzz.kills import attacks
from tests.fuzz.outcomes import faults


def test_a_handful_of_kills():
    outcomes = list(attacks(count=6, seed=1))
    assert len(outcomes) == 6 and not faults(outcomes)
