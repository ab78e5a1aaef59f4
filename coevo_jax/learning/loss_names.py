"""The names of the preference losses, and what can be said of an agent's choice of them without jax."""

from collections.abc import Mapping, Sequence

from coevo_jax.config.agents import AgentConfig
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import KindWeights, LossTerms
from coevo_jax.config.recipe_queries import kinds_of, learners_of, weights_of
from coevo_jax.config.strict import ConfigError, closest, nearest

LossInUse = tuple[LossTerms, str]  # and the key that sets it

# Those of `preference_losses.PREFERENCE_LOSSES`, in its order; a test compares the two.
LOSS_NAMES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"),
    *("aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm", "simpo"),
    *("orpo", "cpo", "dpop", "kto", "odpo"),
)


def check_losses(config: Config) -> None:
    """Refuse what is wrong with any agent's choice of losses, as far as names and weights tell.

    Raises:
      ConfigError: as `losses_in_use` does.
    """
    order = kinds_of(config.recipe)
    for name in learners_of(config.recipe):
        losses_in_use(config.agents[name], weights_of(config.recipe, name), order, f"agents.{name}")


def losses_in_use(
    config: AgentConfig, kinds: Mapping[str, KindWeights], order: Sequence[str], key: str
) -> tuple[list[LossInUse], LossInUse]:
    """The loss of each kind of pair in `order`, and the one that kinds take which the agent has not.

    Args:
      kinds: of pairs that the agent learns from.
      order: the kinds of all agents.
      key: where the agent's options stand, for messages ("agents.target").

    Raises:
      ConfigError: no such loss, weights that are not above 0, options of a loss that is not in use, or wpo
        beside a loss that it cannot weigh.
    """
    terms_by_kind: dict[str, LossInUse] = {}
    for kind, weights in kinds.items():
        if weights.dpo > 0:
            own = (weights.loss, f"recipe: loss of {kind}") if weights.loss is not None else None
            terms_by_kind[kind] = own or (config.loss, f"{key}.loss")
    # A kind that is left out takes the loss of one in use: no other program is compiled for its sake.
    spare = next(iter(terms_by_kind.values()), (config.loss, f"{key}.loss"))
    by_kind = [terms_by_kind.get(kind, spare) for kind in order]
    used = sorted({name for terms, _ in [*by_kind, spare] for name in loss_weights(terms)})
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
    for terms, where in [*by_kind, spare]:
        _check_terms(terms, where)
    return by_kind, spare


def loss_weights(terms: LossTerms) -> dict[str, float]:
    """The names and weights of a mixture, in one order whatever the order they are written in."""
    return {terms: 1.0} if isinstance(terms, str) else dict(sorted(terms.items()))


def check_loss_name(name: str) -> None:
    """Refuse a name that is none of `LOSS_NAMES`. A user's own, with a colon, is left to its import.

    Raises:
      ConfigError: with the nearest name.
    """
    if ":" not in name and name not in LOSS_NAMES:
        raise ConfigError(
            f"found the loss {name!r}{closest(name, sorted(LOSS_NAMES))}, expected your own as "
            f"package.module:function, or one of {', '.join(LOSS_NAMES)}"
        )


def _check_terms(terms: LossTerms, where: str) -> None:
    weights = loss_weights(terms)
    if not weights or min(weights.values()) <= 0:
        raise ConfigError(f"{where}: found {terms!r}, expected a loss or a mixture with weights above 0")
    for name in weights:
        try:
            check_loss_name(name)
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
