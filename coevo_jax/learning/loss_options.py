"""From a name and options, as a configuration gives them, to a loss; and what losses are combined by."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp

from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.learning.divergences import DIVERGENCES
from coevo_jax.learning.loss_calls import Loss, Option, Term, as_loss, call_loss, loss_term
from coevo_jax.learning.loss_names import check_loss_name
from coevo_jax.learning.loss_terms import HARMLESS, HARMLESS_LOGP, PAIR_ARRAYS, PreferenceLoss, Sides
from coevo_jax.learning.preference_losses import PREFERENCE_LOSSES

# The partition function that a divergence leaves in each score cancels only in the difference of the scores.
WITH_DIVERGENCE = ("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "odpo")
UNDER_ANY_DIVERGENCE = ("sft",)  # stays as it is, as in TRL


def resolve_loss(name: str, options: Mapping[str, Option]) -> Loss:
    """The loss of that name with its options filled in, checked by tracing it once on three pairs.

    Args:
      name: of `PREFERENCE_LOSSES`, or the user's own as `package.module:function`; `package` is found as
        Python finds any (the working directory under `python -m`, PYTHONPATH, what is installed).
      options: by the names of the function's keyword-only parameters that have defaults.

    Raises:
      ConfigError: no such loss, option, or value; or the function is no loss. It says what was found.
    """
    check_loss_name(name)
    function = _own_loss(name) if ":" in name else PREFERENCE_LOSSES[name]
    try:
        loss = Loss((loss_term(function, name, options),))
    except TypeError as error:
        raise ConfigError(f"the loss {name!r}: {error}") from None
    try:
        trace(loss)
        if ":" in name:
            _try_on_padding(loss)
    except Exception as error:  # whatever the user's own code raises on abstract arrays
        detail = _first_line(error).removeprefix(f"the loss {name!r} ")
        raise ConfigError(f"the loss {name!r}: {detail}") from error
    return loss


def trace(loss: PreferenceLoss) -> None:
    """Evaluate a loss on abstract arrays of three pairs, so that what is wrong with it shows at once."""
    pairs = jax.ShapeDtypeStruct((3,), jnp.float32)
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    arrays = {name: pairs for name in PAIR_ARRAYS}
    jax.eval_shape(lambda *a: call_loss(loss, Sides(*a[:4]), a[4], a[5]), *[pairs] * 4, scalar, arrays)


def _try_on_padding(loss: Loss) -> None:
    """Evaluate a loss and its gradient on pairs that are not there, as they fill up a microbatch.

    Raises:
      ValueError: a value or a gradient is not finite, and would make that of every step so.
    """
    same = jnp.full(3, HARMLESS_LOGP, jnp.float32)
    arrays = {name: jnp.full(3, value, jnp.float32) for name, value in HARMLESS.items()}
    arrays["weight"] = jnp.zeros(3, jnp.float32)

    def total(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
        return jnp.sum(call_loss(loss, Sides(chosen, rejected, same, same), jnp.float32(0.1), arrays))

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(same, same)
    for what, found in (("value", value), ("gradient", jnp.stack(gradients))):
        if not jnp.isfinite(found).all():
            raise ValueError(
                f"its {what} is not finite where policy and reference agree (log-probabilities "
                f"{HARMLESS_LOGP}, one token a side, rewards {HARMLESS['chosen_reward']} and "
                f"{HARMLESS['rejected_reward']}), as in the padding of every microbatch"
            )


def _own_loss(name: str) -> Callable:
    """The function that `package.module:function` names."""
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"found the loss {name!r}, but importing {module_name!r} failed: {error}"
        ) from error
    except (ValueError, TypeError):
        raise ConfigError(f"found the loss {name!r}, expected package.module:function") from None
    function = vars(module).get(attribute)
    if not callable(function):
        functions = sorted(key for key, value in vars(module).items() if callable(value))
        raise ConfigError(
            f"found the loss {name!r}, but {module.__name__} has no function {attribute!r}"
            f"{nearest(attribute, functions)}"
        )
    return function


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    detail = text[0] if text else type(error).__name__
    return detail if type(error) in (TypeError, ValueError) else f"{type(error).__name__}: {detail}"


def mixture(parts: Sequence[tuple[float, PreferenceLoss]]) -> Loss:
    """The weighted sum of losses, such as ((0.8, sigmoid), (0.2, sft)); asks for the arrays of all.

    Raises:
      ValueError: no part.
    """
    if not parts:
        raise ValueError("a mixture of losses needs at least one part")
    return Loss(tuple(_scaled(term, share) for share, loss in parts for term in as_loss(loss).terms))


def _scaled(term: Term, share: float) -> Term:
    return replace(term, share=share * term.share)


def with_divergence(loss: PreferenceLoss, name: str, alpha: float = 0.5) -> Loss:
    """The loss with another f-divergence than the reverse KL holding the policy to the reference.

    Wang et al., arXiv 2309.16240, table 1: every log-ratio u becomes the score g(u) of `divergences`; the
    loss then sees (g(u_chosen), g(u_rejected), 0, 0). Each part of a mixture is wrapped by itself.

    Args:
      loss: one of `WITH_DIVERGENCE`, the user's own, or a mixture of such; `sft` stays as it is.
      name: "reverse_kl" (changes nothing), "forward_kl", "js" or "alpha".
      alpha: of "alpha" only, from 0 (the reverse KL) to 1 (the forward KL).

    Raises:
      ConfigError: an unknown name, an alpha outside [0, 1], or a loss that has no such form.
    """
    if name not in DIVERGENCES:
        raise ConfigError(f"found the divergence {name!r}{nearest(name, sorted(DIVERGENCES))}")
    if not 0.0 <= alpha <= 1.0:
        raise ConfigError(
            f"alpha of the divergence: found {alpha}, expected 0 (reverse KL) to 1 (forward KL)"
        )
    resolved = as_loss(loss)
    if name == "reverse_kl":
        return resolved
    return Loss(tuple(_diverging(term, name, alpha) for term in resolved.terms))


def _diverging(term: Term, name: str, alpha: float) -> Term:
    if term.name in UNDER_ANY_DIVERGENCE:
        return term
    if term.name in PREFERENCE_LOSSES and term.name not in WITH_DIVERGENCE:
        raise ConfigError(
            f"the loss {term.name!r} has no form for the divergence {name!r}, as it is not built on the "
            f"difference of the two sides' scores; expected one of {', '.join(WITH_DIVERGENCE)}"
        )
    return replace(term, divergence=(name, float(alpha) if name == "alpha" else 0.0))
