"""The outer loop: the warm start, then the phases of a recipe, round by round.

A method is a recipe, not code: ETO has one agent, RFT no pairs, SFT no rounds. Agents are values: a phase is
given them and returns them.
"""

from typing import Any

from coevo_jax.config.recipe_queries import agents_of
from coevo_jax.config.remarks import remarks
from coevo_jax.episode_stats.summary import Summary, detect_collapse
from coevo_jax.phases.agents import restore_agents
from coevo_jax.phases.prepare import prepare
from coevo_jax.phases.proof import prove_tasks
from coevo_jax.phases.table import PHASES
from coevo_jax.phases.world import build_world
from coevo_jax.progress import CONSOLE, time_words
from coevo_jax.recipe import Phase, schedule
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
    run.show(collect_results(run))  # for who looks on before the first phase is over
    world = build_world(run.config, run.folder)
    try:
        prove_tasks(run, world)
        agents = restore_agents(run, world)
        for phase in schedule(run.config):
            if run.manifest.record(phase.name) is None:
                run.stop.end_if_asked()
                agents = PHASES[phase.kind](run, world, agents, phase)
                run.show(collect_results(run))
                if phase.round == 0:
                    _say_time_left(run, phase)
    finally:
        world.close()
    results = collect_results(run)
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
    config, manifest = run.config, run.manifest
    agents = agents_of(config.recipe)
    evaluations: list[Any] = []
    explorations: list[Any] = []
    pairs: list[Any] = []
    pulls: list[Any] = []
    for phase in schedule(config):
        record = manifest.record(phase.name)
        if record is None:
            continue
        entry = {"round": phase.round, "agent": phase.agent}
        summary = {"after_error": None} | record.records.get("summary", {})  # an earlier version had none
        if phase.kind == "evaluate":
            name = phase.collection.removeprefix("eval-")
            entry |= {"split": config.evaluate.split, **summary}
            entry |= {"name": name} if name != phase.agent else {}
            entry |= {"mark": phase.mark} if phase.mark else {}
            if phase.adapting is not None:
                entry |= {"test_feedback": record.records["adaptation"]}
            evaluations.append(entry)
            if phase.round == 0:  # all agents start as the same warm start
                evaluations += [entry | {"agent": agent} for agent in agents[1:]]
        elif phase.kind in ("explore", "branch"):
            entry |= {"phase": phase.name.rpartition("/")[2]}
            entry |= {
                key: record.records[key] for key in ("points", "points_by_turn") if key in record.records
            }
            explorations.append(entry | summary)
        elif phase.kind == "learn":
            pairs += [entry | kind for kind in record.records["pairs"]]
            if "pull" in record.records:  # not where there was nothing to learn from
                pulls.append(entry | record.records["pull"])
    from_start = [entry for entry in explorations if entry["phase"].startswith("explore_")]
    parameters = manifest.record("prepare")
    return Results(
        name=config.name,
        method=config.method,
        seed=config.seed,
        env=config.env.name,
        config=config.model_dump(mode="json"),
        agents=list(agents),
        parameters=parameters.records["parameters"] if parameters else 0,
        rounds=config.rounds,
        evaluations=evaluations,
        explorations=explorations,
        pairs=pairs,
        pulls=pulls,
        collapses=collapses(
            [e for e in evaluations if evaluation_label(e) == e["agent"]],  # under other marks it is to fail
            agents[0],
        )
        + collapses(from_start, agents[0]),
        phases=[phase_entry(record) for record in manifest.done],
        seconds=manifest.seconds,
        peak_memory_bytes=manifest.peak_memory_bytes or None,
        environment=run.environment(),
    )


def collapses(entries: list[Any], lead: str) -> list[Any]:
    """Signs of collapse in a series of evaluations or explorations, agent by agent, in plain words.

    The other agents than the lead are there to make its negatives.
    """
    found: list[Any] = []
    first: dict[str, Summary] = {}
    last: dict[str, Summary] = {}
    for entry in entries:
        agent = entry["agent"]
        why = detect_collapse(entry, last.get(agent), first.get(agent), makes_negatives=agent != lead)
        if why:
            where = entry.get("phase", f"evaluation on {entry.get('split')}").replace("_", " ")
            found.append({"round": entry["round"], "agent": agent, "why": f"{where}: {why}"})
        first.setdefault(agent, entry)
        last[agent] = entry
    return found
