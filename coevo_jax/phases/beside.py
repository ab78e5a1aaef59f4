"""The weak model beside an agent that imitates, and how often each trajectory is drawn (arXiv 2602.08222).

`draws/round-01-target.json` holds what the draws were made from: of each trajectory its collection, task and
sample, both models' mean entropies on its agent tokens (nats), its probability, and how often it was drawn.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from coevo_jax.config.beside import BesideOptions, DrawOptions
from coevo_jax.config.streams import stream
from coevo_jax.data.entropy_draws import draw, draw_weights, drawn_factors
from coevo_jax.data.packing.plan import BatchPlan
from coevo_jax.data.pairing import Extra, PairSet
from coevo_jax.files import write_whole
from coevo_jax.learning.mixed_step import Beside, BothStates
from coevo_jax.learning.programs import mixing_of
from coevo_jax.learning.train_state import Agents
from coevo_jax.learning.train_step import StepPrograms
from coevo_jax.models.transformer import Params
from coevo_jax.phases.agents import initial_agent
from coevo_jax.phases.world import World
from coevo_jax.recipe import Phase
from coevo_jax.run_folder.checkpoint import WEAK
from coevo_jax.run_folder.manifest import PhaseRecord
from coevo_jax.run_folder.run import Run
from coevo_jax.run_folder.weak_models import previous_of, takes_previous
from coevo_jax.training.feed import put_batch
from coevo_jax.training.step_plan import StepArguments
from coevo_jax.trajectory import Trajectory

DRAWS = "draws"


@dataclass(frozen=True, kw_only=True)
class WeakModel:
    """The weak model of a learning, and the run in which it stands beside the agent."""

    run: Run
    world: World
    agents: Agents  # as the phase began, or goes on
    phase: Phase
    options: BesideOptions
    checkpoint: int | None  # that holds it; None is the initial model
    goes_on: bool  # steps are committed: the draws are made, and a trained model is among the agents

    @property
    def file(self) -> Path:
        """Where the draws are written."""
        return self.run.folder / DRAWS / f"{self.phase.stem}.json"

    @property
    def files(self) -> list[Path]:
        """What a commit records beside the states."""
        return [self.file] if self.options.sampling is not None else []

    @property
    def programs(self) -> StepPrograms:
        """The compiled parts of a step on both models' logits."""
        assert self.phase.learning is not None
        return self.world.mixed[mixing_of(self.phase.learning)]

    @property
    def beside_passes(self) -> str:
        """What a step does with the weak model's layers: "" goes forward only; or what it trains."""
        adapters = bool(self.world.learner.frozen_shardings)
        return ("adapters" if adapters else "all") if self.options.train_weak else ""

    @cached_property
    def params(self) -> Params:
        """The weak model's parameters, which nothing has trained yet."""
        if self.checkpoint is None:
            return initial_agent(self.run.config, self.world.learner).params
        names = self.run.checkpoints.agents(self.checkpoint)
        # After a fork the warm start may have other names; all agents agree there.
        name = self.phase.agent if self.phase.agent in names else names[0]
        return self.run.checkpoints.restore_params(
            self.checkpoint, name, self.world.learner.abstract().params
        )

    def arguments(self) -> StepArguments:
        """What steps take: the agent with the weak model frozen beside it, or both to be trained."""
        agent = self.phase.agent
        if not self.options.train_weak:
            return StepArguments(
                take=lambda agents: (agents[agent], Beside(base=agents.frozen, weak=self.params)),
                give=lambda agents, state: agents.having(agent, state),
            )

        def take(agents: Agents) -> tuple[BothStates, Beside]:
            weak = agents[WEAK] if self.goes_on else self.world.learner.fresh(self.params, 0)
            return BothStates(strong=agents[agent], weak=weak), Beside(base=agents.frozen, weak={})

        return StepArguments(
            take=take,
            give=lambda agents, both: agents.having(agent, both.strong).having(WEAK, both.weak),
        )

    def drawn(
        self, pair_set: PairSet, own: dict[Extra, float], pack: Callable[[dict[Extra, float]], BatchPlan]
    ) -> tuple[dict[Extra, float], dict[str, Any]]:
        """The weights of what is imitated of the drawn trajectories, and what the phase's record says of it.

        Entropies are means over all of a trajectory's agent tokens, whatever its turns weigh.

        Args:
          own: the weights of all that may be imitated.
          pack: makes microbatches of such.
        """
        records: dict[str, Any] = {"weak": self.checkpoint}
        if self.options.sampling is None or not own:
            return own, {"beside": records}
        if not self.goes_on:
            indices = list(dict.fromkeys(extra.trajectory for extra in own))
            plan = pack({Extra(index): 1.0 for index in indices})
            made = self._draw(pair_set, indices, plan, self.options.sampling)
            self.run.processes.once("draws", lambda: write_whole(self.file, json.dumps(made)))
        listed = json.loads(self.file.read_text(encoding="utf-8"))["trajectories"]
        counts = {one["trajectory"]: one["drawn"] for one in listed}
        records |= {
            "trajectories": len(listed),
            "draws": sum(counts.values()),
            "drawn": sum(count > 0 for count in counts.values()),
            "entropy_weak": float(np.mean([one["weak"] for one in listed])) if listed else 0.0,
            "entropy_strong": float(np.mean([one["strong"] for one in listed])) if listed else 0.0,
        }
        factors = drawn_factors(counts)
        kept = {
            extra: w * factors[extra.trajectory] for extra, w in own.items() if extra.trajectory in factors
        }
        return kept, {"beside": records}

    def _draw(
        self, pair_set: PairSet, indices: list[int], plan: BatchPlan, options: DrawOptions
    ) -> dict[str, Any]:
        fits = [index for index in indices if plan.locations[index]]
        models = self.params, self.agents[self.phase.agent].params
        weak, strong = (self._entropies(plan, fits, params) for params in models)
        weights = draw_weights(weak, strong, alpha=options.alpha, beta=options.beta, gamma=options.gamma)
        rng = stream(f"draws {self.phase.name}", self.run.config.seed)
        counts = draw(weights, options.draws or len(fits), rng)
        rows = [
            _side(pair_set.trajectories[index])
            | {"trajectory": index, "weak": float(h0), "strong": float(h1)}
            | {"probability": float(weight), "drawn": int(count)}
            for index, h0, h1, weight, count in zip(fits, weak, strong, weights, counts, strict=True)
        ]
        return {"phase": self.phase.name, "weak": self.checkpoint, "trajectories": rows}

    def _entropies(self, plan: BatchPlan, indices: list[int], params: Params) -> np.ndarray:
        """The mean entropy of each trajectory's agent tokens, float32 [N]."""
        world, frozen = self.world, self.agents.frozen
        batches = [
            jax.device_get(world.entropies(params, frozen, put_batch(world.mesh, batch)))
            for batch in plan.batches
        ]
        places = [plan.locations[index][0] for index in indices]
        return np.array([batches[number][n] for number, n in places], np.float32)


def find_weak(run: Run, world: World, agents: Agents, phase: Phase, record: PhaseRecord) -> WeakModel | None:
    """The weak model of a learning; None where it learns from the agent's own logits."""
    assert phase.learning is not None
    options = phase.learning.beside
    if options is None:
        return None
    return WeakModel(
        run=run,
        world=world,
        agents=agents,
        phase=phase,
        options=options,
        checkpoint=_checkpoint(run, phase, options),
        goes_on=record.position > 0,
    )


def weak_words(records: dict[str, Any]) -> str:
    """The weak model and the draws, for people; "" where there are none."""
    if "beside" not in records:
        return ""
    found = records["beside"]
    number = found["weak"]
    words = f"beside it {'the initial model' if number is None else f'checkpoint {number}'}"
    if "drawn" not in found:
        return words
    entropies = f"entropy {found['entropy_weak']:.3g} before, {found['entropy_strong']:.3g} now"
    return f"{words}, {found['drawn']} of {found['trajectories']} trajectories drawn, {entropies}"


def without_weak(agents: Agents) -> Agents:
    """The agents as a finished learning leaves them: what was trained beside one of them is dropped."""
    return agents.without(WEAK)


def _checkpoint(run: Run, phase: Phase, options: BesideOptions) -> int | None:
    if options.weak == "warm_start":
        record = run.manifest.record("warm_start")
        assert record is not None  # the schedule puts the warm start first
        return record.records["checkpoint"]
    before = previous_of(run.config, phase) if takes_previous(phase.learning) else None
    record = None if before is None else run.manifest.record(before.name)
    return None if record is None else record.records["began_with"]


def _side(trajectory: Trajectory) -> dict[str, Any]:
    source = trajectory.collection or trajectory.agent
    return {"source": source, "task_id": trajectory.task_id, "sample": trajectory.sample}
