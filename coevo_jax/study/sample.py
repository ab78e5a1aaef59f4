"""The rows of a study as its tables see them: which runs count, which are missing, and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.report.comparison import Interval, interval
from coevo_jax.report.markdown import cell
from coevo_jax.study.rows import FINISHED, Row
from coevo_jax.study.statistics import Rewards

DEV, TEST, SAMPLED = "dev", "test", "sampled"
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The rows of one study, and the methods that it is to have."""

    study: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]  # of any row
    methods: tuple[str, ...]  # by their reward, the best first; then those without a finished run

    def finished(self, method: str) -> dict[int, Row]:
        """The rows of finished runs by seed."""
        own = (row for row in self.rows if row["method"] == method and row["status"] == FINISHED)
        return {row["seed"]: row for row in own}

    def has_row(self, method: str) -> bool:
        return any(row["method"] == method for row in self.rows)

    @property
    def finished_rows(self) -> tuple[Row, ...]:
        """The rows of finished runs, in the order of their file."""
        return tuple(row for row in self.rows if row["status"] == FINISHED)

    @property
    def starts(self) -> tuple[Row, ...]:
        """One finished row of each seed: all begin with the seed's warm start."""
        found: dict[int, Row] = {}
        for row in self.finished_rows:
            found.setdefault(row["seed"], row)
        return tuple(found.values())

    @property
    def with_rows(self) -> tuple[str, ...]:
        """The methods that have a row; the others are said in a line of their own."""
        return tuple(method for method in self.methods if self.has_row(method))

    def not_run(self) -> list[str]:
        """A line that names the methods without any row; none where all have one."""
        names = [method for method in self.methods if not self.has_row(method)]
        return [f"- Not run yet: {', '.join(names)}."] if names else []

    def over_seeds(self, method: str, measure: Callable[[Row], float | None]) -> Interval:
        """A measure's mean over the seeds of a method that have it."""
        values = {seed: measure(row) for seed, row in self.finished(method).items()}
        return interval({seed: value for seed, value in values.items() if value is not None})

    def cell(self, method: str, measure: Callable[[Row], float | None], digits: int = 3) -> str:
        """A mean over seeds with half of its 95 % interval, which says how many seeds it lacks."""
        if not self.has_row(method):
            return NOT_RUN
        found = self.over_seeds(method, measure)
        if not found["values"]:
            return "–"
        lacks = len(found["values"]) < len(self.seeds)
        return cell(found, digits) + (
            f" ({len(found['values'])} of {len(self.seeds)} seeds)" if lacks else ""
        )


def sample(study: str, rows: Sequence[Row], configured: Sequence[str] = ()) -> Sample:
    """Look at rows of one study.

    Args:
      configured: methods that have a config, run or not.

    Raises:
      ConfigError: the rows have several bases, or those of a method several configs.
    """
    _check_one(rows, "base", "a table never mixes bases")
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        _check_one(own, "config", "seeds of a method have one config: run the older ones again")
    found = Sample(
        study=study,
        rows=tuple(rows),
        seeds=tuple(sorted({row["seed"] for row in rows})),
        methods=(),
    )
    names = dict.fromkeys([*(row["method"] for row in rows), *configured])
    means = {name: found.over_seeds(name, lambda row: last_reward(row))["mean"] for name in names}
    ordered = sorted(
        names, key=lambda name: (means[name] is None, -(means[name] or 0.0), not found.has_row(name))
    )
    return Sample(study=study, rows=found.rows, seeds=found.seeds, methods=tuple(ordered))


def _check_one(rows: Sequence[Row], key: str, why: str) -> None:
    first = rows[0] if rows else {}
    for row in rows:
        if row[key] != first[key]:
            raise ConfigError(
                f"rows of {row['study']}: {key}: found {row[key]} for {row['method']}, seed {row['seed']}, "
                f"and {first[key]} for {first['method']}, seed {first['seed']}; {why}"
            )


def evaluation(row: Row, number: int | None = None, agent: str | None = None) -> Mapping[str, Any] | None:
    """An agent's evaluation after a round: the lead's and the last where none is named."""
    agent = agent or row["agents"][0]
    own = [one for one in row["evaluations"] if one["agent"] == agent and "name" not in one]
    if number is not None:
        return next((one for one in own if one["round"] == number), None)
    return max(own, key=lambda one: one["round"], default=None)


def last_reward(row: Row, agent: str | None = None) -> float | None:
    """An agent's mean reward in its last evaluation."""
    found = evaluation(row, agent=agent)
    return None if found is None else found["mean_reward"]


def task_rewards(row: Row, split: str) -> tuple[str, Rewards] | None:
    """What the lead earned by task at the end, with the digest of the tasks' names."""
    lead = row["agents"][0]
    found = evaluation(row) if split == DEV else row.get(split, {}).get("agents", {}).get(lead)
    return None if found is None else (found["tasks"], found["rewards"])
