"""The phases of a run by their kind."""

from collections.abc import Callable

from coevo_jax.phases.evaluate import evaluate
from coevo_jax.phases.explore import (
    explore,
)
from coevo_jax.phases.learn import learn
from coevo_jax.phases.warm_start import warm_start
from coevo_jax.phases.world import (
    World,
)
from coevo_jax.run_folder.run import Run
from coevo_jax.schedule import Phase

PHASES: dict[str, Callable[[Run, World, Phase], None]] = {
    "warm_start": warm_start,
    "explore": explore,
    "learn": learn,
    "evaluate": evaluate,
}
