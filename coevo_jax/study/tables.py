"""The tables of a study that say how well its methods did, with their differences and tests."""

from collections.abc import Callable, Mapping
from typing import Any

from coevo_jax.report.comparison import Interval
from coevo_jax.report.markdown import table
from coevo_jax.report.words import bounds, count, signed
from coevo_jax.study.rows import FINISHED, Row
from coevo_jax.study.sample import DEV, NOT_RUN, SAMPLED, TEST, Sample, evaluation, last_reward, task_rewards
from coevo_jax.study.statistics import Difference, Rewards, difference, holm

BASELINES = ("sft-more", "eto-compute")
TESTED_AGAINST = "eto-compute"


def rewards_table(sample: Sample) -> str:
    """Mean reward on the dev tasks round by round, success, the second agent, and the test tasks."""
    rounds = max((row["rounds"] for row in sample.rows if row["status"] == FINISHED), default=0)
    numbers = range(rounds + 1)
    names = ["warm start" if number == 0 else f"round {number}" for number in numbers]
    header = ["method", *names, "success", "second agent", "at temperature 1", "test reward", "test success"]
    rows = []
    for method in sample.methods:
        cells = [sample.cell(method, _reward(number)) for number in numbers]
        later = [_second, _later(SAMPLED, "mean_reward")]
        later += [_later(TEST, key) for key in ("mean_reward", "success_rate")]
        rows.append([method, *cells, *(sample.cell(method, measure) for measure in (_success, *later))])
    return "\n".join([table(header, rows), *_missing(sample)])


def differences_table(sample: Sample, split: str = DEV) -> str:
    """Every method minus each baseline: over seeds, paired by task, and tests with Holm's correction."""
    parts = []
    for baseline in BASELINES:
        if not sample.finished(baseline):
            parts.append(f"No finished run of {baseline} yet, so no difference from it.")
            continue
        parts.append(_against(sample, baseline, split))
    return "\n\n".join(parts)


def held_out_table(sample: Sample) -> str:
    """The same differences on the test tasks."""
    if not any(row.get("test") for row in sample.rows):
        return "The test tasks have not been played yet."
    return differences_table(sample, TEST)


def sampled_table(sample: Sample) -> str:
    """The same differences on the dev tasks at temperature 1."""
    if not any(row.get(SAMPLED) for row in sample.rows):
        return "The dev tasks have not been played at temperature 1 yet."
    return differences_table(sample, SAMPLED)


def _against(sample: Sample, baseline: str, split: str) -> str:
    tested = baseline == TESTED_AGAINST
    theirs, names = _rewards(sample, baseline, split), [one for one in sample.with_rows if one != baseline]
    found: dict[str, Difference] = {}
    alone: list[str] = []
    for method in names:
        ours = _rewards(sample, method, split)
        paired = {seed: one for seed, one in ours.items() if seed in theirs and theirs[seed][0] == one[0]}
        alone += [
            f"- Not paired: {method}, seed {seed}: "
            + ("played other tasks." if seed in theirs else f"no finished run of {baseline} has this seed.")
            for seed in ours.keys() - paired.keys()
        ]
        if paired:
            found[method] = difference(_plain(paired), _plain(theirs))
    by_seeds = holm({name: one["p_seeds"] for name, one in found.items() if one["p_seeds"] is not None})
    by_tasks = holm({name: one["p_tasks"] for name, one in found.items() if one["p_tasks"] is not None})
    header = [f"{split} reward, minus {baseline}", "difference, 95 % over seeds", "seeds"]
    header += ["difference, 95 % over tasks", "tasks"]
    header += ["p over seeds (Holm)", "p over tasks (Holm)"] if tested else []
    rows = []
    for method in names:
        one = found.get(method)
        if one is None:
            rows.append([method, *["–"] * (len(header) - 1)])
            continue
        low_high = bounds((one["tasks"]["low"], one["tasks"]["high"]))
        cells = [method, _signed(one["seeds"]), f"{len(one['seeds']['values'])} of {len(sample.seeds)}"]
        cells += [f"{signed(one['tasks']['mean'])} {low_high}".strip(), count(one["tasks"]["tasks"])]
        if tested:
            cells += [_p(one["p_seeds"], by_seeds.get(method)), _p(one["p_tasks"], by_tasks.get(method))]
        rows.append(cells)
    lines = [table(header, rows), *alone]
    if tested:
        lines.append(
            f"- p is two-sided; in brackets after Holm's correction for {len(by_tasks)} rivals of {baseline}."
        )
    return "\n".join([*lines, *sample.not_run()])


def _rewards(sample: Sample, method: str, split: str) -> dict[int, tuple[str, Rewards]]:
    found = {seed: task_rewards(row, split) for seed, row in sample.finished(method).items()}
    return {seed: one for seed, one in found.items() if one is not None}


def _plain(rewards: Mapping[int, tuple[str, Rewards]]) -> dict[int, Rewards]:
    return {seed: one for seed, (_, one) in rewards.items()}


def _signed(value: Interval) -> str:
    """A mean difference with half of its interval."""
    mean, high = value["mean"], value["high"]
    if mean is None or high is None:
        return signed(mean)
    return f"{signed(mean)} ± {high - mean:.3f}"


def _p(plain: float | None, adjusted: float | None) -> str:
    return "–" if plain is None or adjusted is None else f"{plain:.3g} ({adjusted:.3g})"


def _missing(sample: Sample) -> list[str]:
    """A line for each run that is in no mean, with the reason."""
    lines = []
    for method in sample.methods:
        if not sample.has_row(method):
            continue
        own = {row["seed"]: row for row in sample.rows if row["method"] == method}
        for seed in sample.seeds:
            row = own.get(seed)
            if row is None:
                lines.append(f"- In no mean: {method}, seed {seed}: {NOT_RUN}.")
            elif row["status"] != FINISHED:
                lines.append(f"- In no mean: {method}, seed {seed}: {why(row)}.")
    return lines


def why(row: Row) -> str:
    """Why a run is in no mean, in words of its row."""
    if row["status"] == "broken":
        return f"its audit is broken ({', '.join(row['audit']['broken_checks'])})"
    words = " ".join(str(row.get("why") or "no reason was kept").split()).rstrip(".")
    return f"{row['status']}: {words}"


def _reward(number: int) -> Callable[[Row], float | None]:
    def measure(row: Row) -> float | None:
        found = evaluation(row, number)
        return None if found is None else found["mean_reward"]

    return measure


def _success(row: Row) -> float | None:
    found = evaluation(row)
    return None if found is None else found["success_rate"]


def _second(row: Row) -> float | None:
    return last_reward(row, row["agents"][1]) if len(row["agents"]) > 1 else None


def _later(part: str, key: str) -> Callable[[Row], float | None]:
    def measure(row: Row) -> float | None:
        found: Any = row.get(part, {}).get("agents", {}).get(row["agents"][0])
        return None if found is None else found[key]

    return measure
