"""The loss that an agent minimises, built from its options."""

from collections.abc import Mapping, Sequence

from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.idle import WITHOUT_REFERENCE
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import KindWeights, LossTerms
from coevo_jax.config.recipe_queries import kinds_of, learners_of, learnings_of, weights_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.learning.loss_calls import Loss
from coevo_jax.learning.loss_names import loss_weights, losses_in_use
from coevo_jax.learning.loss_options import mixture, resolve_loss, with_divergence
from coevo_jax.learning.objective import AgentLoss
from coevo_jax.learning.surrogate import Surrogate


def agent_losses(config: Config) -> dict[str, AgentLoss]:
    """The loss of every agent that learns, by its name.

    Raises:
      ConfigError: no such loss or option, or options that change nothing under the losses in use.
    """
    recipe, order = config.recipe, kinds_of(config.recipe)
    return {
        name: agent_loss(
            config.agents[name],
            weights_of(recipe, name),
            order,
            f"agents.{name}",
            reinforced=any(one.reinforcements for one in learnings_of(recipe, name)),
        )
        for name in learners_of(recipe)
    }


def agent_loss(
    config: AgentConfig,
    kinds: Mapping[str, KindWeights],
    order: Sequence[str],
    key: str,
    reinforced: bool = False,
) -> AgentLoss:
    """The loss of an agent; equal options give an equal loss, so that its compiled programs are shared.

    Args:
      kinds: of pairs that the agent learns from.
      order: of the kinds of all agents: one program serves several agents.
      key: where the options stand, for messages ("agents.target").
      reinforced: whether anything that it learns from is.

    Raises:
      ConfigError: no such loss or option, options that change nothing under the losses in use, or a loss that
        couples pairs beside what is reinforced.
    """
    by_kind, spare = losses_in_use(config, kinds, order, key)
    losses = {where: _resolve_at(terms, config, where) for terms, where in [*by_kind, spare]}
    if not (reinforced and config.surrogate.kl):
        _refuse_idle(config, key, tuple(losses.values()))
    by_kind_losses = tuple(losses[where] for _, where in by_kind)
    surrogate = None
    if reinforced:
        own = config.surrogate
        surrogate = Surrogate(clip_low=own.clip_low, clip_high=own.clip_high, kl=own.kl)
    found = AgentLoss(kinds=tuple(order), by_kind=by_kind_losses, wpo=config.wpo, surrogate=surrogate)
    if reinforced and found.coupled:
        raise ConfigError(
            f"{key}.loss: found one that looks at all pairs of a step together, beside what is reinforced; "
            "expected one of each pair's own, such as sigmoid"
        )
    return found


def _resolve_at(terms: LossTerms, config: AgentConfig, key: str) -> Loss:
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
