"""The builders by their names, and how one is found: a shipped one, or the user's own."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from coevo_jax.methods.advantages import gigpo, grpo
from coevo_jax.methods.beneficial_segments import beneficial_segments
from coevo_jax.methods.better_over_worse import better_over_worse
from coevo_jax.methods.corrections import corrections, kept_corrections
from coevo_jax.methods.expert_over import expert_over
from coevo_jax.methods.expert_step_over import expert_step_over
from coevo_jax.methods.imitation import best_rollouts, experts, successes
from coevo_jax.methods.judged_steps import judged_steps
from coevo_jax.methods.marks import graded
from coevo_jax.methods.material import Imitation, Noted, Preference, Reinforced
from coevo_jax.methods.parting import expert_over_at_parting, success_over_failure_at_parting
from coevo_jax.methods.points import Point, expert_turns, failed_turns, turn_ends
from coevo_jax.methods.proposals import agent_proposals, expert_proposals
from coevo_jax.methods.questions import Question, why_expert
from coevo_jax.methods.reflection import reflections
from coevo_jax.methods.revisions import good_paths, revisions
from coevo_jax.methods.step_and_outcome import step_and_outcome
from coevo_jax.methods.tree import promising_nodes
from coevo_jax.methods.verdicts import good_or_bad
from coevo_jax.methods.verified_branch import verified_branch
from coevo_jax.methods.world_model import next_observations
from coevo_jax.trajectory import Trajectory

PairBuilder = Callable[..., Iterable[Preference]]
ImitationBuilder = Callable[..., Iterable[Trajectory | Imitation | Noted]]
ReinforceBuilder = Callable[..., Iterable[Reinforced]]
PointBuilder = Callable[..., Iterable[Point]]
QuestionBuilder = Callable[..., Iterable[Question]]

PAIR_BUILDERS: dict[str, PairBuilder] = {
    "expert_over": expert_over,
    "better_over_worse": better_over_worse,
    "expert_step_over": expert_step_over,
    "verified_branch": verified_branch,
    "step_and_outcome": step_and_outcome,
    "expert_over_at_parting": expert_over_at_parting,
    "success_over_failure_at_parting": success_over_failure_at_parting,
}
IMITATION_BUILDERS: dict[str, ImitationBuilder] = {
    "successes": successes,
    "best_rollouts": best_rollouts,
    "experts": experts,
    "next_observations": next_observations,
    "reflections": reflections,
    "beneficial_segments": beneficial_segments,
    "graded": graded,
    "corrections": corrections,
    "kept_corrections": kept_corrections,
    "revisions": revisions,
    "good_paths": good_paths,
}
REINFORCE_BUILDERS: dict[str, ReinforceBuilder] = {
    "grpo": grpo,
    "gigpo": gigpo,
    "judged_steps": judged_steps,
}
POINT_BUILDERS: dict[str, PointBuilder] = {
    "expert_turns": expert_turns,
    "failed_turns": failed_turns,
    "turn_ends": turn_ends,
    "expert_proposals": expert_proposals,
    "agent_proposals": agent_proposals,
    "promising_nodes": promising_nodes,
}
QUESTION_BUILDERS: dict[str, QuestionBuilder] = {
    "why_expert": why_expert,
    "good_or_bad": good_or_bad,
}
# The kind of phase that some builders make everything of. All others here make nothing of answers.
MADE_OF: dict[tuple[str, str], str] = {
    ("pairs", "expert_step_over"): "branch",
    ("imitate", "next_observations"): "branch",
    ("question", "why_expert"): "branch",
    ("imitate", "reflections"): "ask",
    ("imitate", "kept_corrections"): "explore",
    ("reinforce", "judged_steps"): "judge",
}
# The kind of phase that some builders make something of, beside what was played.
ALSO_OF: dict[tuple[str, str], str] = {("imitate", "revisions"): "ask"}
BUILDERS: dict[str, Mapping[str, Callable[..., Iterable[Any]]]] = {
    "pairs": PAIR_BUILDERS,
    "imitate": IMITATION_BUILDERS,
    "reinforce": REINFORCE_BUILDERS,
    "at": POINT_BUILDERS,
    "question": QUESTION_BUILDERS,
}


def find_builder(table: str, name: str) -> Callable[..., Iterable[Any]]:
    """The builder of a name in a table ("pairs", "imitate", …), or of `package.module:function`.

    Raises:
      LookupError: there is none, in words.
    """
    if ":" not in name:
        if name not in BUILDERS[table]:
            raise LookupError(f"unknown builder {name!r}")
        return BUILDERS[table][name]
    module_name, _, attribute = name.partition(":")
    try:
        function = vars(importlib.import_module(module_name)).get(attribute)
    except (ImportError, ValueError, TypeError) as error:
        raise LookupError(f"importing {module_name!r} failed: {error}") from error
    if not callable(function):
        raise LookupError(f"{module_name} has no function {attribute!r}")
    return cast(Callable[..., Iterable[Any]], function)


def builder_options(function: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """The types and defaults of a builder's options, by name: its keyword-only parameters.

    Raises:
      LookupError: the function takes no material, or an option has no type.
    """
    parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    options = [one for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]
    others = [one.name for one in parameters if one not in options]
    if len(others) != 1:
        raise LookupError(f"takes ({', '.join(others)}), expected one positional parameter, the material")
    for option in options:
        if option.annotation is inspect.Parameter.empty:
            raise LookupError(f"option {option.name!r} has no type")
    return {
        one.name: (one.annotation, ... if one.default is inspect.Parameter.empty else one.default)
        for one in options
    }
