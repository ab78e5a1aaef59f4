"""The proof that tasks are tasks, at a run's start and while it plays; pairs of what parted are refused.

Where a task is another one at every reset, every pair of its roll-outs compares two tasks. What an
environment says of itself is tried: a task is begun twice and the same is done, what was played is played
again, and roll-outs of one task that did the same must have been answered alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations, groupby
from typing import Any

from coevo_jax.config.options import of_round
from coevo_jax.config.streams import stream
from coevo_jax.config.strict import ConfigError
from coevo_jax.envs import answers
from coevo_jax.envs.answers import most_characters
from coevo_jax.envs.env import Env, Task
from coevo_jax.envs.same_task import Contradiction, contradiction, meant_actions, played
from coevo_jax.methods.marks import marked
from coevo_jax.methods.material import Preference
from coevo_jax.phases.world import World, tasks_of
from coevo_jax.progress import CONSOLE
from coevo_jax.recipe import Phase, phases_of_round, schedule
from coevo_jax.run_folder.run import Run
from coevo_jax.trajectory import Trajectory, Turn

PROVEN = 2  # tasks that are begun twice at a run's start
REPLAYED = 2  # trajectories of an exploration that are played again
MOST_STEPS = 10  # of the pool's time limit that a playing at the start may take


def prove_tasks(run: Run, world: World) -> None:
    """Begin some of the tasks that the first round explores twice, and do the same.

    Raises:
      ConfigError: one of them is another task the second time; the message names it.
    """
    exploring = [phase for phase in schedule(run.config) if phase.kind in ("explore", "branch")]
    if not world.env.deterministic or all(run.manifest.record(phase.name) for phase in exploring):
        return
    where = of_round(run.config.explore.tasks, 1)
    tasks = tasks_of(world.env, "train", where, "explore.tasks")[:PROVEN]
    found = run.processes.once("proof of tasks", lambda: _differing(world, tasks))
    if found:
        raise ConfigError(
            f"{found} It was begun twice and the same was done: pairs of its roll-outs would compare two "
            "tasks. Expected an environment that keeps to the task's id (a server, to the seed), or one that "
            "says it is not deterministic"
        )


def _differing(world: World, tasks: Sequence[Task]) -> str:
    """What differs between two playings of a task, in words; "" where nothing does."""
    pool, name = world.pool, world.env.name
    most = most_characters(world.config.rollout.max_tokens)
    for task in tasks:
        known: list[Any] = []
        for slot in (0, 0 if pool.most == 1 else 1):
            play = partial(_play, world.env, task=task, expert=world.experts.get(task.id), most=most)
            pool.submit(slot, play, steps=MOST_STEPS)
            outcome = pool.wait()[slot]
            known += [] if isinstance(outcome, Exception) else [outcome]
        for (prompt, turns, reward), (other_prompt, other_turns, other_reward) in combinations(known, 2):
            differs = contradiction(prompt, turns, other_prompt, other_turns)
            words = "" if differs is None else differs.words
            if not words and abs(reward - other_reward) > 1e-6:
                words = f"reward: found {other_reward:g}, expected {reward:g}"
            if words:
                return f"{name}: task {task.id} is another task at every reset: {words}."
    return ""


def _play(
    listed: Env, env: Env, *, task: Task, expert: Trajectory | None, most: int
) -> tuple[str, Sequence[Turn], float]:
    """Play a task by its expert's actions, or by some that could be meant.

    What actions those are, `listed` says: an instance in a process of its own does not.
    """
    if expert is not None:
        return played(env, task, tuple(turn.action for turn in expert.turns if turn.action), most)
    prompt = answers.reset(env, task, most)
    return played(env, task, meant_actions(listed, task, prompt, stream(f"proof {task.id}")), most)


def contradicted_tasks(world: World, trajectories: Sequence[Trajectory]) -> dict[str, str]:
    """The tasks of an exploration that were shown to be several, and what showed it.

    Samples of a task are compared with each other, and some of the trajectories are played again.
    """
    if not world.env.deterministic:
        return {}
    found: dict[str, str] = {}
    finished = [one for one in trajectories if one.finished]
    for task_id, group in groupby(sorted(finished, key=lambda one: one.task_id), lambda one: one.task_id):
        for one, other in combinations(group, 2):
            differs = of_sides(one, other)
            if differs is not None:
                found.setdefault(task_id, differs.words)
    tasks = {task.id: task for task in world.env.tasks("train")}
    most = most_characters(world.config.rollout.max_tokens)
    again = [one for one in finished if one.task_id in tasks and any(turn.action for turn in one.turns)]
    for one in again[:: max(1, -(-len(again) // REPLAYED))]:  # spread over what was played
        world.pool.submit(
            0, lambda env, one=one: replayed(env, tasks[one.task_id], one, most), steps=1 + len(one.turns)
        )
        outcome = world.pool.wait()[0]
        if isinstance(outcome, Contradiction):
            found.setdefault(one.task_id, f"played again, {outcome.words}")
    return found


def tell(name: str, found: Mapping[str, str]) -> None:
    """Say which tasks were shown to be several."""
    if found:
        task_id, words = next(iter(found.items()))
        CONSOLE.print(
            f"warning: {name}: {len(found)} tasks are not the same at every reset, such as {task_id}: "
            f"{words}; pairs of their roll-outs are refused",
            soft_wrap=True,
        )


def replayed(env: Env, task: Task, trajectory: Trajectory, most: int) -> Contradiction | None:
    """Play a trajectory's actions again; the first answer that is another one, or the reward.

    Texts are cut to `most` characters, as they were when it was played.

    Raises:
      EnvFault: what the environment answers is no answer.
    """
    prompt = marked(answers.reset(env, task, most), trajectory.mark)
    if prompt != trajectory.prompt:
        return Contradiction(turn=-1, action="", found=prompt, expected=trajectory.prompt)
    for number, turn in enumerate(trajectory.turns):
        if not turn.action:  # nothing to play was found in what the agent wrote
            continue
        answer = answers.step(env, turn.action, most)
        told, expected = answer.observation, turn.observation
        if answer.done and told == expected and abs(answer.reward - trajectory.reward) > 1e-6:
            told, expected = f"reward {answer.reward:g}", f"reward {trajectory.reward:g}"
        if told != expected:
            return Contradiction(turn=number, action=turn.action, found=told, expected=expected)
        if answer.done:
            return None
    return None


def of_sides(one: Trajectory, other: Trajectory) -> Contradiction | None:
    """Where two trajectories of a task show that they are of two tasks; None where nothing does.

    First observations are compared where both were played under the same mark.
    """
    prompts = (one.prompt, other.prompt) if one.mark == other.mark else ("", "")
    return contradiction(prompts[0], one.turns, prompts[1], other.turns)


class Refusals:
    """Refuses the pairs of a round that compare two tasks, and counts them by kind."""

    def __init__(self, run: Run, world: World, phase: Phase):
        self._active = world.env.deterministic
        self._tasks = contradicted_in(run, phase.round)
        self.counts: dict[str, int] = {}

    def kept(self, kind: str, found: Iterable[Preference]) -> Iterable[Preference]:
        """The pairs whose sides may be of one task."""
        for one in found:
            if self._active and (
                one.chosen.task_id in self._tasks or of_sides(one.chosen, one.rejected) is not None
            ):
                self.counts[kind] = self.counts.get(kind, 0) + 1
            else:
                yield one

    def words(self) -> str:
        """How many were refused, for people; "" for none."""
        total = sum(self.counts.values())
        return f"{total} pairs across two tasks refused" if total else ""


def contradicted_in(run: Run, number: int) -> set[str]:
    """The tasks that the explorations of a round have shown to be several."""
    names = [phase.name for phase in phases_of_round(run.config, number)]
    records = [record for name in names if (record := run.manifest.record(name)) is not None]
    return {task_id for record in records for task_id in record.records.get("contradicted", {})}
