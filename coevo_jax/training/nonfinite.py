"""Why a step's loss or gradient is not finite: looked up once it has happened, from the step's own inputs.

In the order of the computation, the first of these that is not finite is the one that is told:

    inputs          the batch's arrays: references, rewards, weights, advantages
    parameters      of the state that the step began with
    scores          the log-probability of each view (of a discriminator: its logit)
    pairs           each pair's loss and its slopes, from scores, references and rewards
    tokens          the slopes of what is reinforced
    gradient        of the parameters

A skipped or stopped step changes no parameter, but the step behind it may have been taken already, since the
devices do not wait for the host. What it looks at are the parameters as they stand then.

Legend: N views, P pairs, B rows, K scored tokens a row, S views a row.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from coevo_jax.batch import PreferenceBatch
from coevo_jax.data.packing.plan import BatchPlan
from coevo_jax.learning.finite import first_broken
from coevo_jax.learning.objective import AgentLoss, objective, pair_losses, pair_sides
from coevo_jax.learning.train_step import StepPrograms, join_batches, step_gradients

Cause = Literal["parameters", "pair", "padding", "rate"]
SHOWN = 3  # pairs that a message names
Named = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """A step as it is looked at afterwards."""

    programs: StepPrograms
    loss: AgentLoss | None  # None where no pairs are compared
    token_score: Any  # (params, frozen, batch) -> [B, K]; called where something is reinforced
    params: Any  # as they stand now
    frozen: Any
    began_finite: bool  # whether the parameters were, when this process began the phase
    plan: BatchPlan
    sides: Sequence[Named]  # of each trajectory of the plan: what names it
    numbers: Sequence[int]  # of the step's microbatches
    batches: Sequence[PreferenceBatch]  # on the devices
    hosted: Sequence[PreferenceBatch]  # the same as NumPy arrays
    beta: Any


@dataclass(frozen=True, kw_only=True)
class Broken:
    """What is not finite first, and what made it so."""

    cause: Cause
    tensor: str  # such as "params/layers/mlp/up/kernel" or "loss"
    words: str  # the cause, in a sentence
    pairs: tuple[dict[str, Any], ...] = ()  # or trajectories that are in none; empty where it is no pair's


def find_cause(step: Suspects) -> Broken:
    """The first tensor that is not finite, in the order of the module's docstring."""
    if (broken := first_broken({"params": step.params, "frozen": step.frozen})) is not None:
        if not step.began_finite or broken.startswith("frozen"):
            words = "the parameters were broken already when this phase began"
            return Broken(cause="parameters", tensor=broken, words=words)
        words = "the parameters were finite when this phase began: an update of the optimizer broke them"
        return Broken(cause="rate", tensor=broken, words=words)
    for look in (_inputs, _scores_and_pairs):
        if (found := next(look(step), None)) is not None:
            return found
    return _gradient(step)


def _inputs(step: Suspects) -> Iterator[Broken]:
    """Arrays of the batch that are not finite."""
    for number, batch in zip(step.numbers, step.hosted, strict=True):
        for path, array in jax.tree_util.tree_leaves_with_path(batch):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            if not np.issubdtype(np.asarray(array).dtype, np.floating) or np.isfinite(array).all():
                continue
            views = _views_of(name, ~np.isfinite(array), batch)
            yield _of_views(step, number, batch, views, f"batch/{name}", "an input of it is not finite")


def _views_of(name: str, broken: np.ndarray, batch: PreferenceBatch) -> set[int]:
    """The views n that entries of an array [N], [P], [B, S, K] or [B, K] belong to."""
    if name == "weight":
        sides = np.concatenate([np.asarray(batch.chosen)[broken], np.asarray(batch.rejected)[broken]])
        return {int(n) for n in sides}
    if broken.ndim == 2:
        broken = (np.asarray(batch.view_weight) > 0) & broken[:, None]
    by_view = broken.any(axis=2) if broken.ndim == 3 else broken
    return {int(n) for n in np.flatnonzero(by_view.reshape(-1))}


def _scores_and_pairs(step: Suspects) -> Iterator[Broken]:
    """Views whose score is not finite, then pairs whose loss or slope is not, though their scores are."""
    found = [step.programs.score(step.params, step.frozen, batch) for batch in step.batches]
    scores = [np.asarray(jax.device_get(logps)) for logps, _ in found]
    for number, batch, own in zip(step.numbers, step.hosted, scores, strict=True):
        if not np.isfinite(own).all():
            yield _of_scores(step, number, batch, own)
    if step.loss is None:
        return
    together = step.programs.coupled and len(scores) > 1
    parts = [join_batches(step.hosted)] if together else step.hosted
    pairs = step.hosted[0].weight.size
    for place, part in enumerate(parts):
        own = np.concatenate(scores) if together else scores[place]
        broken = broken_pairs(own, part, step.beta, step.loss)
        named = []
        for p in broken:
            micro, at = divmod(p, pairs) if together else (place, p)
            named.append(_pair(step, step.numbers[micro], at, part, p, own))
        if named:
            words = "its loss or a slope of it is not finite, from finite log-probabilities and rewards"
            yield Broken(cause="pair", tensor="loss", words=words, pairs=tuple(named))
    yield from _reinforced(step, scores)


def broken_pairs(scores_N: np.ndarray, batch: PreferenceBatch, beta: Any, loss: AgentLoss) -> list[int]:
    """The places of the pairs whose loss, or a slope of it, is not finite; padding is none of them."""
    if not loss.by_kind:
        return []
    real = np.asarray(batch.weight) > 0

    def total(sides: Any) -> tuple[jax.Array, jax.Array]:
        losses = pair_losses(sides, batch, beta, loss)
        return jnp.sum(jnp.where(real, batch.weight * losses, 0.0)), losses

    slopes, losses = jax.grad(total, has_aux=True)(pair_sides(jnp.asarray(scores_N), batch))
    finite = np.isfinite(np.stack([*jax.device_get(tuple(slopes)), jax.device_get(losses)])).all(axis=0)
    return [int(p) for p in np.flatnonzero(real & ~finite)]


def _reinforced(step: Suspects, scores: Sequence[np.ndarray]) -> Iterator[Broken]:
    """Trajectories that are reinforced by a slope that is not finite."""
    assert step.loss is not None
    for number, batch, hosted, own in zip(step.numbers, step.batches, step.hosted, scores, strict=True):
        if hosted.reinforcement is None:
            continue
        tokens = jnp.asarray(jax.device_get(step.token_score(step.params, step.frozen, batch)))

        def total(tokens: jax.Array, own: Any = own, hosted: Any = hosted) -> jax.Array:
            options: dict[str, Any] = {"beta": step.beta, "loss": step.loss, "token_logps": tokens}
            return objective(jnp.asarray(own), jnp.zeros_like(own), hosted, **options)[0]

        slopes_BK = np.asarray(jax.grad(total)(tokens))
        seen_BS = ((np.asarray(hosted.view_weight) > 0) & ~np.isfinite(slopes_BK)[:, None]).any(axis=2)
        if seen_BS.any():
            views = {int(n) for n in np.flatnonzero(seen_BS.reshape(-1))}
            words = "its surrogate has a slope that is not finite, from finite log-probabilities"
            yield _of_views(step, number, hosted, views, "loss", words)


def _of_scores(step: Suspects, number: int, batch: PreferenceBatch, own: np.ndarray) -> Broken:
    """Scores that are not finite at finite parameters: the forward pass ran over, or padding got in."""
    used = np.asarray(batch.token_count) > 0
    views = {int(n) for n in np.flatnonzero(~np.isfinite(own))}
    if not any(used[n] for n in views):
        words = "the log-probability of a place that holds no trajectory is not finite, all others are"
        return Broken(cause="padding", tensor="log-probabilities", words=words)
    most = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(step.params))
    words = (
        f"the forward pass runs over at finite parameters, the largest of which is {most:.2g}: updates have "
        "made them too large"
    )
    named = _views(step, number, {n for n in views if used[n]})
    return Broken(cause="rate", tensor="log-probabilities", words=words, pairs=named)


def _gradient(step: Suspects) -> Broken:
    """All scores and pairs are finite: the backward pass ran over, or padding got in."""
    grads, _ = step_gradients(step.programs, step.params, step.frozen, step.batches, step.beta)
    tensor = first_broken({"gradient": grads})
    if tensor is None:
        most = max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(grads))
        words = (
            "looked at once more, every tensor is finite, with gradients up to "
            f"{most:.2g}: their squares, or the step before, ran over what float32 holds"
        )
        return Broken(cause="rate", tensor="grad_norm", words=words)
    none = [_weightless(batch) for batch in step.batches]
    grads, _ = step_gradients(step.programs, step.params, step.frozen, none, step.beta)
    if first_broken(grads) is not None:
        words = "the gradient is not finite even where every pair and trajectory weighs nothing"
        return Broken(cause="padding", tensor=tensor, words=words)
    words = "every pair's loss and slope is finite, and the backward pass runs over: parameters are too large"
    return Broken(cause="rate", tensor=tensor, words=words)


def _weightless(batch: PreferenceBatch) -> PreferenceBatch:
    """The rows of a batch of which nothing is learned."""
    nothing: dict[str, Any] = {name: getattr(batch, name) * 0 for name in ("sft_weight", "weight")}
    if batch.reinforcement is not None:
        nothing["reinforcement"] = batch.reinforcement.replace(  # pyright: ignore[reportAttributeAccessIssue]
            weight=batch.reinforcement.weight * 0
        )
    if batch.steps is not None:
        own = {"expert": batch.steps.expert * 0, "own": batch.steps.own * 0}
        nothing["steps"] = batch.steps.replace(**own)  # pyright: ignore[reportAttributeAccessIssue]
    return batch.replace(**nothing)  # pyright: ignore[reportAttributeAccessIssue]


def _of_views(
    step: Suspects, number: int, batch: PreferenceBatch, views: set[int], tensor: str, words: str
) -> Broken:
    """What is wrong with views: with the pairs that they stand in, or with padding alone."""
    used = {n for n in views if batch.token_count[n] > 0}
    if not used:
        return Broken(cause="padding", tensor=tensor, words=f"padding of the batch: {words}")
    pairs = [
        _pair(step, number, p, batch, p, None)
        for p in np.flatnonzero(np.asarray(batch.weight) != 0).tolist()
        if {int(batch.chosen[p]), int(batch.rejected[p])} & used
    ]
    return Broken(cause="pair", tensor=tensor, words=words, pairs=tuple(pairs) or _views(step, number, used))


def _views(step: Suspects, number: int, views: set[int]) -> tuple[dict[str, Any], ...]:
    """The trajectories that stand at places of a microbatch."""
    return tuple({"trajectory": _side(step, number, n)} for n in sorted(views))


def _side(step: Suspects, number: int, n: int) -> dict[str, Any]:
    trajectory = dict(step.plan.views[number]).get(n)
    if trajectory is None or trajectory >= len(step.sides):
        return {"place": n}
    return dict(step.sides[trajectory])


def _pair(
    step: Suspects, number: int, p: int, part: PreferenceBatch, place: int, scores: np.ndarray | None
) -> dict[str, Any]:
    """A pair by its number, its sides and its inputs.

    Args:
      number, p: of its microbatch, and its place there.
      part, place: the batch that its inputs stand in, and its place in it.
      scores: the views' log-probabilities there, where they are known.
    """
    own = step.plan.pairs[number]
    hosted = step.hosted[list(step.numbers).index(number)]
    found: dict[str, Any] = {"pair": int(own[p])} if p < len(own) else {}
    for side in ("chosen", "rejected"):
        n = int(np.asarray(getattr(part, side))[place])
        found[side] = _side(step, number, int(getattr(hosted, side)[p]))
        found[side] |= {"reward": float(part.reward[n]), "reference_logp": float(part.reference_logps[n])}
        found[side] |= {} if scores is None else {"logp": float(scores[n])}
    return found


def told(pairs: Sequence[Named]) -> str:
    """Pairs and trajectories for people; at most a few."""
    words = [_pair_words(one) for one in pairs[:SHOWN]]
    more = [f"{len(pairs) - SHOWN} more"] if len(pairs) > SHOWN else []
    return "; ".join([*words, *more])


def _pair_words(one: Named) -> str:
    if "trajectory" in one:
        return f"trajectory {_side_words(one['trajectory'])}"
    task = one["chosen"].get("task_id")
    name = f"pair {one['pair']}" if "pair" in one else "a pair"
    name += f" (task {task})" if task is not None else ""
    return f"{name}: " + ", ".join(f"{side} {_side_words(one[side])}" for side in ("chosen", "rejected"))


def _side_words(side: Named) -> str:
    who = f"{side['source']}'s sample {side['sample']}" if "source" in side else f"place {side.get('place')}"
    task = "" if "reward" in side or "task_id" not in side else f" of task {side['task_id']}"
    numbers = [
        f"{words} {side[key]:.6g}"
        for key, words in (("reward", "reward"), ("logp", "log-probability"), ("reference_logp", "reference"))
        if key in side
    ]
    return f"{who}{task}" + (f" ({', '.join(numbers)})" if numbers else "")
