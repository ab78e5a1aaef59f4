"""What is wrong with suggestions in a recipe: their options, who is told them, and what is made of both."""

from collections.abc import Iterator, Mapping
from typing import Any

from coevo_jax.config.check_recipe import source_options
from coevo_jax.config.hints import HintOptions
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import AskPhase, BranchPhase, ExploreOptions, LearnPhase, RecipePhase, Source
from coevo_jax.config.recipe_queries import explorations_of, learnings_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.methods.hints import wrong_wording

TAUGHT = ("imitate", "corrections")
KEPT = ("imitate", "kept_corrections")
OF_TASKS = (TAUGHT, ("imitate", "experts"))  # look at the tasks of a collection alone


def check_hints(config: Config) -> Iterator[str]:
    """Every fault of a recipe's suggestions, each in one sentence that says where it is."""
    hinted = {one.collection for one in _hinted(config).values()}
    for where, phase in _hinted(config).items():
        yield from _played(config, where, phase)
    for phase in config.recipe:
        for where, source in _built_in(phase):
            options = _options(source)
            if source.builder == TAUGHT and options:
                yield from _options_problems(where, options)
                if options["share"] == 0 and options["copies"] > 1:
                    yield f"{where}.copies does nothing: share is 0, so all copies are the same"
                if options["share"] == 0 and options["plain_weight"] == 0:
                    yield f"{where} learns nothing: share is 0 (nothing is distorted), and so is plain_weight"
            for name in source.of:
                if source.builder == KEPT and name not in hinted and _is_explored(config, name):
                    yield f"{where}.of: {name} is played without hints, expected what explore plays with them"
                own = ":" in source.builder[1]
                if name in hinted and source.builder not in (KEPT, *OF_TASKS) and not own:
                    yield (
                        f"{where}.of: {name} is played with hints, which stand in its tokens; expected "
                        "kept_corrections, which takes them out, or collections without"
                    )


def wordings_of(config: Config) -> dict[str, str]:
    """Every wording of suggestions in a recipe, with a place where it stands."""
    found: dict[str, str] = {}
    for where, phase in _hinted(config).items():
        assert phase.hints is not None
        found.setdefault(phase.hints.wording, f"{where}.hints.wording")
    for phase in config.recipe:
        for where, source in _built_in(phase):
            if source.builder == TAUGHT and (options := _options(source)):
                found.setdefault(options["wording"], f"{where}.wording")
    return found


def operations_of(config: Config) -> Mapping[str, tuple[str, ...]]:
    """The operations by which each place of a recipe lets actions be distorted."""
    found = {
        f"{where}.hints.operations": tuple(one.hints.operations)
        for where, one in _hinted(config).items()
        if one.hints
    }
    for phase in config.recipe:
        for where, source in _built_in(phase):
            if source.builder == TAUGHT and (options := _options(source)):
                found[f"{where}.operations"] = options["operations"]
    return found


def hinting_phases(config: Config) -> list[str]:
    """The phases that make everything of experts: what is learned of distorted ones, and who is told them."""
    learned = (
        f"recipe.{phase.name}"
        for phase in config.recipe
        if isinstance(phase, LearnPhase) and any(source.builder == TAUGHT for source in phase.learn.sources)
    )
    return list(dict.fromkeys([*learned, *_hinted(config)]))


def _hinted(config: Config) -> dict[str, ExploreOptions]:
    explored = explorations_of(config.recipe)
    return {f"recipe.{one.name}": one.explore for one in explored if one.explore.hints is not None}


def _is_explored(config: Config, name: str) -> bool:
    return any(one.explore.collection == name for one in explorations_of(config.recipe))


def _played(config: Config, where: str, phase: ExploreOptions) -> Iterator[str]:
    """Of a phase that plays with hints."""
    hints = phase.hints
    assert hints is not None
    yield from _options_problems(f"{where}.hints", hints.model_dump())
    if phase.mark:
        yield f"{where}.mark: found {phase.mark!r} beside hints, expected one of both"
    wordings = _taught(config, phase.agent)
    if wordings is not None and hints.wording not in wordings:
        known = ", ".join(map(repr, wordings)) or "no corrections"
        yield (
            f"{where}.hints: found the wording {hints.wording!r}, under which the agent {phase.agent} learns "
            f"nothing; its sources have {known}"
        )


def _taught(config: Config, agent: str) -> list[str] | None:
    """The wordings that an agent learns under; None where a builder of the user's own may give others."""
    found: list[str] = []
    for learning in learnings_of(config.recipe, agent):
        for source in learning.sources:
            if ":" in source.builder[1] or (source.options and not _options(source)):
                return None  # the latter is refused anyway
            found += [_options(source)["wording"]] if source.builder == TAUGHT else []
    return found


def _options_problems(where: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Of what a phase that plays with hints and a source of corrections have in common."""
    if why := wrong_wording(options["wording"]):
        yield f"{where}.wording: {why}"
    operations, default = options["operations"], HintOptions.model_fields["operations"].default
    for name in dict.fromkeys(one for one in operations if operations.count(one) > 1):
        yield f"{where}.operations: {name} stands twice"
    if options["share"] == 0 and operations != default:
        yield f"{where}.operations does nothing: share is 0, so nothing is distorted"


def _built_in(phase: RecipePhase) -> list[tuple[str, Any]]:
    """What builders make in a phase, and where it stands."""
    if isinstance(phase, BranchPhase):
        return [(f"recipe.{phase.name}", phase.branch)]
    if isinstance(phase, AskPhase):
        return [(f"recipe.{phase.name}", phase.ask)]
    sources = phase.learn.sources if isinstance(phase, LearnPhase) else ()
    return [(f"recipe.{phase.name}.{source.label}", source) for source in sources]


def _options(source: Source) -> Mapping[str, Any]:
    """The options of a source's builder; none where there is no such builder, or they are refused."""
    try:
        return source_options(source)
    except (LookupError, ConfigError):
        return {}
