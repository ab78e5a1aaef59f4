"""Roll-outs as part of a run: blocks of tasks, each with its shards, its metrics and its commit."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from coevo_jax.data.buffer import read_trajectories, shard_name
from coevo_jax.envs.env import Task, error_test
from coevo_jax.evaluation import summarize
from coevo_jax.hosts.gathering import gather
from coevo_jax.progress import CONSOLE, Stopwatch, say
from coevo_jax.rollout import Cast, play_together
from coevo_jax.rollout.lockstep import LockstepPool
from coevo_jax.rollout.placement import rollout_base, rollout_params
from coevo_jax.rollout.serving import serve
from coevo_jax.rollout.slots import SlotEngine
from coevo_jax.run_folder.collection import collection_name, round_folder
from coevo_jax.run_folder.manifest import PhaseRecord
from coevo_jax.run_folder.run import Run
from coevo_jax.sampling.engine import Sampling
from coevo_jax.schedule import Phase
from coevo_jax.world import World


def roll_out(
    run: Run,
    world: World,
    phases: Sequence[Phase],
    tasks: Sequence[Task],
    *,
    samples: int,
    sampling: Sampling,
    by_server: bool = False,
) -> None:
    """Play `samples` episodes of every task by each phase's agent; each block of tasks is one commit.

    Of several processes each plays its share of every block, at its own pace until the commit. The first
    phase does the work of all and commits what they play; the others are left to be summed up. With
    `by_server`, the run's server writes the turns, where it has one.

    Raises:
      Stopped: the run was asked to end. Episodes of a block that is not finished are played again.
    """
    first, size = phases[0], run.config.explore.block_tasks
    record = run.begin(first.name)
    watch = Stopwatch(record.seconds)
    blocks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    shards = [block_paths(run, phase, len(blocks)) for phase in phases]
    engine, weights = _players(run, world, phases, by_server)
    prefix = world.chat.shared_ids(world.env.system_prompt)
    hosts = world.rollouts.hosts
    pool = world.pool if hosts == 1 else LockstepPool(world.pool, run.processes.group(hosts))
    for index in range(record.position, len(blocks)):
        run.stop.end_if_asked()
        casts = [
            Cast(
                agent=phase.agent,
                weights=own,
                adapter=adapter,
                tasks=run.processes.share_of(blocks[index], hosts),
                samples=samples,
                phase=phase.index,
            )
            for phase, (own, adapter) in zip(phases, weights, strict=True)
        ]
        label = " and ".join([first.name, *(phase.name.rpartition("/")[2] for phase in phases[1:])])
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
        for phase, path, (trajectories, stats) in zip(phases, files, played, strict=True):
            stats = gather(run.processes, path, trajectories, stats, samples=samples, hosts=hosts)
            values = {f"rollout/{key}": value for key, value in stats.values().items()}
            run.log.write(int(run.agents[phase.agent].step), phase.name, values)
        record = replace(record, position=index + 1, seconds=watch.seconds)
        if index + 1 < len(blocks):
            record = run.commit(record, files=files, states_changed=False, finished=False)
    world.engine.reset()  # learning wants the memory of long slots
    last = [paths[-1] for paths in shards[1:]]
    finish_roll_out(run, world, first, replace(record, seconds=watch.seconds), shards[0], others=last)


def _players(
    run: Run, world: World, phases: Sequence[Phase], by_server: bool
) -> tuple[SlotEngine, list[tuple[Any, int]]]:
    """Who writes; what each phase plays on, and its adapter among those that several phases share."""
    if by_server and world.server is not None:
        return world.server, [(serve(run, world, phase.agent), 0) for phase in phases]
    agents = [run.agents[phase.agent].params for phase in phases]
    if run.frozen and len(phases) > 1:
        shared = world.engine.load(*rollout_base(world.rollouts, run.frozen, agents))
        return world.engine, [(shared, adapter) for adapter in range(len(phases))]
    copies = [rollout_params(world.rollouts, own, run.frozen) for own in agents]
    return world.engine, [(world.engine.load(copy), 0) for copy in copies]


def finish_roll_out(
    run: Run,
    world: World,
    phase: Phase,
    record: PhaseRecord,
    shards: Sequence[Path],
    others: Sequence[Path] = (),
) -> None:
    """Sum up a phase's episodes and commit it with all its shards; `others` are new ones of who played along.

    The record names the checkpoint whose agent played, so that anybody can let it score what it wrote.
    """
    summary = run.processes.once("summary", lambda: _summary(run, world, shards))
    errors = {
        f"rollout/after_error/{key}": math.nan if value is None else value
        for key, value in summary["after_error"].items()
    }
    run.log.write(int(run.agents[phase.agent].step), phase.name, errors)
    record = replace(record, records={"summary": summary, "checkpoint": run.manifest.checkpoint})
    run.commit(record, files=[*shards, *others], states_changed=False, finished=True)
    say(record, _summary_words(summary))


def _summary(run: Run, world: World, shards: Sequence[Path]) -> Any:
    return summarize(
        read_trajectories(list(shards)),
        hard_negative_threshold=run.config.evaluate.hard_negative_threshold,
        seed=run.config.seed,
        is_error=error_test(world.env),
    )


def block_count(run: Run, tasks: Sequence[Task]) -> int:
    return -(-len(tasks) // run.config.explore.block_tasks)


def block_paths(run: Run, phase: Phase, blocks: int) -> list[Path]:
    """The shards of what a phase plays, one per block; their folder is made."""
    folder = run.folder / round_folder(phase.round)
    folder.mkdir(parents=True, exist_ok=True)
    return [folder / shard_name(collection_name(phase), index, blocks) for index in range(blocks)]


def _summary_words(summary: Any) -> str:
    if summary["mean_reward"] is None:
        return f"no finished episode, {summary['faults']} faults"
    words = f"reward {summary['mean_reward']:.3f}, success {summary['success_rate']:.1%}"
    if summary["hard_negative_share_of_failures"] is not None:
        words += f", hard negatives {summary['hard_negative_share']:.1%}"
        words += f" ({summary['hard_negative_share_of_failures']:.1%} of failures)"
    return words + (f", {summary['faults']} faults" if summary["faults"] else "")
