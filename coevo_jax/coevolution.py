"""The outer loop of co-evolution: warm start, then rounds of explore, learn and evaluate (arXiv 2511.22254).

A method is a config, not code: ETO has no failure agent, RFT no pairs, SFT no rounds.
"""

from typing import Any

from coevo_jax.episode_stats.summary import Summary, detect_collapse
from coevo_jax.phases.agents import restore_agents
from coevo_jax.phases.prepare import prepare
from coevo_jax.phases.table import PHASES
from coevo_jax.phases.world import build_world
from coevo_jax.run_folder.results import Results, save_results
from coevo_jax.run_folder.run import Run
from coevo_jax.run_folder.tensorboard import write_tensorboard
from coevo_jax.schedule import schedule


def coevolve(run: Run) -> Results:
    """Play every phase that is not yet committed; returns (and saves) the results.

    Raises:
      Stopped: the run was asked to end; what it did is committed.
    """
    prepare(run)
    world = build_world(run.config, run.folder)
    try:
        restore_agents(run, world)
        for phase in schedule(run.config):
            if run.manifest.record(phase.name) is None:
                run.stop.end_if_asked()
                PHASES[phase.kind](run, world, phase)
                if run.leads:
                    save_results(run.folder, collect_results(run))
                    write_tensorboard(run.folder)
    finally:
        world.close()
    results = collect_results(run)
    if run.leads:
        save_results(run.folder, results)
    return results


def collect_results(run: Run) -> Results:
    """The results so far, put together from the records of the committed phases."""
    config, manifest = run.config, run.manifest
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
            entry |= {"split": config.evaluate.split, **summary}
            evaluations.append(entry)
            if phase.round == 0 and config.failure.explore:  # both agents start as the same warm start
                evaluations.append(entry | {"agent": "failure"})
        elif phase.kind == "explore":
            name = phase.name.rpartition("/")[2]
            explorations.append(entry | {"phase": name, **summary})
        elif phase.kind == "learn":
            pairs += [entry | kind for kind in record.records["pairs"]]
            if "pull" in record.records:  # not where there was nothing to learn from
                pulls.append(entry | record.records["pull"])
    parameters = manifest.record("prepare")
    return Results(
        name=config.name,
        method=config.method,
        seed=config.seed,
        env=config.env.name,
        config=config.model_dump(mode="json"),
        parameters=parameters.records["parameters"] if parameters else 0,
        rounds=config.rounds,
        evaluations=evaluations,
        explorations=explorations,
        pairs=pairs,
        pulls=pulls,
        collapses=collapses(evaluations) + collapses(explorations),
        phases=[{"name": record.name, "seconds": record.seconds} for record in manifest.done],
        peak_memory_bytes=manifest.peak_memory_bytes or None,
        environment=run.environment(),
    )


def collapses(entries: list[Any]) -> list[Any]:
    """Signs of collapse in a series of evaluations or explorations, agent by agent, in plain words."""
    found: list[Any] = []
    first: dict[str, Summary] = {}
    last: dict[str, Summary] = {}
    for entry in entries:
        agent = entry["agent"]
        why = detect_collapse(entry, last.get(agent), first.get(agent), agent=agent)
        if why:
            where = entry.get("phase", f"evaluation on {entry.get('split')}").replace("_", " ")
            found.append({"round": entry["round"], "agent": agent, "why": f"{where}: {why}"})
        first.setdefault(agent, entry)
        last[agent] = entry
    return found
