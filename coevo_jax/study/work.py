"""What becomes of one run of a study: made, resumed or found; audited; and told as a row."""

import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coevo_jax.audit.audit import run_audit
from coevo_jax.coevolution import coevolve, collect_results
from coevo_jax.config.recipe_queries import agents_of, evaluations_of
from coevo_jax.config.strict import ConfigError
from coevo_jax.data.parquet import read_trajectories
from coevo_jax.phases.fault_watch import AgentBroken
from coevo_jax.progress import CONSOLE
from coevo_jax.report.html import write_report
from coevo_jax.run_folder.budget import resolve_budget
from coevo_jax.run_folder.fork import best_source, fork_run
from coevo_jax.run_folder.results import Results
from coevo_jax.run_folder.run import Run, create_run, open_run
from coevo_jax.run_folder.stopping import Stopped
from coevo_jax.stored.evaluate import evaluate_stored
from coevo_jax.study.measures import SUMMARY, audit_counts, head, measured, rounded, task_rewards
from coevo_jax.study.plan import Cell, is_finished
from coevo_jax.study.rows import FINISHED, LATER, Row
from coevo_jax.training.watched import LearningDiverged


def run_cell(cell: Cell, relatives: Sequence[Path]) -> Row:
    """Bring a cell's run to its end and its audit; whatever becomes of it, it is a row.

    Args:
      relatives: runs that the cell's may begin with.

    Raises:
      Stopped: a signal asked to end; what was done is committed.
    """
    began, cpu = time.monotonic(), time.process_time()
    row: Row = head(cell)
    try:
        results, how, diverged = _play(cell, relatives)
        row |= measured(cell.folder, results)
        row |= {"how": how, "audit": None, "why": diverged, "status": "diverged" if diverged else FINISHED}
        if not diverged:
            write_report(cell.folder)
            row["audit"] = counts = audit_counts(list(run_audit(cell.folder)))
            row["status"] = "broken" if counts["broken"] else FINISHED
    except Stopped:
        raise
    except Exception as error:  # a run that failed is a row, and the study goes on with the others
        traceback.print_exc()
        row |= {"status": "failed", "why": f"{type(error).__name__}: {error}"}
    spent = {"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - cpu}
    return row | {"spent": rounded(spent)}  # here and now, the audit among it; less where phases were shared


def play_later(cell: Cell, part: str) -> dict[str, Any]:
    """Play the agents of a finished run, those that its recipe evaluates, as a part of its row says.

    Returns the part of a row that says what came out.

    Raises:
      ConfigError: the run is not there, or not finished.
    """
    if not is_finished(cell.folder):
        raise ConfigError(f"{cell.folder}: no finished run, expected one that plays later")
    later = LATER[part]
    found = {}
    for agent in _evaluated(cell):
        summary, path = evaluate_stored(
            cell.folder, agent=agent, split=later.split, tasks=":", temperature=later.temperature, samples=1
        )
        own = {key: summary[key] for key in SUMMARY if key in summary}
        found[agent] = own | task_rewards(read_trajectories([path.with_suffix(".parquet")]))
    now = head(cell)
    return rounded(
        {key: now[key] for key in ("config", "base", "commit", "dirty", "date")} | {"agents": found}
    )


def _evaluated(cell: Cell) -> list[str]:
    """The agents that a recipe evaluates by their own names; the lead where it evaluates none."""
    recipe = cell.config.recipe
    named = {one.agent for one in evaluations_of(recipe)}
    return [agent for agent in agents_of(recipe) if agent in named] or [agents_of(recipe)[0]]


def _play(cell: Cell, relatives: Sequence[Path]) -> tuple[Results, str, str | None]:
    """The results of a cell's run, how it came to them, and where and why it diverged."""
    run, how = _open(cell, relatives)
    CONSOLE.print(f"\n{cell.folder}: {how}", soft_wrap=True)
    try:
        if how == "reused":
            return collect_results(run), how, None
        try:
            with run.stop:
                return coevolve(run), how, None
        except (LearningDiverged, AgentBroken) as error:
            results = collect_results(run)
            run.show(results)
            return results, how, str(error)
    finally:
        run.close()


def _open(cell: Cell, relatives: Sequence[Path]) -> tuple[Run, str]:
    if cell.folder.exists():
        return open_run(cell.folder), "reused" if is_finished(cell.folder) else "resumed"
    config = resolve_budget(cell.config)
    source = best_source([folder for folder in relatives if is_finished(folder)], config)
    return (create_run(config), "made") if source is None else (fork_run(source, config), "forked")
