"""Options of the WebShop environment."""

from typing import Literal, Self

from pydantic import Field, model_validator

from coevo_jax.config.strict import StrictModel

LEAST_GENERATED = 1000
GENERATOR_OPTIONS = frozenset({"goals_per_product"})
"""Options that steer the generator only."""


class WebShopOptions(StrictModel):
    """Where the catalogue and the goals come from, and the limits of an episode."""

    data_path: str | None = None
    """Folder of the official files (items_shuffle*.json, items_ins_v2*.json, items_human_ins.json) or of
    generated ones; null generates a catalogue."""
    seed: int = Field(default=0, ge=0)
    """Seed of the generated catalogue, of prices within their range and of the price limits of the goals."""
    products: int | None = Field(default=1000, ge=1)
    """Products generated (at least 1000); of files: the first so many, null takes all. At 1000 the files
    with _1000 in their name are read where they exist."""
    goals: Literal["human", "synthetic"] = "human"
    """Goals from the human instructions, or one for every combination of a product's options."""
    goals_per_product: int = Field(default=3, ge=1, le=20)
    """Human-like instructions generated for a product."""
    split_by: Literal["goal", "product"] | None = None
    """Whether splits share no goal (as upstream) or no product; null: goal for files, product else."""
    noun_tagger: Literal["words", "spacy"] = "words"
    """Nouns of a title for the reward: all but function words, or spaCy's (needs en_core_web_sm)."""
    results_per_page: int = Field(default=10, ge=1, le=50)
    """Products on a page of results."""
    max_turns: int = Field(default=10, ge=1)
    """Turns after which an episode is cut with reward 0."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.data_path is None:
            if self.products is None or self.products < LEAST_GENERATED:
                raise ValueError(f"products at least {LEAST_GENERATED} where there is no data_path")
        elif idle := sorted(self.model_fields_set & GENERATOR_OPTIONS):
            raise ValueError(f"no generator option beside data_path (would do nothing: {', '.join(idle)})")
        return self
