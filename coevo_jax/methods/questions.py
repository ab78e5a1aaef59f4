"""Questions that an agent is asked about turns of episodes, each answered in one turn of its own."""

from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

from pydantic import Field

from coevo_jax.methods.material import Material
from coevo_jax.methods.own_steps import OwnStep, Same, own_steps
from coevo_jax.trajectory import Trajectory, Turn

INSTRUCTION = (
    "Say in one or two sentences why the action taken is better than the others, as a thought that comes "
    "before it."
)


class Question(NamedTuple):
    """A text that an agent is to answer, and the turn that it is about."""

    text: str
    trajectory: Trajectory
    turn: int  # from 0; the question is asked in the state in which it was played


def why_expert(
    material: Material,
    *,
    instruction: Annotated[str, Field(min_length=1)] = INSTRUCTION,
    same: Same = "action",
) -> Iterator[Question]:
    """At each state of an expert, why its action is better than what the agent did there of its own.

    Self-reflection of Early Experience (arXiv 2510.08558): the agent is told the state, the expert's action
    and the others, each with what the environment answered. States at which the agent did nothing else are
    left out.

    Args:
      instruction: what the question ends with (inferred, as is the wording of all of it).
      same: which own steps are the expert's: those of its action, or those of its whole text (inferred).
    """
    states: dict[tuple[str, int], list[OwnStep]] = {}
    for step in own_steps(material):
        if step.differs(same):
            states.setdefault((step.expert.task_id, step.turn), []).append(step)
    for (_, turn), steps in states.items():
        others = dict.fromkeys((step.own.action or step.own.response, step.own.observation) for step in steps)
        expert = steps[0].expert
        yield Question(question_text(expert, turn, list(others), instruction), expert, turn)


def question_text(expert: Trajectory, turn: int, others: Sequence[tuple[str, str]], instruction: str) -> str:
    """The wording: the task, the turns before, the expert's action and the others with their answers."""
    taken: Turn = expert.turns[turn]
    before = [line for one in expert.turns[:turn] for line in (f"Action: {one.action}", one.observation)]
    choices = [("Action taken", taken.action, taken.observation)]
    choices += [("Other action", action, answer) for action, answer in others]
    lines = [line for name, action, answer in choices for line in (f"{name}: {action}", f"Answer: {answer}")]
    return "\n".join([expert.prompt, *before, "", *lines, "", instruction])
