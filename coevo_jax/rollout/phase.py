"""Roll-outs as part of a run: blocks of tasks, each with its shards, its metrics and its commit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coevo_jax.data.buffer import read_trajectories, shard_name
from coevo_jax.envs.env import Task
from coevo_jax.evaluation import summarize
from coevo_jax.hosts.gathering import gather
from coevo_jax.progress import CONSOLE, Stopwatch, say
from coevo_jax.rollout import Cast, play_together
from coevo_jax.rollout.lockstep import LockstepPool
from coevo_jax.rollout.placement import rollout_base, rollout_params
from coevo_jax.rollout.serving import serve
from coevo_jax.rollout.slots import SlotEngine
from coevo_jax.run_folder.manifest import PhaseRecord
from coevo_jax.run_folder.run import Run
from coevo_jax.sampling.engine import Sampling
from coevo_jax.schedule import Phase
from coevo_jax.world import World


@dataclass(frozen=True, kw_only=True)
class RollOut:
    """One agent's part in a roll-out."""

    phase: Phase  # whose index is part of the random keys, and whose name the metrics bear
    name: str  # of its shards


def roll_out(
    run: Run,
    world: World,
    parts: Sequence[RollOut],
    tasks: Sequence[Task],
    *,
    samples: int,
    sampling: Sampling,
    by_server: bool = False,
) -> None:
    """Play `samples` episodes of every task by each part's agent; each block of tasks is one commit.

    Of several processes each plays its share of every block, at its own pace until the commit. The first
    part's phase does the work, and its record holds the shards of all. With `by_server`, the run's server
    writes the turns, where it has one.

    Raises:
      Stopped: the run was asked to end. Episodes of a block that is not finished are played again.
    """
    phase, size = parts[0].phase, run.config.explore.block_tasks
    record = run.begin(phase.name)
    watch = Stopwatch(record.seconds)
    blocks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    shards = [block_paths(run, part, len(blocks)) for part in parts]
    engine, weights = _players(run, world, parts, by_server)
    prefix = world.chat.shared_ids(world.env.system_prompt)
    hosts = world.rollouts.hosts
    pool = world.pool if hosts == 1 else LockstepPool(world.pool, run.processes.group(hosts))
    for index in range(record.position, len(blocks)):
        run.stop.end_if_asked()
        casts = [
            Cast(
                agent=part.phase.agent,
                weights=own,
                adapter=adapter,
                tasks=run.processes.share_of(blocks[index], hosts),
                samples=samples,
                phase=part.phase.index,
            )
            for part, (own, adapter) in zip(parts, weights, strict=True)
        ]
        label = " and ".join([phase.name, *(part.phase.name.rpartition("/")[2] for part in parts[1:])])
        played = play_together(
            engine,
            pool,
            world.chat,
            casts,
            sampling=sampling,
            prefix=prefix,
            progress=CONSOLE,
            label=f"{label} {index + 1}/{len(blocks)}",
            between_blocks=run.stop.end_if_alone_and_asked,
        )
        files = [paths[index] for paths in shards]
        for part, path, (trajectories, stats) in zip(parts, files, played, strict=True):
            stats = gather(run.processes, path, trajectories, stats, samples=samples, hosts=hosts)
            values = {f"rollout/{key}": value for key, value in stats.values().items()}
            run.log.write(int(run.agents[part.phase.agent].step), part.phase.name, values)
        record = replace(record, position=index + 1, seconds=watch.seconds)
        if index + 1 < len(blocks):
            record = run.commit(record, files=files, states_changed=False, finished=False)
    world.engine.reset()  # learning wants the memory of long slots
    last = [paths[-1] for paths in shards[1:]]
    finish_roll_out(run, replace(record, seconds=watch.seconds), shards[0], others=last)


def _players(
    run: Run, world: World, parts: Sequence[RollOut], by_server: bool
) -> tuple[SlotEngine, list[tuple[Any, int]]]:
    """Who writes; what each part plays on, and its adapter among those that several parts share."""
    if by_server and world.server is not None:
        return world.server, [(serve(run, world, part.phase.agent), 0) for part in parts]
    agents = [run.agents[part.phase.agent].params for part in parts]
    if run.frozen and len(parts) > 1:
        shared = world.engine.load(*rollout_base(world.rollouts, run.frozen, agents))
        return world.engine, [(shared, adapter) for adapter in range(len(parts))]
    copies = [rollout_params(world.rollouts, own, run.frozen) for own in agents]
    return world.engine, [(world.engine.load(copy), 0) for copy in copies]


def finish_roll_out(
    run: Run, record: PhaseRecord, shards: Sequence[Path], others: Sequence[Path] = ()
) -> None:
    """Sum up a phase's episodes and commit it; `others` are new shards of the agents that played along."""
    summary = run.processes.once("summary", lambda: _summary(run, shards))
    record = replace(record, records={"summary": summary})
    run.commit(record, files=[shards[-1], *others], states_changed=False, finished=True)
    say(record, _summary_words(summary))


def _summary(run: Run, shards: Sequence[Path]) -> Any:
    return summarize(
        read_trajectories(list(shards)),
        hard_negative_threshold=run.config.evaluate.hard_negative_threshold,
        seed=run.config.seed,
    )


def block_count(run: Run, tasks: Sequence[Task]) -> int:
    return -(-len(tasks) // run.config.explore.block_tasks)


def block_paths(run: Run, part: RollOut, blocks: int) -> list[Path]:
    """The shards of a part, one per block; their folder is made."""
    folder = run.folder / "trajectories" / f"round-{part.phase.round:02d}"
    folder.mkdir(parents=True, exist_ok=True)
    return [folder / shard_name(part.name, index, blocks) for index in range(blocks)]


def _summary_words(summary: Any) -> str:
    if summary["mean_reward"] is None:
        return f"no finished episode, {summary['faults']} faults"
    words = f"reward {summary['mean_reward']:.3f}, success {summary['success_rate']:.1%}"
    if summary["hard_negative_share_of_failures"] is not None:
        words += f", hard negatives {summary['hard_negative_share']:.1%}"
        words += f" ({summary['hard_negative_share_of_failures']:.1%} of failures)"
    return words + (f", {summary['faults']} faults" if summary["faults"] else "")
