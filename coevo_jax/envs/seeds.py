"""Tasks of environments that have none but seeds: a task is a seed, of a game where there are several."""

from collections.abc import Sequence

from coevo_jax.config.streams import stream
from coevo_jax.envs.env import SPLITS, Task

SPAN = 1_000_000  # seeds of a split: train has 0 and above, dev 1,000,000 and above, test 2,000,000


def seed_tasks(families: Sequence[str], counts: Sequence[int], split: str, seed: int) -> list[Task]:
    """The tasks of a split: as many seeds as `counts` says, dealt out to the families in turn, shuffled.

    Args:
      families: names of games, which are the families of the tasks.
      counts: tasks of train, dev and test.
      seed: of the order.
    """
    place = SPLITS.index(split)
    tasks = [
        Task(id=f"{family}/{place * SPAN + number // len(families)}", split=split, family=family)
        for number, family in ((n, families[n % len(families)]) for n in range(counts[place]))
    ]
    return [tasks[index] for index in stream("order of seeds", seed, place).permutation(len(tasks))]


def seed_of(task: Task) -> int:
    """The seed that a task of `seed_tasks` stands for."""
    return int(task.id.rpartition("/")[2])
