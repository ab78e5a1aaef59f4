"""Several runs side by side: methods over seeds with t-intervals, and differences paired by seed."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
from scipy.special import stdtrit

from coevo_jax.config.strict import ConfigError
from coevo_jax.episode_stats.summary import CONFIDENCE
from coevo_jax.report.cast import agent_name, agent_words, cast_of, the_agent
from coevo_jax.run_folder.results import Evaluation, Results, evaluation_label, main_evaluations, wall_time


class Interval(TypedDict):
    """A mean over seeds with its 95 % t-interval; no interval from one seed, no mean from none."""

    mean: float | None
    low: float | None
    high: float | None
    values: dict[int, float]  # seed -> value


class MethodRow(TypedDict):
    """One method: its measures over seeds, and its reward after every round."""

    method: str
    seeds: list[int]
    measures: dict[str, Interval]  # key of MEASURES, COSTS or another agent's reward -> interval
    rounds: dict[int, Interval]  # round -> mean reward of the lead


class DifferenceRow(TypedDict):
    """`method` minus `other` in the mean reward of their leads, over the seeds they share."""

    method: str
    other: str
    final: Interval
    best: Interval


class Comparison(TypedDict):
    """What a comparison of runs shows."""

    env: str
    split: str
    leads: list[str]  # the agent that each run is about; one name where that is the same in all
    others: list[str]  # further agents that some run has evaluated
    fed: dict[str, str]  # of evaluations that use test feedback: what one is called -> its name in recipes
    methods: list[MethodRow]
    differences: list[DifferenceRow]


def final_evaluation(results: Results, agent: str | None = None) -> Evaluation | None:
    """The evaluation of an agent, the lead where none is named, after the last round that has one."""
    agent = agent or results["agents"][0]
    return max(main_evaluations(results, agent), key=lambda e: e["round"], default=None)


def best_evaluation(results: Results) -> Evaluation | None:
    """The lead's evaluation with the highest mean reward: picked on the split it reports, so optimistic."""
    lead = results["agents"][0]
    own = [e for e in main_evaluations(results, lead) if e["mean_reward"] is not None]
    return max(own, key=lambda e: e["mean_reward"] or 0.0, default=None)


def _final(key: str, agent: str | None = None) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        evaluation = final_evaluation(results, agent)
        return evaluation[key] if evaluation else None

    return measure


def _best_reward(results: Results) -> float | None:
    best = best_evaluation(results)
    return best["mean_reward"] if best else None


MEASURES: dict[str, tuple[str, Callable[[Results], float | None]]] = {
    "final_reward": ("Mean reward, last round", _final("mean_reward")),
    "best_reward": ("Mean reward, best round", _best_reward),
    "final_success": ("Success rate, last round", _final("success_rate")),
    "final_hard": ("Hard negatives, share of roll-outs", _final("hard_negative_share")),
    "final_hard_of_failures": (
        "Hard negatives, share of failures",
        _final("hard_negative_share_of_failures"),
    ),
}
"""What methods are compared by: key -> (label, measure of a run's lead)."""

COSTS: dict[str, tuple[str, Callable[[Results], float | None]]] = {
    "rollouts": ("Roll-outs explored", lambda r: float(sum(e["n"] for e in r["explorations"]))),
    "agent_tokens": (
        "Agent tokens explored",
        lambda r: float(sum(e["finished"] * (e["mean_agent_tokens"] or 0) for e in r["explorations"])),
    ),
    "pairs": ("Pairs learned from", lambda r: float(sum(p["count"] for p in r["pairs"]))),
    "seconds": ("Wall time, s", wall_time),
}
"""What a method spent to get there: key -> (label, measure of a run)."""


def reward_of(agent: str) -> str:
    """The key of a further agent's mean reward after the last round."""
    return f"reward_of_{agent}"


def fed_reward_of(evaluation: str) -> str:
    """The key of the mean reward after the last round of an evaluation that uses test feedback."""
    return f"fed_reward_of_{evaluation}"


def measures_of(comparison: Comparison) -> dict[str, str]:
    """What methods are compared by: the lead's measures, then the rewards of all others, in order.

    These are further agents, and evaluations that use test feedback, which is said of them.
    """
    others = {reward_of(agent): agent_name(agent) for agent in comparison["others"]}
    others |= {fed_reward_of(one): name for name, one in comparison["fed"].items()}
    others = {key: f"{name}: mean reward, last round" for key, name in others.items()}
    return {key: label for key, (label, _) in MEASURES.items()} | others


def further_rewards(comparison: Comparison) -> dict[str, str]:
    """The rewards beside the lead's in a word or two each -> their keys: those of `measures_of`."""
    agents = {f"{agent_words(agent)}'s reward": reward_of(agent) for agent in comparison["others"]}
    return agents | {f"{name}: reward": fed_reward_of(one) for name, one in comparison["fed"].items()}


def lead_words(comparison: Comparison) -> str:
    """Whose reward is compared: "the target agent"."""
    leads = comparison["leads"]
    return the_agent(leads[0]) if len(leads) == 1 else f"each run's lead ({', '.join(leads)})"


def told_apart(results: Sequence[Results], folders: Sequence[Path]) -> list[Results]:
    """The same results, each run of a method that has a seed twice as a method of its own: by its name.

    By its folder where another run or method has that name.
    """
    counts = Counter((run["method"], run["seed"]) for run in results)
    repeated = {method for (method, _), count in counts.items() if count > 1}
    names = Counter(run["name"] if run["method"] in repeated else run["method"] for run in results)
    apart = []
    for run, folder in zip(results, folders, strict=True):
        if run["method"] in repeated:
            own = run["name"] if names[run["name"]] == 1 else str(folder)
            run = cast(Results, run | {"method": own})
        apart.append(run)
    return apart


def compare(results: Sequence[Results], *, subject: str | None = None) -> Comparison:
    """Group runs by method and sum them up over seeds; pair `subject` with every other method by seed.

    The subject is "coevo" where there is one, else the method with the highest final reward.

    Raises:
      ConfigError: the runs cannot be compared: other environments, or a method twice with one seed.
    """
    split = _check_comparable(results)
    groups: dict[str, list[Results]] = {}
    for run in sorted(results, key=lambda r: r["seed"]):
        groups.setdefault(run["method"], []).append(run)
    leads = list(dict.fromkeys(run["agents"][0] for run in results))
    others, fed = _others(results), _fed(results)
    rows = [_method_row(method, runs, others, list(fed.values())) for method, runs in groups.items()]
    rows.sort(key=lambda row: -(row["measures"]["final_reward"]["mean"] or 0.0))
    if subject is None and rows:
        subject = "coevo" if "coevo" in groups else rows[0]["method"]
    own = next((row for row in rows if row["method"] == subject), None)
    differences = [_difference(own, row) for row in rows if row is not own] if own else []
    return Comparison(
        env=results[0]["env"] if results else "",
        split=split,
        leads=leads,
        others=others,
        fed=fed,
        methods=rows,
        differences=differences,
    )


def interval(values: dict[int, float]) -> Interval:
    """Mean over seeds with the two-sided 95 % interval of Student's t."""
    numbers = np.array(list(values.values()), np.float64)
    if numbers.size == 0:
        return Interval(mean=None, low=None, high=None, values=values)
    mean = float(numbers.mean())
    if numbers.size == 1:
        return Interval(mean=mean, low=None, high=None, values=values)
    error = numbers.std(ddof=1) / np.sqrt(numbers.size)
    half = float(stdtrit(numbers.size - 1, (1 + CONFIDENCE) / 2) * error)
    return Interval(mean=mean, low=mean - half, high=mean + half, values=values)


def _others(results: Sequence[Results]) -> list[str]:
    """Agents beyond the leads that have been evaluated, in the order of the runs' recipes."""
    found: dict[str, None] = {}
    for run in results:
        evaluated = {evaluation_label(entry) for entry in run["evaluations"]}
        found |= dict.fromkeys(agent for agent in cast_of(run).agents[1:] if agent in evaluated)
    return list(found)


def _fed(results: Sequence[Results]) -> dict[str, str]:
    """Evaluations that use test feedback by what is said of them, in the order of the runs' recipes."""
    found: dict[str, str] = {}
    for run in results:
        labels = (evaluation_label(e) for e in run["evaluations"] if "test_feedback" in e)
        found |= {cast_of(run).evaluation_name(label): label for label in labels}
    return found


def _fed_reward(evaluation: str) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        own = [
            e for e in results["evaluations"] if evaluation_label(e) == evaluation and "test_feedback" in e
        ]
        return max(own, key=lambda e: e["round"])["mean_reward"] if own else None

    return measure


def _method_row(method: str, runs: list[Results], others: Sequence[str], fed: Sequence[str]) -> MethodRow:
    def over_seeds(measure: Callable[[Results], float | None]) -> Interval:
        measured = {run["seed"]: measure(run) for run in runs}
        return interval({seed: value for seed, value in measured.items() if value is not None})

    rounds: dict[int, dict[int, float]] = {}
    for run in runs:
        for entry in main_evaluations(run, run["agents"][0]):
            if entry["mean_reward"] is not None:
                rounds.setdefault(entry["round"], {})[run["seed"]] = entry["mean_reward"]
    measures = {key: measure for key, (_, measure) in (MEASURES | COSTS).items()}
    measures |= {reward_of(agent): _final("mean_reward", agent) for agent in others}
    measures |= {fed_reward_of(one): _fed_reward(one) for one in fed}
    return MethodRow(
        method=method,
        seeds=[run["seed"] for run in runs],
        measures={key: over_seeds(measure) for key, measure in measures.items()},
        rounds={number: interval(values) for number, values in sorted(rounds.items())},
    )


def _difference(own: MethodRow, other: MethodRow) -> DifferenceRow:
    def paired(key: str) -> Interval:
        ours, theirs = own["measures"][key]["values"], other["measures"][key]["values"]
        return interval({seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs})

    return DifferenceRow(
        method=own["method"],
        other=other["method"],
        final=paired("final_reward"),
        best=paired("best_reward"),
    )


def _check_comparable(results: Sequence[Results]) -> str:
    """Return the split all runs were evaluated on; raise ConfigError when they cannot be compared."""
    envs = sorted({run["env"] for run in results})
    if len(envs) > 1:
        raise ConfigError(f"runs of different environments cannot be compared: {', '.join(envs)}")
    splits = sorted({e["split"] for run in results for e in run["evaluations"]})
    if len(splits) > 1:
        raise ConfigError(f"runs evaluated on different splits cannot be compared: {', '.join(splits)}")
    counts = Counter((run["method"], run["seed"]) for run in results)
    for (method, seed), count in counts.items():
        if count > 1:
            names = [r["name"] for r in results if (r["method"], r["seed"]) == (method, seed)]
            raise ConfigError(
                f"{count} runs of method {method} have seed {seed}: {', '.join(names)}; expected one"
            )
    return splits[0] if splits else ""
