"""Options of the ALFWorld environment."""

from typing import Annotated

from pydantic import AfterValidator, Field

from coevo_jax.config.strict import StrictModel, nearest

FAMILIES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)


def _check_family(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"one of {', '.join(FAMILIES)}{nearest(name, FAMILIES)}")
    return name


class AlfWorldOptions(StrictModel):
    """Where ALFWorld's games lie, which of them are played, and the limits of an episode."""

    data_path: str | None = None
    """Folder with train/, valid_seen/ and valid_unseen/; null takes $ALFWORLD_DATA/json_2.1.1, where
    `alfworld-download` puts it, or the same below ~/.cache/alfworld."""
    families: tuple[Annotated[str, AfterValidator(_check_family)], ...] = Field(FAMILIES, min_length=1)
    """Task types, as the games' traj_data.json names them."""
    seed: int = Field(0, ge=0)
    """Seed of the order of the tasks, and of which stay under the limits below."""
    train_tasks: int | None = Field(None, ge=1)
    """Most tasks of the train split (folder train); null takes all."""
    dev_tasks: int | None = Field(None, ge=1)
    """Most tasks of the dev split (folder valid_seen); null takes all."""
    test_tasks: int | None = Field(None, ge=1)
    """Most tasks of the test split (folder valid_unseen); null takes all."""
    max_turns: int = Field(50, ge=1)
    """Turns after which an episode is cut with reward 0."""
    observation_chars: int = Field(1000, ge=50)
    """Characters an observation is cut to; the first one, which states the task, is never cut."""
    show_commands: bool = False
    """Append to every observation the commands that would have an effect."""
    experts_path: str | None = None
    """File of the expert solutions (JSON lines); null keeps it in $COEVO_CACHE or ~/.cache/coevo_jax."""
    workers: int = Field(2, ge=1)
    """Processes that prepare experts side by side."""
