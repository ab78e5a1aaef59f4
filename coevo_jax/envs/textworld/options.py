"""Options of the TextWorld environment."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from coevo_jax.config.strict import StrictModel, nearest

FAMILIES = ("quest", "coin", "treasure", "cooking")
MAX_ROOMS = 25  # larger maps do not fit a .z8 file together with their objects
MAKE_OPTIONS = frozenset(
    {
        "seed",
        "families",
        "world_size",
        "nb_objects",
        "quest_length",
        "full_instructions",
        "train_games",
        "dev_games",
        "test_games",
        "workers",
    }
)
"""Options that steer the making of games; none of them may stand beside games_path."""


def _check_family(name: str) -> str:
    if name not in FAMILIES:
        raise ValueError(f"one of {', '.join(FAMILIES)}{nearest(name, FAMILIES)}")
    return name


class TextWorldOptions(StrictModel):
    """Which games are made and played, and the limits of an episode. Ranges include both ends."""

    games_path: str | None = None
    """Folder that `generate_textworld` wrote, to play its games; null makes games at first use."""
    seed: int = Field(0, ge=0)
    """Seed of the games and of their order."""
    families: tuple[Annotated[str, AfterValidator(_check_family)], ...] = Field(FAMILIES, min_length=1)
    """Kinds of games: quest (any goal), coin (find it in a maze), treasure (one object, a wrong one loses),
    cooking (read a recipe, prepare and eat; the test split has food of its own)."""
    world_size: tuple[int, int] = (3, 6)
    """Fewest and most rooms of a game; coin and treasure games have at least as many as their quest is
    long, and cooking has one room, or six where the most are six or more."""
    nb_objects: tuple[int, int] = (4, 8)
    """Fewest and most objects of a quest game."""
    quest_length: tuple[int, int] = (2, 5)
    """Fewest and most commands of the shortest solution; in cooking, ingredients follow from it."""
    full_instructions: bool = True
    """Whether the goal of quest, coin and treasure games spells out every step, or the last one alone."""
    train_games: int = Field(200, ge=0)
    """Games of the train split, spread evenly over the families."""
    dev_games: int = Field(40, ge=0)
    """Games of the dev split."""
    test_games: int = Field(60, ge=0)
    """Games of the test split."""
    workers: int = Field(2, ge=1)
    """Processes that make games side by side."""
    max_turns: int = Field(50, ge=1)
    """Most turns of an episode; a game has twice the turns of its solution and 5 more, at most this."""
    observation_chars: int = Field(600, ge=50)
    """Characters an observation is cut to; the first one, which states the goal, is never cut."""
    show_commands: bool = False
    """Append to every observation the commands that would have an effect."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        limits = {"world_size": (1, MAX_ROOMS), "nb_objects": (1, 40), "quest_length": (1, 15)}
        for name, (low, high) in limits.items():
            least, most = getattr(self, name)
            if not low <= least <= most <= high:
                raise ValueError(f"{name} as [fewest, most] between {low} and {high}")
        if self.games_path is not None and (idle := sorted(self.model_fields_set & MAKE_OPTIONS)):
            raise ValueError(
                f"no option of making beside games_path (these would do nothing: {', '.join(idle)})"
            )
        return self
