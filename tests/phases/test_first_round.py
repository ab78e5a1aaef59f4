"""What an agent's first round begins with: fresh moments, for both agents alike."""

import jax
import numpy as np
import pytest

from coevo_jax.coevolution import coevolve
from coevo_jax.phases.agents import restore_agents
from coevo_jax.phases.world import build_world
from coevo_jax.run_folder.run import create_run, open_run
from tests.tiny import tiny_config

pytestmark = pytest.mark.usefixtures("letters")


@pytest.mark.slow
def test_kept_optimizers_begin_with_the_first_round_not_with_the_warm_start(tmp_path):
    keep = ("agents.target.keep_optimizer=true", "agents.failure.keep_optimizer=true")
    run = create_run(tiny_config(tmp_path, "rounds=2", "explore.tasks=['40:50','50:60']", *keep))
    coevolve(run)
    run.close()
    run = open_run(run.folder)
    world = build_world(run.config, run.folder)
    agents = restore_agents(run, world)
    for agent in ("target", "failure"):
        learned = [run.manifest.record(f"round-0{number}/learn_{agent}") for number in (1, 2)]
        steps = sum(record.position for record in learned if record is not None)
        counts = {
            int(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(agents[agent].opt_state)
            if "count" in jax.tree_util.keystr(path)
        }
        assert counts == {steps}
        moments = [np.abs(leaf).max() for leaf in jax.tree.leaves(agents[agent].opt_state)]
        assert max(moments) > 0
    world.close()
    run.close()
