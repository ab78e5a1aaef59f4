"""Options of environments behind an OpenEnv server."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from coevo_jax.config.strict import StrictModel

ActionKind = Literal["auto", "text", "integer", "choice", "record", "tool"]


class OpenEnvOptions(StrictModel):
    """Where the server is, how its records are read and written as text, and the limits of an episode."""

    url: str = Field("ws://localhost:8000", pattern=r"^wss?://[^/\s]+(/\S*)?$")
    """Root of the server, such as ws://host:8000; its socket is /ws below it."""
    action: ActionKind = "auto"
    """What an agent's action becomes: a text or an integer in one field, one of the choices, a JSON record of
    all fields, or a call of a tool (`name {"argument": 1}`). auto reads the server's schema."""
    action_field: str | None = None
    """The field that a text, integer or choice goes into; null takes the only one that is required."""
    choices: tuple[str, ...] = ()
    """What a choice is called: the texts themselves, or, where the field is an integer, names of 0, 1, …;
    empty takes the schema's enumeration."""
    fixed: dict[str, Any] = Field(default={})
    """Fields of every action that the agent does not choose."""
    examples: tuple[str, ...] = ()
    """Actions that may be tried where nobody knows better: by `launch.conformance`, by the proof that tasks
    are tasks and by random players; needed for texts, records and tools alone."""
    observation: str | None = None
    """What of an observation is shown: a field's dotted path (messages.-1.content), or a template with such
    paths in braces; null shows every field that says something."""
    only_new: bool = True
    """Show what is new alone, where an observation repeats the earlier ones in front of it."""
    system_prompt: str | None = None
    """First message of every conversation; null says how an action is written."""
    reward: Literal["last", "sum"] = "last"
    """An episode's reward: the last one that a step gave, or the sum of all; null gives none."""
    reward_range: tuple[float, float] = (0.0, 1.0)
    """The rewards that count as 0 and 1; those between are scaled, those outside cut off."""
    deterministic: bool = True
    """Whether the same task and actions give the same observations. false lets a server be whose tasks
    change from reset to reset: nothing is proven then, and pairs may compare two tasks."""
    max_turns: int = Field(20, ge=1)
    """Turns after which an episode is cut, with the reward that it has by then."""
    observation_chars: int = Field(2000, ge=50)
    """Characters that an observation is cut to."""
    prompt_chars: int = Field(8000, ge=50)
    """Characters that the first observation is cut to."""
    train_tasks: int | None = Field(None, ge=1)
    """Tasks of the train split; null takes all that the server lists, and 400 seeds where it lists none."""
    dev_tasks: int | None = Field(None, ge=0)
    """Tasks of the dev split (validation); null takes all that the server lists, else 40 seeds."""
    test_tasks: int | None = Field(None, ge=0)
    """Tasks of the test split; null takes all that the server lists, else 60 seeds."""
    seed: int = Field(0, ge=0)
    """Seed of the tasks' order."""
    timeout: float = Field(30.0, gt=0)
    """Seconds without an answer after which the socket is closed and the episode is a fault."""
    give_up: float = Field(60.0, gt=0)
    """Seconds without a session of any instance after which the run stops."""
    answer_bytes: int = Field(2**20, ge=1024)
    """Most bytes of an answer; a longer one closes the socket, and the episode is a fault."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.reward_range
        if not low < high:
            raise ValueError(f"reward_range as [low, high] with low < high (found [{low:g}, {high:g}])")
        if self.choices and self.action not in ("auto", "choice"):
            raise ValueError(f"no choices beside action {self.action} (they would do nothing)")
        if self.action_field is not None and self.action in ("record", "tool"):
            raise ValueError(f"no action_field beside action {self.action} (it would do nothing)")
        if self.action_field is not None and self.action_field in self.fixed:
            raise ValueError(f"action_field {self.action_field} not among the fixed fields")
        return self
