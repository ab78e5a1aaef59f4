"""What a learning reinforces of a round's collections, as its sources yield it."""

from typing import Any

from coevo_jax.data.pairing import PairSet
from coevo_jax.data.reinforced import Credit, add_reinforced, advantage_counts
from coevo_jax.phases.material import built
from coevo_jax.phases.world import World
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.run import Run


def find_reinforced(
    run: Run, world: World, phase: Phase, pair_set: PairSet
) -> tuple[PairSet, dict[int, Credit] | None, list[dict[str, Any]]]:
    """The set with the trajectories that are reinforced, their credits, and what every source yielded.

    The credits are None where no source reinforces.
    """
    sources = phase.learning.reinforcements if phase.learning is not None else ()
    if not sources:
        return pair_set, None, []
    skip_zero = run.config.agents[phase.agent].surrogate.skip_zero
    credits: dict[int, Credit] = {}
    counts: list[dict[str, Any]] = []
    for source in sources:
        found = list(built(run, world, phase, source, world.experts))
        where = f"recipe.{phase.name.rpartition('/')[2]}.{source.label}"
        pair_set, own = add_reinforced(
            pair_set, found, weight=source.weight, skip_zero=skip_zero, where=where
        )
        credits |= own
        counts.append({"source": source.label, "learned": len(own)} | advantage_counts(found))
    return pair_set, credits, counts
