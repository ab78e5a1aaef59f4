"""Suggestions to an agent while it plays: the distorted actions of its tasks' experts."""

from typing import Literal, get_args

from pydantic import Field

from coevo_jax.config.strict import StrictModel

# Those of `methods.distortion` and `methods.hints`, said again: who reads a config, as the audit does, has
# no code of a method within reach.
Operation = Literal["drop_word", "swap_words", "replace_word", "other_action", "other_choice"]
OPERATIONS: tuple[Operation, ...] = get_args(Operation)
WORDING = "{text}\nSuggested action: {action}"


class HintOptions(StrictModel):
    """How each turn's suggestion is made of the expert's action of the same number, anew for every sample.

    A text port of CAT (arXiv 2103.13887), which is told a distorted expert action at every step; all of it is
    inferred.
    """

    share: float = Field(default=0.3, ge=0, le=1)
    """The probability that a suggestion is distorted."""
    operations: tuple[Operation, ...] = Field(default=OPERATIONS, min_length=1)
    """What distorts it, in a drawn order until one can: drop_word, swap_words (both behind the first word),
    replace_word (by another of the latest text that has it), other_action (the expert's at another turn),
    other_choice (of those that the latest answer lists, where the environment says so: WebShop's buttons)."""
    wording: str = WORDING
    """How a suggestion is told: {text} is the task or the answer before the turn, {action} the suggestion."""
    while_same: bool = False
    """End the suggestions once the agent is told something else than the expert was; otherwise they go on by
    the turn's number, up to the expert's last. The paper plays the expert's actions by their number."""
