"""How an agent learns: the options of its loss and of its steps."""

from typing import Literal

from pydantic import Field

from coevo_jax.config.recipe import LossTerms
from coevo_jax.config.strict import StrictModel

LossOption = bool | int | float | str


class SurrogateConfig(StrictModel):
    """The clipped surrogate of what is reinforced: PPO's (arXiv 1707.06347, eq. 7), token by token."""

    clip_low: float = Field(default=0.2, gt=0, lt=1)
    """A token that should become rarer is pushed until its probability is 1 minus this of what it was."""
    clip_high: float = Field(default=0.2, gt=0)
    """A token that should become likelier is pushed until its probability is 1 plus this of what it was."""
    reduction: Literal["token", "turn", "trajectory"] = "token"
    """Mean over all tokens of a step (DAPO, arXiv 2503.14476), of the means of its turns (GiGPO, arXiv
    2505.10978, eq. 9), or of its trajectories (GRPO, arXiv 2402.03300, eq. 3). The default is inferred: what
    GiGPO's authors' code takes."""
    kl: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the reference, by each token's estimator k3; 0 reads no reference."""
    skip_zero: bool = False
    """Leave out trajectories of which every turn has the advantage 0; otherwise they count in the mean."""


class AgentConfig(StrictModel):
    """How an agent learns; from what, the recipe says."""

    max_pairs_per_kind: int = Field(default=4, ge=1)
    """Most pairs of one kind per task."""
    pairs_kept: Literal["largest_gap", "smallest_gap", "drawn"] = "largest_gap"
    """Which pairs are kept where there are more: by the gap of their rewards, or as the seed draws them."""
    sft_reduction: Literal["mean", "sum"] = "mean"
    """SFT term of a trajectory: mean or sum over its agent tokens."""
    loss: LossTerms = "sigmoid"
    """Preference loss: a name (`python -m launch.sweep --list` shows all), your own as
    package.module:function, or a weighted mixture {name: weight}."""
    loss_options: dict[str, dict[str, LossOption]] = Field(default={})
    """Options of the losses in use, by the loss's name, such as {simpo: {gamma: 0.5}}."""
    divergence: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "reverse_kl"
    """Divergence that ties the policy to the reference (f-DPO); DPO's own is reverse_kl."""
    divergence_alpha: float = Field(default=0.5, gt=0, le=1)
    """Alpha of the alpha-divergence: near 0 the reverse KL, 1 the forward KL."""
    ld_alpha: float = Field(default=1.0, ge=0, le=1)
    """Weight of a side's tokens beyond the length of the pair's shorter side (LD-DPO); 1 is plain."""
    wpo: bool = False
    """Weigh every pair by how likely the policy is to write both of its sides (WPO)."""
    turn_discount: float = Field(default=1.0, gt=0, le=1)
    """Credit per turn: the last turn counts 1, each one before it this factor less."""
    surrogate: SurrogateConfig = SurrogateConfig()
    beta: tuple[float, ...] = (0.1, 0.5)
    """Strength of the tie to the reference, per round; the last value repeats."""
    learning_rate: tuple[float, ...] = (1e-4,)
    """Peak learning rate per round; the last value repeats. Constant after warm-up."""
    warmup_fraction: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps with linear warm-up, every round anew."""
    epochs: int = Field(default=3, ge=1)
    """Passes over the round's pairs."""
    reference: Literal["round_start", "warm_start"] = "round_start"
    """Reference policy: the agent at the round's start (ETO) or the warm start (IPR)."""
    reference_every: int | None = Field(default=None, ge=1)
    """Make the agent as it stands its own reference again after every so many optimizer steps."""
    keep_optimizer: bool = False
    """Carry Adam's moments over from the last round instead of a fresh start."""
