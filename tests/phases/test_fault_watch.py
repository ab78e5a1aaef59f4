"""A run whose environment is broken ends with the reasons, and one in trouble now and then goes on."""

from types import SimpleNamespace

import pytest

from coevo_jax.data.parquet import write_trajectories
from coevo_jax.hosts.processes import Processes
from coevo_jax.phases.fault_watch import EnvironmentBroken, FaultWatch
from coevo_jax.rollout.stats import RolloutStats
from tests.episode_stats.test_faults import fault


def block(episodes, faults, lost=0):
    endings = {"solved": episodes - faults - lost, "fault": faults, "lost": lost}
    return RolloutStats(episodes=episodes, endings=endings)


@pytest.fixture
def shard(tmp_path):
    write_trajectories(tmp_path / "a.parquet", [fault(str(n), 0, "boom") for n in range(9)])
    return tmp_path / "a.parquet"


def watch(share=0.5):
    config = SimpleNamespace(env=SimpleNamespace(max_fault_share=share))
    return FaultWatch(SimpleNamespace(config=config, processes=Processes()), "round-01/explore_target")


def test_a_broken_environment_ends_the_run_with_its_reasons(shard):
    watched = watch()
    watched.see(block(10, 0), shard)
    watched.see(block(8, 8), shard)  # 8 of 18
    with pytest.raises(EnvironmentBroken) as caught:
        watched.see(block(4, 4), shard)
    words = str(caught.value)
    assert words.startswith("round-01/explore_target: the environment broke in 12 of 22 episodes")
    assert "9 times boom (first: 0, sample 0)" in words and "--resume" in words


def test_few_faults_a_small_share_and_lost_branches_do_not(shard):
    watched = watch()
    watched.see(block(7, 7), shard)  # too few to say anything
    watched.see(block(40, 7), shard)
    watched.see(block(40, 0, lost=40), shard)
    never = watch(share=1)
    never.see(block(100, 100), shard)
