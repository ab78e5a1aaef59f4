"""The episodes of a block that several processes played, joined into the shard a single one would write."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from coevo_jax.data.parquet import read_trajectories, write_trajectories
from coevo_jax.hosts.processes import Processes
from coevo_jax.rollout.stats import RolloutStats, joined
from coevo_jax.trajectory import Trajectory


def gather(
    processes: Processes,
    path: Path,
    mine: Sequence[Trajectory],
    stats: RolloutStats,
    *,
    samples: int,
    hosts: int = 1,
) -> RolloutStats:
    """Write the shard of a block from the episodes of all processes; returns their counts together.

    Each process writes a shard of its own beside it, and process 0 makes one of them, in the block's order.

    Args:
      mine: `samples` episodes of each of `processes.share_of` the block's tasks, in their order.
      hosts: processes that played the same episodes, in lockstep: the first of them tells of all.
    """
    if processes.count == 1:
        write_trajectories(path, mine)
        return stats
    if processes.index % hosts == 0:
        write_trajectories(part_path(path, processes.index), mine)
    parts = processes.exchange(f"played {path.name}", asdict(stats))[::hosts]
    if processes.leads:
        tellers = range(0, processes.count, hosts)
        own = [read_trajectories([part_path(path, index)]) for index in tellers]
        write_trajectories(path, interleaved(own, samples))
        for leftover in path.parent.glob(f".{path.stem}.part-*"):
            leftover.unlink()
    return joined([RolloutStats(**part) for part in parts])


def part_path(path: Path, process: int) -> Path:
    """The hidden file in which a process leaves its episodes of a block until the whole block is written."""
    return path.with_name(f".{path.stem}.part-{process:05d}.parquet")


def interleaved(parts: Sequence[Sequence[Trajectory]], samples: int) -> list[Trajectory]:
    """The episodes of a block in the order of its tasks, dealt out to the processes in turn."""
    whole: list[Trajectory] = []
    longest = max(len(part) for part in parts)
    for start in range(0, longest, samples):
        for part in parts:
            whole += part[start : start + samples]
    return whole
