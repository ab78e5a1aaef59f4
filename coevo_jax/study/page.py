"""A page of studies: its tables are written from rows into the places that the page has for them."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.files import shipped
from coevo_jax.report.markdown import replace_table
from coevo_jax.study.rows import Row
from coevo_jax.study.sample import Sample, sample
from coevo_jax.study.tables import differences_table, held_out_table, rewards_table, sampled_table
from coevo_jax.study.why_tables import (
    costs_table,
    errors_table,
    negatives_table,
    provenance,
    second_agent_table,
)

PARTS: dict[str, Callable[[Sample], str]] = {
    "rewards": rewards_table,
    "differences": differences_table,
    "sampled": sampled_table,
    "test": held_out_table,
    "negatives": negatives_table,
    "second-agent": second_agent_table,
    "errors": errors_table,
    "costs": costs_table,
    "rows": provenance,
}
"""What a page has a place for, as `<!-- table:STUDY-PART -->`."""


def write_tables(page: Path, files: Mapping[Path, Sequence[Row]]) -> list[str]:
    """Write every table that a page has a place for; returns their names.

    A study whose rows are not given, or has none yet, gets tables that say so.

    Raises:
      ConfigError: a place for no table that there is, or rows that cannot stand in one table.
    """
    places = re.findall(r"^<!-- table:(\S+) -->$", page.read_text(encoding="utf-8"), re.MULTILINE)
    names = {name: _split(name, page) for name in places}
    if not names:
        raise ConfigError(f"{page}: has no place for a table, expected lines <!-- table:STUDY-PART -->")
    studies = {study: _sample(study, files) for study, _ in names.values()}
    texts = {name: PARTS[part](studies[study]) for name, (study, part) in names.items()}
    for name, text in texts.items():  # once all of them could be made
        replace_table(name, text, page)
    return list(texts)


def _sample(study: str, files: Mapping[Path, Sequence[Row]]) -> Sample:
    rows: dict[tuple[str, int], Row] = {}
    for path, own in files.items():
        for row in own:
            key = row["method"], row["seed"]
            if row["study"] == study and key in rows:
                raise ConfigError(f"{path}: {study}-{key[0]}, seed {key[1]} has a row in another file, too")
            if row["study"] == study:
                rows[key] = row
    return sample(study, list(rows.values()), configured(study))


def configured(study: str) -> list[str]:
    """The methods that a study has shipped configs for."""
    paths = sorted(shipped("study").glob(f"{study}-*.yaml"))
    return [path.stem.removeprefix(f"{study}-") for path in paths]


def _split(name: str, page: Path) -> tuple[str, str]:
    """The study and the part that the name of a table means."""
    part = next((part for part in PARTS if name.endswith(f"-{part}")), None)
    if part is None:
        hint = nearest(name, [f"STUDY-{part}" for part in PARTS])
        raise ConfigError(f"{page}: table {name}: expected STUDY-PART, a part of {', '.join(PARTS)}{hint}")
    return name.removesuffix(f"-{part}"), part
