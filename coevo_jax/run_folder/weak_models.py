"""The checkpoints that later learnings take their weak model from: they outlive the newest ones."""

from coevo_jax.config.options import Config
from coevo_jax.config.recipe import LearnOptions
from coevo_jax.config.recipe_queries import learnings_of
from coevo_jax.recipe import Phase, find_phase, schedule
from coevo_jax.run_folder.manifest import Manifest

LAST = 2  # the learning under way looks at the one before it, and the next one at this


def takes_previous(learning: LearnOptions | None) -> bool:
    """Whether a learning's weak model is the agent as its learning of the round before began with it."""
    return learning is not None and learning.beside is not None and learning.beside.weak == "previous_round"


def previous_of(config: Config, phase: Phase) -> Phase | None:
    """The same learning of the round before; None in the first round."""
    if phase.round == 1:
        return None
    return find_phase(config, f"round-{phase.round - 1:02d}/{phase.name.rpartition('/')[2]}")


def needed_checkpoints(config: Config, manifest: Manifest) -> set[int]:
    """Numbers of the checkpoints that learnings under way and to come still need."""
    if not any(map(takes_previous, learnings_of(config.recipe))):
        return set()
    begun = {one.name: one for one in (*manifest.done, *([manifest.running] if manifest.running else []))}
    by_learning: dict[str, list[int]] = {}
    for phase in schedule(config):
        if takes_previous(phase.learning) and phase.name in begun:
            number = begun[phase.name].records["began_with"]
            by_learning.setdefault(phase.name.rpartition("/")[2], []).append(number)
    return {number for numbers in by_learning.values() for number in numbers[-LAST:]}
