"""What a config does that it does not seem to do: no fault, but said when a run starts."""

from collections.abc import Iterator

from coevo_jax.config.check_beside import same_models
from coevo_jax.config.options import Config
from coevo_jax.config.reinforced import reinforcements

AS_IT_IS = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}  # the policy's own distribution


def remarks(config: Config) -> Iterator[str]:
    """What does something else than it seems to, each in one sentence."""
    if config.rounds == 0:
        return
    for name, agent in config.agents.items():
        if agent.reference_every == 1:
            yield (
                f"agents.{name}.reference_every is 1: at every step the agent is its own reference, so its "
                "margins in the log will be 0"
            )
    yield from same_models(config)
    explore = config.explore.model_dump()
    other = [f"{key} {explore[key]}" for key, value in AS_IT_IS.items() if explore[key] != value]
    if other and reinforcements(config):
        yield (
            f"explore draws tokens with {', '.join(other)}, and what is reinforced is compared at "
            "temperature 1: it was drawn from another distribution than the one that learns, which nothing "
            "makes up for"
        )
