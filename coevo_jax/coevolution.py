"""The outer loop: the warm start, then the phases of a recipe, round by round.

A method is a recipe, not code: ETO has one agent, RFT no pairs, SFT no rounds. Agents are values: a phase is
given them and returns them.
"""

from typing import Any

from coevo_jax.config.recipe_queries import agents_of
from coevo_jax.config.remarks import remarks
from coevo_jax.episode_stats.summary import detect_collapse
from coevo_jax.phases.agents import restore_agents
from coevo_jax.phases.prepare import prepare
from coevo_jax.phases.proof import prove_tasks
from coevo_jax.phases.serving import prove_servers
from coevo_jax.phases.table import PHASES
from coevo_jax.phases.world import build_world
from coevo_jax.progress import CONSOLE, time_words
from coevo_jax.recipe import Phase, schedule
from coevo_jax.run_folder.manifest import PhaseRecord
from coevo_jax.run_folder.results import Results, evaluation_label, phase_entry
from coevo_jax.run_folder.run import Run
from coevo_jax.run_folder.time_left import episodes_played, time_after


def coevolve(run: Run) -> Results:
    """Play every phase that is not yet committed; returns (and saves) the results.

    Raises:
      Stopped: the run was asked to end; what it did is committed.
    """
    for remark in remarks(run.config):
        CONSOLE.print(f"warning: {remark}", soft_wrap=True)
    prepare(run)
    so_far = ResultsSoFar(run)
    run.show(so_far.collect())  # for who looks on before the first phase is over
    world = build_world(run.config, run.folder)
    try:
        prove_tasks(run, world)
        agents = restore_agents(run, world)
        if run.manifest.record("warm_start") is None:
            prove_servers(run, world, agents)
        done = {record.name for record in run.manifest.done}
        for phase in schedule(run.config):
            if phase.name not in done:
                run.stop.end_if_asked()
                agents = PHASES[phase.kind](run, world, agents, phase)
                run.show(so_far.collect())
                if phase.round == 0:
                    _say_time_left(run, phase)
    finally:
        world.close()
    run.settle()
    results = so_far.collect()
    run.show(results)
    return results


def _say_time_left(run: Run, phase: Phase) -> None:
    """What the rounds should take, once the warm start has been measured."""
    measured = {record.name: record.seconds for record in run.manifest.done}
    left = time_after(run.config, measured, phase.name, episodes_played(run.manifest))
    if left.seconds and not left.unknown:
        words = left.words_of(time_words(left.seconds))
        CONSOLE.print(
            f"{words} for the {run.config.rounds} rounds, by what the warm start and its evaluation took, if "
            "every failed task gives a pair of each kind",
            soft_wrap=True,
        )


def collect_results(run: Run) -> Results:
    """The results so far, put together from the records of the committed phases."""
    return ResultsSoFar(run).collect()


class ResultsSoFar:
    """The results of a run as its phases are committed: each phase is looked at once."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._agents = agents_of(run.config.recipe)
        self._scheduled = {phase.name: phase for phase in schedule(run.config)}
        self._config = run.config.model_dump(mode="json")
        self._evaluations: list[Any] = []
        self._explorations: list[Any] = []
        self._pairs: list[Any] = []
        self._pulls: list[Any] = []
        self._phases: list[Any] = []
        self._evaluated, self._explored = Collapses(self._agents[0]), Collapses(self._agents[0])

    def collect(self) -> Results:
        """The results of all phases that are committed by now."""
        run, config, manifest = self._run, self._run.config, self._run.manifest
        for record in manifest.done[len(self._phases) :]:
            self._phases.append(phase_entry(record))
            if (phase := self._scheduled.get(record.name)) is not None:
                self._add(phase, record)
        parameters = manifest.record("prepare")
        return Results(
            name=config.name,
            method=config.method,
            seed=config.seed,
            env=config.env.name,
            config=self._config,
            agents=list(self._agents),
            parameters=parameters.records["parameters"] if parameters else 0,
            rounds=config.rounds,
            evaluations=list(self._evaluations),
            explorations=list(self._explorations),
            pairs=list(self._pairs),
            pulls=list(self._pulls),
            collapses=self._evaluated.found + self._explored.found,
            phases=list(self._phases),
            seconds=manifest.seconds,
            peak_memory_bytes=manifest.peak_memory_bytes or None,
            environment=run.environment(),
        )

    def _add(self, phase: Phase, record: PhaseRecord) -> None:
        """Take over what a committed phase says."""
        entry: dict[str, Any] = {"round": phase.round, "agent": phase.agent}
        summary = {"after_error": None} | record.records.get("summary", {})  # an earlier version had none
        if phase.kind == "evaluate":
            name = phase.collection.removeprefix("eval-")
            entry |= {"split": self._run.config.evaluate.split, **summary}
            entry |= {"name": name} if name != phase.agent else {}
            entry |= {"mark": phase.mark} if phase.mark else {}
            if phase.adapting is not None:
                entry |= {"test_feedback": record.records["adaptation"]}
            # All agents start as the same warm start.
            others = self._agents[1:] if phase.round == 0 else ()
            for one in (entry, *(entry | {"agent": agent} for agent in others)):
                self._evaluations.append(one)
                if evaluation_label(one) == one["agent"]:  # under other marks it is to fail
                    self._evaluated.add(one)
        elif phase.kind in ("explore", "branch"):
            entry |= {"phase": phase.name.rpartition("/")[2]}
            entry |= {
                key: record.records[key] for key in ("points", "points_by_turn") if key in record.records
            }
            self._explorations.append(entry | summary)
            if entry["phase"].startswith("explore_"):  # from tasks' starts
                self._explored.add(self._explorations[-1])
        elif phase.kind == "learn":
            self._pairs += [entry | kind for kind in record.records["pairs"]]
            if "pull" in record.records:  # not where there was nothing to learn from
                self._pulls.append(entry | record.records["pull"])


class Collapses:
    """Signs of collapse in a series of evaluations or explorations, agent by agent, in plain words.

    The other agents than the lead are there to make its negatives.
    """

    def __init__(self, lead: str) -> None:
        self.found: list[Any] = []
        self._lead = lead
        self._first: dict[str, Any] = {}
        self._last: dict[str, Any] = {}

    def add(self, entry: Any) -> None:
        """Look at the next one of the series."""
        agent = entry["agent"]
        makes_negatives = agent != self._lead
        last, first = self._last.get(agent), self._first.get(agent)
        why = detect_collapse(entry, last, first, makes_negatives=makes_negatives)
        if why:
            where = entry.get("phase", f"evaluation on {entry.get('split')}").replace("_", " ")
            self.found.append({"round": entry["round"], "agent": agent, "why": f"{where}: {why}"})
        self._first.setdefault(agent, entry)
        self._last[agent] = entry
