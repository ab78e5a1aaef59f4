"""The names of the preference losses, and what can be said of an agent's choice of them without jax."""

from coevo_jax.config.options import LearnConfig, LossTerms
from coevo_jax.config.strict import ConfigError, closest, nearest
from coevo_jax.trajectory import PAIR_KINDS

# Those of `preference_losses.PREFERENCE_LOSSES`, in its order; a test compares the two.
LOSS_NAMES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard"),
    *("aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm", "simpo"),
    *("orpo", "cpo", "dpop", "kto", "odpo"),
)

# Whose loss a sweep may choose, and the agents that are meant.
AGENTS = {"target": ("target",), "failure": ("failure",), "both": ("target", "failure")}


def losses_in_use(config: LearnConfig, key: str) -> list[tuple[LossTerms, str]]:
    """The loss of each kind of pair, in the order of `PAIR_KINDS`, and the key that sets it.

    Args:
      key: where the agent's options stand, for messages ("target").

    Raises:
      ConfigError: no such loss, weights that are not above 0, options of a loss that is not in use, or wpo
        beside a loss that it cannot weigh.
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
    used = sorted({name for terms, _ in by_kind for name in loss_weights(terms)})
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
    for terms, where in by_kind:
        _check_terms(terms, where)
    return by_kind


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
