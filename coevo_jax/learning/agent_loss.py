"""From an agent's options to the loss it minimises."""

from coevo_jax.config import LearnConfig, LossTerms
from coevo_jax.learning.loss_options import mixture, resolve_loss, with_divergence
from coevo_jax.learning.objective import AgentLoss
from coevo_jax.learning.preference_losses import PreferenceLoss
from coevo_jax.strict import ConfigError, nearest
from coevo_jax.trajectory import PAIR_KINDS


def agent_loss(config: LearnConfig, key: str) -> AgentLoss:
    """The loss of an agent; equal options give an equal one, so that its compiled programs are shared.

    Args:
      key: where the options stand, for messages ("target").

    Raises:
      ConfigError: no such loss or option, or options for a loss that is not in use.
    """
    losses = []
    used: set[str] = set()
    for kind in PAIR_KINDS:
        weights = dict(config.pairs)[kind]
        own = weights is not None and weights.loss is not None
        terms = weights.loss if own else config.loss
        used |= set(_weights(terms))
        losses.append(_resolve_at(terms, config, f"{key}.pairs.{kind}.loss" if own else f"{key}.loss"))
    for name in config.loss_options:
        if name not in used:
            raise ConfigError(
                f"{key}.loss_options.{name}: this loss is not in use; in use: {', '.join(sorted(used))}"
                f"{nearest(name, sorted(used))}"
            )
    return AgentLoss(by_kind=tuple(losses), wpo=config.wpo)


def _weights(terms: LossTerms) -> dict[str, float]:
    return {terms: 1.0} if isinstance(terms, str) else dict(terms)


def _resolve_at(terms: LossTerms, config: LearnConfig, key: str) -> PreferenceLoss:
    weights = _weights(terms)
    if not weights or min(weights.values()) <= 0:
        raise ConfigError(f"{key}: found {terms!r}, expected a loss or a mixture with weights above 0")
    try:
        losses = [
            (weight, resolve_loss(name, config.loss_options.get(name, {})))
            for name, weight in weights.items()
        ]
        if config.divergence != "reverse_kl":
            losses = [
                (weight, with_divergence(loss, config.divergence, config.divergence_alpha))
                for weight, loss in losses
            ]
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    return mixture(losses)
