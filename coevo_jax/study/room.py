"""The room that a study has: what its base, its floor and its ceiling earn, and what their failures do.

The floor is the warm start that all runs of a study begin with. The ceiling is the imitation of many more
experts, which no method has: a study of its own, called ceiling-STUDY, because its warm start is another.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from coevo_jax.config.strict import ConfigError
from coevo_jax.report.comparison import interval
from coevo_jax.report.markdown import cell, table
from coevo_jax.report.words import number
from coevo_jax.study.plan import weights_digest
from coevo_jax.study.rows import Row
from coevo_jax.study.sample import NOT_RUN, Sample, evaluation
from coevo_jax.study.why_tables import FAILURES, failure_cells

RECORD_FILE = "base.json"
Entry = Mapping[str, Any]


def ceiling_of(study: str) -> str:
    """The name of the study that measures another one's ceiling."""
    return f"ceiling-{study}"


def base_records(folder: Path) -> dict[str, Any]:
    """The records of the bases in a folder's folders, by the digest of their weights."""
    paths = sorted(folder.glob(f"*/{RECORD_FILE}"))
    records = {weights_digest(path.parent): json.loads(path.read_text(encoding="utf-8")) for path in paths}
    return {digest: record for digest, record in records.items() if digest is not None}


def room_table(sample: Sample, ceiling: Sample, bases: Mapping[str, Any]) -> str:
    """Reward, success and the failures' rewards of base, floor and ceiling, and of the first roll-outs.

    Raises:
      ConfigError: the ceiling's rows begin with another base than the study's, or played other tasks.
    """
    _check_ceiling(sample, ceiling)
    record = _base_of(sample, bases)
    base = [] if record is None else [(0, record["skills"]["base"]["summary"])]
    rows = [
        ("the base", base),
        ("floor: the warm start", _entries(sample, _start)),
        ("ceiling: many experts imitated", _entries(ceiling, _start)),
        ("the warm start's roll-outs on the training tasks, at temperature 1", _entries(sample, _explored)),
    ]
    header = ["", "reward", "success", *FAILURES]
    return table(header, [[name, *_cells(found, len(header) - 1)] for name, found in rows])


def _base_of(sample: Sample, bases: Mapping[str, Any]) -> Any:
    """The record of the base that the rows begin with; without rows, of the one made for the study."""
    if sample.rows:
        return bases.get(sample.rows[0]["base"])
    name = f"base-{sample.study}"
    return next((record for record in bases.values() if record["config"]["name"] == name), None)


def _cells(found: Sequence[tuple[int, Entry]], width: int) -> list[str]:
    """Means over seeds, and the failures of all seeds together."""
    if not found:
        return [NOT_RUN] * width
    means = [
        cell(interval({seed: entry[key] for seed, entry in found if entry[key] is not None}))
        if len(found) > 1
        else number(found[0][1][key])
        for key in ("mean_reward", "success_rate")
    ]
    return [*means, *failure_cells([entry for _, entry in found])]


def _entries(sample: Sample, find: Callable[[Row], Entry | None]) -> list[tuple[int, Entry]]:
    """What one finished row of each seed says of the beginning that the seed's runs share."""
    found: dict[int, Entry] = {}
    for row in sample.finished_rows:
        entry = find(row)
        if entry is not None:
            found.setdefault(row["seed"], entry)
    return sorted(found.items())


def _start(row: Row) -> Entry | None:
    return evaluation(row, 0)


def _explored(row: Row) -> Entry | None:
    """The lead's first roll-outs."""
    lead = row["agents"][0]
    own = (one for one in row["explorations"] if (one["round"], one["agent"]) == (1, lead))
    return next(own, None)


def _check_ceiling(sample: Sample, ceiling: Sample) -> None:
    ours, theirs = sample.finished_rows, ceiling.finished_rows
    if not ours or not theirs:
        return
    for what, found, expected in (
        ("base", theirs[0]["base"], ours[0]["base"]),
        ("tasks", *((_start(row) or {}).get("tasks") for row in (theirs[0], ours[0]))),
    ):
        if found != expected:
            raise ConfigError(
                f"rows of {ceiling.study}: {what}: found {found}, expected {expected} as in those of "
                f"{sample.study}: a ceiling is that of one base on the same tasks"
            )
