"""Builders as a user writes them, of which the audit knows nothing."""

from collections.abc import Iterator

from coevo_jax.methods.material import Material, Preference
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
