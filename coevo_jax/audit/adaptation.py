"""An agent that learns from its test episodes: their order, what each step believed, and the steps.

    order      the configured tasks, one after another, each once
    step       after every episode that came to an end and in which the agent wrote something
    success    the episode's own where its mean entropy lies above the recipe's bound, else whether the head's
               logit is above 0; the learning rate goes with it
    loss       plus or minus the mean entropy of the mixture, and the head's weighted cross-entropy

The steps are taken again from the checkpoint that the phase began with; so each episode is scored by the
weights that played it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from coevo_jax.audit.adapted_forward import steps
from coevo_jax.audit.check import Check, differs, far, judge
from coevo_jax.audit.forward import Agents, per_token
from coevo_jax.audit.order import Phase
from coevo_jax.audit.reading import Episode, RunFiles, read_episodes
from coevo_jax.audit.whose import Tasks
from coevo_jax.config.adapt import AdaptOptions

CLOSE = 8  # a token's log-probability may be off by so many times what the compute type gives on average
COLUMNS = ("tokens", "agent_mask", "logps")
Line = Mapping[str, Any]


def adaptation_checks(
    files: RunFiles, phase: Phase, tasks: Tasks, agents: Agents, scored: int | None
) -> Iterator[Check]:
    """What the steps believed, and as many of them taken again as trajectories are scored."""
    told: dict[str, str] = {}
    problems = line_problems(files, phase, tasks, told)
    yield judge(f"adaptation/{phase.name}", problems, lambda: told["lines"])
    problems = step_problems(files, phase, agents, scored, told)
    yield judge(f"logps/{phase.name}", problems, lambda: told["steps"])


def episodes_of(files: RunFiles, phase: Phase) -> list[Episode]:
    """The episodes in the order in which they were played."""
    return [
        e for path in files.collection(phase.round, phase.collection) for e in read_episodes(path, COLUMNS)
    ]


def lines_of(files: RunFiles, phase: Phase) -> list[Line]:
    """What the run recorded of each step.

    Raises:
      FileNotFoundError: it recorded nothing.
    """
    text = (files.folder / phase.adaptation).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def line_problems(files: RunFiles, phase: Phase, tasks: Tasks, told: dict[str, str]) -> Iterator[str]:
    """The recorded lines follow from the episodes and from each other."""
    assert phase.adapting is not None
    played, lines = episodes_of(files, phase), lines_of(files, phase)
    yield from differs(f"{phase.adaptation}: committed", phase.adaptation in files.files, True)
    yield from differs(f"{phase.name}: order of tasks", [e.task_id for e in played], tasks.of_phase(phase))
    yield from differs(f"{phase.adaptation}: lines", len(lines), len(played))
    for number, (line, episode) in enumerate(zip(lines, played, strict=False), start=1):
        yield from _line_problems(f"{phase.adaptation}:{number}", line, episode, phase.adapting)
    counts = step_counts(lines, played)
    yield from differs(f"{phase.name}: adaptation", files.recorded(phase.name, "adaptation"), counts)
    logged = [(place, v) for place, _, v in files.metrics.get(phase.name, []) if "adapt/tokens" in v]
    yield from differs(f"metrics.jsonl: steps of {phase.name}", len(logged), len(lines))
    for (place, values), line in zip(logged, lines, strict=False):
        wanted = {f"adapt/{name}": float(value) for name, value in line.items() if name != "task_id"}
        yield from differs(f"metrics.jsonl:{place}", values, wanted)
    told["lines"] = f"{len(played)} episodes in order; {counts['queries']} of {counts['steps']} steps asked"


def _line_problems(where: str, line: Line, episode: Episode, options: AdaptOptions) -> Iterator[str]:
    wrote = int(episode.agent_mask.sum())
    yield from differs(f"{where}: task_id", line["task_id"], episode.task_id)
    yield from differs(f"{where}: tokens", line["tokens"], wrote)
    steps = episode.finished and wrote > 0
    yield from differs(f"{where}: a step", "loss" in line or line.get("skipped", False), steps)
    if not steps or "loss" not in line:
        return
    asked = line["uncertainty"] > np.float32(options.query_above)
    yield from differs(f"{where}: queried", line["queried"], bool(asked))
    success = episode.success if asked else line["prediction"] > 0
    yield from differs(f"{where}: success", line["success"], success)
    rate = options.learning_rate_queried if asked else options.learning_rate_predicted
    yield from differs(f"{where}: learning_rate", line["learning_rate"], float(np.float32(rate)))
    logit = line["prediction"] if success else -line["prediction"]
    judged = math.log1p(math.exp(-abs(logit))) + max(-logit, 0.0)
    mixed = line["mixture_entropy"] if success else -line["mixture_entropy"]
    loss = mixed + options.head_weight * judged
    yield from far(f"{where}: loss", line["loss"], loss, 1e-5 * (1 + abs(loss)))


def step_counts(lines: Sequence[Line], played: Sequence[Episode]) -> dict[str, int]:
    """What a record says of the steps, by number."""
    taken = [(line, e) for line, e in zip(lines, played, strict=False) if "loss" in line]
    alone = [(line, e) for line, e in taken if not line["queried"]]
    return {
        "episodes": len(played),
        "steps": len(taken),
        "queries": len(taken) - len(alone),
        "predicted": len(alone),
        "predicted_right": sum(line["success"] is e.success for line, e in alone),
        "learned_tokens": sum(int(e.agent_mask.sum()) for _, e in taken),
    }


def step_problems(
    files: RunFiles, phase: Phase, agents: Agents, scored: int | None, told: dict[str, str]
) -> Iterator[str]:
    """The weights of each step, from the checkpoint on, say of its episode what was recorded."""
    assert phase.adapting is not None
    played, lines = episodes_of(files, phase)[:scored], lines_of(files, phase)[:scored]
    begun = agents.loaded(files.recorded(phase.name, "checkpoint"), phase.agent)
    wanted = [
        (e, line.get("success"), line.get("learning_rate", 0.0))
        for e, line in zip(played, lines, strict=True)
    ]
    noise, tokens = per_token(files.config.model, files.devices), 0
    for number, (step, episode, line) in enumerate(
        zip(steps(*begun, phase.adapting, wanted), played, lines, strict=True), start=1
    ):
        where = f"{phase.adaptation}:{number}"
        own = episode.logps[np.flatnonzero(episode.agent_mask)]
        off = np.abs(own - step.logps)
        tokens += len(own)
        # Where a gradient is nearly 0 its sign is rounding: what weights differ by adds up over the steps.
        near = noise * number
        if len(own) and not (np.max(off) <= CLOSE * near and np.mean(off) <= near):
            yield (
                f"{where}: {episode.name}: found log-probabilities that differ from those of the adapted "
                f"weights by {np.mean(off):.2g} on average, expected at most {near:.2g}"
            )
        for name in (
            ("uncertainty", "mixture_entropy", "prediction", "loss", "grad_norm") if "loss" in line else ()
        ):
            value = getattr(step, name)
            yield from far(f"{where}: {name}", line[name], value, near * (1 + abs(value)))
    told["steps"] = f"{tokens} tokens of {len(played)} episodes by the weights that played them, step by step"
