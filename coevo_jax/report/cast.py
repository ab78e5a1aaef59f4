"""Who acts in a run: its agents, collections, learnings and kinds of pair, as pages and tables name them.

Names are the recipe's, in plain words: second_helper is "Second helper". An agent has its colour by its
place, the lead the first one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coevo_jax.episode_stats.faults import reason_words
from coevo_jax.report.words import round_name
from coevo_jax.run_folder.results import Evaluation, Results, evaluation_label

TONES = ("c1", "c2", "c3", "c4", "c5", "c6")
EXPERT = "expert"
FEEDBACK = "uses test feedback"  # said of every number of an agent that learned from the tasks of its test
_AGENTS = {"failure": "Failure agent"}  # the name alone would read as an episode that failed
_KINDS = {
    "expert_target": "expert over target failure",
    "expert_failure": "expert over failure-agent failure",
    "failure_failure": "better over worse failure",
    "expert_over": "expert over failure",
    "success_failure": "success over failure",
}


def plain(name: str) -> str:
    """A name of a recipe as the beginning of a line: "hard_negatives" is "Hard negatives"."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


def agent_name(agent: str) -> str:
    """An agent as the beginning of a line."""
    return _AGENTS.get(agent, plain(agent))


def agent_words(agent: str) -> str:
    """An agent inside a line."""
    name = agent_name(agent)
    return name[:1].lower() + name[1:]


def the_agent(agent: str) -> str:
    """An agent with its article: "the target agent"."""
    return f"the {agent.replace('_', ' ')} agent"


def kind_name(kind: str) -> str:
    """A kind of pair in words."""
    return _KINDS.get(kind, kind.replace("_", " "))


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Names of one run, each in the order of its recipe."""

    agents: tuple[str, ...]  # the lead first
    collections: Mapping[str, str]  # what is explored into -> who plays
    learnings: Mapping[str, str]  # learning -> who learns
    evaluations: Mapping[str, str] = field(default_factory=dict)  # evaluation -> who is evaluated
    fed: frozenset[str] = frozenset()  # evaluations whose agent learns from the tasks that it is tested on

    @property
    def lead(self) -> str:
        return self.agents[0]

    def place(self, agent: str) -> int:
        """An agent's place; what the recipe does not name stands last."""
        return self.agents.index(agent) if agent in self.agents else len(self.agents)

    def tone(self, agent: str) -> str:
        """The colour of an agent."""
        return TONES[self.place(agent) % len(TONES)]

    def collection_tone(self, collection: str) -> str:
        """An agent's for the first collection that it plays; further ones have colours of their own."""
        first = {agent: name for name, agent in reversed(list(self.collections.items()))}
        others = [name for name, agent in self.collections.items() if name != first[agent]]
        if collection not in others:
            return self.tone(self.collections.get(collection, collection))
        taken = {self.tone(agent) for agent in self.agents}
        free = [tone for tone in (*TONES[3:], *TONES[:3]) if tone not in taken] or list(TONES)
        return free[others.index(collection) % len(free)]

    def evaluation_place(self, evaluation: str) -> int:
        """The agents' evaluations by the agents' places, then those with names of their own."""
        if evaluation in self.agents:
            return self.place(evaluation)
        names = [name for name in self.evaluations if name not in self.agents]
        return len(self.agents) + (names.index(evaluation) if evaluation in names else len(names))

    def evaluation_tone(self, evaluation: str) -> str:
        """An agent's colour for the evaluation that is called as it is; others have the colours behind."""
        return TONES[self.evaluation_place(evaluation) % len(TONES)]

    def evaluation_name(self, evaluation: str) -> str:
        """Who is evaluated, and which evaluation it is where it has a name of its own."""
        agent = self.evaluations.get(evaluation, evaluation)
        return agent_name(agent) + self.evaluation_suffix(evaluation, agent)

    def evaluation_suffix(self, evaluation: str, agent: str) -> str:
        """What stands behind an agent's name: which evaluation it is, and that it uses test feedback."""
        own = "" if agent == evaluation else f", {evaluation.replace('_', ' ')}"
        return f"{own} ({FEEDBACK})" if evaluation in self.fed else own

    def is_own(self, collection: str) -> bool:
        """Whether a collection has the name of the agent that plays it."""
        return collection in self.agents and self.collections.get(collection, collection) == collection

    def collection_name(self, collection: str) -> str:
        """What is explored, in words: its player's name, or its own."""
        return agent_name(collection) if self.is_own(collection) else plain(collection)

    def learning_name(self, learning: str) -> str:
        """Who learns, and which learning it is where it has a name of its own."""
        agent = self.learnings.get(learning, learning)
        return (
            agent_name(agent) if agent == learning else f"{agent_name(agent)}: {learning.replace('_', ' ')}"
        )

    def source_name(self, source: str, agent: str) -> str:
        """Trajectories by the name of their files and by who played them."""
        if source == EXPERT:
            return "Experts"
        if source.startswith("eval-"):
            return f"Evaluation: {self._evaluation_words(source.removeprefix('eval-'), agent)}"
        return (
            f"{agent_name(agent)} explores" if source == agent else f"{plain(source)} ({agent_words(agent)})"
        )

    def phase_name(self, name: str) -> str:
        """A phase such as "round-01/learn_target" in words: "Round 1 · Target learns"."""
        place, _, phase = name.rpartition("/")
        kind, _, who = phase.partition("_")
        if kind == "branch":
            words = plain(who) if who == "branches" else f"{plain(who)} (branches)"
        elif kind == "ask":
            words = f"{plain(who)} (answers)"
        elif kind == "judge":
            words = f"{plain(who)} (discriminator)"
        elif kind == "explore":
            words = f"{agent_name(who)} explores" if self.is_own(who) else plain(who)
        elif kind == "learn":
            agent = self.learnings.get(who, who)
            words = f"{agent_name(agent)} learns" + (f": {who.replace('_', ' ')}" if agent != who else "")
        elif kind == "evaluate":
            words = f"Evaluation: {self._evaluation_words(who)}" if who else "Evaluation"
        else:
            words = plain(phase)
        if place.startswith("round-") and place[6:].isdigit():
            return f"{round_name(int(place[6:]))} · {words}"
        return f"{place} · {words}" if place else words

    def _evaluation_words(self, evaluation: str, agent: str | None = None) -> str:
        agent = agent or self.evaluations.get(evaluation, evaluation)
        return agent_words(agent) + self.evaluation_suffix(evaluation, agent)

    def source_order(self, source: str) -> tuple[int, int]:
        """Experts, then what is explored in the order of a round, then evaluations."""
        if source == EXPERT:
            return 0, 0
        if source.startswith("eval-"):
            return 2, self.evaluation_place(source.removeprefix("eval-"))
        names = list(self.collections)
        return 1, names.index(source) if source in names else len(names)


def branch_lines(explorations: Sequence[Any]) -> list[str]:
    """One line for each phase that played on from the middle of episodes: from where, and what was lost."""
    lines = []
    for entry in explorations:
        if "points" in entry:
            turns = ", ".join(f"{int(turn) + 1}: {n}" for turn, n in entry["points_by_turn"].items())
            words = f"{round_name(entry['round'])}, {plain(collection_of(entry['phase']))}: "
            words += f"from {entry['points']} points" + (f" (before turn {turns})" if turns else "")
            lost = entry["endings"].get("lost", 0)
            lines.append(f"{words}; {lost} of {entry['n']} lost, their beginnings not coming back the same")
    return lines


def fault_lines(summaries: Sequence[Any], names: Sequence[str]) -> list[str]:
    """Why environments broke, a line for each summary that tells; `names` are theirs on the page."""
    return [
        f"{name}: {summary['faults']} faults: {reason_words(summary['fault_reasons'])}."
        for name, summary in zip(names, summaries, strict=True)
        if "fault_reasons" in summary
    ]


def collection_of(phase: str) -> str:
    """The collection that a phase such as "explore_target" or "branch_tails" plays into."""
    return phase.partition("_")[2]


def cast_of(results: Results) -> Cast:
    """The names of a run; those of one from before recipes come from what it did."""
    collections: dict[str, str] = {}
    learnings: dict[str, str] = {}
    evaluations: dict[str, str] = {}
    fed = {evaluation_label(e) for e in results["evaluations"] if "test_feedback" in e}
    for kind, options in _phases(results["config"].get("recipe")):
        agent = options["agent"]
        if kind in ("explore", "branch", "ask"):
            collections.setdefault(options.get("into") or agent, agent)
        elif kind == "learn":
            learnings.setdefault(options.get("name") or agent, agent)
        elif kind == "evaluate":
            evaluations.setdefault(options.get("name") or agent, agent)
            fed |= {options.get("name") or agent} if options.get("adapt") is not None else set()
    for entry in results["explorations"]:
        collections.setdefault(collection_of(entry["phase"]), entry["agent"])
    agents = [*results["agents"], *(e["agent"] for e in (*results["evaluations"], *results["explorations"]))]
    return Cast(
        agents=tuple(dict.fromkeys(agents)),
        collections=collections,
        learnings=learnings,
        evaluations=evaluations,
        fed=frozenset(fed),
    )


def mark_lines(cast: Cast, evaluations: Sequence[Evaluation]) -> list[str]:
    """Which evaluation was played under which mark, a line each; none where there are no marks."""
    marks = {evaluation_label(e): e["mark"] for e in evaluations if "mark" in e}
    return [f"{cast.evaluation_name(label)}: under the mark “{mark}”." for label, mark in marks.items()]


def feedback_lines(cast: Cast, evaluations: Sequence[Evaluation]) -> list[str]:
    """What evaluations that use test feedback learned and asked for, a line each; none where none does."""
    lines = []
    for e in evaluations:
        if "test_feedback" in e:
            found = e["test_feedback"]
            words = f"{round_name(e['round'])}, {cast.evaluation_name(evaluation_label(e))}: "
            words += f"a step after each of {found['steps']} of {found['episodes']} test episodes, "
            words += f"{found['queries']} of which were asked for their true success"
            if found["predicted"]:
                words += f"; {found['predicted_right']} of the other {found['predicted']} predicted right"
            lines.append(f"{words}.")
    return lines


def _phases(recipe: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for phase in recipe if isinstance(recipe, list) else ():
        for kind, options in phase.items() if isinstance(phase, dict) else ():
            if isinstance(options, dict) and isinstance(options.get("agent"), str):
                yield kind, options
