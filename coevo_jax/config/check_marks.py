"""What is wrong with a recipe's marks: their texts, marks that nobody learns under, pairs across marks."""

from collections.abc import Iterator, Mapping
from typing import Any

from coevo_jax.config.check_recipe import source_options
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import (
    BranchPhase,
    EvaluatePhase,
    ExplorePhase,
    LearnPhase,
    PairSource,
    RecipePhase,
    Source,
)
from coevo_jax.config.recipe_queries import agents_of, evaluations_of, lead_of, learnings_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.methods.marks import wrong_grades, wrong_mark


def check_marks(config: Config) -> Iterator[str]:
    """Every fault of a recipe's marks, each in one sentence that says where it is."""
    marks = _mark_of_collections(config)
    for phase in config.recipe:
        if isinstance(phase, LearnPhase):
            for source in phase.learn.sources:
                where = f"recipe.{phase.name}.{source.label}"
                yield from _graded(where, source)
                if isinstance(source, PairSource):
                    yield from _paired(where, source, marks)
        elif isinstance(phase, BranchPhase):
            for name in phase.branch.of:
                if mark := marks.get(name):
                    where = f"recipe.{phase.name}.of"
                    yield f"{where}: {name} is played under the mark {mark!r}; expected collections without"
        elif mark := _played_under(phase):
            where = f"recipe.{phase.name}.mark"
            if why := wrong_mark(mark):
                yield f"{where}: {why}"
            elif (taught := _taught(config, phase.agent)) is not None and mark not in taught:
                known = ", ".join(map(repr, taught)) or "no marks"
                yield (
                    f"{where}: found {mark!r}, under which the agent {phase.agent} learns nothing; its "
                    f"sources have {known}"
                )
    yield from _evaluations(config)


def marks_of(config: Config) -> dict[str, str]:
    """Every mark of a recipe that is known before its builders run, with a place where it stands."""
    found: dict[str, str] = {}
    for phase in config.recipe:
        if isinstance(phase, LearnPhase):
            for source in phase.learn.sources:
                for mark in _options(source).get("marks", ()):
                    found.setdefault(mark, f"recipe.{phase.name}.{source.label}.marks")
        elif mark := _played_under(phase):
            found.setdefault(mark, f"recipe.{phase.name}.mark")
    return found


def taught_marks(config: Config, agent: str) -> tuple[str, ...]:
    """The marks that an agent is known to learn under, in the order of its sources."""
    sources = [source for learning in learnings_of(config.recipe, agent) for source in learning.imitations]
    return tuple(dict.fromkeys(mark for source in sources for mark in _options(source).get("marks", ())))


def _taught(config: Config, agent: str) -> tuple[str, ...] | None:
    """The same; None where a builder of the user's own may give others, or a source is refused anyway."""
    for learning in learnings_of(config.recipe, agent):
        for source in learning.imitations:
            own = ":" in source.imitate and "marks" not in _options(source)
            if own or (source.options and not _options(source)):
                return None
    return taught_marks(config, agent)


def _options(source: Source) -> Mapping[str, Any]:
    """The options of a source's builder; none where there is no such builder, or they are refused."""
    try:
        return source_options(source)
    except (LookupError, ConfigError):
        return {}


def _played_under(phase: RecipePhase) -> str:
    if isinstance(phase, ExplorePhase):
        return phase.explore.mark
    return phase.evaluate.mark if isinstance(phase, EvaluatePhase) else ""


def _mark_of_collections(config: Config) -> dict[str, str]:
    explored = [phase.explore for phase in config.recipe if isinstance(phase, ExplorePhase)]
    return {one.collection: one.mark for one in explored}


def _graded(where: str, source: Source) -> Iterator[str]:
    options = _options(source)
    if source.builder == ("imitate", "graded") and options:
        yield from (f"{where}.{why}" for why in wrong_grades(options["marks"], options["bounds"]))
        if options["failures_per_success"] is None and "draw_seed" in source.options:
            yield f"{where}.draw_seed does nothing: failures_per_success is null, so no failure is drawn"
    elif isinstance(options.get("marks"), tuple):
        yield from (f"{where}.marks: {why}" for why in map(wrong_mark, options["marks"]) if why)


def _paired(where: str, source: PairSource, marks: Mapping[str, str]) -> Iterator[str]:
    """Both sides of a pair answer the same prompt."""
    own = {name: marks.get(name, "") for name in source.of}
    if source.pairs == "expert_over":
        own["the expert"] = ""
    if len(set(own.values())) > 1:
        shown = ", ".join(f"{name} {mark!r}" if mark else f"{name} none" for name, mark in own.items())
        yield f"{where}: the sides of a pair would be under several marks: {shown}; expected one"


def _evaluations(config: Config) -> Iterator[str]:
    agents, evaluations = agents_of(config.recipe), evaluations_of(config.recipe)
    for one in evaluations:
        if one.label != one.agent and one.label in agents:
            yield (
                f"recipe.evaluate_{one.label}: the name of the agent {one.label} for an evaluation of "
                f"{one.agent}; expected another one"
            )
    played: dict[tuple[str, str, Any], str] = {}  # of agents that have not learned since
    for phase in config.recipe:
        if isinstance(phase, LearnPhase):
            played = {key: name for key, name in played.items() if key[0] != phase.agent}
        elif isinstance(phase, EvaluatePhase):
            one = phase.evaluate
            first = played.setdefault((one.agent, one.mark, one.adapt), one.label)
            if first != one.label:
                yield f"recipe.evaluate_{one.label} plays the very episodes of evaluate_{first}; leave it out"
    lead = lead_of(config.recipe)
    names = [one.label for one in evaluations if one.agent == lead]
    if names and lead not in names:
        yield (
            f"recipe: {lead} is evaluated as {', '.join(names)} alone; expected one evaluation without a "
            "name, by which runs are compared"
        )
