"""From an agent's options to the loss it minimises."""

from collections.abc import Mapping, Sequence

from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import KindWeights, LossTerms, kinds_of, learners_of, learnings_of
from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.learning.loss_calls import Loss
from coevo_jax.learning.loss_options import WITHOUT_REFERENCE, mixture, resolve_loss, with_divergence
from coevo_jax.learning.objective import AgentLoss


def agent_losses(config: Config) -> dict[str, AgentLoss]:
    """The loss of every agent that learns, by its name.

    Raises:
      ConfigError: no such loss or option, or options that change nothing under the losses in use.
    """
    order = kinds_of(config.recipe)
    losses = {}
    for name in learners_of(config.recipe):
        learnings = learnings_of(config.recipe, name)
        kinds = {kind: weights for one in learnings for kind, weights in one.kinds.items()}
        losses[name] = agent_loss(config.agents[name], kinds, order, f"agents.{name}")
    return losses


def agent_loss(
    config: AgentConfig, kinds: Mapping[str, KindWeights], order: Sequence[str], key: str
) -> AgentLoss:
    """The loss of an agent; equal options give an equal one, so that its compiled programs are shared.

    Args:
      kinds: of pairs that the agent learns from.
      order: of the kinds of all agents: one program serves several agents.
      key: where the options stand, for messages ("agents.target").

    Raises:
      ConfigError: no such loss or option, or options that change nothing under the losses in use.
    """
    terms_by_kind: dict[str, tuple[LossTerms, str]] = {}  # what is in use: terms, and where they are set
    for kind, weights in kinds.items():
        if weights.dpo > 0:
            own = (weights.loss, f"recipe: loss of {kind}") if weights.loss is not None else None
            terms_by_kind[kind] = own or (config.loss, f"{key}.loss")
    # A kind that is left out takes the loss of one in use: no other program is compiled for its sake.
    spare = next(iter(terms_by_kind.values()), (config.loss, f"{key}.loss"))
    by_kind = [terms_by_kind.get(kind, spare) for kind in order]
    used = sorted({name for terms, _ in [*by_kind, spare] for name in _weights(terms)})
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
    losses = {where: _resolve_at(terms, config, where) for terms, where in [*by_kind, spare]}
    _refuse_idle(config, key, tuple(losses.values()))
    by_kind_losses = tuple(losses[where] for _, where in by_kind)
    return AgentLoss(kinds=tuple(order), by_kind=by_kind_losses, wpo=config.wpo)


def _weights(terms: LossTerms) -> dict[str, float]:
    """The names and weights of a mixture, in one order whatever the order they are written in."""
    return {terms: 1.0} if isinstance(terms, str) else dict(sorted(terms.items()))


def _resolve_at(terms: LossTerms, config: AgentConfig, key: str) -> Loss:
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


def _refuse_idle(config: AgentConfig, key: str, losses: tuple[Loss, ...]) -> None:
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
