"""From an agent's options to the loss it minimises."""

from coevo_jax.config.options import LearnConfig, LossTerms
from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.loss_calls import Loss
from coevo_jax.learning.loss_names import loss_weights, losses_in_use
from coevo_jax.learning.loss_options import WITHOUT_REFERENCE, mixture, resolve_loss, with_divergence
from coevo_jax.learning.objective import AgentLoss


def agent_loss(config: LearnConfig, key: str) -> AgentLoss:
    """The loss of an agent; equal options give an equal one, so that its compiled programs are shared.

    Args:
      key: where the options stand, for messages ("target").

    Raises:
      ConfigError: no such loss or option, or options that change nothing under the losses in use.
    """
    by_kind = losses_in_use(config, key)
    losses = {where: _resolve_at(terms, config, where) for terms, where in by_kind}
    _refuse_idle(config, key, tuple(losses.values()))
    return AgentLoss(by_kind=tuple(losses[where] for _, where in by_kind), wpo=config.wpo)


def _resolve_at(terms: LossTerms, config: LearnConfig, key: str) -> Loss:
    try:
        losses = [
            (weight, resolve_loss(name, config.loss_options.get(name, {})))
            for name, weight in loss_weights(terms).items()
        ]
        if config.divergence != "reverse_kl":
            losses = [
                (weight, with_divergence(loss, config.divergence, config.divergence_alpha))
                for weight, loss in losses
            ]
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from None
    return mixture(losses)


def _refuse_idle(config: LearnConfig, key: str, losses: tuple[Loss, ...]) -> None:
    """Raise ConfigError for options of the reference where no loss in use reads it."""
    names = sorted({term.name for loss in losses for term in loss.terms})
    if not all(name in WITHOUT_REFERENCE for name in names):
        return
    for option, is_set in (
        ("divergence", config.divergence != "reverse_kl"),
        ("reference_every", config.reference_every is not None),
    ):
        if is_set:
            raise ConfigError(f"{key}.{option} does nothing: {', '.join(names)} reads no reference")
