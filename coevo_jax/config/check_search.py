"""What is wrong with bad and good paths in a recipe: tasks of one episode, verdicts that nobody gives."""

from collections.abc import Iterator
from typing import Any

from coevo_jax.config.options import Config
from coevo_jax.config.recipe import AskOptions, AskPhase, ImitationSource
from coevo_jax.config.recipe_queries import explorations_of, learnings_of
from coevo_jax.methods.pairs_of_paths import ALPHA, BETA

THRESHOLDS: dict[str, Any] = {"alpha": ALPHA, "beta": BETA}


def check_search(config: Config) -> Iterator[str]:
    """Every fault of what is made of bad paths beside good ones, each in one sentence."""
    asked = {phase.ask.into: phase.ask for phase in config.recipe if isinstance(phase, AskPhase)}
    for name, options in asked.items():
        if options.question == "good_or_bad":
            yield from _alone(config, f"recipe.ask_{name}.good_or_bad", options.of)
    for learning in learnings_of(config.recipe):
        for source in learning.imitations:
            if source.imitate == "revisions":
                where = f"recipe.learn_{learning.name or learning.agent}.revisions"
                yield from _alone(config, where, [name for name in source.of if name not in asked])
                yield from _revisions(where, source, asked)


def _alone(config: Config, where: str, played: Any) -> Iterator[str]:
    """A task needs a bad and a good path."""
    explored = {phase.explore.collection for phase in explorations_of(config.recipe)}
    if not played:
        yield f"{where}.of: found no collection of episodes, expected some that were played"
    elif set(played) <= explored and len(played) * config.explore.samples < 2:
        yield f"{where} needs two episodes of a task: explore.samples is 1, and it is one collection"


def _revisions(where: str, source: ImitationSource, asked: dict[str, AskOptions]) -> Iterator[str]:
    """Who says which turn is bad, and whether it was asked of the very pairs."""
    transition = source.options.get("transition", "actor")
    answers = [name for name in source.of if name in asked]
    if transition != "reward" and "threshold" in source.options:
        yield f"{where}.threshold does nothing: transition is {transition}, and it is of reward"
    if transition != "actor":
        for name in answers:
            yield f"{where}.of: {name} does nothing: transition is {transition}, which looks at no verdict"
        return
    if len(answers) != 1:
        found = ", ".join(answers) or "none"
        yield (
            f"{where}.of: found the answers {found}, expected those of one phase that asks good_or_bad, or "
            "transition: reward"
        )
        return
    options = asked[answers[0]]
    if ":" in options.question:
        return
    if options.question != "good_or_bad":
        yield f"{where}.of: {options.into} answer {options.question}, expected good_or_bad"
        return
    others = [name for name in source.of if name != options.into]
    if set(options.of) != set(others):
        yield (
            f"{where}.of: found {', '.join(others)} beside verdicts about {', '.join(options.of)}, expected "
            "the same collections"
        )
    for name, default in THRESHOLDS.items():
        own, theirs = (one.options.get(name, default) for one in (source, options))
        if _plain(own) != _plain(theirs):
            yield f"{where}.{name}: found {own}, and {options.into} are about pairs by {theirs}; expected one"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
