"""A weak model beside the agent: which one it is, and how often each trajectory is drawn (arXiv 2602.08222).

    weak model     previous_round: that with which the same learning of the round before began, the initial
                   model in round 1; warm_start; or initial
    probability    alpha H0 / sum H0 + beta fall / sum fall + gamma rise / sum rise, over its sum: H0 and
                   H1 are the weak and the strong model's mean entropies, fall and rise how far H1 lies below
                   and above H0; a term whose sum is 0 is left out
    draws          as many as there are trajectories, or as the recipe says; each by a number of the run's
                   stream for the phase, at the place in the running sum of the probabilities

What is drawn k times is imitated with k times its weight, scaled so that the mean over what is drawn stays.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from coevo_jax.audit.check import Check, NotCheckable, differs, far, judge, same
from coevo_jax.audit.forward import Agents, per_token, sample
from coevo_jax.audit.mixed_forward import score_together
from coevo_jax.audit.order import Phase, expected_phases
from coevo_jax.audit.reading import RunFiles
from coevo_jax.audit.rows import fit_row, trained_places
from coevo_jax.audit.sides import Key, Side, Turns
from coevo_jax.audit.statistics import generator
from coevo_jax.config.beside import DrawOptions


def weak_checkpoint(files: RunFiles, phase: Phase) -> int | None:
    """The checkpoint of a learning's weak model; None where it is the initial one."""
    assert phase.beside is not None
    if phase.beside.weak == "warm_start":
        return files.recorded("warm_start", "checkpoint")
    if phase.beside.weak == "initial" or phase.round == 1:
        return None
    before = [
        one
        for one in expected_phases(files.config)
        if (one.kind, one.learning, one.round) == ("learn", phase.learning, phase.round - 1)
    ]
    return files.recorded(before[0].name, "began_with")


def counts_of(files: RunFiles, phase: Phase) -> list[int]:
    """How often each trajectory was drawn, as the run wrote it, in its order.

    Raises:
      NotCheckable: there is no such file.
    """
    return [one["drawn"] for one in files.json(phase.draws)["trajectories"]]


def drawn_extras(
    extras: Mapping[tuple[Key, Turns], float], counts: Sequence[int]
) -> dict[tuple[Key, Turns], float]:
    """The weights of imitation after the draws of their trajectories.

    Raises:
      NotCheckable: the draws are of other trajectories.
    """
    names = list(dict.fromkeys(key for key, _ in extras))
    if len(counts) != len(names):
        raise NotCheckable(f"the draws are of {len(counts)} trajectories, the recipe's are {len(names)}")
    times = dict(zip(names, counts, strict=True))
    drawn = sum(count > 0 for count in counts)
    return {
        (key, turns): weight * times[key] * drawn / sum(counts)
        for (key, turns), weight in extras.items()
        if times[key]
    }


def draw_checks(
    files: RunFiles, phase: Phase, candidates: Sequence[tuple[int, Side]], agents: Agents, scored: int | None
) -> Iterator[Check]:
    """The weak model, the draws, and the entropies that they follow from.

    Args:
      candidates: the imitated trajectories, in order, each with its number among all of the phase.
    """
    assert phase.beside is not None
    told: dict[str, str] = {}
    problems = draw_problems(files, phase, candidates, told)
    yield judge(f"draws/{phase.name}", problems, lambda: "; ".join(told.values()))
    if phase.beside.sampling is not None and candidates:
        problems = entropy_problems(files, phase, [side for _, side in candidates], agents, scored, told)
        yield judge(f"entropies/{phase.name}", problems, lambda: told["entropies"])


def draw_problems(
    files: RunFiles, phase: Phase, candidates: Sequence[tuple[int, Side]], told: dict[str, str]
) -> Iterator[str]:
    """The weak model is the recipe's, and the draws follow from the entropies and the seed."""
    assert phase.beside is not None
    recorded, number = files.recorded(phase.name, "beside"), weak_checkpoint(files, phase)
    told["weak"] = "the initial model" if number is None else f"checkpoint {number}"
    yield from differs(f"{phase.name}: weak model", recorded["weak"], number)
    if phase.beside.sampling is None or not candidates:
        return
    made = files.json(phase.draws)
    yield from differs(f"{phase.draws}: weak", made["weak"], number)
    rows = made["trajectories"]
    names = [_named(place, side) for place, side in candidates]
    yield from differs(f"{phase.draws}: trajectories", len(rows), len(names))
    for place, (row, name) in enumerate(zip(rows, names, strict=False)):
        found = {key: row[key] for key in name}
        yield from differs(f"{phase.draws}: trajectory {place}", found, name)
    wanted = probabilities([(row["weak"], row["strong"]) for row in rows], phase.beside.sampling)
    for place, (row, probability) in enumerate(zip(rows, wanted, strict=True)):
        where = f"{phase.draws}: trajectory {place}: probability"
        yield from far(where, row["probability"], probability, 1e-9)
    count = phase.beside.sampling.draws or len(rows)
    numbers = generator(f"draws {phase.name}", files.config.seed).random(count)
    drawn = lots([row["probability"] for row in rows], numbers.tolist())
    for place, (row, wanted_count) in enumerate(zip(rows, drawn, strict=True)):
        yield from differs(f"{phase.draws}: trajectory {place}: drawn", row["drawn"], wanted_count)
    summary = {
        "trajectories": len(rows),
        "draws": count,
        "drawn": sum(one > 0 for one in drawn),
        "entropy_weak": sum(row["weak"] for row in rows) / len(rows),
        "entropy_strong": sum(row["strong"] for row in rows) / len(rows),
    }
    for name, value in summary.items():
        if not same(recorded[name], value):
            yield f"{phase.name}: {name}: found {recorded[name]}, expected {value}"
    yield from _log_problems(files, phase, summary)
    told["draws"] = f"{summary['drawn']} of {len(rows)} trajectories in {count} draws"


def _log_problems(files: RunFiles, phase: Phase, summary: Mapping[str, float]) -> Iterator[str]:
    prefix = f"{phase.agent}/beside/"
    lines = [(line, v) for line, _, v in files.metrics.get(phase.name, []) if f"{prefix}draws" in v]
    yield from differs(f"metrics.jsonl: lines of {phase.name} with {prefix}draws", len(lines), 1)
    for line, values in lines:
        for name, value in summary.items():
            if not same(values[prefix + name], float(value)):
                yield f"metrics.jsonl:{line}: {prefix}{name}: found {values[prefix + name]}, expected {value}"


def probabilities(entropies: Sequence[tuple[float, float]], options: DrawOptions) -> list[float]:
    """Of each trajectory, from its entropies under the weak and the strong model."""
    parts = [
        (options.alpha, [weak for weak, _ in entropies]),
        (options.beta, [max(weak - strong, 0.0) for weak, strong in entropies]),
        (options.gamma, [max(strong - weak, 0.0) for weak, strong in entropies]),
    ]
    used = [(share, values, sum(values)) for share, values in parts if share * sum(values) > 0]
    if not used:
        return [1 / len(entropies)] * len(entropies)
    whole = sum(share for share, _, _ in used)
    return [
        sum(share * values[place] / total for share, values, total in used) / whole
        for place in range(len(entropies))
    ]


def lots(weights: Sequence[float], numbers: Sequence[float]) -> list[int]:
    """How often each place of the running sum of the weights is hit by the numbers."""
    ends = list(accumulate(weights))
    hits = Counter(min(bisect_right(ends, number), len(ends) - 1) for number in numbers)
    return [hits[place] for place in range(len(ends))]


def _named(place: int, side: Side) -> dict[str, Any]:
    episode = side.episode
    return {"source": side.source, "task_id": episode.task_id, "sample": episode.sample, "trajectory": place}


def entropy_problems(
    files: RunFiles,
    phase: Phase,
    sides: Sequence[Side],
    agents: Agents,
    scored: int | None,
    told: dict[str, str],
) -> Iterator[str]:
    """The entropies are those of the weak model and of the agent as the phase began."""
    rows = files.json(phase.draws)["trajectories"]
    began, number = files.recorded(phase.name, "began_with"), weak_checkpoint(files, phase)
    models = agents.loaded(began, phase.agent), agents.loaded(number, phase.agent)
    places = sample(range(min(len(rows), len(sides))), lambda place: f"{phase.name} {place}", scored)
    fitted = [fit_row(sides[place], files.config.batch) for place in places]
    found = score_together(*models, 0.5, [side.episode.tokens[: side.length] for side in fitted])
    noise = per_token(files.config.model, files.devices)
    for place, side, ours in zip(places, fitted, found, strict=True):
        own = trained_places(side)
        for name, values in (("weak", ours.weak_entropy), ("strong", ours.strong_entropy)):
            wanted = float(np.mean(values[own])) if len(own) else 0.0
            where = f"{phase.draws}: trajectory {place}: entropy of the {name} model"
            yield from far(where, rows[place][name], wanted, noise * (1 + wanted))
    told["entropies"] = f"{len(places)} of {len(rows)} trajectories under both models"
