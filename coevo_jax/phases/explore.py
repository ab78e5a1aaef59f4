"""Roll-outs as part of a run: blocks of tasks, each with its shards, its metrics and its commit."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import jax

from coevo_jax.config.options import of_round
from coevo_jax.data.parquet import read_trajectories, shard_name, write_trajectories
from coevo_jax.envs.env import Task, error_test
from coevo_jax.episode_stats.faults import reason_words
from coevo_jax.episode_stats.summary import summarize
from coevo_jax.learning.train_state import Agents
from coevo_jax.methods.hints import NO_HINTS, Hints
from coevo_jax.phases.fault_watch import FaultWatch, require_numbers
from coevo_jax.phases.hinted import hint_counts, hint_words, hints_of, suggested
from coevo_jax.phases.proof import contradicted_tasks, tell
from coevo_jax.phases.serving import serve
from coevo_jax.phases.world import (
    World,
    tasks_of,
)
from coevo_jax.progress import CONSOLE, Stopwatch, say
from coevo_jax.recipe import Phase, explored_together
from coevo_jax.rollout import BranchSet, EpisodeSet, QuestionSet, play_together
from coevo_jax.rollout.gathering import gather
from coevo_jax.rollout.lockstep import LockstepPool
from coevo_jax.rollout.placement import rollout_weights
from coevo_jax.rollout.slots import SlotEngine
from coevo_jax.run_folder.budget import Budget, asked_of, budget_words
from coevo_jax.run_folder.collection import round_folder
from coevo_jax.run_folder.manifest import PhaseRecord
from coevo_jax.run_folder.run import Run
from coevo_jax.sampling.engine import Sampling
from coevo_jax.trajectory import Trajectory

Share = Callable[[Sequence[Any]], Sequence[Any]]
"""What a process plays of a block: every so manieth one of it."""
HintsOf = Callable[[str, int], Hints]
"""What is suggested in the episode of a task's sample."""


@dataclass(frozen=True, kw_only=True)
class TaskBlock:
    """The episodes played between two commits, which make one shard: some samples of some tasks."""

    tasks: Sequence[Task]
    first_sample: int
    samples: int
    hints: Mapping[str, HintsOf] = field(default_factory=dict)  # of the phases that play with some, by name

    def cast(self, share: Share, phase: Phase, weights: Any, adapter: int) -> EpisodeSet:
        """The episodes of a process by an agent."""
        return EpisodeSet(
            agent=phase.agent,
            weights=weights,
            adapter=adapter,
            tasks=share(self.tasks),
            samples=self.samples,
            first_sample=self.first_sample,
            phase=phase.index,
            mark=phase.mark,
            hints=self.hints.get(phase.name, _no_hints),
        )


def _no_hints(task_id: str, sample: int) -> Hints:
    return NO_HINTS


class Finish(Protocol):
    """The end of a phase that plays: what it played is summed up and committed."""

    def __call__(
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
    ) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Following:
    """An agent whose weights follow the blocks that it plays."""

    engine: SlotEngine
    weights: Callable[[], Any]  # as they stand, for the engine; called by all processes before every block
    learn: Callable[[Path], None]  # from a block's shard, before it is committed


class Block(Protocol):
    """The episodes played between two commits, which make one shard."""

    @property
    def samples(self) -> int:
        """Episodes of what is dealt out to the processes one by one."""
        ...

    def cast(
        self, share: Share, phase: Phase, weights: Any, adapter: int, /
    ) -> EpisodeSet | BranchSet | QuestionSet:
        """The episodes of a process by an agent."""
        ...


def task_blocks(tasks: Sequence[Task], samples: int, size: int) -> list[TaskBlock]:
    """Blocks that hold all samples of the first `size` tasks, then of the next ones."""
    starts = range(0, len(tasks), size)
    return [TaskBlock(tasks=tasks[start : start + size], first_sample=0, samples=samples) for start in starts]


def sample_blocks(tasks: Sequence[Task], samples: int, size: int) -> list[TaskBlock]:
    """Blocks of the first sample of all tasks, then the second: samples per task differ by at most one."""
    return [
        TaskBlock(tasks=tasks[start : start + size], first_sample=sample, samples=1)
        for sample in range(samples)
        for start in range(0, len(tasks), size)
    ]


def roll_out(
    run: Run,
    world: World,
    agents: Agents,
    phases: Sequence[Phase],
    blocks: Sequence[Block],
    *,
    sampling: Sampling,
    by_server: bool = False,
    asked: int | None = None,
    known: Mapping[str, Any] | None = None,
    finish: Finish | None = None,
    following: Following | None = None,
) -> None:
    """Play the episodes of every block by each phase's agent; each block is one commit.

    Of several processes each plays its share of every block, at its own pace until the commit. The first
    phase does the work of all and commits what they play; the others are left to be summed up. With
    `by_server`, the run's server writes the turns, where it has one. The block in which the agents have
    written as many tokens as `asked` is the last; the shards behind it are left empty. `known` is what the
    phase's record says besides. `finish` sums up what was played; None is `finish_roll_out`. With
    `following`, the only phase's weights learn from each block before it is committed.

    Raises:
      Stopped: the run was asked to end. Episodes of a block that is not finished are played again.
      EnvironmentBroken: too many episodes ended in faults.
      AgentBroken: an agent's probabilities are no numbers.
    """
    first = phases[0]
    record = run.begin(first.name)
    watch = Stopwatch(record.seconds)
    shards = [block_paths(run, phase, len(blocks)) for phase in phases]
    play_block = _player(run, world, agents, phases, sampling, by_server, following)
    played = [path for paths in shards for path in paths[: record.position]]
    written = (
        0 if asked is None else run.processes.once("explored", lambda: _tokens(read_trajectories(played)))
    )
    watched = FaultWatch(run, first.name)
    for index in range(record.position, len(blocks)):
        run.stop.end_if_asked()
        files = [paths[index] for paths in shards]
        written += play_block(blocks[index], files, f"{index + 1}/{len(blocks)}", watched)
        if following is not None:
            following.learn(files[0])
        record = replace(record, position=index + 1, seconds=watch.seconds)
        if asked is not None and written >= asked:
            break
        if index + 1 < len(blocks):
            record = run.commit(record, files=files, finished=False)
    empty = [path for paths in shards for path in paths[record.position :]]
    if run.leads:
        for path in empty:
            write_trajectories(path, [])
    world.engine.reset()  # learning wants the memory of long slots
    last = [path for paths in shards[1:] for path in paths[record.position - 1 :]]
    budget = {} if asked is None else {"explored_tokens": {"asked": asked, "reached": written}}
    record = replace(record, seconds=watch.seconds)
    record = replace(record, records=dict(known or {}))
    (finish or finish_roll_out)(run, world, agents, phases[0], record, shards[0], last, budget)


def _player(
    run: Run,
    world: World,
    agents: Agents,
    phases: Sequence[Phase],
    sampling: Sampling,
    by_server: bool,
    following: Following | None,
) -> Callable[[Block, Sequence[Path], str, FaultWatch], int]:
    """What plays a block, writes its shards and metrics, and returns the tokens that the agents wrote."""
    stay = [] if following else [_players(run, world, agents, phases, by_server)]
    marks = [phase.mark for phase in phases]
    prefix = world.chat.shared_ids(world.env.system_prompt, marks)
    hosts = world.rollouts.hosts
    pool = world.pool if hosts == 1 else LockstepPool(world.pool, run.processes.group(hosts))
    label = " and ".join([phases[0].name, *(phase.name.rpartition("/")[2] for phase in phases[1:])])

    def play_block(block: Block, files: Sequence[Path], place: str, watched: FaultWatch) -> int:
        engine, weights = (following.engine, [(following.weights(), 0)]) if following else stay[0]
        casts = [
            block.cast(lambda items: run.processes.share_of(items, hosts), phase, own, adapter)
            for phase, (own, adapter) in zip(phases, weights, strict=True)
        ]
        played = play_together(
            engine,
            pool,
            world.chat,
            casts,
            sampling=sampling,
            prefix=prefix,
            progress=CONSOLE if following is None or CONSOLE.is_terminal else None,
            label=f"{label} {place}",
            between_blocks=run.between_blocks,
        )
        written = 0
        for phase, path, (trajectories, stats) in zip(phases, files, played, strict=True):
            require_numbers(phase.name, trajectories)
            stats = gather(run.processes, path, trajectories, stats, samples=block.samples, hosts=hosts)
            written += stats.agent_tokens
            values = {f"rollout/{key}": value for key, value in stats.values().items()}
            run.log.write(int(agents[phase.agent].step), phase.name, values)
            watched.see(stats, path)
        return written

    return play_block


def _players(
    run: Run, world: World, agents: Agents, phases: Sequence[Phase], by_server: bool
) -> tuple[SlotEngine, list[tuple[Any, int]]]:
    """Who writes; what each phase plays on, and its adapter among those that several phases share."""
    if by_server and world.server is not None:
        return world.server, [(serve(run, world, agents, phase.agent), 0) for phase in phases]
    params = [agents[phase.agent].params for phase in phases]
    together = [params] if agents.frozen else [[own] for own in params]  # adapters share their base
    loaded = [world.engine.load(*rollout_weights(world.rollouts, agents.frozen, own)) for own in together]
    if agents.frozen:
        return world.engine, [(loaded[0], adapter) for adapter in range(len(phases))]
    return world.engine, [(weights, 0) for weights in loaded]


def finish_roll_out(
    run: Run,
    world: World,
    agents: Agents,
    phase: Phase,
    record: PhaseRecord,
    shards: Sequence[Path],
    others: Sequence[Path] = (),
    budget: Budget | None = None,
) -> None:
    """Sum up a phase's episodes and commit it with all its shards; `others` are new ones of who played along.

    The record names the checkpoint whose agent played, so that anybody can let it score what it wrote.
    """
    found = run.processes.once("summary", lambda: _records(run, world, phase, shards))
    records = record.records | found
    errors = {
        f"rollout/after_error/{key}": math.nan if value is None else value
        for key, value in records["summary"]["after_error"].items()
    }
    run.log.write(int(agents[phase.agent].step), phase.name, errors)
    records |= {"checkpoint": run.manifest.checkpoint} | ({"budget": budget} if budget else {})
    record = replace(record, records=records)
    run.commit(record, files=[*shards, *others], finished=True)
    say(
        record.name,
        record.seconds,
        ", ".join(filter(None, (_summary_words(records["summary"]), *_beside_words(records, budget or {})))),
    )


def _beside_words(records: dict[str, Any], budget: Budget) -> tuple[str, ...]:
    """What is said of a phase behind its rewards."""
    told = hint_words(records["hints"]) if "hints" in records else ""
    found = records.get("adaptation")
    fed = f"uses test feedback: {found['queries']} of {found['episodes']} episodes asked" if found else ""
    return told, fed, budget_words(budget)


def _records(run: Run, world: World, phase: Phase, shards: Sequence[Path]) -> dict[str, Any]:
    trajectories = read_trajectories(list(shards))
    summary = summarize(
        trajectories,
        hard_negative_threshold=run.config.evaluate.hard_negative_threshold,
        seed=run.config.seed,
        is_error=error_test(world.env),
    )
    records: dict[str, Any] = {"summary": summary, "agent_tokens": _tokens(trajectories)}
    if phase.kind == "explore" and (several := contradicted_tasks(world, trajectories)):
        tell(phase.name, several)
        records["contradicted"] = several
    if phase.hints is not None:
        found = suggested(run, world, phase)
        records["hints"] = hint_counts(trajectories, world.experts, found)
    return records


def _tokens(trajectories: Sequence[Trajectory]) -> int:
    """Tokens that the agents of all episodes wrote, however these ended."""
    return sum(trajectory.written_tokens for trajectory in trajectories)


def block_paths(run: Run, phase: Phase, blocks: int) -> list[Path]:
    """The paths of the shards that a phase plays, one per block; their folder is made."""
    folder = run.folder / round_folder(phase.round)
    folder.mkdir(parents=True, exist_ok=True)
    return [folder / shard_name(phase.collection, index, blocks) for index in range(blocks)]


def _summary_words(summary: Any) -> str:
    faults = f", {summary['faults']} faults" if summary["faults"] else ""
    if "fault_reasons" in summary:
        faults += f": {reason_words(summary['fault_reasons'])}"
    if summary["mean_reward"] is None:
        return f"no finished episode{faults}"
    words = f"reward {summary['mean_reward']:.3f}, success {summary['success_rate']:.1%}"
    if summary["hard_negative_share_of_failures"] is not None:
        words += f", hard negatives {summary['hard_negative_share']:.1%}"
        words += f" ({summary['hard_negative_share_of_failures']:.1%} of failures)"
    return words + faults


def exploring(run: Run, temperature: float | None = None) -> Sampling:
    """How a phase on training tasks draws tokens, as `explore` says; `temperature` replaces its own."""
    config = run.config.explore
    return Sampling(
        root=jax.random.key(run.config.seed),
        temperature=config.temperature if temperature is None else temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        min_p=config.min_p,
    )


def explore(run: Run, world: World, agents: Agents, phase: Phase) -> Agents:
    """Roll out an agent on the training tasks, block by block; or several agents, interleaved.

    Nothing is learned between the explorations of a round's start, so the first plays the episodes of all
    and leaves the others only to be summed up.
    """
    config = run.config.explore
    where = of_round(config.tasks, phase.round)
    tasks = tasks_of(world.env, "train", where, "explore.tasks")
    sampling = exploring(run)
    asked = asked_of(run.config, phase, "explored_tokens")
    blocks_of = task_blocks if asked is None else sample_blocks
    blocks = blocks_of(tasks, config.samples, config.block_tasks)
    together = explored_together(run.config, phase) or (phase,)
    hints = {other.name: hints_of(run, world, other) for other in together if other.hints is not None}
    blocks = [replace(block, hints=hints) for block in blocks]
    if phase == together[0]:
        roll_out(run, world, agents, together, blocks, sampling=sampling, by_server=True, asked=asked)
    else:
        shards = block_paths(run, phase, len(blocks))
        finish_roll_out(run, world, agents, phase, run.begin(phase.name), shards)
    return agents
