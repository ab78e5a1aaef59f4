"""Units and weights of what is reinforced: a view for each trajectory, with its turns' advantages.

With E trajectories in an optimizer step that have M turns and L tokens, and w the weight of a token's source,
a token of a turn of m tokens and a trajectory of l tokens weighs

    w / L            for the reduction "token"
    w / (M * m)      for "turn"
    w / (E * l)      for "trajectory"

A view's own weights hold what differs within it (1 / m), the rest is the microbatch's weight[n].
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from coevo_jax.batch import Reinforcement
from coevo_jax.config.options import BatchConfig
from coevo_jax.data.packing.groups import Unit
from coevo_jax.data.packing.microbatch import Microbatch
from coevo_jax.data.packing.prefix_tree import scored_tokens
from coevo_jax.data.packing.views import View, turn_of_token
from coevo_jax.data.reinforced import Credit
from coevo_jax.trajectory import Trajectory

Reduction = Literal["token", "turn", "trajectory"]


def reinforced_view(index: int, trajectory: Trajectory, credit: Credit, reduction: Reduction) -> View:
    """The view of a reinforced trajectory; of one that was cut, the turns that are left.

    Tokens before the first turn that is reinforced weigh 0, and have no advantage.
    """
    turns = turn_of_token(trajectory)
    weights = np.ones(len(turns), np.float32)
    if reduction == "turn":
        weights = (1 / np.bincount(turns)[turns]).astype(np.float32) if len(turns) else weights
    given = turns >= credit.first
    advantages = np.asarray(credit.advantages, np.float32)[turns]
    return View(
        trajectory=index,
        weights=np.where(given, weights, np.float32(0)).tobytes(),
        token_count=int(given.sum()),
        advantages=np.where(given, advantages, np.float32(0)).tobytes(),
    )


def add_units(
    tasks: dict[str, list[Unit]],
    credits: Mapping[int, Credit],
    trajectories: Sequence[Trajectory],
    reduction: Reduction,
) -> None:
    """Add a unit for every reinforced trajectory; beside pairs they ride along with those of their task."""
    alone = not any(unit.link for units in tasks.values() for unit in units)
    for index, credit in credits.items():
        task_id = trajectories[index].task_id
        view = reinforced_view(index, trajectories[index], credit, reduction)
        if credit.first and not view.token_count:  # what was reinforced is cut off
            continue
        tasks.setdefault(task_id, []).append(Unit(task_id=task_id, views=(view,), counts=alone))


def step_weights(
    step: Iterable[Microbatch], credits: Mapping[int, Credit], reduction: Reduction, batch: BatchConfig
) -> list[dict[int, float]]:
    """The weight of every reinforced view by its n, for each microbatch of an optimizer step."""
    own = [
        {n: view for (_, view), n in micro.places(batch).items() if view.trajectory in credits}
        for micro in step
    ]
    views = [view for places in own for view in places.values()]
    total = {
        "token": sum(view.token_count for view in views),
        # The weights of a turn's tokens add up to 1.
        "turn": round(sum(float(view.token_weights.sum(dtype=np.float64)) for view in views)),
        "trajectory": len(views),
    }[reduction]

    def weight(view: View) -> float:
        length = max(view.token_count, 1) if reduction == "trajectory" else 1
        return credits[view.trajectory].weight / (max(total, 1) * length)

    return [{n: weight(view) for n, view in places.items()} for places in own]


def reinforcement(
    micro: Microbatch,
    weights: Mapping[int, float],
    view_weight: np.ndarray,
    trajectories: Sequence[Trajectory],
    batch: BatchConfig,
) -> Reinforcement:
    """Write the arrays of a microbatch's reinforced views.

    Args:
      weights: of the views, by n.
      view_weight: float32 [B, S, K] of the microbatch; in its order, the tokens of a view have a weight above
        0 where they stand among the scored tokens of the row.
    """
    weight = np.zeros(batch.rows * batch.views_per_row, np.float32)
    advantage, old_logps = np.zeros_like(view_weight), np.zeros_like(view_weight)
    views = {n: view for (_, view), n in micro.places(batch).items()}
    for n, own in weights.items():
        row, place = divmod(n, batch.views_per_row)
        played = trajectories[views[n].trajectory]
        entries, given = np.flatnonzero(view_weight[row, place]), views[n].token_weights > 0
        weight[n] = own
        advantage[row, place, entries] = views[n].token_advantages[given]
        old_logps[row, place, entries] = played.logps[scored_tokens(played)][given]
    return Reinforcement(weight=weight, advantage=advantage, old_logps=old_logps)
