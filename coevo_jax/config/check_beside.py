"""What is wrong with a weak model beside an agent, and what it does otherwise than it seems to."""

from collections.abc import Iterator

from coevo_jax.config.beside import BesideOptions
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import LearnOptions, LearnPhase
from coevo_jax.config.recipe_queries import learnings_of


def check_beside(config: Config) -> Iterator[str]:
    """Every fault of a learning on mixed logits, each in one sentence that says where it is."""
    for where, learning, beside in _learnings(config):
        if learning.pairs:
            kinds = ", ".join(source.label for source in learning.pairs)
            yield (
                f"{where}: mixed logits are for imitation: found the pairs {kinds}, expected sources with "
                "imitate alone; a learning of its own (name: ...) may have the pairs"
            )
        if learning.reinforcements:
            labels = ", ".join(source.label for source in learning.reinforcements)
            yield (
                f"{where}: mixed logits are for imitation: found {labels}, which reinforces, expected "
                "sources with imitate alone; a learning of its own (name: ...) may reinforce"
            )
        sampling = beside.sampling
        if sampling is not None and not (sampling.alpha or sampling.beta or sampling.gamma):
            yield (
                f"{where}.sampling: alpha, beta and gamma are all 0, expected one above 0; sampling: null "
                "draws nothing"
            )
        lora = config.model.lora
        if beside.weak != "warm_start" and lora is not None and lora.warm_start == "full":
            yield (
                f"{where}.weak: found {beside.weak}, expected warm_start: under model.lora.warm_start full "
                "the base of the adapters is the warm start, and no adapters make the model before it "
                "(model.lora.warm_start adapter keeps it)"
            )


def same_models(config: Config) -> Iterator[str]:
    """Learnings in which the weak model is at first the agent itself."""
    for where, learning, beside in _learnings(config):
        first = learnings_of(config.recipe, learning.agent)[0]
        if beside.weak == "warm_start" and learning == first and config.rounds > 0:
            yield (
                f"{where}.weak is warm_start: in round 1 that is the agent itself, whose entropies are the "
                "same, so that alpha alone decides what is drawn"
            )


def _learnings(config: Config) -> Iterator[tuple[str, LearnOptions, BesideOptions]]:
    for phase in config.recipe:
        if isinstance(phase, LearnPhase) and phase.learn.beside is not None:
            yield f"recipe.{phase.name}.beside", phase.learn, phase.learn.beside
