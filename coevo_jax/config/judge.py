"""A phase in which a discriminator learns, and how it does: inverse reinforcement learning."""

from typing import Literal

from pydantic import Field

from coevo_jax.config.recipe_built import Name, OfCollections
from coevo_jax.config.strict import StrictModel

Read = Literal["end", "mean"]
JUDGE = "judge"  # who learns in such a phase, in logs


class JudgeOptions(OfCollections):
    """Options of a phase in which a discriminator learns to tell experts' steps from an agent's own.

    A run has one discriminator, which begins as the warm start with an undecided head, and goes on learning
    in every such phase; what it then thinks of the agent's steps stays with the collection that it fills.
    """

    of: tuple[Name, ...] = Field(min_length=1)
    """The collections whose own turns are judged: of branches that leave experts, or of whole episodes."""
    into: Name
    """Collection of the same episodes with what the discriminator thinks of their turns."""


class JudgeConfig(StrictModel):
    """How the discriminator learns: by the binary cross-entropy of experts' steps and own ones."""

    learning_rate: tuple[float, ...] = (1e-5,)
    """Peak learning rate per round; the last value repeats. Constant after warm-up. That StepAgent's is 1e-5
    is inferred."""
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps with linear warm-up, in every phase anew."""
    read: Read = "end"
    """The state that its head reads: that of the turn's last token, as reward models have it, or the mean
    over the turn's tokens. Inferred."""
    epochs: int = Field(default=1, ge=1)
    """Passes over the own steps of a phase, batch.step_episodes of them a step. With 1, and one pass of the
    agent over what is reinforced, there is one step of the discriminator for each of the agent's, which is
    inferred; all of the phase's come before the agent's."""
