"""A page of studies: its tables are written from rows into the places that the page has for them."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coevo_jax.config.strict import ConfigError, nearest
from coevo_jax.files import shipped
from coevo_jax.report.markdown import replace_table
from coevo_jax.study.room import base_records, ceiling_of, room_table
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

Make = Callable[["Sources", str], str]  # a part of a study's page


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What tables are made from: rows by their file, and the records of bases by their weights' digest."""

    files: Mapping[Path, Sequence[Row]]
    bases: Mapping[str, Any]

    def sample(self, study: str) -> Sample:
        """The rows of a study, of whatever file.

        Raises:
          ConfigError: a run has a row in two files, or rows cannot stand in one table.
        """
        rows: dict[tuple[str, int], Row] = {}
        for path, own in self.files.items():
            for row in own:
                key = row["method"], row["seed"]
                if row["study"] == study and key in rows:
                    raise ConfigError(
                        f"{path}: {study}-{key[0]}, seed {key[1]} has a row in another file, too"
                    )
                if row["study"] == study:
                    rows[key] = row
        return sample(study, list(rows.values()), configured(study))


def _of_rows(make: Callable[[Sample], str]) -> Make:
    """A part that needs the study's own rows alone."""
    return lambda sources, study: make(sources.sample(study))


def _room(sources: Sources, study: str) -> str:
    return room_table(sources.sample(study), sources.sample(ceiling_of(study)), sources.bases)


PARTS: dict[str, Make] = {
    "room": _room,
    "rewards": _of_rows(rewards_table),
    "differences": _of_rows(differences_table),
    "sampled": _of_rows(sampled_table),
    "test": _of_rows(held_out_table),
    "negatives": _of_rows(negatives_table),
    "second-agent": _of_rows(second_agent_table),
    "errors": _of_rows(errors_table),
    "costs": _of_rows(costs_table),
    "rows": _of_rows(provenance),
}
"""What a page has a place for, as `<!-- table:STUDY-PART -->`."""


def write_tables(page: Path, files: Mapping[Path, Sequence[Row]], bases: Path | None = None) -> list[str]:
    """Write every table that a page has a place for; returns their names.

    A study whose rows are not given, or has none yet, gets tables that say so.

    Args:
      bases: the folder of the bases that studies begin with; without one their own skills are left open.

    Raises:
      ConfigError: a place for no table that there is, or rows that cannot stand in one table.
    """
    places = re.findall(r"^<!-- table:(\S+) -->$", page.read_text(encoding="utf-8"), re.MULTILINE)
    names = {name: _split(name, page) for name in places}
    if not names:
        raise ConfigError(f"{page}: has no place for a table, expected lines <!-- table:STUDY-PART -->")
    sources = Sources(files=files, bases={} if bases is None else base_records(bases))
    texts = {name: PARTS[part](sources, study) for name, (study, part) in names.items()}
    for name, text in texts.items():  # once all of them could be made
        replace_table(name, text, page)
    return list(texts)


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
