"""Options of objects with reset and step."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from coevo_jax.config.strict import StrictModel


class ResetStepOptions(StrictModel):
    """What makes the object, how its records are read and written as text, and the limits of an episode."""

    make: str | None = Field(None, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """Function that makes an object, as package.module:function; gymnasium:make is one. It must be given."""
    arguments: dict[str, Any] = Field(default={})
    """Its keyword arguments, such as {id: FrozenLake-v1}."""
    action: Literal["text", "integer", "choice", "record"] = "text"
    """What `step` takes: the agent's text, an integer, one of the choices, or a JSON object."""
    choices: tuple[str, ...] = ()
    """What a choice is called. The object takes its place, 0, 1, …, or the text where choice_as says so."""
    choice_as: Literal["integer", "text"] = "integer"
    """Whether `step` takes a choice's place or its text."""
    examples: tuple[str, ...] = ()
    """Actions that may be tried where nobody knows better; needed for texts and records alone."""
    observation: str | None = None
    """What of an observation that is a record is shown: a field's dotted path, or a template with such paths
    in braces; null shows every field that says something."""
    only_new: bool = True
    """Show what is new alone, where an observation repeats the earlier ones in front of it."""
    render: bool = False
    """Show what the object's `render()` gives, which must be a text, in place of its observations."""
    system_prompt: str | None = None
    """First message of every conversation; null says how an action is written."""
    reward: Literal["last", "sum"] = "last"
    """An episode's reward: the last one that a step gave, or the sum of all; null gives none."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    """The rewards that count as 0 and 1; those between are scaled, those outside cut off."""
    deterministic: bool = True
    """Whether the same seed and actions give the same observations; false proves nothing of tasks."""
    max_turns: int = Field(20, ge=1)
    """Turns after which an episode is cut, with the reward that it has by then."""
    observation_chars: int = Field(2000, ge=50)
    """Characters that an observation is cut to."""
    prompt_chars: int = Field(8000, ge=50)
    """Characters that the first observation is cut to."""
    train_tasks: int = Field(400, ge=1)
    """Seeds of the train split."""
    dev_tasks: int = Field(40, ge=0)
    """Seeds of the dev split."""
    test_tasks: int = Field(60, ge=0)
    """Seeds of the test split."""
    seed: int = Field(0, ge=0)
    """Seed of the tasks' order."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.reward_range
        if not low < high:
            raise ValueError(f"reward_range as [low, high] with low < high (found [{low:g}, {high:g}])")
        if bool(self.choices) != (self.action == "choice"):
            raise ValueError("choices with action choice, and with no other")
        if self.choice_as != "integer" and self.action != "choice":
            raise ValueError("no choice_as without action choice (it would do nothing)")
        if self.render and self.observation is not None:
            raise ValueError("no observation beside render (it would do nothing)")
        return self
