"""Options of a recipe's phases in which builders choose what is played or asked."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, field_validator

from coevo_jax.config.strict import StrictModel

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]


def builder_name(name: str) -> str:
    """The name of a builder without its module."""
    return name.rpartition(":")[2]


class OfCollections(StrictModel):
    """What is made of collections: of one, by its name, or of several."""

    of: tuple[Name, ...] = ()
    """The collections that it is made of."""

    @field_validator("of", mode="before")
    @classmethod
    def _as_list(cls, found: Any) -> Any:
        return (found,) if isinstance(found, str) else tuple(found) if isinstance(found, list) else found


class Built(OfCollections):
    """What a builder makes of collections."""

    model_config = ConfigDict(extra="allow")  # the builder's options, which its own parameters check

    @property
    def options(self) -> dict[str, Any]:
        return self.model_extra or {}


class BranchOptions(Built):
    """Options of a phase in which an agent plays on from the middle of episodes."""

    agent: Name
    """Who plays on."""
    into: Name
    """Collection of what is played."""
    at: str
    """Where episodes are left: a name of coevo_jax.methods.points, or your own as package.module:function."""
    samples: int = Field(default=1, ge=1)
    """Episodes from every point."""
    iterations: int = Field(default=1, ge=1)
    """How often points are chosen and played from; each time the builder sees what was played before."""
    turns: int | None = Field(default=None, ge=1)
    """Most turns that the agent plays from a point; null plays to the episode's end."""
    temperature: float | None = Field(default=None, ge=0)
    """Temperature of sampling; null is that of explore. 0 is greedy."""

    @property
    def collection(self) -> str:
        return self.into

    @property
    def builder(self) -> tuple[str, str]:
        """The table that has it, and its name."""
        return "at", self.at

    @property
    def label(self) -> str:
        return builder_name(self.at)


class AskOptions(Built):
    """Options of a phase in which an agent answers questions, each in one turn and in no environment."""

    agent: Name
    """Who answers."""
    into: Name
    """Collection of the answers."""
    question: str
    """What is asked: a name of coevo_jax.methods.questions, or your own as package.module:function."""
    temperature: float | None = Field(default=None, ge=0)
    """Temperature of sampling; null is that of explore. 0 is greedy."""

    @property
    def collection(self) -> str:
        return self.into

    @property
    def builder(self) -> tuple[str, str]:
        """The table that has it, and its name."""
        return "question", self.question

    @property
    def label(self) -> str:
        return builder_name(self.question)
