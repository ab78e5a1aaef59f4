"""From an agent's options to the loss it minimises."""

from coevo_jax.config.options import LearnConfig, LossTerms
from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.learning.loss_calls import Loss
from coevo_jax.learning.loss_options import WITHOUT_REFERENCE, mixture, resolve_loss, with_divergence
from coevo_jax.learning.objective import AgentLoss
from coevo_jax.trajectory import PAIR_KINDS


def agent_loss(config: LearnConfig, key: str) -> AgentLoss:
    """The loss of an agent; equal options give an equal one, so that its compiled programs are shared.

    Args:
      key: where the options stand, for messages ("target").

    Raises:
      ConfigError: no such loss or option, or options that change nothing under the losses in use.
    """
    terms_by_kind: dict[str, tuple[LossTerms, str]] = {}  # what is in use: terms, and where they are set
    for kind in PAIR_KINDS:
        weights = dict(config.pairs)[kind]
        if weights is not None and weights.dpo > 0:
            own = weights.loss is not None
            where = f"{key}.pairs.{kind}.loss" if own else f"{key}.loss"
            terms_by_kind[kind] = (weights.loss if own else config.loss, where)
    # A kind that is left out takes the loss of one in use: no other program is compiled for its sake.
    spare = next(iter(terms_by_kind.values()), (config.loss, f"{key}.loss"))
    by_kind = [terms_by_kind.get(kind, spare) for kind in PAIR_KINDS]
    used = sorted({name for terms, _ in by_kind for name in _weights(terms)})
    for name in config.loss_options:
        if name not in used:
            raise ConfigError(
                f"{key}.loss_options.{name}: this loss is not in use; in use: {', '.join(used)}"
                f"{nearest(name, used)}"
            )
    if config.wpo and (sorted_losses := [name for name in used if name.startswith("aot")]):
        raise ConfigError(
            f"{key}.wpo: found true beside {sorted_losses[0]}, whose values belong to sorted positions, "
            "not to pairs that could be weighed; use false or another loss"
        )
    losses = {where: _resolve_at(terms, config, where) for terms, where in by_kind}
    _refuse_idle(config, key, tuple(losses.values()))
    return AgentLoss(by_kind=tuple(losses[where] for _, where in by_kind), wpo=config.wpo)


def _weights(terms: LossTerms) -> dict[str, float]:
    """The names and weights of a mixture, in one order whatever the order they are written in."""
    return {terms: 1.0} if isinstance(terms, str) else dict(sorted(terms.items()))


def _resolve_at(terms: LossTerms, config: LearnConfig, key: str) -> Loss:
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
