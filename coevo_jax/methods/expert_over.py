"""Pairs that prefer the expert to what an agent played."""

from collections.abc import Iterator

from coevo_jax.methods.material import Material, Preference, by_reward, by_task, cut_to_expert


def expert_over(material: Material, *, max_extra_turns: int | None = 5) -> Iterator[Preference]:
    """Pairs of a task's expert and every trajectory with another reward; the one with more reward is chosen.

    Of the target agent's own trajectories this is ETO (arXiv 2403.02502, section 3.2); of a failure agent's
    it makes hard negatives (Co-Evolving Agents, arXiv 2511.22254).

    Args:
      max_extra_turns: rejected trajectories are cut to the expert's turns plus this many, as ETO does.
    """
    for played in material.played:
        for task_id, trajectories in by_task(played).items():
            expert = material.expert(task_id)
            if expert is None:
                continue
            for trajectory in trajectories:
                preference = by_reward(expert, trajectory)
                if preference is not None:
                    yield cut_to_expert(preference, expert, max_extra_turns)
