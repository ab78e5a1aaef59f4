"""The audit over a run that was made before recipes."""

import pytest

from coevo_jax.audit.audit import run_audit
from tests.old_run import unpack


@pytest.mark.slow
@pytest.mark.usefixtures("letters")
def test_a_run_from_before_recipes_holds(tmp_path):
    states = {one.name: one.state for one in run_audit(unpack(tmp_path))}
    assert "BROKEN" not in states.values(), states
    assert {name for name, state in states.items() if state == "held"} >= {
        "pairs/round-01/learn_target",
        "pairs/round-01/learn_failure",
        "plan/round-01/learn_target",
        "whose/round-01/explore_hard_negatives",
        "logps/round-01/explore_failure",
    }
