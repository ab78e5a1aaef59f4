"""A run ends, with the reasons, where its environment is broken rather than now and then in trouble."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from coevo_jax.data.parquet import read_trajectories
from coevo_jax.episode_stats.faults import fault_reasons, reason_words
from coevo_jax.rollout.stats import RolloutStats
from coevo_jax.run_folder.run import Run
from coevo_jax.trajectory import Trajectory

LEAST_FAULTS = 8


class EnvironmentBroken(Exception):
    """So many episodes ended in faults that the environment, not the agents, needs looking after."""


class AgentBroken(Exception):
    """An agent gives probabilities that are no numbers: nothing that it plays would mean anything."""


def require_numbers(phase: str, trajectories: Iterable[Trajectory]) -> None:
    """Look at what an agent wrote before it is kept.

    Raises:
      AgentBroken: a log-probability is not finite.
    """
    for one in trajectories:
        broken = np.flatnonzero(~np.isfinite(one.logps))
        if len(broken):
            raise AgentBroken(
                f"{phase}: the {one.agent} agent gives token {broken[0]} of its episode of {one.task_id} the "
                f"log-probability {one.logps[broken[0]]}, expected a finite number: its parameters are "
                "broken. Nothing of this block is kept; what was committed before is intact: continue with "
                "--resume"
            )


class FaultWatch:
    """Counts the faults of a phase, of what is played since it was begun or resumed."""

    def __init__(self, run: Run, phase: str):
        self._run, self._phase = run, phase
        self._episodes = self._faults = 0

    def see(self, stats: RolloutStats, shard: Path) -> None:
        """Take a block's counts; all processes do, with the same ones.

        Raises:
          EnvironmentBroken: the share of faults has passed `env.max_fault_share`.
        """
        faults = stats.faults - stats.lost
        self._episodes += stats.episodes
        self._faults += faults
        most = self._run.config.env.max_fault_share
        if not faults or self._faults < LEAST_FAULTS or self._faults <= most * self._episodes:
            return
        words = self._run.processes.once(
            "faults", lambda: reason_words(fault_reasons(read_trajectories([shard])))
        )
        raise EnvironmentBroken(
            f"{self._phase}: the environment broke in {self._faults} of {self._episodes} episodes (more than "
            f"env.max_fault_share={most:g}): {words}. What was committed before is intact: mend the "
            "environment and continue with --resume"
        )
