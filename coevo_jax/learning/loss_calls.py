"""Losses with their options filled in: weighted sums of terms that can be compared, hashed and called.

A plain function of `preference_losses` is a loss too; `as_loss` makes it one term with its own defaults.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from coevo_jax.config.strict import nearest
from coevo_jax.learning.divergences import DIVERGENCES
from coevo_jax.learning.loss_terms import PAIR_ARRAYS, PreferenceLoss, Sides

Option = float | int | str
SIDES = 4


@dataclass(frozen=True, kw_only=True)
class Term:
    """One loss function with all its options, its share of the sum, and its divergence."""

    name: str
    function: PreferenceLoss
    arrays: tuple[str, ...]
    options: tuple[tuple[str, Option], ...] = ()
    share: float = 1.0
    divergence: tuple[str, float] | None = None  # a name of DIVERGENCES and its alpha

    @property
    def coupled(self) -> bool:
        """Whether a pair's value depends on the other pairs of its step, under these options."""
        if not getattr(self.function, "coupled", False):
            return False
        option, values = getattr(self.function, "uncoupled_by", ("", ()))
        return dict(self.options).get(option) not in values


@dataclass(frozen=True)
class Loss:
    """A weighted sum of terms, called like any of them; equal ones share a compiled program."""

    terms: tuple[Term, ...]

    @property
    def name(self) -> str:
        """The terms' names for messages, such as '0.8 sigmoid + 0.2 sft'."""
        if len(self.terms) == 1 and self.terms[0].share == 1.0:
            return self.terms[0].name
        return " + ".join(f"{term.share:g} {term.name}" for term in self.terms)

    @property
    def coupled(self) -> bool:
        """Whether any term is coupled."""
        return any(term.coupled for term in self.terms)

    @property
    def arrays(self) -> tuple[str, ...]:
        """The names of `PAIR_ARRAYS` that any term asks for."""
        return tuple(name for name in PAIR_ARRAYS if any(name in term.arrays for term in self.terms))

    def __call__(
        self,
        policy_chosen: jax.Array,
        policy_rejected: jax.Array,
        reference_chosen: jax.Array,
        reference_rejected: jax.Array,
        *,
        beta: jax.Array | float,
        **arrays: jax.Array,
    ) -> jax.Array:
        """The weighted sum of the terms' values per pair, float32 [P], given what `self.arrays` names."""
        sides = Sides(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
        parts = [term.share * _call(term, sides, beta, arrays) for term in self.terms]
        return sum(parts[1:], start=parts[0])


def as_loss(loss: PreferenceLoss) -> Loss:
    """The loss itself, or a plain function as one term with the defaults of its options.

    Raises:
      TypeError: the function's signature is not that of a loss.
    """
    return loss if isinstance(loss, Loss) else Loss((loss_term(loss, getattr(loss, "__name__", "loss"), {}),))


def loss_term(function: PreferenceLoss, name: str, options: Mapping[str, Option]) -> Term:
    """One term; options that are not given take their defaults.

    Raises:
      TypeError: the signature is not that of a loss, an option is unknown or of another type than its
        default; the message says which and what was expected.
    """
    arrays, defaults = loss_parameters(function)
    for key, value in options.items():
        if key not in defaults:
            raise TypeError(f"no option {key!r}{_known(key, defaults)}")
        if not _fits(value, defaults[key]):
            wanted = type(defaults[key]).__name__
            raise TypeError(f"{key}: found {value!r}, expected a {wanted} (default {defaults[key]!r})")
    filled = defaults | {k: float(v) if isinstance(defaults[k], float) else v for k, v in options.items()}
    return Term(name=name, function=function, arrays=arrays, options=tuple(sorted(filled.items())))


def loss_parameters(function: PreferenceLoss) -> tuple[tuple[str, ...], dict[str, Option]]:
    """The arrays a loss function asks for, and its options with their defaults, from its signature.

    Raises:
      TypeError: not four positional parameters, no keyword-only beta, a parameter that is neither an array
        of `PAIR_ARRAYS` nor has a default, or a coupled loss that does not ask for `weight`.
    """
    parameters = inspect.signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    keywords = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    variable = [str(p) for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if len(positional) != SIDES or variable or "beta" not in keywords:
        raise TypeError(
            f"found the signature {inspect.signature(function)}, expected (policy_chosen, policy_rejected, "
            "reference_chosen, reference_rejected, *, beta, ...) with every further parameter named"
        )
    arrays = tuple(name for name in PAIR_ARRAYS if name in keywords)
    options = {n: p.default for n, p in keywords.items() if n not in (*PAIR_ARRAYS, "beta")}
    for key, default in options.items():
        if not isinstance(default, (bool, int, float, str)):
            raise TypeError(
                f"the parameter {key!r} is no array of a pair ({', '.join(PAIR_ARRAYS)}) and, as an option, "
                "lacks a default that is a number, a string or a boolean"
            )
    if getattr(function, "coupled", False) and "weight" not in arrays:
        raise TypeError("a coupled loss must ask for `weight`, so that padding never counts")
    return arrays, options


def _known(name: str, options: Mapping[str, Option]) -> str:
    return nearest(name, sorted(options)) if options else " (it has none)"


def _fits(value: Option, default: Option) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def is_coupled(loss: PreferenceLoss) -> bool:
    """Whether a pair's value depends on the other pairs of its optimizer step, under the loss's options."""
    return as_loss(loss).coupled


def call_loss(
    loss: PreferenceLoss,
    sides: Sides,
    beta: jax.Array | float,
    arrays: Mapping[str, jax.Array],
) -> jax.Array:
    """The loss per pair, float32 [P], called with those of the arrays it asks for.

    Args:
      loss: a function of `preference_losses`, the user's own, or a `Loss`.
      beta: the loss's beta, a number or float32 [].
      arrays: by the names of `PAIR_ARRAYS`, float32 [P] each.

    Raises:
      TypeError: the loss is no array of float32 [P]; at trace time, and the message names the loss.
    """
    resolved = as_loss(loss)
    return resolved(*sides, beta=beta, **{name: arrays[name] for name in resolved.arrays})


def _call(
    part: Term,
    sides: Sides,
    beta: jax.Array | float,
    arrays: Mapping[str, jax.Array],
) -> jax.Array:
    shape = sides[0].shape
    if part.divergence is not None:
        name, alpha = part.divergence
        score, zero = DIVERGENCES[name], jnp.zeros(shape, jnp.float32)
        chosen = score(sides.policy_chosen - sides.reference_chosen, alpha)
        rejected = score(sides.policy_rejected - sides.reference_rejected, alpha)
        sides = Sides(chosen, rejected, zero, zero)
    asked = {name: arrays[name] for name in part.arrays}
    values = part.function(*sides, beta=beta, **asked, **dict(part.options))
    if not isinstance(values, jax.Array):
        raise TypeError(f"the loss {part.name!r} returned {type(values).__name__}, expected an array")
    if values.shape != shape or values.dtype != jnp.float32:
        raise TypeError(
            f"the loss {part.name!r} returned {values.dtype} {list(values.shape)}, expected one value per "
            f"pair: float32 {list(shape)}"
        )
    return values
