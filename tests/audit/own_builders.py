"""Builders as a user writes them, of which the audit knows nothing."""

from collections.abc import Iterator
from itertools import combinations

from coevo_jax.methods.material import Imitation, Material, Preference, Reinforced, by_reward, by_task
from coevo_jax.trajectory import Trajectory


def late_over_early(material: Material, *, gap: int = 1) -> Iterator[Preference]:
    """A later sample of a task over one that came `gap` samples before it, whatever they earned."""
    for played in material.played:
        by_name = {(one.task_id, one.sample): one for one in played}
        for (task, sample), one in by_name.items():
            if (task, sample - gap) in by_name:
                yield Preference(one, by_name[task, sample - gap])


def first_samples(material: Material) -> Iterator[Trajectory]:
    for played in material.played:
        yield from (one for one in played if one.sample == 0)


def from_the_second_turn(material: Material) -> Iterator[Preference]:
    """More reward over less, where both sides have a second turn: it counts from there on."""
    for played in material.played:
        for sides in by_task(played).values():
            longer = [one for one in sides if len(one.turns) > 1]
            for one, other in combinations(longer, 2):
                preference = by_reward(one, other)
                if preference is not None:
                    yield preference._replace(chosen_from=1, rejected_from=1)


def last_turns(material: Material) -> Iterator[Imitation]:
    """The experts' last turns, those before them at a quarter; the whole of a second sample."""
    for expert in material.experts.values():
        yield Imitation(expert, (*[0.25] * (len(expert.turns) - 1), 1.0))
    for played in material.played:
        yield from (Imitation(one) for one in played if one.sample == 1)


def only_the_last_turn(material: Material, *, bonus: float = 0.0) -> Iterator[Reinforced]:
    """The reward, and a bonus, for an episode's last turn alone."""
    for played in material.played:
        for one in played:
            turns = int((one.agent_mask[1:] & ~one.agent_mask[:-1]).sum())
            yield Reinforced(one, (*(0.0,) * (turns - 1), one.reward + bonus))
