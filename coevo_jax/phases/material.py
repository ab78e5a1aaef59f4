"""What builders are given: the collections that a round's earlier phases played, and the experts."""

from collections.abc import Iterable, Mapping
from typing import Any

from coevo_jax.config.check_recipe import source_options
from coevo_jax.config.recipe import AskOptions, BranchOptions, Source, played_of
from coevo_jax.envs.env import error_test
from coevo_jax.methods.material import Material
from coevo_jax.methods.table import find_builder
from coevo_jax.phases.world import World
from coevo_jax.recipe import Phase, find_phase
from coevo_jax.run_folder.collection import read_collection
from coevo_jax.run_folder.run import Run
from coevo_jax.trajectory import Trajectory


def built(
    run: Run,
    world: World,
    phase: Phase,
    source: Source | BranchOptions | AskOptions,
    experts: Mapping[str, Trajectory],
) -> Iterable[Any]:
    """What a builder makes of the collections that its source names, of the phase's round."""
    played = tuple(read_round(run, phase, name) for name in source.of)
    material = Material(played=played, experts=experts, is_error=error_test(world.env), chat=world.chat)
    return find_builder(*source.builder)(material, **source_options(source))


def read_round(run: Run, phase: Phase, name: str) -> list[Trajectory]:
    """The round's committed collection of a name: what one agent played in one phase."""
    played = played_of(run.config.recipe)[name]
    return read_collection(
        run.folder, run.manifest, find_phase(run.config, f"round-{phase.round:02d}/{played}")
    )
