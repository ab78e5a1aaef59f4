"""The real InterCode-SQL tasks: Spider's 1034 development questions (arXiv 1809.08887, 2306.14898).

A folder holds `ic_spider_dev.json` and `ic_spider_dbs.sql`, as InterCode publishes them (CC BY-SA 4.0).
"""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from coevo_jax.config.strict import ConfigError, StrictModel, nearest, validate
from coevo_jax.envs.env import SPLITS, Task
from coevo_jax.envs.intercode_sql.mysql import Dump, MySqlSandbox, as_valid_mysql, open_dump
from coevo_jax.envs.intercode_sql.sqlite_sandbox import QueryLimits, SqlError
from coevo_jax.envs.intercode_sql.tasks import SqlTask, TaskSet, make_task_set
from coevo_jax.files import write_whole

QUESTIONS, DUMP = "ic_spider_dev.json", "ic_spider_dbs.sql"
TEST_SHARE, DEV_SHARE = 0.2, 0.1
# Not named streams: the split of real tasks stays as it was first drawn, so that results stay comparable.
SPLIT, ORDER = 3, 4
GOLD_SECONDS = 60.0
CHECK_VERSION = 2  # of what a gold query must do: raise it when the emulation changes


class SpiderRow(StrictModel):
    """A question of ic_spider_dev.json."""

    db: str
    """Name of the database."""
    gold: str = Field(min_length=1)
    """Query whose rows are the answer."""
    query: str = Field(min_length=1)
    """The question in words."""
    hardness: Literal["easy", "medium", "hard", "extra"]
    """Spider's class of the gold query."""
    db_tables: dict[str, tuple[str, ...]]
    """Tables and columns of the database."""


@dataclass(frozen=True, kw_only=True)
class Spider:
    """The tasks, and the databases they are about."""

    tasks: TaskSet
    dump: Dump


def load_spider(folder: str, seed: int, limits: QueryLimits) -> Spider:
    """The tasks of a folder, split by database; equal calls on unchanged files give the same object.

    Splits: the databases are shuffled by the seed; the first ones up to a fifth of the tasks are test, the
    next up to a tenth dev, the rest train. No database stands in two of them: dev and test are both unseen.
    With seed 0 and InterCode's files: train 621 tasks of 11 databases, dev 132 of 3, test 281 of 6. Task ids
    are "database/row", the row counted from 0 in the file; the family is Spider's hardness.

    Golds are run once per state of both files.

    Raises:
      ConfigError: a file is missing or broken, a database is unknown, or a gold query does not run within the
        limits.
    """
    root = Path(folder)
    if not root.is_dir():
        raise ConfigError(
            f"{folder}: found no folder, expected one with {QUESTIONS} and {DUMP} (spider_path)"
        )
    for name in (QUESTIONS, DUMP):
        if not (root / name).is_file():
            found = sorted(path.name for path in root.iterdir())
            raise ConfigError(
                f"{root / name}: not found, expected it in spider_path{nearest(name, found[:20])}"
            )
    stamps = tuple((root / name).stat().st_mtime_ns for name in (QUESTIONS, DUMP))
    return _load_once(str(root), seed, limits, stamps)


@functools.lru_cache(maxsize=4)
def _load_once(folder: str, seed: int, limits: QueryLimits, _stamps: tuple[int, ...]) -> Spider:
    path = Path(folder) / QUESTIONS
    content, rows = read_questions(path)
    dump = open_dump(Path(folder) / DUMP)
    names = dump.names
    for number, row in enumerate(rows):
        if row.db not in names:
            raise ConfigError(
                f"{path}: row {number}: db: found {row.db!r}, expected a database of {DUMP}"
                f"{nearest(row.db, names)}"
            )
    splits = split_databases({row.db: sum(one.db == row.db for one in rows) for row in rows}, seed, str(path))
    golds = _checked_golds(path, content, rows, dump, limits)
    tasks = [
        SqlTask(
            task=Task(id=f"{row.db}/{number}", split=splits[row.db], family=row.hardness),
            database=row.db,
            question=row.query,
            gold=golds[number],
        )
        for number, row in enumerate(rows)
    ]
    order = np.random.default_rng([seed, ORDER]).permutation(len(tasks))
    return Spider(tasks=make_task_set({}, [tasks[i] for i in order]), dump=dump)


def read_questions(path: Path) -> tuple[bytes, list[SpiderRow]]:
    """Content and rows of the question file.

    Raises:
      ConfigError: the file cannot be read, or a row is wrong; the message names the first one.
    """
    try:
        content = path.read_bytes()
        data = json.loads(content.decode("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: found no readable JSON ({error}), expected InterCode's question file"
        ) from None
    if not isinstance(data, list) or not data:
        raise ConfigError(f"{path}: found no list of questions, expected InterCode's question file")
    return content, [validate(SpiderRow, row, f"{path}: row {number}") for number, row in enumerate(data)]


def split_databases(counts: dict[str, int], seed: int, source: str) -> dict[str, str]:
    """The split of every database, drawn by the seed.

    Raises:
      ConfigError: there are fewer than three databases.
    """
    if len(counts) < len(SPLITS):
        raise ConfigError(
            f"{source}: found {len(counts)} databases, expected at least 3, one for every split"
        )
    names = sorted(counts)
    order = [names[i] for i in np.random.default_rng([seed, SPLIT]).permutation(len(names))]
    total, splits = sum(counts.values()), {}
    for split, share in (("test", TEST_SHARE), ("dev", DEV_SHARE)):
        taken = 0
        while taken < share * total and len(order) > (2 if split == "test" else 1):
            name = order.pop(0)
            splits[name] = split
            taken += counts[name]
    return splits | dict.fromkeys(order, "train")


def _checked_golds(
    path: Path, content: bytes, rows: Sequence[SpiderRow], dump: Dump, limits: QueryLimits
) -> list[str]:
    """The gold queries as valid MySQL; every one has run, and has fewer rows than the cap."""
    marker = (
        dump.folder / f"golds-{hashlib.sha256(content).hexdigest()[:32]}-{CHECK_VERSION}-{limits.rows}.json"
    )
    try:
        known = json.loads(marker.read_text(encoding="utf-8"))
        if isinstance(known, list) and len(known) == len(rows):
            return [str(gold) for gold in known]
    except (OSError, ValueError):
        pass  # not checked yet, or not whole: check
    golds = [as_valid_mysql(row.gold) for row in rows]
    generous = QueryLimits(rows=limits.rows, instructions=10 * limits.instructions, seconds=GOLD_SECONDS)
    for name in dump.names:
        sandbox = dump.open(name, generous)
        for number, row in enumerate(rows):
            if row.db == name:
                _check_gold(sandbox, golds[number], f"{path}: row {number}", limits)
        sandbox.close()
    write_whole(marker, json.dumps(golds, ensure_ascii=False))
    return golds


def _check_gold(sandbox: MySqlSandbox, gold: str, source: str, limits: QueryLimits) -> None:
    try:
        count = len(sandbox.run_gold(gold))
    except SqlError as error:
        raise ConfigError(
            f"{source}: gold: found {gold[:80]!r}, expected a query that runs: {error}"
        ) from None
    if count >= limits.rows:
        raise ConfigError(f"{source}: gold: found {limits.rows} or more rows, expected fewer than row_cap")
