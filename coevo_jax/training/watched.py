"""The steps of a phase watched for numbers that are not finite: told, kept, and counted or the end."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from coevo_jax.config.options import Config, of_round
from coevo_jax.learning.programs import Learning
from coevo_jax.learning.train_step import StepPrograms
from coevo_jax.progress import CONSOLE
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.intact import fork_command
from coevo_jax.run_folder.manifest import SKIPPED, PhaseRecord
from coevo_jax.run_folder.results import skipped_count_words
from coevo_jax.run_folder.run import Run
from coevo_jax.training.kept_batch import kept_path, write_kept
from coevo_jax.training.nonfinite import Broken, Suspects, find_cause, told
from coevo_jax.training.step_plan import Step, StepPlan

LOOKED_AT = ("loss", "grad_norm")


class LearningDiverged(Exception):
    """A step's loss or gradient is not finite, and the run is to stop there."""


class Watched:
    """What was not finite in a phase, in this process and in those before it."""

    def __init__(
        self,
        run: Run,
        learning: Learning,
        programs: StepPrograms,
        phase: Phase,
        course: StepPlan,
        began: Sequence[jax.Array],
        record: PhaseRecord,
    ) -> None:
        """Watch a phase from where it stands.

        Args:
          began: whether each parameter is finite at that, on the devices.
          record: of the phase, with the steps that it has skipped.
        """
        self._run, self._learning, self._programs = run, learning, programs
        self._phase, self._course, self._began = phase, course, began
        self.skipped: list[dict[str, Any]] = list(record.records.get(SKIPPED, []))

    @property
    def files(self) -> list[Path]:
        """The batches of the steps that were skipped."""
        return [self._run.folder / one["file"] for one in self.skipped]

    def recorded(self, record: PhaseRecord) -> PhaseRecord:
        """The record with the steps that were skipped, if there are any."""
        if not self.skipped:
            return record
        return replace(record, records=record.records | {SKIPPED: list(self.skipped)})

    def look(
        self, first: int, step: Step, values: Mapping[str, float], state: Any, frozen: Any
    ) -> dict[str, float]:
        """What the log says of a step beside its metrics: that it was skipped; nothing of one that is finite.

        Args:
          first: what the log calls the phase's first step.
          values: the step's metrics.
          state: as it stands now.

        Raises:
          LearningDiverged: the run is to stop here.
        """
        broken = [name for name in LOOKED_AT if not np.isfinite(values[name])]
        if not broken:
            return {}
        with jax.transfer_guard("allow"):
            found = find_cause(self._suspects(step, state, frozen))
            path = self._keep(first, step, values, found)
            message = self._message(first, step, values, broken[0], found, path)
            skips = self._run.config.optimizer.nonfinite == "skip" and "grad_norm" in broken
            if not skips or found.tensor.startswith(("params", "frozen")):
                self._run.keep(self._phase.name, [path])
                raise LearningDiverged(message)
        name = str(path.relative_to(self._run.folder))
        self.skipped.append({"step": step.position + 1, "cause": found.cause, "file": name})
        CONSOLE.print(f"skipped: {message}", soft_wrap=True)
        return {"skipped": 1.0}

    def _suspects(self, step: Step, state: Any, frozen: Any) -> Suspects:
        alone = self._phase.kind == "learn" and self._course.arguments is None
        return Suspects(
            programs=self._programs,
            loss=self._learning.losses[self._phase.agent] if alone else None,
            token_score=self._learning.token_score,
            params=state.params,
            frozen=frozen,
            began_finite=bool(np.all(jax.device_get(list(self._began)))),
            plan=self._course.plan,
            sides=self._course.sides,
            numbers=step.numbers,
            batches=step.batches,
            hosted=step.hosted,
            beta=np.float32(self._course.beta),
        )

    def _keep(self, first: int, step: Step, values: Mapping[str, float], found: Broken) -> Path:
        phase, number = self._phase, step.position + 1
        path = kept_path(self._run.folder, _stem(phase), number)
        about = {
            **{"phase": phase.name, "round": phase.round, "agent": phase.agent, "step": number},
            **{"logged_as": first + step.position, "beta": self._course.beta, "cause": found.cause},
            **{"tensor": found.tensor, "words": found.words, "pairs": list(found.pairs)},
            "trajectories": self._trajectories(step),
            "metrics": {name: float(value) for name, value in values.items()},
        }
        self._run.processes.once("kept batch", lambda: write_kept(path, step.numbers, step.hosted, about))
        return path

    def _trajectories(self, step: Step) -> list[dict[str, Any]]:
        """What names the trajectories of the step, and where each stands."""
        sides = self._course.sides
        return [
            {"microbatch": int(number), "n": int(n), **(dict(sides[one]) if one < len(sides) else {})}
            for number in step.numbers
            for n, one in self._course.plan.views[number]
        ]

    def _message(
        self, first: int, step: Step, values: Mapping[str, float], name: str, found: Broken, path: Path
    ) -> str:
        phase = self._phase
        where = f"{phase.name}, step {step.position + 1} (round {phase.round}, step {first + step.position}"
        tasks = [one["task_id"] for one in self._trajectories(step) if "task_id" in one]
        tasks = list(dict.fromkeys(tasks))
        own = told(found.pairs)
        parts = [
            f"{where} of the log): {name} is {values[name]}",
            f"first tensor that is not finite: {found.tensor}",
            f"cause: {found.cause}: {found.words}" + (f": {own}" if own else ""),
            f"{len(tasks)} tasks in its batch: {', '.join(map(str, tasks[:8]))}" if tasks else "",
            f"the batch is kept in {path}",
            advice(self._run, phase, found),
        ]
        return "; ".join(filter(None, parts))


def kept_files(run: Run, record: PhaseRecord) -> list[Path]:
    """The batches of the steps that a phase skipped."""
    return [run.folder / one["file"] for one in record.records.get(SKIPPED, [])]


def skipped_words(record: PhaseRecord) -> str:
    """How many steps a phase skipped, for people; nothing where it skipped none."""
    return skipped_count_words(len(record.records.get(SKIPPED, [])))


def _stem(phase: Phase) -> str:
    return "warm-start" if phase.kind == "warm_start" else phase.stem


def advice(run: Run, phase: Phase, found: Broken) -> str:
    """What can be done: a run's config is kept, so that a change of it begins a run of its own."""
    if found.cause == "parameters":
        return (
            f"skipping steps cannot help: find out what wrote checkpoint {run.manifest.checkpoint} (or the "
            "model of model.path) and begin a new run"
        )
    skip = "optimizer.nonfinite=skip"
    if found.cause == "rate":
        change, words = lower_rate(run.config, phase), f"with a lower {_rate_key(phase)}"
    elif found.cause == "padding":
        change, words = skip, "without such steps (padding must never count: report it with the kept batch)"
    elif phase.kind == "learn":
        change, words = skip, f"without such steps, or with agents.{phase.agent}.loss or the sources changed"
    else:
        change, words = skip, "without such steps, or with other trajectories"
    if phase.kind == "warm_start" and found.cause == "rate":
        return f"this run's config is kept: begin a new run {words}, such as {change}"
    if run.manifest.record("warm_start") is None:
        return f"this run's config is kept: begin a new run {words}: {skip} leaves them out"
    return f"this run's config is kept: fork it {words}: {fork_command(run.folder, run.config, change)}"


def lower_rate(config: Config, phase: Phase) -> str:
    """A tenth of the rate at which a phase learned, as an option that leaves earlier rounds as they were."""
    if phase.kind == "warm_start":
        return f"{_rate_key(phase)}={config.warm_start.learning_rate / 10:g}"
    learner = config.judge if phase.kind == "judge" else config.agents[phase.agent]
    *before, own = (of_round(learner.learning_rate, number) for number in range(1, phase.round + 1))
    return f"{_rate_key(phase)}=[{', '.join([*map(repr, before), f'{own / 10:g}'])}]"


def _rate_key(phase: Phase) -> str:
    if phase.kind in ("warm_start", "judge"):
        return f"{phase.kind}.learning_rate"
    return f"agents.{phase.agent}.learning_rate"
