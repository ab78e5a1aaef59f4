"""The phases of a run by their kind."""

from collections.abc import Callable

from coevo_jax.learning.train_state import Agents
from coevo_jax.phases.ask import ask
from coevo_jax.phases.branch import branch
from coevo_jax.phases.evaluate import evaluate
from coevo_jax.phases.explore import (
    explore,
)
from coevo_jax.phases.judge import judge
from coevo_jax.phases.learn import learn
from coevo_jax.phases.warm_start import warm_start
from coevo_jax.phases.world import (
    World,
)
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.run import Run

PHASES: dict[str, Callable[[Run, World, Agents, Phase], Agents]] = {
    "warm_start": warm_start,
    "explore": explore,
    "branch": branch,
    "ask": ask,
    "judge": judge,
    "learn": learn,
    "evaluate": evaluate,
}
