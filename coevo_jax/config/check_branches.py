"""What is wrong with branches in a recipe: phases that play the same twice, and builders without theirs."""

from collections.abc import Iterator

from coevo_jax.config.options import Config
from coevo_jax.config.recipe import BranchOptions, BranchPhase, Source
from coevo_jax.config.recipe_queries import branches_of, learnings_of

AT_FAILURES = ("failed_turns", "expert_proposals", "agent_proposals")
SEARCHES = ("promising_nodes",)  # looks at what the phase itself has played
TAKE_EXPERTS = ("expert_turns", "expert_proposals")
OF_EXPERTS = ("expert_turns",)  # looks at no collection


def check_branches(config: Config) -> Iterator[str]:
    """Every fault of the phases that branch and of what is built of them, each in one sentence."""
    branches = {phase.branch.into: phase.branch for phase in branches_of(config.recipe)}
    for phase in branches_of(config.recipe):
        yield from _phase(config, phase, branches)
    for where, source in _sources(config):
        match source.builder:
            case "pairs", "verified_branch" if not _has_parents(source.of, branches):
                yield _no_parents(where, source.of)
            case "pairs", "step_and_outcome":
                yield from _step_and_outcome(where, source, branches)
            case "imitate", "beneficial_segments":
                yield from _segments(where, source, branches)


def needing_experts(config: Config) -> list[str]:
    """The phases that leave experts, or take steps of theirs: where there are none, they play nothing."""
    return [f"recipe.{phase.name}" for phase in branches_of(config.recipe) if phase.branch.at in TAKE_EXPERTS]


def _phase(config: Config, phase: BranchPhase, branches: dict[str, BranchOptions]) -> Iterator[str]:
    options, where = phase.branch, f"recipe.{phase.name}"
    temperature = config.explore.temperature if options.temperature is None else options.temperature
    if options.samples > 1 and temperature == 0:
        yield (
            f"{where}.samples {options.samples} at temperature 0 are identical; use a temperature above 0 or "
            "one sample"
        )
    if options.at in SEARCHES:
        yield from _search(where, options, temperature)
    elif options.iterations > 1 and ":" not in options.at:
        yield (
            f"{where}.iterations {options.iterations} do nothing new: {options.at} chooses the same points "
            f"each time; expected 1, or at: {', '.join(SEARCHES)}"
        )
    if options.at in AT_FAILURES and not options.of:
        yield f"{where}.of: found no collection, expected one whose failures {options.at} leaves"
    if options.at in OF_EXPERTS and options.of:
        yield f"{where}.of does nothing: {options.at} leaves the experts, and looks at no collection"
    if options.at == "turn_ends" and not options.of and options.options.get("experts", True) is False:
        yield f"{where}.of: found no collection, and experts is false: there is nothing to leave"
    if options.at == "agent_proposals" and options.of and not _has_parents(options.of, branches):
        yield _no_parents(where, options.of)


def _search(where: str, options: BranchOptions, temperature: float) -> Iterator[str]:
    if not options.of:
        yield f"{where}.of: found no collection, expected one whose episodes begin the trees"
    if options.turns is not None:
        yield f"{where}.turns {options.turns}: a search values states by how episodes end; expected null"
    if temperature == 0 and options.samples == 1:
        yield f"{where}: at temperature 0 the agent does at every state what it has done; use one above 0"


def _step_and_outcome(where: str, source: Source, branches: dict[str, BranchOptions]) -> Iterator[str]:
    expected = "expected two: what branches at expert_turns, and roll-outs that branch of it at turn_ends"
    names = ", ".join(source.of)
    if len(source.of) != 2:
        yield f"{where}.of: found {names}, {expected}"
        return
    own, rollouts = (branches.get(name) for name in source.of)
    left = rollouts is not None and source.of[0] in rollouts.of
    if not (_is_at(own, OF_EXPERTS) and _is_at(rollouts, ("turn_ends",)) and left):
        yield f"{where}.of: found {names}, {expected}"
    idle = {"outcomes": ("tau", "first", "same_steps"), "steps": ()}
    only = source.options.get("only", "both")
    for option in idle.get(only, ()) if isinstance(only, str) else ():
        if option in source.options:
            yield f"{where}.{option} does nothing: only is {only}, and it is of step pairs"


def _segments(where: str, source: Source, branches: dict[str, BranchOptions]) -> Iterator[str]:
    if not any(_is_at(branches.get(name), OF_EXPERTS) for name in source.of):
        yield f"{where}.of: found {', '.join(source.of)}, expected one that branches at expert_turns"
    if source.options.get("experts") is True and source.options.get("beneficial") is False:
        yield f"{where}.experts does nothing: beneficial is false, so that no turn of an expert is learned"


def _no_parents(where: str, names: tuple[str, ...]) -> str:
    return (
        f"{where}.of: found {', '.join(names)}, expected a collection of branches beside the one that they "
        "leave, such as of: [target, branches]"
    )


def _is_at(branch: BranchOptions | None, points: tuple[str, ...]) -> bool:
    """Whether a collection branches at one of some kinds of points, or at ones of the user's own."""
    return branch is not None and (branch.at in points or ":" in branch.at)


def _has_parents(names: tuple[str, ...], branches: dict[str, BranchOptions]) -> bool:
    """Whether one of the collections branches off another one of them."""
    return any(name in branches and set(branches[name].of) & set(names) - {name} for name in names)


def _sources(config: Config) -> Iterator[tuple[str, Source]]:
    for learning in learnings_of(config.recipe):
        for source in learning.sources:
            yield f"recipe.learn_{learning.name or learning.agent}.{source.label}", source
