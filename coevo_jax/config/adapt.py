"""Adaptation in evaluation: an agent that learns from the tasks it is tested on (ATENA, arXiv 2506.06630)."""

from pydantic import Field

from coevo_jax.config.strict import StrictModel


class AdaptOptions(StrictModel):
    """How an agent's weights follow its test episodes, played one after another.

    After an episode its weights take one step that makes the agent surer of what it did where it succeeded,
    and less sure where it failed; whether it did is asked of the environment where the agent was unsure, and
    left to a head that predicts success where it was sure. Numbers of such an evaluation use test feedback.

    The defaults are those of the released script for REVERIE. Inferred for agents that write text: a step of
    the method is a token of the agent, its candidates are the vocabulary, its state feature is the state that
    the token is read off.
    """

    mixing: float = Field(default=0.5, ge=0, lt=1)
    """The share of the agent's own choice in the distribution whose entropy is learned: the paper's lambda.
    0 is the policy's plain entropy; at 1 there would be no entropy to learn."""
    head_weight: float = Field(default=0.25, ge=0)
    """Weight of the self-prediction head's cross-entropy. 0 leaves the head as it began, so that it predicts
    failure for every episode that asks nothing."""
    head_bias: float = 0.0
    """The head's logit before it has learned anything. An episode is predicted to be a success above 0: so at
    0 it is a failure. Inferred: the released head begins with random weights, this one with zeros."""
    query_above: float = Field(default=0.1, ge=0)
    """Mean entropy of an episode's tokens, in nats, above which its true success is asked for: the paper's
    tau. The paper's steps choose among few candidates; that a token's entropy stands for them is inferred."""
    learning_rate_queried: float = Field(default=5e-6, ge=0)
    """Learning rate after an episode whose success was asked for."""
    learning_rate_predicted: float = Field(default=1e-7, ge=0)
    """Learning rate after an episode whose success was predicted."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Decoupled weight decay of all weights, norms included: what the released script's AdamW has by
    default."""
