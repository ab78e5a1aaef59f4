"""A learning on the mixed logits of two models: Weak-Driven Learning (WMSS, arXiv 2602.08222)."""

from typing import Literal

from pydantic import Field

from coevo_jax.config.strict import StrictModel


class DrawOptions(StrictModel):
    """How often each trajectory is learned from, by the entropies that both models have on its agent tokens.

    With H0 and H1 the weak and the strong model's mean entropy of a trajectory and D = H1 - H0, it is drawn
    with a probability proportional to

        alpha * H0 / sum H0  +  beta * max(-D, 0) / sum max(-D, 0)  +  gamma * max(D, 0) / sum max(D, 0)

    (arXiv 2602.08222, with its weights). A term whose sum is 0 is left out; that is inferred.
    """

    alpha: float = Field(default=0.1, ge=0)
    """Weight of what the weak model was unsure of."""
    beta: float = Field(default=0.8, ge=0)
    """Weight of what the strong model is surer of."""
    gamma: float = Field(default=0.1, ge=0)
    """Weight of what the strong model is less sure of."""
    draws: int | None = Field(default=None, ge=1)
    """Draws with replacement; null is as many as there are trajectories, as in the released script."""


class BesideOptions(StrictModel):
    """The weak model whose logits stand beside the policy's while it imitates."""

    weak: Literal["previous_round", "warm_start", "initial"] = "previous_round"
    """Which model is the weak one. previous_round: the agent as this learning of the round before began with
    it, in the first round the initial model (the paper's stages: what was strong is weak next). warm_start:
    the warm start in every round. initial: what the warm start began with. The last two are inferred."""
    mix: float = Field(default=0.5, gt=0, lt=1)
    """The policy's share of the mixed logits: the paper's lambda."""
    train_weak: bool = False
    """Train the weak model with the policy, as the released script does, and drop it afterwards. By default
    it is frozen, as summaries of the paper have it."""
    sampling: DrawOptions | None = DrawOptions()
    """Draws of the imitated trajectories; null learns from each of them once an epoch."""
