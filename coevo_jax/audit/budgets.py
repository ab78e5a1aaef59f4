"""Budgets: what a phase was asked to reach, what it reached, counted again, and where it stopped.

explored_tokens  blocks are played until the agents have written as many tokens, or none is left
learned_tokens   steps are taken until the rows that they put through the model hold as many tokens
pairs            as many pairs as can be learned from, and no more than asked for
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from coevo_jax.audit.check import Check, NotCheckable, differs, judge
from coevo_jax.audit.order import Phase, asked_of
from coevo_jax.audit.pairs import derive_pairs
from coevo_jax.audit.plans import tokens_in_order
from coevo_jax.audit.reading import RunFiles, rows_of, written

OF = {"explore": ("explored_tokens",), "learn": ("pairs", "learned_tokens")}


def budget_checks(files: RunFiles, phase: Phase) -> Iterator[Check]:
    """The line of a phase that has a budget, or says that it had one."""
    asked = {name: asked_of(files.config, phase, name) for name in OF[phase.kind]}
    if files.record(phase.name).get("budget") or any(total is not None for total in asked.values()):
        told: list[str] = []
        problems = budget_problems(files, phase, asked, told)
        yield judge(f"budget/{phase.name}", problems, lambda: "; ".join(told))


def budget_problems(
    files: RunFiles, phase: Phase, asked: dict[str, int | None], told: list[str]
) -> Iterator[str]:
    """Every total is recorded as it was asked for and reached, and was met where it could be."""
    recorded: dict[str, Any] = files.record(phase.name).get("budget", {})
    for name, total in asked.items():
        if total is None:
            yield from differs(f"{phase.name}: budget of {name}", recorded.get(name), None)
            continue
        count, what = COUNTED[name]
        parts, more = count(files, phase)
        reached = sum(parts)
        wanted = {"asked": total, "reached": reached}
        yield from differs(f"{phase.name}: budget of {name}", recorded.get(name), wanted)
        yield from _stop_problems(f"{phase.name}: {name}", parts, total, what, more)
        short = "" if reached >= total else ", too few: no more could be had"
        told.append(f"{reached:,} of {total:,} {name.replace('_', ' ')} asked for{short}")


def _stop_problems(where: str, parts: Sequence[int], asked: int, what: str, more: bool) -> Iterator[str]:
    """The last part is the first one with which the total was reached; it is not, where none is left."""
    totals = list(accumulate(parts))
    enough = next((n for n, total in enumerate(totals, start=1) if total >= asked), None)
    if enough is not None and enough < len(parts):
        yield f"{where}: found {len(parts)} {what}, expected {enough}: these hold the {asked} asked for"
    if enough is None and more:
        yield f"{where}: found {sum(parts)} and more to be had, expected {asked}"


def _explored(files: RunFiles, phase: Phase) -> tuple[list[int], bool]:
    """The tokens of each block that was played, and whether others were left."""
    paths = files.collection(phase.round, phase.collection)
    played = [path for path in paths if rows_of(path)]
    return [written(path) for path in played], len(played) < len(paths)


def _learned(files: RunFiles, phase: Phase) -> tuple[list[int], bool]:
    """The tokens of each step that was taken; there is always another one, where there is any."""
    if phase.plan not in files.files:
        return [], False
    plan = files.json(phase.plan)
    taken = files.records[phase.name]["position"]
    return tokens_in_order(plan)[:taken], bool(plan["steps"])


def _paired(files: RunFiles, phase: Phase) -> tuple[list[int], bool]:
    """A 1 for each stored pair, and whether more can be made."""
    lines = (files.folder / phase.pairs).read_text(encoding="utf-8").splitlines()
    try:
        most = len(derive_pairs(files, phase))
    except NotCheckable:
        most = len(lines)  # the check of the pairs says why
    return [1] * len(lines), len(lines) < most


COUNTED = {
    "explored_tokens": (_explored, "blocks"),
    "learned_tokens": (_learned, "steps"),
    "pairs": (_paired, "pairs"),
}
