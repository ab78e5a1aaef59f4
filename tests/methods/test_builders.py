"""Builders beyond co-evolution's own pairs, whose rules tests/data/test_pairing.py has."""

import inspect

import numpy as np
import pytest

from coevo_jax.methods.better_over_worse import better_over_worse
from coevo_jax.methods.expert_over import expert_over
from coevo_jax.methods.imitation import best_rollouts, experts, successes
from coevo_jax.methods.material import Material
from coevo_jax.methods.table import BUILDERS, builder_options, find_builder
from coevo_jax.trajectory import Ending, Trajectory


def trajectory(agent: str, sample: int, reward: float, task: str = "t", **more) -> Trajectory:
    count = sum(map(ord, agent)) + sample
    return Trajectory(
        task_id=task,
        agent=agent,
        sample=sample,
        prompt="p",
        turns=(),
        reward=reward,
        ending=Ending.SOLVED if reward >= 1 else Ending.FAILED,
        tokens=np.array([1, count], np.int32),
        agent_mask=np.array([False, True]),
        logps=np.zeros(2, np.float32),
        **more,
    )


def material(*played, **experts_by_task) -> Material:
    return Material(played=tuple(played), experts=experts_by_task)


def names(preferences):
    sides = [(one.chosen, one.rejected) for one in preferences]
    return [(one.agent[0] + str(one.sample), other.agent[0] + str(other.sample)) for one, other in sides]


A = [trajectory("a", 0, 0.2), trajectory("a", 1, 1.0)]
B = [trajectory("b", 0, 0.6)]
C = [trajectory("c", 0, 0.1)]


def test_successes_take_part_only_where_all_may():
    assert names(better_over_worse(material(A))) == []
    assert names(better_over_worse(material(A), only="all")) == [("a1", "a0")]
    assert names(better_over_worse(material(A, B), only="all")) == [("a1", "a0"), ("b0", "a0"), ("a1", "b0")]


def test_across_is_between_any_two_of_several_collections():
    found = names(
        better_over_worse(material([trajectory("a", 0, 0.2), trajectory("a", 2, 0.3)], B, C), across=True)
    )
    assert found == [("b0", "a0"), ("b0", "a2"), ("a0", "c0"), ("a2", "c0"), ("b0", "c0")]
    assert ("a2", "a0") in names(
        better_over_worse(material([trajectory("a", 0, 0.2), trajectory("a", 2, 0.3)]))
    )


def test_experts_stand_over_every_collection_named():
    expert = trajectory("expert", 0, 0.9)
    assert names(expert_over(material(A, B, t=expert))) == [("e0", "a0"), ("a1", "e0"), ("e0", "b0")]
    assert names(expert_over(material(A))) == []


def test_what_is_imitated():
    expert, other = trajectory("expert", 0, 1.0), trajectory("expert", 0, 1.0, task="u")
    assert [one.sample for one in successes(material(A, B))] == [1]
    assert list(experts(material(B, u=other, t=expert))) == [expert]


def test_the_best_roll_out_of_each_task_is_imitated():
    twice = [trajectory("a", 2, 0.6), trajectory("a", 3, 0.0, task="v")]
    assert [(one.agent, one.sample) for one in best_rollouts(material([A[0]], B, twice))] == [("a", 2)]
    assert [one.sample for one in best_rollouts(material([A[0]]), above=0.1)] == [0]
    assert list(best_rollouts(material([A[0]]), above=0.2)) == []
    assert list(best_rollouts(material([trajectory("expert", 0, 1.0)]))) == []


@pytest.mark.parametrize("name", [(table, name) for table, builders in BUILDERS.items() for name in builders])
def test_a_builder_is_pure_by_its_looks_and_says_where_it_is_from(name):
    builder = find_builder(*name)
    assert next(iter(inspect.signature(builder).parameters)) == "material"
    for annotation, default in builder_options(builder).values():
        assert annotation is not inspect.Parameter.empty and default is not ...
    assert builder.__doc__


def test_what_is_no_builder_is_told():
    for name in ("nowhere:f", "json:nothing", "expert_ovr"):
        with pytest.raises(LookupError):
            find_builder("pairs", name)
    with pytest.raises(LookupError, match="expected one positional parameter"):
        builder_options(lambda one, other: None)
    with pytest.raises(LookupError, match="option 'x' has no type"):
        builder_options(lambda material, *, x: None)
