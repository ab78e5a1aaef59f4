"""From an agent's options to the loss it minimises."""

import functools

from coevo_jax.config import LearnConfig, LossTerms
from coevo_jax.learning.objective import AgentLoss
from coevo_jax.learning.preference_losses import PreferenceLoss, mixture, resolve_loss, with_divergence
from coevo_jax.strict import ConfigError, nearest
from coevo_jax.trajectory import PAIR_KINDS

Options = tuple[tuple[str, float | int | str], ...]


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
    parts = tuple(
        (name, weight, tuple(sorted(config.loss_options.get(name, {}).items())))
        for name, weight in weights.items()
    )
    try:
        return _resolve(parts, config.divergence, config.divergence_alpha)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None


@functools.lru_cache
def _resolve(
    parts: tuple[tuple[str, float, Options], ...], divergence: str, divergence_alpha: float
) -> PreferenceLoss:
    """Cached, so that equal options give the same function object."""
    losses = []
    for name, weight, options in parts:
        loss = resolve_loss(name, dict(options))
        if divergence != "reverse_kl":
            loss = with_divergence(loss, divergence, divergence_alpha)
        losses.append((weight, loss))
    return losses[0][1] if len(losses) == 1 and losses[0][0] == 1.0 else mixture(tuple(losses))
