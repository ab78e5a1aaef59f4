"""What is wrong with a recipe: names that nothing gives or uses, builders, and what would do nothing."""

from collections.abc import Iterator
from functools import cache
from typing import Any

from pydantic import create_model

from coevo_jax.config.check_branches import AT_FAILURES, check_branches
from coevo_jax.config.check_judge import check_judge
from coevo_jax.config.check_search import check_search
from coevo_jax.config.options import Config
from coevo_jax.config.recipe import (
    AskOptions,
    AskPhase,
    BranchOptions,
    BranchPhase,
    EvaluatePhase,
    JudgePhase,
    LearnPhase,
    PairSource,
    RecipePhase,
    ReinforceSource,
    Source,
)
from coevo_jax.config.recipe_queries import (
    agents_of,
    branches_of,
    filled_by,
    lead_of,
    learners_of,
    players_of,
)
from coevo_jax.config.strict import ConfigError, StrictModel, closest, nearest, validate
from coevo_jax.methods.table import ALSO_OF, BUILDERS, MADE_OF, builder_options, find_builder

# Builders of what a task's trajectories say of each other.
AMONG_PLAYED = (
    *(("pairs", "better_over_worse"), ("pairs", "success_over_failure_at_parting")),
    *(("reinforce", "grpo"), ("reinforce", "gigpo")),
)
Built = Source | BranchOptions | AskOptions
"""What names a builder."""
UNPLAYED = ("ask", "judge")  # phases whose collections nobody played in an environment
RESERVED = ("expert", "imported", "base")  # names of what is neither an agent nor played by one


def check_recipe(config: Config) -> Iterator[str]:
    """Every fault of the recipe, each in one sentence that says where it is."""
    phases = config.recipe
    if not phases:
        for agent in config.agents:
            yield f"agents.{agent} does nothing: the recipe has no phases"
        if config.rounds > 0:
            yield (
                f"recipe: found no phases, and rounds is {config.rounds}: expected the name of a recipe "
                "(such as recipe: coevo) or a list of phases, or rounds: 0"
            )
        return
    yield from _names(config)
    yield from _collections(config)
    for where, source in _sources(config):
        yield from _source(where, source)
    yield from _other_kinds(config)
    yield from check_branches(config)
    yield from check_search(config)
    if config.rounds > 0:
        yield from _too_few(config)
    yield from _others_wrote(config)
    yield from check_judge(config)


def _names(config: Config) -> Iterator[str]:
    phases, agents = config.recipe, agents_of(config.recipe)
    names = [phase.name for phase in phases]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        kind, _, what = name.partition("_")
        give = "name: another name" if kind in ("learn", "evaluate") else "into: another collection"
        yield f"recipe: {kind} {what} stands twice in a round; give one {give}"
    filled = dict.fromkeys((name, phase.name) for phase in phases if (name := filled_by(phase)))
    collections = [name for name, _ in filled]
    for name in dict.fromkeys(name for name in collections if collections.count(name) > 1):
        yield f"recipe: phases of two kinds play into {name}; give one into: another collection"
    for name in dict.fromkeys([*agents, *collections]):
        if name in RESERVED:
            yield f"recipe: the name {name} is taken; expected another one than {', '.join(RESERVED)}"
    players = players_of(phases)
    evaluated = {phase.agent for phase in phases if isinstance(phase, EvaluatePhase)}
    learners = learners_of(phases)
    for agent in agents:
        near = closest(agent, [other for other in agents if other != agent])
        if agent not in players and agent not in learners:
            yield f"recipe: the agent {agent} is evaluated, but no phase lets it play or learn{near}"
        elif agent not in {*players, *evaluated}:
            yield f"recipe: the agent {agent} learns, but no phase lets it play{near}"
    if lead_of(phases) not in learners:
        yield f"recipe: the agent {lead_of(phases)}, the first one that it names, learns nothing"
    for agent in config.agents:
        if agent not in agents:
            yield f"agents.{agent}: the recipe has no such agent{nearest(agent, agents)}"
        elif agent not in learners:
            yield f"agents.{agent} does nothing: the agent {agent} learns in no phase of the recipe"


def _collections(config: Config) -> Iterator[str]:
    phases = config.recipe
    played: list[str] = []
    later = [name for phase in phases if (name := filled_by(phase))]
    for phase in phases:
        for label, names in _named_in(phase):
            for name in names:
                where = f"recipe.{phase.name}{label}.of"
                if name in played:
                    continue
                if name in later:
                    yield f"{where}: {name} is learned from before it is played"
                else:
                    yield f"{where}: no phase plays {name}{nearest(name, later)}"
            for name in dict.fromkeys(name for name in names if names.count(name) > 1):
                yield f"recipe.{phase.name}{label}.of: {name} stands twice"
        if filled := filled_by(phase):
            played.append(filled)


def _named_in(phase: RecipePhase) -> list[tuple[str, tuple[str, ...]]]:
    """The collections that a phase names, by what names them."""
    if isinstance(phase, JudgePhase):
        return [("", phase.judge.of)]
    return [(f".{source.label}", source.of) for source in _built_in(phase)]


def _built_in(phase: RecipePhase) -> tuple[Built, ...]:
    """What builders make in a phase: what it learns from, where it branches, or what it asks."""
    if isinstance(phase, BranchPhase):
        return (phase.branch,)
    if isinstance(phase, AskPhase):
        return (phase.ask,)
    return phase.learn.sources if isinstance(phase, LearnPhase) else ()


def _sources(config: Config) -> Iterator[tuple[str, Built]]:
    for phase in config.recipe:
        for source in _built_in(phase):
            yield f"recipe.{phase.name}.{source.label}", source


def _source(where: str, source: Built) -> Iterator[str]:
    table, name = source.builder
    try:
        schema = options_schema(table, name)
    except LookupError as error:
        valid = list(BUILDERS[table])
        yield f"{where}: {table}: {error.args[0]}{nearest(name, valid) if ':' not in name else ''}"
        return
    try:
        options = validate(schema, source.options, where)
    except ConfigError as error:
        yield from str(error).split("\n")
        return
    if isinstance(source, PairSource):
        if source.dpo == 0 and source.sft == 0:
            yield f"{where}: dpo and sft are both 0, so it does nothing; leave it out"
        if source.dpo == 0 and source.loss is not None:
            yield f"{where}.loss does nothing: dpo is 0"
    if getattr(options, "cut_after_error", None) == 0 and getattr(options, "error_discount", 1) < 1:
        yield f"{where}.error_discount does nothing: cut_after_error is 0, so no turn stands behind an error"
    if getattr(options, "across", False) is True and len(source.of) == 1:
        yield f"{where}.across leaves out every pair: it names one collection, {', '.join(source.of)}"


@cache
def options_schema(table: str, name: str) -> type[StrictModel]:
    """The record that checks a builder's options.

    Raises:
      LookupError: no such builder, in words.
    """
    fields: dict[str, Any] = builder_options(find_builder(table, name))
    return create_model("Options", __base__=StrictModel, **fields)


def source_options(source: Built) -> dict[str, Any]:
    """The options of a source's builder as its function takes them, defaults included."""
    checked = validate(options_schema(*source.builder), source.options, source.label)
    return {key: getattr(checked, key) for key in type(checked).model_fields}


def _others_wrote(config: Config) -> Iterator[str]:
    """What is reinforced needs its player's log-probabilities, which a beginning of another's has not."""
    branched = {phase.branch.into for phase in branches_of(config.recipe)}
    for where, source in _sources(config):
        for name in source.of if isinstance(source, ReinforceSource) else ():
            if name in branched:
                yield (
                    f"{where}.of: {name} is played from the middle of episodes, whose beginnings have no "
                    "log-probabilities of their agent; expected collections that a phase explores"
                )


def _other_kinds(config: Config) -> Iterator[str]:
    """Builders that make nothing of a collection that they name: of an answer, or of what is no branch."""
    played = {name: phase for phase in config.recipe if (name := filled_by(phase))}
    for where, source in _sources(config):
        own = ":" in source.builder[1]
        needed = MADE_OF.get(source.builder)
        if needed is not None and not source.of:
            yield f"{where}.of: found no collection, expected what {needed} plays into"
        for name in source.of:
            phase = played.get(name)
            kind = phase and phase.name.partition("_")[0]
            if isinstance(phase, BranchPhase) and needed == "branch" and phase.branch.at in AT_FAILURES:
                yield f"{where}.of: {name} leaves failures, expected branches of expert_turns"
            if needed is not None and kind not in (needed, None):
                yield f"{where}.of: {kind} plays into {name}, of which it makes nothing; expected {needed}"
            elif needed is None and kind in UNPLAYED and not own and ALSO_OF.get(source.builder) != kind:
                what = "are answers" if kind == "ask" else "are judged"
                yield f"{where}.of: {name} {what}, of which it makes nothing; expected what was played"


def _too_few(config: Config) -> Iterator[str]:
    """A recipe that one sample of a task gives nothing to."""
    for where, source in _sources(config):
        among = source.builder in AMONG_PLAYED
        if among and len(source.of) == 1 and config.explore.samples < 2:
            yield f"{where} needs two trajectories of a task: explore.samples is 1, and it is one collection"


def check_kinds(config: Config) -> Iterator[str]:
    """A kind of pair has one name and one loss for an agent."""
    for agent in learners_of(config.recipe):
        losses: dict[str, Any] = {}
        for phase in config.recipe:
            if not isinstance(phase, LearnPhase) or phase.agent != agent:
                continue
            labels = [source.label for source in phase.learn.sources]
            for label in dict.fromkeys(label for label in labels if labels.count(label) > 1):
                yield f"recipe.{phase.name}: {label} stands twice; give one of them a kind: of its own"
            for source in phase.learn.pairs:
                preferred = source.dpo > 0
                if preferred and losses.setdefault(source.label, source.loss) != source.loss:
                    yield f"recipe.{phase.name}.{source.label}.loss: another one than in an earlier learning"
