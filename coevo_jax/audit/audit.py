"""The audit of a run: every check, in the order of the run's phases."""

from collections.abc import Iterator
from pathlib import Path

from coevo_jax.audit.adaptation import adaptation_checks
from coevo_jax.audit.branches import branch_check
from coevo_jax.audit.budgets import budget_checks
from coevo_jax.audit.check import NO_DERIVATION, Check
from coevo_jax.audit.draws import draw_checks
from coevo_jax.audit.forward import Agents
from coevo_jax.audit.hints import hint_check
from coevo_jax.audit.judged import judged_check
from coevo_jax.audit.nonfinite import nonfinite_checks
from coevo_jax.audit.numbers import number_checks
from coevo_jax.audit.opening import SCORED
from coevo_jax.audit.order import Phase, finished
from coevo_jax.audit.pairs import counts, derive_all, derive_pairs, pair_check
from coevo_jax.audit.plans import plan_check
from coevo_jax.audit.questions import question_check
from coevo_jax.audit.reading import RunFiles, open_files
from coevo_jax.audit.reinforced_plans import reinforced_check
from coevo_jax.audit.report import Entry, report_checks
from coevo_jax.audit.tokens import token_checks
from coevo_jax.audit.whose import tasks_in, whose_checks


def run_audit(folder: Path, scored: int | None = SCORED) -> Iterator[Check]:
    """Check what a run's folder claims; nothing in it is touched.

    Args:
      scored: how many trajectories of each phase a checkpoint's agent scores again; None scores all.

    Raises:
      ConfigError: the folder is no run.
    """
    files = open_files(folder)
    tasks, agents = tasks_in(files), Agents(files=files)
    yield from whose_checks(files, tasks)
    for phase in finished(files, "branch"):
        yield branch_check(files, phase, tasks)
    for phase in finished(files, "ask"):
        yield question_check(files, phase)
    for phase in finished(files, "explore"):
        if phase.hints is not None:
            yield hint_check(files, phase)
    yield from token_checks(files, tasks, agents, scored)
    for phase in finished(files, "evaluate"):
        if phase.adapting is not None:
            yield from adaptation_checks(files, phase, tasks, agents, scored)
    for phase in finished(files, "explore"):
        yield from budget_checks(files, phase)
    pairs: list[Entry] = []
    for phase in finished(files, "judge"):
        yield from judged_check(files, phase, agents, scored)
    for phase in finished(files, "warm_start", "learn"):
        if phase.kind == "learn":
            yield pair_check(files, phase)
            pairs += _counts(files, phase)
            yield from budget_checks(files, phase)
            yield from _draws(files, phase, agents, scored)
        yield plan_check(files, phase, tasks)
        if phase.reinforces:
            yield reinforced_check(files, phase)
        yield from number_checks(files, phase, tasks, agents, scored)
    yield from nonfinite_checks(files)
    yield from report_checks(files, tasks, pairs)


def _draws(files: RunFiles, phase: Phase, agents: Agents, scored: int | None) -> Iterator[Check]:
    """The weak model of a learning and its draws, where the recipe has them."""
    if phase.beside is None:
        return
    try:
        lesson = derive_all(files, phase)
    except NO_DERIVATION as reason:
        yield Check(name=f"draws/{phase.name}", state="not checkable", words=str(reason))
        return
    places = dict.fromkeys(lesson.places[key] for key, _ in lesson.extras)
    candidates = [(place, lesson.sides[place]) for place in places]
    yield from draw_checks(files, phase, candidates, agents, scored)


def _counts(files: RunFiles, phase: Phase) -> list[Entry]:
    """The numbers of a phase's derived pairs; those it recorded where its files cannot be read."""
    try:
        rows = counts(derive_pairs(files, phase), phase)
    except NO_DERIVATION:
        rows = files.record(phase.name)["pairs"]
    return [{"round": phase.round, "agent": phase.agent} | row for row in rows]
