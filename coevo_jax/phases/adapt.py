"""The evaluation of an agent whose weights follow its own test episodes: ATENA (arXiv 2506.06630).

Episodes are played one after another, each a block with a commit of its own; after each a copy of the agent's
weights takes one step (`learning.adapt_step`), and the next is played by what came out. The copy begins as
the agent's checkpoint and is dropped at the end. It is a function of that checkpoint and of the episodes, so
nothing of it is stored: a phase that goes on takes the steps of its committed episodes again.

`adaptations/round-01-adapted.jsonl` holds a line for each episode, in order: what the step saw and believed.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.batch import TokenBatch
from coevo_jax.config.options import BatchConfig, Config
from coevo_jax.data.packing.plan import pack_sft
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.files import write_whole
from coevo_jax.learning.adapt_step import Adaptation, Adapted, AdaptRates, init_adapted
from coevo_jax.learning.finite import first_broken
from coevo_jax.learning.train_state import Agents
from coevo_jax.phases.explore import Following, block_paths, finish_roll_out, roll_out, task_blocks
from coevo_jax.phases.world import World, tasks_of
from coevo_jax.progress import CONSOLE, Pulse
from coevo_jax.recipe import Phase
from coevo_jax.rollout.placement import rollout_weights
from coevo_jax.run_folder.budget import Budget
from coevo_jax.run_folder.intact import fork_command
from coevo_jax.run_folder.manifest import SKIPPED, PhaseRecord
from coevo_jax.run_folder.run import Run
from coevo_jax.sampling.engine import Sampling
from coevo_jax.sharding import put, replicated
from coevo_jax.training.feed import put_scalar, put_tokens
from coevo_jax.training.kept_batch import kept_path, write_kept
from coevo_jax.training.watched import LOOKED_AT, LearningDiverged, kept_files
from coevo_jax.trajectory import Trajectory

ADAPTATIONS = "adaptations"
COUNTED = ("queried", "success")  # of a line's numbers those that are yes or no


def adapt(run: Run, world: World, agents: Agents, phase: Phase) -> Agents:
    """Evaluate an agent greedily on held-out tasks, its weights following what it plays.

    The agents are returned as they were.

    Raises:
      LearningDiverged: a step's loss or gradient is not finite, and the run is to stop there.
    """
    config = run.config.evaluate
    tasks = tasks_of(world.env, config.split, config.tasks, "evaluate.tasks")
    blocks = task_blocks(tasks, 1, 1)
    follower = _Follower(run, world, agents, phase)
    done = run.begin(phase.name).position
    for path in block_paths(run, phase, len(blocks))[:done]:
        follower.learn_from(path)
    roll_out(
        run,
        world,
        agents,
        [phase],
        blocks,
        sampling=Sampling(root=jax.random.key(run.config.seed), temperature=0.0),
        finish=follower.finish,
        following=Following(engine=follower.engine, weights=follower.weights, learn=follower.learn),
    )
    follower.engine.reset()
    return agents


class _Follower:
    """The weights that follow an evaluation, and the record of their steps."""

    def __init__(self, run: Run, world: World, agents: Agents, phase: Phase) -> None:
        options = phase.adapting
        assert options is not None  # a phase that adapts has them
        self._run, self._world, self._phase = run, world, phase
        self._frozen, self._agent_steps = agents.frozen, int(agents[phase.agent].step)
        # A copy: the step gives its arrays up, and the agent keeps its own.
        params = jax.tree.map(jnp.copy, agents[phase.agent].params)
        begun = init_adapted(params, run.config.model.hidden_size, options.head_bias)
        self._state = Adapted(params=params, head=put(begun.head, replicated(world.mesh)))
        numbers = options.model_dump(exclude={"head_bias"})
        rates = {name: put_scalar(world.mesh, value) for name, value in numbers.items()}
        self._rates = AdaptRates(**rates)
        self._began = agents[phase.agent].params
        self._skipped: list[dict[str, Any]] = []
        self._lines: list[dict[str, Any]] = []
        self._pulse = Pulse()
        self.file = run.folder / ADAPTATIONS / f"{phase.stem}.jsonl"
        assert world.single is not None  # the recipe has this phase
        self.engine = world.single

    def weights(self) -> Any:
        """The weights as they stand, for the engine."""
        return self.engine.load(*rollout_weights(self._world.rollouts, self._frozen, [self._state.params]))

    def learn(self, shard: Path) -> None:
        """Take the step of a block's episode, and log it."""
        self._run.processes.wait(f"written {shard.name}")  # by process 0, for all to learn from
        line = self.learn_from(shard)
        numbers = {f"adapt/{name}": float(value) for name, value in line.items() if name != "task_id"}
        self._run.log.write(self._agent_steps, self._phase.name, numbers)
        if self._pulse.due():  # off a terminal, where a line for each episode would be many
            queries = sum(line.get("queried", False) for line in self._lines)
            words = f"{len(self._lines)} episodes, {queries} asked for their success"
            CONSOLE.print(f"{self._phase.name}: {words}", highlight=False, soft_wrap=True)

    def learn_from(self, shard: Path) -> dict[str, Any]:
        """Take the step of a block's episode; returns its line in the record.

        An episode that broke, or in which the agent wrote nothing, is no step.
        """
        [episode] = read_trajectories([shard])
        line: dict[str, Any] = {"task_id": episode.task_id, "tokens": episode.written_tokens}
        if episode.finished and episode.written_tokens:
            tokens = put_tokens(self._world.mesh, episode_rows(episode, self._run.config, self._world))
            success = put_scalar(self._world.mesh, float(episode.success))
            self._state, seen = self._world.adapt(self._state, self._frozen, tokens, success, self._rates)
            found = _told(jax.device_get(seen))
            line |= found if self._finite(len(self._lines) + 1, line, found, tokens) else {"skipped": True}
        self._lines.append(line)
        return line

    def finish(
        self,
        run: Run,
        world: World,
        agents: Agents,
        phase: Phase,
        record: PhaseRecord,
        shards: Sequence[Path],
        others: Sequence[Path],
        budget: Budget,
        /,
    ) -> None:
        """Sum up and commit the phase with the record of its steps.

        That is written here alone: what a commit has named must not change before the next.
        """
        self._write()
        rewards = [one.success for path in shards for one in read_trajectories([path])]
        records = record.records | {"adaptation": adaptation_counts(self._lines, rewards)}
        records |= {SKIPPED: self._skipped} if self._skipped else {}
        record = replace(record, records=records)
        files = [*others, self.file, *kept_files(run, record)]
        finish_roll_out(run, world, agents, phase, record, shards, files, budget)

    def _write(self) -> None:
        if self._run.leads:
            self.file.parent.mkdir(exist_ok=True)
            write_whole(self.file, "".join(json.dumps(line) + "\n" for line in self._lines))

    def _finite(self, number: int, line: dict[str, Any], found: dict[str, Any], tokens: TokenBatch) -> bool:
        """Whether a step's numbers are finite; where they are not, it changed nothing, and is to be skipped.

        Raises:
          LearningDiverged: the run is to stop there.
        """
        broken = [name for name in LOOKED_AT if not np.isfinite(found[name])]
        if not broken:
            return True
        tensor, cause = self._cause()
        path = kept_path(self._run.folder, self._phase.stem, number)
        about = {"phase": self._phase.name, "round": self._phase.round, "step": number, "metrics": found}
        about |= {"cause": cause, "tensor": tensor, "pairs": [], "trajectories": [line]}
        hosted = jax.tree.map(np.asarray, jax.device_get(tokens))
        self._run.processes.once("kept batch", lambda: write_kept(path, [0], [hosted], about))
        where = f"recipe.{self._phase.name.rpartition('/')[2]}.adapt"
        fork = fork_command(self._run.folder, self._run.config, "optimizer.nonfinite=skip")
        message = (
            f"{self._phase.name}, episode {number} (task {line['task_id']}): {broken[0]} is "
            f"{found[broken[0]]}; first tensor that is not finite: {tensor}; cause: {cause}; the batch is "
            f"kept in {path}; this run's config is kept: fork it without such steps: {fork}; or change "
            f"{where}.learning_rate_queried and {where}.learning_rate_predicted"
        )
        skips = self._run.config.optimizer.nonfinite == "skip" and "grad_norm" in broken
        if not skips or tensor.startswith(("params", "head")):
            self._run.keep(self._phase.name, [path])
            raise LearningDiverged(message)
        name = str(path.relative_to(self._run.folder))
        self._skipped.append({"step": number, "cause": cause, "file": name})
        CONSOLE.print(f"skipped: {message}", soft_wrap=True)
        return False

    def _cause(self) -> tuple[str, str]:
        """The first tensor that is not finite, and what made it so: parameters, or the rate."""
        if (tensor := first_broken({"params": self._state.params, "head": self._state.head})) is None:
            return "loss", "rate: the weights are finite, and too large for a pass over the episode"
        if first_broken(self._began) is not None:
            return tensor, "parameters: the agent's were broken already"
        return tensor, "rate: a step of this evaluation broke the weights"


def episode_rows(episode: Trajectory, config: Config, world: World) -> TokenBatch:
    """Rows that hold one episode alone: as few as the mesh splits rows over."""
    shape = BatchConfig(
        rows=config.mesh.data * config.mesh.fsdp,
        row_length=config.batch.row_length,
        views_per_row=1,
        pairs=1,
    )
    [batch] = pack_sft([episode], batch=shape, pad_id=world.chat.pad_id, seed=0).batches
    return batch.tokens


def adaptation_counts(lines: Sequence[dict[str, Any]], successes: Sequence[bool]) -> dict[str, int]:
    """What a phase's record says of its steps.

    That predictions were right is measured; no step has seen it.

    Args:
      lines: one for each episode.
      successes: whether each really succeeded.
    """
    steps = [(line, true) for line, true in zip(lines, successes, strict=True) if "loss" in line]
    predicted = [(line, true) for line, true in steps if not line["queried"]]
    return {
        "episodes": len(lines),
        "steps": len(steps),
        "queries": len(steps) - len(predicted),
        "predicted": len(predicted),
        "predicted_right": sum(line["success"] == true for line, true in predicted),
        "learned_tokens": sum(line["tokens"] for line, _ in steps),
    }


def _told(seen: Adaptation) -> dict[str, Any]:
    """What a step saw, as plain numbers."""
    found = {name: float(value) for name, value in vars(seen).items()}
    return found | {name: bool(found[name]) for name in COUNTED}
